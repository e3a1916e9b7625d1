"""Whether a row is wanted: it is short enough, and `check` finds no fault in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastsft.checks.kinds import KINDS
from fastsft.checks.rendering import ChatTemplate, template_at
from fastsft.checks.rules import UNRENDERABLE, findings_of
from fastsft.errors import Dropped
from fastsft.options import UNTRAINABLE, Options


def row_judge(options: Options) -> Callable[[dict[str, Any]], None]:
    """Return what judges a decoded row, and raises `Dropped` where it is not wanted."""
    template = template_at(options.template) if options.template is not None else None
    most = options.max_tokens

    def judge(row: dict[str, Any]) -> None:
        if options.trainable:
            _check_trainable(row, template)
        if template is not None and most is not None:
            tokens = template.tokens_of(row)
            if tokens > most:
                raise Dropped("too_long", f"{tokens:,} tokens, more than --max-tokens allows ({most:,})")

    return judge


def _check_trainable(row: dict[str, Any], template: ChatTemplate | None) -> None:
    found = list(findings_of(row))
    if template is not None and not any(one.kind in UNRENDERABLE for one in found):
        found += template.findings_of(row)[0]
    for one in found:
        if not KINDS[one.kind].is_note:
            raise Dropped(f"{UNTRAINABLE}{one.kind}", one.detail)
