"""What is done to a span, wherever that is: its lines are judged, chosen by what each says itself, and converted.

A run that compares lines does it in two steps: `scan_span` writes the span's part of the table, and `convert_chosen`
the rows of the lines that were chosen from the tables of all. A span writes everything itself, to files under names
that no other attempt has, and comes back as a receipt: what it gives depends on its bytes and the options alone.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import msgspec

from fastsft.errors import DamagedShard, Dropped, FailedRun, NoRow, Refused
from fastsft.execution.memory import no_garbage_collection
from fastsft.formats import FORMATS
from fastsft.formats.row import Row, content_hash
from fastsft.formats.turns import Turn, conversation
from fastsft.inputs.encoding import escape_line_separators, is_utf8
from fastsft.inputs.lines import LineBlock, NumberedLines, chosen_lines, is_blank, line_starts, lines_in
from fastsft.inputs.shards import ByteRange, Shard, Span, printable
from fastsft.options import Options
from fastsft.outputs.receipts import RangeFates, Receipt
from fastsft.outputs.segments import SegmentWriter
from fastsft.outputs.staging import write_receipt
from fastsft.report import Fates, RefusedLine, added
from fastsft.rollouts.depth import prune_deep_values
from fastsft.rollouts.rollout import Rollout, rollout_of
from fastsft.selection import gates
from fastsft.selection.seen import Seen, merged, seen_in
from fastsft.storage.files import blocks_of

_encoder = msgspec.json.Encoder()  # built once per process; cannot be pickled, so never passed around
_any = msgspec.json.Decoder()
# Lines that go from the file to rows at once, so that they, what is made of them and what is freed stay in a
# processor's cache: real mix 1.5 s a GB in one process where 16 MiB took 1.7, short lines 3.4 where they took 4.6.
_AT_ONCE_NBYTES = 1024 * 1024


class _Judged(NamedTuple):
    """Lines of which it is known whether each is a rollout.

    Attributes:
        fates: Those of the lines that are none.
        refused: The same, one by one.
        numbers: Which lines are rollouts, from 0.
        rollouts: These rollouts, in the same order.
        offsets: Where each line begins in the shard, and after the last where the next would.
        data: The bytes of all lines.
    """

    fates: Fates
    refused: list[RefusedLine]
    numbers: list[int]
    rollouts: list[Rollout]
    offsets: list[int]
    data: memoryview

    def line(self, number: int) -> memoryview:
        first = self.offsets[0]
        return self.data[self.offsets[number] - first : self.offsets[number + 1] - first - 1]

    def refuse(self, number: int, problem: Refused) -> None:
        self.fates.refused[problem.reason] = self.fates.refused.get(problem.reason, 0) + 1
        self.refused.append(RefusedLine("", number, self.offsets[number], problem.reason, problem.problem))

    def drop(self, reason: str) -> None:
        self.fates.dropped[reason] = self.fates.dropped.get(reason, 0) + 1

    def row(self, number: int, rollout: Rollout, to_row: _ToRow) -> Row | None:
        """Give the row of a line, or None where it is refused or dropped."""
        try:
            try:
                return to_row(rollout)
            except RecursionError:
                return _row(rollout, self.line(number), to_row)
        except Refused as problem:
            self.refuse(number, problem)
        except Dropped as unwanted:
            self.drop(unwanted.reason)
        return None


class _ConvertedBlock(NamedTuple):
    """What some lines gave: refused ones count from 0 at the first."""

    fates: Fates
    refused: list[RefusedLine]
    rows: bytes
    left_out: dict[str, int]
    seen: Seen | None

    def refused_in(self, one: ByteRange, before: int) -> list[RefusedLine]:
        return _refused_in(self.refused, one, before)


class _ScannedBlock(NamedTuple):
    """What some lines are known to hold."""

    fates: Fates
    refused: list[RefusedLine]
    tables: list[Any]

    def refused_in(self, one: ByteRange, before: int) -> list[RefusedLine]:
        return _refused_in(self.refused, one, before)


def _refused_in(lines: list[RefusedLine], one: ByteRange, before: int) -> list[RefusedLine]:
    """Number refused lines from 1 at the first of their range, and name their shard."""
    for line in lines:
        line.line += before + 1
        line.shard = printable(one.shard.path)
    return lines


_ToRow: TypeAlias = Callable[[Rollout], Row]


def _to_row(options: Options, *, judging: bool = True) -> _ToRow:
    """Return what makes rows; with `judging`, it also drops rows that are too long or would not train."""
    make = partial(FORMATS[options.format], layout=options.layout)
    if not (judging and options.judges_rows):
        return make
    from fastsft.checks.judge import row_judge

    judge = row_judge(options)

    def to_row(rollout: Rollout) -> Row:
        row = make(rollout)
        judge(_any.decode(_encoder.encode(row.body)))
        return row

    return to_row


def _row(rollout: Rollout, line: memoryview, to_row: _ToRow) -> Row:
    try:
        return to_row(rollout)
    except RecursionError:  # something that the row does not use nests too deep for a second look
        return to_row(rollout_of(prune_deep_values(bytes(line))))


def _judged(lines: LineBlock, options: Options) -> _Judged:
    """Decode every line, and refuse those that are no rollout."""
    starts = line_starts(lines.data)
    offsets = [lines.offset + start for start in starts] if lines.offset else starts
    numbers: list[int] = []
    rollouts: list[Rollout] = []
    data = memoryview(lines.data)
    judged = _Judged(Fates(lines=len(starts) - 1), [], numbers, rollouts, offsets, data)
    all_fit = is_utf8(lines.data) and len(data) <= options.max_line_nbytes
    for number, (start, next_start) in enumerate(pairwise(starts)):
        line = data[start : next_start - 1]
        try:
            if not all_fit:
                _check_fit(line, options)
            rollouts.append(rollout_of(line))
            numbers.append(number)
        except Refused as problem:
            if is_blank(line):
                judged.fates.blank += 1
            else:
                judged.refuse(number, problem)
    if lines.too_long_nbytes is not None:
        judged.refuse(judged.fates.lines, too_long(lines.too_long_nbytes, options))
        judged.fates.lines += 1
    return judged


def _check_fit(line: memoryview, options: Options) -> None:
    if len(line) > options.max_line_nbytes:
        raise too_long(len(line), options)
    if not is_utf8(bytes(line)):
        raise Refused("bad_utf8", "the line is not valid UTF-8")


def too_long(nbytes: int, options: Options) -> Refused:
    """Give why a line of so many bytes is refused."""
    limit = options.max_line_nbytes
    return Refused("line_too_long", f"the line has {nbytes:,} bytes, more than --max-line allows ({limit:,})")


class Work(msgspec.Struct, frozen=True):
    """What every span of a phase is done with.

    Attributes:
        options: The settings of the run.
        fingerprint: Of what the run is made from, for its receipts.
        folder: Where segments, parts of the table and receipts go.
        phase: What the names of receipts begin with.
        most_nbytes: How many bytes of rows a segment has at most; None for no limit.
        columns: The columns of the table that a scan finds.
        every_line: Whether a scan tries a row for every line, and not for those alone that no other criterion drops.
        chosen: The file of chosen lines.
        reduce: What turns the table of a span into what the scan writes of it; None where that is the table.
    """

    options: Options
    folder: str
    fingerprint: str = ""
    phase: str = "convert"
    most_nbytes: int | None = None
    columns: tuple[str, ...] = ()
    every_line: bool = False
    chosen: str | None = None
    reduce: Callable[[Any], Any] | None = None

    @property
    def path(self) -> Path:
        """The folder as a path."""
        return Path(self.folder)

    def left(self, receipt: Receipt) -> Receipt:
        """Write the receipt of a span, whose other files are flushed, and return it."""
        return write_receipt(self.path, self.phase, msgspec.structs.replace(receipt, fingerprint=self.fingerprint))


ReportProgress: TypeAlias = Callable[[int, int], None]  # takes how many bytes of input are done, and rows written


def convert_span(_: int, span: Span, work: Work, report_progress: ReportProgress | None = None) -> Receipt:
    """Give every line of a span its fate, and write the rows of the kept ones.

    Where `report_progress` is given, this process is the only one, and it is told how far the span is.
    """
    ranges: list[RangeFates] = []
    left_out: dict[str, int] = {}
    seen: Seen | None = None
    first: RefusedLine | None = None
    done = kept = 0
    with SegmentWriter(work.path, f"{work.phase}-{span.index:06}", most_nbytes=work.most_nbytes) as writer:
        for one in span.ranges:
            fates, mark = Fates(), writer.mark()
            try:
                for lines in _lines_in(one, work.options):
                    part = _convert(lines, one, work.options)
                    writer.write_rows(part.rows, part.fates.kept)
                    writer.write_refused(part.refused_in(one, fates.lines))
                    first = first or next(iter(part.refused), None)
                    fates += part.fates
                    left_out = added(left_out, part.left_out) if part.left_out else left_out
                    seen = merged(seen, part.seen)
                    if report_progress:
                        report_progress(
                            done + min(lines.offset + len(lines.data) - one.start, one.nbytes), kept + fates.kept
                        )
                ranges.append(RangeFates(one.shard.place, fates))
            except DamagedShard as damaged:
                writer.go_back(mark)
                ranges.append(RangeFates(one.shard.place, Fates(), str(damaged)))
            done, kept = done + one.nbytes, kept + ranges[-1].fates.kept
        segments, listed = writer.finish()
    digest = input_digest(span) if work.options.verify_inputs else None
    receipt = Receipt(
        span.index, ranges, segments, listed, first, left_out, None if kept else seen, input_sha256=digest
    )
    return work.left(receipt)


def input_digest(span: Span) -> str:
    """Return the SHA-256 of the bytes of a span's ranges."""
    digest = hashlib.sha256()
    for one in span.ranges:
        for data in blocks_of(Path(one.shard.path), one.start, one.stop):
            digest.update(data)
    return digest.hexdigest()


