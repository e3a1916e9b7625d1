"""A bounded look at published rows: some to be shown, and what a check finds in them.

All are read where they are small, else excerpts, so that an output of 100 GB takes as long as one of 1 GB.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import msgspec

from fastsft.checks.report import CheckReport
from fastsft.checks.run import check_rows
from fastsft.execution.placement import Placement
from fastsft.inputs.excerpts import Excerpt, excerpts_of
from fastsft.inputs.shards import ROLLOUT_SUFFIXES, find_shards, printable
from fastsft.report import Report
from fastsft.storage.files import kind_of, read_file, scratch_folder

_NBYTES = 16 * 1024 * 1024  # that are checked, at some 10 MB/s
_ROWS = 20  # that are shown


class ShownRow(msgspec.Struct):
    """A row and where it stands: its line from 1, or 0 and its offset, decompressed, where no lines were counted.

    `row` is what it holds; of a line that is no JSON, its text.
    """

    file: str
    line: int
    offset: int
    row: Any

    @property
    def place(self) -> str:
        """Where it stands, for a person."""
        return f"{self.file}:{self.line}" if self.line else f"{self.file}, byte {self.offset:,}"


class SampledRows(msgspec.Struct):
    """What a look at the rows of an output gave.

    Attributes:
        shown: Some of them, from places that lie evenly over what was read.
        check: What a check finds in all that was read; None where nothing was.
        is_all: Whether that is every row.
        missing: What could not be read and why, as sentences.
    """

    shown: list[ShownRow] = []
    check: CheckReport | None = None
    is_all: bool = False
    missing: list[str] = []


def sample_rows(reports: Sequence[Report], *, template: str | None, render_seconds: float) -> SampledRows:
    """Look at the rows of the outputs of a run; the names of files are from the folder of the first.

    Raises:
        UsageError: The template cannot be used.
        FailedRun: A file changes while it is read.
    """
    sampled = SampledRows()
    names = dict(_files_of(reports, sampled.missing))
    if not names:
        return sampled
    with scratch_folder() as folder:
        shards, _ = find_shards(names)
        excerpts = [_Read(one, names[one.shard.location]) for one in excerpts_of(shards, folder, nbytes=_NBYTES)]
        sampled.missing += [f"Some rows: {printable(one.excerpt.problem)}." for one in excerpts if one.excerpt.problem]
        lines = [(one, number) for one in excerpts for number, line in enumerate(one.lines) if line.strip()]
        count = min(_ROWS, len(lines))
        sampled.shown = [one.shown(number) for one, number in (lines[at * len(lines) // count] for at in range(count))]
        if lines:
            paths = [one.path for one in excerpts]
            sampled.check = check_rows(
                paths, template=template, render_seconds=render_seconds, placement=Placement(jobs=1)
            )
            _name_places(sampled.check, {one.path: one for one in excerpts})
            sampled.is_all = sampled.check.lines >= sum(report.rows for report in reports)
    return sampled


def _files_of(reports: Sequence[Report], missing: list[str]) -> Iterator[tuple[str, str]]:
    """Return the path and the name of each file that is as its report says, by its size."""
    for report in reports:
        for output in report.outputs:
            path = os.path.join(report.folder, os.path.basename(output.name))
            name = os.path.relpath(path, reports[0].folder)
            if not output.name.endswith(ROLLOUT_SUFFIXES):
                missing.append(f"The rows in {name}: only JSON lines are read here.")
            elif kind_of(path) != "file":
                missing.append(f"The rows in {name}: the file is gone.")
            elif os.stat(path).st_size != output.nbytes:
                missing.append(f"The rows in {name}: it is not as the report says (`fastsft verify` tells more).")
            elif output.rows:
                yield path, name


class _Read:
    """The lines of an excerpt in memory."""

    def __init__(self, excerpt: Excerpt, name: str) -> None:
        self.excerpt = excerpt
        self.path = str(excerpt.path)
        self.lines = read_file(excerpt.path).split(b"\n")
        self._name = name
        self._starts = [0, *accumulate(len(line) + 1 for line in self.lines)]

    def shown(self, number: int) -> ShownRow:
        """Return a line, counted from 0, as a row."""
        line = number + 1 if self.excerpt.is_whole else 0
        offset = self.excerpt.place_of(self._starts[number])
        return ShownRow(self._name, line, offset, _decoded(self.lines[number]))

    def place_of(self, line: int) -> str:
        """Return where a line from 1 stands in the file that it is of; 0 stands for all of it."""
        return self.shown(line - 1).place if line else self._name


def _name_places(check: CheckReport, excerpts: dict[str, _Read]) -> None:
    """Tell of what was found in excerpts where it stands in the files that they are of."""
    for finding in (*check.findings, *check.notes):
        for example in finding.examples:
            path, _, line = example.detail.removeprefix("as ").rpartition(":")
            if finding.kind == "duplicate" and path in excerpts:  # the place of the first of them
                example.detail = f"as {excerpts[path].place_of(int(line))}"
            if example.file in excerpts:
                example.file, example.line = excerpts[example.file].place_of(example.line), 0


def _decoded(line: bytes) -> Any:
    try:
        return msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return line.decode("utf-8", "backslashreplace")
