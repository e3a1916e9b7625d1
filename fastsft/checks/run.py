"""Check whole files of rows, span by span, in parallel."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from pathlib import Path

from fastsft.checks.checked import MOST_EXAMPLES, Checked, Schema
from fastsft.checks.rendering import ChatTemplate, check_template, template_at
from fastsft.checks.report import CheckReport
from fastsft.checks.rules import UNRENDERABLE, Found, findings_of, is_pair, row_in, schemas_of
from fastsft.encoding import is_utf8, one_line_each
from fastsft.errors import DamagedShard, FailedRun, UsageError
from fastsft.lines import BOM, line_starts, lines_in
from fastsft.memory import no_garbage_collection
from fastsft.options import Options
from fastsft.report import Progress
from fastsft.shards import Span, find_shards, printable, spans_of
from fastsft.workers import Workers, jobs_for

_SHOWN_CHARACTERS = 200  # of what was found
_READ_NBYTES = 1024 * 1024  # at a time
_COLUMNS = ("place", "line", "hash", "nbytes", "turns", "tokens", "pair")  # what is kept of each row
_MOST_KEYS = 2000  # of one place in a row that are told apart


def check_rows(
    inputs: Iterable[str | os.PathLike[str]],
    *,
    template: str | None = None,
    max_tokens: int | None = None,
    jobs: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> CheckReport:
    """Check files of rows, and tell what would keep them from training.

    Raises:
        UsageError: The arguments are wrong; nothing was read.
        FailedRun: A file could not be read to its end.
    """
    options = Options(jobs=jobs)
    shards, skipped = find_shards(inputs)
    if max_tokens is not None and max_tokens < 1:
        raise UsageError(f"the most tokens must be at least 1, not {max_tokens}")
    if template is not None:
        check_template(template, counting=max_tokens is not None)
    elif max_tokens is not None:
        raise UsageError("--max-tokens needs a tokenizer: name its folder with --template")
    spans = spans_of(shards, options.span_nbytes)
    nbytes, done = sum(shard.nbytes for shard in shards), 0
    with contextlib.ExitStack() as stack:
        workers = stack.enter_context(Workers(jobs_for(shards, spans, options)))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fastsft-", ignore_cleanup_errors=True))
        from fastsft.checks.total import Total  # Polars: not before the workers are forked

        total = Total(shards, Path(folder))
        work = partial(_check_span, folder=folder, options=options, template=template, max_tokens=max_tokens)
        for span, checked in zip(spans, workers.in_order(work, spans), strict=True):
            if checked.problem:
                raise FailedRun(checked.problem)
            total.add(checked)
            done += span.nbytes
            if on_progress:
                on_progress(Progress(done, nbytes, total.rows))
        findings, notes = total.findings()
        return CheckReport(
            files=len(shards),
            nbytes=nbytes,
            rows=total.rows,
            lines=total.lines,
            findings=findings,
            notes=notes,
            lengths=total.lengths(),
            at_least=total.at_least(),
            skipped=list(map(printable, skipped)),
        )


@no_garbage_collection()
def _check_span(
    index: int, span: Span, *, folder: str, options: Options, template: str | None, max_tokens: int | None
) -> Checked:
    checked = Checked()
    check = _SpanCheck(checked, template_at(template) if template is not None else None, max_tokens)
    for one in span.ranges:
        check.begin(one.shard.place)
        try:
            for lines in lines_in(one, nbytes=_READ_NBYTES, max_line=options.max_line_nbytes):
                if one.start == 0 and lines.offset == len(BOM):
                    check.note("bad_json", "a byte order mark at the beginning")
                # What is not UTF-8 cannot be searched at once: each line that decodes is looked at.
                has_line_ends = not is_utf8(lines.data) or one_line_each(lines.data) != lines.data
                for start, after in pairwise(line_starts(lines.data)):
                    check.line(lines.data[start : after - 1], has_line_ends=has_line_ends)
                if lines.too_long_nbytes is not None:
                    check.note("bad_json", f"a line of {lines.too_long_nbytes:,} bytes")
                    check.lines += 1
        except DamagedShard as damaged:
            checked.problem = str(damaged)
        checked.ranges.append((one.shard.place, check.lines))
    check.finish(Path(folder, f"check-{index:06}.{secrets.token_hex(4)}.arrow"))
    return checked


class _SpanCheck:
    """Fills in what a span gives, line by line."""

    def __init__(self, checked: Checked, template: ChatTemplate | None, max_tokens: int | None) -> None:
        self._checked = checked
        self._template = template
        self._max_tokens = max_tokens
        self._numbers: list[tuple[int, ...]] = []  # of each row, as `_COLUMNS` names them
        self._place = 0
        self.lines = 0  # of the range at hand
        self._shapes: Counter[tuple[str, type, tuple[tuple[str, type], ...]]] = Counter()

    def begin(self, place: int) -> None:
        """Begin with a range of the file at a place."""
        self._place, self.lines = place, 0

    def line(self, line: bytes, *, has_line_ends: bool) -> None:
        """Check the next line."""
        row, found = row_in(line, has_line_ends=has_line_ends)
        tokens = 0
        if row is not None:
            found += findings_of(row)
            # Objects of one shape are counted together, and taken apart at the end: 2 times as fast as key by key.
            for place, value in schemas_of(row):
                keys = tuple(zip(value, map(type, value.values()), strict=True)) if type(value) is dict else ()
                self._shapes[place, type(value), keys] += 1
            if self._template and not any(one.kind in UNRENDERABLE for one in found):
                rendering, text = self._template.findings_of(row)
                found += rendering
                if text is not None and self._template.counts_tokens:
                    tokens = self._template.tokens(text)
                    if self._max_tokens is not None and tokens > self._max_tokens:
                        found.append(Found("too_long", f"{tokens:,} tokens"))
        if row is not None and not any(one.kind == "not_a_row" for one in found):
            messages = row.get("messages")
            turns = len(messages) if isinstance(messages, list) else 2
            identity = int.from_bytes(hashlib.blake2b(line, digest_size=8).digest(), "little")
            numbers = (self.lines, identity, len(line), turns, tokens, int(is_pair(row)))
            self._numbers.append((self._place, *numbers))
        if found:
            first_of_each = {one.kind: one.detail for one in reversed(found)}
            for kind, detail in first_of_each.items():
                self.note(kind, detail)
        self.lines += 1

    def note(self, kind: str, detail: str) -> None:
        """Count a finding of the line at hand, and keep it if it is among the first."""
        checked = self._checked
        checked.counts[kind] = checked.counts.get(kind, 0) + 1
        examples = checked.found.setdefault(kind, [])
        if len(examples) < MOST_EXAMPLES:
            examples.append((self._place, self.lines, detail[:_SHOWN_CHARACTERS]))

    def finish(self, path: Path) -> None:
        """Write what is kept of each row to a file, and put the rest into the value that goes to the parent."""
        checked = self._checked
        checked.rows = len(self._numbers)
        if self._numbers:
            import polars as pl

            from fastsft.table import write_part

            write_part([pl.DataFrame(self._numbers, schema=dict.fromkeys(_COLUMNS, pl.UInt64), orient="row")], path)
            checked.columns = path.name
        for (place, kind, keys), count in self._shapes.items():
            schema = self._checked.schemas.setdefault(place, Schema())
            schema.types.add(_name_of(kind))
            if kind is dict:
                schema.objects += count
            for key, inner in keys:
                if key in schema.keys or len(schema.keys) < _MOST_KEYS:
                    schema.keys[key] = schema.keys.get(key, 0) + count
                    schema.key_types.setdefault(key, set()).add(_name_of(inner))


def _name_of(kind: type) -> str:
    return "number" if kind in (int, float) else kind.__name__
