"""Tasks on a Dask cluster: joblib's own backend for it takes 5 ms of this process for each."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from fastsft.errors import FailedRun
from fastsft.execution.engines import missing

_CONNECT_SECONDS = 30


class DaskEngine:
    """A Dask cluster: that of a client, the one of a scheduler at an address, or one that is started here.

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
            KilledWorker, NoValidWorkerError, CommClosedError, FutureCancelledError, TimeoutError,
        )  # fmt: skip
        self._is_ours = client is None
        if client is None:
            try:
                client = distributed.Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
            except (OSError, ValueError, RuntimeError) as error:
                raise FailedRun(f"cannot join Dask at {address or 'this machine'}: {error}") from None
        self._client = client
        self._pending: set[Any] = set()

    def slots(self) -> int:
        """Return how many threads the workers have."""
        return max(1, int(sum(self._client.nthreads().values())))

    def submit(self, run: Callable[[bytes], bytes], data: bytes, name: str) -> Future[bytes]:
        """Have a function called with bytes on some worker."""
        key = f"fastsft {name} {secrets.token_hex(8)}"
        attempt = self._client.submit(run, data, key=key, pure=False)
        future: Future[bytes] = Future()
        self._pending.add(attempt)

        def take(done: Any) -> None:  # in a thread of Dask's
            self._pending.discard(attempt)
            try:
                future.set_result(done.result())
            except BaseException as error:
                future.set_exception(error)

        attempt.add_done_callback(take)
        return future

    def everywhere(self, ask: Callable[..., Any], *words: str, seconds: float) -> dict[str, Any]:
        """Call a function on each worker."""
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        asked = {
            address: self._client.submit(ask, *words, workers=[address], allow_other_workers=False, pure=False)
            for address in workers
        }
        answers: dict[str, Any] = dict.fromkeys(asked)
        until = time.monotonic() + seconds
        for address, attempt in asked.items():
            with contextlib.suppress(*self.errors):
                answers[address] = attempt.result(timeout=max(0.1, until - time.monotonic()))
        return answers

    def close(self) -> None:
        """Stop what is still waited for, and leave the cluster if it was joined here."""
        pending, self._pending = list(self._pending), set()
        with contextlib.suppress(Exception):
            self._client.cancel(pending, force=True)
        if self._is_ours:
            self._is_ours = False
            with contextlib.suppress(Exception):
                self._client.close()
