"""How long would a run take with other workers and more bytes than there are here, and what is full first?

usage: python benchmarks/simulate.py [--workers 1 100 10000] [--bytes 10TB] [--span 1GiB] [--work convert]
                                     [--backend ray] [--output shards] [--slow-share 1%] [--failures-per-hour 0.01]

It plays a run event by event: the driver, which does one thing at a time, hands out tasks as `workers.py`, `forked.py`
and `engines.py` do; workers take as long as was measured for their bytes, some of them longer; workers are lost, and
what they did is done again; results are taken in input order; then files are put together and get their names. The
same seed gives the same run. The costs are those of `bench_constants.py`; `scale.md` says where they were measured,
and `bench_simulate.py` holds the result against real runs.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from fastsft.inputs.shards import Shard, spans_of
from fastsft.options import DEFAULT_RETRIES, DEFAULT_SHARD_NBYTES, DEFAULT_STALL_SECONDS
from fastsft.quantities import nbytes_of

GIGABYTE = 1e9
_AHEAD = 8  # tasks that are handed over for each process here before any is done (`forked.TASKS_AHEAD`)
_AT_ONCE = 2  # and beside them, or by engines at all, for each worker; of these each gives way to the next
_MOST_LINES_IN_MEMORY = 10_000_000  # from more, workers choose in partitions of so many lines (`choosing_in_parts.py`)
_LINES_AT_ONCE = 2_000_000
_STEPS = 6  # of choosing in partitions
_COPIES = 2  # tasks for each worker where segments are copied into one file (`assembly.py`)


class Pass(msgspec.Struct, frozen=True):
    """What a pass over the input takes a worker.

    Attributes:
        seconds_a_gigabyte: For each gigabyte of input.
        seconds_a_span: For each span beside that, on a disk of its own.
        first_seconds: For the first span of a run that a worker does, in which it imports what it needs.
        operations: On names of the shared file system, that the worker of a span waits for.
        read: The share of the input that is read.
        rows: Bytes of rows that are written, for each byte of input.
    """

    seconds_a_gigabyte: float
    seconds_a_span: float
    first_seconds: float
    operations: int
    read: float = 1.0
    rows: float = 0.0


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured (`scale.md`), in seconds and bytes.

    Attributes:
        passes: What each pass takes a worker.
        dispatch: What a task that does nothing takes the driver, by backend.
        span_seconds: What a span takes the driver beside that in each pass, in all.
        segment_seconds: What its segment takes the driver more, where there are shards.
        file_seconds: What a shard takes the driver, that is renamed and gets its name.
        start_seconds: From the command to the first task, by backend.
        start_own_seconds: What of that the driver works itself.
        end_seconds: What is left to do after the last task, whatever the size.
        choosing_start_seconds: From the last scan to choosing, and from there to the first row.
        choosing_seconds: What choosing takes one process for each line of the table, where that is in memory.
        choosing_nbytes: Memory for each line at its peak.
        partition_seconds: What choosing in partitions takes workers for each line, all steps together.
        table_nbytes: Bytes on disk for each line.
        driver_nbytes: Memory of the driver without spans.
        span_nbytes: Memory of the driver for each span.
        receipt_nbytes: Bytes on disk of a receipt.
        hash_seconds: For each gigabyte of rows that is read and hashed.
        build_seconds: For each gigabyte that is read, hashed and written into a file.
        copy_seconds: For each gigabyte that the kernel copies into a file.
        flush_seconds: What a worker waits for the disk at the end of a segment that may become a shard.
        piece_seconds: What putting a file together takes for each segment, to open and to remove it.
        file_operations: On names of the shared file system, that the driver waits for, for each shard that is built.
        renamed_operations: The same for a shard that was a segment.
    """

    passes: dict[str, Pass]
    dispatch: dict[str, float]
    span_seconds: float
    segment_seconds: float
    file_seconds: float
    start_seconds: dict[str, float]
    start_own_seconds: float
    end_seconds: float
    choosing_start_seconds: float
    choosing_seconds: float
    choosing_nbytes: float
    partition_seconds: float
    table_nbytes: float
    driver_nbytes: float
    span_nbytes: float
    receipt_nbytes: float
    hash_seconds: float
    build_seconds: float
    copy_seconds: float
    flush_seconds: float
    piece_seconds: float
    file_operations: int
    renamed_operations: int


