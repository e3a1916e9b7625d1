"""`fastsft report`."""

from __future__ import annotations

import webbrowser
from typing import Annotated, Any

from fastsft.cli.settings import with_settings
from fastsft.cli.words import Quiet, argument, in_panel, print_all
from fastsft.errors import FailedRun
from fastsft.escape import escaped


@with_settings(
    "report",
    panel="check",
    template="Count tokens of rows, and check them, with the tokenizer in a folder, or FILE.jinja.",
)
def report(
    output: Annotated[
        str, argument("OUT", help="The file or the folder that convert wrote to, or the report of one of its outputs.")
    ],
    page: Annotated[
        str | None,
        in_panel(
            "output", "--output", "-o", metavar="FILE", help="Write the page to FILE. [default: beside the report]"
        ),
    ] = None,
    open_page: Annotated[bool, in_panel("output", "--open", help="Open it in a browser.")] = False,
    quiet: Quiet = False,
    **settings: Any,
) -> None:
    """Write an HTML page that shows an output.

    It shows what became of the lines, rewards, lengths, faults and example rows, and loads nothing from elsewhere. Of
    a large output it reads a part, and says so.
    """
    from fastsft.api import write_report

    path = write_report(output, page, **settings)
    if not quiet:
        print_all([f"Wrote {escaped(str(path))}"])
    if open_page and not webbrowser.open(path.absolute().as_uri()):
        raise FailedRun(f"no browser was found; open {path} in one")
