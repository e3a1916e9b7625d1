"""Chunks through joblib's worker processes, results in input order.

Rows come back through files, not through the pipe: results that wait for a slow
chunk before them stay small, and the parent's memory flat. A task may run twice
(Ray and Dask do that), so what it leaves behind is the same whoever leaves it, and how often.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import BrokenExecutor
from typing import Any

import joblib

from fastsft.errors import FailedRun
from fastsft.report import Converted
from fastsft.shards import Chunk

_WAVE_TASKS_PER_JOB = 16


def cores() -> int:
    """Count the cores that this process may use, as its affinity and its container say."""
    return int(joblib.cpu_count())


def in_order(convert: Callable[[int, Chunk], Converted], chunks: Iterable[Chunk], *, jobs: int) -> Iterator[Converted]:
    """Convert chunks, each with its index, in worker processes, and give the results in the order of the chunks.

    Raises:
        FailedRun: A worker was killed.
    """
    work = joblib.delayed(_in_worker)
    results = _results((work(convert, index, chunk, os.getpid()) for index, chunk in enumerate(chunks)), jobs)
    try:
        for converted in results:  # noqa: UP028 - `yield from` would close them outside the `finally` below
            yield converted
    except BrokenExecutor:
        problem = "a worker process was killed, perhaps for lack of memory (fewer --jobs need less)"
        raise FailedRun(f"{problem}; nothing was published") from None
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that tasks are cancelled is what is meant
            results.close()  # stops the workers if the run ends early


def _results(tasks: Iterator[Any], jobs: int) -> Generator[Converted, None, None]:
    """Run tasks on joblib's backend: loky, or what `joblib.parallel_config` chose."""
    try:
        parallel = joblib.Parallel(n_jobs=jobs, return_as="generator", batch_size=1, max_nbytes=None)
    except ValueError:  # Ray and multiprocessing give whole lists alone, so the work is cut into waves
        parallel = joblib.Parallel(n_jobs=jobs, batch_size=1, max_nbytes=None)
        while wave := list(itertools.islice(tasks, _WAVE_TASKS_PER_JOB * jobs)):
            yield from parallel(wave)
        return
    yield from parallel(tasks)


def _in_worker(convert: Callable[[int, Chunk], Converted], index: int, chunk: Chunk, parent: int) -> Converted:
    _settle_in(parent)
    return convert(index, chunk)


_settled = False


def _settle_in(parent: int) -> None:
    """Make this process a good worker of that parent, the first time that it works for it."""
    global _settled
    if _settled or os.getpid() == parent or os.getppid() != parent:
        return  # a thread, or a worker of another machine or scheduler, which looks after its own
    _settled = True
    os.environ.setdefault("POLARS_MAX_THREADS", "1")  # read when polars is imported; the workers are the threads
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent answers it

    def end_with_parent() -> None:
        while os.getppid() == parent:  # a killed parent cannot say so, and joblib's workers would go on
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
