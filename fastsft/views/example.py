"""The first row of a file, as an example."""

from __future__ import annotations

import contextlib
import json
import os
from typing import IO, Any

from fastsft.execution.polars_after_fork import check_polars
from fastsft.storage.compression import SUFFIXES, open_compressed
from fastsft.storage.urls import is_remote
from fastsft.views.colour import Paint, plain
from fastsft.views.terminal import cut

_COLUMNS = 80
_ROLE = 9  # columns
_SHOWN_TURNS = 4


def example_of(rows: str | os.PathLike[str], paint: Paint = plain) -> str:
    """Show the first row of a file, a line for each of its first turns and one for its last, all escaped."""
    path = os.fspath(rows)
    compression = os.path.splitext(path)[1][1:]
    if compression == "parquet":
        check_polars()
    with contextlib.ExitStack() as stack:
        file: Any = stack.enter_context(_opened(path))
        if compression in (*SUFFIXES, "parquet"):
            file = stack.enter_context(open_compressed(file, compression))
        row = json.loads(file.readline())
    messages = row.get("messages")
    if isinstance(messages, list):
        turns = [(str(one.get("role")), _said(one)) for one in messages]
    else:
        turns = [(name, _text_of(value)) for name, value in row.items() if name != "metadata"]
    lines = [
        f"  {paint(f'{cut(role, _ROLE):<{_ROLE}}', 'cyan')} {cut(text, _COLUMNS - _ROLE - 3)}" for role, text in turns
    ]
    left_out = len(lines) - _SHOWN_TURNS
    if left_out > 1:
        lines[_SHOWN_TURNS - 1 : -1] = [f"  … {left_out:,} more turns"]
    return "\n".join([paint("The first row:", "bold"), *(line.rstrip() for line in lines)])


def _said(message: dict[str, Any]) -> str:
    """Write what a turn says, and what it calls."""
    calls = message.get("tool_calls") or []
    called = [call.get("function", call) for call in calls]
    told = [f"calls {call.get('name')}({_text_of(call.get('arguments'))})" for call in called]
    return " ".join(filter(None, [_text_of(message.get("content")), *told]))


def _text_of(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _opened(path: str) -> IO[bytes]:
    if not is_remote(path):
        return open(path, "rb")
    from fastsft.storage.read_ahead import open_object
    from fastsft.storage.stores import entry_at

    entry = entry_at(path)
    if entry is None:
        raise FileNotFoundError(path)
    return open_object(entry)
