"""`fastsft verify`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fastsft.cli.settings import with_settings
from fastsft.cli.words import Quiet, argument, print_all
from fastsft.escape import escaped
from fastsft.views.terminal import many, size_of


@with_settings("verify")
def verify(
    output: Annotated[str, argument("OUT", help="The file or the folder that convert wrote to.")],
    quiet: Quiet = False,
    **settings: Any,
) -> None:
    """Check files of rows against the report beside them.

    It compares which files there are, and the rows, the bytes and the SHA-256 of each.

    Exit codes: 0 all is as the report says; 1 something differs; 2 there is no report.
    """
    from fastsft.api import verify as run

    found = run(output, **settings)
    lines = [] if quiet else list(map(escaped, found.notes))
    lines += [f"Differs: {escaped(difference)}" for difference in found.differences]
    if not quiet:
        so = f"{many(len(found.differences), 'difference')}." if found.differences else "All is as the report says."
        lines.append(f"Verified {many(found.files, 'file')}, {many(found.rows, 'row')}, {size_of(found.nbytes)}: {so}")
    print_all(lines)
    if found.differences:
        raise typer.Exit(1)
