"""Find lines by the table of a whole run, or by an index of it, where what becomes of a line depends on others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from fastsft.inputs.places import Place
from fastsft.inputs.shards import Shard
from fastsft.options import Options
from fastsft.pipeline.choosing import scanned_lines
from fastsft.pipeline.scan import Scan
from fastsft.pipeline.search import FoundLine, OnProgress, Search, fate_of, found_at
from fastsft.reasons import is_of
from fastsft.selection.criteria import columns_asked, columns_of, compares_lines, matching, where_of, with_reasons
from fastsft.selection.index_file import index_for, refused_lines
from fastsft.selection.tasks import mixed


def compares(search: Search, options: Options) -> bool:
    """Tell whether what is wanted depends on other lines.

    Raises:
        UsageError: An expression is none.
    """
    in_where = search.where is not None and where_of(search.where)[1]
    return in_where or (search.reason != "blank" and compares_lines(options))


def find_in_table(
    scan: Scan, shards: Sequence[Shard], search: Search, options: Options, notes: list[str], on_progress: OnProgress
) -> Iterator[FoundLine]:
    """Return the lines that are wanted, in the order of the input, each with its fate.

    Raises:
        FailedRun: There is no rollout, or an expression cannot be worked out.
    """
    table = _wanted(_known_lines(scan, shards, search, options, notes, on_progress), search, options)
    fates = {
        Place(shard_index, offset, line): fate_of(reason, problem)
        for shard_index, line, offset, reason, problem in table.iter_rows()
    }
    for found in found_at(fates, shards, options):
        yield found._replace(fate=fates[found.line.place])


def _known_lines(
    scan: Scan, shards: Sequence[Shard], search: Search, options: Options, notes: list[str], on_progress: OnProgress
) -> pl.DataFrame:
    """Return place, reason and problem of every line that is not blank and of which the expression is true."""
    asked = columns_asked(search.where) if search.where is not None else []
    names = list(dict.fromkeys([*columns_of(options, splits=False), *asked]))
    index = None if options.judges_rows else index_for(None, shards, options, notes)
    if index is not None:
        lines, refused = index.read(names)
    else:
        scan.run(names, on_progress)
        report = scan.ledger.report
        notes += [f"Skipped file: {shard.problem}" for shard in report.damaged]
        lines = scanned_lines(scan.ledger.parts, scan.folder, names)
        parts = ((scan.folder / part.segment.name, part.shard, part.before) for part in scan.ledger.refused)
        indexes = {entry.path: number for number, entry in enumerate(report.inputs)}
        refused = refused_lines(parts)
        refused = refused.with_columns(shard_index=pl.col("shard").replace_strict(indexes, return_dtype=pl.UInt32))
    known = with_reasons(lines, options)
    if search.where is not None:
        known, refused = known.filter(matching(lines, search.where)), refused.clear()
    found = ["shard_index", "line", "offset", "reason", "problem"]
    return pl.concat([known.select(found), refused.select(found)]).sort("shard_index", "offset")


def _wanted(table: pl.DataFrame, search: Search, options: Options) -> pl.DataFrame:
    if search.reason is not None:
        wanted = [reason for reason in table["reason"].unique() if is_of(reason, search.reason)]
        table = table.filter(pl.col("reason").is_in(wanted, nulls_equal=True))
    table = table.filter(pl.col("line") >= search.first)
    if not search.at_random:
        return table.head(search.count)
    number = mixed(pl.col("shard_index").cast(pl.UInt64) ^ pl.lit(options.seed % 2**64, pl.UInt64))
    draws = table.select(mixed(number ^ pl.col("offset")).arg_sort().head(search.count).sort()).to_series()
    return table[draws]
