"""The layouts of preference pairs, and of judged single rollouts for KTO: two `chat` rows -> one row, by trainer.

What the loaders read was looked up in NeMo RL 7ea279a (`preference_dataset.py`, `binary_preference_dataset.py`), TRL
f2cd577 (`dpo_trainer.py`, `kto_trainer.py`), LLaMA-Factory ff6d4d1 (`data/converter.py`) and OpenAI's guide to DPO.
A new layout is one function below and one line in `PAIR_FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import msgspec
from msgspec import Raw

from fastsft.errors import Refused
from fastsft.formats.calls import ASSISTANT
from fastsft.formats.chat import ChatRow, ChatTurn, Tool, to_chat
from fastsft.formats.content import NO_TEXT, Content
from fastsft.formats.reasoning import in_think_tags
from fastsft.formats.results import TOOL
from fastsft.formats.row import Layout, Row
from fastsft.formats.sides import place_of
from fastsft.formats.tools import tools_in
from fastsft.formats.values import joined, text_of
from fastsft.rollouts.rollout import Rollout

_encode = msgspec.json.Encoder().encode
_STRINGS = Layout(format="chat", arguments="string", tools="string")
# What LLaMA-Factory's own converter of chat messages puts between the results of calls that were made together.
_BETWEEN_RESULTS = Raw(b'"\\n</tool_response>\\n<tool_response>\\n"')

TURNS = ("only", "first-difference", "whole")


class Judged(NamedTuple):
    """Two rows that are compared, or one that is judged by itself.

    Attributes:
        first: The row that is chosen, or the one that is judged.
        second: The rejected one; None where one is judged.
        turn: The turn of the output's assistant, from 1, in which they part; 0 for all from the first one on.
        first_reward: The reward of the first.
        second_reward: That of the second.
        is_good: Whether a row that is judged is one to learn.
    """

    first: Row
    second: Row | None
    turn: int
    first_reward: float
    second_reward: float
    is_good: bool


class _Parted(NamedTuple):
    """What both sides have in common, and how each goes on."""

    context: list[ChatTurn]
    first: list[ChatTurn]
    second: list[ChatTurn]
    tools: list[Tool | Raw] | Raw


class Completion(msgspec.Struct, gc=False):
    """How a conversation goes on, and the better the smaller its rank."""

    rank: int
    completion: list[ChatTurn]


class NemoRlPair(msgspec.Struct, gc=False):
    """`{"context": [...], "completions": [{"rank": 0, ...}, {"rank": 1, ...}]}`: NeMo RL's `PreferenceDataset`."""

    context: list[ChatTurn]
    completions: list[Completion]


class TrlPair(msgspec.Struct, omit_defaults=True, gc=False):
    """`{"prompt": [...], "chosen": [...], "rejected": [...], "tools": ...}`: TRL's `DPOTrainer` and `RewardTrainer`."""

    prompt: list[ChatTurn]
    chosen: list[ChatTurn]
    rejected: list[ChatTurn]
    tools: list[Tool | Raw] | Raw = []


class KtoRow(msgspec.Struct, omit_defaults=True, gc=False):
    """`{"prompt": [...], "completion": [...], "label": true, "tools": ...}`: TRL's `KTOTrainer`."""

    prompt: list[ChatTurn]
    completion: list[ChatTurn]
    label: bool | None = None  # so that false is no default
    tools: list[Tool | Raw] | Raw = []


class BinaryPair(msgspec.Struct, gc=False):
    """The six columns of the script of NeMo Gym's DPO guide: NeMo RL's `BinaryPreferenceDataset`."""

    prompt: Raw
    chosen: Raw
    rejected: Raw
    reward_gap: float
    chosen_reward: float
    rejected_reward: float


class OpenaiInput(msgspec.Struct, omit_defaults=True, gc=False):
    """What is the same on both sides; the API takes `parallel_tool_calls` beside tools alone."""

    messages: list[ChatTurn]
    tools: list[Tool | Raw] | Raw = []
    parallel_tool_calls: bool | None = None


class OpenaiPair(msgspec.Struct, gc=False):
    """`{"input": {...}, "preferred_output": [...], "non_preferred_output": [...]}`: OpenAI's preference fine-tuning."""

    input: OpenaiInput
    preferred_output: list[ChatTurn]
    non_preferred_output: list[ChatTurn]


class Told(msgspec.Struct, rename={"who": "from"}, gc=False):
    """One message as ShareGPT has it."""

    who: str
    value: Content


class LlamaFactoryPair(msgspec.Struct, gc=False):
    """`{"conversations": [...], "chosen": {...}, "rejected": {...}, "system": "", "tools": ""}`: LLaMA-Factory."""

    conversations: list[Told]
    chosen: Told
    rejected: Told
    system: Raw
    tools: Raw


def _parted(judged: Judged) -> _Parted:
    first, second = judged.first, judged.second
    context, one, tools = _side(first, judged.turn)
    other: list[ChatTurn] = []
    if second is not None:
        other_context, other, _ = _side(second, judged.turn)
        if len(other_context) != len(context):
            raise AssertionError("two sides of a pair have contexts of different lengths, please report this")
    return _Parted(context, one, other, tools)


