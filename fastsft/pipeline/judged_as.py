"""By which options lines are judged that a person looks at: those that are given, or those of a run that was."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import msgspec

from fastsft.errors import UsageError
from fastsft.inputs.shards import printable
from fastsft.options import LAYOUT_CHOICES, Options, declared, keyword_of, options_of
from fastsft.outputs.published import report_of
from fastsft.report import Report
from fastsft.storage.urls import is_remote


def judged_as(inputs: Sequence[str], output: str | None, settings: dict[str, Any]) -> tuple[list[str], Options]:
    """Return inputs and options: as given, and what is not given as the run did that wrote an output.

    `settings` are keywords of the library; a switch that is off says nothing. `template` counts where rows are judged.

    Raises:
        UsageError: The arguments are wrong, or there is no report, or an input is no longer what that run read.
        FailedRun: The report cannot be read.
    """
    report = report_of(output) if output is not None else None
    if report is not None and report.options.get("makes", "rows") != "rows":
        raise UsageError(f"{output} has the tasks of a run, and no rows: its lines are not judged as rows are")
    given = {name: value for name, value in settings.items() if value is not None and value is not False}
    if not given.keys() & {"trainable", "max_tokens"}:
        given.pop("template", None)
    before = {keyword_of(name): value for name, value in _options_of(report).items()} if report is not None else {}
    if given.keys() & {"format", "trainer"}:
        before = {name: value for name, value in before.items() if name not in ("trainer", "format", *LAYOUT_CHOICES)}
    options = options_of({**before, **given})
    if report is None or inputs:
        return list(inputs), options
    _check_inputs(report)
    return [shard.path for shard in report.inputs], options


def _options_of(report: Report) -> dict[str, Any]:
    """Return the options of a run by which it chose lines and laid out rows, but for those that say the default."""
    defaults = msgspec.to_builtins(Options())
    names = [name for name, setting in declared().items() if "show" in setting.commands]
    said = {name: report.options[name] for name in names if name in report.options}
    return {name: value for name, value in said.items() if value != defaults[name]}


def _check_inputs(report: Report) -> None:
    for shard in report.inputs:
        if is_remote(shard.path):  # whose listing says its size when it is found
            continue
        try:
            nbytes = os.stat(shard.path).st_size
        except OSError as error:
            raise UsageError(
                f"cannot read {printable(shard.path)}, which that run read: {error.strerror}; name the inputs, as they "
                "are called from here"
            ) from None
        if nbytes != shard.nbytes:
            raise UsageError(f"{shard.path} has {nbytes:,} bytes, and had {shard.nbytes:,} when that run read it")
