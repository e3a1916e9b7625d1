"""What a page shows of an output: its report, and what a bounded look at its rows and inputs adds.

Totals are the report's. What cannot be told is said, with the reason.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from fastsft.errors import FailedRun, UsageError
from fastsft.outputs.publication import is_pending
from fastsft.outputs.published import report_at, split_target, targets_at
from fastsft.outputs.target import Target
from fastsft.pipeline.sampled_inputs import SampledInputs, sample_inputs
from fastsft.pipeline.sampled_rows import SampledRows, sample_rows
from fastsft.report import RefusedLine, Report
from fastsft.storage.files import open_file
from fastsft.storage.urls import is_remote

_REFUSED_NBYTES = 1024 * 1024  # of the list of refused lines that are read
_REFUSED_OF_EACH = 2  # lines that are shown of a reason


class Overview(msgspec.Struct):
    """What a page shows.

    Attributes:
        target: The output.
        report: What its run says of itself.
        outputs: The reports of all outputs of the run, by their names from this one; this one first.
        rows: Some of its rows, and what a check finds.
        inputs: How often its rollouts succeed.
        refused: Some of the refused lines.
        missing: What cannot be shown and why, as sentences.
    """

    target: Target
    report: Report
    outputs: dict[str, Report]
    rows: SampledRows
    inputs: SampledInputs
    refused: list[RefusedLine]
    missing: list[str]


def overview_of(target: Target, *, template: str | None, render_seconds: float) -> Overview:
    """Look at an output.

    Raises:
        UsageError: The template cannot be used.
        FailedRun: The report cannot be read, or files change while they are read.
    """
    report = report_at(target)
    report.folder, report.file = str(target.folder), target.report.name
    outputs, missing = _outputs_of(report)
    rows = sample_rows(list(outputs.values()), template=template, render_seconds=render_seconds)
    inputs = sample_inputs(report, os.stat(target.report).st_mtime_ns)
    missing += [*rows.missing, *inputs.missing]
    return Overview(target, report, outputs, rows, inputs, _refused_of(target, report, missing), missing)


def output_at(output: str | os.PathLike[str]) -> Target:
    """Find the output at a path.

    Raises:
        UsageError: There is none with a report, or one of several must be named; or it is in a store.
    """
    if is_remote(output):
        raise UsageError(f"a page is made from files, and {os.fspath(output)} is in a store: copy it here first")
    targets = targets_at(output, "nothing to show")
    for target in targets:
        if is_pending(target.staging):
            raise UsageError(f"{target.folder} is half published; `fastsft verify {target.folder}` finishes it")
    main = _main_ones(targets)
    if len(main) > 1:
        raise UsageError(
            f"{main[0].folder} holds {len(main)} outputs; name the report of one, as {main[0].report} or "
            f"{main[1].report}"
        )
    return main[0]


def _main_ones(targets: Sequence[Target]) -> Sequence[Target]:
    """Return the outputs that are no split of another one beside them."""
    if len(targets) == 1:
        return targets
    splits = {
        split_target(Path(os.path.normpath(target.folder / split.name))).report
        for target in targets
        for split in report_at(target).splits[1:]
    }
    return [target for target in targets if target.report not in splits] or targets


def _outputs_of(report: Report) -> tuple[dict[str, Report], list[str]]:
    """Read the reports of a run's splits, and say which are gone."""
    outputs, missing = {"": report}, []
    for split in report.splits[1:]:
        target = split_target(Path(report.folder) / split.name)
        try:
            outputs[split.name] = report_at(target)
            outputs[split.name].folder = str(target.folder)
        except FailedRun:
            missing.append(f"The rows of the split {split.name}: its report cannot be read.")
    return outputs, missing


def _refused_of(target: Target, report: Report, missing: list[str]) -> list[RefusedLine]:
    """Read a few of the refused lines of each reason, from the beginning of their list."""
    if report.refused_lines is None:
        return []
    try:
        with open_file(target.folder / os.path.basename(report.refused_lines)) as file:
            lines = file.read(_REFUSED_NBYTES).split(b"\n")[:-1]
        every = [msgspec.json.decode(line, type=RefusedLine) for line in lines]
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        missing.append(f"Refused lines: {report.refused_lines} cannot be read ({error}).")
        return []
    found: dict[str, list[RefusedLine]] = {}
    for one in every:
        found.setdefault(one.reason, []).append(one)
    return [one for reason in sorted(found) for one in found[reason][:_REFUSED_OF_EACH]]
