"""Which functions an item calls, in the dialect of Responses or of chat."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from fastsft.errors import Refused
from fastsft.escape import excerpt
from fastsft.formats.values import joined, object_of, text_of
from fastsft.rollouts.rollout import ABSENT, QUOTE, Item, is_string, json_type

ASSISTANT = "assistant"
_DELIMITER = Raw(b'"__"')  # NeMo Gym's, between a namespace and a name (`nemo_gym/responses_streaming.py`)
_encode = msgspec.json.Encoder().encode


class Called(msgspec.Struct, omit_defaults=True, gc=False):
    """One function call, as the `openai` layout writes it once `written` and `id` are taken out of it.

    Attributes:
        name: The function as the model saw it, a JSON string.
        arguments: By their keys.
        written: The arguments as the rollout has them, a JSON string or another value; `ABSENT` for none.
        id: What its result refers to, a JSON string; `ABSENT` where it has none.
    """

    name: Raw
    arguments: dict[str, Raw]
    written: Raw = ABSENT
    id: Raw = ABSENT

    def as_string(self) -> Raw:
        """Return the arguments as a JSON string that holds an object, as the model wrote it if it did."""
        if is_string(self.written) and not _says_nothing(text_of(self.written)):
            return self.written
        return Raw(_encode(_encode(self.arguments).decode()))


def call_of(item: Item) -> Called:
    """Return the call that a `function_call` item is.

    Raises:
        Refused: It has no function name, or its arguments are not a JSON object fit for a row.
    """
    return _called(item.name, item.arguments, id_of(item.call_id), item.namespace)


def _called(name: Raw, arguments: Raw, identity: Raw, namespace: Raw = ABSENT) -> Called:
    if not name or memoryview(name)[0] != QUOTE:
        raise Refused("bad_item", f"a call has no function name, found {excerpt(name)}")
    if namespace:
        name = in_namespace(namespace, name)
    return Called(name, _arguments_of(name, arguments), arguments, identity)


def in_namespace(namespace: Raw, name: Raw) -> Raw:
    """Return the name of a function that is grouped under a namespace, as models see it: `shop__find`.

    Raises:
        Refused: The namespace is no text.
    """
    if json_type(namespace) == "null" or namespace == b'""':
        return name
    if not is_string(namespace):
        raise Refused("bad_item", f"the namespace of a function is not a string, found {excerpt(namespace)}")
    return joined([namespace, _DELIMITER, name])


def id_of(raw: Raw) -> Raw:
    """Return the id of a call; `ABSENT` without one.

    Raises:
        Refused: It is no text, so it is not known which result belongs to which call.
    """
    if not raw or memoryview(raw)[0] == QUOTE:
        return raw
    if json_type(raw) == "null":
        return ABSENT
    raise Refused("bad_item", f"the id of a call is not a string, found {excerpt(raw)}")


def _says_nothing(arguments: str) -> bool:
    """Tell whether written arguments are none: a model that calls without any may write nothing, or null."""
    return arguments.isspace() or arguments in ("", "null")


def _arguments_of(name: Raw, arguments: Raw) -> dict[str, Raw]:
    if not arguments:
        return {}
    value = text_of(arguments) if memoryview(arguments)[0] == QUOTE else arguments
    try:
        return object_of(value)
    except msgspec.DecodeError:
        if _says_nothing(value) if isinstance(value, str) else json_type(value) == "null":
            return {}
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
    """Return the calls of a chat-shaped turn.

    Raises:
        Refused: They have the wrong shape, or are not the assistant's.
    """
    calls: list[Called] = []
    try:
        if json_type(item.tool_calls) not in ("absent", "null"):
            found = _chat_calls.decode(item.tool_calls)
            calls += [_called(call.function.name, call.function.arguments, id_of(call.id)) for call in found]
        if json_type(item.function_call) not in ("absent", "null"):
            function = _chat_function.decode(item.function_call)
            calls.append(_called(function.name, function.arguments, ABSENT))
    except msgspec.ValidationError as error:
        raise Refused("bad_item", f"the calls of a chat-shaped turn have the wrong shape: {error}") from None
    if calls and role != ASSISTANT:
        raise Refused("bad_item", f"a turn of {excerpt(role.encode())} makes calls, which only the assistant does")
    return calls
