"""What all that a person sees is written with: sizes, numbers of things, paths, and how wide a terminal is."""

from __future__ import annotations

import os
from typing import IO

from fastsft.storage.urls import is_remote, root_and_key

_USUAL_COLUMNS = 80


def columns_of(stream: IO[str]) -> int:
    """Return how wide the terminal is that a stream is."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or _USUAL_COLUMNS  # 0 where nobody has set it
    except OSError:
        return _USUAL_COLUMNS


def size_of(nbytes: float) -> str:
    """Write a number of bytes for a person, in powers of 1000.

    >>> size_of(999), size_of(1_500_000)
    ('999 B', '1.5 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} TB"


def many(count: int, what: str) -> str:
    """Write a number of things, one or several."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def path_in(folder: str, name: str) -> str:
    """Return where a file is that a report names; its folder may be a URL.

    >>> path_in("s3://bucket/sft/", "../val.jsonl"), path_in("sft", "val.jsonl")
    ('s3://bucket/val.jsonl', 'sft/val.jsonl')
    """
    if not is_remote(folder):
        return os.path.normpath(os.path.join(folder, name))
    root, key = root_and_key(folder)
    return f"{root}/{os.path.normpath(os.path.join(key, name))}"
