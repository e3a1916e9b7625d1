"""What every layout takes beside a rollout, and what it gives: one row."""

from __future__ import annotations

import hashlib

import msgspec

_any = msgspec.json.Decoder(float_hook=lambda number: msgspec.Raw(number.encode()))  # numbers keep their form
_encode = msgspec.json.Encoder().encode


class Layout(msgspec.Struct, frozen=True):
    """What can be chosen about rows; not every format has each choice.

    Attributes:
        format: The name of the layout, one in `FORMATS`.
        arguments: Arguments of calls as an `object`, or as the JSON `string` that the model wrote.
        reasoning: Reasoning in a `field` of its turn, in front of the text in `think` tags, or `drop`.
        loss: `own` marks the turns that the model sampled; None marks nothing.
        tools: Tools as a `list`, or as one JSON `string` that holds it.
        marks: The fields of a turn that hold the mark.
        media: Whose form images and videos have, `chat` or `nemo-rl`.
        pair: The columns of a `simple` row.
    """

    format: str = "openai"
    arguments: str = "object"
    reasoning: str = "field"
    loss: str | None = None
    tools: str = "list"
    marks: tuple[str, ...] = ("weight", "loss_mask")
    media: str = "chat"
    pair: tuple[str, str] = ("input", "output")


PLAIN = Layout()


class Row(msgspec.Struct, gc=False):
    """One output line, not yet encoded.

    Attributes:
        body: The struct whose JSON is the line.
        turns_cut: How many turns behind the last assistant turn were left out.
        has_ids: Whether there are calls with ids, or results that name one.
        left_out: What the rollout has and the layout does not: `reasoning`, `calls`, `images`, `sounds`, `videos`.
        asked: How many messages stand before the first of the output's assistant, in a layout of messages.
    """

    body: msgspec.Struct
    turns_cut: int = 0
    has_ids: bool = False
    left_out: tuple[str, ...] = ()
    asked: int = 0


def content_hash(row: Row) -> bytes:
    """Return 128 bits of the SHA-256 of what a row says, whatever the escapes in its text.

    Of the ids of calls only which are the same counts: a server draws them at random.
    """
    body = _encode(row.body)
    if row.has_ids or b"\\u" in body or b"\\/" in body:
        body = _plainest(body)
    return hashlib.sha256(body).digest()[:16]


def _plainest(body: bytes) -> bytes:
    content = _any.decode(body)
    order: dict[str, int] = {}
    for message in content.get("messages", ()):
        for call in message.get("tool_calls", ()):
            if "id" in call:
                call["id"] = order.setdefault(call["id"], len(order))
        if "tool_call_id" in message:
            message["tool_call_id"] = order.setdefault(message["tool_call_id"], len(order))
    return _encode(content)