def _lines_in(one: ByteRange, options: Options) -> Iterator[LineBlock]:
    return lines_in(one, nbytes=_at_once(options), max_line=options.max_line_nbytes)


def _at_once(options: Options) -> int:
    return min(options.span_nbytes or _AT_ONCE_NBYTES, _AT_ONCE_NBYTES)


@no_garbage_collection()
def _convert(lines: LineBlock, one: ByteRange, options: Options) -> _ConvertedBlock:
    judged = _judged(lines, options)
    reasons = _drop_reasons(judged, one.shard, options) if judged.rollouts else []
    wanted = []
    for number, rollout, reason in zip(judged.numbers, judged.rollouts, reasons, strict=True):
        if reason is None:
            wanted.append((number, rollout))
        else:
            judged.drop(reason)
    rows, left_out = _rows(judged, wanted, options)
    # Asked only where nothing is kept, as it says why a run keeps nothing.
    seen = None if judged.fates.kept else seen_in(judged.rollouts)
    return _ConvertedBlock(judged.fates, judged.refused, rows, left_out, seen)


def _drop_reasons(judged: _Judged, of: Shard, options: Options) -> list[str | None]:
    """Give why each rollout is dropped for what it says itself, or None.

    Raises:
        FailedRun: `--where` cannot be worked out for one.
    """
    reasons = gates.drop_reasons(judged.rollouts, options)
    left = [place for place, reason in enumerate(reasons) if reason is None]
    if gates.only_value_criteria(options) or not left:
        return reasons
    from fastsft.selection.criteria import columns_beyond_values, drop_reasons  # Polars: not before it is needed
    from fastsft.selection.table import ShardPlace, columns

    rollouts, lines = [judged.rollouts[place] for place in left], [judged.numbers[place] for place in left]
    shard = ShardPlace(printable(of.path), of.place)
    names = columns_beyond_values(options) or ("place",)  # without a column, a table has no lines
    known = columns(names, rollouts, place=shard, lines=lines, offsets=judged.offsets)
    for place, reason in zip(left, drop_reasons(known, options), strict=True):
        reasons[place] = reason
    return reasons


