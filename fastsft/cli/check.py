"""`fastsft check`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fastsft.cli.settings import with_settings
from fastsft.cli.words import Json, Quiet, argument, print_all
from fastsft.errors import UsageError
from fastsft.views.progress import ProgressLine


@with_settings(
    "check",
    panel="check",
    template="Render rows with a chat template: the folder of a tokenizer, or FILE.jinja.",
    max_tokens="Find rows of more than N tokens, by the tokenizer in --template.",
)
def check(
    files: Annotated[list[str] | None, argument("FILE...", help="Files, folders or globs of rows.")] = None,
    json: Json = False,
    quiet: Quiet = False,
    **settings: Any,
) -> None:
    """Tell whether rows will train, and if not, why and what to do.

    Exit codes: 0 nothing found; 1 something found, or the check failed; 2 the command was wrong.
    """
    from fastsft.api import check as run
    from fastsft.views.findings import findings_told

    if not files:
        raise UsageError("no input: name files, folders or globs of rows")
    with ProgressLine(hidden=quiet or json or settings["log"]) as line:
        report = run(files, on_progress=line.show, **settings)
    if json or report.findings or not quiet:
        print_all([report.to_json().decode() if json else findings_told(report)])
    if report.findings:
        raise typer.Exit(1)
