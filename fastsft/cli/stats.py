"""`fastsft stats`."""

from __future__ import annotations

from typing import Annotated, Any

from fastsft.cli.settings import with_settings
from fastsft.cli.words import Inputs, Json, Quiet, in_panel, print_all, require_inputs
from fastsft.views.progress import ProgressLine


@with_settings("stats", reward_threshold="Count a rollout with reward >= SCORE as solving its task.")
def stats(
    inputs: Inputs = None,
    json: Json = False,
    plot: Annotated[
        str | None,
        in_panel("output", metavar="FILE", help="Draw the rewards to FILE.png or FILE.svg (needs matplotlib)."),
    ] = None,
    quiet: Quiet = False,
    **settings: Any,
) -> None:
    """Show how rewards, tasks and lengths are distributed."""
    from fastsft.api import stats as run
    from fastsft.views.plot import check_plot, draw_plot
    from fastsft.views.tables import tables_of

    paths = require_inputs(inputs)
    if plot:
        check_plot(plot, paths)
    with ProgressLine(hidden=quiet or json or settings["log"]) as line:
        found = run(paths, on_progress=line.show, **settings)
    if plot:
        draw_plot(found, plot)
    if json or not quiet:
        print_all([found.to_json().decode() if json else tables_of(found)])
