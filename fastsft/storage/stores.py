"""Objects in a store, read as files are: obstore reads S3, Google's and Azure's, fsspec Hugging Face's.

Each object is known by its path, its size and its ETag, and every read asks for that ETag: one that was written over
stops the run. Credentials are found by those libraries (environment, profiles, roles) and never told: messages show the
address without what stands before an `@` or behind a `?`.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from fastsft.errors import UsageError

T = TypeVar("T")

_OF_OBSTORE = frozenset({"s3", "s3a", "gs", "az", "abfs", "abfss"})
_OF_FSSPEC = frozenset({"hf"})
_URL = re.compile(r"([a-z][a-z0-9]*)://([^/]*)/?(.*)", re.DOTALL)
_AHEAD_NBYTES = 8 * 1024 * 1024  # read at once: a request takes a store 10 to 50 ms, as long as it takes to send this
_MOST_TRIES = 5  # of a request, with waits that double; obstore makes them
_RETRY_SECONDS = 120
_TIMEOUT = "60s"  # of one request


class StoredObject(NamedTuple):
    """An object: its address, its size and its ETag."""

    url: str
    nbytes: int
    etag: str


def is_remote(path: str) -> bool:
    """Tell whether a path is the address of an object in a store that is read.

    >>> is_remote("s3://bucket/a.jsonl"), is_remote("ftp://host/a.jsonl"), is_remote("s3:/a")
    (True, False, False)
    """
    match = _URL.fullmatch(path)
    return match is not None and match[1] in _OF_OBSTORE | _OF_FSSPEC


def shown(url: str) -> str:
    """Return an address without credentials.

    >>> shown("s3://key:secret@bucket/a.jsonl?token=x")
    's3://bucket/a.jsonl'
    """
    return re.sub(r"(://)[^/@]*@", r"\1", url.split("?")[0])


def objects_at(url: str, suffixes: tuple[str, ...]) -> list[StoredObject]:
    """Find the objects that an address names: itself, those right below it with one of the suffixes, or by a glob.

    Raises:
        UsageError: There is none, or it cannot be looked at.
    """
    scheme, bucket, key = _parts(url)
    if re.search(r":[^@]*@", bucket):  # which the record of a run would hold
        raise UsageError(f"an address holds no key: {shown(url)}; say it in the environment")
    store = _store(scheme, bucket)
    if glob := re.search(r"[*?]", key):
        before = key[: glob.start()].rpartition("/")[0]
        found = [one for one in store.below(before, deep=True) if _matches(one.url, url)]
    elif not key.endswith("/") and (one := store.head(key)):
        return [one]
    else:
        below = store.below(key.rstrip("/"), deep=False)
        found = [one for one in below if one.url.endswith(suffixes) and "/." not in one.url]
    if not found:
        raise UsageError(f"no object of rollouts is at {shown(url)}")
    return sorted(found)


def open_object(url: str, nbytes: int, etag: str) -> ObjectFile:
    """Open an object for reading, as it was when it was found."""
    scheme, bucket, key = _parts(url)
    return ObjectFile(_store(scheme, bucket), key, url, nbytes, etag)


class ObjectFile(io.RawIOBase):
    """An object as a file; what is read goes on a little further, as the next read mostly does."""

    def __init__(self, store: _Store, key: str, url: str, nbytes: int, etag: str) -> None:
        super().__init__()
        self._store = store
        self._key = key
        self._url = url
        self._nbytes = nbytes
        self._etag = etag
        self._position = 0
        self._held = b""
        self._held_from = 0
        self.until = nbytes  # no byte behind it is asked for ahead

    def pread(self, nbytes: int, start: int) -> bytes:
        """Read so many bytes from a place on, fewer at the end.

        Raises:
            OSError: They cannot be read, or the object is no longer what it was.
        """
        stop = min(start + nbytes, self._nbytes)
        if start >= stop:
            return b""
        at = start - self._held_from
        if not 0 <= at <= len(self._held) - (stop - start):
            last = min(max(stop, min(start + _AHEAD_NBYTES, self.until)), self._nbytes)
            self._held = self._store.read(self._key, start, last, self._etag)
            self._held_from, at = start, 0
        return self._held[at : at + stop - start]

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        before = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._nbytes}[whence]
        self._position = before + offset
        return self._position

    def tell(self) -> int:
        """Return the place."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer."""
        data = self.pread(len(buffer), self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


class _Store:
    """What is asked of a store, of one bucket."""

    def head(self, key: str) -> StoredObject | None:
        raise NotImplementedError

    def below(self, prefix: str, *, deep: bool) -> Iterator[StoredObject]:
        raise NotImplementedError

    def read(self, key: str, start: int, stop: int, etag: str) -> bytes:
        raise NotImplementedError


class _Obstore(_Store):
    def __init__(self, scheme: str, bucket: str) -> None:
        try:
            import obstore
            from obstore.exceptions import BaseError
            from obstore.store import from_url
        except ImportError as error:
            raise _missing(error) from None
        import datetime

        self._obstore, self._error = obstore, BaseError
        self._at = f"{scheme}://{bucket}/"
        endpoints = (os.environ.get(name, "") for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3"))
        client = {"timeout": _TIMEOUT, "allow_http": any(one.startswith("http://") for one in endpoints)}
        retry = {"max_retries": _MOST_TRIES, "retry_timeout": datetime.timedelta(seconds=_RETRY_SECONDS)}
        self._bucket = self._told(lambda: from_url(self._at, client_options=client, retry_config=retry), "")

    def head(self, key: str) -> StoredObject | None:
        try:
            return self._found(self._told(lambda: self._obstore.head(self._bucket, key), key))
        except FileNotFoundError:
            return None

    def below(self, prefix: str, *, deep: bool) -> Iterator[StoredObject]:
        if deep:
            batches = self._told(lambda: list(self._obstore.list(self._bucket, prefix or None)), prefix)
            yield from (self._found(one) for batch in batches for one in batch)
        else:
            listed = self._told(lambda: self._obstore.list_with_delimiter(self._bucket, prefix or None), prefix)
            yield from map(self._found, listed["objects"])

    def read(self, key: str, start: int, stop: int, etag: str) -> bytes:
        wanted = {"range": (start, stop), "if_match": etag}
        data: bytes = self._told(lambda: bytes(self._obstore.get(self._bucket, key, options=wanted).bytes()), key)
        if len(data) != stop - start:
            raise OSError(f"{shown(self._at + key)}: {len(data):,} bytes came, and {stop - start:,} were asked for")
        return data

    def _found(self, one: Any) -> StoredObject:
        return StoredObject(self._at + one["path"], one["size"], one["e_tag"] or "")

    def _told(self, ask: Callable[[], T], key: str) -> T:
        """Ask the store, and say what went wrong in a line without credentials."""
        try:
            return ask()
        except FileNotFoundError:
            raise
        except (self._error, OSError, ValueError) as error:
            name = type(error).__name__.removesuffix("Error")
            if name == "Precondition":
                raise OSError(0, "it changed while it was read") from None
            status = re.search(r"status:? (\d{3})|(\d{3}) [A-Z][a-z]+", str(error))
            why = f"status {status[1] or status[2]}" if status else "no answer"
            raise OSError(0, f"the store failed {_MOST_TRIES + 1} times ({name or 'Generic'}, {why})") from None


_VERSIONS = ("etag", "ETag", "blob_id", "mtime", "created")  # what file systems of fsspec call the version of a file


class _Fsspec(_Store):
    def __init__(self, scheme: str, bucket: str) -> None:
        try:
            import fsspec
        except ImportError as error:
            raise _missing(error) from None
        self._at = f"{scheme}://"
        self._bucket = bucket
        self._files = fsspec.filesystem(scheme)

    def _path(self, key: str) -> str:
        return f"{self._bucket}/{key}".rstrip("/")

    def head(self, key: str) -> StoredObject | None:
        return self._of(self._path(key))

    def _of(self, path: str) -> StoredObject | None:
        try:
            found = self._files.info(path)
        except FileNotFoundError:
            return None
        if found["type"] != "file":
            return None
        etag = next((found[name] for name in _VERSIONS if found.get(name)), "")
        return StoredObject(self._at + found["name"].lstrip("/"), found["size"], str(etag))

    def below(self, prefix: str, *, deep: bool) -> Iterator[StoredObject]:
        path = self._path(prefix)
        try:
            listed = self._files.find(path) if deep else self._files.ls(path, detail=False)
        except FileNotFoundError:
            return
        yield from filter(None, (self._of(name) for name in listed))  # whose listings may not have the versions

    def read(self, key: str, start: int, stop: int, etag: str) -> bytes:
        found = self.head(key)
        if found is None or found.etag != etag:  # fsspec cannot ask for one
            raise OSError(0, "it changed while it was read")
        data: bytes = self._files.cat_file(self._path(key), start=start, end=stop)
        return data


@lru_cache(maxsize=16)
def _store(scheme: str, bucket: str) -> _Store:
    return _Fsspec(scheme, bucket) if scheme in _OF_FSSPEC else _Obstore(scheme, bucket)


def _parts(url: str) -> tuple[str, str, str]:
    match = _URL.fullmatch(url)
    assert match is not None
    return match[1], match[2], match[3]


def _matches(url: str, pattern: str) -> bool:
    """Tell whether an address fits a glob, in which `*` goes within a folder and `**` through any number of them."""
    tokens = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    meant = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.fullmatch("".join(meant.get(token) or re.escape(token) for token in tokens), url, re.DOTALL) is not None


def _missing(error: ImportError) -> UsageError:
    return UsageError(f"reading from a store needs {error.name or 'a library'}: pip install 'fastsft[remote]'")
