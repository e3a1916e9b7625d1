"""Preference rows -> what is wrong with them: pairs of a chosen and a rejected side, and sides with a label.

What holds for a conversation holds for the context with the chosen side. The rejected side may be as bad as it is,
where a loader and a template take it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from fastsft.checks.rules import Found, conversation_findings, findings_of, is_pair
from fastsft.formats.calls import ASSISTANT

_encode = msgspec.json.Encoder().encode

# What stops a loader or a template, on whichever side it is.
_OF_REJECTED = frozenset(
    {"not_a_row", "unknown_role", "bad_content", "bad_tool", "bad_call", "bad_arguments", "last_role", "media_parts"}
)
_ROLES_OF_SHAREGPT = {
    "human": "user",
    "gpt": ASSISTANT,
    "observation": "tool",
    "function_call": ASSISTANT,
    "system": "system",
}
NEMO_RL, BINARY, TRL, KTO, OPENAI, LLAMA_FACTORY = "nemo-rl", "binary", "trl", "kto", "openai", "llama-factory"
PREFERENCES = (NEMO_RL, BINARY, TRL, KTO, OPENAI, LLAMA_FACTORY)


class Preference(msgspec.Struct):
    """What a preference row says, in whichever format.

    Attributes:
        format: The format.
        context: What both sides answer, as messages.
        chosen: What is to be preferred; of `kto` the one side, whatever its label.
        rejected: The other side; None in `kto`.
        tools: The tools on offer, as the row has them.
        label: Of `kto`, whether the side is a good one.
    """

    format: str
    context: list[Any]
    chosen: list[Any]
    rejected: list[Any] | None
    tools: Any = None
    label: bool | None = None

    @property
    def sides(self) -> list[tuple[str, list[Any]]]:
        """The sides by their names."""
        return [("chosen", self.chosen), *([("rejected", self.rejected)] if self.rejected is not None else [])]


class _Odd(Exception):
    """A row has not the shape of its format; the finding says how."""

    def __init__(self, detail: str, kind: str = "bad_pair") -> None:
        super().__init__(detail)
        self.found = Found(kind, detail)


def kind_of_row(row: Any) -> str | None:
    """Tell a `conversation`, a `pair` of input and output, and each format of preferences, from what is no row."""
    if not isinstance(row, dict):
        return None
    if found := preference_format(row):
        return found
    if isinstance(row.get("messages"), list):
        return "conversation"
    return "pair" if is_pair(row) and "responses_create_params" not in row else None


def preference_format(row: dict[str, Any]) -> str | None:
    """Tell which format of preferences a row has, by its keys; None for other rows."""
    if "responses_create_params" in row:
        return None
    if "completions" in row:
        return NEMO_RL
    if "preferred_output" in row or "non_preferred_output" in row:
        return OPENAI
    if "chosen" in row or "rejected" in row:
        if "messages" in row or "conversations" in row:
            return LLAMA_FACTORY
        return BINARY if isinstance(row.get("chosen"), str) or isinstance(row.get("rejected"), str) else TRL
    return KTO if "completion" in row and "label" in row else None


def preference_of(row: dict[str, Any]) -> Preference | Found:
    """Read a preference row, or say what is odd about it."""
    found = preference_format(row)
    assert found is not None
    try:
        return _READERS[found](row)
    except _Odd as odd:
        return odd.found


def findings_in(row: dict[str, Any]) -> Iterator[Found]:
    """Find what is wrong with a row by itself, whichever kind it is."""
    if preference_format(row) is None:
        yield from findings_of(row)
        return
    read = preference_of(row)
    if isinstance(read, Found):
        yield read
        return
    yield from _of_sides(read)
    for name, side in read.sides:
        for found in conversation_findings([*read.context, *side], read.tools):
            if (name == "chosen" or found.kind in _OF_REJECTED) and found.kind not in _SAID_OTHERWISE.get(
                read.format, ()
            ):
                yield Found(found.kind, f"{name}: {found.detail}")


# Of NeMo RL's pairs other findings say the same, or the opposite: its tools are dropped, its arguments are text.
_SAID_OTHERWISE = {NEMO_RL: ("no_tools", "string_arguments", "undeclared_tool"), BINARY: ("no_tools",)}


def _of_sides(read: Preference) -> Iterator[Found]:
    if read.rejected is not None:
        if read.chosen == read.rejected:
            yield Found("same_sides")
        elif _last_answers_another_context(read):
            yield Found("other_context", "the sides differ before their last message")
    if read.format == NEMO_RL:
        calls = [call for _, side in read.sides for message in (*read.context, *side) for call in _calls_in(message)]
        if read.tools or calls:
            yield Found("tools_dropped", "tools" if read.tools else "calls")
        if any(isinstance(_called(call).get("arguments"), dict) for call in calls):
            yield Found("object_arguments", "calls")
    elif read.format in (TRL, KTO) and any(
        message.get("role") != ASSISTANT for _, side in read.sides for message in side[:-1]
    ):
        yield Found("results_trained", "a side has turns that are not the assistant's")


def _last_answers_another_context(read: Preference) -> bool:
    """Tell whether a trainer that learns from the last message alone compares answers to different contexts."""
    assert read.rejected is not None
    if read.format == TRL:
        return not read.context  # the sides hold whole conversations, and no beginning is common to them
    return read.format == NEMO_RL and read.chosen[:-1] != read.rejected[:-1]


def _calls_in(message: dict[str, Any]) -> list[Any]:
    calls = message.get("tool_calls")
    return calls if isinstance(calls, list) else []


def _called(call: Any) -> dict[str, Any]:
    called = call.get("function", call) if isinstance(call, dict) else None
    return called if isinstance(called, dict) else {}


def _of_nemo_rl(row: dict[str, Any]) -> Preference:
    context, completions = _messages(row.get("context"), "context"), row["completions"]
    if not isinstance(completions, list) or len(completions) != 2:
        count = len(completions) if isinstance(completions, list) else type(completions).__name__
        raise _Odd(f"completions: {count}, and it takes two")
    sides: list[tuple[float, list[Any]]] = []
    for number, one in enumerate(completions):
        rank = one.get("rank") if isinstance(one, dict) else None
        if not isinstance(rank, (int, float)) or isinstance(rank, bool):
            raise _Odd(f"completion {number} has no rank that is a number")
        sides.append((rank, _side(one.get("completion"), f"completion {number}")))
    if sides[0][0] == sides[1][0]:
        raise _Odd(f"both completions have rank {sides[0][0]}", "tie")
    chosen, rejected = sorted(sides, key=lambda side: side[0])
    return Preference(NEMO_RL, context, chosen[1], rejected[1], row.get("tools"))


def _of_binary(row: dict[str, Any]) -> Preference:
    prompt = row.get("prompt")
    context = [_text_turn("user", prompt)] if isinstance(prompt, str) else _messages(prompt, "prompt")
    sides = []
    for name in ("chosen", "rejected"):
        if not isinstance(row.get(name), str):
            raise _Odd(f"{name} is no text, and the other side is")
        sides.append([_text_turn(ASSISTANT, row[name])])
    _check_no_tie(row)
    return Preference(BINARY, context, sides[0], sides[1])


def _check_no_tie(row: dict[str, Any]) -> None:
    """Make sure that the rewards of a row of the guide's script, where it has them, prefer the chosen side."""
    chosen, rejected = row.get("chosen_reward"), row.get("rejected_reward")
    if isinstance(chosen, (int, float)) and isinstance(rejected, (int, float)) and chosen <= rejected:
        raise _Odd(f"chosen_reward {chosen} is not above rejected_reward {rejected}", "tie")


