"""Check whole files of rows, span by span, in parallel."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fastsft.checks.checked import MOST_EXAMPLES, Checked, Schema
from fastsft.checks.preferences import (
    Preference,
    conversations_of,
    findings_in,
    kind_of_row,
    preference_format,
    preference_of,
    side_nbytes,
)
from fastsft.checks.renderer import Renderer, check_template, end_renderer, renderer_at
from fastsft.checks.report import CheckReport
from fastsft.checks.rules import UNRENDERABLE, Found, row_in, schemas_of
from fastsft.checks.total import Total
from fastsft.checks.trainer_rules import findings_for
from fastsft.errors import DamagedShard, FailedRun, UsageError
from fastsft.execution.memory import no_garbage_collection
from fastsft.execution.placement import LOCAL, Placement
from fastsft.execution.spans import ReportProgress, make_all
from fastsft.execution.workers import Workers
from fastsft.inputs.encoding import escape_line_separators, is_utf8
from fastsft.inputs.lines import BOM, line_starts, lines_in
from fastsft.inputs.shards import ROW_SUFFIXES, Span, expanded_nbytes, find_shards, local_paths, printable, spans_of
from fastsft.options import DEFAULT_MAX_LINE_NBYTES, DEFAULT_RENDER_SECONDS
from fastsft.outputs.publication import check_nothing_is_pending
from fastsft.report import Progress
from fastsft.storage.files import nonce_in, scratch_folder
from fastsft.trainers import TRAINERS
from fastsft.trainers.trainer import Trainer

if TYPE_CHECKING:
    from fastsft.checks.parts import Duplicates, Lengths

_SHOWN_CHARACTERS = 200  # of what was found
_ROWS_AT_ONCE = 16_000_000  # of which one worker looks for those that are there again: 0.4 GB
_READ_NBYTES = 1024 * 1024  # at a time
_LENGTHS = ("nbytes", "turns", "tokens", "side")
_encode = msgspec.json.Encoder().encode
_MOST_KEYS = 2000  # of one path in a row that are counted


def check_rows(
    inputs: Iterable[str | os.PathLike[str]],
    *,
    template: str | None = None,
    max_tokens: int | None = None,
    trainer: str | None = None,
    render_seconds: float = DEFAULT_RENDER_SECONDS,
    placement: Placement = LOCAL,
    on_progress: Callable[[Progress], None] | None = None,
) -> CheckReport:
    """Check files of rows, and tell what would keep them from training, in general or by one trainer.

    Raises:
        UsageError: The arguments are wrong; nothing was read.
        FailedRun: A file could not be read to its end.
    """
    shards, skipped = find_shards(inputs, ROW_SUFFIXES)
    if max_tokens is not None and max_tokens < 1:
        raise UsageError(f"the most tokens must be at least 1, not {max_tokens}")
    if template is not None:
        check_template(template, render_seconds, counting=max_tokens is not None)
    elif max_tokens is not None:
        raise UsageError("--max-tokens needs a tokenizer: name its folder with --template")
    check_nothing_is_pending(sorted({os.path.dirname(shard.location) for shard in shards if not shard.is_stored}))
    spans = spans_of(shards)
    nbytes, done = sum(shard.nbytes for shard in shards), 0
    with contextlib.ExitStack() as stack:
        stack.callback(end_renderer)
        workers = stack.enter_context(Workers(placement, nbytes=expanded_nbytes(shards), tasks=len(spans)))
        folder = str(stack.enter_context(scratch_folder()))
        workers.check(nonce_in(folder), local_paths(shards[:1]))
        target = TRAINERS[trainer] if trainer is not None else None
        total = Total(shards, target)
        findings_of_spans = CheckedRows(folder, template, max_tokens, render_seconds, target)

        def report_progress(span_nbytes: int, rows: int) -> None:
            if on_progress:
                so_far = Progress(done + span_nbytes, nbytes, total.rows + rows)
                on_progress(so_far.in_phase("check", ("check",), done + span_nbytes, nbytes))

        for span, checked in zip(spans, make_all(findings_of_spans, spans, workers, report_progress), strict=True):
            if checked.problem:
                raise FailedRun(checked.problem)
            total.add(checked)
            done += span.nbytes
            report_progress(0, 0)
        lengths, duplicates = _of_all_rows(total, Path(folder), workers)
        findings, notes = total.findings(duplicates)
        return CheckReport(
            files=len(shards),
            nbytes=nbytes,
            rows=total.rows,
            lines=total.lines,
            findings=findings,
            notes=notes,
            lengths=lengths.quantiles if lengths else {},
            at_least=lengths.at_least if lengths else {},
            skipped=list(map(printable, skipped)),
            sides=total.means(),
        )


def _of_all_rows(total: Total, folder: Path, workers: Workers) -> tuple[Lengths | None, list[Duplicates]]:
    """Have workers find what takes all rows."""
    if not total.rows:
        return None, []
    shares = -(-total.rows // _ROWS_AT_ONCE)
    paths = [str(folder / name) for name in total.lengths]
    parts = [(str(folder / name), rows, shard_index, before) for name, rows, shard_index, before in total.hashes]
    tasks: list[Callable[[], Any]] = [partial(_lengths_in, paths)]
    tasks += [partial(_duplicates_in, parts, share, shares) for share in range(shares)]
    lengths, *duplicates = workers.in_order(_call, tasks)
    return lengths, duplicates


def _call(_: int, task: Callable[[], Any]) -> Any:
    return task()


def _lengths_in(paths: Sequence[str]) -> Lengths:
    from fastsft.checks.parts import find_lengths  # Polars: not in the process that forks workers

    return find_lengths(paths)


def _duplicates_in(parts: Sequence[tuple[str, int, int, int]], share: int, shares: int) -> Duplicates:
    from fastsft.checks.parts import find_duplicates
    from fastsft.selection.table import TablePart

    return find_duplicates([TablePart(*part) for part in parts], share, shares)


class CheckedRows(msgspec.Struct, frozen=True):
    """What a check finds in the rows of each span.

    Attributes:
        folder: Where the files go that speak of all rows.
        template: A chat template to render each row with; None for none.
        max_tokens: Find rows of more tokens.
        render_seconds: How long the template may take for a row.
        trainer: Whose loader is to read them; None for any.
    """

    folder: str
    template: str | None
    max_tokens: int | None
    render_seconds: float
    trainer: Trainer | None = None

    @no_garbage_collection()
    def make(self, span: Span, report_progress: ReportProgress | None = None) -> Checked:
        """Check the lines of a span."""
        checked = Checked()
        renderer = renderer_at(self.template, self.render_seconds) if self.template is not None else None
        check = _SpanCheck(checked, renderer, self.max_tokens, self.trainer)
        done = 0
        for one in span.ranges:
            check.begin(one.shard.index)
            try:
                for lines in lines_in(one, nbytes=_READ_NBYTES, max_line=DEFAULT_MAX_LINE_NBYTES):
                    if one.start == 0 and lines.offset == len(BOM):
                        check.note("bad_json", "a byte order mark at the beginning")
                    # What is not UTF-8 cannot be searched at once: each line that decodes is looked at.
                    is_text = one.shard.compression != "parquet"  # which has no lines that could be split
                    has_line_ends = is_text and (
                        not is_utf8(lines.data, by_polars=True)
                        or escape_line_separators(lines.data, by_polars=True) != lines.data
                    )
                    for start, after in pairwise(line_starts(lines.data)):
                        check.line(lines.data[start : after - 1], has_line_ends=has_line_ends)
                    if lines.too_long_nbytes is not None:
                        check.note("bad_json", f"a line of {lines.too_long_nbytes:,} bytes")
                        check.lines += 1
                    if report_progress:
                        report_progress(done + min(lines.offset + len(lines.data) - one.start, one.nbytes), check.rows)
            except DamagedShard as damaged:
                checked.problem = str(damaged)
            checked.ranges.append((one.shard.index, check.lines))
            done += one.nbytes
        check.finish(Path(self.folder, f"check-{span.index:06}-{secrets.token_hex(4)}"))
        return checked


class _SpanCheck:
    """Fills in what a span gives, line by line."""

    def __init__(
        self, checked: Checked, renderer: Renderer | None, max_tokens: int | None, trainer: Trainer | None
    ) -> None:
        self._checked = checked
        self._trainer = trainer
        self._renderer = renderer
        self._max_tokens = max_tokens
        self._hashes: list[tuple[int, int, int]] = []  # of each row: index of the file, line, hash
        self._lengths: dict[str, Counter[int]] = {name: Counter() for name in _LENGTHS}
        self._kinds: dict[tuple[int, str], list[int]] = {}  # rows, and the line of the first
        self._shard_index = 0
        self.lines = 0  # of the range at hand
        self._shapes: Counter[tuple[str, type, tuple[tuple[str, type], ...]]] = Counter()

    @property
    def rows(self) -> int:
        """How many rows there are so far."""
        return len(self._hashes)

    def begin(self, shard_index: int) -> None:
        """Begin with a range of a file."""
        self._shard_index, self.lines = shard_index, 0

    def line(self, line: bytes, *, has_line_ends: bool) -> None:
        """Check the next line."""
        row, found = row_in(line, has_line_ends=has_line_ends)
        tokens = 0
        if row is not None:
            found += findings_in(row)
            if self._trainer is not None:
                found += findings_for(row, self._trainer)
            # Objects of one shape are counted together, and taken apart at the end: 2 times as fast as key by key.
            for shard_index, value in schemas_of(row):
                keys = tuple(zip(value, map(type, value.values()), strict=True)) if type(value) is dict else ()
                self._shapes[shard_index, type(value), keys] += 1
            if self._renderer and not any(one.kind in UNRENDERABLE for one in found):
                for name, conversation in self._conversations_in(row, line):
                    count = self._render(conversation, found, name)
                    tokens = max(tokens, count)
        kind = None if row is None or any(one.kind == "not_a_row" for one in found) else kind_of_row(row)
        if kind is not None:
            turns, side = self._turns_and_side_in(row)
            content = line if "metadata" not in row else _encode({**row, "metadata": None})  # of where it comes from
            identity = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
            self._hashes.append((self._shard_index, self.lines, identity))
            for name, length in zip(_LENGTHS, (len(line), turns, tokens, side), strict=True):
                self._lengths[name][length] += 1
            self._kinds.setdefault((self._shard_index, kind), [0, self.lines])[0] += 1
        if found:
            first_of_each = {one.kind: one.detail for one in reversed(found)}
            for kind, detail in first_of_each.items():
                self.note(kind, detail)
        self.lines += 1

    def _conversations_in(self, row: dict[str, Any], line: bytes) -> list[tuple[str, bytes]]:
        """Return what a template renders of a row, by names: the row itself, or each side behind its context."""
        read = preference_of(row) if preference_format(row) else None
        return conversations_of(read) if isinstance(read, Preference) else [("", line)]

    def _render(self, conversation: bytes, found: list[Found], name: str) -> int:
        """Render a conversation, add what is found to what was, and return its tokens; 0 where nobody counts."""
        assert self._renderer is not None
        side = f"{name}: " if name else ""
        rendering = self._renderer.render(conversation, finds=True)
        found += [Found(one.kind, f"{side}{one.detail}") for one in rendering.findings]
        tokens = rendering.tokens or 0
        if rendering.beyond:
            found.append(Found("template_stops", f"{side}it {rendering.beyond}"))
        if self._max_tokens is not None and tokens > self._max_tokens:
            found.append(Found("too_long", f"{side}{tokens:,} tokens"))
        return tokens

    def _turns_and_side_in(self, row: dict[str, Any]) -> tuple[int, int]:
        """Count the turns of a row, and the bytes of its longer side behind its context; 0 where it has no sides."""
        if preference_format(row) is None:
            messages = row.get("messages")
            return len(messages) if isinstance(messages, list) else 2, 0
        read = preference_of(row)
        if isinstance(read, Found):
            return 0, 0
        sides, lengths = self._checked.sides, side_nbytes(read)
        if read.label is not None:
            sides.good += read.label
            sides.bad += not read.label
        else:
            sides.pairs += 1
            sides.chosen_nbytes += lengths[0]
            sides.rejected_nbytes += lengths[1]
            sides.longer += lengths[0] > lengths[1]
            sides.shorter += lengths[0] < lengths[1]
        longest = max(len(conversation) for _, conversation in conversations_of(read))
        return len(read.context) + max(len(side) for _, side in read.sides), longest

    def note(self, kind: str, detail: str) -> None:
        """Count a finding of the line at hand, and keep it if it is among the first."""
        checked = self._checked
        checked.counts[kind] = checked.counts.get(kind, 0) + 1
        examples = checked.found.setdefault(kind, [])
        if len(examples) < MOST_EXAMPLES:
            examples.append((self._shard_index, self.lines, detail[:_SHOWN_CHARACTERS]))

    def finish(self, path: Path) -> None:
        """Write the rows' hashes and lengths to files, and put the rest into the value that goes to the parent."""
        checked = self._checked
        checked.rows = len(self._hashes)
        if self._hashes:
            from fastsft.checks.parts import write_hashes, write_lengths

            hashes, lengths = path.with_suffix(".hashes"), path.with_suffix(".lengths")
            write_hashes(self._hashes, hashes)
            for name in ("tokens", "side"):
                del self._lengths[name][0]  # of rows of which nobody counted them, and of those without sides
            write_lengths(self._lengths, lengths)
            checked.hashes, checked.lengths = hashes.name, lengths.name
        checked.kinds = [(shard_index, kind, rows, first) for (shard_index, kind), (rows, first) in self._kinds.items()]
        for (shard_index, kind, keys), count in self._shapes.items():
            schema = self._checked.schemas.setdefault(shard_index, Schema())
            schema.types.add(_name_of(kind))
            if kind is dict:
                schema.objects += count
            for key, inner in keys:
                if key in schema.keys or len(schema.keys) < _MOST_KEYS:
                    schema.keys[key] = schema.keys.get(key, 0) + count
                    schema.key_types.setdefault(key, set()).add(_name_of(inner))


def _name_of(kind: type) -> str:
    return "number" if kind in (int, float) else kind.__name__
