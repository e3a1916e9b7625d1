"""One row -> what is wrong with it: pure, and the same whichever way the row is read."""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from fastsft.formats.calls import ASSISTANT
from fastsft.formats.reasoning import CLOSE, OPEN
from fastsft.formats.simple import PAIRS
from fastsft.inputs.encoding import escape_line_separators

_ROLES = frozenset({"system", "developer", "user", ASSISTANT, "tool"})
_CHAT_MEDIA = frozenset({"image_url", "video_url", "input_audio", "file"})
_TAGS = re.compile(f"{OPEN}|{CLOSE}")
_any = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode


class Found(NamedTuple):
    """One finding in a row: a name in `KINDS`, and where in the row or what."""

    kind: str
    detail: str = ""


def row_in(line: bytes, *, has_line_ends: bool) -> tuple[Any, list[Found]]:
    """Decode a line as strictly as the strictest reader: the row, or None, and what is wrong with the line itself.

    Whether there may be a raw U+2028 or the like is told of many lines at once.
    """
    if not line or line.isspace():
        return None, [Found("blank_line")]
    found = []
    try:
        row = _any.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if "out of range" in str(error):
            return None, [Found("bad_number", str(error))]
        return None, [Found("bad_json", str(error) or "nests too deep")]
    if has_line_ends and escape_line_separators(line) != line:
        found.append(Found("line_end"))
    if _encode(row) != line:  # other escapes or numbers, or a key that stands twice
        found += [Found("repeated_key", key) for key in _repeated_keys(line)]
    if not isinstance(row, dict):
        return None, [*found, Found("not_a_row", f"not an object but {_shown(row)}")]
    return row, found