def _of_trl(row: dict[str, Any]) -> Preference:
    chosen, rejected = (_side(row.get(name), name) for name in ("chosen", "rejected"))
    if "prompt" in row:
        return Preference(TRL, _messages(row["prompt"], "prompt"), chosen, rejected, row.get("tools"))
    shared = 0  # as TRL and OpenRLHF find the prompt
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    return Preference(TRL, chosen[:shared], chosen[shared:], rejected[shared:], row.get("tools"))


def _of_kto(row: dict[str, Any]) -> Preference:
    prompt, completion, label = row.get("prompt"), row["completion"], row["label"]
    if not isinstance(label, bool):
        raise _Odd(f"the label is neither true nor false but a {type(label).__name__}")
    context = [_text_turn("user", prompt)] if isinstance(prompt, str) else _messages(prompt, "prompt")
    if isinstance(completion, str) != isinstance(prompt, str):
        raise _Odd("prompt and completion are text and messages")
    side = [_text_turn(ASSISTANT, completion)] if isinstance(completion, str) else _side(completion, "completion")
    return Preference(KTO, context, side, None, row.get("tools"), label)


def _of_openai(row: dict[str, Any]) -> Preference:
    asked = row.get("input")
    if not isinstance(asked, dict):
        raise _Odd("input is no object with messages")
    context = _messages(asked.get("messages"), "input.messages")
    chosen, rejected = (_side(row.get(name), name) for name in ("preferred_output", "non_preferred_output"))
    return Preference(OPENAI, context, chosen, rejected, asked.get("tools"))


def _of_llama_factory(row: dict[str, Any]) -> Preference:
    name = "messages" if "messages" in row else "conversations"
    sides = []
    for side in ("chosen", "rejected"):
        if not isinstance(row.get(side), dict):
            raise _Odd(f"{side} is not one message")
        sides.append([_plain_turn(row[side])])
    context = [_plain_turn(message) for message in _messages(row[name], name)]
    return Preference(LLAMA_FACTORY, context, sides[0], sides[1], row.get("tools") or None)


_READERS = {
    NEMO_RL: _of_nemo_rl,
    BINARY: _of_binary,
    TRL: _of_trl,
    KTO: _of_kto,
    OPENAI: _of_openai,
    LLAMA_FACTORY: _of_llama_factory,
}


def _messages(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
        raise _Odd(f"{name} is no list of messages")
    return value


def _side(value: Any, name: str) -> list[Any]:
    messages = _messages(value, name)
    if not messages:
        raise _Odd(f"{name} is empty")
    return messages


def _text_turn(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": text}


def _plain_turn(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message as chat has it, of ShareGPT's keys or of chat's own."""
    if "from" not in message:
        return message
    return {"role": _ROLES_OF_SHAREGPT.get(str(message["from"]), message["from"]), "content": message.get("value")}


def conversations_of(read: Preference) -> list[tuple[str, bytes]]:
    """Return each side behind its context as an encoded row, as templates see it: in NeMo RL without tools."""
    tools = {"tools": read.tools} if read.tools and read.format != NEMO_RL else {}
    return [(name, _encode({"messages": [*read.context, *side], **tools})) for name, side in read.sides]


def side_nbytes(read: Preference) -> list[int]:
    """Return how long each side is, in bytes of its JSON."""
    return [len(_encode(side)) for _, side in read.sides]
