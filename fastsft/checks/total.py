"""What the spans of a check gave, added up: findings with examples, duplicates, mixed schemas, lengths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from fastsft.checks.checked import MOST_EXAMPLES, Checked, Schema
from fastsft.checks.kinds import KINDS
from fastsft.checks.report import Example, Finding
from fastsft.shards import Shard, printable
from fastsft.table import read_parts

QUANTILES = (0.5, 0.9, 0.95, 0.99, 1.0)


class Total:
    """What all spans together gave; parts of what is kept of each row lie in a folder."""

    def __init__(self, shards: Sequence[Shard], folder: Path) -> None:
        self._paths = [printable(shard.path) for shard in shards]
        self._folder = folder
        self._lines_before = [0] * len(shards)
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[Example]] = {}
        self._schemas: dict[str, Schema] = {}
        self._parts: list[tuple[Path, int, int]] = []
        self.rows = 0

    @property
    def lines(self) -> int:
        """Lines so far."""
        return sum(self._lines_before)

    def add(self, checked: Checked) -> None:
        """Add what a span gave, the next of the input."""
        first = checked.ranges[0][0]
        before = self._lines_before[first]
        self.rows += checked.rows
        for kind, count in checked.counts.items():
            self._counts[kind] = self._counts.get(kind, 0) + count
            examples = self._examples.setdefault(kind, [])
            for place, line, detail in checked.found[kind][: MOST_EXAMPLES - len(examples)]:
                at = line + 1 + (before if place == first else 0)
                examples.append(Example(self._paths[place], at, detail))
        if checked.columns is not None:
            self._parts.append((self._folder / checked.columns, first, before))
        for where, schema in checked.schemas.items():
            total = self._schemas.setdefault(where, Schema())
            total.types |= schema.types
            total.objects += schema.objects
            for key, count in schema.keys.items():
                total.keys[key] = total.keys.get(key, 0) + count
                total.key_types.setdefault(key, set()).update(schema.key_types[key])
        for place, lines in checked.ranges:
            self._lines_before[place] += lines

    def _read(self, *names: str) -> pl.DataFrame:
        rows = read_parts(self._parts, ["place", "line", *names]) if self._parts else None
        if rows is None:
            return pl.DataFrame(schema=dict.fromkeys(("place", "line", *names), pl.UInt64))
        return rows.with_columns(pl.all().cast(pl.UInt64)).with_columns(pl.col("line") + 1)

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
        rows = self._read("hash")
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
        rows = self._read("pair")
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
        tokens = self._read("tokens")["tokens"]
        longest = int(tokens.max() or 0)  # type: ignore[arg-type] # of an integer column
        return {1 << power: int((tokens >= 1 << power).sum()) for power in range(longest.bit_length())}

    def lengths(self) -> dict[str, dict[str, int]]:
        """Return quantiles (nearest rank) of what rows are long by."""
        lengths = {}
        for name in ("nbytes", "turns", "tokens"):
            numbers = self._read(name)[name].sort()
            numbers = numbers.filter(numbers > 0) if name == "tokens" else numbers  # those that were counted
            if len(numbers):
                places = {part: max(1, math.ceil(part * len(numbers))) - 1 for part in QUANTILES}
                lengths[name] = {str(part): int(numbers[place]) for part, place in places.items()}
        return lengths
