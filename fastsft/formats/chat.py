"""The `chat` layout: turn by turn what the model produced, as NeMo Gym's own converter to chat completions has it.

Reasoning, text and calls between two results or turns of others are one assistant turn. Calls
are `{"id", "type": "function", "function": {"name", "arguments"}}`, results have the id of
their call, tools are nested. Source: `ResponsesConverter` in NeMo Gym's `nemo_gym/responses_converter.py`;
README lists where we differ.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from msgspec import Raw

from fastsft.errors import Refused
from fastsft.formats.calls import ASSISTANT, Called, chat_shaped_calls, keys_of
from fastsft.formats.content import NO_TEXT, Content, TextPart, content_of, said_in
from fastsft.formats.loss import has_ids
from fastsft.formats.reasoning import in_think_tags, reasoning_of, told_apart
from fastsft.formats.row import PLAIN, Layout, Row
from fastsft.formats.tools import Function, tools_of
from fastsft.formats.turns import instructions_of, kind_of
from fastsft.formats.values import joined
from fastsft.rollout import ABSENT, Item, Rollout, is_string

_encode = msgspec.json.Encoder().encode
_BETWEEN = Raw(b'"\\n\\n"')  # two texts that were apart: instructions and a system turn, two pieces of reasoning


class ChatRow(msgspec.Struct, omit_defaults=True, gc=False):
    """`{"messages": [...], "tools": [...]}`, without `tools` where there are none."""

    messages: list[ChatTurn]
    tools: list[Tool | Raw] = []


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

    >>> asked, said = Item(role="user", content=Raw(b'"2+2?"')), Item(role="assistant", content=Raw(b'"4"'))
    >>> thought = Item(type="reasoning", summary=Raw(b'[{"text": "Easy."}]'))
    >>> _encode(to_chat(Rollout([asked], [thought, said])).body.messages[1])
    b'{"role":"assistant","content":"4","reasoning_content":"Easy."}'

    Raises:
        Refused: An item cannot become a turn, or the output has no assistant turn.
    """
    talk = _Talk(layout)
    for item in rollout.prompt:
        talk.add(item, roleless="user")
    talk.begin_output(rollout.output)
    for item in rollout.output:
        talk.add(item, roleless=ASSISTANT)
    talk.end_turn()
    if not talk.end:
        raise Refused("nothing_to_imitate", "the output has no assistant turn")
    turns = talk.turns[: talk.end]
    if instructions := instructions_of(rollout):
        turns = _with_instructions(turns, instructions)
    return Row(ChatRow(turns, tools_of(rollout.tools, _tool)), turns_cut=len(talk.turns) - talk.end)


