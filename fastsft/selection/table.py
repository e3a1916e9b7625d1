"""The table of lines: what is known of each rollout without its text, a column for each thing.

A run builds the columns that its criteria ask for and no others; an index holds all of
them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import polars as pl

from fastsft.errors import FailedRun, errors_naming
from fastsft.formats.sides import Sides
from fastsft.inputs.lines import ChosenLines
from fastsft.inputs.shards import ByteRange
from fastsft.rollouts.prompts import prompt_hash
from fastsft.rollouts.rollout import Rollout
from fastsft.selection import facts
from fastsft.storage.files import new_file, remove


class Column(NamedTuple):
    """One column: its type, and how it is found from a rollout; None where the line's place tells."""

    dtype: type[pl.DataType]
    of: Callable[[Rollout], Any] | None = None


class TablePart(NamedTuple):
    """A file of lines that one span has: the part of the table of its rollouts.

    Attributes:
        path: The file.
        rows: How many lines it has.
        shard_index: Which of the run's shards its first range is of.
        before: How many lines of that shard stand before that range.
    """

    path: str | Path
    rows: int
    shard_index: int
    before: int


_FILES_AT_ONCE = 256  # of which a process may have 1,024 open
FROM_ROWS = ("unusable", "problem", "content")
CHOSEN_COLUMNS = ("line", "offset", "nbytes", "split", "task")  # of chosen lines; the last where it is known
FROM_SIDES = Sides._fields  # of rows, where they are to be compared


class ShardColumns(NamedTuple):
    """Which shard: its path as JSON can hold it, and which of the run's shards it is, from 0."""

    shard: str
    shard_index: int


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
    "shard_index": Column(pl.UInt32),  # which of the run's shards it is in, from 0
    "prompt": Column(pl.UInt64, prompt_hash),
    "unusable": Column(pl.String),  # why it has no row, as a reason; null where it has one, or nobody asked
    "problem": Column(pl.String),  # the same as a sentence
    "content": Column(pl.Binary),  # hash of the row; null where it has none, or nobody asked
    # What `formats/sides.py` tells of it; null in the same places.
    "context": Column(pl.UInt64),
    "answer": Column(pl.UInt64),
    "answer_length": Column(pl.UInt32),
    "whole": Column(pl.UInt64),
    "length": Column(pl.UInt32),
    "acts": Column(pl.UInt32),
    "later": Column(pl.Binary),
}


def table(
    names: Iterable[str],
    rollouts: Sequence[Rollout],
    *,
    shard: ShardColumns,
    lines: Sequence[int],
    offsets: Sequence[int],
    numbers: Sequence[int] | None = None,
) -> pl.DataFrame:
    """Build columns of the rollouts of one shard; line i begins at `offsets[i]` and ends where the next begins.

    `numbers`, from 0, is what the lines are called; the same as `lines` if not given.
    """
    return frame_of(columns(names, rollouts, shard=shard, lines=lines, offsets=offsets, numbers=numbers))


def columns(
    names: Iterable[str],
    rollouts: Sequence[Rollout],
    *,
    shard: ShardColumns,
    lines: Sequence[int],
    offsets: Sequence[int],
    numbers: Sequence[int] | None = None,
) -> dict[str, Sequence[Any]]:
    """Find the same columns, as Python has them."""
    known = {name: _column(name, rollouts, shard, lines, offsets) for name in names}
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
    name: str, rollouts: Sequence[Rollout], shard: ShardColumns, lines: Sequence[int], offsets: Sequence[int]
) -> Sequence[Any]:
    match name:
        case "shard" | "shard_index":
            return [getattr(shard, name)] * len(lines)
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


def with_rows(known: pl.DataFrame, told: Sequence[Sequence[Any]], names: Sequence[str]) -> pl.DataFrame:
    """Add columns that take making the rows."""
    values = zip(*told, strict=True)
    return known.hstack(
        [pl.Series(name, list(of_all), _dtype(name)) for name, of_all in zip(names, values, strict=True)]
    )


