"""Rows as Parquet, for trainers that read nothing else: segments of JSON lines -> one file.

A column has a type, so arguments and tools are JSON strings, and what a turn lacks is null. Columns and fields of turns
that no row of an output has are left out of all its files: a template that asks whether a turn has calls takes null for
some. Row groups are cut by the number of rows, so the bytes depend on the rows and the version of Polars alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from fastsft.errors import FailedRun, errors_naming
from fastsft.outputs.assembly import FilePlan, digest_of, range_of
from fastsft.report import OutputShard
from fastsft.storage.files import HashedFile, blocks_of, discard, flush, new_file, remove

_GROUP_NBYTES = 32 * 1024 * 1024  # of JSON in a row group, about
_MOST_GROUP_ROWS = 10_000
# What a row or a turn may lack. Inside a text the quotes would be escaped, so bytes tell whether some row has it.
_OPTIONAL = ("reasoning_content", "tool_calls", "tool_call_id", "weight", "loss_mask", "tools", "metadata")


def names_in(names: Sequence[str], folder: Path) -> list[str]:
    """List what some row of segments has, of what a row or a turn may lack; it is the whole of small files."""
    found: set[str] = set()
    for name in names:
        rest = b""
        for data in blocks_of(folder / name, 0, None):
            window = rest + data
            found |= {key for key in _OPTIONAL if key not in found and f'"{key}":'.encode() in window}
            rest = window[-_LONGEST:]
    return [key for key in _OPTIONAL if key in found]


_LONGEST = max(len(key) + 3 for key in _OPTIONAL)


def build_parquet(
    plan: FilePlan, target: Path, folder: Path, names: Iterable[str], provenance: Iterable[str]
) -> OutputShard:
    """Make a Parquet file of pieces, flushed, and say what it holds; what a lost worker left of it is made anew.

    Args:
        plan: The file, and the pieces of segments in it.
        target: Where it is made.
        folder: Where the segments are.
        names: What rows and turns have, of what they may lack.
        provenance: The fields of `metadata`.

    Raises:
        FailedRun: It cannot be written.
    """
    import polars as pl

    discard(target)
    ranges = [range_of(piece, folder) for piece in plan.pieces]
    nbytes = sum(stop - start for _, start, stop in ranges)
    group_rows = min(max(1, _GROUP_NBYTES * plan.rows // max(nbytes, 1)), _MOST_GROUP_ROWS)
    schema = _schema(set(names), provenance)
    try:
        with errors_naming(target), _sources(ranges, plan, target) as sources, new_file(target) as file:
            if sources:
                rows = pl.scan_ndjson(sources, schema=schema)  # files, as a path with brackets is taken for a glob
                rows.sink_parquet(file, compression="zstd", row_group_size=group_rows, maintain_order=True)
            else:
                pl.DataFrame(schema=schema).write_parquet(file)
    except pl.exceptions.PolarsError as error:  # it tells of a full disk itself
        raise FailedRun(f"cannot write {target}: {str(error).splitlines()[0]}; nothing was published") from None
    flush(target)
    return OutputShard(plan.name, plan.rows, target.stat().st_size, digest_of([target.name], target.parent))


@contextlib.contextmanager
def _sources(ranges: Sequence[tuple[Path, int, int]], plan: FilePlan, target: Path) -> Iterator[list[IO[bytes]]]:
    """Open segments; of one that is cut, a copy of what goes into the file."""
    copies: list[Path] = []
    with contextlib.ExitStack() as stack:
        files: list[IO[bytes]] = []
        for number, (piece, (path, start, stop)) in enumerate(zip(plan.pieces, ranges, strict=True)):
            if not piece.is_whole:
                copies.append(target.with_name(f"{target.name}.{number}.piece"))
                stack.callback(remove, copies[-1], missing_ok=True)
                path = _copied(path, start, stop, copies[-1])
            files.append(stack.enter_context(path.open("rb")))
        yield files


def _copied(path: Path, start: int, stop: int, copy: Path) -> Path:
    discard(copy)
    file = HashedFile(copy)
    try:
        for data in blocks_of(path, start, stop):
            file.write(data)
    finally:
        file.close(flush=False)
    return copy


def _schema(names: set[str], provenance: Iterable[str]) -> dict[str, Any]:
    import polars as pl

    function = pl.Struct({"name": pl.String, "arguments": pl.String})
    of_turn: dict[str, Any] = {
        "role": pl.String,
        "content": pl.String,
        "reasoning_content": pl.String,
        "tool_calls": pl.List(pl.Struct({"id": pl.String, "type": pl.String, "function": function})),
        "tool_call_id": pl.String,
        "weight": pl.Int64,
        "loss_mask": pl.Int64,
    }
    turn = {name: kind for name, kind in of_turn.items() if name not in _OPTIONAL or name in names}
    columns: dict[str, Any] = {"messages": pl.List(pl.Struct(turn))}
    if "tools" in names:
        columns["tools"] = pl.String
    if "metadata" in names:
        kinds = {"reward": pl.Float64, "line": pl.Int64}
        columns["metadata"] = pl.Struct({name: kinds.get(name, pl.String) for name in provenance})
    return columns
