"""A conversation as a person reads it: of a row, or of a rollout as it was recorded. Nothing is escaped yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from fastsft.formats.calls import ASSISTANT
from fastsft.formats.turns import Turn
from fastsft.rollouts.rollout import decoded
from fastsft.views.terminal import size_of

_SHOWN_CHARACTERS = 400
_any = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode


def told_row(row: dict[str, Any], full: bool) -> list[str]:
    """Return the lines that tell of a row, a conversation or a pair."""
    if "messages" in row:
        return [*told_tools(row.get("tools")), *told_messages(row["messages"], full)]
    turns = [{"role": name, "content": row[name]} for name in ("input", "output")]
    return list(told_messages(turns, full))


def told_rollout(rollout: dict[str, Any], full: bool) -> list[str]:
    """Return the lines that tell of a rollout, item by item, as it was recorded."""
    params, response = rollout.get("responses_create_params"), rollout.get("response")
    params = params if isinstance(params, dict) else {}
    lines = told_tools(params.get("tools"))
    if (instructions := params.get("instructions")) is not None:
        lines += [f"\n[instructions]\n{_said(instructions, full)}"]
    output = response.get("output") if isinstance(response, dict) else rollout.get("output")
    for name, items, role in (("input", params.get("input"), "user"), ("output", output, ASSISTANT)):
        lines += [f"\n── {name} ──"]
        items = [{"role": role, "content": items}] if isinstance(items, str) else items
        for item in items if isinstance(items, list) else []:
            lines += _told_item(item, role, full)
    return lines


def _told_item(item: Any, role: str, full: bool) -> list[str]:
    """Return the lines that tell of one item of a rollout."""
    kind = item.get("type") if isinstance(item, dict) else None
    if kind == "reasoning":
        thought = [_said(item.get(name), full) for name in ("summary", "content") if item.get(name)]
        return ["\n[reasoning]", *thought]
    if kind == "function_call":
        given = item.get("arguments")
        return [
            f"\n[function_call]\n  {item.get('name')}({cut(given if isinstance(given, str) else _json(given), full)})"
        ]
    if kind == "function_call_output":
        return ["\n[function_call_output]", _said(item.get("output"), full)]
    if kind in (None, "message") and isinstance(item, dict):
        return list(told_messages([{"role": role, **item}], full))
    return [f"\n[{kind}]\n{cut(_json(item), full)}"]


def message_of(turn: Turn) -> Any:
    """Return a turn as a message of a row, with what layouts may leave out."""
    calls = [
        {"name": decoded(call.name), "arguments": _any.decode(_encode(call.arguments))} for call in turn.tool_calls
    ]
    reasoning = "\n\n".join(str(decoded(text)) for text in (turn.note.reasoning if turn.note else ()))
    content = _any.decode(_encode(turn.content))
    return {"role": turn.role, "content": content, "reasoning_content": reasoning, "tool_calls": calls}


def told_tools(tools: Any) -> list[str]:
    """Return the line that names the tools, in a list; an empty one without any."""
    if not isinstance(tools, list) or not tools:
        return []
    return [f"tools: {', '.join(map(_name_of_tool, tools))}"]


def _name_of_tool(tool: Any) -> str:
    if not isinstance(tool, dict):
        return _json(tool)
    function = tool.get("function")
    nested = function.get("name") if isinstance(function, dict) else None
    return str(tool.get("name") or nested or tool.get("type"))


def told_messages(messages: list[Any], full: bool) -> Iterator[str]:
    """Return the lines that tell of messages."""
    for message in messages:
        if not isinstance(message, dict):
            yield f"\n{cut(_json(message), full)}"
            continue
        yield f"\n[{message.get('role', ASSISTANT)}]"
        if reasoning := message.get("reasoning_content"):
            thought = reasoning if isinstance(reasoning, str) else _json(reasoning)
            yield f"<think>\n{cut(thought, full)}\n</think>"
        if text := _said(message.get("content"), full):
            yield text
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else [calls] if calls else []:
            called = call.get("function", call) if isinstance(call, dict) else None
            if not isinstance(called, dict):
                yield f"  calls {cut(_json(call), full)}"
                continue
            given = called.get("arguments")
            yield f"  calls {called.get('name')}({cut(given if isinstance(given, str) else _json(given), full)})"


def _said(content: Any, full: bool) -> str:
    if isinstance(content, list):
        return "\n".join(_part(part, full) for part in content)
    return cut(content if isinstance(content, str) else "" if content is None else _json(content), full)


def _part(part: Any, full: bool) -> str:
    """Show a part of content: its text, or what kind of thing it is and how large."""
    if not isinstance(part, dict):
        return cut(_json(part), full)
    if isinstance(part.get("text"), str):
        return cut(part["text"], full)
    return media_label(part, full)


def media_label(part: dict[str, Any], full: bool = False) -> str:
    """Tell what kind of thing a part of content is that is no text, and how large."""
    kind = str(part.get("type"))
    source = part.get(kind) or next((part[name] for name in (f"{kind}_url", "file_data") if part.get(name)), None)
    if isinstance(source, dict):
        kind = str(source.get("format") or source.get("filename") or kind) if "data" in source else kind
        source = source.get("url") or source.get("data") or source.get("file_data")
    if not isinstance(source, str):
        return f"[{kind}]"
    name, comma, data = source.partition(",")
    if source.startswith("data:") and comma:
        kind = name.removeprefix("data:").partition(";")[0] or kind
    elif "://" in source[:12]:
        return f"[{kind.removesuffix('_url')} {cut(source, full)}]"
    else:
        data = source
    return f"[{kind}, {size_of(len(data) * 3 // 4)}]"


def _json(value: Any) -> str:
    return _encode(value).decode()


def cut(text: str, full: bool) -> str:
    """Return a text, or its beginning and how much more there is."""
    if full or len(text) <= _SHOWN_CHARACTERS:
        return text
    return f"{text[:_SHOWN_CHARACTERS]}… ({len(text) - _SHOWN_CHARACTERS:,} more characters)"