class _Talk:
    """The turns so far, and the assistant's turn that goes on.

    Attributes:
        turns: The finished turns.
        end: How many of them there are up to the last assistant turn that has something of the output; 0 without one.
    """

    def __init__(self, layout: Layout) -> None:
        self.turns: list[ChatTurn] = []
        self.end = 0
        self._layout = layout
        self._texts: list[Content] = []
        self._reasoning: list[Raw] = []
        self._calls: list[Call] = []
        self._texts_of_prompt = 0  # how many of the texts are the prompt's, where the turn goes on from there
        self._calls_made = 0
        self._unanswered: dict[bytes, Raw] = {}  # the ids of calls that have no result yet, in order
        self._has_thought = False
        self._in_output = False
        self._has_output = False  # the turn that goes on has something of the output
        self._own = False
        self._all_own = False

    def begin_output(self, output: list[Item]) -> None:
        """Take what follows for the output; where turns are marked, it does not go on with a turn of the prompt."""
        if self._layout.loss == "own":
            self.end_turn()
        self._in_output = True
        self._texts_of_prompt = len(self._texts)
        self._all_own = not any(map(has_ids, output))

    def add(self, item: Item, *, roleless: str) -> None:
        """Add one item."""
        before = len(self._reasoning) + len(self._calls)
        match kind_of(item):
            case "function_call":
                self._see_whose(item)
                self._add_calls([Called(item.name, item.arguments, item.call_id)])
            case "reasoning":
                self._see_whose(item)
                self._think(reasoning_of(item))
            case "function_call_output":
                self.end_turn()
                self._add_result(content_of(item.output), item.call_id)
            case "message":
                self._add_message(item, roleless if item.role is None else item.role)
            case kind:
                raise AssertionError(f"no turn for item kind {kind}")
        if self._in_output and len(self._reasoning) + len(self._calls) > before:
            self._has_output = True

    def _add_message(self, item: Item, role: str) -> None:
        content = said_in(item)
        calls = chat_shaped_calls(item, role) if item.tool_calls or item.function_call else []
        if role == ASSISTANT:
            self._see_whose(item)
            if is_string(item.reasoning_content) and item.reasoning_content != NO_TEXT:
                self._think([item.reasoning_content])
            if content not in (NO_TEXT, []):
                self._texts.append(content)
            self._add_calls(calls)
            return
        self.end_turn()
        if role in ("tool", "function"):  # the latter in an older dialect
            self._add_result(content, item.tool_call_id or item.call_id)
        else:
            self.turns.append(ChatTurn("system" if role == "developer" else role, content))

    def _see_whose(self, item: Item) -> None:
        self._own = self._own or (self._in_output and (self._all_own or has_ids(item)))

    def _think(self, texts: list[Raw]) -> None:
        self._has_thought = self._has_thought or bool(texts)
        if self._layout.reasoning == "think":
            self._texts += map(in_think_tags, texts)
        elif self._layout.reasoning == "field":
            self._reasoning += texts

    def _add_calls(self, calls: list[Called]) -> None:
        for called in calls:
            identity = called.id if is_string(called.id) else Raw(b'"unnamed_call_%d"' % self._calls_made)
            self._calls_made += 1
            self._unanswered[bytes(identity)] = identity
            arguments = _arguments(called, self._layout)
            self._calls.append(Call(identity, "function", CalledFunction(called.name, arguments)))

    def _add_result(self, content: Content, identity: Raw) -> None:
        """Add what a call gave; where it does not say which, it is taken for the first that waits for an answer."""
        if not is_string(identity):
            identity = next(iter(self._unanswered.values()), NO_TEXT)
        self._unanswered.pop(bytes(identity), None)
        turn = ChatTurn("tool", content)
        if identity != NO_TEXT:  # of the input's own empty text msgspec does not know that it is the default
            turn.tool_call_id = identity
        self.turns.append(turn)

    def end_turn(self) -> None:
        """Finish the assistant's turn, if it has anything in it."""
        texts = self._texts if self._layout.reasoning == "think" else self._texts_without_thoughts()
        content = _one_content([text for text in texts if text != NO_TEXT])
        reasoning = joined(_parted(self._reasoning)) if self._reasoning else NO_TEXT
        if content != NO_TEXT or self._calls or self._reasoning:
            turn = ChatTurn(ASSISTANT, content, reasoning, self._calls)
            if self._layout.loss == "own":
                turn.weight = turn.loss_mask = int(self._own)
            self.turns.append(turn)
            says_more = any(text != NO_TEXT for text in texts[self._texts_of_prompt :])
            if self._has_output or (self._in_output and says_more):
                self.end = len(self.turns)
        self._texts, self._reasoning, self._calls, self._texts_of_prompt = [], [], [], 0
        self._has_output = self._own = self._has_thought = False

    def _texts_without_thoughts(self) -> list[Content]:
        """Take the reasoning from the front of each text, of which there may be nothing left."""
        texts: list[Content] = []
        for number, text in enumerate(self._texts, 1):
            if isinstance(text, Raw):
                goes_on = number < len(self._texts) or bool(self._calls)
                inside, text = told_apart(text, may_lack_opening=not self._has_thought, goes_on=goes_on)
                if inside and self._layout.reasoning == "field":
                    self._reasoning.append(inside)
                    self._has_output = self._has_output or (self._in_output and number > self._texts_of_prompt)
            texts.append(text)
        return texts


def _one_content(texts: list[Content]) -> Content:
    """Put the texts of one turn together, with parts that are no text where there are any."""
    strings = [text for text in texts if isinstance(text, Raw)]
    if len(strings) == len(texts):
        return joined(strings)
    return [part for text in texts for part in ([TextPart(text)] if isinstance(text, Raw) else text)]


def _parted(texts: list[Raw]) -> list[Raw]:
    return [piece for text in texts for piece in (_BETWEEN, text)][1:]


def _arguments(called: Called, layout: Layout) -> Arguments:
    keys = keys_of(called.name, called.arguments)
    if layout.arguments == "object":
        return keys
    if is_string(called.arguments):
        return called.arguments  # as the model wrote it
    return Raw(_encode(_encode(keys).decode()))


def _with_instructions(turns: list[ChatTurn], instructions: Raw) -> list[ChatTurn]:
    """Begin with one system turn: the instructions, and the system turns that stand in front.

    Several templates take one alone (Qwen3.5 raises at a second).
    """
    count = next((place for place, turn in enumerate(turns) if turn.role != "system"), len(turns))
    contents: list[Content] = [instructions, *(turn.content for turn in turns[:count] if turn.content != NO_TEXT)]
    strings = [content for content in contents if isinstance(content, Raw)]
    content = joined(_parted(strings)) if len(strings) == len(contents) else _one_content(contents)
    return [ChatTurn("system", content), *turns[count:]]


def _tool(tool: Function) -> Tool:
    return Tool("function", OfferedFunction(tool.name, tool.description, tool.parameters))
