"""Scan rollouts for the table of what is known of each, span by span, and read it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from fastsft.inputs.shards import ByteRange, Span
from fastsft.pipeline.ledger import Ledger
from fastsft.pipeline.spans import ChosenSpan
from fastsft.selection.table import TablePart, read_parts

_MOST_SHARD_NBYTES = 1 << 44


def scanned_lines(ledger: Ledger, folder: Path, names: Sequence[str]) -> pl.DataFrame:
    """Read the columns `names` of all rollouts that were scanned, in input order."""
    return read_parts([TablePart(folder / name, *numbers) for name, *numbers in ledger.parts], names)


def chosen_spans(spans: Sequence[Span], lines: pl.DataFrame) -> list[ChosenSpan]:
    """Say where the lines of each span stand among the chosen ones, which are in input order; not of spans without."""
    ranges = [one for span in spans for one in span.ranges]
    # All edges are looked up at once, as each look costs Polars 0.3 ms.
    first = lines.select(_in_input(pl.col("place"), pl.col("offset")))["edge"].search_sorted(
        pl.concat([_edges(ranges, end=False), _edges(ranges, end=True)]), side="left"
    )
    cuts = zip(first[: len(ranges)].to_list(), first[len(ranges) :].to_list(), strict=True)
    found = [ChosenSpan(span, tuple(next(cuts) for _ in span.ranges)) for span in spans]
    return [one for one in found if any(start < stop for start, stop in one.slices)]


def _edges(ranges: Sequence[ByteRange], *, end: bool) -> pl.Series:
    """Return where ranges begin, or end, in the input; a compressed shard is one range, whatever its size is inside."""
    places = [one.shard.place + (end and one.shard.compression is not None) for one in ranges]
    offsets = [0 if one.shard.compression is not None else one.stop if end else one.start for one in ranges]
    edges = pl.DataFrame({"place": places, "offset": offsets}, schema={"place": pl.UInt64, "offset": pl.UInt64})
    return edges.select(_in_input(pl.col("place"), pl.col("offset")))["edge"]


def _in_input(place: pl.Expr, offset: pl.Expr) -> pl.Expr:
    """Return one number that orders bytes as the input does: files of up to 16 TiB, up to a million of them."""
    return (place.cast(pl.UInt64) * _MOST_SHARD_NBYTES + offset).alias("edge")
