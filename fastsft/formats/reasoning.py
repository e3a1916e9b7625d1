"""What the model thought: reasoning items, and `<think>` tags inside a text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias, cast

import msgspec
from msgspec import Raw

from fastsft.errors import Refused
from fastsft.escape import excerpt
from fastsft.formats.content import NO_TEXT, Content
from fastsft.formats.values import joined, text_of
from fastsft.rollouts.rollout import Item, is_string, json_type


class _Text(msgspec.Struct, gc=False):
    text: Raw = Raw(b'""')


_texts = msgspec.json.Decoder(list[_Text])
_encode = msgspec.json.Encoder().encode

OPEN, CLOSE = "<think>", "</think>"
_CLOSE_AT_LINE_END = re.compile(rf"(?P<tag>{CLOSE}\r?(?:\n|\Z))")
# Behind the end of a sentence, or right behind what is no quote: `Use </think> to close it` speaks of the tag.
_CLOSE_AT_WORD_END = re.compile(rf"(?:[.!?:;)\]}}][ \t]*|[^\s\"'`“‘«(<])(?P<tag>{CLOSE})")
_OPEN, _CLOSE = Raw(b'"<think>"'), Raw(b'"</think>"')


def reasoning_of(item: Item) -> list[Raw]:
    """Return the texts of a reasoning item: its content's, else its summary's, which tells less; none that is empty.

    Raises:
        Refused: They are not a list of texts.
    """
    for raw in (item.content, item.summary):
        if is_string(raw) and raw != NO_TEXT:
            return [raw]
        if json_type(raw) != "list":
            continue
        try:
            texts = [part.text for part in _texts.decode(raw)]
        except msgspec.ValidationError as error:
            raise Refused("bad_item", f"reasoning is not a list of texts: {error}") from None
        if found := [text for text in texts if is_string(text) and text != NO_TEXT]:
            return found
    return []


def reasoning_of_turn(item: Item) -> list[Raw]:
    """Return the reasoning that stands in a chat-shaped turn, under its older or its newer name; none if it is empty.

    Raises:
        Refused: `reasoning_content` is no text; `reasoning` may be something else, as settings are.
    """
    if not is_string(item.reasoning_content) and json_type(item.reasoning_content) not in ("absent", "null"):
        raise Refused("bad_item", f"reasoning_content is not a string, found {excerpt(item.reasoning_content)}")
    texts = [raw for raw in (item.reasoning_content, item.reasoning) if is_string(raw) and raw != NO_TEXT]
    return texts[:1]


# What the assistant said or thought at once: the content, how many calls were made before, whether it is a thought.
Piece: TypeAlias = "tuple[Content, int, bool]"


def in_think_tags(text: Raw) -> Raw:
    """Write reasoning as NeMo Gym does where a model has no parser for it."""
    return joined([_OPEN, text, _CLOSE])


def may_be_tagged(text: Raw) -> bool:
    """Tell whether a text may have a tag in it without decoding it.

    Letters are hardly ever escaped; Go's encoder escapes the bracket.
    """
    written = bytes(text)
    return b"think" in written and (b"think>" in written or b"think\\u003" in written)


def split_thoughts(pieces: Sequence[Piece], calls: int) -> tuple[list[Content], list[tuple[int, Raw]]]:
    """Take the reasoning out of the pieces of a turn that makes so many calls.

    A text in which reasoning begins and does not end goes on in the next, as where a prompt begins the answer.

    Returns:
        What is said by each piece, `NO_TEXT` where nothing is left; and each thought with the index of its piece.
    """
    thoughts: list[tuple[int, Raw]] = []
    left: list[Content] = []
    has_tags = False
    for index, (piece, _, is_thought) in enumerate(pieces):
        if is_thought:
            thoughts.append((index, cast("Raw", piece)))
            left.append(NO_TEXT)
        else:
            has_tags = has_tags or (isinstance(piece, Raw) and may_be_tagged(piece))
            left.append(piece)
    return _split_tags(pieces, calls, left, thoughts) if has_tags else (left, thoughts)


def _split_tags(
    pieces: Sequence[Piece], calls: int, left: list[Content], thoughts: list[tuple[int, Raw]]
) -> tuple[list[Content], list[tuple[int, Raw]]]:
    has_thought = bool(thoughts)
    texts = [
        _Said(index, text, text_of(text) if isinstance(text, Raw) and may_be_tagged(text) else "", calls_before)
        for index, (text, calls_before, is_thought) in enumerate(pieces)
        if not is_thought and text != NO_TEXT
    ]
    begun: list[Raw] = []
    for one, behind in zip(texts, [*texts[1:], None], strict=True):
        text = one.content
        if isinstance(text, Raw) and (begun or one.tagged):
            next_is_on = (
                behind is not None
                and isinstance(behind.content, Raw)
                and behind.calls_before == one.calls_before
                and not _opens(behind.tagged)
            )
            if not begun and one.tagged.strip() == OPEN and (has_thought or not next_is_on):
                text = NO_TEXT  # of reasoning that stands apart, or of none
            elif next_is_on and CLOSE not in one.tagged and (begun or _opens(one.tagged)):
                begun.append(text)
                text = NO_TEXT
            else:
                said = one.tagged
                if begun:
                    text, begun = joined([*begun, text]), []
                    said = text_of(text)
                goes_on = behind is not None or calls > one.calls_before
                if found := split_think_tags(said, may_lack_opening=not has_thought, goes_on=goes_on):
                    inside, after = found
                    text = Raw(_encode(after))
                    if inside:
                        thoughts.append((one.at, Raw(_encode(inside))))
        left[one.at] = text
    thoughts.sort(key=lambda thought: thought[0])
    return left, thoughts


class _Said(NamedTuple):
    """A piece that is said: its index, the content, its text where that may be tagged, how many calls stand before."""

    at: int
    content: Content
    tagged: str
    calls_before: int


def split_think_tags(said: str, *, may_lack_opening: bool, goes_on: bool) -> tuple[str, str] | None:
    r"""Split a text that begins with reasoning in `<think>` tags: the reasoning, and the rest; None where none does.

    The opening tag may be missing, as some templates write it into the prompt; then the closing one is the first
    that ends a line with more behind it, in the text or where the turn goes on, else the only one, if it ends a
    sentence or a word. Any other is a word about tags. The closing tag may be missing where the turn goes on, with a
    call: then all of the text is reasoning. Line feeds beside the tags go, as templates write their own.

    >>> split_think_tags("Add.\n</think>\n\n4", may_lack_opening=True, goes_on=False)
    ('Add.', '4')
    """
    if _opens(said):
        inside, tag, after = said.lstrip().removeprefix(OPEN).partition(CLOSE)
        if not (tag or goes_on):
            return None
    else:
        end = _end_of_thought(said) if may_lack_opening else None
        inside, after = (said[: end[0]], said[end[1] :]) if end else ("", "")
        if not end or OPEN in inside or not (goes_on or after.strip()):
            return None
    return inside.strip("\r\n"), after.lstrip("\r\n")


def _opens(said: str) -> bool:
    return said.startswith(OPEN) or said.lstrip().startswith(OPEN)


def _end_of_thought(said: str) -> tuple[int, int] | None:
    """Find the closing tag, without an opening one, that ends reasoning."""
    tag = _CLOSE_AT_LINE_END.search(said)
    if tag is None and said.count(CLOSE) == 1:
        tag = _CLOSE_AT_WORD_END.search(said)
    return tag.span("tag") if tag else None
