"""Tasks on a Ray cluster: joblib's own backend for it starts a pool for each wave, and loses the run with a node."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from fastsft.errors import FailedRun
from fastsft.execution.engines import Quiet, check_listens, missing

_CONNECT_SECONDS = 10
_LOOK_SECONDS = 3


class RayEngine:
    """A Ray cluster: the one at an address, the one that this process has joined, or one that is started here.

    Raises:
        UsageError: Ray is not installed.
        FailedRun: There is no cluster at the address.
    """

    name = "Ray"

    def __init__(self, address: str | None = None) -> None:
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray warns of where it is not said
        try:
            import ray
            from ray.exceptions import RayError
        except ImportError as error:
            raise missing("ray", error) from None
        self._ray = ray
        self.errors: tuple[type[BaseException], ...] = (RayError,)
        self._pending: list[Any] = []
        self._run: Callable[[bytes], bytes] | None = None
        self._task: Any = None  # that function, as Ray has it
        self._is_ours = not ray.is_initialized()
        if self._is_ours:
            if address is not None:
                check_listens(self.name, address, seconds=_CONNECT_SECONDS)
            self._quiet = Quiet("ray")
            try:
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
            except Exception as error:
                self._quiet.end()
                said = str(error).strip().splitlines()[0]
                raise FailedRun(f"cannot join Ray at {address or 'this machine'}: {said}") from None

    def slots(self) -> int:
        """Return how many processors the cluster has."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def submit(self, run: Callable[[bytes], bytes], data: bytes, name: str) -> Future[bytes]:
        """Have a function called with bytes on some worker."""
        if self._run is not run:  # else Ray pickles it for each task, and sends it to all nodes
            # Lost attempts are counted in one place, `engines.py`, whatever the engine.
            self._run, self._task = run, self._ray.remote(num_cpus=1, max_retries=0)(run)
        reference = self._task.options(name=name).remote(data)
        self._pending.append(reference)
        if len(self._pending) > 1000:
            _, self._pending = self._ray.wait(self._pending, num_returns=len(self._pending), timeout=0)
        future: Future[bytes] = reference.future()
        return future

    def everywhere(self, ask: Callable[..., Any], *words: str, seconds: float) -> dict[str, Any]:
        """Call a function on each node that does tasks."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = self._working_nodes()
        asked = {}
        for node_id in nodes:
            there = NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)
            task = self._ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(ask)
            asked[task.remote(*words)] = node_id
        done, _ = self._ray.wait(list(asked), num_returns=len(asked), timeout=seconds) if asked else ([], [])
        answers: dict[str, Any] = {}
        for reference in done:
            try:
                answers[asked[reference]] = self._ray.get(reference)
            except self.errors as error:
                answers[asked[reference]] = error
        still = self._working_nodes()  # a node that was dying when it was asked does no task
        return {name: answers.get(node_id) for node_id, name in nodes.items() if node_id in still}

    def absent(self) -> str | None:
        """Say whether the head does not answer, without which no task is handed out."""
        address = self._ray.get_runtime_context().gcs_address
        try:
            check_listens(self.name, address, seconds=_LOOK_SECONDS)
        except FailedRun:
            return f"the head of {self.name} at {address}"
        return None

    def _working_nodes(self) -> dict[str, str]:
        """Return host and address of each node that does tasks, by its id."""
        return {
            node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}:{node['NodeManagerPort']})"
            for node in self._ray.nodes()
            if node["Alive"] and node["Resources"].get("CPU")
        }

    def close(self) -> None:
        """Stop what is still being done, and leave the cluster if it was joined here."""
        pending, self._pending = self._pending, []
        if pending and not self._is_ours and self._ray.is_initialized():  # else they end with what has joined
            _, running = self._ray.wait(pending, num_returns=len(pending), timeout=0)
            for reference in running:
                with contextlib.suppress(Exception):
                    self._ray.cancel(reference, force=True)
        if self._is_ours:
            self._is_ours = False
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._ray.shutdown()
            self._quiet.end()
