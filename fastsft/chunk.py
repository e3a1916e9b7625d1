"""What is done to a chunk, wherever that is: its lines are judged, chosen by what each says itself, and converted.

A run that compares lines does it in two steps: `scan_chunk` gives the table of a chunk, and
`convert_chosen` the rows of the lines that were chosen from the tables of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TypeAlias

import msgspec

from fastsft import gates
from fastsft.depth import flattened
from fastsft.encoding import is_utf8, one_line_each
from fastsft.errors import DamagedShard, Dropped, FailedRun, NoRow, Refused
from fastsft.formats import FORMATS
from fastsft.formats.row import Row, content_hash
from fastsft.formats.turns import Turn, conversation
from fastsft.lines import Chosen, Lines, Numbered, chosen_lines, is_blank, line_starts, lines_in
from fastsft.memory import no_garbage_collection
from fastsft.options import Options
from fastsft.report import Converted, Fates, RefusedLine, Scanned, added
from fastsft.rollout import Rollout, rollout_of
from fastsft.seen import merged, seen_in
from fastsft.shards import Chunk, Shard, printable
from fastsft.spool import spooled

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
        return to_row(rollout_of(flattened(bytes(line))))


def _judged(lines: Lines, options: Options) -> _Judged:
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


def convert_chunk(chunk: Chunk, options: Options) -> Iterator[Converted]:
    """Give every line of a chunk its fate, and the kept ones their rows, as much at once as is in memory at once."""
    for lines in lines_in(chunk, nbytes=_at_once(options), max_line=options.max_line_nbytes):
        yield _convert(lines, chunk, options)


def _at_once(options: Options) -> int:
    return min(options.chunk_nbytes, _AT_ONCE_NBYTES)


@no_garbage_collection()
def _convert(lines: Lines, chunk: Chunk, options: Options) -> Converted:
    judged = _judged(lines, options)
    reasons = _drop_reasons(judged, chunk, options) if judged.rollouts else []
    wanted = []
    for number, rollout, reason in zip(judged.numbers, judged.rollouts, reasons, strict=True):
        if reason is None:
            wanted.append((number, rollout))
        else:
            judged.drop(reason)
    rows, left_out = _rows(judged, wanted, options)
    # Asked only where nothing is kept, as it says why a run keeps nothing.
    seen = None if judged.fates.kept else seen_in(judged.rollouts)
    return Converted(chunk, judged.fates, judged.refused, rows, left_out=left_out, seen=seen)


def _drop_reasons(judged: _Judged, chunk: Chunk, options: Options) -> list[str | None]:
    """Give why each rollout is dropped for what it says itself, or None.

    Raises:
        FailedRun: `--where` cannot be worked out for one.
    """
    reasons = gates.drop_reasons(judged.rollouts, options)
    left = [place for place, reason in enumerate(reasons) if reason is None]
    if gates.suffice(options) or not left:
        return reasons
    from fastsft.selection import columns_beyond_values, drop_reasons  # Polars: not before it is needed
    from fastsft.table import ShardPlace, columns

    rollouts, lines = [judged.rollouts[place] for place in left], [judged.numbers[place] for place in left]
    shard = ShardPlace(printable(chunk.shard.path), chunk.shard.place)
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
    return one_line_each(_encoder.encode_lines(bodies)), left_out


def convert_to_spool(index: int, chunk: Chunk, *, options: Options, spool: Path) -> Converted:
    """Convert a chunk whole; its rows are handed over under its index."""
    whole = Converted(chunk, Fates(), [], index)
    try:
        with spooled(spool, index, chunk.nbytes) as handover:
            for part in convert_chunk(chunk, options):
                assert isinstance(part.rows, bytes)
                handover.write(part.rows)
                _add(whole, part)
        whole.rows = handover.held or index
    except DamagedShard as damaged:
        return Converted(chunk, Fates(), [], b"", str(damaged))
    return whole


def _add(whole: Converted | Scanned, part: Converted | Scanned) -> None:
    for line in part.refused:
        line.line += whole.fates.lines
    whole.refused += part.refused
    whole.fates += part.fates
    if isinstance(whole, Converted) and isinstance(part, Converted):
        whole.left_out = added(whole.left_out, part.left_out)
        whole.seen = merged(whole.seen, part.seen)


def scan_chunk(index: int, chunk: Chunk, *, options: Options, names: Sequence[str], every_line: bool) -> Scanned:
    """Give the table of a chunk's rollouts: the columns `names`, its lines numbered from 1 at its first.

    With `every_line`, a row is tried for every line; otherwise only for those that no single-line criterion drops.
    """
    whole = Scanned(chunk, Fates(), [], [])
    try:
        for lines in lines_in(chunk, nbytes=_at_once(options), max_line=options.max_line_nbytes):
            part = _scan(lines, chunk, options, names, every_line, whole.fates.lines)
            whole.tables += part.tables
            _add(whole, part)
    except DamagedShard as damaged:
        return Scanned(chunk, Fates(), [], [], str(damaged))
    return whole


@no_garbage_collection()
def _scan(lines: Lines, chunk: Chunk, options: Options, names: Sequence[str], every_line: bool, before: int) -> Scanned:
    from fastsft.table import FROM_ROWS, ShardPlace, packed, table, with_rows

    judged = _judged(lines, options)
    if not judged.rollouts:
        return Scanned(chunk, judged.fates, judged.refused, [])
    place = ShardPlace(printable(chunk.shard.path), chunk.shard.place)
    found = [name for name in names if name not in FROM_ROWS]
    known = table(found, judged.rollouts, place=place, lines=judged.numbers, offsets=judged.offsets)
    if set(FROM_ROWS) & set(names):
        reasons: list[str | None] = [None] * len(judged.rollouts)
        if not every_line:
            try:
                reasons = _drop_reasons(judged, chunk, options)
            except FailedRun:  # of `--where`, which may yet be asked of fewer lines
                reasons = gates.drop_reasons(judged.rollouts, options)
        to_row = _to_row(options)
        told = [
            _told_of_row(judged, number, rollout, to_row, hashed="content" in names) if reason is None else _NOTHING
            for number, rollout, reason in zip(judged.numbers, judged.rollouts, reasons, strict=True)
        ]
        known = with_rows(known, told)
    return Scanned(chunk, judged.fates, judged.refused, [packed(known.select(names), before)])


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


def convert_chosen(index: int, chosen: Chosen, *, options: Options, spool: Path) -> Converted:
    """Convert the lines of a chunk that were chosen; their rows are handed over under the index.

    Raises:
        FailedRun: A line is not the rollout that was scanned.
    """
    whole = Converted(chosen.chunk, Fates(), [], index, split=chosen.split)
    with spooled(spool, index, chosen.read_nbytes) as handover:
        for lines in chosen_lines(chosen, nbytes=_at_once(options), max_line=options.max_line_nbytes):
            handover.write(_convert_chosen(lines, whole, options))
    whole.rows = handover.held or index
    return whole


@no_garbage_collection()
def _convert_chosen(lines: Numbered, whole: Converted, options: Options) -> bytes:
    bodies: list[msgspec.Struct] = []
    to_row = _to_row(options, judging=False)  # the scan did
    for number, line in lines:
        try:
            row = _row(rollout_of(line), line, to_row)
        except Refused:
            raise FailedRun(f"{whole.chunk.shard.path}:{number}: not the rollout that was scanned") from None
        bodies.append(row.body)
        whole.fates.trimmed += row.turns_cut > 0
        whole.left_out = added(whole.left_out, dict.fromkeys(row.left_out, 1)) if row.left_out else whole.left_out
    whole.fates.kept += len(bodies)
    return one_line_each(_encoder.encode_lines(bodies))


def judged_line(line: bytes, options: Options) -> tuple[str, Rollout | None, list[Turn]]:
    """Tell in words what becomes of one line judged by itself, and give its rollout and turns where it has them."""
    judged = _judged(Lines(line, 0), options)
    if judged.refused:
        return f"refused: {judged.refused[0].reason}: {judged.refused[0].problem}", None, []
    if not judged.rollouts:
        return "blank", None, []
    (rollout,) = judged.rollouts
    chunk = Chunk(Shard("", len(line), 0), 0, len(line))
    (reason,) = _drop_reasons(judged, chunk, options)
    try:
        turns = conversation(rollout).turns
        _row(rollout, memoryview(line), _to_row(options))
    except Refused as problem:
        return f"refused: {problem.reason}: {problem.problem}" if reason is None else f"dropped: {reason}", rollout, []
    return "kept" if reason is None else f"dropped: {reason}", rollout, turns