def _repeated_keys(line: bytes) -> list[str]:
    again: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            again.extend(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        return value

    json.loads(line, object_pairs_hook=look)
    return again[:3]


# With one of these a row cannot be rendered; with any other it is, and measured.
UNRENDERABLE = frozenset({"not_a_row", "bad_content", "bad_call", "bad_arguments", "bad_tool", "bad_pair", "tie"})


def is_pair(row: dict[str, Any]) -> bool:
    """Tell whether a row is a pair of input and output, and no conversation."""
    return "messages" not in row and pair_of(row) is not None


def pair_of(row: dict[str, Any]) -> tuple[str, str] | None:
    """Return the columns of a pair, the input's and the output's; None where a row is none."""
    return next((columns for columns in PAIRS if set(columns) <= row.keys()), None)


def findings_of(row: dict[str, Any]) -> Iterator[Found]:
    """Find what is wrong with a row by itself, whichever layout it has."""
    messages = row.get("messages")
    if isinstance(messages, list) and messages:
        yield from conversation_findings(messages, row.get("tools"))
    elif "messages" not in row and (columns := pair_of(row)):
        yield from _of_pair(row, *columns)
    else:
        keys = ", ".join(list(row)[:6])
        yield Found("not_a_row", f"its keys are: {keys}" if "messages" not in row else "messages are no list of turns")


def _of_pair(row: dict[str, Any], asked: str, answer: str) -> Iterator[Found]:
    for name in (asked, answer):
        if not isinstance(row[name], str):
            yield Found("bad_content", f"{name} is a {type(row[name]).__name__}")
    if row[answer] == "":
        yield Found("empty_turn", answer)
    if row[asked] == "":
        yield Found("no_user_turn", asked)
    if has_stray_tag(row[answer]):
        yield Found("stray_think_tag", answer)


def conversation_findings(messages: list[Any], tools: Any) -> Iterator[Found]:
    """Find what is wrong with a conversation, which has a message at least, and its tools."""
    if not all(isinstance(message, dict) for message in messages):
        yield Found("not_a_row", "a message is no object")
        return
    roles = [message.get("role") for message in messages]
    for index, (role, message) in enumerate(zip(roles, messages, strict=True)):
        if not isinstance(role, str) or role not in _ROLES:
            yield Found("unknown_role", f"message {index}: {_shown(role)}")
        if role == "developer":
            yield Found("developer_role", f"message {index}")
        content = message.get("content")
        if type(content) is not str or (role == ASSISTANT and not content.strip()):  # hardly ever
            yield from _of_content(index, message)
        if role == ASSISTANT and has_stray_tag(content):
            yield Found("stray_think_tag", f"message {index}")
    yield from _of_order(roles)
    yield from _of_calls(messages, roles, tools)


def _of_content(index: int, message: dict[str, Any]) -> Iterator[Found]:
    content, calls = message.get("content"), message.get("tool_calls")
    if isinstance(content, list):
        kinds = sorted({str(part.get("type")) for part in content if isinstance(part, dict)})
        if not all(map(_is_part, content)):
            yield Found("bad_content", f"message {index}: a part without a type, or a text part without text")
        elif kinds:
            yield Found("parts", f"message {index}: {', '.join(kinds)}")
        if media := _CHAT_MEDIA & set(kinds):
            yield Found("media_parts", f"message {index}: {', '.join(sorted(media))}")
    elif content is None and calls:
        yield Found("null_content", f"message {index}")
    elif not isinstance(content, str):
        yield Found("bad_content", f"message {index}: content is {_shown(content)}")
    said = content.strip() if isinstance(content, str) else content
    if message.get("role") == ASSISTANT and not (said or calls or message.get("reasoning_content")):
        yield Found("empty_turn", f"message {index}")


def has_stray_tag(content: Any) -> bool:
    """Tell whether a text has a tag that closes reasoning where none was opened."""
    if not isinstance(content, str) or CLOSE not in content:
        return False
    depth = 0
    for tag in _TAGS.findall(content):
        depth = 1 if tag == OPEN else depth - 1
        if depth < 0:
            return True
    return False


def _is_part(part: Any) -> bool:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        return False
    return part["type"] != "text" or isinstance(part.get("text"), str)


def _of_order(roles: list[Any]) -> Iterator[Found]:
    if roles[-1] != ASSISTANT:
        yield Found("last_role", f"the last turn is of {_shown(roles[-1])}")
    if "user" not in roles:
        yield Found("no_user_turn", f"{len(roles)} turns")
    in_front = True
    for index, role in enumerate(roles):
        if role in ("system", "developer") and not in_front:
            yield Found("late_system", f"message {index}")
        in_front = in_front and role in ("system", "developer")
        if index and role == roles[index - 1] == "user":
            yield Found("alternation", f'messages {index - 1} and {index} both have role "user"')
        if index and role == roles[index - 1] == ASSISTANT:
            yield Found("two_assistant_turns", f"messages {index - 1} and {index}")


def _of_calls(messages: list[dict[str, Any]], roles: list[Any], tools: Any) -> Iterator[Found]:
    declared = None
    if tools is not None:
        declared = _names_of(tools)
        if declared is None:
            yield Found("bad_tool", "tools are not a list of objects with names")
        elif isinstance(tools, str):
            yield Found("string_tools", "tools")
        else:
            yield from _of_tools(_encode(tools))
    waiting: dict[int | str, None] = {}  # the calls that have no result yet, by id, or by number where they have none
    calls_made = 0
    for index, message in enumerate(messages):
        calls = message.get("tool_calls")
        if calls not in (None, []) and (not isinstance(calls, list) or roles[index] != ASSISTANT):
            yield Found("bad_call", f"message {index}")
            calls = None
        if roles[index] == "tool":
            identity = message.get("tool_call_id")
            answered = identity if isinstance(identity, str) and identity in waiting else next(iter(waiting), None)
            if answered is None or (isinstance(identity, str) and isinstance(answered, str) and answered != identity):
                yield Found("orphan_tool_result", f"message {index}")
            else:
                del waiting[answered]
            continue
        if waiting:
            yield Found("unanswered_call", f"message {index} goes on, {len(waiting)} without a result")
            waiting = {}
        for call in calls or []:
            calls_made += 1
            yield from _of_call(index, call, declared)
            identity = call.get("id") if isinstance(call, dict) else None
            if isinstance(identity, str) and identity in waiting:
                yield Found("bad_call", f"message {index}: two calls with the id {_shown(identity)}")
            waiting[identity if isinstance(identity, str) else calls_made] = None
    if calls_made and not declared and tools in (None, []):
        yield Found("no_tools", f"calls: {calls_made}")


def _of_call(index: int, call: Any, declared: set[str] | None) -> Iterator[Found]:
    called = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(called, dict) or not isinstance(called.get("name"), str) or not called["name"]:
        yield Found("bad_call", f"message {index}: {_shown(call)}")
        return
    if declared and called["name"] not in declared:
        yield Found("undeclared_tool", f"message {index}: {called['name']}")
    arguments = called.get("arguments")
    if isinstance(arguments, str):
        yield Found("string_arguments", f"message {index}")
        arguments = _decoded(arguments)
    elif isinstance(arguments, dict):
        yield from _of_values(f"message {index}", arguments)
    if not isinstance(arguments, dict):
        yield Found("bad_arguments", f"message {index}: {_shown(called.get('arguments'))}")


_IN_SMALL_LETTERS = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)  # as DuckDB compares names
_MOST_INTEGER = 1 << 127  # the first that Polars 2.1 takes for no number


