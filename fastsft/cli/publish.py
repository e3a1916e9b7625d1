"""`fastsft publish`."""

from __future__ import annotations

import sys
from typing import Annotated, Any

from fastsft.cli.settings import with_settings
from fastsft.cli.words import Quiet, argument, print_all
from fastsft.views.colour import paint_for
from fastsft.views.summary import summary_of


@with_settings("publish")
def publish(
    output: Annotated[str, argument("OUT", help="The output of `convert --part`.")],
    quiet: Quiet = False,
    **settings: Any,
) -> None:
    """Publish what the parts of a run have done, with one report.

    Where lines are compared, it chooses them once all parts have scanned; then the parts are run once more.
    Exit codes: 0 published, or chosen; 1 parts are not done; 2 there is no run in parts.
    """
    from fastsft.api import publish as run

    report = run(output, **settings)
    if not quiet:
        print_all([report.part or summary_of(report, paint_for(sys.stdout))])