def _side(row: Row, turn: int) -> tuple[list[ChatTurn], list[ChatTurn], list[Tool | Raw] | Raw]:
    assert isinstance(row.body, ChatRow)
    messages = row.body.messages
    start = place_of(row, turn or 1)
    return messages[:start], messages[start : start + 1] if turn else messages[start:], row.body.tools


def _left_out(judged: Judged, *more: str) -> tuple[str, ...]:
    seconds = () if judged.second is None else judged.second.left_out
    return tuple(sorted({*judged.first.left_out, *seconds, *more}))


def _without_tools(parted: _Parted) -> tuple[str, ...]:
    return ("tools",) if parted.tools else ()


def to_nemo_rl(judged: Judged) -> Row:
    """Lay a pair out for NeMo RL, whose loader hands no tools on to the template."""
    parted = _parted(judged)
    body = NemoRlPair(parted.context, [Completion(0, parted.first), Completion(1, parted.second)])
    return Row(body, left_out=_left_out(judged, *_without_tools(parted)))


def to_trl(judged: Judged) -> Row:
    """Lay a pair out for TRL."""
    return Row(TrlPair(*_parted(judged)), left_out=_left_out(judged))


def to_kto(judged: Judged) -> Row:
    """Lay one judged rollout out for TRL."""
    context, completion, _, tools = _parted(judged)
    return Row(KtoRow(context, completion, judged.is_good, tools), left_out=_left_out(judged))


def to_openai_pair(judged: Judged) -> Row:
    """Lay a pair out for OpenAI's preference fine-tuning."""
    context, first, second, tools = _parted(judged)
    given = OpenaiInput(context, tools, True if tools else None)
    return Row(OpenaiPair(given, first, second), left_out=_left_out(judged))


def to_binary(judged: Judged) -> Row:
    """Lay a pair out as texts: what the user asked last, and what the model answered on either side."""
    parted = _parted(judged)
    asked = [turn.content for turn in parted.context if turn.role == "user"]
    more = ["turns"] if len(parted.context) > 1 else []
    gap = judged.first_reward - judged.second_reward
    prompt, chosen, rejected = map(_text, (asked[-1] if asked else NO_TEXT, *(one[0].content for one in parted[1:3])))
    body = BinaryPair(prompt, chosen, rejected, gap, judged.first_reward, judged.second_reward)
    return Row(body, left_out=_left_out(judged, *more, *_without_tools(parted)))


def only_texts(row: Row) -> Row:
    """Leave the calls out of a row of which texts are made.

    Raises:
        Refused: What is asked last, or answered, is no text.
    """
    assert isinstance(row.body, ChatRow)
    messages = [_without_calls(turn) for turn in row.body.messages]
    if len(messages) == row.asked + 1:  # of others there is no row in this layout
        asked = [turn for turn in messages[: row.asked] if turn.role == "user"]
        for turn in [*asked[-1:], messages[-1]]:
            _text(turn.content)
        if messages[-1].content == NO_TEXT and row.body.messages[-1].tool_calls:
            raise Refused("not_text", "a `binary` row holds text alone, and the answer has calls alone")
    left_out = {*row.left_out, *(["calls"] if any(turn.tool_calls for turn in row.body.messages) else [])}
    return Row(ChatRow(messages, row.body.tools), row.turns_cut, row.has_ids, tuple(sorted(left_out)), row.asked)


def _without_calls(turn: ChatTurn) -> ChatTurn:
    return ChatTurn(turn.role, turn.content) if turn.tool_calls else turn


def _text(content: Content) -> Raw:
    if isinstance(content, list):
        raise Refused("not_text", "this layout holds text alone, and this turn has an image, a sound or a file")
    return content


def texts_throughout(row: Row) -> Row:
    """Return a row that has no images, sounds or files.

    Raises:
        Refused: It has some.
    """
    assert isinstance(row.body, ChatRow)
    for turn in row.body.messages:
        _text(turn.content)
    return row


def for_llama_factory(row: Row) -> Row:
    """Leave out the text beside calls, for which LLaMA-Factory has no place.

    Raises:
        Refused: Turns of the user and the assistant do not alternate, as it wants them, or one is no text.
    """
    body = texts_throughout(row).body
    assert isinstance(body, ChatRow)
    messages = [_without_text(turn) if turn.tool_calls else turn for turn in body.messages]
    turns = messages[1:] if messages[0].role == "system" else messages
    expects_answer = False
    for before, turn in zip([None, *turns], turns, strict=False):
        if before is not None and before.role == turn.role == TOOL:
            continue
        if (turn.role == ASSISTANT) != expects_answer or turn.role == "system":
            raise Refused("not_alternating", f"a turn of {turn.role} stands where LLaMA-Factory takes another's")
        expects_answer = not expects_answer
    lost = any(turn.tool_calls and turn.content != NO_TEXT for turn in body.messages)
    left_out = {*row.left_out, *(["texts"] if lost else [])}
    return Row(ChatRow(messages, body.tools), row.turns_cut, row.has_ids, tuple(sorted(left_out)), row.asked)


