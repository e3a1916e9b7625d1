"""Which functions an item calls, in the dialect of Responses or of chat."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from msgspec import Raw

from fastsft.errors import Refused
from fastsft.escape import excerpt
from fastsft.formats.values import object_of, text_of
from fastsft.rollout import ABSENT, QUOTE, Item, json_type

ASSISTANT = "assistant"


class Called(NamedTuple):
    """One function call as a rollout has it.

    Attributes:
        name: The function, a JSON string.
        arguments: A JSON string that holds an object, or the object; `ABSENT` for none.
        id: What its result refers to, a JSON string; `ABSENT` where there is none.
    """

    name: Raw
    arguments: Raw
    id: Raw = ABSENT


def keys_of(name: Raw, arguments: Raw) -> dict[str, Raw]:
    """Give a call's arguments by their keys; missing ones are none, the rule of NeMo Gym's SFT guide.

    Raises:
        Refused: There is no function name, or the arguments are not a JSON object fit for a row.
    """
    if not name or memoryview(name)[0] != QUOTE:
        raise Refused("bad_item", f"a call has no function name, found {excerpt(name)}")
    if not arguments:
        return {}
    value = text_of(arguments) if memoryview(arguments)[0] == QUOTE else arguments
    try:
        return object_of(value)
    except msgspec.DecodeError:
        found = excerpt(value.encode() if isinstance(value, str) else value)
        problem = f"arguments of call {excerpt(text_of(name).encode())} are not a JSON object, found {found}"
        raise Refused("bad_arguments", problem) from None


class _ChatFunction(msgspec.Struct, gc=False):
    name: Raw = ABSENT
    arguments: Raw = ABSENT


class _ChatCall(msgspec.Struct, gc=False):
    function: _ChatFunction
    id: Raw = ABSENT


_chat_calls = msgspec.json.Decoder(list[_ChatCall])
_chat_function = msgspec.json.Decoder(_ChatFunction)


def chat_shaped_calls(item: Item, role: str) -> list[Called]:
    """Give the calls of a chat-shaped turn.

    Raises:
        Refused: They have the wrong shape, or are not the assistant's.
    """
    calls: list[Called] = []
    try:
        if json_type(item.tool_calls) not in ("absent", "null"):
            found = _chat_calls.decode(item.tool_calls)
            calls += [Called(call.function.name, call.function.arguments, call.id) for call in found]
        if json_type(item.function_call) not in ("absent", "null"):
            function = _chat_function.decode(item.function_call)
            calls.append(Called(function.name, function.arguments))
    except msgspec.ValidationError as error:
        raise Refused("bad_item", f"the calls of a chat-shaped turn have the wrong shape: {error}") from None
    if calls and role != ASSISTANT:
        raise Refused("bad_item", f"a turn of {excerpt(role.encode())} makes calls, which only the assistant does")
    return calls
