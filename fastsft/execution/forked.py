"""Worker processes forked from this one, for where that is safe: they start with all that it has imported.

A new process imports everything again, which takes 0.45 s of a core each, a third of all
the work there is in converting 1 GB. `workers.py` puts joblib in front of them.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Set
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeAlias

from fastsft.errors import FailedRun
from fastsft.execution.signals import signals_blocked

_Begin: TypeAlias = Callable[[int], None]


class ForkedPool:
    """So many processes, forked now, from the one thread that there is. `end` must follow."""

    def __init__(self, jobs: int, begin: _Begin) -> None:
        self.jobs = jobs
        others = set(multiprocessing.active_children())
        context = multiprocessing.get_context("fork")
        self._pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=begin, initargs=(os.getpid(),))
        self._watch: threading.Thread | None = None
        # A signal waits until each process has begun, as it would find the parent's handlers there.
        try:
            with signals_blocked():
                try:
                    self._pool.submit(os.getpid)  # starts all of them, before it starts threads of its own
                finally:
                    self._processes = set(multiprocessing.active_children()) - others
                results = self._pool._result_queue._writer  # type: ignore[attr-defined] # nothing public closes it
                watch = threading.Thread(target=_end_with_one, args=(jobs, self._processes, results), daemon=True)
                watch.start()
                self._watch = watch
        except BaseException:
            with contextlib.suppress(RuntimeError):  # of a thread of the pool's that the system would not start
                self.end()
            raise

    def submit(self, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have a task done by whichever process is free first."""
        return self._pool.submit(task, *arguments)

    def end(self) -> None:
        """End the processes at once: what they have to do, nobody waits for any more."""
        for process in self._processes:
            process.kill()
        if self._watch:
            self._watch.join()
        self._pool.shutdown(cancel_futures=True)


def _end_with_one(jobs: int, processes: Set[BaseProcess], results: Connection) -> None:
    """As soon as one process is gone, end all, and have the pool wait for nothing more from them.

    One that was killed as soon as it began is not among them.

    Results go through a pipe of which the pool holds this end too, so by itself it waits for ever for the rest of one
    whose writer was killed (https://github.com/omnilib/aiomultiprocess/issues/98 tells it of another pool).
    """
    if len(processes) == jobs:
        wait([process.sentinel for process in processes])
    for process in processes:
        process.kill()
    results.close()


def forked_pool(jobs: int, begin: _Begin) -> ForkedPool | None:
    """Fork so many processes; give None for one, or where none may be forked.

    Raises:
        FailedRun: The system would not start them.
    """
    if jobs == 1 or not may_fork():
        return None
    try:
        return ForkedPool(jobs, begin)
    except (OSError, RuntimeError) as error:  # of processes, or of threads
        problem = f"cannot start {jobs} worker processes: {getattr(error, 'strerror', None) or error}"
        raise FailedRun(f"{problem} (fewer --jobs need less); nothing was published") from None


def may_fork() -> bool:
    """Tell whether this process may be forked: it has one thread, and nobody has chosen a backend of joblib's.

    Importing Polars starts threads, so that must not have happened; choosing a backend takes importing joblib.
    """
    try:
        threads = os.listdir("/proc/self/task")
    except OSError:  # not Linux, and other systems' own libraries start threads
        return False
    return len(threads) == 1 and "joblib" not in sys.modules


def results_of(items: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]]) -> list[Any]:
    """Do tasks one after another; here, where processes find it without importing joblib, 0.15 s of a core each."""
    return [task(*arguments, **keywords) for task, arguments, keywords in items]
