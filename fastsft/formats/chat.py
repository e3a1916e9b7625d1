"""The `chat` layout: turn by turn what the model produced, as NeMo Gym's own converter to chat completions has it.

Reasoning, text and calls of one response are one assistant turn. Calls are `{"id", "type": "function",
"function": {"name", "arguments"}}`, results have the id of their call, tools are nested. Source: `ResponsesConverter`
in NeMo Gym's `nemo_gym/responses_converter.py`; README lists where we differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec
from msgspec import Raw

from fastsft.formats.calls import ASSISTANT, Called
from fastsft.formats.content import NO_TEXT, Content, one_content
from fastsft.formats.media import for_nemo_rl, media_beside
from fastsft.formats.reasoning import in_think_tags
from fastsft.formats.row import PLAIN, Layout, Row
from fastsft.formats.tools import Function, tools_in, tools_of
from fastsft.formats.turns import Turn, conversation, is_imitable, is_of_output, mark, without_thoughts
from fastsft.formats.values import joined
from fastsft.rollouts.rollout import ABSENT, Rollout

_encode = msgspec.json.Encoder().encode
_BETWEEN = Raw(b'"\\n\\n"')  # two texts that were apart: instructions and a system turn, two pieces of reasoning


class ChatRow(msgspec.Struct, omit_defaults=True, gc=False):
    """`{"messages": [...], "tools": [...]}`, without `tools` where there are none."""

    messages: list[ChatTurn]
    tools: list[Tool | Raw] | Raw = []


class ChatTurn(msgspec.Struct, omit_defaults=True, gc=False):
    """One message of a row; which fields it has depends on its role."""

    role: str
    content: Content
    reasoning_content: Raw = NO_TEXT
    tool_calls: list[Call] = []
    tool_call_id: Raw = NO_TEXT
    weight: int | None = None
    loss_mask: int | None = None


class Call(msgspec.Struct, gc=False):
    """One function call; `id` is a JSON string."""

    id: Raw
    type: str
    function: CalledFunction


# An object by its keys, or a JSON string that holds one.
Arguments: TypeAlias = "dict[str, Raw] | Raw"


class CalledFunction(msgspec.Struct, gc=False):
    """The name of a called function, a JSON string, and its arguments."""

    name: Raw
    arguments: Arguments


class Tool(msgspec.Struct, gc=False):
    """A function on offer, nested."""

    type: str
    function: OfferedFunction


class OfferedFunction(msgspec.Struct, omit_defaults=True, gc=False):
    """What is said of a function on offer; what a rollout does not say is not there."""

    name: Raw
    description: Raw = ABSENT
    parameters: Raw = ABSENT


def to_chat(rollout: Rollout, layout: Layout = PLAIN) -> Row:
    """Keep the whole conversation as the model was sent it and answered it.

    >>> from fastsft.rollouts.rollout import Item
    >>> asked, said = Item(role="user", content=Raw(b'"2+2?"')), Item(role="assistant", content=Raw(b'"4"'))
    >>> thought = Item(type="reasoning", summary=Raw(b'[{"text": "Easy."}]'))
    >>> _encode(to_chat(Rollout([asked], [thought, said])).body.messages[1])
    b'{"role":"assistant","content":"4","reasoning_content":"Easy."}'

    Raises:
        Refused: The rollout has no such row.
    """
    found = conversation(rollout, merges=layout.loss is None, thought_is_text=layout.reasoning == "think")
    drops = layout.reasoning == "drop"
    turns = without_thoughts(found.turns) if drops and found.has_thoughts else found.turns
    turns = _without_silence(turns, layout)
    messages = [_message(turn, layout) for turn in turns]
    has_ids = any(message.tool_calls or message.tool_call_id for message in messages)
    if layout.media == "nemo-rl":
        for message in messages:
            message.content = for_nemo_rl(message.content)
    if found.instructions is not None:
        messages = _with_instructions(messages, found.instructions)
    left_out = media_beside(rollout) if rollout.metadata else set()
    if drops and found.has_thoughts:
        left_out.add("reasoning")
    behind = len(turns) - next((index for index, turn in enumerate(turns) if is_of_output(turn)), len(turns))
    body = ChatRow(messages, tools_in(tools_of(rollout.tools, _tool), layout))
    cut = found.cut + len(found.turns) - len(turns)
    return Row(body, cut, has_ids, tuple(sorted(left_out)), len(messages) - behind)


def _without_silence(turns: list[Turn], layout: Layout) -> list[Turn]:
    """Leave out assistant turns with nothing in them, unless the output has no other."""
    silent = [turn.content == NO_TEXT and turn.note is not None and _is_silent(turn, layout) for turn in turns]
    if not any(silent):
        return turns
    heard = [turn for turn, is_silent in zip(turns, silent, strict=True) if not is_silent]
    left = list(heard)
    while left and not is_imitable(left[-1]) and left[-1] is not turns[-1]:
        left.pop()
    return left or [*heard, turns[-1]]


def _is_silent(turn: Turn, layout: Layout) -> bool:
    if turn.tool_calls:
        return False
    if layout.reasoning == "think":
        return _with_tags(turn) == NO_TEXT
    return turn.note is None or not turn.note.reasoning


def _message(turn: Turn, layout: Layout) -> ChatTurn:
    note = turn.note
    if note is None:
        message = ChatTurn("system" if turn.role == "developer" else turn.role, turn.content)
        if turn.call_id and turn.call_id != NO_TEXT:  # msgspec does not know an input's empty text for the default
            message.tool_call_id = turn.call_id
        return message
    message = ChatTurn(ASSISTANT, turn.content, tool_calls=[_call(call, layout) for call in turn.tool_calls])
    if note.reasoning and layout.reasoning == "field":
        message.reasoning_content = joined(_parted(note.reasoning))
    elif note.pieces and layout.reasoning == "think":
        message.content = _with_tags(turn)
    if layout.loss == "own":
        mark(message, layout, is_own=note.is_own)
    return message


def _with_tags(turn: Turn) -> Content:
    """Return what a turn says and thinks as NeMo Gym writes it, with the tags that it has."""
    whole: list[Content] = []
    for piece, _, is_thought in turn.note.pieces if turn.note is not None else ():
        whole.append(in_think_tags(piece) if is_thought and isinstance(piece, Raw) else piece)
    return one_content([piece for piece in whole if piece != NO_TEXT])


def _call(call: Called, layout: Layout) -> Call:
    arguments = call.arguments if layout.arguments == "object" else call.as_string()
    return Call(call.id, "function", CalledFunction(call.name, arguments))


def _parted(texts: Sequence[Raw]) -> list[Raw]:
    return [piece for text in texts for piece in (_BETWEEN, text)][1:]


def _with_instructions(turns: list[ChatTurn], instructions: Raw) -> list[ChatTurn]:
    """Begin with one system turn: the instructions, and the system turns that stand in front.

    Several templates take one alone (Qwen3.5 raises at a second).
    """
    count = next((index for index, turn in enumerate(turns) if turn.role != "system"), len(turns))
    contents: list[Content] = [instructions, *(turn.content for turn in turns[:count] if turn.content != NO_TEXT)]
    strings = [content for content in contents if isinstance(content, Raw)]
    content = joined(_parted(strings)) if len(strings) == len(contents) else one_content(contents)
    return [ChatTurn("system", content), *turns[count:]]


def _tool(tool: Function) -> Tool:
    return Tool("function", OfferedFunction(tool.name, tool.description, tool.parameters))
