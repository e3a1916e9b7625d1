"""Rollouts or rows as a person reads them, what becomes of each and why, and what a trainer sees of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from fastsft.checks.preferences import KTO, Preference, kind_of_row, preference_of
from fastsft.checks.renderer import check_template, end_renderer, renderer_at
from fastsft.checks.rules import UNRENDERABLE, findings_of
from fastsft.escape import escaped
from fastsft.options import Options
from fastsft.pipeline.finding import find_lines
from fastsft.pipeline.judging import JudgedLine, judged_line, too_long
from fastsft.pipeline.search import FoundLine, OnProgress, Search
from fastsft.rollouts.rollout import decoded
from fastsft.views.colour import Paint, plain
from fastsft.views.loss import told_loss
from fastsft.views.side_by_side import beside
from fastsft.views.transcript import cut, message_of, told_messages, told_rollout, told_row, told_tools

_RULE_COLUMNS = 72
_any = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode


class View(msgspec.Struct, frozen=True, kw_only=True):
    """How lines are shown.

    Attributes:
        full: Whether long texts are shown whole.
        rows: Whether a rollout is shown as it was recorded, and beside it the row that it has.
        template: The chat template whose rendering of each row is shown; None for the turns.
        columns: Of the terminal.
        paint: What colours a text for it.
    """

    full: bool = False
    rows: bool = False
    template: str | None = None
    columns: int = 80
    paint: Paint = plain


def shown(
    inputs: Iterable[str],
    search: Search,
    view: View,
    options: Options,
    notes: list[str],
    on_progress: OnProgress = None,
) -> Iterator[str]:
    """Return each line that is wanted as text, escaped.

    Raises:
        UsageError: The arguments are wrong, or there is no such line.
        FailedRun: Nothing was found, or a file cannot be read.
    """
    with contextlib.ExitStack() as stack:
        stack.callback(end_renderer)
        if options.template is not None:
            check_template(options.template, options.render_seconds, counting=options.max_tokens is not None)
        if view.template is not None:
            check_template(view.template, options.render_seconds, counting=False)
        for found in find_lines(inputs, search, options, notes, on_progress):
            place = found.line.place
            where = f"{found.path}:{place.number}" if place.number else f"{found.path}, byte {place.offset:,}"
            yield f"{'─' * _RULE_COLUMNS}\n{escaped(where)}\n{_text_of(found, view, options)}"


def _text_of(found: FoundLine, view: View, options: Options) -> str:
    """Return the text of a line, escaped."""
    line = found.line
    if line.too_long_nbytes is not None:
        problem = too_long(line.too_long_nbytes, options)
        return escaped(f"refused: {problem.reason}: {problem.problem}")
    try:
        value = _any.decode(line.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = None
    kind = kind_of_row(value)
    if kind in ("conversation", "pair"):
        told = _loss_of(line.data, value, view, options) if view.template is not None else told_row(value, view.full)
        return _lines("a row", told)
    if kind is not None:
        return escaped(_text_of_sides(value, line.data, view.full), keep="\n")
    judged = judged_line(line.data, options)
    fate = found.fate or judged.fate
    if judged.rollout is None:
        return _lines(fate, [cut(line.data.decode("utf-8", "backslashreplace"), view.full)] if line.data else [])
    reward = "null" if judged.rollout.reward is None else f"{judged.rollout.reward:g}"
    return _lines(f"{fate}; reward {reward}", _told_rollout(value, judged, view, options))


def _text_of_sides(row: Any, line: bytes, full: bool) -> str:
    read = preference_of(row)
    if not isinstance(read, Preference):
        return f"{read.kind}: {read.detail}\n{cut(line.decode(), full)}"
    what = f"a {'good' if read.label else 'bad'} side" if read.format == KTO else "a pair"
    parts = [f"{what} ({read.format})", *told_tools(read.tools), *told_messages(read.context, full)]
    for name, side in read.sides:
        parts += [f"\n── {'the side' if read.format == KTO else name}", *told_messages(side, full)]
    return "\n".join(parts)


def _told_rollout(value: Any, judged: JudgedLine, view: View, options: Options) -> list[str] | str:
    assert judged.rollout is not None
    encoded = _encode(judged.row.body) if judged.row is not None else b""
    row = _any.decode(encoded) if encoded else None
    parts = []
    if view.rows:
        left = escaped("\n".join(told_rollout(value if isinstance(value, dict) else {}, view.full)), keep="\n")
        right = escaped("\n".join(told_row(row, view.full)) if row else "(it has none)", keep="\n")
        titles = ("the rollout", f"its row, {options.layout.format}")
        parts.append(beside(left, right, titles=titles, columns=view.columns))
    if view.template is not None:
        parts.append(_loss_of(encoded, row, view, options) if row else "it has no row")
    if parts:
        return "\n\n".join(parts)
    turns = map(message_of, judged.turns)
    return [*told_tools(decoded(judged.rollout.tools)), *told_messages(list(turns), view.full)]


def _loss_of(encoded: bytes, row: dict[str, Any], view: View, options: Options) -> str:
    """Return what the template makes of a row, escaped."""
    assert view.template is not None
    if faults := [one for one in findings_of(row) if one.kind in UNRENDERABLE]:
        return f"no template renders it: {faults[0].kind}: {escaped(faults[0].detail)}"
    rendering = renderer_at(view.template, options.render_seconds).cut(encoded)
    return told_loss(rendering, full=view.full, paint=view.paint)


def _lines(first: str, told: list[str] | str) -> str:
    """Put lines under the first; text is escaped already, a list is not."""
    rest = told if isinstance(told, str) else escaped("\n".join(told), keep="\n")
    return f"{escaped(first)}\n{rest}" if rest else escaped(first)
