"""What all that a person sees is written with: sizes, numbers of things, paths, and how wide a terminal is."""

from __future__ import annotations

import contextlib
import os
import unicodedata
from typing import IO

from fastsft.escape import escaped
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


def shown_path(path: str) -> str:
    """Write a path or a URL as a person would type it from here, escaped."""
    if is_remote(path):
        return escaped(path)
    with contextlib.suppress(OSError):  # this folder may be gone
        here = os.path.join(os.getcwd(), "")
        if path.startswith(here):
            return escaped(path.removeprefix(here))
        if os.path.join(path, "") == here:
            return "."
    return escaped(path)


def cut(text: str, columns: int) -> str:
    """Write a text, escaped, on one line of at most so many columns; white space becomes a space.

    >>> cut("one  two", 20), cut("数据数据", 6)
    ('one two', '数据…')
    """
    one_line = escaped(" ".join(text[: 4 * columns].split()))
    widths = [_width_of(character) for character in one_line]
    if sum(widths) <= columns and len(text) <= 4 * columns:
        return one_line
    taken = 0
    for position, width in enumerate(widths):
        taken += width
        if taken > columns - 1:
            return f"{one_line[:position]}…"
    return f"{one_line}…"


def _width_of(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WF" else 0 if unicodedata.combining(character) else 1
