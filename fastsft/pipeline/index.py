"""Scan rollouts into an index: a row of the table for each rollout, and one for each refused line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from fastsft.errors import UsageError
from fastsft.inputs.shards import find_rollouts, is_same_file
from fastsft.options import INDEX_NAME, Options
from fastsft.outputs.refused import RefusedPart
from fastsft.outputs.target import check_promise
from fastsft.pipeline.scan import Scan
from fastsft.report import Progress, Report
from fastsft.storage.files import kind_of
from fastsft.storage.seal import head_of
from fastsft.storage.whole import written_whole


def index_path(output: str | os.PathLike[str]) -> Path:
    """Return where an index goes: in a folder, to the name under which it is found."""
    text = os.fspath(output)
    if text.endswith("/") or kind_of(text) == "folder":
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
    if kind_of(target) and head_of(target) is None:
        raise UsageError(f"{target} is no index of fastsft, and would be overwritten; choose another output")
    # An index accounts for every line.
    with Scan(shards, notes, msgspec.structs.replace(options, max_refused_recorded=None)) as scan:
        scan.run(_columns(options), on_progress, every_line=True)
        ledger = scan.ledger
        with written_whole(target) as part:
            writing = partial(_write, part, scan.folder, ledger.parts, ledger.refused, ledger.report, shards, options)
            scan.run_alone(writing)
    return ledger.report


def _columns(options: Options) -> list[str]:
    from fastsft.selection.index_file import columns_for  # Polars: not before the workers are forked

    return columns_for(options)


def _write(
    path: Path,
    folder: Path,
    parts: Sequence[tuple[str, int, int, int]],
    refused_parts: Sequence[RefusedPart],
    *about: Any,
) -> None:
    """Write the table of all lines to a file that is no index yet."""
    from fastsft.pipeline.choosing import scanned_lines
    from fastsft.selection.index_file import columns_for, refused_lines, write_table

    report, shards, options = about
    refused = refused_lines((folder / part.segment.name, part.shard, part.before) for part in refused_parts)
    write_table(path, scanned_lines(parts, folder, columns_for(options)), refused, report, shards, options)
