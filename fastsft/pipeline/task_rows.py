"""Task rows of the lines that were chosen, one of each task: from materialized inputs where they lie beside."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from fastsft.errors import FailedRun, Refused
from fastsft.formats.tasks import TaskRow, task_row
from fastsft.inputs.encoding import escape_line_separators
from fastsft.inputs.lines import ChosenLines, NumberedLines
from fastsft.pipeline.judging import JudgedBlock
from fastsft.pipeline.materialized import materialized_rows
from fastsft.pipeline.two_passes import ChosenRows, LineTable, MadeRows
from fastsft.report import TaskCounts
from fastsft.rollouts.line import rollout_of
from fastsft.rollouts.rollout import Item, Rollout, comparable
from fastsft.selection import facts

_MOST_KEYS = 1000  # that are counted
_SHOWN_KEYS = 12


class TaskTable(LineTable, frozen=True, kw_only=True):
    """The table of lines, which says of each whether it has a task row."""

    def known_of_rows(self, judged: JudgedBlock) -> list[tuple[str | None, str | None, bytes | None]]:
        """Return why each rollout has no task row, in a word and in a sentence."""
        found: list[tuple[str | None, str | None, bytes | None]] = []
        for number in judged.numbers:
            try:
                task_row(judged.line(number), is_rollout=True)
                found.append((None, None, None))
            except Refused as problem:
                found.append((problem.reason, problem.problem, None))
        return found


class TaskRows(ChosenRows, frozen=True, kw_only=True):
    """The task rows of the chosen lines of each span.

    Attributes:
        sources: The name of the file that says what materialized inputs left; empty where there are none.
    """

    sources: str = ""

    def convert(self, lines: NumberedLines, chosen: ChosenLines) -> MadeRows:
        """Make task rows of chosen lines.

        Raises:
            FailedRun: A line is not the rollout that was scanned.
        """
        shard = chosen.range.shard
        rollouts = []
        for number, line in lines:
            try:
                rollouts.append(rollout_of(line))
            except Refused:
                raise FailedRun(f"{shard.path}:{number}: not the rollout that was scanned") from None
        found: list[TaskRow | None] | None = None
        if self.sources:
            indexes, agents = list(map(facts.task_index, rollouts)), list(map(facts.agent, rollouts))
            found = materialized_rows(self.path, self.sources, shard.index, indexes, agents)
        rows = EncodedTasks()
        for (number, line), rollout, row in zip(lines, rollouts, found or [None] * len(lines), strict=True):
            if row is not None:
                rows.add_materialized(row, rollout)
                continue
            try:
                rows.add_rollout(task_row(line, is_rollout=True), is_unmatched=found is not None)
            except Refused:
                raise FailedRun(f"{shard.path}:{number}: not the rollout that was scanned") from None
        return rows


class EncodedTasks:
    """Task rows, and what is counted of them."""

    def __init__(self) -> None:
        self.trimmed = 0
        self.left_out: dict[str, int] = {}
        self._rows: list[bytes] = []
        self.tasks: TaskCounts = TaskCounts(dropped={}, kept={})

    def __len__(self) -> int:
        return len(self._rows)

    def add_materialized(self, row: TaskRow, rollout: Rollout) -> None:
        """Add a row that NeMo Gym wrote before the rollout."""
        self.tasks.materialized += 1
        self.tasks.differing += not _begins_with(rollout.prompt, row.body)
        self._add(row)

    def add_rollout(self, row: TaskRow, *, is_unmatched: bool) -> None:
        """Add the row of a rollout."""
        counts = self.tasks
        counts.rollouts += 1
        counts.unmatched += is_unmatched
        for names, count in ((row.dropped, counts.dropped), (row.kept, counts.kept)):
            for name in names:
                if name in count or len(count) < _MOST_KEYS:
                    count[name] = count.get(name, 0) + 1
        self._add(row)

    def _add(self, row: TaskRow) -> None:
        self.tasks.agentless += row.agent is None
        self.tasks.seeded += row.has_seed
        self._rows.append(row.body)

    def encode(self, *, by_polars: bool) -> bytes:
        """Return them as lines of JSON, each one line to every loader; `by_polars` is for `inputs/encoding.py`."""
        return escape_line_separators(b"".join(row + b"\n" for row in self._rows), by_polars=by_polars)


class _Params(msgspec.Struct, gc=False):
    input: list[Item] | str


class _Asked(msgspec.Struct, gc=False):
    params: _Params = msgspec.field(name="responses_create_params")


_asked = msgspec.json.Decoder(_Asked)
_encode = msgspec.json.Encoder().encode


def _begins_with(prompt: list[Item], task: bytes) -> bool:
    """Tell whether a rollout's prompt begins as its task's; games add to it what the player sees first."""
    try:
        asked = _asked.decode(task).params.input
        if isinstance(asked, str):
            asked = [Item(role="user", content=Raw(_encode(asked)))]
        return not prompt or list(map(comparable, asked)) == list(map(comparable, prompt[: len(asked)]))
    except (msgspec.DecodeError, RecursionError):
        return False


def notes_of(counts: TaskCounts) -> list[str]:
    """Say in sentences what a person should know of task rows."""
    notes = []
    if counts.materialized:
        notes.append(f"task rows from *_materialized_inputs.jsonl beside the rollouts: {counts.materialized:,}")
    if counts.rollouts:
        unmatched = f", {counts.unmatched:,} of them beside one" if counts.unmatched else ""
        notes.append(
            f"task rows rebuilt from rollouts: {counts.rollouts:,}, as no *_materialized_inputs.jsonl beside them has "
            f"their index{unmatched}; check that all fields are there that the verifier reads"
        )
        if kept := _listed(counts.kept):
            notes.append(f"kept, though verification may have added them: {kept}")
    if counts.differing:
        notes.append(
            f"materialized inputs with another prompt than their rollout's: {counts.differing:,}; check that both are "
            "of the same run"
        )
    if counts.agentless:
        notes.append(f"NeMo RL stops at task rows without agent_ref.name; add it to {counts.agentless:,}")
    if counts.seeded:
        notes.append(
            f"task rows that fix a seed: {counts.seeded:,}, in metadata.extra_body (num_repeats_add_seed), with which "
            "all attempts at a task sample the same: take it out before GRPO"
        )
    return notes


def _listed(counts: dict[str, int]) -> str:
    most = sorted(counts, key=lambda name: (-counts[name], name))
    more = f" and {len(most) - _SHOWN_KEYS:,} more" if len(most) > _SHOWN_KEYS else ""
    return ", ".join(most[:_SHOWN_KEYS]) + more
