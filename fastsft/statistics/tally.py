"""Counts by value of what a scan found, made by each span and added up: rewards, tasks, lengths.

When there are too many values, they are counted by four decimals.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from fastsft.options import Options
from fastsft.selection.table import read_files
from fastsft.selection.tasks import TASK_FROM, with_tasks
from fastsft.statistics.distribution import THRESHOLDS, AgentRates, AgentStats, Bin, Distribution, TaskStats

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BINS = 20
# So that few counts are held at once, and not each file costs a round, which takes Polars 5 ms.
_FILES_AT_ONCE, _NBYTES_AT_ONCE = 256, 64 * 1024 * 1024
_MOST_VALUES = 200_000  # of a column that are counted one by one
_LENGTHS = ("nbytes", "turns", "calls", "tokens")
_COUNTS = ("one", "passed")  # rollouts, and those of them that reach the threshold
# By what each kind of count is counted.
_KEYS = {"rewards": ["gate", "agent", "reward"], "tasks": TASK_FROM} | {name: ["value"] for name in _LENGTHS}
_NUMBERS = {"rewards": "reward"} | dict.fromkeys(_LENGTHS, "value")


def counts_of(lines: pl.DataFrame, options: Options) -> pl.DataFrame:
    """Count the lines of a table by value: a row for each kind of count and each value of its keys."""
    closed = [pl.when(gate).then(pl.lit(gate)) for gate in options.gates]
    gate = pl.coalesce([*closed, pl.lit(None, pl.String)])
    passed = (pl.col("reward") >= options.reward_threshold).fill_null(False)
    lines = lines.with_columns(gate.alias("gate"), one=pl.lit(1, pl.UInt64), passed=pl.lit(0, pl.UInt64))
    # What is dropped before a task is judged counts as none, but may connect two, as it does where rows are chosen.
    asked = pl.col("gate").is_null() & pl.col("reward").is_not_null()
    counted = {
        "rewards": lines,
        "tasks": lines.with_columns(one=asked.cast(pl.UInt64), passed=(passed & asked).cast(pl.UInt64)),
    }
    for name in _LENGTHS:
        counted[name] = lines.select(value=pl.col(name).cast(pl.Float64), one="one", passed="passed").drop_nulls(
            "value"
        )
    sums = [_summed(values, _KEYS[kind]).with_columns(kind=pl.lit(kind)) for kind, values in counted.items()]
    return pl.concat(sums, how="diagonal")


def _summed(values: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    return values.group_by(keys).agg(pl.col(_COUNTS).sum())


def _batches(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Group files, by number and by size."""
    batch: list[Path] = []
    nbytes = 0
    for path in paths:
        size = path.stat().st_size
        if batch and (len(batch) == _FILES_AT_ONCE or nbytes + size > _NBYTES_AT_ONCE):
            yield batch
            batch, nbytes = [], 0
        batch.append(path)
        nbytes += size
    if batch:
        yield batch


class Tally:
    """The counts of all spans."""

    def __init__(self) -> None:
        self._counts: dict[str, pl.DataFrame] = {}
        self._is_cut: set[str] = set()

    def add(self, paths: Sequence[Path]) -> None:
        """Add what spans counted, each in a file."""
        names = ["kind", *dict.fromkeys(key for keys in _KEYS.values() for key in keys), *_COUNTS]
        for batch in _batches(paths):
            self.add_counts(read_files(batch, names))

    def add_counts(self, counts: pl.DataFrame) -> None:
        """Add what `counts_of` counted."""
        for kind, keys in _KEYS.items():
            self._add(kind, counts.filter(pl.col("kind") == kind).select(*keys, *_COUNTS))

    def rates(self) -> list[AgentRates]:
        """Return how often each agent reaches the threshold, the one with the most rollouts first."""
        rewards = self._counts["rewards"].filter(pl.col("gate").is_null() & pl.col("reward").is_not_null())
        share = pl.col("one") / pl.col("one").sum()  # first, as the sum of finite rewards may be beyond a double
        means = rewards.group_by("agent").agg(mean=(pl.col("reward") * share).sum())
        tasks = with_tasks(self._counts["tasks"]).group_by("agent", "task").agg(pl.col(_COUNTS).sum())
        agents = (
            tasks.filter(pl.col("one") > 0)
            .group_by("agent")
            .agg(
                pl.col("one").sum(),
                pl.col("passed").sum(),
                tasks=pl.len(),
                never=(pl.col("passed") == 0).sum(),
                always=(pl.col("passed") == pl.col("one")).sum(),
            )
            .join(means, on="agent", nulls_equal=True)
        )
        found = [
            AgentRates(
                row["agent"],
                rollouts=row["one"],
                mean=row["mean"],
                passed=row["passed"],
                tasks=row["tasks"],
                never=row["never"],
                sometimes=row["tasks"] - row["never"] - row["always"],
                always=row["always"],
            )
            for row in agents.iter_rows(named=True)
        ]
        return sorted(found, key=lambda agent: (-agent.rollouts, agent.name or ""))

    def octaves(self, name: str) -> list[Bin]:
        """Count the values of a length by powers of two, from the least to the largest; each `high` is not included."""
        counts: dict[int, int] = {}
        for value, count in self._counts[name].select("value", "one").iter_rows():
            power = max(int(value), 0).bit_length()  # 0, 1, 2 to 3, 4 to 7
            counts[power] = counts.get(power, 0) + count
        powers = range(min(counts, default=0), max(counts, default=-1) + 1)
        return [Bin(float(2**power >> 1), float(2**power), counts.get(power, 0)) for power in powers]

    def _add(self, kind: str, values: pl.DataFrame) -> None:
        """Add to the counts of a kind; once there were too many numbers, all are cut to four decimals.

        Cut, not rounded, so that none comes over a threshold that it was below.
        """
        keys, number = _KEYS[kind], _NUMBERS.get(kind)
        before = [self._counts[kind]] if kind in self._counts else []
        total = _summed(pl.concat([*before, values]), keys)
        if number and (kind in self._is_cut or len(total) > _MOST_VALUES):
            self._is_cut.add(kind)
            total = _summed(total.with_columns((pl.col(number) * 1e4).floor() / 1e4), keys)
        self._counts[kind] = total

    def results(self) -> dict[str, Any]:
        """Return the fields of `Stats` that are counted."""
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
            "lengths": {name: _distribution(self._counts[name], "value") for name in _LENGTHS},
        }


def _distribution(counted: pl.DataFrame, name: str, parts: tuple[float, ...] = QUANTILES) -> Distribution:
    total = counted.group_by(name).agg(pl.col("one").sum()).sort(name)
    values, counts = total[name].cast(pl.Float64), total["one"]
    count = int(counts.sum())
    if not count:
        return Distribution(0, None, None, None, {str(part): None for part in parts})
    positions = counts.cum_sum()
    ranks = {part: max(1, math.ceil(part * count)) for part in parts}
    quantiles: dict[str, float | None] = {
        str(part): float(values[int(positions.search_sorted(rank))]) for part, rank in ranks.items()
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
    index = ((pl.col("reward") - low) / width).floor().clip(0, BINS - 1).cast(pl.Int64)
    counts = dict(counted.group_by(index.alias("bin")).agg(pl.col("one").sum()).rows())
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
