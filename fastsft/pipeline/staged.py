"""What all that is made of spans of rollouts has in common: it lies in a folder, and a receipt speaks of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import msgspec

from fastsft.inputs.lines import LineBlock, bytes_of, lines_in
from fastsft.inputs.shards import ByteRange, Span
from fastsft.options import Options
from fastsft.outputs.receipts import Receipt
from fastsft.outputs.segments import SegmentWriter
from fastsft.outputs.staging import write_receipt

# Lines that go from the file to rows at once, so that they, what is made of them and what is freed stay in a
# processor's cache: real mix 1.5 s/GB in one process where 16 MiB took 1.7, short lines 3.4 where they took 4.6.
_BLOCK_NBYTES = 1024 * 1024


class StagedProduct(msgspec.Struct, frozen=True, kw_only=True):
    """A product of spans of rollouts.

    Attributes:
        phase: What the names of its files and receipts begin with.
        options: The settings of the run.
        folder: Where segments, parts of the table and receipts go.
        fingerprint: Of what the run is made from, for its receipts.
        most_nbytes: How many bytes of rows a segment has at most; None for no limit.
        choice: The digest of the chosen lines that rows are made of; empty where none were chosen before.
    """

    phase: ClassVar[str]
    options: Options
    folder: str
    fingerprint: str = ""
    most_nbytes: int | None = None
    choice: str = ""

    @property
    def path(self) -> Path:
        """The folder as a path."""
        return Path(self.folder)

    @property
    def block_nbytes(self) -> int:
        """How many bytes of lines are in memory at once, but for a longer line."""
        return min(self.options.span_nbytes or _BLOCK_NBYTES, _BLOCK_NBYTES)

    def writer(self, span: int) -> SegmentWriter:
        """Return what writes the segments of a span."""
        name, most_refused = f"{self.phase}-{span:06}", self.options.max_refused_recorded
        return SegmentWriter(self.path, name, most_nbytes=self.most_nbytes, most_refused=most_refused)

    def blocks_in(self, one: ByteRange) -> Iterator[LineBlock]:
        """Read the lines of a range, block by block.

        Raises:
            FailedRun: The file is not what it was when it was found.
            DamagedShard: A compressed stream is damaged or ends early, or the file is none of rollouts.
        """
        return lines_in(one, nbytes=self.block_nbytes, max_line=self.options.max_line_nbytes)

    def leave(self, receipt: Receipt, span: Span) -> Receipt:
        """Write the receipt of a span beside its other files, and return it.

        Raises:
            FailedRun: It cannot be written.
        """
        digest = input_digest(span) if self.options.verify_inputs else None
        receipt = msgspec.structs.replace(receipt, fingerprint=self.fingerprint, input_sha256=digest)
        return write_receipt(self.path, self.phase, receipt)


def input_digest(span: Span) -> str:
    """Return the SHA-256 of the bytes that the lines of a span's ranges depend on."""
    digest = hashlib.sha256()
    for one in span.ranges:
        for data in bytes_of(one):
            digest.update(data)
    return digest.hexdigest()
