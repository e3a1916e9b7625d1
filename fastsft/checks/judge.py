"""Whether a row is wanted: it is short enough, and `check` finds no fault in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from fastsft.checks.kinds import KINDS
from fastsft.checks.renderer import Renderer, renderer_at
from fastsft.checks.rendering import Rendering
from fastsft.checks.rules import UNRENDERABLE, findings_of
from fastsft.checks.trainer_rules import findings_for, is_told
from fastsft.errors import Dropped, FailedRun, Refused
from fastsft.options import UNTRAINABLE, Options
from fastsft.trainers.trainer import Trainer

_any = msgspec.json.Decoder()


def row_judge(options: Options) -> Callable[[bytes], None]:
    """Return what judges an encoded row, and raises `Dropped` where it is not wanted."""
    template, most = options.template, options.max_tokens
    trainable, trainer = options.trainable, options.target
    renderer = renderer_at(template, options.render_seconds) if template is not None else None

    def judge(row: bytes) -> None:
        rendering = Rendering()
        if trainer is not None:
            _check_readable(row, trainer)
        if trainable:
            rendering = _check_trainable(row, renderer, trainer)
        elif renderer is not None:
            rendering = _rendering(renderer, row, finds=False)
        if renderer is not None and most is not None:
            if rendering.tokens is None:
                raise Refused("not_rendered", f"the chat template raises {rendering.stops}")
            if rendering.tokens > most:
                raise Dropped("too_long", f"{rendering.tokens:,} tokens, more than --max-tokens allows ({most:,})")

    return judge


def _check_readable(encoded: bytes, trainer: Trainer) -> None:
    row: dict[str, Any] = _any.decode(encoded)
    for one in (*findings_for(row, trainer), *findings_of(row)):
        if one.kind in trainer.stops:
            raise Dropped(f"{trainer.name}:{one.kind}", one.detail)


def _check_trainable(encoded: bytes, renderer: Renderer | None, trainer: Trainer | None) -> Rendering:
    row: dict[str, Any] = _any.decode(encoded)
    found, rendering = list(findings_of(row)), Rendering()
    if renderer is not None and not any(one.kind in UNRENDERABLE for one in found):
        rendering = _rendering(renderer, encoded, finds=True)
        found += rendering.findings
    for one in found:
        if not KINDS[one.kind].is_note and is_told(one.kind, trainer):
            raise Dropped(f"{UNTRAINABLE}{one.kind}", one.detail)
    return rendering


def _rendering(renderer: Renderer, row: bytes, *, finds: bool) -> Rendering:
    rendering = renderer.render(row, finds=finds)
    if rendering.beyond:  # of a limit, which another machine may keep, so no line's fate may follow from it
        raise FailedRun(f"the template {rendering.beyond} for the row {row[:80]!r}…; nothing was published")
    return rendering
