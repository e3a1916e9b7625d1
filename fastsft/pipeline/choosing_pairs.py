"""From the table of lines to the pairs that rows are made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import polars as pl

from fastsft.inputs.shards import Shard, Span
from fastsft.options import Options
from fastsft.outputs.assembly import digest_of
from fastsft.pipeline.choosing import Choice, chosen_spans, known_lines, receipt_of_rowless
from fastsft.pipeline.two_passes import CHOSEN, ChosenSpan
from fastsft.report import SplitRows
from fastsft.selection.criteria import columns_of, judge
from fastsft.selection.index_file import Index
from fastsft.selection.pairs import PAIR_COLUMNS, pair
from fastsft.selection.seen import seen_of
from fastsft.selection.table import read_slice, write_chosen
from fastsft.selection.tasks import with_tasks


def choose_pairs(
    table: Index | Sequence[tuple[str, int, int, int]],
    folder: Path,
    shards: Sequence[Shard],
    spans: Sequence[Span],
    options: Options,
    shares: Sequence[float],
) -> Choice:
    """Choose pairs from the table of lines, an index or the parts that spans have written, and write them.

    Raises:
        FailedRun: The table cannot be read, or `--where` cannot be worked out.
    """
    lines, receipts = known_lines(table, columns_of(options, splits=bool(shares)), folder, shards)
    judged = judge(with_tasks(lines.with_row_index("order")), options)
    if receipt := receipt_of_rowless([judged.rowless.drop("order")], shards, folder):
        receipts.append(receipt)
    paired = pair(judged.left, options, shares)
    choice = Choice([*judged.dropped, *paired.dropped], receipts, kept=paired.kept, pairs=paired.counts)
    choice.splits = split_rows(paired.splits, shares)
    if paired.pairs.is_empty():
        choice.seen = seen_of(lines["reward"], lines["agent"])
        return choice
    write_chosen(paired.pairs, folder / CHOSEN, PAIR_COLUMNS)
    found = chosen_spans(spans, [earlier_lines(paired.pairs)])
    choice.spans, choice.digest = with_others(found, folder / CHOSEN, shards), digest_of([CHOSEN], folder)
    return choice


def split_rows(counts: Sequence[tuple[int, int, int]], shares: Sequence[float]) -> list[SplitRows]:
    """Return the rows and tasks of each split, from counts of them: the tasks of two parts are others."""
    return [
        SplitRows(
            "",
            sum(rows for at, rows, _ in counts if at == number),
            sum(tasks for at, _, tasks in counts if at == number),
        )
        for number in range(1 + len(shares) if shares else 0)
    ]


def earlier_lines(pairs: pl.DataFrame) -> pl.DataFrame:
    """Return shard and offset of the earlier line of each pair."""
    place, other = pl.struct("shard_index", "offset"), ("other_shard_index", "other_offset")
    is_later = (pl.col(other[0]) < pl.col("shard_index")) | (
        (pl.col(other[0]) == pl.col("shard_index")) & (pl.col(other[1]) < pl.col("offset"))
    )
    earlier = pl.when(is_later.fill_null(False)).then(pl.struct(shard_index=other[0], offset=other[1])).otherwise(place)
    return pairs.select(earlier.alias("earlier")).unnest("earlier")


def with_others(found: Sequence[ChosenSpan], path: Path, shards: Sequence[Shard]) -> list[ChosenSpan]:
    """Add to spans of pairs the shards, beside their own, in which lines of these pairs stand."""
    spans = []
    for span in found:
        own = {one.shard.index for one in span.span.ranges}
        indexes: set[int] = set()
        for start, stop in span.slices:
            places = read_slice(str(path), start, stop).select("shard_index", "other_shard_index")
            indexes.update(pl.concat([places["shard_index"], places["other_shard_index"]]).drop_nulls().unique())
        others = tuple(shards[index] for index in sorted(indexes - own))
        spans.append(msgspec.structs.replace(span, others=others))
    return spans
