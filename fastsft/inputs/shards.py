"""Files, folders and globs -> input shards in a fixed order, cut into spans of byte ranges.

Nobody reads ahead to find where lines end: a line belongs to the range in which its first byte lies. So one huge file
is cut as freely as many small ones, and every worker finds its own lines.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from fastsft.errors import UsageError
from fastsft.inputs.file_kinds import why_not_rollouts
from fastsft.inputs.globs import files_matching, is_glob
from fastsft.storage.compression import compression_of, open_compressed
from fastsft.storage.files import kind_of, open_file
from fastsft.storage.urls import Entry, is_remote

ROLLOUT_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
ROW_SUFFIXES = (*ROLLOUT_SUFFIXES, ".parquet")
# What NeMo Gym writes beside rollouts, by the end of its stem.
_NOT_ROLLOUTS = ("_materialized_inputs", "_failures", "_reward_profiling", ".capture", ".tokens")
_NOT_ROLLOUTS_FOLDER = "preprocessed_datasets"  # what `ng_e2e_collect_rollouts` reads
_MOST_DEEPER = 1000  # folders that are looked into for a hint

_LEAST_SPAN_NBYTES = 16 * 1024**2
_MOST_SPAN_NBYTES = 1024**3
# A span more costs the driver a millisecond, a larger one keeps the last worker longer: the time is least near the root
# of the input times this (benchmarks/scale.md).
_NBYTES_PER_SPAN = 100_000
_EXPANSION = 5  # how many times larger compressed rollouts are taken to be
_MOST_LEFT_OUT = 8  # files that are noted one by one
_MOST_NOTES = 3  # of files that are named again


class Shard(msgspec.Struct, frozen=True):
    """One input file as it was found; a file that differs when it is read stops the run.

    Attributes:
        path: Where it is, as it was named.
        nbytes: Its size on disk.
        modified_ns: When it was modified last, in nanoseconds; of an object, a number that its etag alone decides.
        compression: `gz`, `zst` or None, by its first bytes.
        index: Which of the run's shards it is, from 0.
        problem: Why it is surely no file of rollouts, as a sentence; None where it may be one.
        location: Its absolute path, as a worker may have another working directory; `path` if not given.
        etag: Of an object, what tells its versions apart; empty for a file.
    """

    path: str
    nbytes: int
    modified_ns: int
    compression: str | None = None
    index: int = 0
    problem: str | None = None
    location: str = ""
    etag: str = ""

    def __post_init__(self) -> None:
        """Fill in where it is."""
        if not self.location:
            msgspec.structs.force_setattr(self, "location", self.path)

    @property
    def is_stored(self) -> bool:
        """Whether it is an object in a store, and no file."""
        return bool(self.etag)

    @property
    def entry(self) -> Entry:
        """The object that it is."""
        return Entry(self.location, self.nbytes, self.etag)


class ByteRange(msgspec.Struct, frozen=True):
    """The lines of a shard whose first byte lies in [start, stop); a compressed shard is one range."""

    shard: Shard
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        """How many bytes of the file it takes in."""
        return self.stop - self.start


class Span(msgspec.Struct, frozen=True):
    """The unit of work: byte ranges of consecutive shards, at most one of each."""

    index: int
    ranges: tuple[ByteRange, ...]

    @property
    def nbytes(self) -> int:
        """How many bytes of files it takes in."""
        return sum(one.nbytes for one in self.ranges)


class _Found(NamedTuple):
    """One file or object that an argument names, as it was found."""

    path: str
    nbytes: int
    modified_ns: int
    compression: str | None
    identity: object  # the same by whatever name
    location: str
    etag: str = ""


def find_rollouts(inputs: Iterable[str | os.PathLike[str]]) -> tuple[list[Shard], list[str]]:
    """Find the same as `find_shards`, and which of the files are surely no rollouts.

    Raises:
        UsageError: As `find_shards` does.
    """
    shards, notes = find_shards(inputs)
    if any(shard.is_stored for shard in shards):
        from fastsft.inputs.objects import at_once

        problems = at_once(_why_not_rollouts, shards)
    else:
        problems = [_why_not_rollouts(shard) for shard in shards]
    told = [
        msgspec.structs.replace(shard, problem=problem) if problem else shard
        for shard, problem in zip(shards, problems, strict=True)
    ]
    return told, notes


def _why_not_rollouts(shard: Shard) -> str | None:
    try:
        return why_not_rollouts(shard.path, shard.compression, shard.entry if shard.is_stored else None)
    except OSError as error:
        raise UsageError(f"cannot read {shard.path}: {error.strerror}") from None


def find_shards(
    inputs: Iterable[str | os.PathLike[str]], suffixes: tuple[str, ...] = ROLLOUT_SUFFIXES
) -> tuple[list[Shard], list[str]]:
    """Find the files that the arguments name, and say in sentences which were left out and why.

    The order is the arguments', and sorted within one. A folder means its own
    files whose names end with one of `suffixes`; a glob with `**` goes deeper. A file is read once, however often
    and by whatever links it is named. URLs name objects in the same ways.

    Raises:
        UsageError: An argument names nothing, or something that cannot be read.
    """
    shards: list[Shard] = []
    notes: list[str] = []
    seen: dict[object, str] = {}
    again: list[str] = []
    left_out: list[str] = []
    for argument in inputs:
        text = os.fspath(argument)
        for found in (
            _objects(text, left_out, suffixes) if is_remote(text) else map(_file, _paths(text, left_out, suffixes))
        ):
            if before := seen.get(found.identity):
                path = found.path
                again.append(f"{path} counts once" if path == before else f"{path} is {before} again, and counts once")
                continue
            seen[found.identity] = found.path
            shards.append(
                Shard(
                    found.path,
                    found.nbytes,
                    found.modified_ns,
                    found.compression,
                    len(shards),
                    location=found.location,
                    etag=found.etag,
                )
            )
    if len(left_out) > _MOST_LEFT_OUT:
        left_out = [f"{len(left_out):,} files are left out, which NeMo Gym writes beside rollouts, as {left_out[0]}"]
    notes += left_out
    notes += again if len(again) <= _MOST_NOTES else [f"{len(again):,} files are named more than once, and count once"]
    if not shards:
        raise UsageError("no input: the arguments name no file of rollouts", *notes)
    return shards, notes


def _files(argument: str, left_out: list[str], suffixes: tuple[str, ...]) -> Iterable[_Found]:
    return map(_file, _paths(argument, left_out, suffixes))


def _file(path: str) -> _Found:
    try:
        found = os.stat(path)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f"cannot read {path}: it is not a regular file")
    compression, location = _compression_of(path, found.st_size), os.path.abspath(path)
    return _Found(path, found.st_size, found.st_mtime_ns, compression, (found.st_dev, found.st_ino), location)


def _objects(url: str, left_out: list[str], suffixes: tuple[str, ...]) -> list[_Found]:
    from fastsft.inputs.objects import compressions_of, number_of, objects_at

    entries, is_named = objects_at(url, suffixes)
    kept = entries if is_named else _kept(entries, url, left_out)
    return [
        _Found(entry.url, entry.nbytes, number_of(entry.etag), compression, entry.url, entry.url, entry.etag)
        for entry, compression in zip(kept, compressions_of(kept), strict=True)
    ]


def _paths(argument: str, left_out: list[str], suffixes: tuple[str, ...]) -> list[str]:
    if argument == "-":
        raise UsageError("an input is a file, a folder or a glob, as it may be read twice; a file of that name is ./-")
    if _kind_of(argument) == "folder":
        try:
            names = os.listdir(argument)
        except OSError as error:
            raise UsageError(f"cannot read {argument}: {error.strerror}") from None
        names = [name for name in names if name.endswith(suffixes) and not name.startswith(".")]
        found = [os.path.join(argument, name) for name in sorted(names)]
        what = f"the folder {argument} has no file named *.jsonl, *.jsonl.gz or *.jsonl.zst{_deeper(argument)}"
    elif not is_glob(argument):
        return [argument]
    else:
        matching = files_matching(argument)
        found = [path for path in matching if _kind_of(path) != "folder"]
        what = f"{'only folders match' if matching else 'no file matches'} {argument}"
    if not found:
        raise UsageError(what)
    return _kept(found, argument, left_out)


P = TypeVar("P", str, Entry)


def _kept(found: Sequence[P], argument: str, left_out: list[str]) -> list[P]:
    """Return what an argument means of what it names: not what NeMo Gym writes beside rollouts."""
    kept = []
    for one in found:
        path = one if isinstance(one, str) else one.url
        if _is_rollouts(path, argument):
            kept.append(one)
        else:
            left_out.append(f"{path} is left out: NeMo Gym writes it beside rollouts")
    return kept


def _kind_of(path: str) -> str | None:
    try:
        return kind_of(path)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None


def _deeper(folder: str) -> str:
    """Say how to name files of rollouts that lie deeper in a folder; nothing where none is found soon."""
    for number, (where, _, names) in enumerate(os.walk(folder)):
        if any(name.endswith(ROLLOUT_SUFFIXES) for name in names) and where != folder:
            return f"; there are some deeper: '{os.path.join(folder, '**', '*.jsonl')}' finds them (in quotes)"
        if number == _MOST_DEEPER:
            break
    return ""


def _is_rollouts(path: str, argument: str) -> bool:
    name = os.path.basename(path)
    stem = name.split(".jsonl")[0]
    if _NOT_ROLLOUTS_FOLDER in path.split("/")[:-1] and _NOT_ROLLOUTS_FOLDER not in argument.split("/"):
        return False
    return not stem.endswith(_NOT_ROLLOUTS) and "_aggregate_metrics" not in name


def _compression_of(path: str, nbytes: int) -> str | None:
    """Name the compression of a file, of which so many bytes will be read: none of one that says it is empty."""
    try:
        with open_file(path) as file:
            start = file.read(4)
            if start and not nbytes:  # as those of /proc, and of some file systems over a network
                raise UsageError(f"cannot read {path}: it says that its size is 0 and has content; copy it first")
            compression = compression_of(start)
            if compression:
                open_compressed(path, compression).close()  # says now which extra is missing
            return compression
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None


def spans_of(shards: Sequence[Shard], nbytes: int | None = None) -> list[Span]:
    """Cut shards into spans of about `nbytes`, in order; None for a size that follows from the input's alone.

    That is between 16 MiB and 1 GiB: 95 MiB of 100 GB, 302 MiB of 1 TB.
    """
    total = expanded_nbytes(shards)
    most = nbytes or min(max(math.isqrt(total * _NBYTES_PER_SPAN), _LEAST_SPAN_NBYTES), _MOST_SPAN_NBYTES)
    spans: list[tuple[ByteRange, ...]] = []
    small: list[ByteRange] = []
    small_nbytes = 0
    for shard in shards:
        is_cut = shard.compression is None and shard.problem is None
        step = most if is_cut else max(shard.nbytes, 1)
        for start in range(0, shard.nbytes, step):
            one = ByteRange(shard, start, min(start + step, shard.nbytes))
            size = one.nbytes if is_cut else expanded_nbytes([shard])
            if small and small_nbytes + size > most:
                spans.append(tuple(small))
                small, small_nbytes = [], 0
            small.append(one)
            small_nbytes += size
    if small:
        spans.append(tuple(small))
    return [Span(index, ranges) for index, ranges in enumerate(spans)]


def expanded_nbytes(shards: Iterable[Shard]) -> int:
    """Return how many bytes shards are taken to have when they are decompressed."""
    return sum(shard.nbytes * (_EXPANSION if shard.compression else 1) for shard in shards)


def local_paths(shards: Iterable[Shard]) -> list[str]:
    """Return where shards are that are files, and no objects in a store."""
    return [shard.location for shard in shards if not shard.is_stored]


def whole_of(shards: Sequence[Shard]) -> Span:
    """Take all shards for one span, for a run that nobody shares."""
    return Span(0, tuple(ByteRange(shard, 0, shard.nbytes) for shard in shards if shard.nbytes))


def is_same_file(path: str | Path, source: str | os.PathLike[str]) -> bool:
    """Tell whether a path names the file of a source, by whatever links."""
    try:
        return os.path.samefile(path, source)
    except OSError:
        return False


@lru_cache(maxsize=64)  # a shard with a million refused lines names itself a million times
def printable(path: str) -> str:
    """Return a path that JSON can hold: bytes that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
