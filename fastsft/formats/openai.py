"""The `openai` layout, the one of NeMo Gym's SFT guide: messages, and tools where the rollout has them.

Calls are `{"name", "arguments"}` with the arguments as an object, tools
`{"name", "description", "parameters"}`. Reasoning is left out.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from fastsft.formats.media import for_nemo_rl, media_beside
from fastsft.formats.row import PLAIN, Layout, Row
from fastsft.formats.tools import Function, tools_in, tools_of
from fastsft.formats.turns import Turn, conversation, mark, without_thoughts
from fastsft.rollouts.rollout import ABSENT, Rollout


class OpenaiRow(msgspec.Struct, omit_defaults=True, gc=False):
    """`{"messages": [...], "tools": [...]}`, without `tools` where there are none."""

    messages: list[Turn]
    tools: list[Tool | Raw] | Raw = []


class Tool(msgspec.Struct, gc=False):
    """A function on offer: its name, what it is for, and the JSON schema of its arguments."""

    name: Raw
    description: Raw
    parameters: Raw


def to_openai(rollout: Rollout, layout: Layout = PLAIN) -> Row:
    """Keep the whole conversation but for its reasoning.

    >>> from fastsft.rollouts.rollout import Item
    >>> asked, said = Item(role="user", content=Raw(b'"2+2?"')), Item(role="assistant", content=Raw(b'"4"'))
    >>> msgspec.json.encode(to_openai(Rollout([asked], [said])).body)
    b'{"messages":[{"role":"user","content":"2+2?"},{"role":"assistant","content":"4"}]}'

    Raises:
        Refused: The rollout has no such row.
    """
    found = conversation(rollout, merges=layout.loss is None)
    turns, cut = found.turns, found.cut
    left_out = media_beside(rollout) if rollout.metadata else set()
    if found.has_thoughts:
        turns = without_thoughts(turns)
        cut += len(found.turns) - len(turns)
        left_out.add("reasoning")
    for turn in turns:
        if turn.note is not None:
            if layout.loss == "own":
                mark(turn, layout, is_own=turn.note.is_own)
            turn.note = None
            for call in turn.tool_calls:
                call.written = call.id = ABSENT
        else:
            turn.call_id = ABSENT
    if layout.media == "nemo-rl":
        for turn in turns:
            turn.content = for_nemo_rl(turn.content)
    if found.instructions is not None:
        turns.insert(0, Turn("system", found.instructions))
    tools = tools_of(rollout.tools, _tool)
    body = OpenaiRow(turns, tools if layout.tools == "list" else tools_in(tools, layout))
    return Row(body, cut, left_out=tuple(sorted(left_out)) if left_out else ())


def _tool(tool: Function) -> Tool:
    """Fill in what is missing as the script of NeMo Gym's SFT guide does."""
    return Tool(tool.name, tool.description or Raw(b'""'), tool.parameters or Raw(b"{}"))
