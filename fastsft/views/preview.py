"""A few rollouts or rows as a person reads them, and why a line would be kept or not."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import msgspec

from fastsft.checks.preferences import KTO, Preference, kind_of_row, preference_of
from fastsft.errors import Refused, UsageError
from fastsft.escape import escaped
from fastsft.formats.calls import ASSISTANT
from fastsft.formats.turns import Turn
from fastsft.inputs.lines import line_starts, lines_in
from fastsft.inputs.shards import ByteRange, Shard, find_shards
from fastsft.options import Options
from fastsft.pipeline.judging import judged_line, too_long
from fastsft.rollouts.rollout import decoded
from fastsft.views.terminal import size_of

_SHOWN_CHARACTERS = 400
_READ_NBYTES = 1024 * 1024  # at a time
_RULE = "─" * 72
_any = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode


def shown(path: str, *, first: int, count: int, full: bool, reward_threshold: float = 0.95) -> Iterator[str]:
    """Return each of `count` lines from number `first` on as text, escaped.

    Raises:
        UsageError: There is no such file or no such line.
    """
    if first < 1 or count < 1:
        raise UsageError("lines are numbered from 1, and at least one is shown")
    shards, _ = find_shards([path])
    if len(shards) != 1:
        raise UsageError(f"{path} is {len(shards)} shards; show one of them")
    options = Options(reward_threshold=reward_threshold)
    found = False
    for number, line in _numbered(shards[0], options):
        if number < first:
            continue
        if number >= first + count:
            break
        found = True
        yield f"{_RULE}\n{escaped(path)}:{number}\n" + escaped(_text_of(line, options, full), keep="\n")
    if not found:
        raise UsageError(f"{path} has no line {first}")


def _numbered(shard: Shard, options: Options) -> Iterator[tuple[int, bytes | Refused]]:
    """Return each line with its number, from 1; where it is too long to be read, why."""
    number = 0
    for lines in lines_in(ByteRange(shard, 0, shard.nbytes), nbytes=_READ_NBYTES, max_line=options.max_line_nbytes):
        for start, stop in pairwise(line_starts(lines.data)):
            number += 1
            yield number, lines.data[start : stop - 1]
        if lines.too_long_nbytes is not None:
            number += 1
            yield number, too_long(lines.too_long_nbytes, options)


def _text_of(line: bytes | Refused, options: Options, full: bool) -> str:
    if isinstance(line, Refused):
        return f"refused: {line.reason}: {line.problem}"
    try:
        value = _any.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = None
    kind = kind_of_row(value)
    match kind:
        case "conversation":
            return "\n".join(["a row", *_tools(value.get("tools")), *_messages(value["messages"], full)])
        case "pair":
            turns = [{"role": name, "content": value[name]} for name in ("input", "output")]
            return "\n".join(["a row", *_messages(turns, full)])
    if kind is not None:
        return _text_of_sides(value, line, full)
    fate, rollout, turns_ = judged_line(line, options)
    if rollout is None:
        return f"{fate}\n{_cut(line.decode('utf-8', 'backslashreplace'), full)}"
    reward = "null" if rollout.reward is None else f"{rollout.reward:g}"
    tools = decoded(rollout.tools)
    return "\n".join([f"{fate}; reward {reward}", *_tools(tools), *_messages([_plain(turn) for turn in turns_], full)])


def _text_of_sides(row: Any, line: bytes, full: bool) -> str:
    read = preference_of(row)
    if not isinstance(read, Preference):
        return f"{read.kind}: {read.detail}\n{_cut(line.decode(), full)}"
    what = f"a {'good' if read.label else 'bad'} side" if read.format == KTO else "a pair"
    parts = [f"{what} ({read.format})", *_tools(read.tools), *_messages(read.context, full)]
    for name, side in read.sides:
        parts += [f"\n── {'the side' if read.format == KTO else name}", *_messages(side, full)]
    return "\n".join(parts)


def _plain(turn: Turn) -> Any:
    """Return a turn as a message of a row, with what layouts may leave out."""
    calls = [
        {"name": decoded(call.name), "arguments": _any.decode(_encode(call.arguments))} for call in turn.tool_calls
    ]
    reasoning = "\n\n".join(str(decoded(text)) for text in (turn.note.reasoning if turn.note else ()))
    content = _any.decode(_encode(turn.content))
    return {"role": turn.role, "content": content, "reasoning_content": reasoning, "tool_calls": calls}


def _tools(tools: Any) -> list[str]:
    if not isinstance(tools, list) or not tools:
        return []
    return [f"tools: {', '.join(map(_name_of_tool, tools))}"]


def _name_of_tool(tool: Any) -> str:
    if not isinstance(tool, dict):
        return _json(tool)
    function = tool.get("function")
    nested = function.get("name") if isinstance(function, dict) else None
    return str(tool.get("name") or nested or tool.get("type"))


def _messages(messages: list[Any], full: bool) -> Iterator[str]:
    for message in messages:
        if not isinstance(message, dict):
            yield f"\n{_cut(_json(message), full)}"
            continue
        yield f"\n[{message.get('role', ASSISTANT)}]"
        if reasoning := message.get("reasoning_content"):
            thought = reasoning if isinstance(reasoning, str) else _json(reasoning)
            yield f"<think>\n{_cut(thought, full)}\n</think>"
        if text := _said(message.get("content"), full):
            yield text
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else [calls] if calls else []:
            called = call.get("function", call) if isinstance(call, dict) else None
            if not isinstance(called, dict):
                yield f"  calls {_cut(_json(call), full)}"
                continue
            given = called.get("arguments")
            yield f"  calls {called.get('name')}({_cut(given if isinstance(given, str) else _json(given), full)})"


def _said(content: Any, full: bool) -> str:
    if isinstance(content, list):
        return "\n".join(_part(part, full) for part in content)
    return _cut(content if isinstance(content, str) else "" if content is None else _json(content), full)


def _part(part: Any, full: bool) -> str:
    """Show a part of content: its text, or what kind of thing it is and how large."""
    if not isinstance(part, dict):
        return _cut(_json(part), full)
    if isinstance(part.get("text"), str):
        return _cut(part["text"], full)
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
        return f"[{kind.removesuffix('_url')} {_cut(source, full)}]"
    else:
        data = source
    return f"[{kind}, {size_of(len(data) * 3 // 4)}]"


def _json(value: Any) -> str:
    return _encode(value).decode()


def _cut(text: str, full: bool) -> str:
    if full or len(text) <= _SHOWN_CHARACTERS:
        return text
    return f"{text[:_SHOWN_CHARACTERS]}… ({len(text) - _SHOWN_CHARACTERS:,} more characters)"
