"""What a turn says: the text or the parts of an item, whatever dialect it is in.

Text stays raw JSON from the input line to the row.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from msgspec import Raw

from fastsft.errors import Refused
from fastsft.escape import excerpt
from fastsft.formats.values import canonical_json, joined
from fastsft.rollouts.rollout import ABSENT, QUOTE, is_string, json_type

NO_TEXT = Raw(b'""')
_LIST = ord("[")


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


class VideoUrl(msgspec.Struct, gc=False):
    """Where a video is, a JSON string."""

    url: Raw


class VideoPart(msgspec.Struct, tag="video_url", tag_field="type", gc=False):
    """A video, as chat rows have it."""

    video_url: VideoUrl


# A string for text alone; a list of parts as soon as something else is among them.
Part: TypeAlias = "TextPart | ImagePart | VideoPart | Raw"
Content: TypeAlias = "Raw | list[Part]"


class _Part(msgspec.Struct, gc=False):
    """Any part of a content list; which fields it has depends on `type`."""

    type: str | None = None
    text: Raw = ABSENT
    refusal: Raw = ABSENT
    image_url: Raw = ABSENT
    detail: Raw = ABSENT
    video_url: Raw = ABSENT
    video: Raw = ABSENT


_parts = msgspec.json.Decoder(list[_Part])
_raw_parts = msgspec.json.Decoder(list[Raw])
_video_url = msgspec.json.Decoder(VideoUrl)


def content_of(raw: Raw) -> Content:
    """Return content, or what a function returned, as a turn has it.

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
    """Return content that is not text alone, in the parts of chat rows."""
    kept: list[Part] = []
    for part, original in zip(parts, _raw_parts.decode(raw), strict=True):
        match part.type:
            case "input_image":
                kept.append(_image(part))
            case "input_video":
                kept.append(_video(part))
            case "image_url" | "input_audio" | "video_url" | "file":  # chat parts already
                kept.append(canonical_json(original))
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
    text = part.refusal if json_type(part.text) in ("absent", "null") else part.text
    if not is_string(text):
        raise Refused("bad_content", f"a text part has no text, found {excerpt(text)}")
    return text


def _image(part: _Part) -> ImagePart:
    match json_type(part.image_url):
        case "string":
            detail = part.detail if json_type(part.detail) == "string" else Raw(b'"auto"')
            return ImagePart(ImageUrl(part.image_url, detail))
        case "object":  # a chat-shaped image in a Responses part
            return ImagePart(canonical_json(part.image_url))
        case _:
            raise Refused("bad_content", f"an image has no image_url, found {excerpt(part.image_url)}")


def _video(part: _Part) -> VideoPart:
    source = part.video if json_type(part.video_url) in ("absent", "null") else part.video_url
    match json_type(source):
        case "string":
            return VideoPart(VideoUrl(source))
        case "object":  # the same one level deeper
            try:
                url = _video_url.decode(source).url
            except msgspec.ValidationError:
                url = ABSENT
            if is_string(url):
                return VideoPart(VideoUrl(url))
    raise Refused("bad_content", f"a video has no video_url, found {excerpt(source)}")


def one_content(contents: list[Content]) -> Content:
    """Join what one turn says, with parts that are no text where there are any."""
    strings = [content for content in contents if isinstance(content, Raw)]
    if len(strings) == len(contents):
        return strings[0] if len(strings) == 1 else joined(strings)
    return [part for one in contents for part in ([TextPart(one)] if isinstance(one, Raw) else one)]
