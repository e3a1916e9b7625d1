"""Write what a span leaves: its rows, cut where a shard is full, and its refused lines as they come.

A segment has a name that no other attempt has. A worker that dies leaves files that nobody knows of.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from fastsft.outputs.receipts import Segment
from fastsft.report import RefusedLine
from fastsft.storage.files import HashedFile, remove

_encoder = msgspec.json.Encoder()


class SegmentWriter:
    """The files of one attempt at a span. Use it in a `with` block; what an error leaves is removed.

    Args:
        folder: Where they go.
        name: What their names begin with.
        most_refused: How many refused lines are written; None for all.
        most_nbytes: How many bytes of rows a segment has at most; a longer row has one of its own. None for no limit.
            Where there is one, segments become shards by renaming, so they are flushed here, by many workers at once.
    """

    def __init__(
        self, folder: Path, name: str, *, most_nbytes: int | None = None, most_refused: int | None = None
    ) -> None:
        self._folder = folder
        self._name = f"{name}.{secrets.token_hex(4)}"
        self._limit = math.inf if most_nbytes is None else most_nbytes
        self._most_refused = most_refused
        self._rows: list[_Part] = []
        self._refused: _Part | None = None

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for part in filter(None, [*self._rows, self._refused]):
                with contextlib.suppress(Exception):
                    part.file.close(flush=False)
                with contextlib.suppress(OSError):
                    remove(part.file.path)

    def write_rows(self, rows: bytes, count: int, split: int = 0) -> None:
        """Append whole rows, each ending in a line feed, cutting them where a segment is full."""
        while rows:
            part = self._rows[-1] if self._rows and self._rows[-1].split == split else self._new_rows(split)
            room = self._limit - part.file.nbytes
            if len(rows) <= room:
                part.write(rows, count)
                return
            cut = rows.rfind(b"\n", 0, max(int(room), 0)) + 1
            if cut == 0 and part.file.nbytes == 0:
                cut = rows.find(b"\n") + 1  # one row longer than a segment may be
            fitting = rows.count(b"\n", 0, cut)
            part.write(rows[:cut], fitting)
            rows, count = rows[cut:], count - fitting
            if rows:
                self._new_rows(split)

    def write_refused(self, lines: Sequence[RefusedLine]) -> None:
        """Append refused lines to their list, while it is not full."""
        if self._most_refused is not None:
            lines = lines[: self._most_refused - (self._refused.rows if self._refused else 0)]
        if lines:
            if self._refused is None:
                self._refused = _Part(HashedFile(self._folder / f"{self._name}.refused"), 0)
            self._refused.write(_encoder.encode_lines(lines), len(lines))

    def mark(self) -> Any:
        """Return what was written so far, to go back to."""
        parts = [*self._rows, *filter(None, [self._refused])]
        return len(self._rows), self._refused, [(part, part.rows, part.file.mark()) for part in parts]

    def go_back(self, mark: Any) -> None:
        """Forget what was written since a mark: of a shard that turned out damaged."""
        count, refused, parts = mark
        known = {id(part) for part, _, _ in parts}
        for part in filter(None, [*self._rows[count:], self._refused]):
            if id(part) not in known:
                part.file.close(flush=False)
                remove(part.file.path)
        self._rows, self._refused = self._rows[:count], refused
        for part, rows, at in parts:
            part.rows = rows
            part.file.go_back(at)

    def finish(self) -> tuple[list[Segment], Segment | None]:
        """Close the files, and say what they hold."""
        segments = [part.finish(flush=self._limit < math.inf) for part in self._rows]
        return segments, self._refused.finish(flush=False) if self._refused else None

    def _new_rows(self, split: int) -> _Part:
        name = f"{self._name}.{len(self._rows):03}.rows"
        if self._rows:
            self._rows[-1].file.close(
                flush=self._limit < math.inf
            )  # a span may have more segments than a process may hold open
        self._rows.append(_Part(HashedFile(self._folder / name), split))
        return self._rows[-1]


class _Part:
    def __init__(self, file: HashedFile, split: int) -> None:
        self.file = file
        self.split = split
        self.rows = 0

    def write(self, data: bytes, rows: int) -> None:
        self.file.write(data)
        self.rows += rows

    def finish(self, *, flush: bool) -> Segment:
        self.file.close(flush=flush)
        return Segment(os.path.basename(self.file.path), self.rows, self.file.nbytes, self.file.sha256, self.split)
