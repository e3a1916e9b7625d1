"""`fastsft tasks`."""

from __future__ import annotations

import sys
from typing import Annotated, Any

from fastsft.cli.convert import splits_of
from fastsft.cli.settings import with_settings
from fastsft.cli.words import Inputs, Output, Quiet, ValFraction, in_panel, published_whatever_happens, require_inputs
from fastsft.errors import UsageError
from fastsft.escape import escaped
from fastsft.views.colour import paint_for
from fastsft.views.progress import ProgressLine
from fastsft.views.summary import damaged_of, summary_of


@with_settings("tasks", reward_threshold="Count a rollout with reward >= SCORE as solving its task.")
def tasks(
    inputs: Inputs = None,
    output: Output = "",
    val: Annotated[
        str | None,
        in_panel("split", metavar="OUT", help="Send some of the tasks to OUT instead, for validation."),
    ] = None,
    val_fraction: ValFraction = None,
    quiet: Quiet = False,
    **settings: Any,
) -> None:
    """Write the tasks of a band of pass rates as task rows.

    They are for GRPO and on-policy distillation.

    Rows come from *_materialized_inputs.jsonl beside the rollouts, else from the rollouts. Exit codes as of convert.
    """
    from fastsft.api import tasks as run
    from fastsft.configs.nemo_gym import data_block_of

    paths = require_inputs(inputs)
    if not output:
        raise UsageError("no output: name a file or a folder with --output")
    with ProgressLine(hidden=quiet or settings["log"]) as line:
        report = run(paths, output, splits=splits_of(val, val_fraction, []), on_progress=line.show, **settings)
    if quiet and report.damaged and sys.stderr:
        with published_whatever_happens():
            print("\n".join(damaged_of(report)), file=sys.stderr)
    if not quiet:
        with published_whatever_happens():
            print(summary_of(report, paint_for(sys.stdout)))
            if block := data_block_of(report):
                print(f"\nNeMo RL reads them with this in its config:\n\n{escaped(block, keep=chr(10))}")
