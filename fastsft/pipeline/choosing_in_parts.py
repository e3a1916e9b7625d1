"""Choose from a table that is larger than memory: the steps of `selection/partitions.py`, by workers, in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from fastsft.execution.workers import Workers
from fastsft.inputs.shards import Shard, Span
from fastsft.options import Options
from fastsft.outputs.assembly import digest_of
from fastsft.outputs.receipts import Receipt
from fastsft.pipeline.choosing import Choice, chosen_spans, receipt_of_index, receipt_of_rowless, table_parts
from fastsft.pipeline.choosing_pairs import earlier_lines, split_rows, with_others
from fastsft.pipeline.two_passes import CHOSEN
from fastsft.report import PairCounts, SplitRows
from fastsft.selection import partitions
from fastsft.selection.criteria import Dropped, columns_of, where_of
from fastsft.selection.index_file import Index
from fastsft.selection.pairs import PAIR_COLUMNS
from fastsft.selection.partitions import LIMITED, PartitionJudged, Plan
from fastsft.selection.seen import merged, seen_of
from fastsft.selection.table import CHOSEN_COLUMNS, TablePart, join_files, read_files
from fastsft.storage.files import make_folder, remove_folder

# In memory, a line takes up to 330 bytes while lines are compared.
_MOST_LINES_IN_MEMORY = 10_000_000
_LINES_AT_ONCE = 2_000_000  # of which a worker ranks those of one partition
_LINES_READ = 500_000  # of an index, at once


def may_choose_in_parts(table: Index | Sequence[tuple[str, int, int, int]], options: Options) -> bool:
    """Tell whether a table is so large that it is taken apart; not where any lines are compared with any."""
    if options.where is not None and where_of(options.where)[1]:
        return False
    if options.pairing is not None and options.pairing.balance:
        return False
    lines = table.rows if isinstance(table, Index) else sum(rows for _, rows, *_ in table)
    return lines > _MOST_LINES_IN_MEMORY


def choose_in_parts(
    table: Index | Sequence[tuple[str, int, int, int]],
    folder: Path,
    shards: Sequence[Shard],
    spans: Sequence[Span],
    options: Options,
    shares: Sequence[float],
    workers: Workers,
) -> Choice:
    """Choose the lines that `choose_lines` would from an index or the parts of a table, and write them.

    Raises:
        FailedRun: The table cannot be read, or `--where` cannot be worked out.
    """
    inside, written = folder / "choosing", folder / "table"
    for path in (inside, written):
        remove_folder(path)
        make_folder(path)
    names = tuple(columns_of(options, splits=bool(shares)))
    choice = Choice([], [])
    if isinstance(table, Index):
        reading = partial(_read_index, names=names, shards=shards, folder=folder, written=written)
        ((parts, receipt),) = workers.in_order(reading, [table])
        choice.receipts.append(receipt)
    else:
        parts = table_parts(table, folder)
    batches = partitions.batches_of(parts, _LINES_AT_ONCE)
    plan = Plan(str(inside), names, options, tuple(shares), batches, partitions.firsts_of(batches))
    steps = _Steps(plan, workers)
    if options.pairing is None:
        chosen, choice.dropped, choice.splits = steps.take()
    else:
        chosen = steps.pair(choice)
    if rowless := receipt_of_rowless(partitions.rowless_of(plan), shards, folder):
        choice.receipts.append(rowless)
    if chosen:
        files = partitions.sorted_chosen(plan)
        if options.pairing is None:
            join_files(files, [name for name in CHOSEN_COLUMNS if name != "task" or plan.has_tasks], folder / CHOSEN)
            choice.spans = chosen_spans(spans, (read_files([file], ("shard_index", "offset")) for file in files))
        else:
            join_files(files, PAIR_COLUMNS, folder / CHOSEN)
            found = chosen_spans(spans, (earlier_lines(read_files([file], PAIR_COLUMNS)) for file in files))
            choice.spans = with_others(found, folder / CHOSEN, shards)
        choice.digest = digest_of([CHOSEN], folder)
    else:
        for seen in steps.each(_seen):
            choice.seen = merged(choice.seen, seen)
    remove_folder(inside)
    remove_folder(written)
    return choice


def _read_index(
    _: int, index: Index, names: Sequence[str], shards: Sequence[Shard], folder: Path, written: Path
) -> tuple[list[TablePart], Receipt]:
    """Write the rollouts of an index as parts of a table; return these, and the receipt of its other lines."""
    parts, refused = index.write_parts(names, written, _LINES_READ)
    return parts, receipt_of_index(index, refused, shards, folder)


class _Steps:
    """The steps of one choice, one after another."""

    def __init__(self, plan: Plan, workers: Workers) -> None:
        self._plan = plan
        self._workers = workers
        self._dropped: dict[tuple[int, str], int] = {}

    def each(self, step: Callable[..., Any], **more: Any) -> list[Any]:
        """Do a step for each batch, or partition."""
        work = partial(step, plan=self._plan, **more)
        return list(self._workers.in_order(work, range(self._plan.partitions), what="partition"))

    def pair(self, choice: Choice) -> int:
        """Do all steps for pairs, fill in what became of the lines, and return how many pairs there are."""
        self._judge()
        counts, kept, splits = PairCounts(), dict[int, int](), list[tuple[int, int, int]]()
        for paired in self.each(partitions.pair_partition):
            self._count([partitions.PartitionJudged(paired.dropped, 0)])
            counts += paired.counts
            splits += paired.splits
            for shard_index, count in paired.kept:
                kept[shard_index] = kept.get(shard_index, 0) + count
        self.each(partitions.sort_pairs)
        choice.dropped, choice.kept, choice.pairs = self._all_dropped(), sorted(kept.items()), counts
        choice.splits = split_rows(splits, self._plan.shares)
        return counts.pairs

    def _judge(self) -> None:
        """Route lines to the partitions of their tasks, and judge each by itself."""
        if self._plan.has_tasks:
            self.each(partitions.find_prompts)
            list(self._workers.in_order(partial(_join_prompts, plan=self._plan), [0]))
            self.each(partitions.route)
        self._count(self.each(partitions.judge_partition))

    def take(self) -> tuple[int, Dropped, list[SplitRows]]:
        """Do all steps; return how many lines are chosen, what was dropped, and the splits."""
        plan = self._plan
        self._judge()
        if plan.dedups:
            self.each(partitions.find_duplicates)
        left = self._count(self.each(partitions.rank_partition))
        for reason in LIMITED:
            most = partitions.limit_of(reason, plan.options, left)
            if most is not None:
                left = self._limit(reason, most)
        counts = [counts for of_partition in self.each(partitions.split_partition) for counts in of_partition]
        splits = split_rows(counts, plan.shares)
        self.each(partitions.sort_chosen)
        return left, self._all_dropped(), splits

    def _all_dropped(self) -> Dropped:
        return [(index, reason, count) for (index, reason), count in sorted(self._dropped.items())]

    def _limit(self, reason: str, most: int) -> int:
        counts = [row for rows in self.each(partitions.count_draws, reason=reason) for row in rows]
        buckets = partitions.buckets_of(counts, most)
        draws = [row for rows in self.each(partitions.draws_in, reason=reason, buckets=buckets) for row in rows]
        limits = partitions.limits_of(draws, buckets)
        return self._count(self.each(partitions.keep_drawn, reason=reason, limits=limits))

    def _count(self, judged: Sequence[PartitionJudged]) -> int:
        """Take in what became of the lines of partitions; return how many are left."""
        for one in judged:
            for index, reason, count in one.dropped:
                self._dropped[index, reason] = self._dropped.get((index, reason), 0) + count
        return sum(one.left for one in judged)


def _join_prompts(_: int, __: int, plan: Plan) -> None:
    partitions.join_prompts(plan)


def _seen(_: int, number: int, plan: Plan) -> Any:
    names = [name for name in ("reward", "agent") if name in plan.names]
    lines = partitions.batch_of(plan, number, names) if names else pl.DataFrame()
    return seen_of(*(lines[name] if name in names else () for name in ("reward", "agent")))
