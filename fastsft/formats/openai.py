"""The `openai` layout, the one of NeMo Gym's SFT guide: messages, and tools where the rollout has them.

Calls are `{"name", "arguments"}` with the arguments as an object, tools
`{"name", "description", "parameters"}`. Reasoning is left out.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec
from msgspec import Raw

from fastsft.errors import Refused
from fastsft.escape import excerpt
from fastsft.formats.row import Row
from fastsft.formats.turns import Turn, conversation
from fastsft.formats.values import plain
from fastsft.rollout import ABSENT, Rollout, json_type


class OpenaiRow(msgspec.Struct, omit_defaults=True, gc=False):
    """`{"messages": [...], "tools": [...]}`, without `tools` where there are none."""

    messages: list[Turn]
    tools: list[Tool | Raw] = []


class Tool(msgspec.Struct, gc=False):
    """A function on offer: its name, what it is for, and the JSON schema of its arguments."""

    name: Raw
    description: Raw
    parameters: Raw


class _Tool(msgspec.Struct, gc=False):
    """A tool as rollouts have it: flat, or nested with the same fields one level deeper in `function`."""

    type: str | None = None
    function: Raw = ABSENT
    name: Raw = ABSENT
    description: Raw = Raw(b'""')
    parameters: Raw = Raw(b"{}")


_NO_TOOLS = (Raw(b"[]"), Raw(b"{}"))  # what half of all rollouts have, and what the guide's script takes for it

_values = msgspec.json.Decoder(list[Raw])
_tool = msgspec.json.Decoder(_Tool)


def to_openai(rollout: Rollout) -> Row:
    """Keep the whole conversation, calls and results included.

    >>> from fastsft.rollout import Item
    >>> asked, said = Item(role="user", content=Raw(b'"2+2?"')), Item(role="assistant", content=Raw(b'"4"'))
    >>> msgspec.json.encode(to_openai(Rollout([asked], [said])).body)
    b'{"messages":[{"role":"user","content":"2+2?"},{"role":"assistant","content":"4"}]}'
    """
    turns, cut = conversation(rollout)
    return Row(OpenaiRow(turns, _tools_of(rollout.tools)), turns_cut=cut)


def _tools_of(raw: Raw) -> list[Tool | Raw]:
    if raw in _NO_TOOLS:
        return []
    match json_type(raw):
        case "absent" | "null":
            return []
        case "list" if len(raw) <= _REMEMBERED_NBYTES:
            return _remembered_tools(bytes(raw))
        case "list":
            return _tools(bytes(raw))
        case _:
            raise Refused("bad_tool", f"tools are not a list, found {excerpt(raw)}")


def _tools(raw: bytes) -> list[Tool | Raw]:
    return [_tool_of(value) for value in _values.decode(raw)]


# The rollouts of one environment offer the same tools, so each list is converted once. At most 64 x 256 KiB.
_REMEMBERED_NBYTES = 256 * 1024
_remembered_tools = lru_cache(maxsize=64)(_tools)


def _tool_of(raw: Raw) -> Tool | Raw:
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
    return Tool(tool.name, plain(tool.description), plain(tool.parameters))
