"""What a check tells: findings and notes with examples, and lengths."""

from __future__ import annotations

import json

import msgspec


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
        lengths: Quantiles of bytes, turns and, with a tokenizer, tokens of a row; of pairs `side`, the bytes of the
            longer side behind its context, which is what `tokens` are of.
        at_least: How many rows have at least so many tokens, by powers of two; empty without a tokenizer.
        skipped: Files that were left out, and why.
        sides: Of pairs of a chosen and a rejected side how many there are (`pairs`), their mean lengths in bytes
            (`chosen`, `rejected`), and the share whose chosen side is longer (`longer`); empty without pairs.
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
    sides: dict[str, float] = {}

    def to_json(self) -> bytes:
        """Encode it for programs, in ASCII: rows may hold what steers a terminal."""
        return json.dumps(msgspec.to_builtins(self), indent=2).encode()
