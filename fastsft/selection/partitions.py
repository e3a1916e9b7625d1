"""Choose from a table that is larger than memory: the same lines as `criteria.choose`, step by step, in files.

Batches of the table, in input order, are routed into partitions, so that all lines of a task lie in one. Workers judge
and rank the lines of one partition at a time; a small value comes back, and what is left goes to files. What compares
lines of several tasks goes other ways: the same content is looked for in partitions by content, and the k-th draw of
an agent, or of all, is found from counts by the first bits of the draws, then among the few that share these bits.
At last the chosen lines are routed back into the batches of the input, and sorted there.

Every step writes its files under other names first, so that it may be done twice.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import polars as pl

from fastsft.options import Options
from fastsft.quantities import sample_of
from fastsft.selection.criteria import Dropped, criteria, judge, with_split, without_dropped
from fastsft.selection.pairs import Paired, pair
from fastsft.selection.table import CHOSEN_COLUMNS, TablePart, read_files, read_parts, write_part
from fastsft.selection.tasks import TASK_FROM, add_tasks, draw_for, indexed_prompts, joined_prompts
from fastsft.storage.files import rename

_BUCKET_BITS = 10  # of a draw, by which lines are counted: a thousandth of them is looked at one by one
LIMITED = {"per_agent": "agent", "not_sampled": None}  # criteria that compare lines of several tasks
_JOINED = "joined.arrow"


class Plan(msgspec.Struct, frozen=True):
    """How a table is taken apart.

    Attributes:
        folder: Where the files go.
        names: The columns of the table that are read.
        options: The criteria.
        shares: What part of the tasks goes to each split.
        batches: Parts of the table that are read at once, in input order.
        firsts: How many rollouts stand before each batch.
    """

    folder: str
    names: tuple[str, ...]
    options: Options
    shares: tuple[float, ...]
    batches: tuple[tuple[TablePart, ...], ...]
    firsts: tuple[int, ...]

    @property
    def partitions(self) -> int:
        """How many there are: as many as batches, so that each is as large."""
        return len(self.batches)

    @property
    def has_tasks(self) -> bool:
        """Whether lines are compared with others of their task."""
        return set(TASK_FROM) <= set(self.names)

    @property
    def dedups(self) -> bool:
        """Whether the same content is looked for."""
        return self.options.dedup

    def path(self, step: str, number: int) -> Path:
        """Return the path of a file of a step."""
        return Path(self.folder, f"{step}-{number:05}.arrow")


def batches_of(parts: Sequence[TablePart], nrows: int) -> tuple[tuple[TablePart, ...], ...]:
    """Put parts together, in order, to at most so many rows where parts are smaller; those without rows go."""
    batches: list[list[TablePart]] = []
    rows = nrows
    for part in parts:
        if not part.rows:
            continue
        if rows + part.rows > nrows:
            batches.append([])
            rows = 0
        batches[-1].append(part)
        rows += part.rows
    return tuple(map(tuple, batches))


def firsts_of(batches: Sequence[Sequence[TablePart]]) -> tuple[int, ...]:
    """Return how many rows stand before each batch."""
    firsts, before = [], 0
    for batch in batches:
        firsts.append(before)
        before += sum(part.rows for part in batch)
    return tuple(firsts)


def find_prompts(_: int, number: int, plan: Plan) -> None:
    """Write which prompts of a batch stand under an index of a file and an agent."""
    _write(indexed_prompts(batch_of(plan, number, TASK_FROM)), plan.path("indexed", number))


def join_prompts(plan: Plan) -> None:
    """Write which prompts of all batches are one task with others."""
    indexed = read_files([plan.path("indexed", number) for number in range(plan.partitions)], TASK_FROM)
    _write(joined_prompts(indexed), Path(plan.folder, _JOINED))


def route(_: int, number: int, plan: Plan) -> None:
    """Write the lines of a batch, a file for each partition of tasks."""
    lines = batch_of(plan, number, plan.names).with_row_index("order", offset=plan.firsts[number])
    lines = add_tasks(lines, read_files([Path(plan.folder, _JOINED)], ["prompt", "task"]))
    _route(lines, pl.col("task") % plan.partitions, plan, "routed", number)


class PartitionJudged(NamedTuple):
    """What became of the lines of a partition that is no file: counts of those dropped, and how many are left."""

    dropped: Dropped
    left: int


def judge_partition(_: int, number: int, plan: Plan) -> PartitionJudged:
    """Judge the lines of a partition up to their rows, and write what is left and what has no row."""
    if plan.has_tasks:
        lines = _gathered(plan, "routed", number)
    else:
        lines = batch_of(plan, number, plan.names).with_row_index("order", offset=plan.firsts[number])
    judged = judge(lines, plan.options)
    _route_to_batches(judged.rowless, plan, "rowless", number)
    if plan.dedups:
        known = judged.left.filter(pl.col("content").is_not_null()).select("order", "content")
        known = known.with_columns(pl.lit(number, pl.UInt32).alias("partition"))
        by = pl.col("content").bin.encode("hex").str.slice(0, 8).str.to_integer(base=16) % plan.partitions
        _route(known, by, plan, "contents", number)
    _write(judged.left, plan.path("judged", number))
    return PartitionJudged(judged.dropped, len(judged.left))


def find_duplicates(_: int, number: int, plan: Plan) -> None:
    """Write which lines have the content of a line before them, of a partition by content."""
    lines = _gathered(plan, "contents", number).sort("order")
    again = lines.filter(pl.col("content").is_first_distinct().not_()).select("order", "partition")
    _route(again, pl.col("partition"), plan, "duplicates", number)


def rank_partition(_: int, number: int, plan: Plan) -> PartitionJudged:
    """Drop the duplicates of a partition, and rank lines within their tasks; write what is left."""
    left = read_files([plan.path("judged", number)], None)
    dropped: Dropped = []
    if plan.dedups:
        again = _gathered(plan, "duplicates", number).select("order")
        gone = left.join(again, on="order", how="semi")
        dropped += gone.group_by("shard_index").agg(pl.len()).sort("shard_index").select(
            "shard_index", pl.lit("duplicate").alias("reason"), "len"
        ).rows()  # fmt: skip
        left = left.join(again, on="order", how="anti", maintain_order="left")
    ranked = [one for one in criteria(plan.options) if one.of_rows and one.reason not in (*LIMITED, "duplicate")]
    left, more = without_dropped(left, ranked)
    _write(left, plan.path("left", number))
    return PartitionJudged([*dropped, *more], len(left))


class Limit(NamedTuple):
    """Up to which draw the lines of a group are kept: a draw, and the order of the last line that has it."""

    draw: int
    order: int


def count_draws(_: int, number: int, plan: Plan, reason: str) -> list[tuple[str | None, int, int]]:
    """Count the lines of a partition by group and the first bits of their draws."""
    counts = _drawn(plan, number, reason).group_by("group", "bucket").agg(pl.len()).sort("group", "bucket")
    return counts.rows()


def buckets_of(counts: Iterable[tuple[str | None, int, int]], most: int) -> dict[str | None, tuple[int, int]]:
    """Find the bucket in which the last line of each group lies that is kept, and how many of it are.

    Groups of no more than `most` lines are kept whole, and left out.
    """
    groups: dict[str | None, dict[int, int]] = {}
    for group, bucket, count in counts:
        buckets = groups.setdefault(group, {})
        buckets[bucket] = buckets.get(bucket, 0) + count
    found = {}
    for group, buckets in groups.items():
        if sum(buckets.values()) <= most:
            continue
        wanted = most
        for bucket, count in sorted(buckets.items()):
            if wanted <= count:
                found[group] = (bucket, wanted)
                break
            wanted -= count
    return found


def draws_in(
    _: int, number: int, plan: Plan, reason: str, buckets: dict[str | None, tuple[int, int]]
) -> list[tuple[str | None, int, int]]:
    """Return group, draw and order of the lines of a partition that lie in the bucket of their group."""
    wanted = _frame([(group, bucket) for group, (bucket, _) in buckets.items()], ["bucket"])
    drawn = _drawn(plan, number, reason).join(wanted, on=["group", "bucket"], how="semi", nulls_equal=True)
    return drawn.select("group", "draw_for", "order").rows()


def limits_of(
    draws: Iterable[tuple[str | None, int, int]], buckets: dict[str | None, tuple[int, int]]
) -> dict[str | None, Limit]:
    """Find the limit of each group from the draws in its bucket."""
    inside: dict[str | None, list[Limit]] = {}
    for group, drawn, order in draws:
        inside.setdefault(group, []).append(Limit(drawn, order))
    limits = {}
    for group, (_, wanted) in buckets.items():
        limits[group] = sorted(inside[group])[wanted - 1] if wanted else Limit(-1, -1)
    return limits


def keep_drawn(_: int, number: int, plan: Plan, reason: str, limits: dict[str | None, Limit]) -> PartitionJudged:
    """Drop the lines of a partition that lie beyond the limit of their group; write what is left."""
    known = _frame([(group, max(limit.draw, 0), limit.order) for group, limit in limits.items()], ["most", "last"])
    drawn = _drawn(plan, number, reason).join(known, on="group", how="left", nulls_equal=True, maintain_order="left")
    is_kept = (
        pl.col("most").is_null()
        | (pl.col("draw_for") < pl.col("most"))
        | ((pl.col("draw_for") == pl.col("most")) & (pl.col("order").cast(pl.Int64) <= pl.col("last")))
    )
    added = ["group", "draw_for", "bucket", "most", "last"]
    gone = drawn.filter(is_kept.not_()).group_by("shard_index").agg(pl.len()).sort("shard_index")
    left = drawn.filter(is_kept).drop(added)
    _write(left, plan.path("left", number))
    return PartitionJudged([(shard_index, reason, count) for shard_index, count in gone.rows()], len(left))


def limit_of(reason: str, options: Options, left: int) -> int | None:
    """Return to how many lines a group, or all, are limited where so many are left; None for no limit."""
    if reason == "per_agent":
        return options.per_agent
    if options.sample is None:
        return None
    count, part = sample_of(options.sample)
    return count if part is None else left * part.numerator // part.denominator


def pair_partition(_: int, number: int, plan: Plan) -> Paired:
    """Pair the lines of a partition, and route the pairs to the batches of their earlier lines; return the rest."""
    paired = pair(read_files([plan.path("judged", number)], None), plan.options, plan.shares)
    _route_to_batches(paired.pairs, plan, "chosen", number)
    return paired._replace(pairs=paired.pairs.clear())


def sort_pairs(_: int, number: int, plan: Plan) -> None:
    """Sort the pairs of a batch by their earlier lines; those that share one are of one partition, and in order."""
    pairs = _gathered(plan, "chosen", number).sort("order", maintain_order=True)
    _write(pairs.drop("order"), plan.path("sorted", number))


def split_partition(_: int, number: int, plan: Plan) -> list[tuple[int, int, int]]:
    """Route the chosen lines of a partition back to their batches; return rows and tasks of each split."""
    chosen = with_split(read_files([plan.path("left", number)], None), plan.options, plan.shares)
    columns = ["order", "shard_index", *(name for name in CHOSEN_COLUMNS if name in chosen.columns)]
    _route_to_batches(chosen.select(columns), plan, "chosen", number)
    if not plan.shares:
        return []
    counts = chosen.group_by("split").agg(pl.len(), pl.col("task").n_unique().alias("tasks")).sort("split")
    return counts.rows()


def sort_chosen(_: int, number: int, plan: Plan) -> None:
    """Sort the chosen lines of a batch as the input has them."""
    _write(_gathered(plan, "chosen", number).sort("order").drop("order"), plan.path("sorted", number))


def sorted_chosen(plan: Plan) -> list[Path]:
    """Return the files of the chosen lines, in input order."""
    return [plan.path("sorted", number) for number in range(plan.partitions)]


def rowless_of(plan: Plan) -> Iterator[pl.DataFrame]:
    """Read the lines that have no row, in input order, a batch at a time."""
    for number in range(plan.partitions):
        yield _gathered(plan, "rowless", number).sort("order").drop("order")


def _drawn(plan: Plan, number: int, reason: str) -> pl.DataFrame:
    """Read what is left of a partition, with what its lines are drawn by."""
    lines = read_files([plan.path("left", number)], None)
    group = LIMITED[reason]
    return lines.with_columns(
        (pl.col(group) if group else pl.lit(None, pl.String)).cast(pl.String).alias("group"),
        draw_for(reason).alias("draw_for"),
    ).with_columns((pl.col("draw_for") // 2 ** (64 - _BUCKET_BITS)).alias("bucket"))


def _frame(rows: Sequence[tuple[object, ...]], numbers: Sequence[str]) -> pl.DataFrame:
    kinds = {"group": pl.String, **dict.fromkeys(numbers, pl.UInt64)}
    if "last" in kinds:
        kinds["last"] = pl.Int64
    return pl.DataFrame(list(rows), schema=kinds, orient="row")


def batch_of(plan: Plan, number: int, names: Sequence[str]) -> pl.DataFrame:
    """Read columns of a batch of the table."""
    return read_parts(plan.batches[number], names)


def _route_to_batches(lines: pl.DataFrame, plan: Plan, step: str, number: int) -> None:
    """Write lines, a file for each batch of the input that they stand in."""
    firsts = pl.Series(plan.firsts, dtype=pl.UInt64)
    batch = firsts.search_sorted(lines["order"].cast(pl.UInt64), side="right") - 1
    _route(lines, batch.cast(pl.UInt64).alias("to"), plan, step, number)


def _route(lines: pl.DataFrame, to: pl.Expr | pl.Series, plan: Plan, step: str, number: int) -> None:
    """Write lines, a file for each number that they go to, in their order; and which numbers there are none for."""
    lines = lines.with_columns(to.alias("to"))
    by = lines.partition_by("to", as_dict=True, maintain_order=True, include_key=False)
    empty = lines.head(0).drop("to")
    for target in range(plan.partitions):
        _write(by.get((target,), empty), plan.path(f"{step}-{target:05}", number))


def _gathered(plan: Plan, step: str, target: int) -> pl.DataFrame:
    """Read all that was routed to a number, in the order of the files that it came from."""
    return read_files([plan.path(f"{step}-{target:05}", number) for number in range(plan.partitions)], None)


def _write(lines: pl.DataFrame, path: Path) -> None:
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    write_part([lines], part)
    rename(part, path)
