"""What the spans of a check gave, added up: findings with examples, duplicates, mixed schemas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastsft.checks.checked import MOST_EXAMPLES, Checked, Schema, Sides
from fastsft.checks.kinds import KINDS
from fastsft.checks.report import Example, Finding
from fastsft.checks.trainer_rules import is_fault, is_told
from fastsft.inputs.shards import Shard, printable
from fastsft.trainers.trainer import Trainer

if TYPE_CHECKING:
    from fastsft.checks.parts import Duplicates


_FEW_PAIRS = 10  # of which more say nothing
_MOST_LONGER = 2 / 3  # of the pairs whose sides differ in length: a coin shows as many in 1 of 1,000 throws of 100
_MUCH_LONGER = 1.1
_EVEN = 4 / 3  # TRL's advice for KTO


class Total:
    """What all spans together gave.

    Attributes:
        rows: How many lines are rows.
        hashes: The files of the rows' hashes: the name, the rows, the index of the first file of rows in it, and how
            many lines of that stand before it.
        lengths: The files of the rows' lengths.
        sides: What there is of pairs of sides.
    """

    def __init__(self, shards: Sequence[Shard], trainer: Trainer | None = None) -> None:
        self._trainer = trainer
        self._paths = [printable(shard.path) for shard in shards]
        self._kinds_of_files = ["parquet" if shard.compression == "parquet" else "jsonl" for shard in shards]
        self._lines_before = [0] * len(shards)
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[Example]] = {}
        self._schemas: dict[str, Schema] = {}
        self._kinds: dict[int, dict[str, list[int]]] = {}  # by file and kind: rows, and the line of the first
        self.sides = Sides()
        self.hashes: list[tuple[str, int, int, int]] = []
        self.lengths: list[str] = []
        self.rows = 0

    @property
    def lines(self) -> int:
        """Lines so far."""
        return sum(self._lines_before)

    def means(self) -> dict[str, float]:
        """Return how long the sides of pairs are on average, in bytes, and the share whose chosen side is longer."""
        sides = self.sides
        if not sides.pairs:
            return {}
        totals = {"chosen": sides.chosen_nbytes, "rejected": sides.rejected_nbytes, "longer": sides.longer}
        return {"pairs": sides.pairs} | {name: round(total / sides.pairs, 4) for name, total in totals.items()}

    def add(self, checked: Checked) -> None:
        """Add what a span gave, the next of the input."""
        first = checked.ranges[0][0]
        before = self._lines_before[first]
        self.rows += checked.rows
        for kind, count in checked.counts.items():
            self._counts[kind] = self._counts.get(kind, 0) + count
            examples = self._examples.setdefault(kind, [])
            for shard_index, line, detail in checked.found[kind][: MOST_EXAMPLES - len(examples)]:
                at = line + 1 + (before if shard_index == first else 0)
                examples.append(Example(self._paths[shard_index], at, detail))
        if checked.hashes is not None and checked.lengths is not None:
            self.hashes.append((checked.hashes, checked.rows, first, before))
            self.lengths.append(checked.lengths)
        self.sides += checked.sides
        for shard_index, kind_of_rows, rows, line in checked.kinds:
            kinds = self._kinds.setdefault(shard_index, {})
            kinds.setdefault(kind_of_rows, [0, line + 1 + (before if shard_index == first else 0)])[0] += rows
        for where, schema in checked.schemas.items():
            total = self._schemas.setdefault(where, Schema())
            total.types |= schema.types
            total.objects += schema.objects
            for key, count in schema.keys.items():
                total.keys[key] = total.keys.get(key, 0) + count
                total.key_types.setdefault(key, set()).update(schema.key_types[key])
        for shard_index, lines in checked.ranges:
            self._lines_before[shard_index] += lines

    def findings(self, duplicates: Sequence[Duplicates]) -> tuple[list[Finding], list[Finding]]:
        """Return what was found, faults and notes apart, the most frequent first; of duplicates, workers tell."""
        self._add_duplicates(duplicates)
        self._find_odd_files()
        self._find_mixed_schemas()
        self._find_bias()
        found = sorted(self._counts, key=lambda kind: (-self._counts[kind], kind))
        told = [
            Finding(kind, self._counts[kind], KINDS[kind].meaning, KINDS[kind].fix, self._examples[kind])
            for kind in found
            if is_told(kind, self._trainer)
        ]
        faults = [one for one in told if is_fault(one.kind, self._trainer)]
        return faults, [one for one in told if not is_fault(one.kind, self._trainer)]

    def _add_duplicates(self, shares: Sequence[Duplicates]) -> None:
        count = sum(share.rows for share in shares)
        if count:
            self._counts["duplicate"] = count
            first = sorted(example for share in shares for example in share.first)[:MOST_EXAMPLES]
            self._examples["duplicate"] = [
                Example(self._paths[shard_index], line, f"as {self._paths[first_shard_index]}:{first_line}")
                for _, shard_index, line, first_shard_index, first_line in first
            ]

    def _find_odd_files(self) -> None:
        """Find files without rows, of another kind than the trainer reads, and of two kinds of rows.

        Of the latter with the first row that is of the rarer kind.
        """
        for shard_index, (path, kind) in enumerate(zip(self._paths, self._kinds_of_files, strict=True)):
            if self._trainer is not None and kind not in self._trainer.file:
                self._add("file_kind", 1, path, 0)
            if shard_index not in self._kinds:
                self._add("no_rows", 1, path, 0)
        for shard_index, kinds in sorted(self._kinds.items()):
            if len(kinds) > 1:
                rows, line = min(kinds.values(), key=lambda kind: (kind[0], -kind[1]))
                self._add("mixed_rows", rows, self._paths[shard_index], line)

    def _add(self, kind: str, rows: int, file: str, line: int) -> None:
        self._counts[kind] = self._counts.get(kind, 0) + rows
        examples = self._examples.setdefault(kind, [])
        if len(examples) < MOST_EXAMPLES:
            examples.append(Example(file, line, ""))

    def _find_bias(self) -> None:
        """Find what all pairs together teach beside what each says: to be longer, or to be good or bad at all."""
        sides = self.sides
        if sides.pairs >= _FEW_PAIRS and sides.longer >= _MOST_LONGER * (sides.longer + sides.shorter):
            chosen, rejected = (round(n / sides.pairs) for n in (sides.chosen_nbytes, sides.rejected_nbytes))
            if chosen >= _MUCH_LONGER * rejected:
                share = sides.longer / sides.pairs
                told = f"{chosen:,} bytes on average, rejected {rejected:,}; chosen is longer in {share:.0%}"
                self._counts["longer_chosen"] = sides.longer
                self._examples["longer_chosen"] = [Example("", 0, f"chosen {told}")]
        if max(sides.good, sides.bad) > _EVEN * min(sides.good, sides.bad):
            self._counts["uneven_labels"] = sides.good + sides.bad
            self._examples["uneven_labels"] = [Example("", 0, f"true {sides.good:,}, false {sides.bad:,}")]

    def _find_mixed_schemas(self) -> None:
        examples = []
        for shard_index, schema in sorted(self._schemas.items()):
            types = schema.types - {"NoneType"}
            missing = [key for key, count in schema.keys.items() if count < schema.objects]
            mixed = [key for key, kinds in schema.key_types.items() if len(kinds - {"NoneType"}) > 1]
            if len(types) > 1:
                examples.append(Example("", 0, f"{shard_index} are of the types {', '.join(sorted(types))}"))
            elif mixed:
                examples.append(Example("", 0, f"{shard_index}: {mixed[0]} has values of different types"))
            elif missing:
                examples.append(
                    Example("", 0, f"{shard_index}: {len(missing)} keys that some have and others have not")
                )
        if examples:
            self._counts["mixed_schemas"] = self.rows
            self._examples["mixed_schemas"] = examples[:MOST_EXAMPLES]
