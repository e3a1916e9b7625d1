"""Tasks through joblib's worker processes, results in input order.

What comes back is small: a receipt, or a path. A task may run twice (Ray and Dask do that), so what it leaves behind
is the same whoever leaves it, and how often.

The processes are forked from this one where it may be forked, else joblib's: loky's, or
those of the backend that `joblib.parallel_config` chose.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import BrokenExecutor
from functools import partial
from typing import Any, TypeVar

from fastsft.errors import KeepsReceipts, failures_told
from fastsft.execution.forked import TASKS_AHEAD, ForkedPool, LostWorker, forked_pool, start_pool
from fastsft.execution.memory import keep_freed_memory
from fastsft.execution.signals import ASKING_TO_STOP

T = TypeVar("T")
R = TypeVar("R")

# Starting workers and importing joblib takes about as long as one process takes for this much.
WORKERS_PAY_FROM_NBYTES = 96 * 1024 * 1024
_WAVE_TASKS_PER_JOB = 16
_CGROUP_LIMIT = "/sys/fs/cgroup/cpu.max"
_SECONDS_BETWEEN_LOOKS = 0.5  # at whether the parent still lives


def cores() -> int:
    """Count the cores that this process may use, as its affinity and its container say.

    Not `joblib.cpu_count`: importing joblib takes 0.1 s, and with numpy beside it starts a thread.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open(_CGROUP_LIMIT, encoding="ascii") as file:
            quota, period = file.read().split()
        return max(1, min(count, -(-int(quota) // int(period))))
    except (OSError, ValueError):  # no container, or "max": no limit
        return count


def jobs_for(asked: int | None, *, nbytes: int, tasks: int) -> int:
    """Return how many processes are asked for, or pay for so many bytes of input, decompressed, in so many tasks."""
    if asked is None:
        asked = 1 if nbytes < WORKERS_PAY_FROM_NBYTES else cores()
    return max(1, min(asked, tasks))


class Workers:
    """So many worker processes, for as many rounds of tasks as a run has. Use it in a `with` block.

    With `selects`, there is one more where they are forked, for `run_alone`. A forked one that does one task for
    longer than `stall_seconds` is lost, as is one that is killed; others do what it was sent.
    """

    def __init__(self, jobs: int, *, selects: bool = False, stall_seconds: float | None = None) -> None:
        # A worker of a `multiprocessing.Pool` is a daemon, which may have no processes of its own.
        self.jobs = 1 if multiprocessing.current_process().daemon else jobs
        self._forked = forked_pool(self.jobs, _init_worker, stall_seconds)
        self.losses = self._forked.losses if self._forked else []
        self._selector: ForkedPool | None = None
        if self._forked and selects:
            try:
                self._selector = start_pool(1, _init_process)
            except BaseException:
                self.end()
                raise

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End the processes; harmless the second time."""
        pools, self._forked, self._selector = (self._forked, self._selector), None, None
        for pool in filter(None, pools):
            pool.end()

    def run_alone(self, task: Callable[[], R]) -> R:
        """Do one task while the workers wait: what it holds and takes is not this process's, where another does it.

        Raises:
            KeepsReceipts: The other was killed.
        """
        if self._selector is None:
            return task()
        with _killed_told():
            future = self._selector.submit("choosing", task)
            self._selector.wait_for(future)
            return future.result()  # type: ignore[no-any-return] # what the task returns

    def in_order(self, work: Callable[[int, T], R], items: Iterable[T], *, what: str = "file") -> Iterator[R]:
        """Do work on items, each with its index, and give the results in the order of the items.

        `what` an item is is said of one whose worker was lost.

        Raises:
            KeepsReceipts: A worker was killed.
        """
        if self.jobs == 1:
            for index, item in enumerate(items):
                yield work(index, item)
            return
        tasks = (
            partial(_in_worker, _name_of(what, index, item), work, index, item, os.getpid())
            for index, item in enumerate(items)
        )
        with _killed_told(), _closed(self._results(tasks)) as results:
            yield from results

    def _results(self, tasks: Iterator[partial[R]]) -> Generator[R, None, None]:
        """Run tasks on joblib's backend: the forked workers, loky, or what `joblib.parallel_config` chose."""
        # The first tasks begin while joblib is imported, which takes 0.1 s, and with numpy beside it 0.2.
        count = TASKS_AHEAD * self.jobs
        first = (
            [self._forked.submit(task.args[0], task) for task in itertools.islice(tasks, count)] if self._forked else []
        )
        import joblib

        # Polars sets a handler after which a wait goes on, until the next result (its issue 21739).
        signal.siginterrupt(signal.SIGINT, True)
        calls = (joblib.delayed(task)() for task in tasks)
        settings: dict[str, Any] = {"n_jobs": self.jobs, "batch_size": 1, "max_nbytes": None}
        wait_for_next: Callable[[], None] = _joblib_waits
        if self._forked:
            from fastsft.execution.backend import ForkedBackend

            settings["backend"] = backend = ForkedBackend(self._forked)
            wait_for_next = backend.wait_for_next
        elif "polars" in sys.modules and isinstance(
            joblib.parallel.get_active_backend()[0], joblib.parallel.BACKENDS["multiprocessing"]
        ):
            settings["backend"] = "loky"  # it forks, and in a fork of a process that has Polars' threads, Polars hangs
        try:
            parallel = joblib.Parallel(return_as="generator", **settings)
        except ValueError:  # Ray and multiprocessing give whole lists alone, so the work is cut into waves
            parallel = joblib.Parallel(**settings)
            while wave := list(itertools.islice(calls, _WAVE_TASKS_PER_JOB * self.jobs)):
                yield from parallel(wave)
            return
        with _closed(parallel(calls)) as rest:
            for future in first:
                assert self._forked is not None
                self._forked.wait_for(future)
                yield future.result()
            wait_for_next()
            for result in rest:
                yield result
                wait_for_next()


def _name_of(what: str, index: int, item: object) -> str:
    """Name an item for a person; a span knows its index, of which a run that goes on does some alone."""
    own = getattr(item, "index", None)
    return f"{what} {own if isinstance(own, int) else index:,}"


_KILLED = "a worker process was killed, perhaps for lack of memory (fewer --jobs need less)"  # one of joblib's


@contextlib.contextmanager
def _killed_told() -> Iterator[None]:
    """Say of a process that is gone what that means for the run."""
    try:
        yield
    except BrokenExecutor as error:
        problem = str(error) if isinstance(error, LostWorker) else _KILLED
        raise KeepsReceipts(
            f"{problem}; nothing was published, and the same command goes on from what was done"
        ) from None


def _joblib_waits() -> None:
    """Wait for nothing, as joblib does."""


@contextlib.contextmanager
def _closed(results: Generator[R, None, None]) -> Iterator[Generator[R, None, None]]:
    """Close results at the end, which stops the workers if the run ends early; joblib warns of tasks without an end."""
    try:
        yield results
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results.close()


def _in_worker(_: str, work: Callable[[int, T], R], index: int, item: T, parent: int) -> R:
    _init_worker(parent)
    with failures_told():
        return work(index, item)


_is_initialized = False


def _init_worker(parent: int) -> None:
    """Make this process a good worker of that parent, the first time that it works for it."""
    # Not getppid: if the parent was killed meanwhile, that names another process already.
    started_by = multiprocessing.parent_process()
    if _is_initialized or os.getpid() == parent or not started_by or started_by.pid != parent:
        return  # a thread, or a worker of another machine or scheduler, which looks after its own
    os.environ.setdefault("POLARS_MAX_THREADS", "1")  # read when polars is imported; the workers are the threads
    _init_process(parent)


def _init_process(parent: int) -> None:
    """Have this process end with its parent, and leave signals to it."""
    global _is_initialized
    _is_initialized = True
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent answers it
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)  # a forked process has its parent's handlers
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKING_TO_STOP)

    def end_with_parent() -> None:
        while os.getppid() == parent:  # a killed parent cannot say so, and joblib's workers would go on
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
