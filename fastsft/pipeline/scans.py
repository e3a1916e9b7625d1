"""Scan rollouts for the table of what is known of each, span by span, and read it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from fastsft.pipeline.ledger import Ledger
from fastsft.pipeline.spans import ChosenSpan
from fastsft.shards import Span
from fastsft.table import read_parts


def scanned_lines(ledger: Ledger, folder: Path, names: Sequence[str]) -> pl.DataFrame:
    """Read the columns `names` of all rollouts that were scanned, in input order."""
    return read_parts([(folder / name, place, before) for name, place, before in ledger.parts], names)


def chosen_spans(spans: Sequence[Span], lines: pl.DataFrame) -> list[ChosenSpan]:
    """Say where the lines of each span stand among the chosen ones, which are in input order; not of spans without."""
    places, offsets = lines["place"], lines["offset"]
    found = []
    for span in spans:
        slices = []
        for one in span.ranges:
            first, last = (int(places.search_sorted(one.shard.place, side=side)) for side in ("left", "right"))
            if one.shard.compression is None and first < last:  # else offsets count decompressed bytes
                inside = offsets.slice(first, last - first)
                start, stop = (first + int(inside.search_sorted(edge, side="left")) for edge in (one.start, one.stop))
                first, last = start, stop
            slices.append((first, last))
        if any(start < stop for start, stop in slices):
            found.append(ChosenSpan(span, tuple(slices)))
    return found
