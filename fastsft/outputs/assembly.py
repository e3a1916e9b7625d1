"""Segments -> the files of an output: which segments each file has, and workers that put them together.

A shard is the rows of consecutive segments, as full as whole ones allow; `--shards N` cuts them where the row counts
want it. One segment to a file is a rename. Otherwise the kernel copies, several workers at once at offsets that the
receipts tell, and another reads the digest beside them. Compressed files are made by one worker each, with threads.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from fastsft.outputs.receipts import Segment
from fastsft.report import OutputShard
from fastsft.storage.compression import GzipCompressor, zstd_frame
from fastsft.storage.files import HashedFile, blocks_of, copy_range, discard, flush, rename

_MAX_THREADS = 16  # that compress; so many blocks of 1 MiB again may wait
_COPIES_PER_JOB = 2


class Piece(msgspec.Struct, frozen=True):
    """Rows of a segment: those from `first` to before `last`, counted from 0; None for to the end."""

    segment: Segment
    first: int = 0
    last: int | None = None

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return (self.segment.rows if self.last is None else self.last) - self.first

    @property
    def is_whole(self) -> bool:
        """Whether it is all of its segment."""
        return self.first == 0 and self.last in (None, self.segment.rows)


class FilePlan(msgspec.Struct, frozen=True):
    """One file that an output will have: its name, and what is in it."""

    name: str
    pieces: list[Piece]

    @property
    def rows(self) -> int:
        """How many rows it will have."""
        return sum(piece.rows for piece in self.pieces)


def one_file(segments: Sequence[Segment]) -> list[list[Piece]]:
    """Put all segments into one file."""
    return [[Piece(segment) for segment in segments if segment.rows]]


def files_by_size(segments: Sequence[Segment], nbytes: int) -> list[list[Piece]]:
    """Put consecutive segments into files of at most `nbytes`, each as full as whole segments allow."""
    files: list[list[Piece]] = [[]]
    filled = 0
    for segment in segments:
        if files[-1] and filled + segment.nbytes > nbytes:
            files.append([])
            filled = 0
        if segment.rows:
            files[-1].append(Piece(segment))
            filled += segment.nbytes
    return files


def files_by_count(segments: Sequence[Segment], count: int) -> list[list[Piece]]:
    """Cut segments into `count` files whose row counts differ by one at most; none is empty if rows allow."""
    total = sum(segment.rows for segment in segments)
    count = max(1, min(count, total))
    wanted = [total // count + (number < total % count) for number in range(count)]
    files: list[list[Piece]] = [[] for _ in wanted]
    number, room = 0, wanted[0]
    for segment in segments:
        first = 0
        while first < segment.rows:
            if not room:
                number += 1
                room = wanted[number]
            last = min(segment.rows, first + room)
            files[number].append(Piece(segment, first, last))
            room -= last - first
            first = last
    return files


class Copy(msgspec.Struct, frozen=True):
    """A task: copy whole segments into a file that exists, one after another from an offset on."""

    segments: list[str]
    target: str
    offset: int


def copies_of(plan: FilePlan, target: str, jobs: int) -> list[Copy]:
    """Cut the copying of whole segments into tasks of about the same size."""
    total = sum(piece.segment.nbytes for piece in plan.pieces)
    share = max(1, -(-total // (jobs * _COPIES_PER_JOB)))
    tasks: list[Copy] = []
    offset = 0
    for piece in plan.pieces:
        if not tasks or offset - tasks[-1].offset >= share:
            tasks.append(Copy([], target, offset))
        tasks[-1].segments.append(piece.segment.name)
        offset += piece.segment.nbytes
    return tasks


def copy_segments(task: Copy, folder: Path) -> None:
    """Do a task of `copies_of`."""
    offset = task.offset
    for name in task.segments:
        nbytes = os.stat(folder / name).st_size
        copy_range(folder / name, 0, nbytes, Path(task.target), offset)
        offset += nbytes


def digest_of(names: Sequence[str], folder: Path) -> str:
    """Return the SHA-256 of files, end to end."""
    digest = hashlib.sha256()
    for name in names:
        for data in blocks_of(folder / name, 0, None):
            digest.update(data)
    return digest.hexdigest()


def build_file(plan: FilePlan, target: Path, folder: Path, compression: str | None, threads: int) -> OutputShard:
    """Make a file of its pieces, flushed, and say what it holds; what a lost worker left of it is made anew."""
    discard(target)
    if compression == "zst":
        return _build_zstd(plan, target, folder, threads)
    file = HashedFile(target)
    try:
        if compression == "gz":
            with ThreadPoolExecutor(min(threads, _MAX_THREADS)) as pool:
                compressor = GzipCompressor(pool, ahead=2 * _MAX_THREADS)
                for data in _rows_of(plan.pieces, folder):
                    file.write(compressor.compress(data))
                file.write(compressor.flush())
        else:
            for data in _rows_of(plan.pieces, folder):
                file.write(data)
    finally:
        file.close(flush=True)
    return OutputShard(plan.name, plan.rows, file.nbytes, file.sha256)


def _build_zstd(plan: FilePlan, target: Path, folder: Path, threads: int) -> OutputShard:
    """Make one frame, which says how many bytes it holds before the first of them."""
    nbytes = sum(stop - start for _, start, stop in map(range_of, plan.pieces, itertools.repeat(folder)))
    file = HashedFile(target)
    try:
        for block in zstd_frame(_rows_of(plan.pieces, folder), nbytes, workers=min(threads, _MAX_THREADS)):
            file.write(block)
    finally:
        file.close(flush=True)
    return OutputShard(plan.name, plan.rows, file.nbytes, file.sha256)


def _rows_of(pieces: Sequence[Piece], folder: Path) -> Iterator[bytes]:
    for piece in pieces:
        path, start, stop = range_of(piece, folder)
        yield from blocks_of(path, start, stop)


def range_of(piece: Piece, folder: Path) -> tuple[Path, int, int]:
    """Return where the rows of a piece begin and end in its segment's file."""
    path = folder / piece.segment.name
    if piece.is_whole:
        return path, 0, piece.segment.nbytes
    starts = [0, piece.segment.nbytes]
    wanted = [piece.first, piece.segment.rows if piece.last is None else piece.last]
    seen = offset = 0
    for data in blocks_of(path, 0, None):
        count = data.count(b"\n")
        for index, row in enumerate(wanted):
            if seen < row <= seen + count:
                at = -1
                for _ in range(row - seen):
                    at = data.find(b"\n", at + 1)
                starts[index] = offset + at + 1
        seen, offset = seen + count, offset + len(data)
    return path, starts[0], starts[1]


def rename_segment(plan: FilePlan, target: Path, folder: Path, *, is_flushed: bool) -> OutputShard:
    """Make a file of its one segment by giving it another name; it is on the disk then."""
    (piece,) = plan.pieces
    rename(folder / piece.segment.name, target)
    if not is_flushed:
        flush(target)
    return OutputShard(plan.name, piece.rows, piece.segment.nbytes, piece.segment.sha256)
