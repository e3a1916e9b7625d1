"""The command: its signals, its errors as sentences, its exit codes; what it can do stands in `commands/`."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from types import FrameType
from typing import NoReturn

from fastsft.errors import FailedRun, FastsftError, Stopped
from fastsft.escape import escaped
from fastsft.memory import keep_freed_memory
from fastsft.options import Options
from fastsft.pipeline import jobs_for
from fastsft.shards import Shard
from fastsft.workers import begin_workers, end_workers

_LOOKED_AT = 1000  # files, of perhaps a million


def main() -> NoReturn:
    """Run the command, and exit with one of the codes that README lists."""
    keep_freed_memory()
    gc.set_threshold(100_000)  # hardly ever while modules are imported: a small run takes 0.27 s where it took 0.29
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy, which joblib imports, starts threads that spin
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="backslashreplace")  # a terminal of another encoding loses no summary
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` leaves it
            signal.signal(number, _stop)
    try:
        # While the words are read, by typer with pydantic in 0.1 s of one core, workers import Polars on the others:
        # 1.07 times as fast a run of 1 GB, 1.15 of 150 MB.
        begin_workers(expected_jobs(sys.argv[1:]))
        from fastsft.commands import run

        code = run()
    except FastsftError as error:
        code = error.exit_code
        if isinstance(error, FailedRun) and error.report is not None and sys.stderr:
            from fastsft.terminal import summary_of

            print(summary_of(error.report), file=sys.stderr)
        _complain(str(error))
    except OSError as error:  # help onto a full disk, say
        code = 1
        _complain(f"cannot write: {error.strerror}")
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except Stopped as stopped:
        code = 128 + stopped.number
        _complain(f"stopped by {signal.Signals(stopped.number).name}; nothing was published")
    if code == 128 + signal.SIGINT:  # typer turns a KeyboardInterrupt into this code
        _complain("interrupted; nothing was published")
    end_workers()
    _leave(code)


def expected_jobs(words: Sequence[str]) -> int:
    """Guess from the words, unread, how many workers `convert` will have: a wrong guess costs their time alone."""
    if words[:1] != ["convert"]:
        return 1
    jobs = None
    for before, word in pairwise(words):
        if word.startswith("--jobs=") or before == "--jobs":
            with contextlib.suppress(ValueError):
                jobs = max(1, int(word.removeprefix("--jobs=")))
    return jobs_for(list(islice(_files_named(words), _LOOKED_AT)), Options(jobs=jobs))


def _files_named(words: Iterable[str]) -> Iterator[Shard]:
    for word in words:
        with contextlib.suppress(OSError):
            paths = (entry.path for entry in os.scandir(word)) if os.path.isdir(word) else [word]
            for path in paths:
                if ".jsonl" in path:
                    yield Shard(path, os.path.getsize(path), 0)


def _leave(code: int) -> NoReturn:
    """End the process, at once if no thread is left: taking the interpreter apart costs a small run 0.08 s of 0.4."""
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


def _complain(problem: str) -> None:
    if sys.stderr:
        print(f"fastsft: {escaped(problem, keep=chr(10))}", file=sys.stderr)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise Stopped(number)
