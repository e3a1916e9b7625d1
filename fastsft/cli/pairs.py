"""`fastsft pairs`."""

from __future__ import annotations

from typing import Annotated, Any

from fastsft.cli.convert import print_report, splits_of
from fastsft.cli.settings import with_settings
from fastsft.cli.words import (
    Inputs,
    MoreInputs,
    NoExample,
    Output,
    Quiet,
    Splits,
    ValFraction,
    in_panel,
    require_inputs,
)
from fastsft.errors import UsageError
from fastsft.views.progress import ProgressLine

HELPS = {
    "arguments": "For trl and kto: arguments of calls as an object, or as the JSON string that was written.\nstring",
    "reasoning": "Reasoning in a field of its turn, in think tags in front of the text, or left out.\nby the format",
    "tools": "For trl and kto: tools as a list, or as one JSON string, which no loader alters.\nstring",
    "where": "Compare lines of which EXPR is true alone, SQL as in \"agent = 'math' AND calls > 0\".",
    "max_tokens": "Compare what has at most N tokens, as recorded; rollouts without a count are compared.",
    "allow": "Compare rollouts flagged as masked, failed, unverified, ... too (several with commas), or all.",
}


@with_settings("pairs", **HELPS)
def pairs(
    inputs: Inputs = None,
    more_inputs: MoreInputs = None,
    output: Output = "",
    val: Annotated[
        str | None,
        in_panel("split", metavar="OUT", help="Send some whole tasks to OUT instead: pairs for validation."),
    ] = None,
    val_fraction: ValFraction = None,
    split: Splits = None,
    index: Annotated[
        str | None,
        in_panel("choose", metavar="FILE", help="Choose from what `fastsft index --pairs` wrote, instead of a scan."),
    ] = None,
    no_example: NoExample = False,
    quiet: Quiet = False,
    **settings: Any,
) -> None:
    """Make preference pairs: a better and a worse attempt at one task.

    Both are by one agent with the same tools. What is masked, failed or unverified is on neither side. Lines that are
    no usable rollout are refused as by `fastsft convert`, with the same exit codes.
    """
    from fastsft.api import pairs as run  # what the run needs is not loaded for --help

    paths = require_inputs([*(inputs or []), *(more_inputs or [])])
    if not output:
        raise UsageError("no output: name a file or a folder with --output")
    with ProgressLine(hidden=quiet or settings["log"]) as line:
        report = run(
            paths,
            output,
            splits=splits_of(val, val_fraction, split or []),
            index=index,
            on_progress=line.show,
            **settings,
        )
    print_report(report, quiet=quiet, no_example=no_example)
