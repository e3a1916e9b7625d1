"""Worker processes forked from this one, for where that is safe: they start with all that it has imported.

A new process imports everything again, which takes 0.45 s of a core each, a third of all
the work there is in converting 1 GB. `workers.py` puts joblib in front of them.

Each has a pipe of its own, which the one thread that there is writes to and reads from: no thread and no lock
stands between, so a process that dies can keep nobody waiting, and a task takes this process 0.1 ms, where those of
`concurrent.futures.ProcessPoolExecutor`, with three threads, take 0.3 to 0.4.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import selectors
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeAlias

from fastsft.errors import FailedRun, failures_told
from fastsft.execution.signals import signals_blocked

_Begin: TypeAlias = Callable[[int], None]
# More waits for a process that has nothing to do, which reads it at once: a pipe holds no more, and two processes that
# write to each other wait for ever.
_SENT_AHEAD_NBYTES = 16 * 1024
_LOOKS_AT_THREADS = 20  # a millisecond apart
# A process is sent so many tasks before it has done the first, as far as there are as many more for all: while this one
# imports joblib, for 0.1 to 0.2 s, nobody sends any. 1 GB of the real mix, two jobs: 1.07 times as fast (9 pairs) as
# with two tasks, with the change before.
TASKS_AHEAD = 8


class LostWorker(BrokenExecutor):
    """Processes were lost, and what they did cannot be done by others; the argument is a sentence."""


class _Task:
    """A task as it is sent, its result to be, and how many processes were lost that did it."""

    def __init__(self, data: bytes, name: str) -> None:
        self.future: Future[Any] = Future()
        self.data = data
        self.name = name
        self.losses = 0


class _Worker:
    """A process, the pipe to it, the tasks that it was sent and has not done, and since when it does the first."""

    def __init__(self, process: BaseProcess, pipe: Connection) -> None:
        self.process = process
        self.pipe = pipe
        self.awaited: deque[_Task] = deque()
        self.since = 0.0

    def may_be_sent(self, task: _Task, most: int) -> bool:
        """Tell whether a task may be sent before others are done, which are less than `most`."""
        ahead = len(task.data) + sum(len(other.data) for other in self.awaited)
        return not self.awaited or (len(self.awaited) < most and ahead <= _SENT_AHEAD_NBYTES)


class ForkedPool:
    """So many processes, forked now, from the one thread that there is. `end` must follow.

    A process that is gone, or does one task for longer than `stall_seconds`, is lost: what it was sent is done by the
    others, once more each; a task that it was at up to `retries` times.

    Attributes:
        jobs: How many there were.
        losses: Which processes were lost, as sentences.
        stall_seconds: How long a task may take that is at hand; None for no limit.
    """

    def __init__(self, jobs: int, begin: _Begin, *, retries: int = 1) -> None:
        self.jobs = jobs
        self.losses: list[str] = []
        self.stall_seconds: float | None = None
        self._most_tries = 1 + retries
        self._tasks: deque[_Task] = deque()  # that no process has been sent
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        context = multiprocessing.get_context("fork")
        # A signal waits until each process has begun, as it would find the parent's handlers there.
        try:
            with signals_blocked():
                for _ in range(jobs):
                    pipe, theirs = context.Pipe()
                    ours = [pipe, *(worker.pipe for worker in self._workers)]
                    process = context.Process(target=_serve, args=(theirs, ours, begin, os.getpid()), daemon=True)
                    process.start()
                    theirs.close()
                    self._workers.append(_Worker(process, pipe))
            for worker in self._workers:
                self._selector.register(worker.pipe, selectors.EVENT_READ, worker)
        except BaseException:
            self.end()
            raise

    def submit(self, name: str, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have a task, named for a person, done by whichever process is free first; `wait_for` gets the result."""
        made = _Task(pickle.dumps((task, arguments)), name)
        self._tasks.append(made)
        self._send()
        return made.future

    def wait_for(self, future: Future[Any]) -> None:
        """Take in what processes return until a result is there.

        Raises:
            LostWorker: Too many processes are gone.
        """
        while not future.done():
            before = time.monotonic()
            for key, _ in self._selector.select(self.stall_seconds):
                self._receive(key.data)
            if self.stall_seconds is not None:
                self._lose_stalled(before, self.stall_seconds)

    def _lose_stalled(self, before: float, most: float) -> None:
        now = time.monotonic()
        stopped = now - before - most  # beyond what was waited for: this process, and the others, were stopped (Ctrl-Z)
        for worker in list(self._workers):
            worker.since += max(stopped, 0)
            if worker.awaited and now - worker.since >= most:
                self._lose(worker, f"took more than {most:g} s (--stall-seconds)")

    def _receive(self, worker: _Worker) -> None:
        try:
            is_result, value = pickle.loads(worker.pipe.recv_bytes())
        except (EOFError, OSError):  # its pipe ends with it, as nobody else has its other end
            self._lose(worker, "was killed, perhaps for lack of memory (fewer --jobs need less)")
            return
        task = worker.awaited.popleft()
        worker.since = time.monotonic()
        self._send()
        if is_result:
            task.future.set_result(value)
        else:
            task.future.set_exception(value)

    def _lose(self, worker: _Worker, what: str) -> None:
        """Give what a process was sent to the others.

        Raises:
            LostWorker: There are none, or a task has cost as many processes as it may.
        """
        self._selector.unregister(worker.pipe)
        self._workers.remove(worker)
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        at_hand = worker.awaited[0].name if worker.awaited else "nothing"
        problem = f"a worker process {what}; it was at {at_hand}"
        if worker.awaited:
            worker.awaited[0].losses += 1
            if worker.awaited[0].losses >= self._most_tries:
                raise LostWorker(f"{problem}, which {self._most_tries} processes did not finish (--retries)")
        if not self._workers:
            raise LostWorker(problem)
        self.losses.append(f"{problem}, which another did")
        self._tasks.extendleft(reversed(worker.awaited))
        self._send()

    def _send(self) -> None:
        """Send tasks to processes that have none, and more to each while there are enough for all."""
        while self._tasks:
            worker = min(self._workers, key=lambda one: len(one.awaited))
            task = self._tasks[0]
            if not worker.may_be_sent(task, min(TASKS_AHEAD, 1 + len(self._tasks) // (self.jobs + 1))):
                return
            self._tasks.popleft()
            if not worker.awaited:
                worker.since = time.monotonic()
            worker.awaited.append(task)
            with contextlib.suppress(OSError):  # of a process that is gone, which `_receive` says
                worker.pipe.send_bytes(task.data)

    def end(self) -> None:
        """End the processes at once: what they have to do, nobody waits for any more."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()
        self._workers = []
        self._selector.close()


def _serve(pipe: Connection, parents: list[Connection], begin: _Begin, parent: int) -> None:
    """Do tasks as they come, until the parent is gone."""
    for other in parents:  # else the parent's ends stay open here when it is gone
        other.close()
    begin(parent)
    while True:
        try:
            task, arguments = pickle.loads(pipe.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)
        try:
            pipe.send_bytes(result_of(task, arguments))
        except OSError:  # the parent was killed meanwhile
            os._exit(0)


def result_of(task: Callable[..., Any], arguments: tuple[Any, ...]) -> bytes:
    """Do a task, and return whether it succeeded and its result or error, pickled; what cannot be, is told in words."""
    try:
        with failures_told():
            return pickle.dumps((True, task(*arguments)))
    except Exception as error:
        try:
            return pickle.dumps((False, error))
        except Exception:
            return pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))


def start_pool(jobs: int, begin: _Begin, *, retries: int = 1) -> ForkedPool:
    """Fork so many processes, where that is known to be safe.

    Raises:
        FailedRun: The system would not start them.
    """
    try:
        return ForkedPool(jobs, begin, retries=retries)
    except OSError as error:
        problem = f"cannot start {jobs} worker processes: {error.strerror or error}"
        raise FailedRun(f"{problem} (fewer --jobs need less); nothing was published") from None


def may_fork() -> bool:
    """Tell whether this process may be forked: it has one thread, and nobody has chosen a backend of joblib's.

    Importing Polars starts threads, so that must not have happened; choosing a backend takes importing joblib.
    """
    if "polars" in sys.modules or "joblib" in sys.modules:
        return False
    for left in reversed(range(_LOOKS_AT_THREADS)):
        try:
            if len(os.listdir("/proc/self/task")) == 1:
                return True
        except OSError:  # not Linux, and other systems' own libraries start threads
            return False
        if threading.active_count() > 1:
            return False
        if left:
            time.sleep(0.001)  # a thread that was joined may not be gone yet
    return False


def results_of(items: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]]) -> list[Any]:
    """Do tasks one after another; here, where processes find it without importing joblib, 0.15 s of a core each."""
    return [task(*arguments, **keywords) for task, arguments, keywords in items]
