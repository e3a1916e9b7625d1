"""The registry of layouts: each is a pure function, rollout -> row, in a file of its own.

A new layout is one file beside these and one line below.
"""

from __future__ import annotations

from collections.abc import Callable

from fastsft.formats.openai import to_openai
from fastsft.formats.row import Row
from fastsft.formats.simple import to_simple
from fastsft.rollout import Rollout

FORMATS: dict[str, Callable[[Rollout], Row]] = {
    "openai": to_openai,
    "simple": to_simple,
}
