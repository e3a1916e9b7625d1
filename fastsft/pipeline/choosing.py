"""From the table of lines to the lines that are converted: what is between two passes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
import polars as pl

from fastsft.inputs.shards import ByteRange, Shard, Span, printable
from fastsft.options import Options
from fastsft.outputs.assembly import digest_of
from fastsft.outputs.receipts import RangeFates, Receipt, Segment
from fastsft.outputs.segments import SegmentWriter
from fastsft.pipeline.two_passes import CHOSEN, ChosenSpan
from fastsft.report import Fates, PairCounts, RefusedLine, SplitRows
from fastsft.selection.criteria import choose, columns_of
from fastsft.selection.index_file import Index
from fastsft.selection.seen import Seen, seen_of
from fastsft.selection.table import TablePart, read_parts, write_chosen
from fastsft.selection.tasks import split_counts

_MOST_SHARD_NBYTES = 1 << 44
_LINES_AT_ONCE = 10_000


class Choice(msgspec.Struct):
    """What was chosen from the table of lines.

    Attributes:
        dropped: How many lines of which shard, by its index, were dropped for which reason.
        receipts: Of lines that no span has refused.
        spans: Where the chosen lines of each span stand in the file of chosen lines; without spans that have none.
        splits: The rows and tasks of each split; empty without splits.
        seen: What rollouts hold, where none was chosen.
        digest: Of the file of chosen lines; empty where none was.
        kept: How many lines of which shard, by its index, are in rows that have several.
        pairs: What became of these; None where each row has one line.
    """

    dropped: list[tuple[int, str, int]]
    receipts: list[Receipt]
    spans: list[ChosenSpan] = []
    splits: list[SplitRows] = []
    seen: Seen | None = None
    digest: str = ""
    kept: list[tuple[int, int]] = []
    pairs: PairCounts | None = None


def choose_lines(
    table: Index | Sequence[tuple[str, int, int, int]],
    folder: Path,
    shards: Sequence[Shard],
    spans: Sequence[Span],
    options: Options,
    shares: Sequence[float],
) -> Choice:
    """Choose from the table of lines, an index or the parts that spans have written, and write what was chosen.

    Raises:
        FailedRun: The table cannot be read, or `--where` cannot be worked out.
    """
    names = columns_of(options, splits=bool(shares))
    lines, receipts = known_lines(table, names, folder, shards)
    chosen, dropped, rowless = choose(lines, options, shares)
    if receipt := receipt_of_rowless([rowless], shards, folder):
        receipts.append(receipt)
    choice = Choice(dropped, receipts)
    if shares:
        choice.splits = split_counts(chosen, 1 + len(shares))
    if chosen.is_empty():
        choice.seen = seen_of(*(lines[name] if name in lines.columns else () for name in ("reward", "agent")))
    else:
        write_chosen(chosen, folder / CHOSEN)
        choice.spans, choice.digest = chosen_spans(spans, [chosen]), digest_of([CHOSEN], folder)
    return choice


def known_lines(
    table: Index | Sequence[tuple[str, int, int, int]], names: Sequence[str], folder: Path, shards: Sequence[Shard]
) -> tuple[pl.DataFrame, list[Receipt]]:
    """Read columns of a table of lines, and the receipts of what an index knows beside them."""
    if not isinstance(table, Index):
        return scanned_lines(table, folder, names), []
    lines, refused = table.read(names)
    return lines, [receipt_of_index(table, refused, shards, folder)]


def scanned_lines(parts: Sequence[tuple[str, int, int, int]], folder: Path, names: Sequence[str]) -> pl.DataFrame:
    """Read the columns `names` of all rollouts that were scanned, in input order; parts as the ledger has them."""
    return read_parts(table_parts(parts, folder), names)


def table_parts(parts: Sequence[tuple[str, int, int, int]], folder: Path) -> list[TablePart]:
    """Return the parts of the table that lie in a folder; parts as the ledger has them."""
    return [TablePart(folder / name, *numbers) for name, *numbers in parts]


def chosen_spans(spans: Sequence[Span], chosen: Iterable[pl.DataFrame]) -> list[ChosenSpan]:
    """Say where the lines of each span stand among the chosen ones; not of spans without.

    The chosen lines are in input order, in one table or in several.
    """
    ranges = [one for span in spans for one in span.ranges]
    # All edges are looked up at once, as each look costs Polars 0.3 ms.
    edges = pl.concat([_edges(ranges, end=False), _edges(ranges, end=True)])
    before = pl.zeros(len(edges), dtype=pl.UInt64, eager=True)
    for lines in chosen:
        places = lines.select(_in_input(pl.col("shard_index"), pl.col("offset")))["edge"]
        before += places.search_sorted(edges, side="left").cast(pl.UInt64)
    cuts = zip(before[: len(ranges)].to_list(), before[len(ranges) :].to_list(), strict=True)
    found = [ChosenSpan(span, tuple(next(cuts) for _ in span.ranges)) for span in spans]
    return [one for one in found if any(start < stop for start, stop in one.slices)]


def _edges(ranges: Sequence[ByteRange], *, end: bool) -> pl.Series:
    """Return where ranges begin, or end, in the input; a compressed shard is one range, whatever its size is inside."""
    shard_indexes = [one.shard.index + (end and one.shard.compression is not None) for one in ranges]
    offsets = [0 if one.shard.compression is not None else one.stop if end else one.start for one in ranges]
    edges = pl.DataFrame(
        {"shard_index": shard_indexes, "offset": offsets}, schema={"shard_index": pl.UInt64, "offset": pl.UInt64}
    )
    return edges.select(_in_input(pl.col("shard_index"), pl.col("offset")))["edge"]


def _in_input(shard_index: pl.Expr, offset: pl.Expr) -> pl.Expr:
    """Return one number that orders bytes as the input does: files of up to 16 TiB, up to a million of them."""
    return (shard_index.cast(pl.UInt64) * _MOST_SHARD_NBYTES + offset).alias("edge")


def receipt_of_index(index: Index, refused: pl.DataFrame, shards: Sequence[Shard], folder: Path) -> Receipt:
    """Return the receipt of what an index knows of shards beside their rollouts."""
    ranges = [RangeFates(shard.shard_index, shard.fates, shard.problem) for shard in index.known_shards()]
    first, segment = _write_refused([refused], shards, folder)
    return Receipt(-1, ranges, refused=segment, first_refused=first, is_numbered=True)


def receipt_of_rowless(lines: Iterable[pl.DataFrame], shards: Sequence[Shard], folder: Path) -> Receipt | None:
    """Return the receipt of lines that have no row, which stand in one table or in several; None without."""
    counts: dict[int, dict[str, int]] = {}

    def counted() -> Iterator[pl.DataFrame]:
        for some in lines:
            for index, reason, count in some.group_by("shard_index", "reason").agg(pl.len()).rows():
                of_shard = counts.setdefault(index, {})
                of_shard[reason] = of_shard.get(reason, 0) + count
            yield some

    first, segment = _write_refused(counted(), shards, folder)
    if segment is None:
        return None
    ranges = [
        RangeFates(index, Fates(refused={reason: count}))
        for index, reasons in sorted(counts.items())
        for reason, count in sorted(reasons.items())
    ]
    return Receipt(-1, ranges, refused=segment, first_refused=first, is_numbered=True)


def _write_refused(
    lines: Iterable[pl.DataFrame], shards: Sequence[Shard], folder: Path
) -> tuple[RefusedLine | None, Segment | None]:
    """Write refused lines that no span has written, few at once; return the first, and their file."""
    paths = [printable(shard.path) for shard in shards]
    first: RefusedLine | None = None
    with SegmentWriter(folder, "known") as writer:
        for table in lines:
            for some in table.iter_slices(_LINES_AT_ONCE):
                refused = [RefusedLine(paths[index], *line) for index, *line in some.iter_rows()]
                first = first or refused[0]
                writer.write_refused(refused)
        return first, writer.finish()[1]
