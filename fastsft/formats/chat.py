"""The `chat` layout: turn by turn what the model produced, as NeMo Gym's own converter to chat completions has it.

Reasoning, text and calls between two results or turns of others are one assistant turn. Calls
are `{"id", "type": "function", "function": {"name", "arguments"}}`, results have the id of
their call, tools are nested. Source: `ResponsesConverter` in NeMo Gym's `nemo_gym/responses_converter.py`;
README lists where we differ.
"""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

import msgspec
from msgspec import Raw

from fastsft.errors import Refused
from fastsft.escape import excerpt
from fastsft.formats.calls import ASSISTANT, Called, chat_shaped_calls, keys_of
from fastsft.formats.content import NO_TEXT, Content, TextPart, content_of, said_in
from fastsft.formats.loss import has_ids
from fastsft.formats.reasoning import (
    closes,
    in_think_tags,
    is_opening,
    may_be_tagged,
    opens,
    reasoning_of,
    reasoning_of_turn,
    told_apart,
)
from fastsft.formats.row import PLAIN, Layout, Row
from fastsft.formats.tools import Function, tools_of
from fastsft.formats.turns import instructions_of, kind_of
from fastsft.formats.values import joined, text_of
from fastsft.rollout import ABSENT, Item, Rollout, is_string, json_type

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
    return Row(ChatRow(turns, tools_of(rollout.tools, _tool)), len(talk.turns) - talk.end, talk.has_ids)


class _Talk:
    """The turns so far, and the assistant's turn that goes on.

    Attributes:
        turns: The finished turns.
        end: How many of them there are up to the last assistant turn that has something of the output; 0 without one.
        has_ids: Whether there are calls, or results that name one.
    """

    def __init__(self, layout: Layout) -> None:
        self.turns: list[ChatTurn] = []
        self.end = 0
        self.has_ids = False
        self._layout = layout
        self._texts: list[tuple[Content, int]] = []  # what was said at once, and how many calls were made before
        self._reasoning: list[Raw] = []
        self._calls: list[Call] = []
        self._texts_of_prompt = 0  # how many of the texts are the prompt's, where the turn goes on from there
        self._calls_made = 0
        self._unanswered: dict[str, deque[Raw]] = {}  # the ids of calls that have no result yet, in order
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
                self._add_result(content_of(item.output), _id(item.call_id))
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
            if item.reasoning_content or item.reasoning:
                self._think(reasoning_of_turn(item))
            if content not in (NO_TEXT, []):
                self._say(content)
            self._add_calls(calls)
            return
        self.end_turn()
        if role in ("tool", "function"):  # the latter in an older dialect
            self._add_result(content, _id(item.tool_call_id) or _id(item.call_id))
        else:
            self.turns.append(ChatTurn("system" if role == "developer" else role, content))

    def _see_whose(self, item: Item) -> None:
        self._own = self._own or (self._in_output and (self._all_own or has_ids(item)))

    def _say(self, content: Content) -> None:
        self._texts.append((content, len(self._calls)))

    def _think(self, texts: list[Raw]) -> None:
        self._has_thought = self._has_thought or bool(texts)
        if self._layout.reasoning == "think":
            for text in texts:
                self._say(in_think_tags(text))
        elif self._layout.reasoning == "field":
            self._reasoning += texts

    def _add_calls(self, calls: list[Called]) -> None:
        for called in calls:
            identity = _id(called.id) or Raw(b'"unnamed_call_%d"' % self._calls_made)
            self._calls_made += 1
            self.has_ids = True
            self._unanswered.setdefault(text_of(identity), deque()).append(identity)
            arguments = _arguments(called, self._layout)
            self._calls.append(Call(identity, "function", CalledFunction(called.name, arguments)))

    def _add_result(self, content: Content, identity: Raw | None) -> None:
        """Add what a call gave; where it does not say which, it is taken for the first that waits for an answer."""
        if identity is None:
            identity = next(iter(self._unanswered.values()), [NO_TEXT])[0]
        name = text_of(identity)
        if waiting := self._unanswered.get(name):
            waiting.popleft()  # an id may stand on several calls
            if not waiting:
                del self._unanswered[name]
        turn = ChatTurn("tool", content)
        if identity != NO_TEXT:  # of the input's own empty text msgspec does not know that it is the default
            turn.tool_call_id = identity
            self.has_ids = True
        self.turns.append(turn)

    def end_turn(self) -> None:
        """Finish the assistant's turn, if it has anything in it."""
        whole = self._layout.reasoning == "think"
        texts = [text for text, _ in self._texts] if whole else self._texts_without_thoughts()
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
        """Take the reasoning from the front of each text, of which there may be nothing left.

        A text in which reasoning begins and does not end goes on in the next, as where a prompt begins the answer.
        """
        left: list[Content] = []
        begun: list[Raw] = []
        for place, (text, calls_before) in enumerate(self._texts):
            if isinstance(text, Raw) and (begun or may_be_tagged(text)):
                behind, calls_then = self._texts[place + 1] if place + 1 < len(self._texts) else (None, -1)
                next_is_on = isinstance(behind, Raw) and calls_then == calls_before and not opens(behind)
                if not begun and is_opening(text) and (self._has_thought or not next_is_on):
                    text = NO_TEXT  # of reasoning that stands apart, or of none
                elif next_is_on and not closes(text) and (begun or opens(text)):
                    begun.append(text)
                    text = NO_TEXT
                else:
                    text, begun = joined([*begun, text]), []
                    goes_on = behind is not None or len(self._calls) > calls_before
                    inside, text = told_apart(text, may_lack_opening=not self._has_thought, goes_on=goes_on)
                    if inside and self._layout.reasoning == "field":
                        self._reasoning.append(inside)
                        self._has_output = self._has_output or (self._in_output and place >= self._texts_of_prompt)
            left.append(text)
        return left


def _id(raw: Raw) -> Raw | None:
    """Give the id of a call, or None without one.

    Raises:
        Refused: It is no text, so it is not known which result belongs to which call.
    """
    if is_string(raw):
        return raw
    if json_type(raw) in ("absent", "null"):
        return None
    raise Refused("bad_item", f"the id of a call is not a string, found {excerpt(raw)}")


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
