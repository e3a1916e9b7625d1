"""What the model thought: reasoning items, and `<think>` tags inside a text."""

from __future__ import annotations

import re

import msgspec
from msgspec import Raw

from fastsft.errors import Refused
from fastsft.escape import excerpt
from fastsft.formats.values import joined, text_of
from fastsft.rollout import Item, is_string, json_type


class _Text(msgspec.Struct, gc=False):
    text: Raw = Raw(b'""')


_texts = msgspec.json.Decoder(list[_Text])
_encode = msgspec.json.Encoder().encode

OPEN, CLOSE = "<think>", "</think>"
_CLOSE_AT_LINE_END = re.compile(rf"{CLOSE}\r?(?:\n|\Z)")
_OPEN, _CLOSE = Raw(b'"<think>"'), Raw(b'"</think>"')
_NO_TEXT = Raw(b'""')


def reasoning_of(item: Item) -> list[Raw]:
    """Give the texts of a reasoning item: its summary's, else its content's; none that is empty.

    Raises:
        Refused: They are not a list of texts.
    """
    for raw in (item.summary, item.content):
        if is_string(raw) and raw != _NO_TEXT:
            return [raw]
        if json_type(raw) != "list":
            continue
        try:
            texts = [part.text for part in _texts.decode(raw)]
        except msgspec.ValidationError as error:
            raise Refused("bad_item", f"reasoning is not a list of texts: {error}") from None
        if found := [text for text in texts if is_string(text) and text != _NO_TEXT]:
            return found
    return []


def reasoning_of_turn(item: Item) -> list[Raw]:
    """Give the reasoning that stands in a chat-shaped turn, under its older or its newer name; none if it is empty.

    Raises:
        Refused: `reasoning_content` is no text; `reasoning` may be something else, as settings are.
    """
    if not is_string(item.reasoning_content) and json_type(item.reasoning_content) not in ("absent", "null"):
        raise Refused("bad_item", f"reasoning_content is not a string, found {excerpt(item.reasoning_content)}")
    texts = [raw for raw in (item.reasoning_content, item.reasoning) if is_string(raw) and raw != _NO_TEXT]
    return texts[:1]


def in_think_tags(text: Raw) -> Raw:
    """Write reasoning as NeMo Gym does where a model has no parser for it."""
    return joined([_OPEN, text, _CLOSE])


def may_be_tagged(text: Raw) -> bool:
    """Tell whether a text may have a tag in it, whose letters are hardly ever escaped, without decoding it."""
    return b"think" in bytes(text)


def told_apart(text: Raw, *, may_lack_opening: bool, goes_on: bool) -> tuple[Raw | None, Raw]:
    r"""Part a text that begins with reasoning in `<think>` tags: the reasoning, or None, and the rest.

    The opening tag may be missing, as some templates write it into the prompt; then the closing one is the first
    that ends a line with more behind it, in the text or where the turn goes on, and any other is a word about
    tags. The closing tag may be missing where the turn goes on, with a call: then all of the text is reasoning.
    Line feeds beside the tags go, as templates write their own.

    >>> [bytes(part) for part in told_apart(Raw(b'"Add.\\n</think>\\n\\n4"'), may_lack_opening=True, goes_on=False)]
    [b'"Add."', b'"4"']
    """
    said = text_of(text)
    if said.lstrip().startswith(OPEN):
        inside, tag, after = said.lstrip().removeprefix(OPEN).partition(CLOSE)
        if not (tag or goes_on):
            return None, text
    else:
        tag_at_end = _CLOSE_AT_LINE_END.search(said) if may_lack_opening else None
        inside, after = (said[: tag_at_end.start()], said[tag_at_end.end() :]) if tag_at_end else ("", "")
        if not tag_at_end or OPEN in inside or not (goes_on or after.strip()):
            return None, text
    inside = inside.strip("\r\n")
    return (Raw(_encode(inside)) if inside else None), Raw(_encode(after.lstrip("\r\n")))


def opens(text: Raw) -> bool:
    """Tell whether a text begins with the tag that opens reasoning."""
    return may_be_tagged(text) and text_of(text).lstrip().startswith(OPEN)


def closes(text: Raw) -> bool:
    """Tell whether a text has a tag in it that closes reasoning."""
    return may_be_tagged(text) and CLOSE in text_of(text)


def is_opening(text: Raw) -> bool:
    """Tell whether a text is the opening tag and nothing else."""
    return text_of(text).strip() == OPEN