def _rows(judged: _Judged, wanted: Sequence[tuple[int, Rollout]], options: Options) -> tuple[bytes, dict[str, int]]:
    """Return the rows of the wanted lines and what they leave out, and count them."""
    left_out: dict[str, int] = {}
    bodies: list[msgspec.Struct] = []
    trimmed = 0
    to_row = _to_row(options)
    for number, rollout in wanted:
        if row := judged.row(number, rollout, to_row):
            bodies.append(row.body)
            trimmed += row.turns_cut > 0
            for what in row.left_out:
                left_out[what] = left_out.get(what, 0) + 1
    judged.fates.kept, judged.fates.trimmed = len(bodies), trimmed
    judged.refused.sort(key=lambda line: line.line)
    return escape_line_separators(_encoder.encode_lines(bodies)), left_out


def scan_span(_: int, span: Span, work: Work, report_progress: ReportProgress | None = None) -> Receipt:
    """Write the part of the table of lines that a span has, its lines numbered from 1 at the first of each range."""
    from fastsft.selection.table import write_part

    ranges: list[RangeFates] = []
    tables: list[Any] = []
    first: RefusedLine | None = None
    done = 0
    with SegmentWriter(work.path, f"{work.phase}-{span.index:06}") as writer:
        for one in span.ranges:
            fates, mark, kept = Fates(), writer.mark(), len(tables)
            try:
                for lines in _lines_in(one, work.options):
                    part = _scan(lines, one, work, fates.lines)
                    tables += part.tables
                    writer.write_refused(part.refused_in(one, fates.lines))
                    first = first or next(iter(part.refused), None)
                    fates += part.fates
                    if report_progress:
                        report_progress(done + min(lines.offset + len(lines.data) - one.start, one.nbytes), 0)
                ranges.append(RangeFates(one.shard.place, fates))
            except DamagedShard as damaged:
                writer.go_back(mark)
                del tables[kept:]
                ranges.append(RangeFates(one.shard.place, Fates(), str(damaged)))
            done += one.nbytes
        listed = writer.finish()[1]
    rollouts = sum(map(len, tables))
    name = f"{work.phase}-{span.index:06}.{secrets.token_hex(4)}.arrow" if tables else None
    if name:
        write_part(tables, work.path / name, work.reduce)
    digest = input_digest(span) if work.options.verify_inputs else None
    receipt = Receipt(span.index, ranges, [], listed, first, table=name, rollouts=rollouts, input_sha256=digest)
    return work.left(receipt)


