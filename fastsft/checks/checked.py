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
        kinds: How many rows of each range are of which kind, and the first of them: index of the file, kind, rows,
            line.
        sides: Of pairs of sides, and of sides with a label, how many there are and how long.
        hashes: The file of the rows' hashes; None without rows.
        lengths: The file of how many rows have which length; None without rows.
        problem: Why a file could not be read to its end.
    """

    ranges: list[tuple[int, int]] = []
    rows: int = 0
    counts: dict[str, int] = {}
    found: dict[str, list[tuple[int, int, str]]] = {}
    schemas: dict[str, Schema] = {}
    kinds: list[tuple[int, str, int, int]] = []
    sides: Sides = msgspec.field(default_factory=lambda: Sides())
    hashes: str | None = None
    lengths: str | None = None
    problem: str | None = None


class Sides(msgspec.Struct):
    """How many pairs there are, and how long their sides; how many sides have which label.

    Attributes:
        pairs: Pairs of a chosen and a rejected side.
        longer: Those whose chosen side is longer.
        shorter: Those whose chosen side is shorter.
        chosen_nbytes: Bytes of all chosen sides.
        rejected_nbytes: Bytes of all rejected sides.
        good: Sides with the label true.
        bad: Sides with the label false.
    """

    pairs: int = 0
    longer: int = 0
    shorter: int = 0
    chosen_nbytes: int = 0
    rejected_nbytes: int = 0
    good: int = 0
    bad: int = 0

    def __add__(self, other: Sides) -> Sides:
        """Add up the sides of two spans."""
        return Sides(*(getattr(self, name) + getattr(other, name) for name in self.__struct_fields__))


class Schema(msgspec.Struct):
    """What stands at one path of rows: of which types, and how many objects have which key."""

    types: set[str] = msgspec.field(default_factory=set)
    objects: int = 0
    keys: dict[str, int] = {}
    key_types: dict[str, set[str]] = {}
