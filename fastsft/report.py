"""What became of every line, by reason; reports add up.

The report is written beside the output as JSON. All of it but `seconds`, `version` and `notes` depends
on the inputs and the options alone.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

_SHOWN_REASONS = 3  # of a report that is shown in five lines


class Fates(msgspec.Struct):
    """How many lines met which fate: lines = kept + dropped + refused + blank.

    Attributes:
        lines: All lines, blank ones and a last one without a line feed included.
        kept: Lines that became a row.
        blank: Lines that are empty or white space.
        dropped: Good rollouts that were not wanted, by reason.
        refused: Lines that are not a usable rollout, by reason.
        trimmed: Kept lines whose row leaves out turns behind the last assistant turn.
    """

    lines: int = 0
    kept: int = 0
    blank: int = 0
    dropped: dict[str, int] = {}
    refused: dict[str, int] = {}
    trimmed: int = 0

    def __add__(self, other: Fates) -> Fates:
        """Add up two shards, or two parts of one; reasons come out in alphabetical order."""
        return Fates(
            self.lines + other.lines,
            self.kept + other.kept,
            self.blank + other.blank,
            added(self.dropped, other.dropped),
            added(self.refused, other.refused),
            self.trimmed + other.trimmed,
        )

    @property
    def all_dropped(self) -> int:
        """Lines that were dropped, for whatever reason."""
        return sum(self.dropped.values())

    @property
    def all_refused(self) -> int:
        """Lines that were refused, for whatever reason."""
        return sum(self.refused.values())

    def check(self, where: str) -> None:
        """Stop the run where a line has no fate or two: a fault of fastsft, never of its input.

        Raises:
            AssertionError: The counts do not add up.
        """
        if self.lines != self.kept + self.all_dropped + self.all_refused + self.blank:
            raise AssertionError(f"the fates of {where} do not add up, please report this: {self}")


def added(counts: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    """Add up counts by name, the names in alphabetical order."""
    return dict(sorted((Counter(counts) + Counter(more)).items()))


class RefusedLine(msgspec.Struct, gc=False):
    """One refused line, as it is recorded beside the output.

    Attributes:
        shard: The path of the input shard.
        line: Its number from 1, blank lines counted, as editors count.
        offset: Bytes before it in the shard, decompressed.
        reason: The code it is counted under.
        problem: What was expected and what was found, in one sentence.
    """

    shard: str
    line: int
    offset: int
    reason: str
    problem: str


class Progress(msgspec.Struct, frozen=True):
    """How far a run is.

    Attributes:
        nbytes: Input bytes done, of the whole run: each of two passes counts for half.
        total_nbytes: Input bytes in all.
        rows: Rows made; 0 in phases that make none.
        phase: What is done now: `scan`, `choose`, `convert`, `check`, `publish` or `upload`.
        phases: The passes over the input, in order, `phase` among them unless it reads no input.
        phase_nbytes: Bytes done in this pass, of what it reads.
        phase_total_nbytes: All that it reads; 0 for phases that are no pass.
    """

    nbytes: int
    total_nbytes: int
    rows: int
    phase: str = ""
    phases: tuple[str, ...] = ()
    phase_nbytes: int = 0
    phase_total_nbytes: int = 0

    def in_phase(self, phase: str, phases: tuple[str, ...], nbytes: int, total_nbytes: int) -> Progress:
        """Return the same of a phase."""
        return Progress(self.nbytes, self.total_nbytes, self.rows, phase, phases, nbytes, total_nbytes)


class InputShard(msgspec.Struct):
    """One file that was read: its path as found, its size on disk, and the fates of its lines.

    `problem` says why a compressed shard was refused whole: it is damaged, so none of its lines counts.
    """

    path: str
    nbytes: int
    fates: Fates
    problem: str | None = None


class SplitRows(msgspec.Struct):
    """What went to one output of a run that has several: where it is from the main one, rows, and tasks they come from.

    `tasks_elsewhere` counts the tasks that are in another split too: none, and the run proves it.
    """

    name: str
    rows: int
    tasks: int
    tasks_elsewhere: int = 0


class TaskCounts(msgspec.Struct):
    """Of task rows: where they come from, and what a person should know of them.

    Attributes:
        materialized: Rows that are lines of materialized inputs.
        rollouts: Rows that are rollouts without what the attempt added.
        unmatched: Those among them whose materialized inputs have no line with their index.
        differing: Rows whose materialized prompt is not what the rollout's begins with.
        agentless: Rows that name no agent.
        seeded: Rows that fix a seed, with which all attempts are the same.
        dropped: How many rollouts had which key that verification adds.
        kept: How many have which other key.
    """

    materialized: int = 0
    rollouts: int = 0
    unmatched: int = 0
    differing: int = 0
    agentless: int = 0
    seeded: int = 0
    dropped: dict[str, int] = {}
    kept: dict[str, int] = {}

    def __add__(self, other: TaskCounts) -> TaskCounts:
        """Add up the rows of two spans."""
        return TaskCounts(
            self.materialized + other.materialized,
            self.rollouts + other.rollouts,
            self.unmatched + other.unmatched,
            self.differing + other.differing,
            self.agentless + other.agentless,
            self.seeded + other.seeded,
            added(self.dropped, other.dropped),
            added(self.kept, other.kept),
        )


class PairCounts(msgspec.Struct):
    """What became of the kept lines of a run that compares them; characters are those of the turns that are compared.

    Attributes:
        pairs: How many rows were written.
        chosen: Lines that are the chosen side of rows alone.
        rejected: Lines that are the rejected side alone.
        both: Lines that are either in different rows.
        chosen_sides: How many rows have a chosen side.
        chosen_characters: How long these are together.
        rejected_sides: How many rows have a rejected side.
        rejected_characters: How long these are together.
        turns: In which turn of the assistant the sides of how many pairs part, by its number from 1, as text.
    """

    pairs: int = 0
    chosen: int = 0
    rejected: int = 0
    both: int = 0
    chosen_sides: int = 0
    chosen_characters: int = 0
    rejected_sides: int = 0
    rejected_characters: int = 0
    turns: dict[str, int] = {}

    @property
    def chosen_length(self) -> float:
        """The mean length of chosen sides, in characters."""
        return self.chosen_characters / max(self.chosen_sides, 1)

    @property
    def rejected_length(self) -> float:
        """The mean length of rejected sides, in characters."""
        return self.rejected_characters / max(self.rejected_sides, 1)

    def __add__(self, other: PairCounts) -> PairCounts:
        """Add up two parts of a run."""
        counts = {name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__[:-1]}
        turns = sorted(added(self.turns, other.turns).items(), key=lambda one: int(one[0]))
        return PairCounts(**counts, turns=dict(turns))


class OutputShard(msgspec.Struct):
    """One file that was written, by its name beside the report; `sha256` is of its bytes, in hexadecimal."""

    name: str
    rows: int
    nbytes: int
    sha256: str


class Card(msgspec.Struct):
    """The dataset card beside the rows: its name, its size, and the SHA-256 of its bytes, in hexadecimal."""

    name: str
    nbytes: int
    sha256: str


class Report(msgspec.Struct, kw_only=True):
    """What a run read, what it decided and what it wrote.

    Attributes:
        version: The fastsft that ran.
        options: The settings that the rows depend on, by name.
        fates: What became of all lines together.
        inputs: The same for each shard, in the order of reading.
        notes: Files that were left out or named twice, and which index was used or not, as sentences.
        splits: What went where, in a run with several outputs.
        left_out: How many rows lack something that their rollouts have: `reasoning`, `calls`, `images`, `sounds`,
            `videos`; in pairs also `tools`, `turns`, `texts`.
        tasks: Of a run that makes task rows, where they come from; None for others.
        pairs: What became of the kept lines, where they were compared; None, and not in the file, elsewhere.
        outputs: The files of rows, in order; empty where nothing was published.
        refused_lines: The name of the file beside them that lists the refused lines; None without any.
        card: The dataset card beside them; None without one.
        run: Which run in parts it is of: a fingerprint of inputs, options and version; empty for others.
        folder: Where the outputs are; not in the file.
        file: The name of the report's own file there; not in it.
        part: What one part of a run did, as a sentence, where it published nothing; not in the file.
        seconds: Wall-clock time of the run.
    """

    version: str
    options: dict[str, Any]
    fates: Fates = msgspec.field(default_factory=Fates)
    inputs: list[InputShard] = []
    notes: list[str] = []
    splits: list[SplitRows] = []
    left_out: dict[str, int] = {}
    tasks: TaskCounts | None = None
    pairs: PairCounts | None = None
    outputs: list[OutputShard] = []
    refused_lines: str | None = None
    card: Card | None = None
    run: str = ""
    folder: str = ""
    file: str = ""
    part: str = ""
    seconds: float = 0.0

    @property
    def damaged(self) -> list[InputShard]:
        """The compressed shards that were refused whole."""
        return [shard for shard in self.inputs if shard.problem]

    @property
    def rows(self) -> int:
        """Rows written, over all output files."""
        return sum(output.rows for output in self.outputs)

    @property
    def nbytes(self) -> int:
        """Bytes of rows written, over all output files."""
        return sum(output.nbytes for output in self.outputs)

    def __repr__(self) -> str:
        """Say in five lines what became of the lines, and where the rows are."""
        return "\n".join(f"{name:<8} {what}" for name, what in self._told())

    def _repr_html_(self) -> str:
        """Draw the same as a table, for notebooks."""
        cells = (f"<tr><th>{name}</th><td>{html.escape(what)}</td></tr>" for name, what in self._told())
        return f"<table>{''.join(cells)}</table>"

    def _told(self) -> list[tuple[str, str]]:
        def told(reasons: Mapping[str, int]) -> str:
            most = sorted(reasons.items(), key=lambda one: -one[1])[:_SHOWN_REASONS]
            more = ", …" if len(reasons) > len(most) else ""
            named = ", ".join(f"{reason} {count:,}" for reason, count in most)
            return f"{sum(reasons.values()):,}" + (f" ({named}{more})" if named else "")

        fates = self.fates
        return [
            ("lines", f"{fates.lines:,} of {len(self.inputs):,} shards, {fates.blank:,} blank"),
            ("kept", f"{fates.kept:,}"),
            ("dropped", told(fates.dropped)),
            ("refused", told(fates.refused)),
            (
                "written",
                f"{self.rows:,} rows, {self.nbytes:,} bytes, {len(self.outputs):,} files in {self.folder or '-'}",
            ),
        ]

    def to_json(self) -> bytes:
        """Encode the report as it is written beside the output; where that is, it need not say."""
        fields = msgspec.to_builtins(self)
        del fields["folder"], fields["file"], fields["part"]
        for name in ("card", "run", "tasks", "pairs"):
            if not fields[name]:
                del fields[name]
        return msgspec.json.format(msgspec.json.encode(fields), indent=2) + b"\n"
