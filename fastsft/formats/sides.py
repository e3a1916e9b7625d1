"""What a row says, turn by turn, as numbers: where two rows part, and how long each goes on there.

Each hash is of all that a conversation says up to a point, so two rows are the same up to there where it is the same.
Calls are told by what they say: arguments by value, and of ids only which call a result answers. The agent and the
tools on offer stand before the first message, so that rows of two harnesses never begin alike.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from msgspec import Raw

from fastsft.formats.calls import ASSISTANT
from fastsft.formats.chat import Call, ChatRow, ChatTurn
from fastsft.formats.content import NO_TEXT, TextPart
from fastsft.formats.row import Row
from fastsft.formats.values import text_of

_any = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode
_sorted = msgspec.json.Encoder(order="deterministic").encode
_TURN = struct.Struct("<QQQ")  # of `Sides.later`


class Sides(NamedTuple):
    """The sides that a row can be of pairs; lengths count the characters of text, reasoning and calls.

    Attributes:
        context: Hash of all that stands before the first turn of the output's assistant.
        answer: Hash of the same with that turn.
        answer_length: How long that turn is.
        whole: Hash of the whole conversation.
        length: How long all turns of the output's assistant are.
        acts: How many these are.
        later: Of each later one, hash of all that stands before it, hash of the same with it, and how long it is, in 8
            bytes each; None where there is none.
    """

    context: int
    answer: int
    answer_length: int
    whole: int
    length: int
    acts: int
    later: bytes | None = None


def sides_of(row: Row, *, begins: bytes) -> Sides:
    """Return the sides of a `chat` row; `begins` is what its agent and tools are told by."""
    assert isinstance(row.body, ChatRow)
    messages, asked = row.body.messages, row.asked
    digest = hashlib.sha256(begins)
    numbers: dict[bytes, int] = {}
    turns: list[tuple[int, int, int]] = []
    said: list[bytes] = []
    for index, message in enumerate(messages):
        is_side = index >= asked and message.role == ASSISTANT
        if is_side:
            digest.update(b"".join(said))
            context = digest.digest()
            said.clear()
        length = _add_said(message, numbers, said)
        if is_side:
            digest.update(b"".join(said))
            turns.append((_number(context), _number(digest.digest()), length))
            said.clear()
    later = b"".join([_TURN.pack(*turn) for turn in turns[1:]]) if len(turns) > 1 else None
    return Sides(*turns[0], turns[-1][1], sum([turn[2] for turn in turns]), len(turns), later)


def turns_in(later: Sequence[bytes]) -> list[tuple[int, int, int]]:
    """Return the turns that `Sides.later` of some rows holds, in order."""
    return list(_TURN.iter_unpack(b"".join(later)))


TURN_NBYTES = _TURN.size


def place_of(row: Row, number: int) -> int:
    """Return which message is the `number`-th turn, from 1, of the output's assistant."""
    assert isinstance(row.body, ChatRow)
    for index in range(row.asked, len(row.body.messages)):
        number -= row.body.messages[index].role == ASSISTANT
        if not number:
            return index
    raise IndexError(number)


def _number(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "little")


def _add_said(message: ChatTurn, numbers: dict[bytes, int], said: list[bytes]) -> int:
    """Add what a message says in a form that is the same where that is; return how long it is.

    In front of each text stands its length, and what it is: where one ends is no question of what is in it.
    """
    content = message.content
    if isinstance(content, Raw):
        length = _add(message.role, text_of(content), said)
    else:
        _add(f"{message.role} in parts", _encode(_any.decode(_encode(content))).decode(), said)
        length = sum(len(text_of(part.text)) for part in content if isinstance(part, TextPart))
    if message.reasoning_content != NO_TEXT:
        length += _add("thinks", text_of(message.reasoning_content), said)
    for call in message.tool_calls:
        numbers.setdefault(bytes(call.id), len(numbers))
        length += _add("calls", text_of(call.function.name), said)
        length += _add("with", _plain_arguments(call), said)
    if message.tool_call_id != NO_TEXT:
        said.append(b"answers %d" % numbers.get(bytes(message.tool_call_id), -1))
    return length


def _add(what: str, text: str, said: list[bytes]) -> int:
    length = len(text)
    said += (f"\n{what} {length}:".encode(), text.encode())
    return length


def _plain_arguments(call: Call) -> str:
    """Return arguments as JSON that is the same wherever their value is, whether they are an object or a string."""
    arguments = call.function.arguments
    written = text_of(arguments) if isinstance(arguments, Raw) else _encode(arguments)
    try:
        return _sorted(_any.decode(written)).decode()
    except (msgspec.DecodeError, RecursionError):
        return written if isinstance(written, str) else written.decode()
