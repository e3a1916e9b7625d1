"""What joblib needs to know to hand its tasks to a pool: the processes of `forked.py`, or the workers of a cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

from joblib.parallel import ParallelBackendBase

from fastsft.execution.forked import results_of


class Pool(Protocol):
    """Workers that take tasks.

    Attributes:
        jobs: How many tasks are done at once.
        losses: Which workers or attempts were lost, as sentences.
        stall_seconds: How long a task may take that is at hand; None for no limit.
    """

    jobs: int
    losses: list[str]
    stall_seconds: float | None

    def submit(self, name: str, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have a task, named for a person, done; `wait_for` gets the result."""

    def wait_for(self, future: Future[Any]) -> None:
        """Take in results until one is there."""

    def end(self) -> None:
        """Let go of the workers at once."""


class PoolBackend(ParallelBackendBase):  # type: ignore[misc] # joblib ships no types
    """A joblib backend for workers that run already."""

    supports_retrieve_callback = True  # so that results can come one by one

    def __init__(self, pool: Pool) -> None:
        super().__init__(nesting_level=0)
        self._pool = pool
        self._pending: deque[Future[Any]] = deque()  # that nobody has waited for, in order

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return how many tasks are done at once."""
        return self._pool.jobs

    def submit(self, batch: Any, callback: Callable[[Future[Any]], None] | None = None) -> Future[Any]:
        """Have a batch of tasks done; without joblib's wrapping, for which each process would import joblib."""
        _, (name, *_), _ = batch.items[0]  # as `workers.py` makes tasks
        future = self._pool.submit(name, results_of, batch.items)
        if callback:
            self._pending.append(future)
            future.add_done_callback(callback)  # in which joblib submits the next batch
        return future

    apply_async = submit  # its name before joblib 1.5

    def wait_for_next(self) -> None:
        """Wait for the result of the next batch, on which joblib's callback is called; at once after the last.

        Else joblib looks 100 times a second whether it is there, and nobody reads the pipes.
        """
        if self._pending:
            self._pool.wait_for(self._pending.popleft())

    def retrieve_result_callback(self, future: Future[Any]) -> Any:
        """Return what a batch of tasks gave, or raise what it raised."""
        return future.result()
