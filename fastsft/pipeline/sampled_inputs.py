"""A bounded look at the inputs of a published run: how often its rollouts succeed, and how long they are.

An index of them is counted where there is one; else all of them, where they are small, else excerpts.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from fastsft.errors import FailedRun, UsageError
from fastsft.inputs.excerpts import excerpts_of
from fastsft.inputs.shards import Shard, find_rollouts, printable
from fastsft.options import LAYOUT_CHOICES, Options
from fastsft.report import Report
from fastsft.statistics.distribution import Success
from fastsft.storage.files import scratch_folder
from fastsft.storage.urls import is_remote

_NBYTES = 64 * 1024 * 1024  # that are scanned
_MOST_INDEXED = 2_000_000  # rollouts of an index that are counted
_WHAT = "Rewards, pass rates and recorded lengths"


class SampledInputs(msgspec.Struct):
    """What a look at the inputs of an output gave.

    Attributes:
        success: How often their rollouts succeed; None where nobody can tell.
        source: From what that was counted.
        is_all: Whether that is every rollout of the run.
        missing: What could not be read and why, as sentences.
    """

    success: Success | None = None
    source: str = ""
    is_all: bool = False
    missing: list[str] = []


def sample_inputs(report: Report, written_ns: int) -> SampledInputs:
    """Count what is still as it was when the report was written, at a time in nanoseconds."""
    sampled = SampledInputs()
    paths = _unchanged(report, written_ns, sampled.missing)
    if not paths:
        return sampled
    try:
        with scratch_folder() as folder:
            _count(sampled, find_rollouts(paths)[0], report, folder)
        sampled.is_all = sampled.is_all and len(paths) == len(report.inputs) - len(report.damaged)
    except (FailedRun, UsageError) as error:
        sampled.missing.append(f"{_WHAT}: {printable(error.problem)}.")
    return sampled


def _count(sampled: SampledInputs, shards: list[Shard], report: Report, folder: Path) -> None:
    from fastsft.pipeline.statistics import success_of  # Polars
    from fastsft.selection.index_file import index_for

    options = _options_of(report)
    if index := index_for(None, shards, options, []):
        sampled.success = success_of(shards, options, index, most=_MOST_INDEXED)
        sampled.source, sampled.is_all = "an index", index.rows <= _MOST_INDEXED
        return
    excerpts = excerpts_of(shards, folder, nbytes=_NBYTES)
    sampled.missing += [f"Some inputs: {printable(one.problem)}." for one in excerpts if one.problem]
    scanned, _ = find_rollouts([one.path for one in excerpts])
    sampled.success = success_of(scanned, options, None, most=_MOST_INDEXED)
    sampled.is_all = all(one.is_whole for one in excerpts) and len(excerpts) == len(shards)
    sampled.source = "the inputs" if sampled.is_all else "excerpts of the inputs"


def _unchanged(report: Report, written_ns: int, missing: list[str]) -> list[str]:
    """Find the inputs that are there, as large as they were, and not modified since the report was written."""
    there: list[str] = []
    gone: list[str] = []
    for entry in report.inputs:
        if entry.problem is not None:
            continue
        try:
            state = None if is_remote(entry.path) else os.stat(entry.path)
        except (OSError, ValueError):
            state = None
        is_same = state is not None and state.st_size == entry.nbytes and state.st_mtime_ns <= written_ns
        (there if is_same else gone).append(entry.path)
    if gone:
        missing.append(
            f"{_WHAT}{', in part' if there else ''}: {len(gone):,} of {len(report.inputs):,} inputs cannot be found "
            f"from here or have changed, as {gone[0]}."
        )
    return there


def _options_of(report: Report) -> Options:
    """Return the settings that tell which index fits, and what is a success."""
    said = report.options
    names = ["format", "loss", "trainer", "reward_threshold", "allow", "max_line_nbytes"]
    names += LAYOUT_CHOICES if said.get("format") == "chat" else ["tools"] if said.get("format") == "openai" else []
    known = {name: said[name] for name in names if said.get(name) is not None}
    try:
        return msgspec.convert({**known, "jobs": 1}, Options)
    except (msgspec.ValidationError, UsageError):
        return Options(jobs=1)
