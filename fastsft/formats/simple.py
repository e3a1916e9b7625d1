"""The `simple` layout: what the user asked last and what the model said last, as text."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from fastsft.errors import Refused
from fastsft.formats.calls import ASSISTANT
from fastsft.formats.content import NO_TEXT, said_in
from fastsft.formats.row import PLAIN, Layout, Row
from fastsft.formats.turns import kind_of
from fastsft.rollout import Item, Rollout, is_string, json_type


class SimpleRow(msgspec.Struct, gc=False):
    """`{"input": ..., "output": ...}`, both JSON strings."""

    input: Raw
    output: Raw


def to_simple(rollout: Rollout, layout: Layout = PLAIN) -> Row:
    """Keep the prompt's last user text and the output's last assistant text; turns and calls between are left out.

    >>> from fastsft.rollout import Item
    >>> asked, said = Item(role="user", content=Raw(b'"2+2?"')), Item(role="assistant", content=Raw(b'"4"'))
    >>> msgspec.json.encode(to_simple(Rollout([asked], [said])).body)
    b'{"input":"2+2?","output":"4"}'

    Raises:
        Refused: The model said nothing, or one of the two is not text alone.
    """
    asked = _last(rollout.prompt, "user", roleless="user")
    said = _last(rollout.output, ASSISTANT, roleless=ASSISTANT)
    if said is None:
        raise Refused("nothing_to_imitate", "the output has no assistant text")
    return Row(SimpleRow(NO_TEXT if asked is None else _text(asked), _text(said)))


def _last(items: list[Item], role: str, *, roleless: str) -> Item | None:
    """Find the last message of a role that has content; every item must be of a known kind."""
    kinds = [kind_of(item) for item in items]
    for item, name in zip(reversed(items), reversed(kinds), strict=True):
        speaks = roleless if item.role is None else item.role
        says = json_type(item.content) not in ("absent", "null") or is_string(item.refusal)
        if name == "message" and speaks == role and says:
            return item
    return None


def _text(item: Item) -> Raw:
    content = said_in(item)
    if isinstance(content, list):
        raise Refused("not_text", "a `simple` row holds text alone, and this turn has an image, a sound or a file")
    return content
