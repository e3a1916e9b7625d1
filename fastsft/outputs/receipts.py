"""What a span says of itself: the value that comes back from a worker, and lies beside its segment as JSON."""

from __future__ import annotations

import msgspec

from fastsft.report import Fates, RefusedLine, TaskCounts
from fastsft.selection.seen import Seen


class Segment(msgspec.Struct, frozen=True):
    """A file of rows that a span leaves, of refused lines, or a part of the table of lines.

    Attributes:
        name: Its name in the staging folder.
        rows: How many lines it has.
        nbytes: How many bytes.
        sha256: Of its bytes, in hexadecimal.
        split: Which output its rows go to, from 0.
    """

    name: str
    rows: int
    nbytes: int
    sha256: str
    split: int = 0


class RangeFates(msgspec.Struct, frozen=True):
    """What became of the lines of one byte range.

    Attributes:
        shard_index: Which of the run's shards it is of.
        fates: The fates of its lines.
        problem: Why the shard was refused whole; None where it was not.
    """

    shard_index: int
    fates: Fates
    problem: str | None = None


class Receipt(msgspec.Struct, frozen=True):
    """What a span gave.

    Attributes:
        span: Its index.
        ranges: The fates of its ranges, in order.
        segments: Its files of rows, in order: several where a span has more rows than a shard holds, or splits.
        refused: The file of its refused lines, whose numbers count from 1 at the beginning of their range, or of their
            shard if `is_numbered`.
        first_refused: The first of them.
        left_out: How many rows lack something that their rollouts have, by what.
        tasks: Of task rows, where they come from; None for other rows.
        seen: What its rollouts hold, where none of them was kept.
        is_numbered: Whether somebody knew how many lines stand before a range.
        table: Its part of the table of lines, with so many rows as it has rollouts; None without any.
        choice: The digest of the file of chosen lines that its rows are of; empty where each line was judged by itself.
        input_sha256: Of the bytes of its ranges, where inputs are to be verified.
        fingerprint: Of the inputs, options and version that it was made from, in hexadecimal.
    """

    span: int
    ranges: list[RangeFates]
    segments: list[Segment] = []
    refused: Segment | None = None
    first_refused: RefusedLine | None = None
    left_out: dict[str, int] = {}
    seen: Seen | None = None
    is_numbered: bool = False
    table: Segment | None = None
    choice: str = ""
    input_sha256: str | None = None
    fingerprint: str = ""
    tasks: TaskCounts | None = None

    @property
    def files(self) -> list[Segment]:
        """All files that it speaks of."""
        return [*self.segments, *filter(None, [self.refused, self.table])]
