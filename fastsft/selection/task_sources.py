"""Where the task rows of materialized inputs stand, by the index that NeMo Gym gives a task in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import polars as pl

from fastsft.selection.table import read_files, write_part

_COLUMNS = {
    "task_index": pl.Int64,
    "offset": pl.UInt64,
    "nbytes": pl.UInt32,
    "has_agent": pl.Boolean,
    "has_seed": pl.Boolean,
}


class Place(NamedTuple):
    """Where one row stands: in which of the files, from where, how many bytes; and what the row has."""

    file: int
    offset: int
    nbytes: int
    has_agent: bool
    has_seed: bool


def write_task_sources(places: Mapping[int, tuple[int, int, bool, bool]], path: Path) -> None:
    """Write where the row of each index stands in one file.

    Raises:
        FailedRun: It cannot be written.
    """
    rows = [(index, *place) for index, place in places.items()]
    write_part([pl.DataFrame(rows, schema=_COLUMNS, orient="row")], path)


def places_of(tables: tuple[str, ...], indexes: Sequence[int | None]) -> list[Place | None]:
    """Find the row of each index in files of one shard, whose tables are given in order; the first of several counts.

    It holds 30 bytes for each task of the shard.
    """
    known = _read(tables)
    asked = pl.Series(indexes, dtype=pl.Int64)
    at = known["task_index"].search_sorted(asked.fill_null(0)).clip(0, len(known) - 1)
    found = known[at].with_columns(((pl.col("task_index") == asked).fill_null(False)).alias("is_it"))
    rows = found.select("file", "offset", "nbytes", "has_agent", "has_seed", "is_it").iter_rows()
    return [Place(*place) if is_it else None for *place, is_it in rows]


@lru_cache(maxsize=1)
def _read(tables: tuple[str, ...]) -> pl.DataFrame:
    parts = [read_files([table]).with_columns(pl.lit(file).alias("file")) for file, table in enumerate(tables)]
    return pl.concat(parts).unique("task_index", keep="first", maintain_order=True).sort("task_index")
