"""How far a run is: on one line of a terminal, or as a line a minute in a log."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from fastsft.views.colour import Paint, paint_for, plain
from fastsft.views.terminal import columns_of, size_of

if TYPE_CHECKING:
    from fastsft.report import Progress

_DRAW_SECONDS = 0.1  # between two draws of one phase
_LOG_SECONDS = 60.0  # between two lines of one phase
_RATE_SECONDS = 30.0  # over which the rate is taken: what an interrupted run left is done at once, and soon forgotten
_SOON_SECONDS = 1.0  # until the time left is worth telling
_LEAST_BAR, _MOST_BAR = 8, 24  # characters
_WITHOUT_ROWS = ("scan", "choose")
# What a line tells beside the phase and how much of it is done, from the fullest on.
_FORMS: tuple[tuple[str, ...], ...] = (
    ("bar", "size", "rate", "rows", "left"),
    ("bar", "rate", "rows", "left"),
    ("bar", "rows", "left"),
    ("rows", "left"),
    ("bar", "left"),
    ("left",),
    (),
)

Clock = Callable[[], float]


class Pace:
    """How long a phase takes: what is done by which second, of the last half minute."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque()
        self._phase = ("", 0)
        self.started = self.now = clock()

    def take(self, progress: Progress) -> bool:
        """Take in how far the run is, and tell whether a phase begins."""
        self.now = self._clock()
        done, phase = progress.phase_nbytes, (progress.phase, progress.phase_total_nbytes)
        begins = phase != self._phase or bool(self._samples and done < self._samples[-1][1])
        if begins:
            self._phase = phase
            self._samples.clear()
        self._samples.append((self.now, done))
        while len(self._samples) > 2 and self._samples[0][0] < self.now - _RATE_SECONDS:
            self._samples.popleft()
        return begins

    @property
    def nbytes_per_second(self) -> float:
        """The bytes a second of late; 0 before anything is done."""
        (before, less), (now, more) = self._samples[0], self._samples[-1]
        return (more - less) / (now - before) if now > before else 0.0

    def seconds_left(self, progress: Progress) -> float | None:
        """Return how long the phase still takes at this pace; None at its end, and where that is not known yet."""
        rate = self.nbytes_per_second
        if (
            not rate
            or progress.phase_nbytes >= progress.phase_total_nbytes
            or self.now - self._samples[0][0] < _SOON_SECONDS
        ):
            return None
        return (progress.phase_total_nbytes - progress.phase_nbytes) / rate


class ProgressLine:
    """The phase, a bar, bytes, rate, rows and the time left on one line of a terminal, as far as there is room.

    It draws nothing where stderr is no terminal. Use it in a `with` block, at whose end the line is gone.
    """

    def __init__(self, *, hidden: bool, clock: Clock = time.monotonic) -> None:
        dumb = os.environ.get("TERM") == "dumb"
        self._hidden = hidden or dumb or not (sys.stderr and sys.stderr.isatty())
        self._pace = Pace(clock)
        self._drawn: float | None = None

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._drawn is not None:
            self._write("")

    def show(self, progress: Progress) -> None:
        """Draw how far the run is, ten times a second at most."""
        if self._hidden:
            return
        begins = self._pace.take(progress)
        is_done = progress.phase_nbytes == progress.phase_total_nbytes
        if begins or is_done or self._drawn is None or self._pace.now - self._drawn >= _DRAW_SECONDS:
            self._drawn = self._pace.now
            self._write(drawn(progress, self._pace, columns_of(sys.stderr) - 1, paint_for(sys.stderr)))

    def _write(self, line: str) -> None:
        with contextlib.suppress(OSError):  # a terminal that is gone fails no run
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()


class ProgressLog:
    """A line on stderr where a phase begins, each minute, and at the end, for a run that goes to a file.

    A line comes when a span is done, so not while one takes longer. Use it in a `with` block.
    """

    def __init__(self, *, clock: Clock = time.monotonic, wall_clock: Clock = time.time) -> None:
        self._clock, self._wall_clock = clock, wall_clock
        self._pace = Pace(clock)
        self._written = 0.0
        self._last: Progress | None = None

    def __enter__(self) -> ProgressLog:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        seconds = time_of(self._clock() - self._pace.started)
        rows = f", {self._last.rows:,} rows" if self._last and self._last.rows and not kind else ""
        self._write(f"{'stopped after' if kind else 'done in'} {seconds}{rows}")

    def show(self, progress: Progress) -> None:
        """Write how far the run is, unless that was written less than a minute ago."""
        self._last = progress
        if self._pace.take(progress) or self._pace.now - self._written >= _LOG_SECONDS:
            self._written = self._pace.now
            self._write(", ".join([label_of(progress), *parts_of(progress, self._pace).values()]))

    def _write(self, line: str) -> None:
        if sys.stderr:
            with contextlib.suppress(OSError):
                now = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._wall_clock()))
                sys.stderr.write(f"{now} fastsft: {line}\n")
                sys.stderr.flush()


def drawn(progress: Progress, pace: Pace, columns: int, paint: Paint = plain) -> str:
    """Write how far a run is in at most so many columns: the fullest of the forms that fits."""
    label, parts, total = label_of(progress), parts_of(progress, pace), progress.phase_total_nbytes
    for form in _FORMS:
        has_bar = bool(total) and "bar" in form
        told = "".join(f", {text}" for name, text in parts.items() if name in form)
        room = columns - len(label) - len(told) - (len(" []") if has_bar else 0)
        if room < (_LEAST_BAR if has_bar else 0):
            continue
        if not has_bar:
            return label + told
        width = min(room, _MOST_BAR)
        filled = width * progress.phase_nbytes // total
        return f"{label} [{paint('#' * filled, 'green')}{'-' * (width - filled)}]{told}"
    return label[:columns]


def label_of(progress: Progress) -> str:
    """Name a phase, which of several passes it is, and how much of it is done: `scan 1/2  50%`."""
    label, total = progress.phase, progress.phase_total_nbytes
    if len(progress.phases) > 1 and progress.phase in progress.phases:
        label += f" {progress.phases.index(progress.phase) + 1}/{len(progress.phases)}"
    return f"{label} {progress.phase_nbytes / total:>4.0%}" if total else label


def parts_of(progress: Progress, pace: Pace) -> dict[str, str]:
    """Write what there is to tell of a phase, in the order of telling."""
    parts = {}
    if progress.phase_total_nbytes:
        parts["size"] = f"{size_of(progress.phase_nbytes)} of {size_of(progress.phase_total_nbytes)}"
    if progress.phase_total_nbytes and pace.nbytes_per_second:
        parts["rate"] = f"{size_of(pace.nbytes_per_second)}/s"
    if progress.phase not in _WITHOUT_ROWS:
        parts["rows"] = f"{progress.rows:,} rows"
    if (seconds := pace.seconds_left(progress)) is not None:
        parts["left"] = f"{time_of(seconds)} left"
    return parts


def time_of(seconds: float) -> str:
    """Write a time for a person.

    >>> time_of(9.6), time_of(3725)
    ('0:10', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
