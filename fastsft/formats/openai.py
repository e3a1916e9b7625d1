"""The `openai` layout, the one of NeMo Gym's SFT guide: messages, and tools where the rollout has them.

Calls are `{"name", "arguments"}` with the arguments as an object, tools
`{"name", "description", "parameters"}`. Reasoning is left out.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from fastsft.formats.row import PLAIN, Layout, Row
from fastsft.formats.tools import Function, tools_of
from fastsft.formats.turns import Turn, conversation
from fastsft.rollout import Rollout


class OpenaiRow(msgspec.Struct, omit_defaults=True, gc=False):
    """`{"messages": [...], "tools": [...]}`, without `tools` where there are none."""

    messages: list[Turn]
    tools: list[Tool | Raw] = []


class Tool(msgspec.Struct, gc=False):
    """A function on offer: its name, what it is for, and the JSON schema of its arguments."""

    name: Raw
    description: Raw
    parameters: Raw


def to_openai(rollout: Rollout, layout: Layout = PLAIN) -> Row:
    """Keep the whole conversation, calls and results included.

    >>> from fastsft.rollout import Item
    >>> asked, said = Item(role="user", content=Raw(b'"2+2?"')), Item(role="assistant", content=Raw(b'"4"'))
    >>> msgspec.json.encode(to_openai(Rollout([asked], [said])).body)
    b'{"messages":[{"role":"user","content":"2+2?"},{"role":"assistant","content":"4"}]}'
    """
    turns, cut = conversation(rollout, own=layout.loss == "own")
    return Row(OpenaiRow(turns, tools_of(rollout.tools, _tool)), turns_cut=cut)


def _tool(tool: Function) -> Tool:
    """Fill in what is missing as the script of NeMo Gym's SFT guide does."""
    return Tool(tool.name, tool.description or Raw(b'""'), tool.parameters or Raw(b"{}"))
