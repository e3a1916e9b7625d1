"""`fastsft index`."""

from __future__ import annotations

from typing import Annotated, Any

from fastsft.cli.settings import with_settings
from fastsft.cli.words import Inputs, Quiet, in_panel, published_whatever_happens, require_inputs
from fastsft.errors import UsageError
from fastsft.views.progress import ProgressLine
from fastsft.views.summary import indexed


@with_settings("index", dedup="Hash the rows too, which convert --dedup needs.")
def index(
    inputs: Inputs = None,
    output: Annotated[
        str,
        in_panel(
            "output",
            *("--output", "-o"),
            metavar="OUT",
            help="Write the table to OUT, or into the folder OUT under a name that convert finds.",
        ),
    ] = "",
    quiet: Quiet = False,
    **settings: Any,
) -> None:
    """Write the table of lines, which convert chooses from.

    Choosing again then needs no scan: it reads the chosen lines alone.
    """
    from fastsft.api import index as run
    from fastsft.pipeline.index import index_path

    if not output:
        raise UsageError("no output: name a file or a folder with --output")
    with ProgressLine(hidden=quiet or settings["log"]) as line:
        report = run(
            require_inputs(inputs),
            output,
            on_progress=line.show,
            **settings,
        )
    if not quiet:
        with published_whatever_happens():
            print(indexed(report, index_path(output)))
