"""Objects behind URLs: listed, read in ranges, written whole, deleted.

obstore serves `s3://`, `gs://` and `az://`, fsspec `hf://` and `memory://`; both find credentials as they do anywhere.
They are imported when a URL is named. Each request is limited in time and retries (`attempts.py`). Stores start
threads, so a process that used one must not be forked.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Protocol

from fastsft.errors import FailedRun, UsageError
from fastsft.storage.attempts import tried
from fastsft.storage.urls import BY_FSSPEC, Entry, root_and_key, scheme_of


class Store(Protocol):
    """One bucket or container, or all of a file system; keys do not begin with a slash."""

    def list(self, folder: str, *, deep: bool) -> list[Entry]:
        """Return the objects in a folder, with `deep` those in its folders too."""
        ...

    def stat(self, key: str) -> Entry | None:
        """Return what is there; None for nothing."""
        ...

    def read(self, key: str, start: int, stop: int, etag: str) -> memoryview:
        """Return a range of an object; raise FailedRun where it is not the version of `etag`."""
        ...

    def put(self, key: str, data: bytes | Path, part_nbytes: int = 0) -> str:
        """Write an object, whole or not at all, a file in parts of so many bytes; return its etag."""
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Write a small object where nothing has its name; tell whether that was so."""
        ...

    def delete(self, key: str) -> None:
        """Delete an object, if it is there."""
        ...


_stores: dict[str, Store] = {}
_lock = threading.Lock()
_opened_by = 0  # the process


def open_store(url: str) -> tuple[Store, str]:
    """Return the store of a URL, and the key of the URL in it.

    Raises:
        UsageError: The library that serves it is missing, or the URL names no bucket.
        FailedRun: The store cannot be reached as the environment says.
    """
    global _opened_by
    root, key = root_and_key(url)
    by_fsspec = scheme_of(root) in BY_FSSPEC
    with _lock:
        if _opened_by != os.getpid():
            if not by_fsspec and any(scheme_of(other) not in BY_FSSPEC for other in _stores):
                raise FailedRun(f"cannot use {url}: this process was forked from one that did, and would hang")
            _stores.clear()  # what fsspec serves is opened anew
            _opened_by = os.getpid()
        if root not in _stores:
            _stores[root] = _fsspec_store(root) if by_fsspec else _obstore_store(root)
        return _stores[root], key


def entry_at(url: str) -> Entry | None:
    """Return what is at a URL; None for nothing."""
    store, key = open_store(url)
    return store.stat(key)


def read_all(entry: Entry) -> bytes:
    """Read a small object."""
    store, key = open_store(entry.url)
    return bytes(store.read(key, 0, entry.nbytes, entry.etag)) if entry.nbytes else b""


def _obstore_store(root: str) -> Store:
    from fastsft.storage.by_obstore import ObstoreStore

    try:
        return tried(lambda: ObstoreStore(root), root, "use")
    except ImportError:
        raise UsageError(f"{scheme_of(root)}:// needs a library: pip install 'fastsft[remote]'") from None


def _fsspec_store(root: str) -> Store:
    from fastsft.storage.by_fsspec import FsspecStore

    try:
        return tried(lambda: FsspecStore(root), root, "use")
    except ImportError as error:
        library = "huggingface_hub" if "huggingface_hub" in str(error) else "'fastsft[remote]'"
        raise UsageError(f"{root} needs a library: pip install {library}") from None