def _of_tools(encoded: bytes) -> list[Found]:
    return (
        _remembered(encoded) if len(encoded) <= _REMEMBERED_NBYTES else list(_of_values("tools", _any.decode(encoded)))
    )


_REMEMBERED_NBYTES = 64 * 1024


@lru_cache(maxsize=64)  # the rows of one environment have the same tools
def _remembered(encoded: bytes) -> list[Found]:
    return list(_of_values("tools", _any.decode(encoded)))


def _of_values(where: str, holder: Any) -> Iterator[Found]:
    """Find values that are JSON, and stop readers that give columns types."""
    values: list[Any] = [holder]
    for value in values:
        if type(value) is dict:
            if len(value) > 1 and len({key.translate(_IN_SMALL_LETTERS) for key in value}) < len(value):
                yield Found("case_keys", f"{where}: {_shown(sorted(value))}")
            values.extend(value.values())
        elif type(value) is list:
            values.extend(value)
        elif type(value) is int and not -_MOST_INTEGER <= value < _MOST_INTEGER:
            yield Found("long_integer", f"{where}: {_shown(value)}")


def _names_of(tools: Any) -> set[str] | None:
    """Return the names of the functions on offer; None where tools are not what a template takes."""
    if isinstance(tools, str):
        tools = _decoded(tools)
    if not isinstance(tools, list):
        return None
    names = set()
    for tool in tools:
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict):
            return None
        name = function.get("name")
        if isinstance(name, str):
            names.add(name)
        elif tool.get("type") in (None, "function"):
            return None
    return names


def _decoded(text: str) -> Any:
    try:
        return _any.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None


def _shown(value: Any) -> str:
    text = _encode(value[:100] if isinstance(value, (str, list)) else value).decode()
    return text if len(text) <= 60 else f"{text[:60]}…"


def schemas_of(row: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Return the values of a row that a loader with a type for each column would hold in one, each by its path.

    Of tools alone: datasets 5.2 keeps arguments and content of different types whole (objects in a column of JSON),
    and alters numbers in tool schemas.
    """
    tools = row.get("tools")
    for tool in tools if isinstance(tools, list) else []:
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if isinstance(function, dict) and isinstance(parameters := function.get("parameters"), dict):
            yield "parameters", parameters
            if isinstance(properties := parameters.get("properties"), dict):
                yield "properties", properties
