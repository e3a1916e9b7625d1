"""`fastsft show`."""

from __future__ import annotations

from typing import Annotated, Any

from fastsft.cli.settings import with_settings
from fastsft.cli.words import argument, in_panel, print_all


@with_settings("show")
def show(
    file: Annotated[str, argument("FILE", help="A shard of rollouts or of rows.")],
    count: Annotated[int, in_panel("output", "-n", metavar="N", help="Show N lines.")] = 3,
    line: Annotated[int, in_panel("output", "--line", metavar="N", help="Begin with line N, from 1.")] = 1,
    full: Annotated[bool, in_panel("output", "--full", help="Show long texts whole.")] = False,
    **settings: Any,
) -> None:
    """Show rollouts or rows as a person reads them.

    Of each rollout it says whether it would be kept, and if not, why.
    """
    from fastsft.views.preview import shown

    print_all(shown(file, first=line, count=count, full=full, **settings))
