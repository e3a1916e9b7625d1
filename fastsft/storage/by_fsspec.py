"""What fsspec serves: the Hugging Face Hub, and the memory of this process."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from fastsft.errors import FailedRun
from fastsft.storage.attempts import Changed, tried
from fastsft.storage.urls import Entry

# What may tell versions apart, the surest first.
_VERSIONS = ("ETag", "etag", "blob_id", "sha256", "oid")
_TIMES = ("last_modified", "LastModified", "mtime", "created")
_SECONDS_BETWEEN_LOOKS = 5.0


class FsspecStore:
    """A file system of fsspec's.

    Raises:
        ImportError: A library that serves it is missing.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._known: dict[str, tuple[str, float]] = {}  # the version of an object, and when it was asked for
        import fsspec

        self._files: Any = fsspec.filesystem(root.removesuffix("://"))

    def list(self, folder: str, *, deep: bool) -> list[Entry]:
        """Return the objects in a folder, with `deep` those in its folders too."""

        def listed() -> list[Entry]:
            self._files.invalidate_cache()
            try:
                found = self._files.find(folder, detail=True, maxdepth=None if deep else 1)
            except FileNotFoundError:
                return []
            entries = [self._listed(name, info) for name, info in found.items() if info["type"] == "file"]
            return [entry for entry in entries if entry]

        return tried(listed, self._root + folder, "list")

    def stat(self, key: str) -> Entry | None:
        """Return what is there; None for nothing."""
        try:
            return tried(lambda: self._stat(key), self._root + key, "read")
        except FileNotFoundError:
            return None

    def read(self, key: str, start: int, stop: int, etag: str) -> memoryview:
        """Return a range of an object; raise FailedRun where it is not the version of `etag`."""

        def got() -> memoryview:
            try:
                data = self._files.cat_file(key, start=start, end=stop)
                if not self._is_version(key, etag) or len(data) != stop - start:
                    raise Changed
            except FileNotFoundError:
                if self._root == "memory://":
                    raise FailedRun(f"{self._root}{key} is not in this process's memory; jobs=1 reads it") from None
                raise Changed from None
            return memoryview(data)

        return tried(got, self._root + key, "read")

    def put(self, key: str, data: bytes | Path, part_nbytes: int = 0) -> str:
        """Write an object, whole or not at all; return its etag."""

        def written() -> str:
            if isinstance(data, bytes):
                self._files.pipe_file(key, data)
            else:
                self._files.put_file(str(data), key)
            self._files.invalidate_cache()
            entry = self._stat(key)
            return entry.etag if entry else ""

        return tried(written, self._root + key, "write")

    def create(self, key: str, data: bytes) -> bool:
        """Write a small object where nothing has its name; tell whether that was so. Not at one blow."""
        if self.stat(key) is not None:
            return False
        self.put(key, data)
        return True

    def delete(self, key: str) -> None:
        """Delete an object, if it is there."""

        def deleted() -> None:
            try:
                self._files.rm_file(key)
            except FileNotFoundError:
                return

        tried(deleted, self._root + key, "delete")

    def _is_version(self, key: str, etag: str) -> bool:
        """Tell whether an object was of a version a moment ago: the Hub limits how often it is asked."""
        known, at = self._known.get(key, ("", 0.0))
        if known == etag and time.monotonic() - at < _SECONDS_BETWEEN_LOOKS:
            return True
        entry = self._stat(key)
        if entry is None or entry.etag != etag:
            return False
        self._known[key] = (etag, time.monotonic())
        return True

    def _stat(self, key: str) -> Entry | None:
        self._files.invalidate_cache()
        info = self._files.info(key)
        return self._entry(key, info) if info["type"] == "file" else None

    def _entry(self, name: str, info: Any) -> Entry:
        version = next((info[field] for field in (*_VERSIONS, *_TIMES) if info.get(field)), f"{info['size']} bytes")
        return Entry(self._root + name.lstrip("/"), info["size"], str(version))

    def _listed(self, name: str, info: Any) -> Entry | None:
        """Return an object of a listing, which may not have the version, or write times in another way."""
        return self._entry(name, info) if any(info.get(field) for field in _VERSIONS) else self._stat(name)
