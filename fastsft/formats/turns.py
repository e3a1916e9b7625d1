"""Items -> turns: what the layouts share.

Whatever dialect an item has (Responses or chat, string or list of parts), it
becomes the same turn here. Text stays raw JSON from the input line to the row.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from msgspec import Raw

from fastsft.errors import Refused
from fastsft.escape import excerpt
from fastsft.formats.values import joined, object_of, plain, text_of
from fastsft.rollout import ABSENT, QUOTE, Item, Rollout, is_string, json_type

_LIST = ord("[")

ASSISTANT = "assistant"
NO_TEXT = Raw(b'""')


class TextPart(msgspec.Struct, tag="text", tag_field="type", gc=False):
    """Text beside an image, as chat rows have it."""

    text: Raw


class ImageUrl(msgspec.Struct, gc=False):
    """Where an image is: a web address or a `data:` one; both fields are JSON strings."""

    url: Raw
    detail: Raw = Raw(b'"auto"')


class ImagePart(msgspec.Struct, tag="image_url", tag_field="type", gc=False):
    """An image, as chat rows have it."""

    image_url: ImageUrl | Raw


# A string for text alone; a list of parts as soon as something else is among them.
Content: TypeAlias = "Raw | list[TextPart | ImagePart | Raw]"


class Call(msgspec.Struct, gc=False):
    """One function call: the name, a JSON string, and the arguments, a JSON object by its keys."""

    name: Raw
    arguments: dict[str, Raw]


class Turn(msgspec.Struct, omit_defaults=True, gc=False):
    """One message of a row."""

    role: str
    content: Content
    tool_calls: list[Call] = []


class _Part(msgspec.Struct, gc=False):
    """Any part of a content list; which fields it has depends on `type`."""

    type: str | None = None
    text: Raw = ABSENT
    refusal: Raw = ABSENT
    image_url: Raw = ABSENT
    detail: Raw = ABSENT


class _ChatFunction(msgspec.Struct, gc=False):
    name: Raw = ABSENT
    arguments: Raw = ABSENT


class _ChatCall(msgspec.Struct, gc=False):
    function: _ChatFunction


_parts = msgspec.json.Decoder(list[_Part])
_raw_parts = msgspec.json.Decoder(list[Raw])
_chat_calls = msgspec.json.Decoder(list[_ChatCall])
_chat_function = msgspec.json.Decoder(_ChatFunction)


def conversation(rollout: Rollout) -> tuple[list[Turn], int]:
    """Give the turns of prompt and output up to the last assistant turn, and how many were cut behind it.

    A row that ends otherwise stops the whole load in NeMo RL.

    Raises:
        Refused: An item cannot become a turn, or the output has no assistant turn.
    """
    prompt = _turns(rollout.prompt, roleless="user")
    output = _turns(rollout.output, roleless=ASSISTANT)
    end = len(output)
    while end and output[end - 1].role != ASSISTANT:
        end -= 1
    if not end:
        raise Refused("nothing_to_imitate", "the output has no assistant turn")
    turns = prompt + output[:end]
    if rollout.instructions not in _NO_INSTRUCTIONS:
        turns.insert(0, Turn("system", _instructions(rollout)))
    return turns, len(output) - end


def _turns(items: list[Item], *, roleless: str) -> list[Turn]:
    """Give each message and result its turn; calls made one after another share one, placed before what follows.

    Reasoning is left out and does not part the calls around it. A message without
    a role has the role `roleless`, the rule of NeMo Gym's SFT guide.
    """
    turns: list[Turn] = []
    calls: list[Call] = []
    for item in items:
        kind = item.type if item.type in _ITEM_KINDS else kind_of(item)
        if kind == "function_call":
            calls.append(_call(item.name, item.arguments))
            continue
        if kind == "reasoning":
            continue
        if calls:
            turns.append(Turn(ASSISTANT, NO_TEXT, calls))
            calls = []
        if kind == "message":
            turns.append(_message(item, item.role or roleless))
        elif kind == "function_call_output":
            turns.append(Turn("tool", content_of(item.output)))
        else:
            raise AssertionError(f"no turn for item kind {kind}")
    if calls:
        turns.append(Turn(ASSISTANT, NO_TEXT, calls))
    return turns


def _message(item: Item, role: str) -> Turn:
    turn = Turn(role, content_of(item.content))
    if item.refusal and turn.content == NO_TEXT and is_string(item.refusal):
        turn.content = item.refusal
    if item.tool_calls or item.function_call:
        turn.tool_calls = _chat_shaped_calls(item, role)
    return turn


def kind_of(item: Item) -> str:
    """Name what an item is: one of the kinds that become turns or are left out knowingly.

    Raises:
        Refused: It is of another kind.
    """
    if item.type in _ITEM_KINDS:
        return item.type
    if item.type is not None:
        raise Refused("unknown_item", f"item type {excerpt(item.type.encode())} has no place in a row")
    if item.role is None and not item.content:
        raise Refused("unknown_item", "an item has neither a type nor a role")
    return "message"


_ITEM_KINDS = frozenset({"message", "function_call", "function_call_output", "reasoning"})


def content_of(raw: Raw) -> Content:
    """Give the content of a message, or what a function returned, as a turn has it.

    Raises:
        Refused: It is neither a string nor a list of parts that a row can hold.
    """
    first = memoryview(raw)[0] if raw else None
    if first == QUOTE:
        return raw
    if first == _LIST:
        return _content_of_parts(raw)
    if json_type(raw) in ("absent", "null"):
        return NO_TEXT
    raise Refused("bad_content", f"content is neither a string nor a list of parts, found {excerpt(raw)}")


def _content_of_parts(raw: Raw) -> Content:
    try:
        parts = _parts.decode(raw)
    except msgspec.ValidationError as error:
        raise Refused("bad_content", f"a part of the content has the wrong type: {error}") from None
    if len(parts) == 1 and parts[0].type == "output_text" and is_string(parts[0].text):
        return parts[0].text  # nearly always
    texts = []
    for part in parts:
        if part.type in _TEXT_PARTS or (part.type is None and part.text):
            texts.append(_text_of_part(part))
        elif part.type not in _REASONING_PARTS:
            return _parts_kept(raw, parts)
    return joined(texts)


def _parts_kept(raw: Raw, parts: list[_Part]) -> Content:
    """Give content that is not text alone, in the parts of chat rows."""
    kept: list[TextPart | ImagePart | Raw] = []
    for part, original in zip(parts, _raw_parts.decode(raw), strict=True):
        match part.type:
            case "input_image":
                kept.append(_image(part))
            case "image_url" | "input_audio" | "file":  # chat parts already
                kept.append(plain(original))
            case name if name in _REASONING_PARTS:
                continue
            case name if name in _TEXT_PARTS or (name is None and part.text):
                kept.append(TextPart(_text_of_part(part)))
            case None:
                raise Refused("unknown_part", "a part of the content has neither a type nor text")
            case other:
                raise Refused("unknown_part", f"content part {excerpt(other.encode())} has no place in a row")
    return kept


# `refusal` is text too: what the model said when it would not.
_TEXT_PARTS = frozenset({"text", "input_text", "output_text", "refusal"})
_REASONING_PARTS = frozenset({"reasoning_text", "summary_text"})  # left out, as reasoning items are


def _text_of_part(part: _Part) -> Raw:
    text = part.text or part.refusal
    if not is_string(text):
        raise Refused("bad_content", f"a text part has no text, found {excerpt(text)}")
    return text


def _image(part: _Part) -> ImagePart:
    match json_type(part.image_url):
        case "string":
            detail = part.detail if json_type(part.detail) == "string" else Raw(b'"auto"')
            return ImagePart(ImageUrl(part.image_url, detail))
        case "object":  # a chat-shaped image in a Responses part
            return ImagePart(plain(part.image_url))
        case _:
            raise Refused("bad_content", f"an image has no image_url, found {excerpt(part.image_url)}")


def _instructions(rollout: Rollout) -> Raw:
    if not is_string(rollout.instructions):
        raise Refused("bad_content", f"instructions are not a string, found {excerpt(rollout.instructions)}")
    return rollout.instructions


_NO_INSTRUCTIONS = (Raw(b"null"), ABSENT, NO_TEXT)


def _chat_shaped_calls(item: Item, role: str) -> list[Call]:
    calls: list[_ChatFunction] = []
    try:
        if json_type(item.tool_calls) not in ("absent", "null"):
            calls += [call.function for call in _chat_calls.decode(item.tool_calls)]
        if json_type(item.function_call) not in ("absent", "null"):
            calls.append(_chat_function.decode(item.function_call))
    except msgspec.ValidationError as error:
        raise Refused("bad_item", f"the calls of a chat-shaped turn have the wrong shape: {error}") from None
    if calls and role != ASSISTANT:
        raise Refused("bad_item", f"a turn of {excerpt(role.encode())} makes calls, which only the assistant does")
    return [_call(call.name, call.arguments) for call in calls]


def _call(name: Raw, arguments: Raw) -> Call:
    if not is_string(name):
        raise Refused("bad_item", f"a call has no function name, found {excerpt(name)}")
    if not arguments:
        return Call(name, {})  # the rule of NeMo Gym's SFT guide
    value = text_of(arguments) if is_string(arguments) else arguments
    try:
        return Call(name, object_of(value))
    except msgspec.DecodeError:
        found = value.encode() if isinstance(value, str) else value
        raise Refused("bad_arguments", _not_an_object(name, found)) from None


def _not_an_object(name: Raw, found: bytes | Raw) -> str:
    return f"arguments of call {excerpt(text_of(name).encode())} are not a JSON object, found {excerpt(found)}"
