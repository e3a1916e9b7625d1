"""A bounded part of some files: whole lines from places that lie evenly over all their bytes, the same each time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from fastsft.errors import DamagedShard
from fastsft.inputs.lines import lines_in
from fastsft.inputs.shards import ByteRange, Shard, expanded_nbytes
from fastsft.storage.files import new_file

_PLACES = 32
_READ_NBYTES = 1024 * 1024  # at a time
_MOST_LINE_NBYTES = 8 * 1024 * 1024  # longer ones are left out where not all is taken


class Excerpt(msgspec.Struct):
    """Lines of a file that lie in a file of their own; or all of it, where it is.

    Attributes:
        shard: The file that they are of.
        path: Where they are.
        blocks: Where each block of them begins, here and in `shard`, decompressed; empty where this is all of it.
        is_whole: Whether this is every line of it.
        problem: Why no more could be read; None where nothing stood in the way.
    """

    shard: Shard
    path: Path
    blocks: list[tuple[int, int]] = []
    is_whole: bool = False
    problem: str | None = None

    def place_of(self, offset: int) -> int:
        """Return where in the file, decompressed, the line begins that begins here at `offset`."""
        if not self.blocks:
            return offset
        here, there = self.blocks[bisect_right(self.blocks, offset, key=lambda block: block[0]) - 1]
        return there + offset - here


def excerpts_of(shards: Sequence[Shard], folder: Path, *, nbytes: int) -> list[Excerpt]:
    """Take about `nbytes` of lines of files into `folder`, those that are compressed from their beginnings.

    Raises:
        FailedRun: A file changed while it was read, or the folder is full.
    """
    if expanded_nbytes(shards) <= nbytes:
        wanted = [(shard, [(0, shard.nbytes)]) for shard in shards]
        limit = nbytes
    else:
        limit = nbytes // _PLACES
        wanted = list(_places(shards, limit))
    found = []
    for shard, ranges in wanted:
        path = folder / f"excerpt-{shard.index:06}.jsonl"
        if shard.compression is None and ranges == [(0, shard.nbytes)]:
            found.append(Excerpt(shard, Path(shard.location), is_whole=True))
        else:
            found.append(_taken(shard, ranges, path, limit))
    return found


def _places(shards: Sequence[Shard], nbytes: int) -> Iterator[tuple[Shard, list[tuple[int, int]]]]:
    """Return the ranges to read of each file that has some."""
    total = sum(shard.nbytes for shard in shards)
    starts = iter(number * total // _PLACES for number in range(_PLACES))
    start, before = next(starts), 0
    for shard in shards:
        ranges: list[tuple[int, int]] = []
        while start < before + shard.nbytes:
            here = start - before
            if not ranges or here >= ranges[-1][1]:
                ranges.append((here, min(here + nbytes, shard.nbytes)))
            start = next(starts, total)
        if ranges:
            yield shard, ranges
        before += shard.nbytes


def _taken(shard: Shard, ranges: Sequence[tuple[int, int]], path: Path, nbytes: int) -> Excerpt:
    """Copy lines; of a compressed file as many bytes from its beginning as its ranges have."""
    taken = Excerpt(shard, path, [(0, 0)])
    if shard.compression is not None:
        nbytes, ranges = nbytes * len(ranges), [(0, shard.nbytes)]
    here, passed_over = 0, False
    with new_file(path) as file:
        try:
            for start, stop in ranges:
                left = nbytes
                for lines in lines_in(
                    ByteRange(shard, start, stop), nbytes=_READ_NBYTES, max_line=max(nbytes, _MOST_LINE_NBYTES)
                ):
                    data = lines.data if lines.data.endswith(b"\n") or not lines.data else lines.data + b"\n"
                    taken.blocks.append((here, lines.offset))
                    file.write(data)
                    here, left = here + len(data), left - len(data)
                    passed_over = passed_over or lines.too_long_nbytes is not None
                    if left <= 0:
                        break
                else:
                    taken.is_whole = start == 0 and stop == shard.nbytes and not passed_over
        except DamagedShard as damaged:
            taken.problem = str(damaged)
    return taken
