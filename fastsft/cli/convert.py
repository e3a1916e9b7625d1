"""`fastsft convert`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

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
    print_all,
    published_whatever_happens,
    require_inputs,
)
from fastsft.errors import UsageError
from fastsft.quantities import share_of
from fastsft.views.colour import paint_for
from fastsft.views.example import example_of
from fastsft.views.progress import ProgressLine
from fastsft.views.summary import damaged_of, few_rows_warning, summary_of
from fastsft.views.terminal import path_in

if TYPE_CHECKING:
    from fastsft.report import Report


@with_settings("convert")
def convert(
    inputs: Inputs = None,
    more_inputs: MoreInputs = None,
    output: Output = "",
    val: Annotated[
        str | None,
        in_panel("split", metavar="OUT", help="Send some whole tasks to OUT instead: rows for validation."),
    ] = None,
    val_fraction: ValFraction = None,
    split: Splits = None,
    index: Annotated[
        str | None,
        in_panel("choose", metavar="FILE", help="Choose from an index that `fastsft index` wrote, instead of a scan."),
    ] = None,
    no_example: NoExample = False,
    quiet: Quiet = False,
    **settings: Any,
) -> None:
    """Convert rollouts into rows, keeping the attempts worth imitating.

    Lines that are no usable rollout are refused: counted by reason, listed beside
    the output, and the run goes on. Exit codes: 0 done; 1 failed; 2 the command
    was wrong; 3 over --max-refused; 128+n signal n. Unless it is 0, nothing was published.
    """
    from fastsft.api import convert as run  # what the run needs is not loaded for --help

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


def print_report(report: Report, *, quiet: bool, no_example: bool) -> None:
    """Print what became of a run, and an example of its rows."""
    if quiet and report.damaged and sys.stderr:
        with published_whatever_happens():
            print(
                "\n".join(damaged_of(report)), file=sys.stderr
            )  # rows of whole shards are missing, which is no detail
    if report.part:
        print_all([] if quiet else [report.part])
        return
    if not quiet:
        with published_whatever_happens():
            paint = paint_for(sys.stdout)
            print(summary_of(report, paint), flush=True)  # before the warning, where both go to one file
            if sys.stderr and (warning := few_rows_warning(report)):
                print(paint_for(sys.stderr)(warning, "yellow"), file=sys.stderr)
            if report.rows and not no_example:
                print("\n" + example_of(path_in(report.folder, report.outputs[0].name), paint))


def splits_of(val: str | None, val_fraction: str | None, several: list[str]) -> dict[str, float]:
    """Read the words for splits: the share of the tasks that goes to each path.

    Raises:
        UsageError: They are none, or contradict each other.
    """
    if val_fraction is not None and not val:
        raise UsageError("--val-fraction says how much goes to --val, which is not given")
    splits = {val: share_of(val_fraction or "0.05")} if val else {}
    for text in several:
        path, _, share = text.rpartition("=")
        if not path or path in splits:
            raise UsageError(
                f"a split is another path and the share of the tasks for it, as test.jsonl=0.05, not {text!r}"
            )
        splits[path] = share_of(share)
    return splits
