"""Which paths are URLs of objects, and what they say: a file by itself, as every run imports it."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from fastsft.errors import UsageError

_URL = re.compile(r"(s3|s3a|gs|az|abfs|abfss|hf|memory)://")
_CUT = re.compile(r"(s3a?|gs|az|abfss?|hf|memory):/")
BY_FSSPEC = ("hf", "memory")


class Entry(NamedTuple):
    """An object as it was found.

    Attributes:
        url: Its address.
        nbytes: Its size.
        etag: What tells its versions apart.
    """

    url: str
    nbytes: int
    etag: str


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path is the URL of an object, or of several.

    >>> is_remote("s3://bucket/rollouts/"), is_remote("rollouts/s3"), is_remote("https://host/a.jsonl")
    (True, False, False)

    Raises:
        UsageError: It was a URL before it was made a `Path`.
    """
    if isinstance(path, os.PathLike):
        if _CUT.match(str(path)):
            raise UsageError(f"{path} was a URL, and a Path takes a slash away; name it as text")
        return False
    return isinstance(path, str) and _URL.match(path) is not None


def scheme_of(url: str) -> str:
    """Return what a URL begins with, before the colon."""
    return url.partition("://")[0]


def root_and_key(url: str) -> tuple[str, str]:
    """Cut a URL into what a store serves and the key in it.

    >>> root_and_key("s3://bucket/a/b.jsonl"), root_and_key("hf://datasets/me/it/b.jsonl")
    (('s3://bucket', 'a/b.jsonl'), ('hf://', 'datasets/me/it/b.jsonl'))

    Raises:
        UsageError: It names no bucket, or holds credentials.
    """
    scheme, _, rest = url.partition("://")
    if scheme in BY_FSSPEC:
        return f"{scheme}://", rest.lstrip("/")
    host, _, key = rest.partition("/")
    if ":" in host or ("@" in host and scheme != "abfss"):  # where it stands between container and account
        raise UsageError(f"a URL holds no credentials: {scheme}://BUCKET/PATH, and they come from the environment")
    if not host:
        raise UsageError(f"{url} names no bucket: {scheme}://BUCKET/PATH")
    return f"{scheme}://{host}", key
