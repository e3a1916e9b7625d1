"""The registry of layouts: each is a pure function, rollout -> row, in a file of its own.

A new layout is one file beside these and one line below.
"""

from __future__ import annotations

from typing import Protocol

from fastsft.formats.chat import to_chat
from fastsft.formats.openai import to_openai
from fastsft.formats.row import PLAIN, Layout, Row
from fastsft.formats.simple import to_simple
from fastsft.rollouts.rollout import Rollout


class Format(Protocol):
    """A layout: it refuses what it cannot hold."""

    def __call__(self, rollout: Rollout, layout: Layout = PLAIN) -> Row:
        """Return the row of a rollout."""


FORMATS: dict[str, Format] = {
    "openai": to_openai,
    "chat": to_chat,
    "simple": to_simple,
}
# Which choices of `Layout` belong to which format.
CHOICES: dict[str, frozenset[str]] = {
    "openai": frozenset({"loss", "tools"}),
    "chat": frozenset({"arguments", "reasoning", "loss", "tools"}),
    "simple": frozenset(),
}
