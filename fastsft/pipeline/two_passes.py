"""Rows of a run that compares lines: the table of all lines first, then the rows of those that were chosen from it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

import msgspec

from fastsft.errors import DamagedShard, FailedRun, NoRow, Refused
from fastsft.execution.memory import no_garbage_collection
from fastsft.execution.spans import ReportProgress
from fastsft.formats.row import Row, content_hash
from fastsft.formats.sides import Sides, sides_of
from fastsft.inputs.lines import ChosenLines, NumberedLines, chosen_lines
from fastsft.inputs.shards import Shard, Span, printable
from fastsft.outputs.assembly import digest_of
from fastsft.outputs.receipts import RangeFates, Receipt, Segment
from fastsft.outputs.staging import CHOICE_FILES
from fastsft.pipeline.judging import JudgedBlock, RowMaker, drop_reasons, judge_lines, row_maker, row_of
from fastsft.pipeline.one_pass import EncodedRows
from fastsft.pipeline.provenance import Origin, with_origin
from fastsft.pipeline.staged import StagedProduct
from fastsft.report import Fates, RefusedLine, TaskCounts, added
from fastsft.rollouts.line import rollout_of
from fastsft.rollouts.prompts import tools_hash
from fastsft.rollouts.rollout import Rollout
from fastsft.selection import facts, gates

CHOSEN, CHOICE = CHOICE_FILES
_NO_SIDES = (None,) * len(Sides._fields)


class LineTable(StagedProduct, frozen=True, kw_only=True):
    """The part of the table of lines that each span has, its lines numbered from 1 at the first of each range.

    Attributes:
        columns: Which columns.
        every_line: Whether a row is tried for every line, and not for those alone that no other criterion drops.
        reduce: What turns the table of a span into what is written of it; None where that is the table.
    """

    phase: ClassVar[str] = "scan"
    columns: tuple[str, ...]
    every_line: bool = False
    reduce: Callable[[Any], Any] | None = None

    @no_garbage_collection()
    def make(self, span: Span, report_progress: ReportProgress | None = None) -> Receipt:
        """Scan the lines of a span, and write what is known of its rollouts.

        Raises:
            FailedRun: An input is not what it was, or the table cannot be written.
        """
        from fastsft.selection.table import write_part

        ranges: list[RangeFates] = []
        tables: list[Any] = []
        first: RefusedLine | None = None
        done = 0
        with self.writer(span.index) as writer:
            for one in span.ranges:
                fates, mark, kept, first_before = Fates(), writer.mark(), len(tables), first
                try:
                    for lines in self.blocks_in(one):
                        # By Polars, as the table takes it anyway.
                        for judged in judge_lines(lines, one, fates.lines, self.options, by_polars=True):
                            tables += self._scan(judged)
                            writer.write_refused(judged.refused)
                            first = first or next(iter(judged.refused), None)
                            fates += judged.fates
                        if report_progress:
                            report_progress(done + min(lines.offset + len(lines.data) - one.start, one.nbytes), 0)
                    ranges.append(RangeFates(one.shard.index, fates))
                except DamagedShard as damaged:
                    writer.go_back(mark)
                    del tables[kept:]
                    first = first_before
                    ranges.append(RangeFates(one.shard.index, Fates(), str(damaged)))
                done += one.nbytes
            refused = writer.finish()[1]
        table = None
        if tables:
            name = f"{self.phase}-{span.index:06}.{secrets.token_hex(4)}.arrow"
            write_part(tables, self.path / name, self.reduce)
            nbytes = os.stat(self.path / name).st_size
            table = Segment(name, sum(map(len, tables)), nbytes, digest_of([name], self.path))
        return self.leave(Receipt(span.index, ranges, [], refused, first, table=table), span)

    def _scan(self, judged: JudgedBlock) -> list[Any]:
        """Return the table of the rollouts of a block, in a list; an empty one without any."""
        from fastsft.selection.table import FROM_ROWS, FROM_SIDES, ShardColumns, table, with_rows

        if not judged.rollouts:
            return []
        known = table(
            [name for name in self.columns if name not in (*FROM_ROWS, *FROM_SIDES)],
            judged.rollouts,
            shard=ShardColumns(printable(judged.shard.path), judged.shard.index),
            lines=judged.numbers,
            offsets=judged.offsets,
            numbers=[number + judged.before for number in judged.numbers],
        )
        if {*FROM_ROWS, *FROM_SIDES} & set(self.columns):
            names = (*FROM_ROWS, *FROM_SIDES) if self.has_sides else FROM_ROWS
            known = with_rows(known, self.known_of_rows(judged), names)
        return [known.select(self.columns)]

    @property
    def has_sides(self) -> bool:
        """Whether what rows say is to be compared turn by turn."""
        return not set(Sides._fields).isdisjoint(self.columns)

    def known_of_rows(self, judged: JudgedBlock) -> Sequence[tuple[Any, ...]]:
        """Return why each rollout has no row, in a word and a sentence, the hash of the row it has, and its sides."""
        has_sides = self.has_sides
        reasons: list[str | None] = [None] * len(judged.rollouts)
        if not self.every_line:
            try:
                reasons = drop_reasons(judged, self.options)
            except FailedRun:  # of `--where`, which may yet be asked of fewer lines
                reasons = gates.drop_reasons(judged.rollouts, self.options)
        make, is_hashed = row_maker(self.options), "content" in self.columns
        not_asked = (None, None, None, *(_NO_SIDES if has_sides else ()))
        return [
            known_of_row(rollout, judged.line(number), make, is_hashed=is_hashed, has_sides=has_sides)
            if reason is None
            else not_asked
            for number, rollout, reason in zip(judged.numbers, judged.rollouts, reasons, strict=True)
        ]


def known_of_row(
    rollout: Rollout, line: memoryview, make: RowMaker, *, is_hashed: bool, has_sides: bool = False
) -> tuple[Any, ...]:
    """Return why a line has no row, in a word and in a sentence, the hash of the row it has, and its sides."""
    try:
        row = row_of(rollout, line, make)
    except NoRow as problem:
        return problem.reason, problem.problem, None, *(_NO_SIDES if has_sides else ())
    content = content_hash(row) if is_hashed else None
    return None, None, content, *(_sides_of(rollout, row) if has_sides else ())


def _sides_of(rollout: Rollout, row: Row) -> Sides:
    """Return the sides of a row, whose agent and tools are told before its first message."""
    return sides_of(row, begins=msgspec.json.encode([facts.agent(rollout), tools_hash(rollout)]))


class ChosenSpan(msgspec.Struct, frozen=True):
    """A span of which some lines were chosen.

    Attributes:
        span: The span.
        slices: For each of its ranges, from where to where its lines stand in the file of chosen lines.
        others: Of pairs, the shards in which lines of the span have their partners.
    """

    span: Span
    slices: tuple[tuple[int, int], ...]
    others: tuple[Shard, ...] = ()

    @property
    def index(self) -> int:
        """Which span it is."""
        return self.span.index

    @property
    def nbytes(self) -> int:
        """How many bytes of files the span takes in."""
        return self.span.nbytes


class MadeRows(Protocol):
    """Rows of chosen lines, and what is counted of them."""

    trimmed: int
    left_out: dict[str, int]

    @property
    def tasks(self) -> TaskCounts | None:
        """Where task rows come from; None for other rows."""
        ...

    def __len__(self) -> int: ...
    def encode(self, *, by_polars: bool) -> bytes:
        """Return them as lines of JSON, each one line to every loader."""
        ...


class ChosenRows(StagedProduct, frozen=True, kw_only=True):
    """The rows of the lines of each span that were chosen, one split after the other.

    Attributes:
        chosen: The file of chosen lines.
    """

    phase: ClassVar[str] = "convert"
    chosen: str

    @no_garbage_collection()
    def make(self, span: ChosenSpan, report_progress: ReportProgress | None = None) -> Receipt:
        """Write the rows of the chosen lines of a span.

        Raises:
            FailedRun: A line is not the rollout that was scanned, or the rows cannot be written.
        """
        from fastsft.selection.table import read_chosen

        parts, max_line = span.span.ranges, self.options.max_line_nbytes
        ranges = [RangeFates(one.shard.index, Fates()) for one in parts]
        left_out: dict[str, int] = {}
        tasks: TaskCounts | None = None
        done = 0
        total = sum(stop - start for start, stop in span.slices) or 1
        with self.writer(span.index) as writer:
            lines_of = [read_chosen(self.chosen, one, *cut) for one, cut in zip(parts, span.slices, strict=True)]
            for split in sorted({lines.split for by_split in lines_of for lines in by_split}):
                for fates, by_split in zip((one.fates for one in ranges), lines_of, strict=True):
                    for lines in by_split:
                        if lines.split != split:
                            continue
                        for numbered in chosen_lines(lines, nbytes=self.block_nbytes, max_line=max_line):
                            rows = self.convert(numbered, lines)
                            writer.write_rows(rows.encode(by_polars=True), len(rows), split)
                            fates.kept += len(rows)
                            fates.trimmed += rows.trimmed
                            left_out = added(left_out, rows.left_out) if rows.left_out else left_out
                            tasks = rows.tasks if tasks is None or rows.tasks is None else tasks + rows.tasks
                            done += len(numbered)
                            if report_progress:
                                report_progress(span.nbytes * done // total, done)
            segments = writer.finish()[0]
        receipt = Receipt(span.index, ranges, segments, left_out=left_out, choice=self.choice, tasks=tasks)
        return self.leave(receipt, span.span)

    def convert(self, lines: NumberedLines, chosen: ChosenLines) -> MadeRows:
        """Make the rows of chosen lines.

        Raises:
            FailedRun: A line is not the rollout that was scanned.
        """
        rows, make = EncodedRows(), row_maker(self.options, judging=False)  # the scan did
        path = chosen.range.shard.path
        for number, line in lines:
            try:
                rollout = rollout_of(line)
                row, body = row_of(rollout, line, make), None
                if self.options.provenance:
                    origin = Origin(path, number, chosen.task_of(number))
                    body = with_origin(row.body, rollout, origin, self.options)
                rows.add(row, body)
            except Refused:
                raise FailedRun(f"{path}:{number}: not the rollout that was scanned") from None
        return rows
