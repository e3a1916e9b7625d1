"""The command: its signals, its errors as sentences, its exit codes; what it can do is in `app.py`."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn

from fastsft.errors import FailedRun, FastsftError, Stopped, failures_told
from fastsft.escape import escaped
from fastsft.execution.memory import keep_freed_memory
from fastsft.execution.signals import ASKING_TO_STOP
from fastsft.views.colour import paint_for

_SECONDS_UNTIL_AGAIN = 0.001  # to be out of the callback


def main() -> NoReturn:
    """Run the command, and exit with one of the codes that README lists."""
    keep_freed_memory()
    gc.set_threshold(100_000)  # hardly ever while modules are imported: a small run takes 0.27 s where it took 0.29
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy, which joblib imports, starts threads that spin
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="backslashreplace")  # a terminal of another encoding loses no summary
    for number in ASKING_TO_STOP:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` leaves it, or a script's `&`
            signal.signal(number, _stop)
    sys.unraisablehook = _stop_again
    try:
        with failures_told():
            from fastsft.cli.app import run

            code = run()
    except FastsftError as error:
        code = error.exit_code
        if isinstance(error, FailedRun) and error.report is not None and sys.stderr:
            from fastsft.views.summary import summary_of

            print(summary_of(error.report), file=sys.stderr)
        _complain(error.problem, *error.more)
    except OSError as error:  # a folder that may not be looked into, or help onto a full disk
        code = 1
        _complain(f"{os.fsdecode(error.filename) if error.filename else 'cannot write'}: {error.strerror or error}")
    except KeyboardInterrupt:  # one that came before there was a handler
        code = 128 + signal.SIGINT
        _complain("interrupted; nothing was published")
    except Stopped as stopped:
        code = 128 + stopped.number
        what = "interrupted" if stopped.number == signal.SIGINT else f"stopped by {signal.Signals(stopped.number).name}"
        more = "; the same command goes on from what was done" if stopped.keeps_receipts else ""
        _complain(f"{what}; nothing was published{more}")
    _leave(code)


def _leave(code: int) -> NoReturn:
    """End the process, at once if no thread is left: taking the interpreter apart costs a small run 0.08 s of 0.4."""
    signal.setitimer(signal.ITIMER_REAL, 0)  # Python drops its handlers on its way out, and an alarm would kill it
    sys.unraisablehook = sys.__unraisablehook__
    for number in ASKING_TO_STOP:  # what was asked for is done; a signal ends what is left
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if threading.active_count() > 1:
        sys.exit(code)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except BrokenPipeError:
            continue  # nobody reads any more, which is no error
        except OSError:
            code = code or 1
    os._exit(code)


def _complain(*lines: str) -> None:
    if sys.stderr:
        named = paint_for(sys.stderr)("fastsft:", "bold red")
        print("\n  ".join([f"{named} {escaped(lines[0])}", *map(escaped, lines[1:])]), file=sys.stderr)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise Stopped(number)


def _stop_again(lost: sys.UnraisableHookArgs) -> None:
    """Ask once more to stop where that was asked in a callback or a finalizer, from which nothing is raised.

    Imports have such callbacks: of 150 runs that got a SIGINT in their first half second, two went on to the end.
    """
    stop = lost.exc_value
    if not isinstance(stop, Stopped):
        sys.__unraisablehook__(lost)
        return

    number = stop.number
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), number))
    signal.setitimer(signal.ITIMER_REAL, _SECONDS_UNTIL_AGAIN)
