"""Where the task rows of materialized inputs stand, by the index that NeMo Gym gives a task in one file, and agents.

The index alone would do for what one collection wrote; of files that were put together, several tasks have one.
"""

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
    "agent": pl.String,
    "has_seed": pl.Boolean,
}


class Place(NamedTuple):
    """Where one row stands: in which of the files, from where, how many bytes; and what the row has."""

    file: int
    offset: int
    nbytes: int
    agent: str | None
    has_seed: bool


def write_task_sources(places: Mapping[tuple[int, str | None], tuple[int, int, bool]], path: Path) -> None:
    """Write where the row of each index and agent stands in one file.

    Raises:
        FailedRun: It cannot be written.
    """
    rows = [(index, offset, nbytes, agent, seed) for (index, agent), (offset, nbytes, seed) in places.items()]
    write_part([pl.DataFrame(rows, schema=_COLUMNS, orient="row")], path)


def places_of(
    tables: tuple[str, ...], indexes: Sequence[int | None], agents: Sequence[str | None]
) -> list[Place | None]:
    """Find the row of each index and agent in files of one shard, whose tables are given in order.

    Of several the first counts; an agent that is not named, there or here, may be any. It holds some 40 bytes for each
    task of the shard.
    """
    known = _read(tables)
    asked = pl.Series(indexes, dtype=pl.Int64).fill_null(0)
    starts, stops = (known["task_index"].search_sorted(asked, side).to_list() for side in ("left", "right"))
    among = [at for start, stop in zip(starts, stops, strict=True) for at in range(start, stop)]
    candidates = known[among].select("file", "offset", "nbytes", "agent", "has_seed").iter_rows()
    found: list[Place | None] = []
    for start, stop, index, agent in zip(starts, stops, indexes, agents, strict=True):
        places = [Place(*next(candidates)) for _ in range(start, stop)]
        fitting = (place for place in places if agent is None or place.agent in (agent, None))
        found.append(None if index is None else next(fitting, None))
    return found


@lru_cache(maxsize=1)
def _read(tables: tuple[str, ...]) -> pl.DataFrame:
    parts = [read_files([table]).with_columns(pl.lit(file).alias("file")) for file, table in enumerate(tables)]
    return (
        pl.concat(parts)
        .unique(["task_index", "agent"], keep="first", maintain_order=True)
        .sort("task_index", maintain_order=True)
    )
