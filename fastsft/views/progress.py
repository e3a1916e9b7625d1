"""How far a run is, on one line of a terminal."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from fastsft.views.terminal import columns_of_stderr, size_of

if TYPE_CHECKING:
    from fastsft.report import Progress

_BAR_COLUMNS = 78


class ProgressBar:
    """Input bytes, rows and rate on one line of a terminal; nothing where stderr is none, or too narrow for one line.

    Use it in a `with` block.
    """

    def __init__(self, *, hidden: bool) -> None:
        self._hidden = hidden or not (sys.stderr and sys.stderr.isatty()) or columns_of_stderr() < _BAR_COLUMNS
        self._bar: Any = None
        self._started = self._drawn = time.monotonic()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.render_progress()  # of the last update, which it may have left for later
            self._bar.render_finish()

    def show(self, progress: Progress) -> None:
        """Draw how far the run is."""
        if self._hidden:
            return
        length = max(progress.total_nbytes, 1)
        if self._bar is None or self._bar.length != length:  # of the first files, or of others
            import typer

            self.__exit__()
            self._bar = typer.progressbar(length=length, file=sys.stderr, width=16)
            self._started = self._drawn
        self._drawn = time.monotonic()
        seconds = max(self._drawn - self._started, 0.001)
        rate = f"{size_of(progress.nbytes / seconds)}/s"
        self._bar.label = f"{size_of(progress.nbytes):>8} {rate:>10} {progress.rows:>11,} rows"
        self._bar.update(progress.nbytes - self._bar.pos)
