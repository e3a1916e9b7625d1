"""The table of lines: what is known of each rollout without its text, a column for each thing.

A run builds the columns that its criteria ask for and no others; an index holds all of
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from fastsft import facts
from fastsft.errors import FailedRun, errors_naming
from fastsft.lines import Chosen
from fastsft.rollout import Rollout
from fastsft.shards import ByteRange
from fastsft.tasks import prompt_hash


class Column(NamedTuple):
    """One column: its type, and how it is found from a rollout; None where the line's place tells."""

    dtype: type[pl.DataType]
    of: Callable[[Rollout], Any] | None = None


FROM_ROWS = ("unusable", "problem", "content")


class ShardPlace(NamedTuple):
    """Which shard: its path as JSON can hold it, and which of the run's shards it is, from 0."""

    shard: str
    place: int


COLUMNS = {
    "shard": Column(pl.String),  # the path of its shard, as it was found
    "line": Column(pl.UInt64),  # its number in the shard, from 1
    "offset": Column(pl.UInt64),  # bytes before it in the shard, decompressed
    "nbytes": Column(pl.UInt32),  # its length in bytes
    "reward": Column(pl.Float64, facts.reward),
    "agent": Column(pl.String, facts.agent),
    "task": Column(pl.UInt64),  # `with_tasks` finds it
    "task_index": Column(pl.Int64, facts.task_index),
    "masked": Column(pl.Boolean, facts.masked),
    "failed": Column(pl.Boolean, facts.failed),
    "unverified": Column(pl.Boolean, facts.unverified),
    "incomplete": Column(pl.Boolean, facts.incomplete),
    "no_generation": Column(pl.Boolean, facts.no_generation),
    "no_user_turn": Column(pl.Boolean, facts.no_user_turn),
    "status": Column(pl.String, facts.status),
    "turns": Column(pl.UInt32, facts.turns),
    "calls": Column(pl.UInt32, facts.calls),
    "tokens": Column(pl.UInt32, facts.tokens),
}
# What a scan finds beside them: the parts from which tasks are told, and what a row would hold.
HIDDEN = {
    "place": Column(pl.UInt32),  # which of the run's shards it is in, from 0
    "prompt": Column(pl.UInt64, prompt_hash),
    "unusable": Column(pl.String),  # why it has no row, as a reason; null where it has one, or nobody asked
    "problem": Column(pl.String),  # the same as a sentence
    "content": Column(pl.Binary),  # hash of the row; null where it has none, or nobody asked
}


def table(
    names: Iterable[str],
    rollouts: Sequence[Rollout],
    *,
    place: ShardPlace,
    lines: Sequence[int],
    offsets: Sequence[int],
    numbers: Sequence[int] | None = None,
) -> pl.DataFrame:
    """Build columns of the rollouts of one shard; line i begins at `offsets[i]` and ends where the next begins.

    `numbers`, from 0, is what the lines are called; the same as `lines` if not given.
    """
    return frame_of(columns(names, rollouts, place=place, lines=lines, offsets=offsets, numbers=numbers))


def columns(
    names: Iterable[str],
    rollouts: Sequence[Rollout],
    *,
    place: ShardPlace,
    lines: Sequence[int],
    offsets: Sequence[int],
    numbers: Sequence[int] | None = None,
) -> dict[str, Sequence[Any]]:
    """Find the same columns, as Python has them."""
    known = {name: _column(name, rollouts, place, lines, offsets) for name in names}
    if numbers is not None and "line" in known:
        known["line"] = [number + 1 for number in numbers]
    return known


def frame_of(known: Mapping[str, Sequence[Any]]) -> pl.DataFrame:
    """Build a table from columns by their names."""
    return pl.DataFrame([pl.Series(name, values, _dtype(name)) for name, values in known.items()])


def empty(names: Sequence[str]) -> pl.DataFrame:
    """Build the table of no rollouts."""
    return pl.DataFrame(schema={name: _dtype(name) for name in names})


def _dtype(name: str) -> type[pl.DataType]:
    return (COLUMNS.get(name) or HIDDEN[name]).dtype


def _column(
    name: str, rollouts: Sequence[Rollout], place: ShardPlace, lines: Sequence[int], offsets: Sequence[int]
) -> Sequence[Any]:
    match name:
        case "shard" | "place":
            return [getattr(place, name)] * len(lines)
        case "line":
            return [line + 1 for line in lines]
        case "offset":
            return [offsets[line] for line in lines]
        case "nbytes":
            return [offsets[line + 1] - offsets[line] - 1 for line in lines]
        case _:
            of = (COLUMNS.get(name) or HIDDEN[name]).of
            assert of is not None, name
            return list(map(of, rollouts))


def with_rows(known: pl.DataFrame, told: Sequence[tuple[str | None, str | None, bytes | None]]) -> pl.DataFrame:
    """Add the columns `FROM_ROWS`, which take making the rows."""
    kinds = {name: HIDDEN[name].dtype for name in FROM_ROWS}
    return known.hstack(pl.DataFrame(told, schema=kinds, orient="row"))


def write_part(tables: Sequence[pl.DataFrame], path: Path) -> None:
    """Write a part of the table as an Arrow file, which is read by columns.

    Raises:
        FailedRun: It cannot be written.
    """
    try:
        with errors_naming(path):
            pl.concat(tables).write_ipc(path)
    except pl.exceptions.PolarsError as error:  # it tells of a full disk itself
        raise FailedRun(f"cannot write {path}: {str(error).splitlines()[0]}; nothing was published") from None


def read_parts(parts: Sequence[tuple[Path, int, int]], names: Sequence[str]) -> pl.DataFrame:
    """Read the columns `names` of parts, end to end.

    Args:
        parts: Each file, the place of the first shard in it, and how many lines of that shard stand before it.
        names: The columns.
    """
    if not parts:
        return empty(names)
    read = [
        _behind(pl.scan_ipc(path).select(names), place, before if "line" in names else 0)
        for path, place, before in parts
    ]
    return pl.concat(read).collect()


def _behind(part: pl.LazyFrame, place: int, before: int) -> pl.LazyFrame:
    """Number the lines of a part that goes on in a shard as they are numbered in the shard."""
    if not before:
        return part
    goes_on = pl.col("place") == place
    return part.with_columns(pl.when(goes_on).then(pl.col("line") + before).otherwise(pl.col("line")).alias("line"))


def write_chosen(lines: pl.DataFrame, path: Path) -> None:
    """Write chosen lines for the spans that read them.

    Raises:
        FailedRun: It cannot be written.
    """
    write_part([lines.select("line", "offset", "nbytes", "split")], path)


def read_chosen(path: str, one: ByteRange, start: int, stop: int) -> list[Chosen]:
    """Read the chosen lines of a range, from where to where they stand, a value for each split."""
    if start == stop:
        return []
    lines = pl.scan_ipc(path).slice(start, stop - start).collect()
    return [
        Chosen(one, part["line"].to_list(), part["offset"].to_list(), part["nbytes"].to_list(), split)
        for (split,), part in lines.partition_by("split", as_dict=True, maintain_order=True).items()
    ]
