"""Check whole files of rows, in parallel, a chunk at once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

from fastsft.checks.kinds import KINDS
from fastsft.checks.rendering import ChatTemplate
from fastsft.checks.rules import findings_of, row_in, schemas_of
from fastsft.checks.total import MOST_EXAMPLES, NUMBERS, Checked, CheckReport, Schema, Total
from fastsft.errors import DamagedShard, FailedRun, UsageError
from fastsft.lines import line_starts, lines_in
from fastsft.options import Options
from fastsft.pipeline import Progress, jobs_for
from fastsft.shards import Chunk, chunks_of, find_shards, printable
from fastsft.workers import Workers

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
    if template is not None:
        counts_tokens = ChatTemplate(template).counts_tokens  # says now what is wrong with it
    if max_tokens is not None and (template is None or not counts_tokens):
        raise UsageError("--max-tokens needs a tokenizer: name its folder, with tokenizer.json in it, with --template")
    work = partial(_check_chunk, options=options, template=template, max_tokens=max_tokens)
    total = Total(shards)
    nbytes, done = sum(shard.nbytes for shard in shards), 0
    with Workers(jobs_for(shards, options)) as workers:
        for checked in workers.in_order(work, chunks_of(shards, options.chunk_nbytes)):
            if checked.problem:
                raise FailedRun(checked.problem)
            total.add(checked)
            done += checked.chunk.stop - checked.chunk.start
            if on_progress:
                on_progress(Progress(done, nbytes, total.rows))
    findings, notes = total.findings()
    return CheckReport(
        len(shards), nbytes, total.rows, total.lines, findings, notes, total.lengths(), list(map(printable, skipped))
    )


def _check_chunk(
    index: int, chunk: Chunk, *, options: Options, template: str | None, max_tokens: int | None
) -> Checked:
    checked = Checked(chunk)
    render = _template_at(template) if template is not None else None
    try:
        for lines in lines_in(chunk, nbytes=options.chunk_nbytes, max_line=options.max_line_nbytes):
            starts = line_starts(lines.data)
            for start, after in pairwise(starts):
                _check_line(checked, lines.data[start : after - 1], render, max_tokens)
                checked.lines += 1
            if lines.too_long_nbytes is not None:
                _add(checked, "bad_json", f"a line of {lines.too_long_nbytes:,} bytes")
                checked.lines += 1
    except DamagedShard as damaged:
        checked.problem = str(damaged)
    return checked


@lru_cache(maxsize=1)  # one for each process: a compiled template does not go between them
def _template_at(path: str) -> ChatTemplate:
    return ChatTemplate(path)


def _check_line(checked: Checked, line: bytes, template: ChatTemplate | None, max_tokens: int | None) -> None:
    row, found = row_in(line)
    tokens = 0
    if row is not None:
        found += findings_of(row)
        for place, value in schemas_of(row):
            _note_schema(checked.schemas, place, value)
        if template and all(KINDS[one.kind].is_note for one in found):
            rendering, text = template.findings_of(row)
            found += rendering
            tokens = template.tokens(text) if text is not None and template.counts_tokens else 0
            if max_tokens is not None and tokens > max_tokens:
                _add(checked, "too_long", f"{tokens:,} tokens")
        messages = row.get("messages")
        turns = len(messages) if isinstance(messages, list) else 2
        identity = int.from_bytes(hashlib.blake2b(line, digest_size=8).digest(), "little")
        numbers = (checked.lines, identity, len(line), turns, tokens)
        for name, number in zip(NUMBERS, numbers, strict=True):
            checked.columns[name].append(number)
    for kind, detail in {one.kind: one.detail for one in reversed(found)}.items():
        _add(checked, kind, detail)


def _add(checked: Checked, kind: str, detail: str) -> None:
    checked.counts[kind] = checked.counts.get(kind, 0) + 1
    examples = checked.found.setdefault(kind, [])
    if len(examples) < MOST_EXAMPLES:
        examples.append((checked.lines, detail))


def _note_schema(schemas: dict[str, Schema], place: str, value: Any) -> None:
    schema = schemas.setdefault(place, Schema())
    schema.types.add(_type_of(value))
    if isinstance(value, dict):
        schema.objects += 1
        for key, inner in value.items():
            if key in schema.keys or len(schema.keys) < _MOST_KEYS:
                schema.keys[key] = schema.keys.get(key, 0) + 1
                schema.key_types.setdefault(key, set()).add(_type_of(inner))


def _type_of(value: Any) -> str:
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__