def _without_text(turn: ChatTurn) -> ChatTurn:
    return ChatTurn(turn.role, NO_TEXT, reasoning_content=turn.reasoning_content, tool_calls=turn.tool_calls)


def to_llama_factory(judged: Judged) -> Row:
    """Lay a pair out in the ShareGPT form of LLaMA-Factory, in which calls are the text of a turn of their own kind."""
    context, (first, *_), (second, *_), tools = _parted(judged)
    system, turns = (context[0].content, context[1:]) if context[0].role == "system" else (NO_TEXT, context)
    conversations: list[Told] = []
    for turn in turns:
        told = _told(turn)
        if conversations and told.who == conversations[-1].who == "observation":
            told = Told(told.who, joined([_text(conversations.pop().value), _BETWEEN_RESULTS, _text(told.value)]))
        conversations.append(told)
    listed = tools_in(tools, _STRINGS) if isinstance(tools, list) else tools
    told_tools = listed if isinstance(listed, Raw) else NO_TEXT
    body = LlamaFactoryPair(conversations, _told(first), _told(second), _text(system), told_tools)
    return Row(body, left_out=_left_out(judged))


def _told(turn: ChatTurn) -> Told:
    if turn.role == TOOL:
        return Told("observation", turn.content)
    if turn.role != ASSISTANT:
        return Told("human", turn.content)
    thought = [] if turn.reasoning_content == NO_TEXT else [in_think_tags(turn.reasoning_content)]
    if not turn.tool_calls:
        return Told("gpt", joined([*thought, _text(turn.content)]))
    calls = [{"name": call.function.name, "arguments": _object(call.function.arguments)} for call in turn.tool_calls]
    return Told("function_call", joined([*thought, Raw(_encode(_encode(calls).decode()))]))


def _object(arguments: dict[str, Raw] | Raw) -> dict[str, Raw] | Raw:
    if isinstance(arguments, dict):
        return arguments
    written = text_of(arguments)
    return Raw(written.encode())


class PairFormat(NamedTuple):
    """A layout of pairs.

    Attributes:
        make: What makes its rows.
        layout: How the messages in it are laid out where nothing else is asked for.
        choices: What of that can be chosen, and among what.
        turns: Which turns two sides may part in; the first is taken if none is asked for.
        fit: What is left out of a side, or why there is none; None where any `chat` row will do.
        pairs: Whether two rollouts are compared; else each is judged by itself.
    """

    make: Callable[[Judged], Row]
    layout: Layout
    choices: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    turns: tuple[str, ...] = ("first-difference", "only")
    fit: Callable[[Row], Row] | None = None
    pairs: bool = True


_REASONING = ("field", "think", "drop")
_OF_TRL: dict[str, tuple[str, ...]] = {
    "arguments": ("object", "string"),
    "reasoning": _REASONING,
    "tools": ("list", "string"),
}

# Arguments are strings unless asked for otherwise: `datasets`, by which all of these load, gives every object the keys
# of all others.
PAIR_FORMATS: dict[str, PairFormat] = {
    "nemo-rl": PairFormat(
        to_nemo_rl, Layout(format="chat", arguments="string", media="nemo-rl"), {"reasoning": _REASONING}
    ),
    "trl": PairFormat(to_trl, _STRINGS, _OF_TRL, ("first-difference", "only", "whole")),
    "binary": PairFormat(
        to_binary, Layout(format="chat", arguments="string", reasoning="drop"), turns=("only",), fit=only_texts
    ),
    "kto": PairFormat(to_kto, _STRINGS, _OF_TRL, ("only", "whole"), pairs=False),
    "openai": PairFormat(
        to_openai_pair,
        Layout(format="chat", arguments="string", reasoning="drop"),
        {"reasoning": ("think", "drop")},
        fit=texts_throughout,
    ),
    "llama-factory": PairFormat(
        to_llama_factory, Layout(format="chat"), {"reasoning": ("think", "drop")}, fit=for_llama_factory
    ),
}


def pair_layout(name: str, chosen: dict[str, str]) -> Layout:
    """Return how the messages in rows of a format are laid out, with what is chosen of that."""
    known = PAIR_FORMATS[name]
    if known.make is to_llama_factory and chosen.get("reasoning") == "think":
        chosen = {**chosen, "reasoning": "field"}  # it writes the tags itself, as they stand in front of calls, too
    return msgspec.structs.replace(known.layout, **chosen)


def side_row(rollout: Rollout, layout: Layout, name: str) -> Row:
    """Return the `chat` row of a rollout, as it can be a side of a row in a format.

    Raises:
        Refused: It cannot.
    """
    row = to_chat(rollout, layout)
    fit = PAIR_FORMATS[name].fit
    return row if fit is None else fit(row)
