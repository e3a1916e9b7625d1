"""`fastsft docs`."""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated

from fastsft.cli.words import argument, print_all
from fastsft.errors import UsageError

TOPICS = (
    *("options", "reasons", "choosing", "tasks", "formats", "pairs", "trainers", "report", "scale", "internals"),
    "changes",
)


def docs(
    topic: Annotated[str | None, argument("[TOPIC]", help="The page to show; none lists them.", choices=TOPICS)] = None,
) -> None:
    """Show the reference, a page for each topic."""
    if topic is None:
        print_all(f"{name:<11}{_page(name).splitlines()[2]}" for name in TOPICS)
    elif topic not in TOPICS:
        raise UsageError(f"no page {topic!r}; there are: {', '.join(TOPICS)}")
    else:
        print_all([_page(topic).rstrip()])


def _page(name: str) -> str:
    return files("fastsft").joinpath("docs", f"{name}.md").read_text(encoding="utf-8")
