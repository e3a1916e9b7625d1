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
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fastsft.errors import KeepsReceipts, failures_told
from fastsft.execution.forked import TASKS_AHEAD, ForkedPool, LostWorker, may_fork, start_pool
from fastsft.execution.memory import keep_freed_memory
from fastsft.execution.placement import Placement
from fastsft.execution.signals import ASKING_TO_STOP

if TYPE_CHECKING:
    from fastsft.execution.engines import Engine, EnginePool
    from fastsft.execution.pool_backend import Pool

T = TypeVar("T")
R = TypeVar("R")

# Starting workers and importing joblib takes about as long as one process takes for this much.
WORKERS_PAY_FROM_NBYTES = 96 * 1024 * 1024
_WAVE_TASKS_PER_JOB = 16
_CGROUP_LIMIT = "/sys/fs/cgroup/cpu.max"
_SLOWEST_NBYTES_A_SECOND = 5_000_000  # that a file is read, compressed and written at where nothing hangs
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
    """Workers for as many rounds of tasks as a run has. Use it in a `with` block.

    They are those of a cluster where the placement names one, else processes: as many as pay for so many bytes of
    input, decompressed, in so many tasks. With `selects`, there is one more where they are forked, for `run_alone`.
    """

    def __init__(self, placement: Placement, *, nbytes: int, tasks: int, selects: bool = False) -> None:
        self._placement = placement
        self._pool: Pool | None = None
        self._cluster: EnginePool | None = None
        self._selector: ForkedPool | None = None
        self.losses: list[str] = []
        if engine := _engine_for(placement):
            from fastsft.execution.engines import EnginePool

            self._pool = self._cluster = EnginePool(engine, placement.jobs, retries=placement.retries)
            self.jobs = max(1, min(self._cluster.jobs, tasks))
            self.losses = self._cluster.losses
            return
        # A worker of a `multiprocessing.Pool` is a daemon, which may have no processes of its own.
        is_daemon = multiprocessing.current_process().daemon
        self.jobs = 1 if is_daemon else jobs_for(placement.jobs, nbytes=nbytes, tasks=tasks)
        if self.jobs > 1 and placement.backend is None and may_fork():
            self._pool = forked = start_pool(self.jobs, _init_worker, retries=placement.retries)
            self.losses = forked.losses
            if selects:
                try:
                    self._selector = start_pool(1, _init_process)
                except BaseException:
                    self.end()
                    raise

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def is_alone(self) -> bool:
        """Whether this process does everything by itself."""
        return self.jobs == 1 and self._cluster is None

    def check(self, nonce: Path, inputs: Sequence[str]) -> None:
        """Make sure that the workers of a cluster read the same as this process in a file of the run, and the inputs.

        Raises:
            UsageError: One does not.
        """
        if self._cluster is not None:
            self._cluster.check(nonce, inputs)

    def end(self) -> None:
        """End the processes; harmless the second time."""
        pools, self._pool, self._selector = (self._pool, self._selector), None, None
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

    def in_order(
        self, work: Callable[[int, T], R], items: Iterable[T], *, what: str = "file", nbytes: int = 0
    ) -> Iterator[R]:
        """Do work on items, each with its index, and give the results in the order of the items.

        `what` an item is is said of one whose worker was lost. Where one takes reading or writing `nbytes`, it may take
        that much longer than a span.

        Raises:
            KeepsReceipts: A worker was killed.
        """
        if self.is_alone:
            for index, item in enumerate(items):
                yield work(index, item)
            return
        limit = self._placement.stall_seconds
        limit = None if limit is None else round(limit + nbytes / _SLOWEST_NBYTES_A_SECOND, 1)
        named = [(_name_of(what, index, item), partial(work, index, item)) for index, item in enumerate(items)]
        with _killed_told():
            if self._pool is not None:
                self._pool.stall_seconds = limit
                yield from self._through_pool(self._pool, named)
            else:
                yield from self._through_joblib(named, limit)

    def _through_pool(self, pool: Pool, named: list[tuple[str, partial[R]]]) -> Iterator[R]:
        """Run tasks on workers that run already."""
        # The first tasks begin while joblib is imported, which takes 0.1 s, and with numpy beside it 0.2.
        count = TASKS_AHEAD * self.jobs
        first = [pool.submit(name, task) for name, task in named[:count]]
        import joblib

        from fastsft.execution.pool_backend import PoolBackend

        # Polars sets a handler after which a wait goes on, until the next result (its issue 21739).
        if threading.current_thread() is threading.main_thread():
            signal.siginterrupt(signal.SIGINT, True)
        backend = PoolBackend(pool)
        # The name is the first argument, which `PoolBackend` reads.
        calls = (joblib.delayed(_named)(name, task) for name, task in named[count:])
        parallel = joblib.Parallel(
            return_as="generator", n_jobs=self.jobs, batch_size=1, max_nbytes=None, backend=backend
        )
        with _closed(parallel(calls)) as rest:
            for future in first:
                pool.wait_for(future)
                yield future.result()
            backend.wait_for_next()
            for result in rest:
                yield result
                backend.wait_for_next()

    def _through_joblib(self, named: list[tuple[str, partial[R]]], stall_seconds: float | None) -> Iterator[R]:
        """Run tasks on a backend of joblib's; where a worker is lost, what is not done is done once more."""
        done = lost = 0
        while done < len(named):
            try:
                with _closed(self._results_of_joblib(named[done:], stall_seconds)) as results:
                    for result in results:
                        done += 1
                        yield result
                continue
            except BrokenExecutor:  # which does not say whose task it was
                what = _KILLED
            except multiprocessing.TimeoutError:
                what = f"took more than {stall_seconds:g} s (--stall-seconds)"
            lost += 1
            problem = f"a worker process {what}; it was at {named[done][0]} or behind it"
            if lost > self._placement.retries:
                raise LostWorker(f"{problem}, and {lost} times workers were lost (--retries)")
            self.losses.append(f"{problem}, and what was not done was done once more")

    def _results_of_joblib(
        self, named: list[tuple[str, partial[R]]], stall_seconds: float | None
    ) -> Generator[R, None, None]:
        """Run tasks on loky, or what `joblib.parallel_config` chose."""
        import joblib

        settings: dict[str, Any] = {"n_jobs": self.jobs, "batch_size": 1, "max_nbytes": None}
        active = joblib.parallel.get_active_backend()[0]
        # `multiprocessing` forks, and in a fork of a process that has Polars' threads, Polars hangs.
        is_forked = isinstance(active, joblib.parallel.BACKENDS["multiprocessing"]) and "polars" in sys.modules
        if self._placement.backend == "loky" or is_forked:
            settings["backend"] = "loky"
        if "backend" in settings or isinstance(active, joblib.parallel.BACKENDS["loky"]):
            settings["timeout"] = stall_seconds  # which joblib counts for the next result
        calls = (joblib.delayed(_in_worker)(os.getpid(), task) for _, task in named)
        try:
            parallel = joblib.Parallel(return_as="generator", **settings)
        except ValueError:  # multiprocessing gives whole lists alone, so the work is cut into waves
            parallel = joblib.Parallel(**settings)
            while wave := list(itertools.islice(calls, _WAVE_TASKS_PER_JOB * self.jobs)):
                yield from parallel(wave)
            return
        with _closed(parallel(calls)) as results:
            yield from results


