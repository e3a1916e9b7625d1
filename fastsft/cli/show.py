"""`fastsft show`."""

from __future__ import annotations

import shutil
import sys
from itertools import chain
from typing import Annotated, Any

from fastsft.cli.settings import with_settings
from fastsft.cli.words import argument, in_panel, print_all
from fastsft.errors import UsageError
from fastsft.escape import escaped
from fastsft.views.colour import paint_for
from fastsft.views.progress import ProgressLine

_COUNT = 3  # shown where nobody says how many


@with_settings(
    "show",
    template="Show what a trainer sees of each row: a tokenizer's folder, or FILE.jinja.",
    where="Show lines of which EXPR is true, SQL as in \"agent = 'math' AND calls > 0\".",
)
def show(
    inputs: Annotated[
        list[str] | None, argument("FILE...", help="Files, folders or globs of rollouts or of rows.")
    ] = None,
    count: Annotated[
        int | None, in_panel("output", "-n", metavar="N", help=f"Show N lines. [default: {_COUNT}]")
    ] = None,
    line: Annotated[int, in_panel("output", "--line", metavar="N", help="Begin with line N of the file, from 1.")] = 1,
    random: Annotated[int | None, in_panel("output", "--random", metavar="N", help="Show N lines at random.")] = None,
    reason: Annotated[
        str | None,
        in_panel("filter", metavar="REASON", help="Show lines dropped or refused for REASON, or kept."),
    ] = None,
    report: Annotated[
        str | None,
        in_panel("input", metavar="OUT", help="Judge as the run that wrote OUT did, what it read."),
    ] = None,
    rows: Annotated[bool, in_panel("output", "--rows", help="Show the row of each rollout beside it.")] = False,
    full: Annotated[bool, in_panel("output", "--full", help="Show long texts whole.")] = False,
    **settings: Any,
) -> None:
    """Find rollouts or rows, and show them as a person reads them.

    Of each rollout it says whether it would be kept, and if not, why.
    """
    from fastsft.pipeline.judged_as import judged_as
    from fastsft.pipeline.search import Search
    from fastsft.views.preview import View, shown

    if random is not None and count is not None:
        raise UsageError("--random says how many lines are shown, and so does -n; leave one of them out")
    search = Search(
        count=next((number for number in (random, count) if number is not None), _COUNT),
        first=line,
        where=settings.pop("where", None),
        reason=reason,
        at_random=random is not None,
    )
    template = settings.get("template")
    paths, options = judged_as(inputs or [], report, settings)
    if not paths:
        raise UsageError("no input: name files, folders or globs of rollouts or rows, or --report OUT")
    columns = shutil.get_terminal_size().columns
    view = View(full=full, rows=rows, template=template, columns=columns, paint=paint_for(sys.stdout))
    notes: list[str] = []
    with ProgressLine(hidden=False) as progress:
        texts = shown(paths, search, view, options, notes, on_progress=progress.show)
        first = next(texts, None)
    print_all(chain([] if first is None else [first], texts))
    for note in notes if sys.stderr else ():
        print(escaped(note), file=sys.stderr)
