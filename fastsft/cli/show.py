"""`fastsft show`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fastsft.cli.settings import with_settings
from fastsft.cli.words import print_all


@with_settings("show")
def show(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A shard of rollouts or of rows.")],
    count: Annotated[int, typer.Option("-n", metavar="N", help="Show N lines.")] = 3,
    line: Annotated[int, typer.Option("--line", metavar="N", help="Begin with line N, from 1.")] = 1,
    full: Annotated[bool, typer.Option("--full", help="Show long texts whole.")] = False,
    **settings: Any,
) -> None:
    """Show some rollouts or rows as a person reads them, and why each would be kept or not."""
    from fastsft.views.preview import shown

    print_all(shown(file, first=line, count=count, full=full, **settings))
