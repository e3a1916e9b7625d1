"""The table of lines: what is known of each rollout without its text, a column for each thing.

A run builds the columns that its criteria ask for and no others; an index holds all of
them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from fastsft import facts
from fastsft.rollout import Rollout
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
) -> pl.DataFrame:
    """Build columns of the rollouts of one shard; line i begins at `offsets[i]` and ends where the next begins."""
    return frame_of(columns(names, rollouts, place=place, lines=lines, offsets=offsets))


def columns(
    names: Iterable[str],
    rollouts: Sequence[Rollout],
    *,
    place: ShardPlace,
    lines: Sequence[int],
    offsets: Sequence[int],
) -> dict[str, Sequence[Any]]:
    """Find the same columns, as Python has them."""
    return {name: _column(name, rollouts, place, lines, offsets) for name in names}


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


def packed(known: pl.DataFrame, before: int) -> bytes:
    """Give a table as Arrow's IPC stream, on its way between processes; its lines come behind so many others."""
    stream = io.BytesIO()
    _behind(known, before).write_ipc_stream(stream)
    return stream.getvalue()


def unpacked(stream: bytes, before: int) -> pl.DataFrame:
    """Read what `packed` gave."""
    return _behind(pl.read_ipc_stream(stream), before)


def _behind(known: pl.DataFrame, before: int) -> pl.DataFrame:
    return known.with_columns(pl.col("line") + before) if "line" in known.columns else known
