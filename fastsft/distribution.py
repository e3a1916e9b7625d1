"""The distribution of a set of rollouts, before anything is converted: rewards, tasks, lengths.

One pass, at the speed of the scan. What is held grows with the number of tasks, not of
lines: rewards and lengths are counted by value, and when there are too many values, by four decimals.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec
import polars as pl

from fastsft.options import GATES, Options
from fastsft.pipeline.scan import scanned
from fastsft.report import Fates, Progress
from fastsft.shards import find_rollouts
from fastsft.table import read_parts
from fastsft.tasks import TASK_FROM, with_tasks

THRESHOLDS = (0.5, 0.85, 0.9, 0.95, 1.0)  # the guide's, and the edges beside them
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LENGTHS = ("nbytes", "turns", "calls", "tokens")
BINS = 20
_PARTS_AT_ONCE = 256
_MOST_VALUES = 200_000  # of a column that are counted one by one


class Distribution(msgspec.Struct):
    """How some numbers are distributed; quantiles are numbers that occur (nearest rank), null where there is none."""

    count: int
    mean: float | None
    min: float | None
    max: float | None
    quantiles: dict[str, float | None]


class AgentStats(msgspec.Struct):
    """The rewards of one agent's rollouts, and how many a threshold would keep; `name` is null where they name none."""

    name: str | None
    rewards: Distribution
    kept: dict[str, int]


class TaskStats(msgspec.Struct):
    """Tasks, their rollouts, and how many never, sometimes or always reach the threshold."""

    count: int
    rollouts: Distribution
    never: int
    sometimes: int
    always: int


class Bin(msgspec.Struct):
    """How many rewards lie from `low` to `high`, the last bin's `high` included."""

    low: float
    high: float
    count: int


class Stats(msgspec.Struct):
    """What `fastsft stats` tells.

    Attributes:
        shards: Files read.
        nbytes: Their size on disk.
        fates: Blank and refused lines; rollouts have no fate yet.
        rollouts: Lines that are rollouts.
        gated: Rollouts that say themselves not to train on them, by the first gate that is closed.
        no_reward: Rollouts whose reward is null, of those that pass the gates.
        reward_threshold: What `tasks` are judged by.
        rewards: Of the rollouts that pass the gates; so are `kept`, `histogram`, `agents` and `tasks`.
        kept: How many rows each threshold would keep at most.
        histogram: The rewards, in equal bins.
        agents: Each agent's, the largest first.
        tasks: What was attempted how often, and with which success.
        lengths: Bytes, turns, calls and tokens of a rollout.
        notes: Files that were left out, and why.
    """

    shards: int
    nbytes: int
    fates: Fates
    rollouts: int
    gated: dict[str, int]
    no_reward: int
    reward_threshold: float
    rewards: Distribution
    kept: dict[str, int]
    histogram: list[Bin]
    agents: list[AgentStats]
    tasks: TaskStats
    lengths: dict[str, Distribution]
    notes: list[str]

    def to_json(self) -> bytes:
        """Encode it for programs, in ASCII: an agent's name may hold what steers a terminal."""
        return json.dumps(msgspec.to_builtins(self), indent=2).encode()


def edges_of(bins: Sequence[Bin]) -> list[tuple[float, float]]:
    """Return where each bin begins and ends, as a person reads them: not -4.4e-16."""
    return [(round(one.low, 9), round(one.high, 9)) for one in bins]


def stats_of(
    inputs: Iterable[str | os.PathLike[str]],
    options: Options,
    *,
    on_progress: Callable[[Progress], None] | None = None,
) -> Stats:
    """Scan the rollouts of `inputs` and tell how they are distributed.

    Raises:
        UsageError: The arguments are wrong.
        FailedRun: The scan could not be finished.
    """
    shards, notes = find_rollouts(inputs)
    names = ["reward", *TASK_FROM, *GATES, *LENGTHS]
    with scanned(shards, notes, options, names, on_progress) as (ledger, folder):
        ledger.judge_scan()
        tally = _Tally(options)
        for parts in _in_groups(ledger.parts):
            tally.add(read_parts([(folder / name, place, before) for name, place, before in parts], names))
    return Stats(
        shards=len(shards),
        nbytes=sum(shard.nbytes for shard in shards),
        fates=ledger.report.fates,
        reward_threshold=options.reward_threshold,
        notes=[*ledger.report.notes, *(f"Skipped file: {shard.problem}" for shard in ledger.report.damaged)],
        **tally.results(),
    )


def _in_groups(parts: Sequence[tuple[str, int, int]]) -> Iterator[Sequence[tuple[str, int, int]]]:
    """Group parts, so that few lines are held at once, and not each part costs a round."""
    for start in range(0, len(parts), _PARTS_AT_ONCE):
        yield parts[start : start + _PARTS_AT_ONCE]


