"""The list of refused lines: what spans recorded, numbered as the lines stand in their shards."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from fastsft.outputs.receipts import Segment
from fastsft.report import RefusedLine
from fastsft.storage.files import HashedFile, blocks_of, remove

_decode = msgspec.json.Decoder(RefusedLine).decode
_encode = msgspec.json.Encoder().encode


class RefusedPart(NamedTuple):
    """A file of refused lines; lines of the shard at a path have so many before them that it does not count."""

    segment: Segment
    shard: str
    before: int


def build_refused(_: int, parts: Sequence[RefusedPart], folder: str, most: int | None) -> None:
    """Put parts together into the file `refused` of the folder, flushed; of so many lines at most, the first."""
    target = Path(folder, "refused")
    left = sum(part.segment.rows for part in parts) if most is None else most
    remove(target, missing_ok=True)
    file = HashedFile(target)
    try:
        for segment, shard, before in parts:
            path = Path(folder, segment.name)
            if not before and segment.rows <= left:
                left -= segment.rows
                for data in blocks_of(path, 0, None):
                    file.write(data)
                continue
            with path.open("rb") as lines:
                for encoded in itertools.islice(lines, left):
                    left -= 1
                    line = _decode(encoded)
                    line.line += before if line.shard == shard else 0
                    file.write(_encode(line) + b"\n")
    finally:
        file.close(flush=True)
