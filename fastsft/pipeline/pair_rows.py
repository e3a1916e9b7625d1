"""Rows of pairs: both lines of a pair are read, wherever they stand, and made into one row.

A pair belongs to the span in which its earlier line stands. Of a file, both lines are read where they are, so a few of
them are in memory at once. A compressed shard is read as a stream: what a span wants of it goes to a file first.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

from fastsft.errors import FailedRun, Refused, errors_naming
from fastsft.execution.memory import no_garbage_collection
from fastsft.execution.spans import ReportProgress
from fastsft.formats.pairs import Judged
from fastsft.formats.row import Row
from fastsft.inputs.lines import ChosenLines, chosen_lines
from fastsft.inputs.shards import ByteRange, Shard
from fastsft.outputs.receipts import RangeFates, Receipt
from fastsft.pipeline.judging import row_maker, row_of
from fastsft.pipeline.one_pass import EncodedRows
from fastsft.pipeline.staged import StagedProduct
from fastsft.pipeline.two_passes import ChosenSpan
from fastsft.report import Fates, added
from fastsft.rollouts.line import rollout_of
from fastsft.storage.files import new_file, remove

_PAIRS_AT_ONCE = 10_000  # that are known as Python has them


class _Place(NamedTuple):
    """Where a line stands: which shard, its number from 1, where it begins, its bytes without line feed."""

    shard_index: int
    line: int
    offset: int
    nbytes: int


class _Pair(NamedTuple):
    """A row to write, as the file of chosen pairs has it; `other` is None where one rollout is judged by itself."""

    place: _Place
    other: _Place | None
    split: int
    turn: int
    is_good: bool
    reward: float
    other_reward: float

    @property
    def places(self) -> list[_Place]:
        """Where its lines stand."""
        return [self.place] if self.other is None else [self.place, self.other]

    @property
    def nbytes(self) -> int:
        """How many bytes of lines it takes."""
        return sum(place.nbytes for place in self.places)


class PairRows(StagedProduct, frozen=True, kw_only=True):
    """The rows of the pairs whose earlier line stands in each span, one split after the other.

    Attributes:
        chosen: The file of chosen pairs.
    """

    phase: ClassVar[str] = "convert"
    chosen: str

    @no_garbage_collection()
    def make(self, span: ChosenSpan, report_progress: ReportProgress | None = None) -> Receipt:
        """Write the rows of a span.

        Raises:
            FailedRun: A line is not the rollout that was scanned, or the rows cannot be written.
        """
        ranges = [RangeFates(one.shard.index, Fates()) for one in span.span.ranges]  # the choice has counted the lines
        shards = {one.shard.index: one.shard for one in span.span.ranges} | {one.index: one for one in span.others}
        total = sum(stop - start for start, stop in span.slices) or 1
        left_out: dict[str, int] = {}
        done = 0
        with self.writer(span.index) as writer, self._unpacked(span, shards) as places:
            for split in self._splits_in(span):
                for pairs in self._blocks(span, split):
                    rows = self._rows_of(pairs, shards, places)
                    writer.write_rows(rows.encode(by_polars=True), len(rows), split)
                    left_out = added(left_out, rows.left_out) if rows.left_out else left_out
                    done += len(pairs)
                    if report_progress:
                        report_progress(span.nbytes * done // total, done)
            segments = writer.finish()[0]
        return self.leave(Receipt(span.index, ranges, segments, left_out=left_out, choice=self.choice), span.span)

    def _splits_in(self, span: ChosenSpan) -> list[int]:
        from fastsft.selection.table import read_slice

        return sorted({split for cut in span.slices for split in read_slice(self.chosen, *cut)["split"].unique()})

    def _pairs(self, span: ChosenSpan) -> Iterator[_Pair]:
        from fastsft.selection.table import read_slice

        for start, stop in span.slices:
            for first in range(start, stop, _PAIRS_AT_ONCE):
                table = read_slice(self.chosen, first, min(first + _PAIRS_AT_ONCE, stop))
                for row in table.iter_rows():
                    yield _pair_of(row)

    def _blocks(self, span: ChosenSpan, split: int) -> Iterator[list[_Pair]]:
        """Group the pairs of a split, in order, so that the lines of a group are about as many bytes as a block."""
        block: list[_Pair] = []
        nbytes = 0
        for pair in self._pairs(span):
            if pair.split != split:
                continue
            if block and nbytes + pair.nbytes > self.block_nbytes:
                yield block
                block, nbytes = [], 0
            block.append(pair)
            nbytes += pair.nbytes
        if block:
            yield block

    def _rows_of(
        self, pairs: Sequence[_Pair], shards: dict[int, Shard], unpacked: dict[_Place, tuple[Shard, _Place]]
    ) -> EncodedRows:
        assert self.options.pairing is not None
        made = self._read({place for pair in pairs for place in pair.places}, shards, unpacked)
        rows, make = EncodedRows(), self.options.pairing.laid_out.make
        for pair in pairs:
            other = None if pair.other is None else made[pair.other]
            rows.add(make(Judged(made[pair.place], other, pair.turn, pair.reward, pair.other_reward, pair.is_good)))
        return rows

    def _read(
        self, places: set[_Place], shards: dict[int, Shard], unpacked: dict[_Place, tuple[Shard, _Place]]
    ) -> dict[_Place, Row]:
        """Read lines, those of a file in its order, and make their rows."""
        files: dict[str, tuple[Shard, list[tuple[_Place, _Place]]]] = {}
        for place in sorted(places):
            shard, at = unpacked.get(place) or (shards[place.shard_index], place)
            files.setdefault(shard.location, (shard, []))[1].append((place, at))
        make, rows = row_maker(self.options, judging=False), {}
        for shard, wanted in files.values():
            wanted.sort(key=lambda one: one[1].offset)
            found = (numbered for lines in self._lines(shard, [at for _, at in wanted]) for numbered in lines)
            for (place, _), (_, line) in zip(wanted, found, strict=True):
                try:
                    rows[place] = row_of(rollout_of(line), line, make)
                except Refused:
                    path = shards[place.shard_index].path
                    raise FailedRun(f"{path}:{place.line}: not the rollout that was scanned") from None
        return rows

    def _lines(self, shard: Shard, places: Sequence[_Place]) -> Iterator[Any]:
        _, lines, offsets, sizes = map(list, zip(*places, strict=True))
        chosen = ChosenLines(ByteRange(shard, 0, shard.nbytes), lines, offsets, sizes)
        return chosen_lines(chosen, nbytes=self.block_nbytes, max_line=self.options.max_line_nbytes)

    @contextlib.contextmanager
    def _unpacked(self, span: ChosenSpan, shards: dict[int, Shard]) -> Iterator[dict[_Place, tuple[Shard, _Place]]]:
        """Write the lines that are wanted of compressed shards to a file, and say where each is in it."""
        wanted: dict[int, set[_Place]] = {}
        if any(shard.compression is not None for shard in shards.values()):
            for pair in self._pairs(span):
                for place in pair.places:
                    if shards[place.shard_index].compression is not None:
                        wanted.setdefault(place.shard_index, set()).add(place)
        if not wanted:
            yield {}
            return
        path = self.path / f"lines-{span.index:06}.{secrets.token_hex(4)}"
        found: list[tuple[_Place, _Place]] = []
        try:
            offset = 0
            with errors_naming(path), new_file(path) as file:
                for index, several in sorted(wanted.items()):
                    places = sorted(several)
                    lines = (line for block in self._lines(shards[index], places) for _, line in block)
                    for place, line in zip(places, lines, strict=True):
                        file.write(line)
                        file.write(b"\n")
                        found.append((place, _Place(index, place.line, offset, place.nbytes)))
                        offset += place.nbytes + 1
            written = os.stat(path)
            shard = Shard(str(path), written.st_size, written.st_mtime_ns)
            yield {place: (shard, at) for place, at in found}
        finally:
            remove(path, missing_ok=True)


def _pair_of(row: tuple[Any, ...]) -> _Pair:
    (
        shard_index, line, offset, nbytes, split, turn, is_good, reward,
        other_shard_index, other_line, other_offset, other_nbytes, other_reward,
    ) = row  # fmt: skip
    other = None if other_line is None else _Place(other_shard_index, other_line, other_offset, other_nbytes)
    place = _Place(shard_index, line, offset, nbytes)
    return _Pair(place, other, split, turn, is_good, reward, 0.0 if other_reward is None else other_reward)