class _Tally:
    """Counts by value: of rewards by gate and agent, of rollouts and successes by task, of each length."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._counts: dict[str, pl.DataFrame] = {}

    def add(self, lines: pl.DataFrame) -> None:
        """Count the lines of a table."""
        closed = [pl.when(gate).then(pl.lit(gate)) for gate in self._options.gates]
        gate = pl.coalesce([*closed, pl.lit(None, pl.String)])
        lines = lines.with_columns(gate.alias("gate"), one=pl.lit(1, pl.UInt64))
        self._add("rewards", lines.select("gate", "agent", "reward", "one"), "reward")
        passed = (pl.col("reward") >= self._options.reward_threshold).fill_null(False).cast(pl.UInt64)
        # What is dropped before a task is judged counts as none, but may connect two, as it does where rows are chosen.
        asked = (pl.col("gate").is_null() & pl.col("reward").is_not_null()).cast(pl.UInt64)
        self._add("tasks", lines.select(*TASK_FROM, one=asked, passed=passed * asked), None)
        for name in LENGTHS:
            counted = lines.select(pl.col(name).cast(pl.Float64), "one").filter(pl.col(name).is_not_null())
            self._add(name, counted, name)

    def _add(self, name: str, values: pl.DataFrame, number: str | None) -> None:
        """Add values to what was counted, `one` and `passed` summed; too many numbers are cut to four decimals.

        Cut, not rounded, so that none comes over a threshold that it was below.
        """
        keys = [column for column in values.columns if column not in ("one", "passed")]
        sums = pl.col([column for column in values.columns if column in ("one", "passed")]).sum()
        before = [self._counts[name]] if name in self._counts else []
        total = pl.concat([*before, values]).group_by(keys).agg(sums)
        if number and len(total) > _MOST_VALUES:
            total = total.with_columns((pl.col(number) * 1e4).floor() / 1e4).group_by(keys).agg(sums)
        self._counts[name] = total

    def results(self) -> dict[str, Any]:
        """Give the fields of `Stats` that are counted."""
        rewards = self._counts["rewards"]
        passing = rewards.filter(pl.col("gate").is_null())
        known = passing.filter(pl.col("reward").is_not_null())
        gated = rewards.filter(pl.col("gate").is_not_null()).group_by("gate").agg(pl.col("one").sum()).sort("gate")
        agents = [
            AgentStats(name, _distribution(found, "reward"), _kept(found))
            for (name,), found in known.partition_by("agent", as_dict=True).items()
        ]
        return {
            "rollouts": int(rewards["one"].sum()),
            "gated": dict(gated.rows()),
            "no_reward": int(passing.filter(pl.col("reward").is_null())["one"].sum()),
            "rewards": _distribution(known, "reward"),
            "kept": _kept(known),
            "histogram": _histogram(known),
            "agents": sorted(agents, key=lambda agent: (-agent.rewards.count, agent.name or "")),
            "tasks": _tasks(self._counts["tasks"]),
            "lengths": {name: _distribution(self._counts[name], name) for name in LENGTHS},
        }


def _distribution(counted: pl.DataFrame, name: str, parts: tuple[float, ...] = QUANTILES) -> Distribution:
    total = counted.group_by(name).agg(pl.col("one").sum()).sort(name)
    values, counts = total[name].cast(pl.Float64), total["one"]
    count = int(counts.sum())
    if not count:
        return Distribution(0, None, None, None, {str(part): None for part in parts})
    places = counts.cum_sum()
    ranks = {part: max(1, math.ceil(part * count)) for part in parts}
    quantiles: dict[str, float | None] = {
        str(part): float(values[int(places.search_sorted(rank))]) for part, rank in ranks.items()
    }
    mean = float((values * counts).sum()) / count
    if not math.isfinite(mean):  # the sum of finite rewards may be beyond a double
        mean = float((values * (counts / count)).sum())
    return Distribution(count, mean, float(values[0]), float(values[-1]), quantiles)


def _kept(counted: pl.DataFrame) -> dict[str, int]:
    return {str(edge): int(counted.filter(pl.col("reward") >= edge)["one"].sum()) for edge in THRESHOLDS}


def _histogram(counted: pl.DataFrame) -> list[Bin]:
    """Count rewards in equal bins: from 0 to 1 where nearly all lie there, else without the outermost hundredths.

    What lies beyond is counted in the first and the last bin, which reach as far.
    """
    if counted.is_empty():
        return []
    found = _distribution(counted, "reward", (0.01, 0.99))
    smallest, largest = found.min or 0.0, found.max or 0.0
    low, high = found.quantiles["0.01"] or 0.0, found.quantiles["0.99"] or 0.0
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    width = high / BINS - low / BINS or 1.0  # their difference may be beyond a double
    place = ((pl.col("reward") - low) / width).floor().clip(0, BINS - 1).cast(pl.Int64)
    counts = dict(counted.group_by(place.alias("place")).agg(pl.col("one").sum()).rows())
    edges = [low + number * width for number in range(BINS + 1)]
    edges[0], edges[-1] = min(edges[0], smallest), max(edges[-1], largest)
    return [Bin(edges[number], edges[number + 1], counts.get(number, 0)) for number in range(BINS)]


def _tasks(counted: pl.DataFrame) -> TaskStats:
    tasks = with_tasks(counted).group_by("task").agg(pl.col("one").sum(), pl.col("passed").sum())
    tasks = tasks.filter(pl.col("one") > 0)
    never = int((tasks["passed"] == 0).sum())
    always = int((tasks["passed"] == tasks["one"]).sum())
    rollouts = _distribution(tasks.select(pl.col("one").alias("rollouts"), one=pl.lit(1, pl.UInt64)), "rollouts")
    return TaskStats(len(tasks), rollouts, never, len(tasks) - never - always, always)
