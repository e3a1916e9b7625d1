"""Which files are no files of rollouts, told once for the file by its beginning, with the way out.

A file is told only for what it surely is: one in whose beginning a single rollout is found is read line by line.
"""

from __future__ import annotations

import io
import os
import re

import msgspec

from fastsft.storage.compression import open_compressed
from fastsft.storage.files import open_file
from fastsft.storage.urls import Entry

_START_NBYTES = 64 * 1024
_END_NBYTES = 64
_MOST_LINES = 20  # that are looked at
_MAGIC = {
    b"PAR1": ("Parquet", 'python -c \'import polars; polars.read_parquet("{name}").write_ndjson("{stem}.jsonl")\''),
    b"ARROW1": ("Arrow", 'python -c \'import polars; polars.read_ipc("{name}").write_ndjson("{stem}.jsonl")\''),
    b"BZh": ("bzip2", "bunzip2 {name}"),
    b"\xfd7zXZ": ("xz", "unxz {name}"),
    b"PK\x03\x04": ("a zip archive", "unzip {name}"),
    b"SQLite format 3": ("an SQLite database", "export it as JSON lines"),
    b"\x89HDF": ("HDF5", "export it as JSON lines"),
}
_BOM = b"\xef\xbb\xbf"
_PRETTY = re.compile(rb'\{\s*\r?\n\s*"(?:[^"\\]|\\.)*"\s*:')
_any = msgspec.json.Decoder()


def why_not_rollouts(path: str, compression: str | None, entry: Entry | None = None) -> str | None:
    """Say in a sentence what a file is instead of rollouts, and what to do; None where it may be rollouts.

    An object is known by its entry.

    Raises:
        OSError: It cannot be read.
    """
    if compression == "parquet":
        compression = None  # of which the beginning tells
    start, end = _ends_of(path, compression) if entry is None else _ends_of_object(entry, compression)
    name = os.path.basename(path)
    for magic, (kind, way) in _MAGIC.items():
        if start.startswith(magic):
            command = way.format(name=name, stem=name.split(".")[0])
            return f"{path} is {kind} and not JSON lines; convert it first: {command}"
    text = start.removeprefix(_BOM).lstrip()
    if not text or (text.startswith(b"{") and b'"responses_create_params"' in text[:200].partition(b"\n")[0]):
        return None  # nearly always
    lines = [line for line in text.split(b"\n")[:_MOST_LINES] if line.strip()]
    values = list(filter(None, map(_object_or_list, lines)))
    if any(isinstance(value, dict) and "responses_create_params" in value for value in values):
        return None
    if _is_array(text, end, values):
        return f"{path} is one JSON array and not JSON lines; write one element a line: jq -c '.[]' {name}"
    if not values:
        return _why_no_json(path, text)
    if all(map(_is_row, values)):
        return f"{path} holds rows and not rollouts; fastsft check reads rows: fastsft check {name}"
    return None


def _ends_of(path: str, compression: str | None) -> tuple[bytes, bytes]:
    if compression is not None:
        with open_compressed(path, compression) as stream:
            return _begun(stream), b""
    with open_file(path) as file:
        start = file.read(_START_NBYTES)
        file.seek(max(os.fstat(file.fileno()).st_size - _END_NBYTES, 0))
        return start, file.read().rstrip()


def _ends_of_object(entry: Entry, compression: str | None) -> tuple[bytes, bytes]:
    from fastsft.inputs.objects import first_of, last_of

    start = first_of(entry, _START_NBYTES)
    if compression is None:
        may_be_array = start.removeprefix(_BOM).lstrip().startswith(b"[")
        return start, last_of(entry, _END_NBYTES).rstrip() if may_be_array else b""
    with open_compressed(io.BytesIO(start), compression) as stream:
        return _begun(stream), b""


def _begun(stream: object) -> bytes:
    try:
        start: bytes = stream.read(_START_NBYTES)  # type: ignore[attr-defined] # a file of any library
    except Exception:  # damaged, which is told where it is read
        return b""
    return start


def _object_or_list(line: bytes) -> object:
    try:
        value = _any.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return value if isinstance(value, (dict, list)) else None


def _is_row(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    return isinstance(value.get("messages"), list) or {"input", "output"} <= value.keys()


def _is_array(text: bytes, end: bytes, values: list[object]) -> bool:
    """Tell whether a text is one array of objects: it begins and ends as one, and its first line is no whole line."""
    if not text.startswith(b"[") or not text[1:].lstrip().startswith(b"{") or any(isinstance(v, dict) for v in values):
        return False
    return end.endswith(b"]") if end else not values


def _why_no_json(path: str, text: bytes) -> str | None:
    """Tell pretty-printed JSON and tables of text, of which no line is JSON."""
    name = os.path.basename(path)
    if _PRETTY.match(text):
        return f"{path} is pretty-printed JSON and not JSON lines; write each object on one line: jq -c . {name}"
    rows = [line.strip(b"\r") for line in text.split(b"\n")[:3] if line.strip()]
    for separator in (b",", b"\t", b";"):
        fields = {row.count(separator) for row in rows}
        if b"{" not in rows[0][:1] and b"[" not in rows[0][:1] and len(rows) > 1 and fields != {0} and len(fields) == 1:
            return f"{path} is a table of text (CSV) and not JSON lines; name files of rollouts as NeMo Gym writes them"
    return None
