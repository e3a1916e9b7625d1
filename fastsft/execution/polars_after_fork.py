"""Whether Polars can be used: forked from a process in which it is at work, it waits for ever for threads it lacks."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fastsft.errors import FailedRun

_polars_at_work = False  # in the process that this one was forked from last
_lost_polars = False


def _before_fork() -> None:
    global _polars_at_work
    _polars_at_work = "polars" in sys.modules and _has_threads_of_polars()


def _after_fork() -> None:
    global _lost_polars
    _lost_polars = _lost_polars or _polars_at_work


def _has_threads_of_polars() -> bool:
    try:
        names = [Path("/proc/self/task", task, "comm").read_text() for task in os.listdir("/proc/self/task")]
    except OSError:  # not Linux, or a thread that has just ended
        return True
    return any(name.startswith("polars-") and name[len("polars-") :].strip().isdigit() for name in names)


os.register_at_fork(before=_before_fork, after_in_child=_after_fork)


def polars_works() -> bool:
    """Tell whether Polars can be used in this process."""
    return not _lost_polars


def check_polars() -> None:
    """Make sure that Polars can be used, before it waits.

    Raises:
        FailedRun: This process was forked from one in which it was at work.
    """
    if _lost_polars:
        problem = "this process was forked from one in which Polars was at work, which it does not survive"
        raise FailedRun(f"{problem}: start it with the method spawn or forkserver; nothing was published")
