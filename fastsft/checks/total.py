"""What the chunks of a check gave, added up: findings with examples, duplicates, mixed schemas, lengths."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Sequence

import msgspec
import polars as pl

from fastsft.checks.kinds import KINDS
from fastsft.shards import Chunk, Shard, printable

MOST_EXAMPLES = 3  # of each finding
QUANTILES = (0.5, 0.9, 0.95, 0.99, 1.0)
NUMBERS = ("line", "hash", "nbytes", "turns", "tokens", "pair")  # what is kept of each row


class Example(msgspec.Struct):
    """Where something was found: file, line from 1, and what there."""

    file: str
    line: int
    detail: str


class Finding(msgspec.Struct):
    """One kind of finding, of all files together; `rows` counts the rows that have it."""

    kind: str
    rows: int
    meaning: str
    fix: str
    examples: list[Example]


class CheckReport(msgspec.Struct):
    """What `fastsft check` tells.

    Attributes:
        files: How many files were read.
        nbytes: Their size on disk.
        rows: Lines that are rows.
        lines: All lines.
        findings: What keeps rows from training, or teaches something else; empty where all is well.
        notes: What may matter to some trainers and templates.
        lengths: Quantiles of bytes, turns and, with a tokenizer, tokens of a row.
        at_least: How many rows have at least so many tokens, by powers of two; empty without a tokenizer.
        skipped: Files that were left out, and why.
    """

    files: int
    nbytes: int
    rows: int
    lines: int
    findings: list[Finding]
    notes: list[Finding]
    lengths: dict[str, dict[str, int]]
    at_least: dict[int, int]
    skipped: list[str]

    def to_json(self) -> bytes:
        """Encode it for programs, in ASCII: rows may hold what steers a terminal."""
        return json.dumps(msgspec.to_builtins(self), indent=2).encode()


class Checked(msgspec.Struct):
    """What a chunk gave; `found` counts lines from 0 at the chunk's first line.

    The arrays have a number for each row: its line, 64 bits of the hash of its bytes, bytes, turns, tokens (0 where
    they were not counted), and 1 for a pair of input and output.
    """

    chunk: Chunk
    lines: int = 0
    counts: dict[str, int] = {}
    found: dict[str, list[tuple[int, str]]] = {}
    columns: dict[str, array[int]] = msgspec.field(default_factory=lambda: {name: array("Q") for name in NUMBERS})
    schemas: dict[str, Schema] = {}
    problem: str | None = None


class Schema(msgspec.Struct):
    """What stands at one place of rows: of which types, and how many objects have which key."""

    types: set[str] = msgspec.field(default_factory=set)
    objects: int = 0
    keys: dict[str, int] = {}
    key_types: dict[str, set[str]] = {}


class Total:
    """What all chunks together gave."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._paths = [printable(shard.path) for shard in shards]
        self._lines_before = [0] * len(shards)
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[Example]] = {}
        self._schemas: dict[str, Schema] = {}
        self._columns = {name: array("Q") for name in ("place", *NUMBERS)}

    @property
    def rows(self) -> int:
        """Rows so far."""
        return len(self._columns["line"])

    @property
    def lines(self) -> int:
        """Lines so far."""
        return sum(self._lines_before)

    def add(self, checked: Checked) -> None:
        """Add what a chunk gave, the next of its file."""
        place = checked.chunk.shard.place
        before = self._lines_before[place]
        for kind, count in checked.counts.items():
            self._counts[kind] = self._counts.get(kind, 0) + count
            examples = self._examples.setdefault(kind, [])
            for line, detail in checked.found[kind][: MOST_EXAMPLES - len(examples)]:
                examples.append(Example(self._paths[place], before + line + 1, detail))
        self._columns["place"].extend([place] * len(checked.columns["line"]))
        self._columns["line"].extend(before + line + 1 for line in checked.columns["line"])
        for name in NUMBERS[1:]:
            self._columns[name].extend(checked.columns[name])
        for where, schema in checked.schemas.items():
            total = self._schemas.setdefault(where, Schema())
            total.types |= schema.types
            total.objects += schema.objects
            for key, count in schema.keys.items():
                total.keys[key] = total.keys.get(key, 0) + count
                total.key_types.setdefault(key, set()).update(schema.key_types[key])
        self._lines_before[place] += checked.lines

    def findings(self) -> tuple[list[Finding], list[Finding]]:
        """Give what was found, faults and notes apart, the most frequent first."""
        self._find_duplicates()
        self._find_odd_files()
        self._find_mixed_schemas()
        found = sorted(self._counts, key=lambda kind: (-self._counts[kind], kind))
        all_found = [
            Finding(kind, self._counts[kind], KINDS[kind].meaning, KINDS[kind].fix, self._examples[kind])
            for kind in found
        ]
        faults = [one for one in all_found if not KINDS[one.kind].is_note]
        return faults, [one for one in all_found if KINDS[one.kind].is_note]

    def _find_duplicates(self) -> None:
        names = ("place", "line", "hash")
        rows = pl.DataFrame({name: pl.Series(self._columns[name], dtype=pl.UInt64) for name in names})
        again = rows.filter(pl.col("hash").is_first_distinct().not_())
        if again.is_empty():
            return
        self._counts["duplicate"] = len(again)
        shown = again.head(MOST_EXAMPLES)
        first = rows.join(shown.select("hash"), on="hash", how="semi").unique("hash", keep="first", maintain_order=True)
        self._examples["duplicate"] = [
            Example(self._paths[place], line, f"as {self._paths[first_place]}:{first_line}")
            for place, line, first_place, first_line in shown.join(first, on="hash", how="left", suffix="_first")
            .select("place", "line", "place_first", "line_first")
            .rows()
        ]

    def _find_odd_files(self) -> None:
        """Find files without rows, and files of two kinds of rows, with the first row that is of the rarer kind."""
        rows = pl.DataFrame(
            {name: pl.Series(self._columns[name], dtype=pl.UInt64) for name in ("place", "line", "pair")}
        )
        for place in sorted(set(range(len(self._paths))) - set(rows["place"].unique())):
            self._add("no_rows", 1, self._paths[place], 0)
        for (place,), found in rows.partition_by("place", as_dict=True, maintain_order=True).items():
            kinds = (
                found.group_by("pair")
                .agg(pl.len(), pl.col("line").first())
                .sort("len", "line", descending=[False, True])
            )
            if len(kinds) > 1:
                self._add("mixed_rows", kinds["len"][0], self._paths[place], kinds["line"][0])

    def _add(self, kind: str, rows: int, file: str, line: int) -> None:
        self._counts[kind] = self._counts.get(kind, 0) + rows
        examples = self._examples.setdefault(kind, [])
        if len(examples) < MOST_EXAMPLES:
            examples.append(Example(file, line, ""))

    def _find_mixed_schemas(self) -> None:
        examples = []
        for place, schema in sorted(self._schemas.items()):
            types = schema.types - {"NoneType"}
            missing = [key for key, count in schema.keys.items() if count < schema.objects]
            mixed = [key for key, kinds in schema.key_types.items() if len(kinds - {"NoneType"}) > 1]
            if len(types) > 1:
                examples.append(Example("", 0, f"{place} are of the types {', '.join(sorted(types))}"))
            elif mixed:
                examples.append(Example("", 0, f"{place}: {mixed[0]} has values of different types"))
            elif missing:
                examples.append(Example("", 0, f"{place}: {len(missing)} keys that some have and others have not"))
        if examples:
            self._counts["mixed_schemas"] = self.rows
            self._examples["mixed_schemas"] = examples[:MOST_EXAMPLES]

    def at_least(self) -> dict[int, int]:
        """Count the rows of at least so many tokens, for each power of two up to the longest."""
        longest = max(self._columns["tokens"], default=0)
        tokens = pl.Series(self._columns["tokens"], dtype=pl.UInt64)
        return {1 << power: int((tokens >= 1 << power).sum()) for power in range(longest.bit_length())}

    def lengths(self) -> dict[str, dict[str, int]]:
        """Return quantiles (nearest rank) of what rows are long by."""
        lengths = {}
        for name in ("nbytes", "turns", "tokens"):
            numbers = pl.Series(self._columns[name], dtype=pl.UInt64).sort()
            numbers = numbers.filter(numbers > 0) if name == "tokens" else numbers  # those that were counted
            if len(numbers):
                places = {part: max(1, math.ceil(part * len(numbers))) - 1 for part in QUANTILES}
                lengths[name] = {str(part): int(numbers[place]) for part, place in places.items()}
        return lengths