WORKS = {"convert": ["convert"], "everything": ["everything"], "best-of": ["scan", "chosen"]}

# Two shared cores of an AMD EPYC, busy with other work, 28 November 2026; where each is from says `scale.md`.
MEASURED = Costs(
    passes={
        "convert": Pass(2.5, 0.0005, 0.0, operations=13, rows=0.133),
        "everything": Pass(4.6, 0.0014, 0.0, operations=13, rows=0.5),
        "scan": Pass(4.1, 0.0025, 0.12, operations=24),
        "chosen": Pass(0.53, 0.0014, 0.1, operations=24, read=0.25, rows=0.035),
    },
    dispatch={"forked": 0.000055, "loky": 0.00016, "ray": 0.0012, "dask": 0.0021},
    span_seconds=0.00014,
    segment_seconds=0.00004,
    file_seconds=0.0003,
    start_seconds={"forked": 0.35, "loky": 1.0, "ray": 5.0, "dask": 2.0},
    start_own_seconds=0.35,
    end_seconds=0.1,
    choosing_start_seconds=0.4,
    choosing_seconds=0.5e-6,
    choosing_nbytes=332,
    partition_seconds=3.1e-6,
    table_nbytes=101,
    driver_nbytes=60e6,
    span_nbytes=2_000,
    receipt_nbytes=550,
    hash_seconds=0.61,
    build_seconds=1.25,
    copy_seconds=0.64,
    flush_seconds=0.004,
    piece_seconds=0.0003,
    file_operations=1,
    renamed_operations=6,
)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A run to be played.

    Attributes:
        workers: How many spans are done at once.
        spans: The bytes of each span.
        work: What is done, of `WORKS`.
        backend: Who hands tasks out.
        output: `shards` or `file`.
        shard_nbytes: The most that a shard holds.
        line_nbytes: Bytes of input a line, from which the lines of the table are counted.
        spread: By how much workers differ, and spans of one size: the standard deviation of the logarithm.
        slow_share: The share of workers that take `slow_factor` times as long.
        slow_factor: See there.
        failures_per_hour: How often a worker is lost while it works.
        detect_seconds: How long an engine takes to see that (forked workers: at once).
        restart_seconds: When an engine has another instead (forked workers: never).
        retries: How often a span is done again whose worker was lost.
        stall_seconds: Forked workers: how long a span may take; engines: how long no result may come.
        latency: Seconds for an operation on a name or file of the shared file system.
        bandwidth: Bytes a second that the store reads and writes for all workers together.
        seed: Of the random numbers.
    """

    workers: int
    spans: Sequence[int]
    work: str = "convert"
    backend: str = "ray"
    output: str = "shards"
    shard_nbytes: int = DEFAULT_SHARD_NBYTES
    line_nbytes: float = 22_000
    spread: float = 0.0
    slow_share: float = 0.0
    slow_factor: float = 3.0
    failures_per_hour: float = 0.0
    detect_seconds: float = 20.0
    restart_seconds: float = 60.0
    retries: int = DEFAULT_RETRIES
    stall_seconds: float = DEFAULT_STALL_SECONDS
    latency: float = 0.0
    bandwidth: float = math.inf
    seed: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of input."""
        return sum(self.spans)

    @property
    def is_local(self) -> bool:
        """Whether workers are processes of this machine."""
        return self.backend not in ("ray", "dask")

    @property
    def is_forked(self) -> bool:
        """Whether workers are processes of this machine, each with a pipe of its own."""
        return self.backend == "forked"


