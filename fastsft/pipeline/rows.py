"""Rows one by one, without an output: for whoever looks at them or trains from them in the same program."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from fastsft.errors import Dropped, Refused, UsageError
from fastsft.execution.spans import make_all
from fastsft.execution.workers import Workers
from fastsft.inputs.shards import expanded_nbytes, find_rollouts, local_paths, spans_of
from fastsft.options import Options
from fastsft.pipeline.drive import run
from fastsft.pipeline.judging import row_maker
from fastsft.pipeline.one_pass import Rows
from fastsft.rollouts.line import rollout_of
from fastsft.storage.files import nonce_in, remove, scratch_folder

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def rows_of(inputs: Iterable[str | os.PathLike[str]], options: Options) -> Iterator[dict[str, Any]]:
    """Return the rows that a run would write, in its order, as they come; lines that are compared all come first.

    Raises:
        UsageError: The arguments are wrong.
        FailedRun: An input cannot be read.
    """
    options = msgspec.structs.replace(options, file="jsonl")
    if options.part is not None or options.shards is not None or options.compress is not None:
        raise UsageError("rows that are not written have no part, no shards and no compression")
    from fastsft.selection.criteria import compares_lines

    if options.may_compare and compares_lines(options):
        yield from _rows_of_whole(inputs, options)
        return
    shards, _ = find_rollouts(inputs)
    spans = spans_of(shards, options.span_nbytes)
    with contextlib.ExitStack() as stack:
        workers = stack.enter_context(Workers(options.placement, nbytes=expanded_nbytes(shards), tasks=len(spans)))
        folder = stack.enter_context(scratch_folder())
        stack.callback(workers.end)  # before the folder goes that they write to
        workers.check(nonce_in(folder), local_paths(shards[:1]))
        for receipt in make_all(Rows(options=options, folder=str(folder)), spans, workers, _report_nothing):
            for segment in receipt.segments:
                yield from _rows_in(folder / segment.name)
                remove(folder / segment.name)


def _rows_of_whole(inputs: Iterable[str | os.PathLike[str]], options: Options) -> Iterator[dict[str, Any]]:
    with scratch_folder() as folder:
        report = run(inputs, folder / "rows.jsonl", msgspec.structs.replace(options, allow_empty=True))
        if report.outputs:
            yield from _rows_in(folder / "rows.jsonl")


def _rows_in(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as lines:
        for line in lines:
            yield _decode(line)


def _report_nothing(_: int, __: int) -> None:
    """Nobody asks how far it is."""


def row_of_rollout(rollout: Any, options: Options) -> dict[str, Any]:
    """Return the row of one rollout: a value, or an encoded line.

    Raises:
        Refused: It has none, or one that the trainer does not read; its `reason` is the report's.
    """
    line = bytes(rollout) if isinstance(rollout, (bytes, bytearray, memoryview)) else _encode(rollout)
    try:
        made = row_maker(options)(rollout_of(line))
    except Dropped as unwanted:
        raise Refused(unwanted.reason, unwanted.problem) from None
    row: dict[str, Any] = _decode(_encode(made.body))
    return row
