"""Check whole files of rows, in parallel, a chunk at once."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from operator import attrgetter

from fastsft.checks.rendering import ChatTemplate, check_template, template_at
from fastsft.checks.rules import UNRENDERABLE, Found, findings_of, is_pair, row_in, schemas_of
from fastsft.checks.total import MOST_EXAMPLES, NUMBERS, Checked, CheckReport, Schema, Total
from fastsft.encoding import is_utf8, one_line_each
from fastsft.errors import DamagedShard, FailedRun, UsageError
from fastsft.lines import BOM, line_starts, lines_in
from fastsft.memory import no_garbage_collection
from fastsft.options import Options
from fastsft.report import Progress
from fastsft.shards import Chunk, chunks_of, find_shards, printable
from fastsft.workers import Workers, jobs_for

_SHOWN_CHARACTERS = 200  # of what was found
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
    work = partial(_check_chunk, options=options, template=template, max_tokens=max_tokens)
    total = Total(shards)
    nbytes, done = sum(shard.nbytes for shard in shards), 0
    with Workers(jobs_for(shards, options)) as workers:
        for checked in workers.in_order(work, chunks_of(shards, options.chunk_nbytes), attrgetter("nbytes")):
            if checked.problem:
                raise FailedRun(checked.problem)
            total.add(checked)
            done += checked.chunk.stop - checked.chunk.start
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
def _check_chunk(
    index: int, chunk: Chunk, *, options: Options, template: str | None, max_tokens: int | None
) -> Checked:
    checked = Checked(chunk)
    check = _ChunkCheck(checked, template_at(template) if template is not None else None, max_tokens)
    try:
        for lines in lines_in(chunk, nbytes=options.chunk_nbytes, max_line=options.max_line_nbytes):
            if chunk.start == 0 and lines.offset == len(BOM):
                check.note("bad_json", "a byte order mark at the beginning")
            # What is not UTF-8 cannot be searched at once: each line that decodes is looked at.
            has_line_ends = not is_utf8(lines.data) or one_line_each(lines.data) != lines.data
            for start, after in pairwise(line_starts(lines.data)):
                check.line(lines.data[start : after - 1], has_line_ends=has_line_ends)
                checked.lines += 1
            if lines.too_long_nbytes is not None:
                check.note("bad_json", f"a line of {lines.too_long_nbytes:,} bytes")
                checked.lines += 1
    except DamagedShard as damaged:
        checked.problem = str(damaged)
    check.finish()
    return checked


class _ChunkCheck:
    """Fills in what a chunk gives, line by line."""

    def __init__(self, checked: Checked, template: ChatTemplate | None, max_tokens: int | None) -> None:
        self._checked = checked
        self._template = template
        self._max_tokens = max_tokens
        self._numbers: list[tuple[int, ...]] = []  # of each row, as `NUMBERS` names them
        self._shapes: Counter[tuple[str, type, tuple[tuple[str, type], ...]]] = Counter()

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
            self._numbers.append((self._checked.lines, identity, len(line), turns, tokens, is_pair(row)))
        if found:
            first_of_each = {one.kind: one.detail for one in reversed(found)}
            for kind, detail in first_of_each.items():
                self.note(kind, detail)

    def note(self, kind: str, detail: str) -> None:
        """Count a finding of the line at hand, and keep it if it is among the first."""
        checked = self._checked
        checked.counts[kind] = checked.counts.get(kind, 0) + 1
        examples = checked.found.setdefault(kind, [])
        if len(examples) < MOST_EXAMPLES:
            examples.append((checked.lines, detail[:_SHOWN_CHARACTERS]))

    def finish(self) -> None:
        """Put what was collected into the arrays and schemas that go to the parent."""
        for name, numbers in zip(NUMBERS, zip(*self._numbers, strict=True), strict=bool(self._numbers)):
            self._checked.columns[name].extend(numbers)
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
