"""What the spans of a check leave in files, for all rows together: their hashes, and how many have which length.

Workers write the files and workers read them; the process that drives the check gets what they found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from fastsft.checks.checked import MOST_EXAMPLES
from fastsft.selection.table import TablePart, read_files, read_parts, write_part

QUANTILES = (0.5, 0.9, 0.95, 0.99, 1.0)
_HASHES = {"shard_index": pl.UInt32, "line": pl.UInt64, "hash": pl.UInt64}
_LENGTHS = {"name": pl.String, "length": pl.UInt64, "rows": pl.UInt64}


def write_hashes(rows: Sequence[tuple[int, int, int]], path: Path) -> None:
    """Write the index of the file, the line and the hash of each row.

    Raises:
        FailedRun: They cannot be written.
    """
    write_part([pl.DataFrame(rows, schema=_HASHES, orient="row")], path)


def write_lengths(lengths: Mapping[str, Mapping[int, int]], path: Path) -> None:
    """Write how many rows have which length, by what it is in.

    Raises:
        FailedRun: They cannot be written.
    """
    rows = [(name, *pair) for name, counts in lengths.items() for pair in counts.items()]
    write_part([pl.DataFrame(rows, schema=_LENGTHS, orient="row")], path)


class Duplicates(NamedTuple):
    """Rows that are there again.

    Attributes:
        rows: How many.
        first: The first of them, in input order: which row of all it is, its file and line, and those of the row that
            it repeats; lines count from 1.
    """

    rows: int
    first: list[tuple[int, int, int, int, int]]


def find_duplicates(parts: Sequence[TablePart], share: int, shares: int) -> Duplicates:
    """Find the rows that are there again, of those whose hash falls into one of so many shares."""
    rows = read_parts(parts, list(_HASHES)).with_row_index("row")
    rows = rows.filter(pl.col("hash") % shares == share).with_columns(pl.col("line") + 1)
    again = rows.filter(pl.col("hash").is_first_distinct().not_())
    shown = again.head(MOST_EXAMPLES)
    first = rows.join(shown.select("hash"), on="hash", how="semi").unique("hash", keep="first", maintain_order=True)
    examples = shown.join(first, on="hash", how="left", suffix="_first", maintain_order="left")
    return Duplicates(
        len(again), examples.select("row", "shard_index", "line", "shard_index_first", "line_first").rows()
    )


class Lengths(NamedTuple):
    """How long rows are.

    Attributes:
        quantiles: By what the length is in: bytes, turns, tokens; nearest rank.
        at_least: How many rows have at least so many tokens, for each power of two up to the longest.
    """

    quantiles: dict[str, dict[str, int]]
    at_least: dict[int, int]


def find_lengths(paths: Sequence[str]) -> Lengths:
    """Add up how many rows have which length."""
    counts = read_files(paths, list(_LENGTHS)).group_by("name", "length").agg(pl.col("rows").sum()).sort("length")
    quantiles = {}
    for name in ("nbytes", "turns", "tokens", "side"):
        one = counts.filter(pl.col("name") == name)
        if len(one):
            total = int(one["rows"].sum())
            ranks = pl.Series([max(1, -(-round(part * 100) * total // 100)) for part in QUANTILES], dtype=pl.UInt64)
            positions = one["rows"].cum_sum().search_sorted(ranks).to_list()
            quantiles[name] = dict(zip(map(str, QUANTILES), one["length"].gather(positions).to_list(), strict=True))
    tokens = counts.filter(pl.col("name") == "tokens")
    edges = [1 << power for power in range(int(tokens["length"].max() or 0).bit_length())]  # type: ignore[arg-type]
    at_least = {edge: int(tokens.filter(pl.col("length") >= edge)["rows"].sum()) for edge in edges}
    return Lengths(quantiles, at_least)
