"""`fastsft stats`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fastsft.cli.settings import with_settings
from fastsft.cli.words import Inputs, print_all, require_inputs
from fastsft.views.progress import ProgressBar


@with_settings("stats", reward_threshold="Count a rollout with reward >= SCORE as solving its task.")
def stats(
    inputs: Inputs = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    plot: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw the rewards to FILE.png or FILE.svg (needs matplotlib).")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Draw no progress bar.")] = False,
    **settings: Any,
) -> None:
    """Show the distribution of rewards, tasks and lengths, before anything is converted."""
    from fastsft.api import stats as run
    from fastsft.views.plot import check_plot, draw_plot
    from fastsft.views.tables import tables_of

    paths = require_inputs(inputs)
    if plot:
        check_plot(plot, paths)
    with ProgressBar(hidden=quiet or json) as bar:
        found = run(paths, on_progress=bar.show, **settings)
    if plot:
        draw_plot(found, plot)
    print_all([found.to_json().decode() if json else tables_of(found)])
