"""What all functions of the library do alike with their arguments."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from fastsft.errors import UsageError
from fastsft.options import (
    declared,
    keyword_of,
)
from fastsft.report import Progress
from fastsft.storage.urls import is_remote


def paths_of(inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str | os.PathLike[str]]:
    """Return one or several paths as a list.

    Raises:
        UsageError: One is no path.
    """
    one = isinstance(inputs, (str, bytes, os.PathLike)) or not isinstance(inputs, Iterable)
    paths: list[Any] = [inputs] if one else list(inputs)  # type: ignore[arg-type] # as just asked
    if wrong := [path for path in paths if not isinstance(path, (str, os.PathLike))]:
        raise UsageError(f"an input is a path, as text or a pathlib.Path, not {wrong[0]!r}")
    for path in paths:
        is_remote(path)  # which knows a URL that was made a Path
    return paths


def check_keywords(options: Mapping[str, Any]) -> None:
    """Make sure that `convert` has all of these options.

    Raises:
        UsageError: It has not.
    """
    known = {keyword_of(name) for name, setting in declared().items() if "convert" in setting.commands}
    if unknown := sorted(set(options) - known):
        raise UsageError(f"no option {unknown[0]!r}; there are: {', '.join(sorted(known))}")


@contextlib.contextmanager
def logged(log: bool, on_progress: Callable[[Progress], None] | None) -> Iterator[Callable[[Progress], None] | None]:
    """Return what is called with how far a run is, for the log and for whoever asked."""
    if not log:
        yield on_progress
        return
    from fastsft.views.progress import ProgressLog

    with ProgressLog() as lines:

        def both(progress: Progress) -> None:
            lines.show(progress)
            if on_progress:
                on_progress(progress)

        yield both
