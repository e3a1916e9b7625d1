"""The same as `verify.py`, of an output in a store: every object is read back."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import IO

import msgspec

from fastsft.errors import FailedRun, UsageError
from fastsft.execution.placement import Placement
from fastsft.execution.workers import Workers, cores
from fastsft.outputs.published import REPORT
from fastsft.outputs.target import Target, stem_of
from fastsft.outputs.verify import Verification, differences_from, fates_differ, refused_differ
from fastsft.report import OutputShard, Report
from fastsft.storage.read_ahead import open_object
from fastsft.storage.stores import entry_at, open_store, read_all
from fastsft.storage.urls import Entry, root_and_key


def verify_url(url: str, *, jobs: int | None = None) -> Verification:
    """Check the objects of an output, and of the splits of its run, against the reports beside them.

    Raises:
        UsageError: No report is there.
        FailedRun: A report or an object cannot be read.
    """
    found = Verification()
    reports = {entry.url: _report_in(entry) for entry in _reports_at(url)}
    for at, report in list(reports.items()):
        for name in (split.name for split in report.splits[1:]):
            split_url = _report_of_split(at.rpartition("/")[0], name)
            if entry := entry_at(split_url):
                reports[split_url] = _report_in(entry)
            else:
                found.differences.append(f"{split_url}: it is missing")
    files = [(at.rpartition("/")[0], shard) for at, report in reports.items() for shard in report.outputs]
    nbytes = sum(shard.nbytes for _, shard in files)
    with Workers(Placement(jobs=jobs or cores()), nbytes=nbytes, tasks=len(files)) as workers:
        differences = list(workers.in_order(_differences_of, files))
    for at, report in reports.items():
        found.files += len(report.outputs)
        found.rows += report.rows
        found.nbytes += report.nbytes
        found.differences += _differences_in(at, report)
    found.differences += [problem for problems in differences for problem in problems]
    return found


def _reports_at(url: str) -> list[Entry]:
    """Find the reports in a folder, or the one of an object."""
    store, key = open_store(url)
    entries = store.list(key.rstrip("/"), deep=False)
    found = [entry for entry in entries if entry.url.endswith(REPORT)]
    if not found and not url.endswith("/"):
        start, _, name = url.rpartition("/")
        at = url if name.endswith(REPORT) else f"{start}/{stem_of(name)}{REPORT}"
        found = [entry for entry in [entry_at(at)] if entry]
    if not found:
        raise UsageError(f"nothing to verify: there is no report at {url}")
    return sorted(found)


def _report_of_split(folder: str, name: str) -> str:
    """Return where the report of a split is: beside its file, or in its folder."""
    root, key = root_and_key(f"{folder}/")
    path = posixpath.normpath(posixpath.join(key, name))
    stem = posixpath.basename(path)
    beside = posixpath.dirname(path) if ".jsonl" in stem or ".parquet" in stem else path
    return "/".join(filter(None, [root, beside, f"{stem_of(stem)}{REPORT}"]))


def _report_in(entry: Entry) -> Report:
    try:
        return msgspec.json.decode(read_all(entry), type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FailedRun(f"{entry.url} cannot be read as a report: {error}") from None


def _differences_in(url: str, report: Report) -> Iterator[str]:
    """Find what a report says that cannot be, and objects beside it that it does not name."""
    yield from fates_differ(url, report)
    folder, _, name = url.rpartition("/")
    store, key = open_store(f"{folder}/")
    target = Target(None, name.removesuffix(REPORT), None)  # type: ignore[arg-type] # asked for names alone
    named = {output.name for output in report.outputs}
    for entry in sorted(store.list(key.rstrip("/"), deep=False)):
        other = entry.url.rpartition("/")[2]
        if target.is_shard(other) and other not in named:
            yield f"{entry.url}: the report does not name it"
    if report.refused_lines:
        at = f"{folder}/{report.refused_lines}"
        entry_of = entry_at(at)
        yield from refused_differ(at, report, read_all(entry_of).count(b"\n") if entry_of else -1)


def _differences_of(_: int, item: tuple[str, OutputShard]) -> list[str]:
    """Compare one object with what its report says."""
    folder, said = item
    url = f"{folder}/{said.name}"
    entry = entry_at(url)
    if entry is None:
        return [f"{url}: it is missing"]

    def open_it() -> IO[bytes]:
        return open_object(entry)

    return differences_from(said, url, open_it)
