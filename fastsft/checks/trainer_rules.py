"""One row -> what a trainer's loader stops at or leaves out, beside what `rules.py` finds for all of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from fastsft.checks.kinds import KINDS
from fastsft.checks.rules import Found, is_pair, pair_of
from fastsft.formats.calls import ASSISTANT
from fastsft.trainers.trainer import Trainer

_FUNCTION_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DATASETS_DECIMALS = 10  # to which Hugging Face datasets 5.2 rounds numbers in objects that differ from row to row
_ASKS = ("user", "tool")


def findings_for(row: dict[str, Any], trainer: Trainer) -> Iterator[Found]:
    """Find what is wrong with a row for one trainer; `rules.findings_of` has found what is wrong for any."""
    if is_pair(row):
        columns = pair_of(row)
        if "simple" not in trainer.format or columns != trainer.pair:
            yield Found("columns", f"they are {' and '.join(columns or ())}")
        return
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        return
    for kind, rule in _RULES.items():
        if kind in trainer.stops or kind in trainer.loses:
            yield from (Found(kind, where) for where in rule(messages, row.get("tools")))


def is_fault(kind: str, trainer: Trainer | None) -> bool:
    """Tell whether what was found is a fault: to a trainer what stops it, and what its template does."""
    if trainer is None or kind in _OF_OPTIONS:
        return not KINDS[kind].is_note
    return kind in trainer.stops


def is_told(kind: str, trainer: Trainer | None) -> bool:
    """Tell whether a finding is told of rows for a trainer."""
    return trainer is None or kind not in trainer.takes


# What was asked for by an option.
_OF_OPTIONS = frozenset({"too_long", "control_tokens", *(kind for kind in KINDS if kind.startswith("template_"))})


def _calls(messages: list[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    for index, message in enumerate(messages):
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else []:
            if isinstance(call, dict):
                yield index, call


def _flat_calls(messages: list[Any], _: Any) -> Iterator[str]:
    for index, call in _calls(messages):
        if not isinstance(call.get("function"), dict):
            yield f"message {index}"


def _object_arguments(messages: list[Any], _: Any) -> Iterator[str]:
    for index, call in _calls(messages):
        called = call.get("function", call)
        if isinstance(called, dict) and isinstance(called.get("arguments"), dict):
            yield f"message {index}"


def _rounded_numbers(messages: list[Any], _: Any) -> Iterator[str]:
    for index, call in _calls(messages):
        values: list[Any] = [call.get("function", call)]
        for value in values:
            if isinstance(value, (dict, list)):
                values.extend(value.values() if isinstance(value, dict) else value)
            elif isinstance(value, float) and round(value, _DATASETS_DECIMALS) != value:
                yield f"message {index}: {value}"
                return


def _list_tools(_: list[Any], tools: Any) -> Iterator[str]:
    if isinstance(tools, list) and tools:
        yield "tools"


def _no_call_id(messages: list[Any], _: Any) -> Iterator[str]:
    for index, message in enumerate(messages):
        identity = message.get("tool_call_id")
        if message.get("role") == "tool" and not (isinstance(identity, str) and identity):
            yield f"message {index}"


def _function_name(messages: list[Any], tools: Any) -> Iterator[str]:
    offered = tools if isinstance(tools, list) else []
    named = [("tools", tool) for tool in offered if isinstance(tool, dict)]
    named += [(f"message {index}", call) for index, call in _calls(messages)]
    yield from ("tools: no function" for _, tool in named if tool.get("type", "function") != "function")
    for where, one in named:
        function = one.get("function", one)
        name = function.get("name") if isinstance(function, dict) else None
        if isinstance(name, str) and not _FUNCTION_NAME.fullmatch(name):
            yield f"{where}: {name[:60]}"


def _media_place(messages: list[Any], _: Any) -> Iterator[str]:
    for index, message in enumerate(messages):
        content = message.get("content")
        kinds = {part.get("type") for part in content if isinstance(part, dict)} if isinstance(content, list) else set()
        allowed = {"text", "image_url"} if message.get("role") == "user" else {"text"}
        if others := sorted(str(kind) for kind in kinds - allowed):
            yield f"message {index}: {', '.join(others)}"


def _no_turns_taken(messages: list[Any], _: Any) -> Iterator[str]:
    """As LLaMA-Factory counts: results that follow each other are one."""
    roles = [message.get("role") for message in messages]
    first = 1 if roles[:1] == ["system"] else 0
    asks = True
    for index in range(first, len(roles)):
        if roles[index] == roles[index - 1] == "tool" and index > first:
            continue
        if (roles[index] in _ASKS) is not asks or (not asks and roles[index] != ASSISTANT):
            yield f"message {index} is of {str(roles[index])[:60]}"
            return
        asks = not asks
    if not asks:
        yield "nobody answers at the end"


def _assistant_first(messages: list[Any], _: Any) -> Iterator[str]:
    if messages[0].get("role") == ASSISTANT:
        yield "message 0"


def _text_beside_calls(messages: list[Any], _: Any) -> Iterator[str]:
    for index, message in enumerate(messages):
        if message.get("tool_calls") and (message.get("content") or message.get("reasoning_content")):
            yield f"message {index}"


def _reasoning_field(messages: list[Any], _: Any) -> Iterator[str]:
    for index, message in enumerate(messages):
        if message.get("reasoning_content"):
            yield f"message {index}"


_RULES: dict[str, Callable[[list[Any], Any], Iterator[str]]] = {
    "flat_calls": _flat_calls,
    "arguments_no_string": _object_arguments,
    "list_tools": _list_tools,
    "rounded_numbers": _rounded_numbers,
    "no_call_id": _no_call_id,
    "function_name": _function_name,
    "media_place": _media_place,
    "no_turns_taken": _no_turns_taken,
    "assistant_first": _assistant_first,
    "text_beside_calls": _text_beside_calls,
    "reasoning_field": _reasoning_field,
}
