"""Check what lies at an output against its report: which files, and their rows, bytes and digests."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import msgspec

from fastsft.execution.placement import Placement
from fastsft.execution.workers import Workers, cores
from fastsft.inputs.shards import printable
from fastsft.outputs.lock import Lock
from fastsft.outputs.publication import is_pending
from fastsft.outputs.published import REPORT, report_at, split_target, targets_at
from fastsft.outputs.staging import finish_left
from fastsft.outputs.target import Target
from fastsft.report import OutputShard, Report
from fastsft.storage.compression import SUFFIXES, corruption_errors, open_compressed
from fastsft.storage.files import blocks_of, kind_of
from fastsft.storage.parquet import parquet_rows

_READ_NBYTES = 1024 * 1024


class Verification(msgspec.Struct):
    """What a verification found.

    Attributes:
        files: How many files the reports name.
        rows: Rows that they should hold.
        nbytes: Bytes that they should have.
        differences: What differs from the reports, as sentences; empty where all is as it should be.
        notes: What was done beside, as sentences.
    """

    files: int = 0
    rows: int = 0
    nbytes: int = 0
    differences: list[str] = []
    notes: list[str] = []


def verify_output(output: str | os.PathLike[str], *, jobs: int | None = None) -> Verification:
    """Check the files of an output, and of the splits of its run, against the reports beside them.

    What a run that died had begun to publish is finished first.

    Raises:
        UsageError: No report is there, or another run is writing there.
        FailedRun: A report cannot be read, or what was begun cannot be finished.
    """
    found = Verification()
    reports: dict[Path, Report] = {}
    for target in targets_at(output, "nothing to verify"):
        if is_pending(target.staging):
            _finish(target)
            found.notes.append(f"finished publishing what an interrupted run had ready: {target.report}")
        reports[target.report] = report_at(target)
    for path, report in list(reports.items()):
        for split in (split_target(path.parent / split.name) for split in report.splits[1:]):
            if split.report.exists():
                reports[split.report] = report_at(split)
            else:
                found.differences.append(f"{split.report}: it is missing")
    files = [(path.parent, shard) for path, report in reports.items() for shard in report.outputs]
    jobs = jobs or cores()
    with Workers(Placement(jobs=jobs), nbytes=0, tasks=len(files)) as workers:
        differences = list(workers.in_order(_differences_of, files))
    for path, report in reports.items():
        found.files += len(report.outputs)
        found.rows += report.rows
        found.nbytes += report.nbytes
        found.differences += _differences_in(path, report)
    found.differences += [problem for problems in differences for problem in problems]
    return found


def _finish(target: Target) -> None:
    lock = Lock(target)
    try:
        lock.take([])
        finish_left(target.staging)
    finally:
        lock.release()


def _differences_in(path: Path, report: Report) -> Iterator[str]:
    """Find what a report says that cannot be, and files beside it that it does not name."""
    yield from fates_differ(str(path), report)
    target = Target(path.parent, path.name.removesuffix(REPORT), None)
    named = {output.name for output in report.outputs}
    for name in sorted(os.listdir(path.parent)):
        if target.is_shard(name) and name not in named:
            yield f"{path.parent / name}: the report does not name it"
    if report.refused_lines:
        refused = path.parent / report.refused_lines
        lines = sum(data.count(b"\n") for data in blocks_of(refused, 0, None)) if kind_of(refused) == "file" else -1
        yield from refused_differ(str(refused), report, lines)


def _differences_of(_: int, item: tuple[Path, OutputShard]) -> list[str]:
    """Compare one file with what its report says."""
    folder, said = item
    path = folder / said.name
    try:
        if not path.is_file():
            return [f"{printable(str(path))}: it is missing"]
        return differences_from(said, str(path), lambda: path.open("rb", buffering=0))
    except OSError as error:
        return [f"{path}: cannot be read: {error.strerror}"]


def differences_from(said: OutputShard, path: str, open_it: Callable[[], IO[bytes]]) -> list[str]:
    """Read a file, and compare it with what its report says."""
    kind = path.rpartition(".")[2]
    nbytes, digest = 0, hashlib.sha256()
    rows = 0
    with open_it() as file:
        while data := file.read(_READ_NBYTES):
            nbytes += len(data)
            digest.update(data)
            rows += data.count(b"\n")
    if kind in SUFFIXES:
        rows = _rows_in(open_it, kind)
    elif kind == "parquet":
        rows = _rows_in_parquet(open_it)
    differences = []
    if nbytes != said.nbytes:
        differences.append(f"{path}: {nbytes:,} bytes, and the report says {said.nbytes:,}")
    if rows != said.rows:
        differences.append(f"{path}: {rows:,} rows, and the report says {said.rows:,}")
    if digest.hexdigest() != said.sha256:
        differences.append(f"{path}: sha256 {digest.hexdigest()[:16]}…, and the report says {said.sha256[:16]}…")
    return differences


def _rows_in(open_it: Callable[[], IO[bytes]], compression: str) -> int:
    """Count the lines of a compressed file."""
    rows = 0
    try:
        with open_it() as packed, open_compressed(packed, compression) as file:
            while data := file.read(_READ_NBYTES):
                rows += data.count(b"\n")
    except corruption_errors(compression):
        return rows  # its digest differs, too
    return rows


def _rows_in_parquet(open_it: Callable[[], IO[bytes]]) -> int:
    """Read how many rows a Parquet file says it has; none where it is damaged, as its digest differs, too."""
    with open_it() as file, contextlib.suppress(EOFError):
        return parquet_rows(file)
    return 0


def fates_differ(where: str, report: Report) -> Iterator[str]:
    """Find what a report says that cannot be."""
    fates = report.fates
    if fates.lines != fates.kept + fates.all_dropped + fates.all_refused + fates.blank:
        yield f"{where}: the fates of lines do not add up"
    rows = sum(split.rows for split in report.splits) if report.splits else report.rows
    if report.pairs is not None:
        sides = report.pairs.chosen + report.pairs.rejected + report.pairs.both
        if (rows, sides) != (report.pairs.pairs, fates.kept):
            yield f"{where}: {report.pairs.pairs:,} pairs of {fates.kept:,} kept lines, and {rows:,} rows of {sides:,}"
    elif rows != fates.kept:
        yield f"{where}: {fates.kept:,} lines were kept, and {rows:,} rows were written"


def refused_differ(where: str, report: Report, lines: int) -> Iterator[str]:
    """Compare the number of refused lines that are listed with what the report says."""
    most, refused = report.options.get("max_refused_recorded"), report.fates.all_refused
    if lines != (refused if most is None else min(refused, most)):
        yield f"{where}: {max(lines, 0):,} lines, and {refused:,} were refused"
