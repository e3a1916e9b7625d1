"""Bring what a run has published in its work folder to a store, so that who goes by the report sees whole outputs.

Order: the old reports away, files of rows up, each whole and by a worker, old files away, the new reports up, the main
one last and only where there is none. Beside the files, the work folder says what is planned and what is up, so that a
run that was broken off goes on with the rest.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec

from fastsft.errors import FailedRun, KeepsReceipts
from fastsft.execution.workers import Workers
from fastsft.outputs.assembly import digest_of
from fastsft.outputs.target import Target
from fastsft.report import Report
from fastsft.storage.files import kind_of, read_file, write_new
from fastsft.storage.stores import entry_at, open_store, read_all

_PLAN = "upload.json"
_LEAST_PART_NBYTES = 8 * 1024 * 1024
_MOST_PARTS = 9_000  # S3 takes 10,000


class Plan(msgspec.Struct):
    """What was at the URLs when a run began, and what it means to put there.

    Attributes:
        reports: The version of the report at each report's URL; empty where there was none.
        files: What an earlier run, or an earlier attempt of this one, has put there.
    """

    reports: dict[str, str] = {}
    files: list[str] = []


class File(msgspec.Struct, frozen=True):
    """A file that goes up: where it is, its URL, size and digest, and how many bytes are sent at once."""

    path: str
    url: str
    nbytes: int
    sha256: str
    part_nbytes: int


def plan_in(work: Path) -> Plan:
    """Read what a run that was broken off had planned; an empty plan without one."""
    try:
        return msgspec.json.decode(read_file(work / _PLAN), type=Plan)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        return Plan()


def write_plan(work: Path, plan: Plan) -> None:
    """Leave a plan for a run that goes on."""
    write_new(work / _PLAN, msgspec.json.encode(plan))


def upload(
    reports: Sequence[tuple[Target, str, Report]], work: Path, plan: Plan, workers: Workers, *, checked: bool
) -> None:
    """Upload all outputs of a run: of each its target in the work folder, the URL of its folder, and its report.

    With `checked`, files are what their reports say; else they are read first.

    Raises:
        KeepsReceipts: The store would not; what is up need not be uploaded again.
        FailedRun: Another run has published there meanwhile, or a file in the work folder is not what it was.
    """
    contents = {url + target.report.name: _published(report) for target, url, report in reports}
    is_up = {url for url, content in contents.items() if _report_at(url) == content}
    for url in contents.keys() - is_up:
        _remove_old(url, plan.reports.get(url, ""))
    files = [file for target, url, report in reports for file in _files_of(target, url, report)]
    new = {file.url for file in files}
    write_plan(work, Plan(plan.reports, sorted({*plan.files, *new})))
    for _ in workers.in_order(partial(_upload, work=str(work), checked=checked), files):
        pass
    for url in sorted(set(plan.files) - new):
        store, key = open_store(url)
        store.delete(key)
    for url in reversed(contents):
        store, key = open_store(url)
        # A store that was asked twice says no the second time, though the first did it.
        if url not in is_up and not store.create(key, contents[url]) and _report_at(url) != contents[url]:
            raise _published_meanwhile(url)


def _published(report: Report) -> bytes:
    return msgspec.structs.replace(report, run="").to_json()


def _report_at(url: str) -> bytes | None:
    entry = entry_at(url)
    return read_all(entry) if entry else None


def _remove_old(url: str, etag: str) -> None:
    entry = entry_at(url)
    if entry is None:
        return
    if entry.etag != etag:
        raise _published_meanwhile(url)
    store, key = open_store(url)
    store.delete(key)


def _published_meanwhile(url: str) -> FailedRun:
    again = "`fastsft verify` tells whether its files are whole; the same command replaces them"
    return KeepsReceipts(f"another run has published meanwhile: {url} is there; {again}")


def _files_of(target: Target, url: str, report: Report) -> Iterator[File]:
    named = [(output.name, output.nbytes, output.sha256) for output in report.outputs]
    if name := report.refused_lines:
        named.append((name, os.stat(target.folder / name).st_size, digest_of([name], target.folder)))
    if report.card:
        named.append((report.card.name, report.card.nbytes, report.card.sha256))
    for name, nbytes, sha256 in named:
        part_nbytes = max(_LEAST_PART_NBYTES, -(-nbytes // _MOST_PARTS))
        yield File(str(target.folder / name), url + name, nbytes, sha256, part_nbytes)


def _upload(_: int, file: File, work: str, *, checked: bool) -> None:
    """Upload one file, and leave a mark of it; one that has such a mark, and is there still, is up."""
    store, key = open_store(file.url)
    mark = Path(work, f"up-{hashlib.sha256(file.url.encode()).hexdigest()[:16]}")
    if kind_of(mark) and (entry := store.stat(key)) and read_file(mark) == _mark_of(file, entry.etag):
        return
    if not checked and digest_of([file.path], Path()) != file.sha256:
        raise FailedRun(f"{file.path} is not what was written there; remove {work}, and convert again")
    etag = store.put(key, Path(file.path), file.part_nbytes)
    write_new(mark, _mark_of(file, etag), flush=False)


def _mark_of(file: File, etag: str) -> bytes:
    return msgspec.json.encode([file.url, file.nbytes, file.sha256, etag])
