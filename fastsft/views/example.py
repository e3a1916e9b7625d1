"""The first row of a file, as an example."""

from __future__ import annotations

import contextlib
import json
import os
from typing import IO, Any

from fastsft.escape import escaped
from fastsft.storage.compression import SUFFIXES, open_compressed
from fastsft.storage.urls import is_remote

_SHOWN_CHARACTERS = 200
_SHOWN_ELEMENTS = 6


def example_of(rows: str | os.PathLike[str]) -> str:
    """Show the first row of a file as indented JSON, long texts and lists cut, everything escaped."""
    path = os.fspath(rows)
    compression = os.path.splitext(path)[1][1:]
    with contextlib.ExitStack() as stack:
        file: Any = stack.enter_context(_opened(path))
        if compression in SUFFIXES:
            file = stack.enter_context(open_compressed(file, compression))
        row = json.loads(file.readline())
    text = json.dumps(_shortened(row), indent=2, ensure_ascii=False)
    return f"\nAn example, the first row, long texts and lists cut:\n{escaped(text, keep=chr(10))}"


def _opened(path: str) -> IO[bytes]:
    if not is_remote(path):
        return open(path, "rb")
    from fastsft.storage.read_ahead import open_object
    from fastsft.storage.stores import entry_at

    entry = entry_at(path)
    if entry is None:
        raise FileNotFoundError(path)
    return open_object(entry)


def _shortened(value: Any) -> Any:
    match value:
        case str() if len(value) > _SHOWN_CHARACTERS:
            return f"{value[:_SHOWN_CHARACTERS]}… ({len(value) - _SHOWN_CHARACTERS:,} more characters)"
        case list():
            more = [f"… ({len(value) - _SHOWN_ELEMENTS:,} more)"] if len(value) > _SHOWN_ELEMENTS else []
            return [_shortened(element) for element in value[:_SHOWN_ELEMENTS]] + more
        case dict():
            return {key: _shortened(element) for key, element in value.items()}
        case _:
            return value
