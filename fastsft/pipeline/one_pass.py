"""Rows of a run in which each line is judged by itself: a span is read once, and its rows are written."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import msgspec

from fastsft.errors import DamagedShard
from fastsft.execution.memory import no_garbage_collection
from fastsft.execution.polars_after_fork import polars_works
from fastsft.execution.spans import ReportProgress
from fastsft.formats.row import Row
from fastsft.inputs.encoding import escape_line_separators
from fastsft.inputs.shards import Span
from fastsft.options import Options
from fastsft.outputs.receipts import RangeFates, Receipt
from fastsft.pipeline.judging import JudgedBlock, drop_reasons, judge_lines, row_maker
from fastsft.pipeline.provenance import Origin, with_origin
from fastsft.pipeline.staged import StagedProduct
from fastsft.report import Fates, RefusedLine, TaskCounts, added
from fastsft.selection.seen import Seen, merged, seen_in

_encoder = msgspec.json.Encoder()  # built once per process; cannot be pickled, so never passed around


class EncodedRows:
    """Rows as lines of JSON, and what is counted of them."""

    tasks: TaskCounts | None = None

    def __init__(self) -> None:
        self._bodies: list[msgspec.Struct | msgspec.Raw] = []
        self.left_out: dict[str, int] = {}
        self.trimmed = 0

    def __len__(self) -> int:
        return len(self._bodies)

    def add(self, row: Row, body: msgspec.Raw | None = None) -> None:
        """Add a row; `body` is its JSON, where there is more in it than the layout made."""
        self._bodies.append(row.body if body is None else body)
        self.trimmed += row.turns_cut > 0
        for what in row.left_out:
            self.left_out[what] = self.left_out.get(what, 0) + 1

    def encode(self, *, by_polars: bool) -> bytes:
        """Return them as lines of JSON, each one line to every loader; `by_polars` is for `inputs/encoding.py`."""
        return escape_line_separators(_encoder.encode_lines(self._bodies), by_polars=by_polars)


class _ConvertedBlock(NamedTuple):
    """What a block of lines gave."""

    fates: Fates
    refused: list[RefusedLine]
    rows: bytes
    left_out: dict[str, int]
    seen: Seen | None


class Rows(StagedProduct, frozen=True, kw_only=True):
    """The rows of the kept lines of each span.

    Attributes:
        is_large: Whether the input is so large that importing Polars pays where text is dense beyond ASCII.
    """

    phase: ClassVar[str] = "convert"
    is_large: bool = False

    @no_garbage_collection()
    def make(self, span: Span, report_progress: ReportProgress | None = None) -> Receipt:
        """Decide the fate of every line of a span, and write the rows of the kept ones.

        Raises:
            FailedRun: An input is not what it was, or the rows cannot be written.
        """
        ranges: list[RangeFates] = []
        left_out: dict[str, int] = {}
        seen: Seen | None = None
        first: RefusedLine | None = None
        done = kept = 0
        by_polars = self.is_large and polars_works()
        with self.writer(span.index) as writer:
            for one in span.ranges:
                fates, mark, before = Fates(), writer.mark(), (left_out, seen, first)
                try:
                    for lines in self.blocks_in(one):
                        for judged in judge_lines(lines, one, fates.lines, self.options, by_polars=by_polars):
                            block = _convert(judged, self.options, by_polars=by_polars)
                            writer.write_rows(block.rows, block.fates.kept)
                            writer.write_refused(block.refused)
                            first = first or next(iter(block.refused), None)
                            fates += block.fates
                            left_out = added(left_out, block.left_out) if block.left_out else left_out
                            seen = merged(seen, block.seen)
                        if report_progress:
                            read = min(lines.offset + len(lines.data) - one.start, one.nbytes)
                            report_progress(done + read, kept + fates.kept)
                    ranges.append(RangeFates(one.shard.index, fates))
                except DamagedShard as damaged:
                    writer.go_back(mark)
                    left_out, seen, first = before
                    ranges.append(RangeFates(one.shard.index, Fates(), str(damaged)))
                done, kept = done + one.nbytes, kept + ranges[-1].fates.kept
            segments, refused = writer.finish()
        receipt = Receipt(span.index, ranges, segments, refused, first, left_out, None if kept else seen)
        return self.leave(receipt, span)


def _convert(judged: JudgedBlock, options: Options, *, by_polars: bool) -> _ConvertedBlock:
    reasons = drop_reasons(judged, options) if judged.rollouts else []
    rows, make = EncodedRows(), row_maker(options)
    origin = Origin(judged.shard.path) if options.provenance else None
    for number, rollout, reason in zip(judged.numbers, judged.rollouts, reasons, strict=True):
        if reason is not None:
            judged.drop(reason)
        elif row := judged.row(number, rollout, make):
            rows.add(row, with_origin(row.body, rollout, origin, options) if origin else None)
    judged.fates.kept, judged.fates.trimmed = len(rows), rows.trimmed
    judged.refused.sort(key=lambda line: line.line)
    # Asked only where nothing is kept, as it says why a run keeps nothing.
    seen = None if judged.fates.kept else seen_in(judged.rollouts)
    return _ConvertedBlock(judged.fates, judged.refused, rows.encode(by_polars=by_polars), rows.left_out, seen)
