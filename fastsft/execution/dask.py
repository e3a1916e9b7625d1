"""Tasks on a Dask cluster: joblib's own backend for it takes 5 ms of this process for each."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any

from fastsft.errors import FailedRun
from fastsft.execution.engines import LostAttempt, Quiet, check_listens, missing

_CONNECT_SECONDS = 10
_CLOSE_SECONDS = 10


class DaskEngine:
    """A Dask cluster: that of a client, the one of a scheduler at an address, or one that is started here.

    The client is always one of its own, which subscribes to what the scheduler says of all workers: where one is lost,
    Dask does its tasks again up to three times and says nothing; here that is counted, like any other loss.

    Raises:
        UsageError: Dask is not installed.
        FailedRun: There is no scheduler at the address.
    """

    name = "Dask"

    def __init__(self, address: str | None = None, client: Any = None) -> None:
        try:
            import distributed
        except ImportError as error:
            raise missing("dask", error) from None
        from distributed.client import FutureCancelledError
        from distributed.comm.core import CommClosedError
        from distributed.scheduler import KilledWorker, NoValidWorkerError

        self.errors: tuple[type[BaseException], ...] = (
            LostAttempt, KilledWorker, NoValidWorkerError, CommClosedError, FutureCancelledError, TimeoutError,
        )  # fmt: skip
        settings: dict[str, Any] = {}
        if client is not None:
            address, settings = client.scheduler.address, {"security": client.security}
        elif address is None:
            settings = {"dashboard_address": ":0"}  # of the cluster that is started; Dask warns of a port that is taken
        if address is not None:
            check_listens(self.name, address, seconds=_CONNECT_SECONDS)
        self._quiet = Quiet("distributed", "distributed.client")
        try:
            self._client = distributed.Client(address, timeout=_CONNECT_SECONDS, set_as_default=False, **settings)
        except (OSError, ValueError, RuntimeError) as error:
            self._quiet.end()
            raise FailedRun(f"cannot join Dask at {address or 'this machine'}: {error}") from None
        self._loop: asyncio.AbstractEventLoop = self._client.loop.asyncio_loop
        self._attempts: dict[str, _Attempt] = {}  # by key; what takes them out is in Dask's thread
        self._threads: dict[str, int] = {}  # of each worker, by address
        self._numbers = itertools.count()
        self._client.subscribe_topic("all", self._hear)

    def slots(self) -> int:
        """Return how many threads the workers have."""
        return max(1, int(sum(self._client.nthreads().values())))

    def submit(self, run: Callable[[bytes], bytes], data: bytes, name: str) -> Future[bytes]:
        """Have a function called with bytes on some worker, and not where an attempt of that name hangs."""
        key = f"fastsft {name} {secrets.token_hex(8)}"
        where, rank = self._elsewhere(name), -next(self._numbers)  # a worker does first what it was sent first
        submitted = self._client.submit(run, data, key=key, pure=False, workers=where, priority=rank)
        attempt = self._attempts[key] = _Attempt(name, submitted)
        asyncio.run_coroutine_threadsafe(self._gather(key, submitted), self._loop)
        return attempt.result

    def _elsewhere(self, name: str) -> list[str] | None:
        """Return the workers that have no attempt of a name that is still waited for; None for any."""
        hanging = [key for key, attempt in list(self._attempts.items()) if attempt.name == name]
        if not hanging:
            return None
        with contextlib.suppress(*self.errors, OSError):
            at_work = self._client.processing()
            has_result = self._client.who_has([self._attempts[key].submitted for key in hanging])
            hangs = {worker for worker, keys in at_work.items() if not set(keys).isdisjoint(hanging)}
            hangs.update(worker for workers in has_result.values() for worker in workers)
            return [worker for worker in at_work if worker not in hangs] or None
        return None

    async def _gather(self, key: str, submitted: Any) -> None:
        try:
            result = await self._client.gather(submitted, asynchronous=True)
        except BaseException as error:
            self._settle(key, error=error)
            if isinstance(error, (asyncio.CancelledError, KeyboardInterrupt)) and not isinstance(error, self.errors):
                raise
        else:
            self._settle(key, result=result)

    def _settle(self, key: str, *, result: bytes = b"", error: BaseException | None = None) -> None:
        if attempt := self._attempts.pop(key, None):  # else it is lost already
            attempt.submitted.release()
            if error is None:
                attempt.result.set_result(result)
            else:
                attempt.result.set_exception(error)

    def _hear(self, event: tuple[float, Any]) -> None:
        """Take what a worker was at for lost, where the scheduler says that it is gone.

        Of what it was sent that is as much as it has threads; what waited behind that, Dask sends to others.
        """
        _, told = event
        if isinstance(told, dict) and told.get("action") == "remove-worker" and not told.get("expected"):
            worker, sent = str(told.get("worker")), set(told.get("processing-tasks", ()))
            mine = [key for key in self._attempts if key in sent]  # in the order in which they were handed over
            for key in mine[: self._threads.get(worker, 1)]:
                self._settle(key, error=LostAttempt(worker))

    def everywhere(self, ask: Callable[..., Any], *words: str, seconds: float) -> dict[str, Any]:
        """Call a function on each worker."""
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        self._threads = {address: worker["nthreads"] for address, worker in workers.items()}
        # Not as tasks, which wait where a worker is busy with what others have it do.
        asked = {
            address: asyncio.run_coroutine_threadsafe(self._ask(address, ask, *words), self._loop)
            for address in workers
        }
        answers: dict[str, Any] = dict.fromkeys(asked)
        wait(asked.values(), timeout=seconds)
        for address, answer in asked.items():
            if answer.done():
                answers[address] = answer.exception() or answer.result()
            answer.cancel()
        return answers

    async def _ask(self, address: str, ask: Callable[..., Any], *words: str) -> Any:
        answers = await self._client.run(ask, *words, workers=[address], asynchronous=True)
        return answers[address]

    def absent(self) -> None:
        """Say nothing: where the scheduler is gone, all attempts are lost at once."""

    def close(self) -> None:
        """Leave the cluster, which then forgets what is still waited for; harmless the second time."""
        with contextlib.suppress(Exception):
            self._client.unsubscribe_topic("all")  # else the scheduler logs that it cannot say that this client left
            self._client.close(timeout=_CLOSE_SECONDS)
        self._quiet.end()


class _Attempt:
    """A task that was handed over once."""

    def __init__(self, name: str, submitted: Any) -> None:
        self.name = name
        self.submitted = submitted
        self.result: Future[bytes] = Future()