@no_garbage_collection()
def _scan(lines: LineBlock, one: ByteRange, work: Work, before: int) -> _ScannedBlock:
    from fastsft.selection.table import FROM_ROWS, ShardPlace, table, with_rows

    options, names = work.options, work.columns
    judged = _judged(lines, options)
    if not judged.rollouts:
        return _ScannedBlock(judged.fates, judged.refused, [])
    place = ShardPlace(printable(one.shard.path), one.shard.place)
    found = [name for name in names if name not in FROM_ROWS]
    numbers = [number + before for number in judged.numbers]
    known = table(found, judged.rollouts, place=place, lines=judged.numbers, offsets=judged.offsets, numbers=numbers)
    if set(FROM_ROWS) & set(names):
        reasons: list[str | None] = [None] * len(judged.rollouts)
        if not work.every_line:
            try:
                reasons = _drop_reasons(judged, one.shard, options)
            except FailedRun:  # of `--where`, which may yet be asked of fewer lines
                reasons = gates.drop_reasons(judged.rollouts, options)
        to_row = _to_row(options)
        told = [
            _told_of_row(judged, number, rollout, to_row, hashed="content" in names) if reason is None else _NOTHING
            for number, rollout, reason in zip(judged.numbers, judged.rollouts, reasons, strict=True)
        ]
        known = with_rows(known, told)
    return _ScannedBlock(judged.fates, judged.refused, [known.select(names)])


_NOTHING = (None, None, None)


