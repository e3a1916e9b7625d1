"""Spans on a cluster that somebody else runs: what Ray and Dask have in common.

An engine is handed a task as bytes, and gives bytes back, so that nothing but its workers needs fastsft. It may lose a
worker, a node, or just take too long: then the task is handed over once more, up to so many times. A task may
so be done twice, at once, which is harmless: each attempt leaves files of its own, and one result is taken.
"""

from __future__ import annotations

import builtins
import contextlib
import logging
import pickle
import queue
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from fastsft.errors import FailedRun, FastsftError, KeepsReceipts, UsageError
from fastsft.execution.forked import LostWorker, result_of
from fastsft.version import __version__

PREFLIGHT_SECONDS = 60.0
_LOOK_SECONDS = 5.0  # of silence, and then it is looked whether the cluster is there
_GONE_SECONDS = 30.0  # for which it is not; Ray ends this process after 60, without a word
_NO_STALL_SECONDS = 7 * 86400.0


class Answer(NamedTuple):
    """What a worker says of itself before a run.

    Attributes:
        host: Its machine.
        python: Its version of Python.
        fastsft: Its version of fastsft, or why that cannot be imported.
        problems: Each path that it does not see as the driver does, and why.
    """

    host: str
    python: str
    fastsft: str
    problems: list[tuple[str, str]]


class LostAttempt(Exception):
    """A worker is gone, or there was none for an attempt; the argument says which, or why."""


class Engine(Protocol):
    """A cluster.

    Attributes:
        name: What a person calls it.
        errors: What it raises where a task was lost, and not what the task raises.
    """

    name: str
    errors: tuple[type[BaseException], ...]

    def slots(self) -> int:
        """Return how many tasks it does at once."""

    def submit(self, run: Callable[[bytes], bytes], data: bytes, name: str) -> Future[bytes]:
        """Have a function called with bytes on some worker; both go there by value."""

    def everywhere(self, ask: Callable[..., Any], *words: str, seconds: float) -> dict[str, Any]:
        """Call a function on each worker's machine, and return what it said or raised, by machine.

        It is None from who said nothing in time.
        """

    def absent(self) -> str | None:
        """Say what of the cluster does not answer without which no result comes; None where all does."""

    def close(self) -> None:
        """Let go of the cluster, whose tasks nobody waits for any more."""


class _Task:
    """A task, its result to be, and how often it was handed over."""

    def __init__(self, data: bytes, name: str) -> None:
        self.future: Future[Any] = Future()
        self.data = data
        self.name = name
        self.tries = 0
        self.since = 0.0


