"""`fastsft docs`."""

from __future__ import annotations

import sys
from importlib.resources import files
from typing import Annotated

from fastsft.cli.words import argument, print_all
from fastsft.errors import UsageError
from fastsft.views.colour import paint_for
from fastsft.views.page import page_of
from fastsft.views.terminal import columns_of

TOPICS = (
    *("options", "reasons", "choosing", "tasks", "formats", "pairs", "trainers", "report", "scale", "internals"),
    "changes",
)


def docs(
    topic: Annotated[str | None, argument("[TOPIC]", help="The page to show; none lists them.", choices=TOPICS)] = None,
) -> None:
    """Show the reference, a page for each topic.

    On a terminal a page is wrapped at its width; into a pipe or a file it goes as Markdown.
    """
    if topic is None:
        print_all(
            [*(f"{name:<11}{_page(name).splitlines()[2]}" for name in TOPICS), "", "fastsft docs TOPIC shows one."]
        )
    elif topic not in TOPICS:
        raise UsageError(f"no page {topic!r}; there are: {', '.join(TOPICS)}")
    elif sys.stdout and sys.stdout.isatty():
        print_all([page_of(_page(topic), columns_of(sys.stdout), paint_for(sys.stdout))])
    else:
        print_all([_page(topic).rstrip()])


def _page(name: str) -> str:
    return files("fastsft").joinpath("docs", f"{name}.md").read_text(encoding="utf-8")
