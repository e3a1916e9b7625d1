"""What a span of a check gave: the value that comes back from a worker."""

from __future__ import annotations

import msgspec

MOST_EXAMPLES = 3  # of each finding


class Checked(msgspec.Struct):
    """What a span gave; its lines count from 0 at the beginning of their range.

    Attributes:
        ranges: The index of each range's file, and how many lines it has.
        rows: How many lines are rows.
        counts: How many lines have which finding.
        found: The first of each: the index of the file, the line, and what is there.
        schemas: What stands at which path of rows.
        kinds: How many rows of each range are pairs or not, and the first of them: index of the file, whether they are
            pairs, rows, line.
        hashes: The file of the rows' hashes; None without rows.
        lengths: The file of how many rows have which length; None without rows.
        problem: Why a file could not be read to its end.
    """

    ranges: list[tuple[int, int]] = []
    rows: int = 0
    counts: dict[str, int] = {}
    found: dict[str, list[tuple[int, int, str]]] = {}
    schemas: dict[str, Schema] = {}
    kinds: list[tuple[int, bool, int, int]] = []
    hashes: str | None = None
    lengths: str | None = None
    problem: str | None = None


class Schema(msgspec.Struct):
    """What stands at one path of rows: of which types, and how many objects have which key."""

    types: set[str] = msgspec.field(default_factory=set)
    objects: int = 0
    keys: dict[str, int] = {}
    key_types: dict[str, set[str]] = {}
