"""Colour where a terminal has it, through rich, which is imported there alone: it takes 0.01 s.

What is painted is escaped before: the escape characters of a style are the only ones that are printed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import IO, TypeAlias

Paint: TypeAlias = Callable[[str, str], str]  # takes a text and a style, as "bold red"


def has_colour(stream: IO[str] | None) -> bool:
    """Tell whether a stream is a terminal that shows colour, and nobody has set NO_COLOR (https://no-color.org)."""
    if stream is None or os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") in ("", "dumb", "unknown"):
        return False
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def paint_for(stream: IO[str] | None) -> Paint:
    """Return what puts a style on a text for a stream, or leaves it as it is where the stream has no colour."""
    if not has_colour(stream):
        return plain
    try:
        from rich.color import ColorSystem
        from rich.style import Style
    except ImportError:  # typer brings it, but its slim form does not
        return plain

    def painted(text: str, style: str) -> str:
        return Style.parse(style).render(text, color_system=ColorSystem.STANDARD)

    return painted


def plain(text: str, style: str) -> str:
    """Leave a text as it is."""
    return text
