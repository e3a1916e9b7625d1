"""Scan rollouts into an index: a row of the table for each rollout, and one for each refused line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from fastsft.errors import UsageError
from fastsft.inputs.shards import find_rollouts, is_same_file
from fastsft.options import INDEX_NAME, Options
from fastsft.outputs.target import check_promise
from fastsft.pipeline.scan import Scan
from fastsft.report import Progress, RefusedLine, Report
from fastsft.storage.seal import head_of


def _is_index(path: Path) -> bool:
    try:
        return head_of(path) is not None
    except OSError:
        return False


def index_path(output: str | os.PathLike[str]) -> Path:
    """Return where an index goes: in a folder, to the name under which it is found."""
    text = os.fspath(output)
    if text.endswith("/") or os.path.isdir(text):
        return Path(text, INDEX_NAME)
    check_promise(text, "an index is one .parquet file", ("parquet", "index"))
    return Path(text)


def write_index(
    inputs: Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    options: Options,
    *,
    on_progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Scan the rollouts of `inputs`, and write their table to `output`, whole or not at all.

    Raises:
        UsageError: The arguments are wrong; nothing was read or written.
        FailedRun: The scan could not be finished; nothing was written.
    """
    shards, notes = find_rollouts(inputs)
    target = index_path(output)
    for shard in shards:
        if is_same_file(target, shard.path):
            raise UsageError(f"{shard.path} is an input and would be overwritten; choose another output")
    if target.exists() and not _is_index(target):
        raise UsageError(f"{target} is no index of fastsft, and would be overwritten; choose another output")
    with Scan(shards, notes, options) as scan:
        from fastsft.pipeline.choosing import scanned_lines
        from fastsft.selection.index_file import columns_for, write_table  # Polars: not before the workers are forked

        names = columns_for(options)
        scan.run(names, on_progress, every_line=True)
        ledger, folder = scan.ledger, scan.folder
        refused = [
            line for part in ledger.refused for line in _refused_in(folder / part.segment.name, part.shard, part.before)
        ]
        write_table(target, scanned_lines(ledger, folder, names), refused, ledger.report, shards, options)
    return ledger.report


def _refused_in(path: Path, shard: str, before: int) -> list[RefusedLine]:
    lines = [msgspec.json.decode(line, type=RefusedLine) for line in path.read_bytes().splitlines()]
    for line in lines:
        line.line += before if line.shard == shard else 0
    return lines
