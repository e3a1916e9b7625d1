"""The signals that ask a run to stop, and when they have to wait or come too late."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

ASKING_TO_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def signals_later() -> Iterator[None]:
    """Let them wait until what must be done whole is done.

    Blocking them would not do where there are threads, of which any may be given a signal that the main one answers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread runs handlers
        return
    came: list[int] = []
    handlers = {number: signal.signal(number, lambda number, _: came.append(number)) for number in ASKING_TO_STOP}
    try:
        yield
    finally:
        _put_back(handlers)
        for number in came[:1]:
            signal.raise_signal(number)


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Block them while this, the only thread, starts processes and threads; the threads never get any then."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKING_TO_STOP)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def signals_too_late() -> Iterator[None]:
    """Ignore them while files get their names and the run is put away: milliseconds."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread runs handlers
        return
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in ASKING_TO_STOP}
    try:
        yield
    finally:
        _put_back(handlers)


def _put_back(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        if handler is not None:
            signal.signal(number, handler)
