"""The signals that ask a run to stop, and when they have to wait or come too late."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

ASKING_TO_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def signals_later() -> Iterator[None]:
    """Let them wait until what must be done whole is done; threads that are started meanwhile never get any."""
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
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)
