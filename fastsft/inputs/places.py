"""Single lines by where they stand, and places drawn at random, without holding or reading a whole input."""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

from fastsft.inputs.lines import BOM, LineBlock, is_blank, line_starts, lines_in
from fastsft.inputs.shards import ByteRange, Shard

_READ_NBYTES = 1024 * 1024  # at a time
_SEARCH_NBYTES = 4 * 1024 * 1024  # in which a line is expected to begin; eight times as many the next time
_DRAWS_PER_LINE = 20  # before fewer lines are drawn than asked for
_MORE_DRAWS = 100


class Place(NamedTuple):
    """Where a line stands: which of the shards, bytes before it, and its number from 1 where that is known."""

    shard_index: int
    offset: int
    number: int | None = None


class PlacedLine(NamedTuple):
    """One line: its place, its bytes without line feed, and its length where it is too long to be held."""

    place: Place
    data: bytes
    too_long_nbytes: int | None = None


def all_lines(shard: Shard, *, max_line: int) -> Iterator[PlacedLine]:
    """Read every line of a shard, in order.

    Raises:
        FailedRun: The file is not what it was when it was found.
        DamagedShard: A compressed stream is damaged or ends early.
    """
    number = 0
    for lines in lines_in(ByteRange(shard, 0, shard.nbytes), nbytes=_READ_NBYTES, max_line=max_line):
        for line in _lines_of(lines, shard.index):
            number += 1
            yield line._replace(place=line.place._replace(number=number))


def _lines_of(lines: LineBlock, shard_index: int) -> Iterator[PlacedLine]:
    starts = line_starts(lines.data)
    for start, stop in pairwise(starts):
        yield PlacedLine(Place(shard_index, lines.offset + start), lines.data[start : stop - 1])
    if lines.too_long_nbytes is not None:
        yield PlacedLine(Place(shard_index, lines.offset + starts[-1]), b"", lines.too_long_nbytes)


def lines_at(places: Iterable[Place], shards: Sequence[Shard], *, max_line: int) -> Iterator[PlacedLine]:
    """Read the lines at places, in the order of the input; a compressed shard is read up to the last of them.

    Raises:
        FailedRun: The file is not what it was when it was found.
        DamagedShard: A compressed stream is damaged or ends early.
    """
    for shard_index, wanted in groupby(sorted(places), key=lambda place: place.shard_index):
        shard = shards[shard_index]
        if shard.compression is None:
            for place in wanted:
                line = _line_at(shard, place.offset, max_line)
                if line is not None:
                    yield line._replace(place=place)
            continue
        by_offset = {place.offset: place for place in wanted}
        for line in all_lines(shard, max_line=max_line):
            if line.place.offset in by_offset:
                yield line._replace(place=by_offset.pop(line.place.offset))
            if not by_offset:
                break


def _line_at(shard: Shard, offset: int, max_line: int) -> PlacedLine | None:
    """Read the line that begins at an offset, and no more."""
    for start in (offset, 0) if offset == len(BOM) else (offset,):  # a mark is before the first line, and ends none
        for lines in lines_in(ByteRange(shard, start, start + 1), nbytes=1, max_line=max_line):
            for line in _lines_of(lines, shard.index):
                return line
    return None


def line_after(shard: Shard, position: int, max_line: int) -> PlacedLine | None:
    """Read the first line that begins at a position of a plain shard or behind it, and no more; its number is unknown.

    Behind the last one the first of the shard follows.
    """
    step = _SEARCH_NBYTES
    while position < shard.nbytes:
        stop = min(position + step, shard.nbytes)
        for lines in lines_in(ByteRange(shard, position, stop), nbytes=1, max_line=max_line):
            for line in _lines_of(lines, shard.index):
                return line
        position, step = stop, step * 8
    return _line_at(shard, 0, max_line)


def drawn_places(shards: Sequence[Shard], count: int, seed: int, *, max_line: int) -> list[Place]:
    """Draw lines of plain shards that are not blank, by reading few places; fewer than `count` where few are found.

    A place is drawn from all bytes, and the line that begins next is taken: one behind a long line is drawn more often,
    and how long it is itself does not count.
    """
    total = sum(shard.nbytes for shard in shards)
    draws = random.Random(seed)
    found: set[Place] = set()
    for _ in range(count * _DRAWS_PER_LINE + _MORE_DRAWS if total else 0):
        position = int(draws.random() * total)
        for shard in shards:
            if position < shard.nbytes:
                break
            position -= shard.nbytes
        line = line_after(shard, position, max_line)
        if line is not None and (line.data or line.too_long_nbytes) and not is_blank(memoryview(line.data or b"x")):
            found.add(line.place)
        if len(found) == count:
            break
    return sorted(found)


def draw_of(place: Place, seed: int) -> int:
    """Return a random number of 64 bits for a place, which depends on it and the seed alone."""
    words = f"{seed} {place.shard_index} {place.offset}".encode()
    return int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "little")


def drawn_of(places: Iterable[Place], count: int, seed: int) -> list[Place]:
    """Draw `count` of places that come one by one, each as likely as any other, and hold no more than these."""
    held: list[tuple[int, Place]] = []  # a heap, the largest draw on top
    for place in places:
        entry = (-draw_of(place, seed), place)
        if len(held) < count:
            heapq.heappush(held, entry)
        elif entry > held[0]:
            heapq.heapreplace(held, entry)
    return sorted(place for _, place in held)