def _engine_for(placement: Placement) -> Engine | None:
    """Return the cluster that a placement names, or that `joblib.parallel_config` chose; None without."""
    if placement.backend == "ray":
        from fastsft.execution.ray import RayEngine

        return RayEngine(placement.address)
    if placement.backend == "dask":
        from fastsft.execution.dask import DaskEngine

        return DaskEngine(placement.address)
    if placement.backend is not None or "joblib" not in sys.modules:
        return None
    active = sys.modules["joblib.parallel"].get_active_backend()[0]
    if type(active).__module__.startswith("ray."):
        from fastsft.execution.ray import RayEngine

        return RayEngine()
    if type(active).__module__ == "joblib._dask":
        from fastsft.execution.dask import DaskEngine

        return DaskEngine(client=active.client)
    return None


def _name_of(what: str, index: int, item: object) -> str:
    """Name an item for a person; a span knows its index, of which a run that goes on does some alone."""
    own = getattr(item, "index", None)
    return f"{what} {own if isinstance(own, int) else index:,}"


_KILLED = "was killed, perhaps for lack of memory (fewer --jobs need less)"


@contextlib.contextmanager
def _killed_told() -> Iterator[None]:
    """Say of a process that is gone what that means for the run."""
    try:
        yield
    except BrokenExecutor as error:
        problem = str(error) if isinstance(error, LostWorker) else f"a worker process {_KILLED}"
        raise KeepsReceipts(
            f"{problem}; nothing was published, and the same command goes on from what was done"
        ) from None


@contextlib.contextmanager
def _closed(results: Generator[R, None, None]) -> Iterator[Generator[R, None, None]]:
    """Close results at the end, which stops the workers if the run ends early; joblib warns of tasks without an end."""
    try:
        yield results
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results.close()


def _named(_: str, task: Callable[[], R]) -> R:
    return task()


def _in_worker(parent: int, task: Callable[[], R]) -> R:
    _init_worker(parent)
    with failures_told():
        return task()


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