class Outcome(NamedTuple):
    """What came of it.

    Attributes:
        problem: Why the run ended early; empty where it did not.
        seconds: From the command to the end.
        phases: The seconds of each phase.
        driver_seconds: What the driver did itself, without choosing.
        worker_seconds: What workers did, with what was done in vain.
        wasted_seconds: Of that, what was done in vain.
        spans_done: How many results were taken, of all rounds.
        redone: How many attempts there were beyond the first.
        waiting_results: The most results that came before their turn.
        driver_nbytes: Memory of the driver.
        choosing_nbytes: Memory of a process that chooses between two passes.
        first_seconds: For the first span of a run that a worker does, in which it imports what it needs.
        operations: On names and files of the shared file system.
        full: What limits the run: the largest share of its time.
    """

    problem: str
    seconds: float
    phases: dict[str, float]
    driver_seconds: float
    worker_seconds: float
    wasted_seconds: float
    spans_done: int
    redone: int
    waiting_results: int
    driver_nbytes: float
    choosing_nbytes: float
    operations: int
    full: str


class LostError(Exception):
    """A span was lost too often, or no worker is left."""


class Driver:
    """What does one thing at a time, in the order in which it comes."""

    def __init__(self) -> None:
        self.free = 0.0
        self.busy = 0.0

    def do(self, at: float, seconds: float) -> float:
        """Do something that comes at a time; return when it is done."""
        self.free = max(self.free, at) + seconds
        self.busy += seconds
        return self.free


class Worker:
    """One that does a task at a time.

    Attributes:
        pace: How many times as long as the usual it takes.
        sent: Tasks that wait in its own pipe, where it has one.
        at_hand: What it does; None for nothing.
        has_begun: Whether it has done something before.
        is_lost: Whether it is gone.
    """

    def __init__(self, pace: float) -> None:
        self.pace = pace
        self.sent: deque[int] = deque()
        self.at_hand: int | None = None
        self.has_begun = False
        self.is_lost = False


class Cluster:
    """All workers, for as many rounds as a run has."""

    def __init__(self, plan: Plan) -> None:
        self.random = random.Random(plan.seed)
        paces = random.Random(plan.seed + 1)  # of their own, so that a worker is as slow whatever else is drawn
        self.workers = [
            Worker(_noise(paces, plan.spread) * (plan.slow_factor if paces.random() < plan.slow_share else 1.0))
            for _ in range(plan.workers)
        ]
        self.busy = 0.0
        self.wasted = 0.0