def _told_of_row(
    judged: _Judged, number: int, rollout: Rollout, to_row: _ToRow, *, hashed: bool
) -> tuple[str | None, str | None, bytes | None]:
    """Give why a line has no row, in a word and in a sentence, and the hash of the row it has."""
    try:
        row = _row(rollout, judged.line(number), to_row)
    except NoRow as problem:
        return problem.reason, problem.problem, None
    return None, None, content_hash(row) if hashed else None


class ChosenSpan(msgspec.Struct, frozen=True):
    """A span of which some lines were chosen.

    Attributes:
        span: The span.
        slices: For each of its ranges, from where to where its lines stand in the file of chosen lines.
    """

    span: Span
    slices: tuple[tuple[int, int], ...]


def convert_chosen(_: int, chosen: ChosenSpan, work: Work, report_progress: ReportProgress | None = None) -> Receipt:
    """Write the rows of the lines of a span that were chosen, one split after the other.

    Raises:
        FailedRun: A line is not the rollout that was scanned.
    """
    from fastsft.selection.table import read_chosen

    span = chosen.span
    ranges = [RangeFates(one.shard.place, Fates()) for one in span.ranges]
    left_out: dict[str, int] = {}
    done = 0
    total = sum(stop - start for start, stop in chosen.slices) or 1
    assert work.chosen is not None
    with SegmentWriter(work.path, f"{work.phase}-{span.index:06}", most_nbytes=work.most_nbytes) as writer:
        lines_of = [read_chosen(work.chosen, one, *cut) for one, cut in zip(span.ranges, chosen.slices, strict=True)]
        for split in sorted({lines.split for several in lines_of for lines in several}):
            for fates, several in zip((one.fates for one in ranges), lines_of, strict=True):
                for lines in several:
                    if lines.split != split:
                        continue
                    for numbered in chosen_lines(lines, nbytes=_at_once(work.options), max_line=_max_line(work)):
                        rows, gone = _convert_chosen(numbered, lines.range.shard.path, fates, work.options)
                        writer.write_rows(rows, len(numbered), split)
                        left_out = added(left_out, gone) if gone else left_out
                        done += len(numbered)
                        if report_progress:
                            report_progress(span.nbytes * done // total, done)
        segments = writer.finish()[0]
    return work.left(Receipt(span.index, ranges, segments, left_out=left_out))


def _max_line(work: Work) -> int:
    return work.options.max_line_nbytes


@no_garbage_collection()
def _convert_chosen(lines: NumberedLines, path: str, fates: Fates, options: Options) -> tuple[bytes, dict[str, int]]:
    bodies: list[msgspec.Struct] = []
    left_out: dict[str, int] = {}
    to_row = _to_row(options, judging=False)  # the scan did
    for number, line in lines:
        try:
            row = _row(rollout_of(line), line, to_row)
        except Refused:
            raise FailedRun(f"{path}:{number}: not the rollout that was scanned") from None
        bodies.append(row.body)
        fates.trimmed += row.turns_cut > 0
        for what in row.left_out:
            left_out[what] = left_out.get(what, 0) + 1
    fates.kept += len(bodies)
    return escape_line_separators(_encoder.encode_lines(bodies)), left_out


def judged_line(line: bytes, options: Options) -> tuple[str, Rollout | None, list[Turn]]:
    """Tell in words what becomes of one line judged by itself, and give its rollout and turns where it has them."""
    judged = _judged(LineBlock(line, 0), options)
    if judged.refused:
        return f"refused: {judged.refused[0].reason}: {judged.refused[0].problem}", None, []
    if not judged.rollouts:
        return "blank", None, []
    (rollout,) = judged.rollouts
    (reason,) = _drop_reasons(judged, Shard("", len(line), 0), options)
    try:
        turns = conversation(rollout).turns
        _row(rollout, memoryview(line), _to_row(options))
    except Refused as problem:
        return f"refused: {problem.reason}: {problem.problem}" if reason is None else f"dropped: {reason}", rollout, []
    return "kept" if reason is None else f"dropped: {reason}", rollout, turns
