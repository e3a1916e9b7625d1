"""Rows as a person reads them, each folded until it is opened."""

from __future__ import annotations

from typing import Any

import msgspec

from fastsft.checks.preferences import Preference, kind_of_row, preference_of
from fastsft.checks.rules import pair_of
from fastsft.formats.calls import ASSISTANT
from fastsft.pipeline.sampled_rows import ShownRow
from fastsft.views.html.markup import Markup, joined, plain, tag
from fastsft.views.terminal import many
from fastsft.views.transcript import media_label

_TEXT = 6_000  # characters of a text
_MESSAGES = 60  # of a row
_CALLS = 20  # of a message
_TEASER = 110  # characters
_encode = msgspec.json.Encoder(order=None).encode


def conversation_of(shown: ShownRow) -> Markup:
    """Return a row that unfolds."""
    row = shown.row
    place = shown.place
    match kind_of_row(row):
        case "conversation":
            messages = row["messages"] if isinstance(row["messages"], list) else [row["messages"]]
        case "pair" if all(isinstance(row[name], str) for name in pair_of(row) or ()):
            messages = [{"role": name, "content": row[name]} for name in pair_of(row) or ()]
        case kind if kind not in (None, "pair") and isinstance(read := preference_of(row), Preference):
            return _sides(place, read)
        case _ if isinstance(row, dict):
            return _folded(
                place, "a row", _json(row)[: 8 * _TEASER], [one for key in row for one in _field(key, row[key])]
            )
        case _:
            text = row if isinstance(row, str) else _json(row)
            return _folded(place, "no row", text, [_text(text)])
    body = [*_tools(row.get("tools")), *map(_message, messages[:_MESSAGES])]
    if len(messages) > _MESSAGES:
        body.append(tag("p", f"… {many(len(messages) - _MESSAGES, 'more turn')}", class_="more"))
    return _folded(place, many(len(messages), "turn"), _teaser(_asked(messages)), body)


def _sides(place: str, read: Preference) -> Markup:
    """Return a row of preferences: what both sides go on from, then each of them."""
    body = [*_tools(read.tools), *map(_message, read.context[:_MESSAGES])]
    label = None if read.label is None else "good" if read.label else "bad"
    for name, side in read.sides:
        body += [tag("h4", f"completion, {label}" if label else name, class_="field"), *map(_message, side[:_MESSAGES])]
    return _folded(place, f"preference, {read.format}", _teaser(_asked(read.context)), body)


def _field(key: str, value: Any) -> list[Markup]:
    """Return a field of a row of another layout: turns, a text, or JSON."""
    if isinstance(value, list) and value and all(isinstance(one, dict) and "role" in one for one in value):
        return [tag("h4", key[:80], class_="field"), *map(_message, value[:_MESSAGES])]
    if isinstance(value, str):
        return [tag("section", tag("h4", key[:80]), _text(value), class_="turn other")]
    return [_inner(key[:80], _json(value, 2), "tools")]


def _folded(place: str, what: str, teaser: str, body: list[Markup]) -> Markup:
    summary = tag(
        "summary",
        tag("span", place, class_="place"),
        tag("span", what, class_="what"),
        tag("span", " ".join(teaser[: 4 * _TEASER].split())[:_TEASER], class_="teaser", dir="auto"),
    )
    return tag("details", summary, tag("div", *body, class_="turns"), class_="row")


def _asked(messages: list[Any]) -> Any:
    """Return the content of the first turn that asks, or of the first of all."""
    said = next((one for one in messages if _role(one) in ("user", "input", "prompt")), messages[0] if messages else "")
    return said.get("content") if isinstance(said, dict) else said


def _teaser(content: Any) -> str:
    if isinstance(content, list):
        texts = [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
        return texts[0] if texts else ""
    return content if isinstance(content, str) else "" if content is None else _json(content)


def _role(message: Any) -> str:
    return str(message.get("role", ASSISTANT)) if isinstance(message, dict) else ""


def _tools(tools: Any) -> list[Markup]:
    if not tools:
        return []
    names = [_name_of_tool(tool) for tool in tools] if isinstance(tools, list) else []
    title = f"{many(len(names), 'tool')}: {', '.join(names)}" if names else "tools"
    return [_inner(title[:300], tools if isinstance(tools, str) else _json(tools, 2), "tools")]


def _name_of_tool(tool: Any) -> str:
    if not isinstance(tool, dict):
        return "?"
    function = tool.get("function")
    nested = function.get("name") if isinstance(function, dict) else None
    return str(tool.get("name") or nested or tool.get("type"))


def _message(message: Any) -> Markup:
    if not isinstance(message, dict):
        return tag("section", tag("h4", "?"), _text(_json(message)), class_="turn")
    role = _role(message)
    parts = []
    if reasoning := message.get("reasoning_content"):
        parts.append(_inner("reasoning", reasoning if isinstance(reasoning, str) else _json(reasoning), "reasoning"))
    parts += _content(message.get("content"))
    calls = message.get("tool_calls")
    calls = calls if isinstance(calls, list) else [calls] if calls else []
    parts += map(_call, calls[:_CALLS])
    if len(calls) > _CALLS:
        parts.append(tag("p", f"… {many(len(calls) - _CALLS, 'more call')}", class_="more"))
    kind = (
        role
        if role in ("system", "developer", "user", "assistant", "tool", "input", "output", "prompt", "completion")
        else "other"
    )
    return tag("section", tag("h4", role[:80]), *parts, class_=f"turn {kind}")


def _content(content: Any) -> list[Markup]:
    if isinstance(content, list):
        return [_part(part) for part in content[:_MESSAGES]]
    text = content if isinstance(content, str) else "" if content is None else _json(content)
    return [_text(text)] if text else []


def _part(part: Any) -> Markup:
    if not isinstance(part, dict):
        return _text(_json(part))
    if isinstance(part.get("text"), str):
        return _text(part["text"])
    return tag("p", media_label(part), class_="media")


def _call(call: Any) -> Markup:
    called = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(called, dict):
        return _text(_json(call))
    given = called.get("arguments")
    name = tag("span", str(called.get("name"))[:200], class_="function")
    arguments = given if isinstance(given, str) else _json(given, 2)
    return tag("div", tag("p", "calls ", name), _text(arguments), class_="call")


def _inner(title: str, text: str, kind: str) -> Markup:
    return tag("details", tag("summary", title), _text(text), class_=kind)


def _text(text: str) -> Markup:
    more = len(text) - _TEXT
    cut = [tag("span", f"… {more:,} more characters", class_="more")] if more > 0 else []
    return tag("pre", joined([plain(text[:_TEXT]), *cut]), dir="auto")


def _json(value: Any, indent: int = 0) -> str:
    encoded = _encode(value)
    return (msgspec.json.format(encoded, indent=indent) if indent else encoded).decode()