class EnginePool:
    """The workers of an engine, as `workers.py` sees any others: results come in where they are waited for.

    Args:
        engine: The cluster.
        jobs: How many tasks it is handed at once; None for two for each that it does at once, so that none of its
            workers waits for this process.
        retries: How often a task is handed over once more.

    Attributes:
        jobs: How many tasks are done at once.
        losses: Which attempts were lost, as sentences.
        stall_seconds: From how long a silence on a task that is at hand is handed over once more; None for no limit.
    """

    def __init__(self, engine: Engine, jobs: int | None, *, retries: int) -> None:
        self.jobs = jobs or engine.slots()
        self._most_at_once = jobs or 2 * self.jobs
        self.losses: list[str] = []
        self._engine = engine
        self._lost: tuple[type[BaseException], ...] = (Exception, *engine.errors)
        self.stall_seconds: float | None = None
        self._most_tries = 1 + retries
        self._run = by_value(run_pickled)
        self._waiting: deque[_Task] = deque()  # that were not handed over yet
        self._at_once = 0  # tasks that were handed over, and that have no result
        self._awaited: deque[_Task] = deque()  # those, in their order
        self._came: queue.SimpleQueue[tuple[_Task, Future[bytes]]] = queue.SimpleQueue()
        self._last_came = 0.0
        self._gone_since: float | None = None

    def submit(self, name: str, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have a task, named for a person, done; `wait_for` gets the result."""
        made = _Task(pickle.dumps((task, arguments)), name)
        self._waiting.append(made)
        self._hand_over()
        return made.future

    def _hand_over(self) -> None:
        while self._waiting and self._at_once < self._most_at_once:
            task = self._waiting.popleft()
            self._at_once += 1
            self._awaited.append(task)
            self._try(task)

    def _try(self, task: _Task) -> None:
        """Hand a task over; what keeps the engine from taking it counts as a loss where results are waited for.

        It is not raised, as joblib hands tasks over in callbacks of futures, which swallow errors.
        """
        task.tries += 1
        task.since = time.monotonic()
        attempt: Future[bytes]
        try:
            attempt = self._engine.submit(self._run, task.data, task.name)
        except self._lost as error:
            attempt = Future()
            attempt.set_exception(LostAttempt(_told(error)))
        attempt.add_done_callback(lambda done: self._came.put((task, done)))

    def wait_for(self, future: Future[Any]) -> None:
        """Take in what comes until a result is there.

        Raises:
            LostWorker: A task was lost too often.
            KeepsReceipts: The cluster is gone.
        """
        while not future.done():
            while self._awaited and self._awaited[0].future.done():
                self._awaited.popleft()
            oldest = max(self._awaited[0].since, self._last_came) if self._awaited else time.monotonic()
            seconds = self.stall_seconds or _NO_STALL_SECONDS
            left = max(0.0, oldest + seconds - time.monotonic())
            try:
                task, attempt = self._came.get(timeout=min(left, _LOOK_SECONDS))
            except queue.Empty:
                self._look()
                if left <= _LOOK_SECONDS:
                    self._try_again(self._awaited[0], f"took more than {seconds:g} s (--stall-seconds)")
                continue
            self._last_came = time.monotonic()
            if not task.future.done():  # else another attempt was faster
                self._take(task, attempt)

    def _look(self) -> None:
        """Make sure that the cluster is there, or was a moment ago."""
        absent = self._engine.absent()
        if absent is None:
            self._gone_since = None
            return
        self._gone_since = self._gone_since or time.monotonic()
        if time.monotonic() - self._gone_since >= _GONE_SECONDS:
            problem = f"{absent} has not answered for {_GONE_SECONDS:g} s"
            raise KeepsReceipts(f"{problem}; nothing was published, and the same command goes on")

    def _take(self, task: _Task, attempt: Future[bytes]) -> None:
        try:
            is_result, value = pickle.loads(attempt.result())
        except self._lost as error:  # of the engine's, or of a worker that cannot begin: what a task raises is a value
            self._try_again(task, f"was lost ({_told(error)})")
            return
        self._at_once -= 1
        self._hand_over()
        if is_result:
            task.future.set_result(value)
        else:
            task.future.set_exception(value)

    def _try_again(self, task: _Task, what: str) -> None:
        problem = f"a worker of {self._engine.name} {what}; it was at {task.name}"
        if task.tries >= self._most_tries:
            raise LostWorker(f"{problem}, which {task.tries} attempts did not finish (--retries)")
        self.losses.append(f"{problem}, which was done once more")
        self._try(task)

    def end(self) -> None:
        """Let go of the engine."""
        self._engine.close()

    def check(self, nonce: Path, inputs: Sequence[str]) -> None:
        """Make sure that each worker has this fastsft, and reads what stands in a file of this run, and the inputs.

        Raises:
            UsageError: One does not, or does not answer.
        """
        answers = self._engine.everywhere(
            by_value(look_around), str(nonce), nonce.read_text(), *inputs, seconds=PREFLIGHT_SECONDS
        )
        name = self._engine.name
        if not answers:
            raise UsageError(f"{name} has no workers")
        for machine, found in sorted(answers.items()):
            if found is None:
                raise UsageError(f"{name}: {machine} did not answer within {PREFLIGHT_SECONDS:g} s")
            if isinstance(found, BaseException):
                raise UsageError(
                    f"{name}: {machine} cannot be asked: {_told(found)}; install the same Python and fastsft on all "
                    "machines"
                )
            answer = Answer(*found)
            if answer.fastsft != __version__:
                raise UsageError(
                    f"{name}: {answer.host} (Python {answer.python}) has fastsft {answer.fastsft}, and this is "
                    f"{__version__}; install the same on all machines"
                )
            for path, why in answer.problems:
                raise UsageError(f"{name}: {answer.host} cannot read {path}: {why}; all machines need the same files")


def run_pickled(data: bytes) -> bytes:
    """Do a pickled task, and return its pickled result or error; where it is done, it begins with nothing imported."""
    import os

    os.environ.setdefault("POLARS_MAX_THREADS", "1")  # read when polars is imported; the tasks are the threads
    from fastsft.execution.engines import answer_to

    return answer_to(data)


def answer_to(data: bytes) -> bytes:
    """Do a pickled task, and return its pickled result or error."""
    task, arguments = pickle.loads(data)
    return result_of(task, arguments)


def look_around(nonce: str, expected: str, *inputs: str) -> tuple[str, str, str, list[tuple[str, str]]]:
    """Say what a worker is and sees, where nothing of ours may be installed; the fields of an `Answer`."""
    import platform

    try:
        from fastsft.version import __version__ as version
    except Exception as error:
        version = f"none ({error})"
    problems = []
    for path in (nonce, *inputs):
        try:
            with open(path, "rb") as file:
                if path == nonce and file.read() != expected.encode():
                    problems.append((path, "another file is there"))
                file.read(1)
        except OSError as error:
            problems.append((path, error.strerror or str(error)))
    return platform.node(), platform.python_version(), version, problems


def by_value(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that is pickled with its code, as one of a script is, and not as a name to import."""
    assert isinstance(function, FunctionType)
    copy = FunctionType(function.__code__, {"__builtins__": builtins, "__name__": "__main__"}, function.__name__)
    copy.__module__ = "__main__"
    copy.__qualname__ = function.__name__
    return copy


def _told(error: BaseException) -> str:
    """Say what an engine raised in the first line of it."""
    if isinstance(error, LostAttempt):
        return str(error)
    error = getattr(error, "cause", None) or error  # what Ray wraps, with the traceback as its first line
    with contextlib.suppress(Exception):
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
    return type(error).__name__


class Quiet:
    """Holds back what an engine logs in this process: what it means for a run is told by fastsft, as sentences."""

    def __init__(self, *names: str) -> None:
        loggers = [logging.getLogger(name) for name in names]
        self._before = [(logger, logger.level) for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)

    def end(self) -> None:
        """Let it log as before; harmless the second time."""
        before, self._before = self._before, []
        for logger, level in before:
            logger.setLevel(level)


def check_listens(name: str, address: str, *, seconds: float) -> None:
    """Make sure that there is somebody at an address of a host and a port; others are not looked at.

    Engines try again for half a minute and more, and Ray says so on standard error.

    Raises:
        FailedRun: There is nobody.
    """
    with contextlib.suppress(ValueError):  # a port that is none, which the engine tells
        parts = urlsplit(address if "://" in address else f"tcp://{address}")
        if parts.scheme not in ("tcp", "tls") or parts.hostname is None or parts.port is None:
            return
        try:
            socket.create_connection((parts.hostname, parts.port), timeout=seconds).close()
        except OSError as error:
            raise FailedRun(f"cannot join {name} at {address}: {error.strerror or error}") from None


def missing(extra: str, error: ImportError) -> FastsftError:
    """Return what is said where an extra is not installed."""
    return UsageError(f"--backend {extra} needs {error.name or extra}: pip install 'fastsft[{extra}]'")
