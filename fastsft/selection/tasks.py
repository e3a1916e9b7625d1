"""Which rollouts attempt the same task.

Two do where what was asked is the same: prompt (if that is empty, what the output begins with), tools and
instructions. Escapes, the dialect of the parts, ids, seeds and sampling settings do not count. Two do also where they
share `_ng_task_index` in one file and of one agent, because a date or a random example in the prompt may differ. Across
files the index says nothing: in real data index 0 stands for 68 different prompts. Both relations are chained: all
that they connect is one task.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import polars as pl

from fastsft.report import SplitRows

# The columns that tell tasks.
TASK_FROM = ["shard_index", "agent", "task_index", "prompt"]


def with_tasks(lines: pl.DataFrame) -> pl.DataFrame:
    """Add `task`, from the columns `TASK_FROM`: the smallest prompt hash of all that are connected.

    That is stable when data are added, unless what is added joins two tasks.
    """
    return add_tasks(lines, joined_prompts(indexed_prompts(lines)))


def indexed_prompts(lines: pl.DataFrame) -> pl.DataFrame:
    """Return which prompts stand under one `_ng_task_index` of a file and an agent, each once."""
    return lines.lazy().filter(pl.col("task_index").is_not_null()).select(TASK_FROM).unique().collect()


def joined_prompts(indexed: pl.DataFrame) -> pl.DataFrame:
    """Return `prompt` and `task` of the prompts that are one task with others."""
    several = (
        indexed.lazy()
        .group_by("shard_index", "agent", "task_index")
        .agg(pl.col("prompt").unique())
        .filter(pl.col("prompt").list.len() > 1)
        .select("prompt")
        .with_row_index("group")
        .explode("prompt")
        .with_columns(pl.col("prompt").alias("task"))
        .collect()
    )
    while not several.is_empty():  # each round the smallest hash goes one step further; a few, as prompts rarely chain
        smallest = several.with_columns(pl.col("task").min().over("group")).with_columns(
            pl.col("task").min().over("prompt")
        )
        if smallest["task"].equals(several["task"]):
            break
        several = smallest
    return several.select("prompt", "task").unique("prompt")


def add_tasks(lines: pl.DataFrame, joined: pl.DataFrame) -> pl.DataFrame:
    """Add `task` to lines, in their order: the prompt, or what it is joined to."""
    if joined.is_empty():
        return lines.with_columns(pl.col("prompt").alias("task"))
    return lines.join(joined, on="prompt", how="left", maintain_order="left").with_columns(
        pl.coalesce("task", "prompt").alias("task")
    )


def split_of(shares: Sequence[float], seed: int) -> pl.Expr:
    """Return the number of the split that the task of each line goes to, from 1; 0 where it goes to none.

    It depends on the task and the seed alone, so that a task stays where it is when others are added.
    """
    point = mixed(mixed(pl.col("task")) ^ pl.lit(seed % 2**64, pl.UInt64)) // 2**11 / 2**53
    split = pl.lit(0)
    for number in range(len(shares), 0, -1):
        split = pl.when(point < sum(shares[:number])).then(pl.lit(number)).otherwise(split)
    return split


def split_counts(chosen: pl.DataFrame, splits: int) -> list[SplitRows]:
    """Count lines and tasks of each split, and the tasks that are in two: none, or the run stops.

    Raises:
        AssertionError: A task is in two splits.
    """
    counts = []
    for number in range(splits):
        here = chosen.filter(pl.col("split") == number)
        elsewhere = chosen.filter(pl.col("split") != number).select("task").unique()
        tasks = here.select("task").unique()
        counts.append(SplitRows("", len(here), len(tasks), len(tasks.join(elsewhere, on="task", how="semi"))))
    if any(count.tasks_elsewhere for count in counts):
        raise AssertionError("a task is in two splits, please report this")
    return counts


def draw(seed: int) -> pl.Expr:
    """Return a random number for each line, from its task, its rank among the rollouts of it, and the seed.

    So a line keeps its number when data of other tasks are added, wherever they stand.
    """
    position = rank(["order"], of="task").cast(pl.UInt64)
    return mixed(mixed(pl.col("task") ^ pl.lit(seed % 2**64, pl.UInt64)) ^ position)


def draw_for(reason: str) -> pl.Expr:
    """Return another random number for each line and reason, from its draw.

    With one number for all, what is left of a large group has small ones, and the next choice takes it first: of 1,000
    tasks with one rollout and 1,000 with nine, `--per-task 1 --sample 200` kept 29 of the former.
    """
    salt = int.from_bytes(hashlib.sha256(reason.encode()).digest()[:8], "little")
    return mixed(pl.col("draw") ^ pl.lit(salt, pl.UInt64))


def rank(keys: Sequence[pl.Expr | str], *, of: str) -> pl.Expr:
    """Return the rank of each line in its group, from 0, by several keys, smallest first.

    One sort of all lines: sorting each group by itself takes five times as long where groups are small.
    """
    by_group = pl.arg_sort_by(of, *keys)
    groups = pl.col(of).gather(by_group)
    position = pl.int_range(pl.len())
    begins = groups.ne_missing(groups.shift()) | (position == 0)
    first = pl.when(begins).then(position).forward_fill()
    return (position - first).gather(by_group.arg_sort())


def mixed(number: pl.Expr) -> pl.Expr:
    """Mix the bits of a UInt64, as SplitMix64 does (Steele, Lea and Flood, 2014), whatever Polars' own hash becomes."""
    number = number + pl.lit(0x9E3779B97F4A7C15, pl.UInt64)
    number = (number ^ (number // 2**30)) * pl.lit(0xBF58476D1CE4E5B9, pl.UInt64)
    number = (number ^ (number // 2**27)) * pl.lit(0x94D049BB133111EB, pl.UInt64)
    return number ^ (number // 2**31)
