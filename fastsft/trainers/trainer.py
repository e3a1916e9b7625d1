"""What is known of a trainer: the form of rows that its loader reads, what stops it, and where that was read."""

from __future__ import annotations

import msgspec

# What no loader takes, by the names of findings.
UNREADABLE = frozenset(
    "bad_json bad_number line_end repeated_key not_a_row no_rows mixed_rows "
    "unknown_role bad_content bad_call bad_arguments bad_tool columns file_kind".split()
)


class Trainer(msgspec.Struct, frozen=True, kw_only=True):
    """A trainer, as a target of `convert --for`.

    Where a setting may have several values, the first is what `--for` sets and the others are read, too.

    Attributes:
        name: What `--for` calls it.
        title: What it is called.
        source: Where all this was read or run: a package and its version, and the file that loads rows.
        format: Layouts.
        arguments: Arguments of calls.
        reasoning: Reasoning.
        tools: Tools.
        loss: Marks on turns; None for none.
        marks: The fields of a turn that hold the mark.
        media: Whose form images and videos have.
        pair: The columns of a `simple` row.
        file: Kinds of files, `jsonl` or `parquet`.
        takes_metadata: Whether a column beside those that it reads is no matter to it.
        stops: Findings at which its loader stops, or without a word leaves the row or a part of it out: such rows are
            dropped, and `check --for` calls them faults.
        loses: Findings that it reads otherwise than they are meant, without a word; `check --for` notes them.
        takes: Findings that are nothing to it, of which `check --for` says nothing.
    """

    name: str
    title: str
    source: str
    format: tuple[str, ...]
    arguments: tuple[str, ...] = ("object",)
    reasoning: tuple[str, ...] = ("field", "think", "drop")
    tools: tuple[str, ...] = ("list",)
    loss: tuple[str | None, ...] = (None,)
    marks: tuple[str, ...] = ("weight", "loss_mask")
    media: str = "chat"
    pair: tuple[str, str] = ("input", "output")
    file: tuple[str, ...] = ("jsonl",)
    takes_metadata: bool = True
    stops: frozenset[str] = UNREADABLE
    loses: frozenset[str] = frozenset()
    takes: frozenset[str] = frozenset()
