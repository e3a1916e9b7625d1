"""What becomes of each line by itself: refused for its form, dropped for what it says, or a rollout that has a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import msgspec

from fastsft.errors import Dropped, Refused
from fastsft.formats import FORMATS
from fastsft.formats.pairs import side_row
from fastsft.formats.row import Row
from fastsft.formats.turns import Turn, conversation
from fastsft.inputs.encoding import is_utf8
from fastsft.inputs.lines import LineBlock, is_blank, line_starts
from fastsft.inputs.shards import ByteRange, Shard, printable
from fastsft.options import Options
from fastsft.report import Fates, RefusedLine
from fastsft.rollouts.depth import prune_deep_values
from fastsft.rollouts.line import rollout_of
from fastsft.rollouts.rollout import Rollout
from fastsft.selection import gates

_encoder = msgspec.json.Encoder()  # built once per process; cannot be pickled, so never passed around

_MOST_LINES = 10_000  # of a block

RowMaker: TypeAlias = Callable[[Rollout], Row]


class JudgedBlock(NamedTuple):
    """A block of lines of which it is known whether each is a rollout.

    Attributes:
        shard: What it is of.
        before: How many lines stand before it in its range.
        fates: Those of the lines that are no rollouts.
        refused: The same, one by one, numbered from 1 at the first line of the range.
        numbers: Which lines are rollouts, from 0 at the first of the block.
        rollouts: These rollouts, in the same order.
        offsets: Where each line begins in the shard, and after the last where the next would.
        data: The bytes of all lines.
    """

    shard: Shard
    before: int
    fates: Fates
    refused: list[RefusedLine]
    numbers: list[int]
    rollouts: list[Rollout]
    offsets: list[int]
    data: memoryview

    def line(self, number: int) -> memoryview:
        """Return the bytes of a line."""
        first = self.offsets[0]
        return self.data[self.offsets[number] - first : self.offsets[number + 1] - first - 1]

    def refuse(self, number: int, problem: Refused) -> None:
        """Refuse a line."""
        self.fates.refused[problem.reason] = self.fates.refused.get(problem.reason, 0) + 1
        path, line = printable(self.shard.path), self.before + number + 1
        self.refused.append(RefusedLine(path, line, self.offsets[number], problem.reason, problem.problem))

    def drop(self, reason: str) -> None:
        """Drop a line."""
        self.fates.dropped[reason] = self.fates.dropped.get(reason, 0) + 1

    def row(self, number: int, rollout: Rollout, make: RowMaker) -> Row | None:
        """Return the row of a line, or None where it is refused or dropped."""
        try:
            try:
                return make(rollout)
            except RecursionError:
                return row_of(rollout, self.line(number), make)
        except Refused as problem:
            self.refuse(number, problem)
        except Dropped as unwanted:
            self.drop(unwanted.reason)
        return None


def judge_lines(
    lines: LineBlock, part: ByteRange, before: int, options: Options, *, by_polars: bool = False
) -> Iterator[JudgedBlock]:
    """Decode every line of a block, before which so many stand in its range, and refuse those that are no rollout.

    Of very short lines there are several blocks, so that few refusals are held at once: 1 MiB of single letters is
    500,000 refused lines, 200 MB. `by_polars` is for `inputs/encoding.py`.
    """
    starts = line_starts(lines.data)
    all_fit = is_utf8(lines.data, by_polars=by_polars) and len(lines.data) <= options.max_line_nbytes
    data = memoryview(lines.data)
    count = len(starts) - 1
    for first in range(0, max(count, 1), _MOST_LINES):
        inside = starts[first : first + _MOST_LINES + 1]
        offsets = [lines.offset + start for start in inside] if lines.offset else inside
        block = data[inside[0] : inside[-1]]
        judged = JudgedBlock(part.shard, before + first, Fates(lines=len(inside) - 1), [], [], [], offsets, block)
        for number, (start, next_start) in enumerate(pairwise(inside)):
            if next_start - start == 1:  # without a look: a file may have 100 million of them
                judged.fates.blank += 1
                continue
            line = data[start : next_start - 1]
            try:
                if not all_fit:
                    _check_fit(line, options)
                judged.rollouts.append(rollout_of(line))
                judged.numbers.append(number)
            except Refused as problem:
                if is_blank(line):
                    judged.fates.blank += 1
                else:
                    judged.refuse(number, problem)
        if lines.too_long_nbytes is not None and first + _MOST_LINES >= count:
            judged.refuse(judged.fates.lines, too_long(lines.too_long_nbytes, options))
            judged.fates.lines += 1
        yield judged


def _check_fit(line: memoryview, options: Options) -> None:
    if len(line) > options.max_line_nbytes:
        raise too_long(len(line), options)
    if not is_utf8(bytes(line)):
        raise Refused("bad_utf8", "the line is not valid UTF-8")


def too_long(nbytes: int, options: Options) -> Refused:
    """Return why a line of so many bytes is refused."""
    limit = options.max_line_nbytes
    return Refused("line_too_long", f"the line has {nbytes:,} bytes, more than --max-line allows ({limit:,})")


def drop_reasons(judged: JudgedBlock, options: Options) -> list[str | None]:
    """Return the drop reason of each rollout for what it says itself, or None.

    Raises:
        FailedRun: `--where` cannot be worked out for one.
    """
    reasons = gates.drop_reasons(judged.rollouts, options)
    kept = [index for index, reason in enumerate(reasons) if reason is None]
    if gates.only_value_criteria(options) or not kept:
        return reasons
    from fastsft.selection.criteria import columns_beyond_values  # Polars: not before it is needed
    from fastsft.selection.criteria import drop_reasons as reasons_by_columns
    from fastsft.selection.table import ShardColumns, columns

    rollouts, lines = [judged.rollouts[index] for index in kept], [judged.numbers[index] for index in kept]
    shard = ShardColumns(printable(judged.shard.path), judged.shard.index)
    names = columns_beyond_values(options) or ("shard_index",)  # without a column, a table has no lines
    known = columns(names, rollouts, shard=shard, lines=lines, offsets=judged.offsets)
    for index, reason in zip(kept, reasons_by_columns(known, options), strict=True):
        reasons[index] = reason
    return reasons


def row_maker(options: Options, *, judging: bool = True) -> RowMaker:
    """Return what makes rows; with `judging`, it also drops rows that are too long or would not train."""
    layout = options.layout
    make: RowMaker = partial(FORMATS[layout.format], layout=layout)
    if options.pairing is not None:
        make = partial(side_row, layout=layout, name=options.pairing.format)
    if not (judging and (options.judges_rows or options.trainer is not None)):
        return make
    from fastsft.checks.judge import row_judge

    judge = row_judge(options)

    def make_judged(rollout: Rollout) -> Row:
        row = make(rollout)
        judge(_encoder.encode(row.body))
        return row

    return make_judged


def row_of(rollout: Rollout, line: memoryview, make: RowMaker) -> Row:
    """Return the row of a rollout, whose line is read again where something that no row uses nests too deep.

    Raises:
        NoRow: It has none.
    """
    try:
        return make(rollout)
    except RecursionError:
        return make(rollout_of(prune_deep_values(bytes(line))))


class JudgedLine(NamedTuple):
    """What becomes of one line judged by itself.

    Attributes:
        fate: The same in words.
        rollout: What it holds; None where it is no rollout.
        turns: Of the rollout; empty where it has no row.
        row: The row it has, wanted or not; None where it has none.
    """

    fate: str
    rollout: Rollout | None = None
    turns: Sequence[Turn] = ()
    row: Row | None = None


def judged_line(line: bytes, options: Options) -> JudgedLine:
    """Judge one line by itself, by the options that compare no lines."""
    shard = Shard("", len(line), 0)
    (judged,) = judge_lines(LineBlock(line, 0), ByteRange(shard, 0, len(line)), 0, options)
    if judged.refused:
        (line_refused,) = judged.refused
        return JudgedLine(f"refused: {line_refused.reason}: {line_refused.problem}")
    if not judged.rollouts:
        return JudgedLine("blank")
    (rollout,) = judged.rollouts
    (reason,) = drop_reasons(judged, options)
    view = memoryview(line)
    try:
        turns = conversation(rollout).turns
        row = row_of(rollout, view, row_maker(options, judging=False))
    except Refused as problem:
        return JudgedLine(_refused(problem) if reason is None else f"dropped: {reason}", rollout)
    if reason is not None:
        return JudgedLine(f"dropped: {reason}", rollout, turns, row)
    try:
        row_of(rollout, view, row_maker(options))
    except Dropped as unwanted:
        return JudgedLine(f"dropped: {unwanted.reason}: {unwanted.problem}", rollout, turns, row)
    except Refused as problem:
        return JudgedLine(_refused(problem), rollout, turns, row)
    return JudgedLine("kept", rollout, turns, row)


def _refused(problem: Refused) -> str:
    return f"refused: {problem.reason}: {problem.problem}"
