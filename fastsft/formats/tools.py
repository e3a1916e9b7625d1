"""The functions on offer, from the flat or the nested form, once for each list of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import Raw

from fastsft.errors import Refused
from fastsft.escape import excerpt
from fastsft.formats.calls import in_namespace
from fastsft.formats.row import Layout
from fastsft.formats.values import canonical_json
from fastsft.rollouts.rollout import ABSENT, json_type

T = TypeVar("T")


class Function(NamedTuple):
    """A function on offer: its name, what it is for, the JSON schema of its arguments; `ABSENT` for what is missing."""

    name: Raw
    description: Raw
    parameters: Raw


class _Tool(msgspec.Struct, gc=False):
    """A tool as rollouts have it: flat, nested with the same fields one level deeper in `function`, or a namespace."""

    type: str | None = None
    function: Raw = ABSENT
    name: Raw = ABSENT
    description: Raw = ABSENT
    parameters: Raw = ABSENT
    tools: Raw = ABSENT


_NO_TOOLS = (Raw(b"[]"), Raw(b"{}"))  # what half of all rollouts have, and what the guide's script takes for it

_values = msgspec.json.Decoder(list[Raw])
_tool = msgspec.json.Decoder(_Tool)
_encode = msgspec.json.Encoder().encode


def tools_of(raw: Raw, laid_out: Callable[[Function], T]) -> list[T | Raw]:
    """Return the functions of a rollout's `tools` as `laid_out` has them; what is no function stays as it is.

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
    tools = [function for tool in _values.decode(raw) for function in _functions_of(tool)]
    return [laid_out(tool) if isinstance(tool, Function) else tool for tool in tools]


# The rollouts of one environment offer the same tools, so each list is converted once. At most 64 x 256 KiB.
_REMEMBERED_NBYTES = 256 * 1024
_remembered_tools = lru_cache(maxsize=64)(_tools)


def _functions_of(raw: Raw, namespace: Raw = ABSENT) -> Iterator[Function | Raw]:
    """Return what one tool offers: a function, those that a namespace groups, or another kind as it is."""
    try:
        tool = _tool.decode(raw)
        if tool.type == "namespace" and not namespace:
            for member in _values.decode(tool.tools) if json_type(tool.tools) not in ("absent", "null") else []:
                yield from _functions_of(member, tool.name or Raw(b"null"))
            return
        if tool.type != "function":
            yield canonical_json(raw)
            return
        if tool.function:
            tool = _tool.decode(tool.function)
    except msgspec.ValidationError:
        raise Refused("bad_tool", f"a tool is not an object with a type, found {excerpt(raw)}") from None
    if json_type(tool.name) != "string":
        raise Refused("bad_tool", f"a function among the tools has no name, found {excerpt(raw)}")
    name = in_namespace(namespace, tool.name) if namespace else tool.name
    yield Function(name, *(canonical_json(value) if value else ABSENT for value in (tool.description, tool.parameters)))


def tools_in(tools: list[T | Raw], layout: Layout) -> list[T | Raw] | Raw:
    """Return tools as a layout has them: a list, or one JSON string that holds it, which no loader looks into."""
    if layout.tools == "list" or not tools:
        return tools
    return Raw(_encode(_encode(tools).decode()))
