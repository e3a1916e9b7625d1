"""A bucket or container through obstore."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from fastsft.storage.attempts import CONNECT_SECONDS, REQUEST_SECONDS, RETRIES, RETRY_SECONDS, Changed, tried
from fastsft.storage.urls import Entry

_PARTS_AT_ONCE = 4
_ADDRESSES = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT",
    "AZURE_STORAGE_ENDPOINT",
    "AZURE_ENDPOINT",
    "GOOGLE_BASE_URL",
)
_BY_TIME = "modified "  # begins the etag of an object that has none


class ObstoreStore:
    """What lies behind the root of a URL.

    Raises:
        ImportError: obstore is missing.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        from obstore import exceptions
        from obstore.store import from_url

        self._errors: Any = exceptions
        client: dict[str, Any] = {
            "timeout": timedelta(seconds=REQUEST_SECONDS),
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        }
        if _is_plain_http():  # as the person has named it
            client["allow_http"] = True
        retry: Any = {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_SECONDS)}
        self._store: Any = from_url(root, client_options=client, retry_config=retry)

    def list(self, folder: str, *, deep: bool) -> list[Entry]:
        """Return the objects in a folder, with `deep` those in its folders too."""

        def listed() -> list[Entry]:
            if not deep:
                return [self._entry(meta) for meta in self._store.list_with_delimiter(folder or None)["objects"]]
            return [self._entry(meta) for metas in self._store.list(folder or None, chunk_size=1000) for meta in metas]

        return tried(listed, f"{self._root}/{folder}", "list")

    def stat(self, key: str) -> Entry | None:
        """Return what is there; None for nothing."""
        if not key:
            return None
        try:
            return tried(lambda: self._entry(self._store.head(key)), f"{self._root}/{key}", "read")
        except FileNotFoundError:
            return None

    def read(self, key: str, start: int, stop: int, etag: str) -> memoryview:
        """Return a range of an object; raise FailedRun where it is not the version of `etag`."""
        options: dict[str, Any] = {"range": (start, stop)}
        if not etag.startswith(_BY_TIME):
            options["if_match"] = etag

        def got() -> memoryview:
            try:
                result = self._store.get(key, options=options)
                if _etag_of(result.meta) != etag:
                    raise Changed
                data = memoryview(result.bytes())
            except (self._errors.PreconditionError, FileNotFoundError):
                raise Changed from None
            if len(data) != stop - start:
                raise Changed
            return data

        return tried(got, f"{self._root}/{key}", "read")

    def put(self, key: str, data: bytes | Path, part_nbytes: int = 0) -> str:
        """Write an object, whole or not at all, a file in parts of so many bytes; return its etag."""
        parts = {"chunk_size": part_nbytes, "max_concurrency": _PARTS_AT_ONCE} if part_nbytes else {}
        return tried(lambda: self._store.put(key, data, **parts)["e_tag"] or "", f"{self._root}/{key}", "write")

    def create(self, key: str, data: bytes) -> bool:
        """Write a small object where nothing has its name; tell whether that was so."""

        def created() -> bool:
            try:
                self._store.put(key, data, mode="create")
            except self._errors.AlreadyExistsError:
                return False
            return True

        return tried(created, f"{self._root}/{key}", "write")

    def delete(self, key: str) -> None:
        """Delete an object, if it is there."""

        def deleted() -> None:
            try:
                self._store.delete(key)
            except FileNotFoundError:
                return

        tried(deleted, f"{self._root}/{key}", "delete")

    def _entry(self, meta: Any) -> Entry:
        return Entry(f"{self._root}/{meta['path']}", meta["size"], _etag_of(meta))


def _etag_of(meta: Any) -> str:
    return str(meta["e_tag"] or f"{_BY_TIME}{meta['last_modified'].isoformat()}")


def _is_plain_http() -> bool:
    return any(os.environ.get(name, "").startswith("http://") for name in _ADDRESSES)