class Round:
    """A round of tasks, as `Workers.in_order` has them done."""

    def __init__(
        self,
        seconds: Sequence[float],
        plan: Plan,
        costs: Costs,
        cluster: Cluster,
        driver: Driver,
        *,
        first_seconds: float = 0.0,
    ) -> None:
        self.accepted = [0] * len(seconds)
        self.redone = 0
        self.waiting = 0
        self._seconds = seconds
        self._plan = plan
        self._costs = costs
        self._first_seconds = first_seconds
        self._own_seconds = costs.span_seconds + (costs.segment_seconds if plan.output == "shards" else 0.0)
        self._cluster = cluster
        self._driver = driver
        self._events: list[tuple[float, int, str, int, int]] = []
        self._numbers = 0
        self._tries = [0] * len(seconds)
        self._since = [0.0] * len(seconds)
        self._queue: deque[int] = deque()  # engines: what the cluster has, and no worker; forked: what none was sent
        self._idle = list(range(len(cluster.workers)))
        self._next = 0  # to be handed over
        self._done = 0
        self._taken = 0  # results, in order
        self._last_came = 0.0

    def play(self, now: float) -> float:
        """Play all of it from a time on; return when the driver has taken the last result.

        Raises:
            LostError: A span was lost too often, or no worker is left.
        """
        count, jobs = len(self._seconds), len(self._cluster.workers)
        self._first = min(count, _AHEAD * jobs) if self._plan.is_local else 0
        self._last_came = now
        for _ in range(min(count, self._first + _AT_ONCE * jobs)):
            self._hand_over(now)
        while self._done < count:
            self._lose_silent()
            if not self._events:
                raise LostError("no worker is left")
            at, _, kind, worker, task = heapq.heappop(self._events)
            if kind == "arrives":
                self._arrive(at, worker, task)
            elif kind == "ends":
                self._end(at, worker, task)
            elif kind == "is lost":
                self._lose(at, worker, task)
            elif kind == "is told":
                self._try_again(self._driver.do(at, self._half), task)
            else:  # another worker instead
                self._cluster.workers[worker].is_lost = False
                self._rest(at, worker)
        return self._driver.free

    @property
    def _half(self) -> float:
        return self._costs.dispatch[self._plan.backend] / 2  # of what a task takes: there, and back

    def _push(self, at: float, kind: str, worker: int, task: int) -> None:
        self._numbers += 1
        heapq.heappush(self._events, (at, self._numbers, kind, worker, task))

    def _hand_over(self, at: float) -> None:
        """Hand over the next task, if there is one."""
        if self._next < len(self._seconds):
            task, self._next = self._next, self._next + 1
            self._send(self._driver.do(at, self._half), task)

    def _send(self, at: float, task: int) -> None:
        self._since[task] = at
        if self._plan.is_forked:
            self._queue.append(task)
            self._send_forked(at)
        else:
            self._tries[task] += 1
            self._push(at, "arrives", -1, task)

    def _send_forked(self, at: float) -> None:
        """Send tasks to the worker that has fewest, as `ForkedPool._send` does."""
        workers = self._cluster.workers
        while self._queue:
            alive = [index for index, worker in enumerate(workers) if not worker.is_lost]
            index = min(alive, key=lambda one: len(workers[one].sent) + (workers[one].at_hand is not None))
            awaited = len(workers[index].sent) + (workers[index].at_hand is not None)
            if awaited and awaited >= min(_AHEAD, 1 + len(self._queue) // (len(workers) + 1)):
                return
            task = self._queue.popleft()
            workers[index].sent.append(task)
            self._push(at, "arrives", index, task)

    def _arrive(self, at: float, index: int, task: int) -> None:
        if self._plan.is_forked:
            worker = self._cluster.workers[index]
            if worker.at_hand is None and worker.sent and not worker.is_lost:
                self._begin(at, index, worker.sent.popleft())
        elif self._idle:
            self._begin(at, heapq.heappop(self._idle), task)
        else:
            self._queue.append(task)

    def _begin(self, at: float, index: int, task: int) -> None:
        plan, worker = self._plan, self._cluster.workers[index]
        worker.at_hand = task
        seconds = self._seconds[task] * worker.pace
        if not worker.has_begun:
            worker.has_begun, seconds = True, seconds + self._first_seconds
        rate = plan.failures_per_hour / 3600
        lasts = self._cluster.random.expovariate(rate) if rate else math.inf
        if plan.is_forked:
            lasts = min(lasts, plan.stall_seconds)
        self._cluster.busy += min(seconds, lasts)
        if lasts < seconds:
            self._cluster.wasted += lasts
            self._push(at + lasts, "is lost", index, task)
        else:
            self._push(at + seconds, "ends", index, task)

    def _rest(self, at: float, index: int) -> None:
        """Have a worker take what waits."""
        worker = self._cluster.workers[index]
        worker.at_hand = None
        waiting = worker.sent if self._plan.is_forked else self._queue
        if waiting:
            self._begin(at, index, waiting.popleft())
        elif not self._plan.is_forked:
            heapq.heappush(self._idle, index)

    def _end(self, at: float, index: int, task: int) -> None:
        """Take a result, if it is the first of its task."""
        self._rest(at, index)
        self._last_came = self._driver.do(at, self._half)
        if self.accepted[task]:
            self._cluster.wasted += self._seconds[task] * self._cluster.workers[index].pace
            return
        self.accepted[task] += 1
        self._done += 1
        if task >= self._first:
            self._hand_over(at)
        while self._taken < len(self.accepted) and self.accepted[self._taken]:
            self._driver.do(at, self._own_seconds)
            self._taken += 1
        self.waiting = max(self.waiting, self._done - self._taken)
        if self._plan.is_forked:
            self._send_forked(self._driver.free)

    def _lose(self, at: float, index: int, task: int) -> None:
        worker = self._cluster.workers[index]
        worker.is_lost, worker.at_hand = True, None
        if not self._plan.is_forked:
            self._push(at + self._plan.detect_seconds, "is told", -1, task)
            self._push(at + self._plan.restart_seconds, "is back", index, -1)
            return
        self._tries[task] += 1
        if self._tries[task] > self._plan.retries:
            raise LostError(f"{self._tries[task]} workers were lost at span {task}")
        if all(one.is_lost for one in self._cluster.workers):
            raise LostError("no worker is left")
        self.redone += 1
        self._queue.extendleft(reversed([task, *worker.sent]))
        worker.sent.clear()
        self._send_forked(self._driver.do(at, self._half))

    def _lose_silent(self) -> None:
        """Hand over once more what has waited longest, where nothing has come for too long (`EnginePool.wait_for`)."""
        while not self._plan.is_forked:
            oldest = self._taken
            until = max(self._since[oldest], self._last_came) + self._plan.stall_seconds
            if self._events and self._events[0][0] <= until:
                return
            self._try_again(self._driver.do(until, self._half), oldest)

    def _try_again(self, at: float, task: int) -> None:
        if self.accepted[task]:
            return
        if self._tries[task] > self._plan.retries:
            raise LostError(f"{self._tries[task]} attempts at span {task} were lost")
        self.redone += 1
        self._send(at, task)


def simulate(plan: Plan, costs: Costs = MEASURED) -> Outcome:
    """Play a run."""
    driver, cluster = Driver(), Cluster(plan)
    rounds: list[Round] = []
    phases = {"start": costs.start_seconds[plan.backend]}
    driver.do(0.0, costs.start_own_seconds)
    now = driver.free = max(phases["start"], driver.free)
    lines = plan.nbytes / plan.line_nbytes
    names = WORKS[plan.work]
    passes = [costs.passes[name] for name in names]
    rows = plan.nbytes * passes[-1].rows
    problem, spans_done = "", 0

    def play(what: str, seconds: Sequence[float], first_seconds: float = 0.0) -> None:
        nonlocal now
        began = now
        rounds.append(Round(seconds, plan, costs, cluster, driver, first_seconds=first_seconds))
        try:
            now = rounds[-1].play(began)
        finally:
            phases[what] = phases.get(what, 0.0) + max(now, driver.free) - began

    try:
        for number, name in enumerate(names):
            if number:
                alone = lines if lines <= _MOST_LINES_IN_MEMORY else 0
                phases["choose"] = costs.choosing_start_seconds + alone * costs.choosing_seconds
                now += phases["choose"]
                driver.free = now  # it waits, or chooses itself
                for _ in range(0 if alone else _STEPS):
                    partitions = math.ceil(lines / _LINES_AT_ONCE)
                    play("choose", [lines / partitions * costs.partition_seconds / _STEPS] * partitions)
            play(name, _span_seconds(costs.passes[name], plan, costs), costs.passes[name].first_seconds)
            spans_done += sum(rounds[-1].accepted)
        play("build", _build_seconds(rows, plan, costs))
    except LostError as lost:
        problem, now = str(lost), driver.free
    files = _files(rows, plan)
    a_file = costs.renamed_operations if _is_renamed(rows, plan) else costs.file_operations
    if not problem:
        phases["publish"] = files * (costs.file_seconds + a_file * plan.latency) + costs.end_seconds
        now = driver.do(now, phases["publish"])
    choosing = phases.get("choose", 0.0)
    shares = {
        "workers": sum(one.seconds_a_gigabyte for one in passes) * plan.nbytes / GIGABYTE / plan.workers,
        "largest span": sum(one.seconds_a_gigabyte for one in passes) * max(plan.spans) / GIGABYTE,
        "driver": driver.busy - costs.start_own_seconds,
        "choosing": choosing,
        "start": phases["start"],
        "store": sum(plan.nbytes * (one.read + one.rows) for one in passes) / plan.bandwidth,
    }
    if plan.output == "file":
        shares["one process that hashes the file"] = rows / GIGABYTE * costs.hash_seconds
    return Outcome(
        problem=problem,
        seconds=now,
        phases=phases,
        driver_seconds=driver.busy,
        worker_seconds=cluster.busy,
        wasted_seconds=cluster.wasted,
        spans_done=spans_done,
        redone=sum(one.redone for one in rounds),
        waiting_results=max(one.waiting for one in rounds),
        driver_nbytes=costs.driver_nbytes + costs.span_nbytes * len(plan.spans) * len(names),
        choosing_nbytes=_lines_at_once(lines) * costs.choosing_nbytes if len(names) > 1 else 0.0,
        operations=sum(one.operations for one in passes) * len(plan.spans) + a_file * files,
        full=max(shares, key=lambda name: shares[name]),
    )


def _span_seconds(one: Pass, plan: Plan, costs: Costs) -> list[float]:
    """What each span takes a worker of the usual pace; the store gives all that read at once the same share."""
    drawn = random.Random(plan.seed + 2)
    active = min(plan.workers, len(plan.spans))
    a_byte = max(one.seconds_a_gigabyte / GIGABYTE, active * (one.read + one.rows) / plan.bandwidth)
    fixed = one.seconds_a_span + one.operations * plan.latency
    if plan.output == "shards" and one.rows:
        fixed += costs.flush_seconds
    return [(fixed + nbytes * a_byte) * _noise(drawn, plan.spread) for nbytes in plan.spans]


def _build_seconds(rows: float, plan: Plan, costs: Costs) -> list[float]:
    """What putting files together takes: nothing where each segment becomes a shard."""
    gigabytes = rows / GIGABYTE
    if plan.output == "file":
        if plan.workers == 1:
            return [gigabytes * costs.build_seconds + len(plan.spans) * costs.piece_seconds]
        copies = _COPIES * plan.workers
        pieces = len(plan.spans) * costs.piece_seconds
        hashed, copied = gigabytes * costs.hash_seconds + pieces, (gigabytes * costs.copy_seconds + pieces) / copies
        return [hashed, *[copied] * copies]
    if _is_renamed(rows, plan):
        return []
    files = _files(rows, plan)
    operations = 3 + 2 * len(plan.spans) / files  # each segment is opened and removed
    pieces = len(plan.spans) / files * costs.piece_seconds
    return [gigabytes / files * costs.build_seconds + pieces + operations * plan.latency] * files


def _lines_at_once(lines: float) -> float:
    return lines if lines <= _MOST_LINES_IN_MEMORY else _LINES_AT_ONCE


def _files(rows: float, plan: Plan) -> int:
    if plan.output == "file":
        return 1
    return len(plan.spans) if _is_renamed(rows, plan) else max(1, math.ceil(rows / plan.shard_nbytes))


def _is_renamed(rows: float, plan: Plan) -> bool:
    """Tell whether no two segments fit a shard, so that each becomes one."""
    return plan.output == "shards" and 2 * rows / len(plan.spans) > plan.shard_nbytes


def _noise(drawn: random.Random, spread: float) -> float:
    return math.exp(drawn.gauss(0.0, spread)) if spread else 1.0


def sizes_of(nbytes: int, span_nbytes: int | None, *, files: int = 1) -> list[int]:
    """Cut an input of plain files of the same size into spans as a run does; None for its own rule."""
    shards = [Shard(f"{index}.jsonl", nbytes // files, 0, index=index) for index in range(files)]
    return [span.nbytes for span in spans_of(shards, span_nbytes)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 100, 10_000])
    parser.add_argument("--bytes", nargs="+", default=["10TB"], help="of input (default: %(default)s)")
    parser.add_argument("--span", nargs="+", default=["rule"], help="a size, or the rule of a run (default)")
    parser.add_argument("--work", nargs="+", choices=WORKS, default=["convert"])
    parser.add_argument("--backend", choices=MEASURED.dispatch, default="ray")
    parser.add_argument("--output", choices=["shards", "file"], default="shards")
    parser.add_argument("--files", type=int, default=1, help="of input")
    parser.add_argument("--line", default="22kB", help="bytes of input a line (default: %(default)s)")
    parser.add_argument("--spread", type=_share, default=0.1, help="how workers and spans differ (default: 10%%)")
    parser.add_argument("--slow-share", type=_share, default=0.0, help="of workers that are slow (default: none)")
    parser.add_argument("--slow-factor", type=float, default=3.0, help="how many times as long they take (default: 3)")
    parser.add_argument("--failures-per-hour", type=float, default=0.0, help="of each worker (default: none)")
    parser.add_argument("--retries", type=int, default=DEFAULT_RETRIES)
    parser.add_argument("--stall-seconds", type=float, default=DEFAULT_STALL_SECONDS)
    parser.add_argument("--latency", type=float, default=0.001, help="s for an operation of the store (default: 0.001)")
    parser.add_argument("--bandwidth", default="", help="of the store a second, as 1TB (default: no limit)")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    print(HEADER)
    for work in chosen.work:
        for size in chosen.bytes:
            for span in chosen.span:
                for workers in chosen.workers:
                    plan = Plan(
                        workers=workers,
                        spans=sizes_of(
                            nbytes_of(size), None if span == "rule" else nbytes_of(span), files=chosen.files
                        ),
                        work=work,
                        backend=chosen.backend,
                        output=chosen.output,
                        line_nbytes=nbytes_of(chosen.line),
                        spread=chosen.spread,
                        slow_share=chosen.slow_share,
                        slow_factor=chosen.slow_factor,
                        failures_per_hour=chosen.failures_per_hour,
                        retries=chosen.retries,
                        stall_seconds=chosen.stall_seconds,
                        latency=chosen.latency,
                        bandwidth=nbytes_of(chosen.bandwidth) if chosen.bandwidth else math.inf,
                        seed=chosen.seed,
                    )
                    print(_told(f"{work} {size}", plan, simulate(plan)))


HEADER = (
    f"{'run':<18} {'workers':>7} {'spans':>6} {'MB each':>8} {'seconds':>9} {'at best':>9} {'driver s':>9} "
    f"{'of workers':>10} {'busy':>5} {'idle':>5} {'again':>5} {'driver':>8} {'choosing':>9} {'operations':>10}  full"
)


def _told(run: str, plan: Plan, outcome: Outcome) -> str:
    useful = outcome.worker_seconds - outcome.wasted_seconds
    share = outcome.driver_seconds / max(outcome.worker_seconds, 1e-9)
    idle = 1 - min(outcome.worker_seconds / (plan.workers * outcome.seconds), 1)
    return (
        f"{run:<18} {plan.workers:>7,} {len(plan.spans):>6,} {max(plan.spans) / 1e6:>8,.0f} {outcome.seconds:>9,.1f} "
        f"{useful / plan.workers:>9,.1f} {outcome.driver_seconds:>9,.1f} {share:>10.2%} "
        f"{outcome.driver_seconds / outcome.seconds:>5.0%} {idle:>5.0%} {outcome.redone:>5,} "
        f"{outcome.driver_nbytes / 1e6:>5,.0f} MB {outcome.choosing_nbytes / 1e9:>6,.1f} GB {outcome.operations:>10,}  "
        f"{outcome.problem or outcome.full}"
    )


def _share(text: str) -> float:
    return float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)


if __name__ == "__main__":
    main()
