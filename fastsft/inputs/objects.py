"""Which objects a URL names: one, those of a folder, or those that a glob matches; by the rules for files."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fastsft.errors import UsageError
from fastsft.inputs.globs import matches
from fastsft.storage.compression import check_compressor, compression_of
from fastsft.storage.stores import entry_at, open_store
from fastsft.storage.urls import Entry, root_and_key

_AT_ONCE = 32  # small requests: 10,000 objects take 10 s where each takes 30 ms
_MAGIC_NBYTES = 4

T = TypeVar("T")
R = TypeVar("R")


def objects_at(url: str, suffixes: tuple[str, ...]) -> tuple[list[Entry], bool]:
    """Return the objects that a URL names, sorted, and whether it is the name of one.

    Raises:
        UsageError: There is none.
        FailedRun: The store cannot be asked.
    """
    store, key = open_store(url)
    if not url.endswith("/") and (found := entry_at(url)):
        return [found], True
    if glob.has_magic(key):
        parts = key.split("/")
        fixed = next(number for number, part in enumerate(parts) if glob.has_magic(part))
        deep = len(parts) - fixed > 1
        listed = store.list("/".join(parts[:fixed]), deep=deep)
        matching = [entry for entry in listed if matches(root_and_key(entry.url)[1].split("/"), parts)]
        if not matching:
            raise UsageError(f"no object matches {url}")
        return sorted(matching), False
    folder = key.rstrip("/")
    entries = store.list(folder, deep=False)
    rollouts = [entry for entry in entries if _name_of(entry).endswith(suffixes) and _name_of(entry)[0] != "."]
    if rollouts:
        return sorted(rollouts), False
    deeper = store.list(folder, deep=True)
    if not deeper:
        raise UsageError(f"cannot read {url}: there is no such object")
    hint = ""
    if any(entry.url.endswith(suffixes) for entry in deeper):
        hint = f"; there are some deeper: '{url.rstrip('/')}/**/*.jsonl' finds them (in quotes)"
    raise UsageError(f"the folder {url} has no object named *.jsonl, *.jsonl.gz or *.jsonl.zst{hint}")


def _name_of(entry: Entry) -> str:
    return entry.url.rpartition("/")[2]


def compressions_of(entries: Sequence[Entry]) -> list[str | None]:
    """Name the compression of each object, by its first bytes.

    Raises:
        UsageError: The extra that reads it is not installed.
    """
    found = at_once(_compression_of, entries)
    for compression in {*filter(None, found)}:
        check_compressor(compression)
    return found


def _compression_of(entry: Entry) -> str | None:
    return compression_of(first_of(entry, _MAGIC_NBYTES))


def first_of(entry: Entry, nbytes: int) -> bytes:
    """Read the beginning of an object."""
    store, key = open_store(entry.url)
    stop = min(nbytes, entry.nbytes)
    return bytes(store.read(key, 0, stop, entry.etag)) if stop else b""


def last_of(entry: Entry, nbytes: int) -> bytes:
    """Read the end of an object."""
    store, key = open_store(entry.url)
    start = max(entry.nbytes - nbytes, 0)
    return bytes(store.read(key, start, entry.nbytes, entry.etag)) if entry.nbytes else b""


def at_once(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Do what waits for answers of a store on many items at once; the results are in their order."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(work, items))


def number_of(etag: str) -> int:
    """Return a number that stands for an etag where times of change are compared."""
    return int.from_bytes(hashlib.sha256(etag.encode()).digest()[:7], "big")
