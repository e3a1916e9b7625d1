"""Materialized inputs, read once, after the lines are chosen and before any row is made.

Each span of them leaves the first task row of each `_ng_task_index`, and a table of where it stands. So a span of
rollouts finds its rows without reading them again, compressed or far away as they may be.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import msgspec
from msgspec import Raw

from fastsft.errors import DamagedShard, Refused
from fastsft.execution.memory import no_garbage_collection
from fastsft.execution.spans import ReportProgress, make_all
from fastsft.execution.workers import Workers
from fastsft.formats.tasks import TaskRow, task_row
from fastsft.inputs.encoding import is_utf8
from fastsft.inputs.lines import line_starts
from fastsft.inputs.shards import ByteRange, Shard, Span, spans_of
from fastsft.pipeline.staged import StagedProduct
from fastsft.rollouts.rollout import ABSENT
from fastsft.storage.files import HashedFile, new_file, open_file, read_file

_SOURCES = "sources"  # begins the name of the file in which spans look up their materialized inputs


class _Source(msgspec.Struct):
    """What a range of materialized inputs left: which shard's they are, a table, and the rows that it speaks of."""

    shard_index: int
    table: str
    rows: str


class _MadeSources(msgspec.Struct):
    """What a span of materialized inputs left, and what was wrong with their files, as sentences."""

    sources: list[_Source] = []
    problems: list[str] = []


class _Indexed(msgspec.Struct, gc=False):
    task_index: Raw = msgspec.field(name="_ng_task_index", default=ABSENT)
    agent_ref: Raw = ABSENT


_indexed = msgspec.json.Decoder(_Indexed)
_integer = msgspec.json.Decoder(int)
_sources = msgspec.json.Decoder(list[_Source])


class SourceRows(StagedProduct, frozen=True, kw_only=True):
    """The first task row of each index, of each span of materialized inputs."""

    phase: ClassVar[str] = "source"

    @no_garbage_collection()
    def make(self, span: Span, report_progress: ReportProgress | None = None) -> _MadeSources:
        """Write the rows of a span, and where each stands."""
        made = _MadeSources()
        for one in span.ranges:
            try:
                made.sources += self._make_one(one)
            except DamagedShard as damaged:
                made.problems.append(str(damaged))
        return made

    def _make_one(self, one: ByteRange) -> list[_Source]:
        from fastsft.selection.task_sources import write_task_sources

        name = f"{self.phase}-{one.shard.index:06}-{one.start}.{secrets.token_hex(4)}"
        places: dict[tuple[int, str | None], tuple[int, int, bool]] = {}
        seen: set[tuple[int, bytes]] = set()  # as they are written; what repeats them is not read any further
        with contextlib.closing(_Rows(self.path / f"{name}.rows")) as rows:
            for lines in self.blocks_in(one):
                fit = is_utf8(lines.data, by_polars=True)
                for start, after in pairwise(line_starts(lines.data)):
                    line = lines.data[start : after - 1]
                    key = _key_of(line) if fit or is_utf8(line) else None
                    if key is None or key in seen:
                        continue
                    with contextlib.suppress(Refused):  # then a rollout stands for it
                        row = task_row(line, is_rollout=False)
                        seen.add(key)
                        if (key[0], row.agent) not in places:
                            places[key[0], row.agent] = (*rows.write(row.body), row.has_seed)
        if not places:
            return []
        write_task_sources(places, self.path / f"{name}.arrow")
        return [_Source(one.shard.index, f"{name}.arrow", f"{name}.rows")]


class _Rows:
    """A new file of rows, one after another."""

    def __init__(self, path: Path) -> None:
        self._file = HashedFile(path)

    def write(self, row: bytes) -> tuple[int, int]:
        """Append a row, and return where it begins and how long it is."""
        start = self._file.nbytes
        self._file.write(row)
        return start, len(row)

    def close(self) -> None:
        """Close the file."""
        self._file.close(flush=False)


def _key_of(line: bytes) -> tuple[int, bytes] | None:
    """Return a line's index, and its agent as it is written; None without an index."""
    try:
        found = _indexed.decode(line)
        index: int = _integer.decode(found.task_index)
    except (msgspec.DecodeError, RecursionError):
        return None
    return (index, bytes(found.agent_ref)) if abs(index) < 2**63 else None


def make_sources(
    inputs: Sequence[Shard], product: SourceRows, workers: Workers, span_nbytes: int | None
) -> tuple[str, list[str]]:
    """Read materialized inputs; return the name of the file that says what they left, and what was wrong with them."""
    sources: list[_Source] = []
    problems: list[str] = []
    for made in make_all(product, spans_of(inputs, span_nbytes), workers, lambda _, __: None):
        sources += made.sources
        problems += made.problems
    name = f"{_SOURCES}.{secrets.token_hex(4)}.json"
    with new_file(product.path / name) as file:
        file.write(msgspec.json.encode(sources))
    return name, [f"{problem}; the rollouts stand for its tasks" for problem in dict.fromkeys(problems)]


def materialized_rows(
    folder: Path, sources: str, shard_index: int, indexes: Sequence[int | None], agents: Sequence[str | None]
) -> list[TaskRow | None] | None:
    """Return the row of each index and agent of a shard, or None; None for all where the shard has no such inputs.

    Args:
        folder: Where what they left lies.
        sources: The name of the file that says what that is.
        shard_index: Which of the run's shards.
        indexes: Of its rollouts.
        agents: Of its rollouts.
    """
    files = _sources_in(str(folder / sources)).get(shard_index)
    if not files:
        return None
    from fastsft.selection.task_sources import places_of

    rows: list[TaskRow | None] = []
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open_file(folder / one.rows)).fileno() for one in files]
        for place in places_of(tuple(str(folder / one.table) for one in files), indexes, agents):
            if place is None:
                rows.append(None)
            else:
                body = os.pread(opened[place.file], place.nbytes, place.offset)
                rows.append(TaskRow(body, (), (), place.agent, place.has_seed))
    return rows


@lru_cache(maxsize=1)
def _sources_in(path: str) -> dict[int, list[_Source]]:
    found: dict[int, list[_Source]] = {}
    for source in _sources.decode(read_file(path)):
        found.setdefault(source.shard_index, []).append(source)
    return found