def write_part(
    tables: Sequence[pl.DataFrame], path: Path, reduce: Callable[[pl.DataFrame], pl.DataFrame] | None = None
) -> None:
    """Write a part of the table, or what `reduce` makes of it, as an Arrow file, which is read by columns.

    Raises:
        FailedRun: It cannot be written.
    """
    try:
        with errors_naming(path):
            part = pl.concat(tables)
            with new_file(path) as file:
                (reduce(part) if reduce else part).write_ipc(file)
    except pl.exceptions.PolarsError as error:  # it tells of a full disk itself
        raise FailedRun(f"cannot write {path}: {str(error).splitlines()[0]}; nothing was published") from None


def read_parts(parts: Sequence[TablePart], names: Sequence[str]) -> pl.DataFrame:
    """Read the columns `names` of parts, end to end; lines are numbered as in their shards."""
    parts = [part for part in parts if part.rows]
    if not parts:
        return empty(names)
    lines = read_files([part.path for part in parts], names)
    return _numbered(lines, parts) if "line" in names else lines


def read_files(paths: Sequence[str | Path], names: Sequence[str] | None = None) -> pl.DataFrame:
    """Read columns of Arrow files, end to end, many at once: Polars takes a third of a file's time for each reading."""
    batches = [paths[start : start + _FILES_AT_ONCE] for start in range(0, len(paths), _FILES_AT_ONCE)]
    found = []
    for batch in batches:
        with contextlib.ExitStack() as stack:
            # Not paths, as Polars takes one with brackets for a glob.
            files: list[IO[bytes]] = [stack.enter_context(open(path, "rb")) for path in batch]
            found.append(pl.scan_ipc(files).select(pl.all() if names is None else names).collect())
    return pl.concat(found)


def join_files(paths: Sequence[Path], names: Sequence[str], path: Path) -> None:
    """Write columns of Arrow files, end to end, into one, without holding them in memory.

    Raises:
        FailedRun: It cannot be written.
    """
    remove(path, missing_ok=True)
    try:
        with errors_naming(path), contextlib.ExitStack() as stack:
            files: list[IO[bytes]] = [stack.enter_context(open(one, "rb")) for one in paths]
            pl.scan_ipc(files).select(names).sink_ipc(stack.enter_context(new_file(path)))
    except pl.exceptions.PolarsError as error:
        raise FailedRun(f"cannot write {path}: {str(error).splitlines()[0]}; nothing was published") from None


def _numbered(lines: pl.DataFrame, parts: Sequence[TablePart]) -> pl.DataFrame:
    """Number the lines of parts that go on in a shard as they are numbered in the shard."""
    if not any(part.before for part in parts):
        return lines
    schema = {"first": pl.UInt32, "before": pl.UInt64, "rows": pl.UInt64}
    values = [(part.shard_index, part.before, part.rows) for part in parts]
    each = pl.DataFrame(values, schema=schema, orient="row")
    each = each.select(pl.col("first", "before").repeat_by("rows")).explode("first", "before")
    number = pl.col("line") + pl.when(each["first"] == pl.col("shard_index")).then(each["before"]).otherwise(0)
    return lines.with_columns(number.alias("line"))


def write_chosen(lines: pl.DataFrame, path: Path, names: Sequence[str] = CHOSEN_COLUMNS) -> None:
    """Write chosen lines, or pairs of them, for the spans that read them.

    Raises:
        FailedRun: It cannot be written.
    """
    remove(path, missing_ok=True)
    write_part([lines.select(name for name in names if name in lines.columns)], path)


def read_chosen(path: str, one: ByteRange, start: int, stop: int) -> list[ChosenLines]:
    """Read the chosen lines of a range, from where to where they stand, a value for each split."""
    if start == stop:
        return []
    lines = read_slice(path, start, stop)
    return [
        ChosenLines(
            one,
            part["line"].to_list(),
            part["offset"].to_list(),
            part["nbytes"].to_list(),
            split,
            part["task"].to_list() if "task" in part.columns else [],
        )
        for (split,), part in lines.partition_by("split", as_dict=True, maintain_order=True).items()
    ]


def read_slice(path: str, start: int, stop: int) -> pl.DataFrame:
    """Read some lines of an Arrow file."""
    with open(path, "rb") as file:
        return pl.scan_ipc(file).slice(start, stop - start).collect()
