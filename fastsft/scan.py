"""The table of the whole run, and from what was chosen in it, what is to be read."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from operator import attrgetter

import polars as pl

from fastsft.account import Account
from fastsft.chunk import scan_chunk
from fastsft.lines import Chosen
from fastsft.options import Options
from fastsft.shards import Chunk, Shard, chunks_of
from fastsft.table import empty, unpacked
from fastsft.workers import Workers

_TABLES_AT_ONCE = 64


def scan(
    shards: Sequence[Shard],
    options: Options,
    workers: Workers,
    names: Sequence[str],
    account: Account,
    tell: Callable[[float], None],
    *,
    every_line: bool = False,
) -> pl.DataFrame:
    """Build the table of all rollouts, in input order, with the columns `names`; refused lines go to the account.

    With `every_line`, a row is tried for every line; otherwise only for those that no single-line criterion drops.
    """
    tables = scanned_tables(shards, options, workers, names, account, tell, every_line=every_line)
    parts = [pl.concat(some, rechunk=True) for some in in_groups(tables)]
    return pl.concat([empty(names), *parts])


def in_groups(tables: Iterator[pl.DataFrame]) -> Iterator[list[pl.DataFrame]]:
    """Group tables, as each takes 40 KB however few lines it has: of 7,000 small shards, a parent of 0.2 GB."""
    while some := list(itertools.islice(tables, _TABLES_AT_ONCE)):
        yield some


def scanned_tables(
    shards: Sequence[Shard],
    options: Options,
    workers: Workers,
    names: Sequence[str],
    account: Account,
    tell: Callable[[float], None],
    *,
    every_line: bool = False,
) -> Iterator[pl.DataFrame]:
    """Give the same table in parts, so that who needs no more than sums of them need not hold it."""
    total_nbytes = sum(shard.nbytes for shard in shards) or 1
    done_nbytes = 0
    work = partial(scan_chunk, options=options, names=names, every_line=every_line)
    for scanned in workers.in_order(work, chunks_of(shards, options.chunk_nbytes), attrgetter("nbytes")):
        before = account.take(scanned)
        for table in scanned.tables:
            yield unpacked(table, before)
        done_nbytes += scanned.chunk.stop - scanned.chunk.start
        tell(done_nbytes / total_nbytes)


def chosen_of(shards: Sequence[Shard], lines: pl.DataFrame, nbytes: int) -> Iterator[Chosen]:
    """Give what is to be read of each chunk, in input order, one split after the other."""
    for (split,), rows in lines.partition_by("split", as_dict=True, maintain_order=True).items():
        of_shard = rows.partition_by("place", as_dict=True, maintain_order=True)
        for (place,), found in of_shard.items():
            for chunk in chunks_of([shards[place]], nbytes):
                part = _lying_in(found, chunk)
                if not part.is_empty():
                    yield Chosen(
                        chunk, part["line"].to_list(), part["offset"].to_list(), part["nbytes"].to_list(), split
                    )


def _lying_in(lines: pl.DataFrame, chunk: Chunk) -> pl.DataFrame:
    if chunk.shard.compression:  # one chunk, and offsets count decompressed bytes
        return lines
    start, stop = (int(lines["offset"].search_sorted(edge)) for edge in (chunk.start, chunk.stop))
    return lines[start:stop]
