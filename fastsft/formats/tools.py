"""The functions on offer, from the flat or the nested form, once for each list of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import Raw

from fastsft.errors import Refused
from fastsft.escape import excerpt
from fastsft.formats.values import plain
from fastsft.rollout import ABSENT, json_type

T = TypeVar("T")


class Function(NamedTuple):
    """A function on offer: its name, what it is for, the JSON schema of its arguments; `ABSENT` for what is missing."""

    name: Raw
    description: Raw
    parameters: Raw


class _Tool(msgspec.Struct, gc=False):
    """A tool as rollouts have it: flat, or nested with the same fields one level deeper in `function`."""

    type: str | None = None
    function: Raw = ABSENT
    name: Raw = ABSENT
    description: Raw = ABSENT
    parameters: Raw = ABSENT


_NO_TOOLS = (Raw(b"[]"), Raw(b"{}"))  # what half of all rollouts have, and what the guide's script takes for it

_values = msgspec.json.Decoder(list[Raw])
_tool = msgspec.json.Decoder(_Tool)


def tools_of(raw: Raw, laid_out: Callable[[Function], T]) -> list[T | Raw]:
    """Give the functions of a rollout's `tools` as `laid_out` has them; what is no function stays as it is.

    Raises:
        Refused: It is not a list of objects, or a function has no name.
    """
    if raw in _NO_TOOLS:
        return []
    match json_type(raw):
        case "absent" | "null":
            return []
        case "list" if len(raw) <= _REMEMBERED_NBYTES:
            return _remembered_tools(bytes(raw), laid_out)
        case "list":
            return _tools(bytes(raw), laid_out)
        case _:
            raise Refused("bad_tool", f"tools are not a list, found {excerpt(raw)}")


def _tools(raw: bytes, laid_out: Callable[[Function], Any]) -> list[Any]:
    tools = map(_tool_of, _values.decode(raw))
    return [laid_out(tool) if isinstance(tool, Function) else tool for tool in tools]


# The rollouts of one environment offer the same tools, so each list is converted once. At most 64 x 256 KiB.
_REMEMBERED_NBYTES = 256 * 1024
_remembered_tools = lru_cache(maxsize=64)(_tools)


def _tool_of(raw: Raw) -> Function | Raw:
    try:
        tool = _tool.decode(raw)
        if tool.type != "function":
            return plain(raw)
        if tool.function:
            tool = _tool.decode(tool.function)
    except msgspec.ValidationError:
        raise Refused("bad_tool", f"a tool is not an object with a type, found {excerpt(raw)}") from None
    if json_type(tool.name) != "string":
        raise Refused("bad_tool", f"a function among the tools has no name, found {excerpt(raw)}")
    return Function(tool.name, *(plain(value) if value else ABSENT for value in (tool.description, tool.parameters)))
