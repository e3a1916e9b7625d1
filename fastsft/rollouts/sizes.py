"""How many values a line may hold of what rows repeat: each becomes an object of 100 to 600 bytes.

Text stays bytes and is passed on, so a line of one long text takes three times its bytes. One of 32 MB of small
values took 14 to 79 times, and 13 seconds. Below `FEW_NBYTES` a line cannot have too many, so nearly no line is looked
at; and what rows do not repeat (token ids, log-probabilities) does not count, however much it is.
"""

from __future__ import annotations

import re
import threading
from typing import Any

import msgspec
from msgspec import Raw

from fastsft.errors import Refused
from fastsft.rollouts.rollout import QUOTE, Item

# The most that any of 330 real rollouts of 66 environments has, commas of all fields counted, is 15,079.
MOST_VALUES = 250_000
FEW_NBYTES = 2 * MOST_VALUES  # a value and its comma take two

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_text = msgspec.json.Decoder(str)


class _Elements(threading.local):
    """How many elements of lists may follow."""

    left = 0


_elements = _Elements()


def _count() -> None:
    _elements.left -= 1
    if _elements.left < 0:
        raise _too_many("items or parts")  # at once, before more are made


class _Object(msgspec.Struct, gc=False):
    def __post_init__(self) -> None:
        _count()


class _List(msgspec.Struct, array_like=True, gc=False):
    def __post_init__(self) -> None:
        _count()


class _Params(msgspec.Struct, gc=False):
    input: list[_Object] | str


class _Response(msgspec.Struct, gc=False):
    output: list[_Object] | None = None


class _Line(msgspec.Struct, gc=False):
    params: _Params = msgspec.field(name="responses_create_params")
    response: _Response | None = None
    output: list[_Object] | None = None


_line = msgspec.json.Decoder(_Line)
_list = msgspec.json.Decoder(list[_Object])
_lists = msgspec.json.Decoder(list[_List])


def check_items(line: bytes | memoryview) -> None:
    """Make sure that a long line has no more items than it may, before any are made.

    Raises:
        Refused: It has.
    """
    data = bytes(line)
    # Token ids have no brackets of their own, so in nearly all long lines there are few, found at 20 GB/s.
    if data.count(b"{") + data.count(b"[") > MOST_VALUES:
        _elements.left = MOST_VALUES
        _decode(_line, data)


def check_leaves(items: list[Item], tools: Raw) -> None:
    """Make sure that what the items of a long line hold, and its tools, are no more values than they may be.

    Raises:
        Refused: They are more.
    """
    lists = [raw for item in items for raw in (item.content, item.output, item.summary) if raw]
    _elements.left = MOST_VALUES
    for raw in lists:
        if len(raw) > FEW_NBYTES and memoryview(raw)[0] != QUOTE:
            _decode(_list, raw)
    leaves = (raw for item in items for raw in (item.arguments, item.tool_calls, item.function_call))
    _check([tools, *leaves], "values in arguments and tools")


def check_values(raw: Raw) -> None:
    """Make sure that one value holds no more values than a line may.

    Raises:
        Refused: It does.
    """
    _check([raw], "values in one of its own")


def is_list_of_lists(raw: Raw) -> bool:
    """Tell whether a list holds lists alone, and some, without making what they hold.

    Raises:
        Refused: It holds too many.
    """
    _elements.left = MOST_VALUES
    try:
        return bool(_lists.decode(raw))
    except msgspec.ValidationError:
        return False


def _check(values: list[Raw], what: str) -> None:
    if sum(map(len, values)) > FEW_NBYTES:
        written = [_as_written(raw) for raw in values if raw]
        # Commas in text count in the first look, which takes a tenth of the time of the second.
        if sum(_marks_in(data, 0, len(data)) for data in written) > MOST_VALUES:
            left = MOST_VALUES
            for data in written:
                left -= _marks_outside_text(data, left)
                if left < 0:
                    raise _too_many(what)


def _as_written(raw: Raw) -> bytes:
    """Return the bytes of a value; of arguments in a string those of the object that it holds."""
    return _text.decode(raw).encode() if memoryview(raw)[0] == QUOTE else bytes(raw)


def _marks_in(data: bytes, start: int, stop: int) -> int:
    """Count what each value but one has before or behind it."""
    return data.count(b",", start, stop) + data.count(b"[", start, stop) + data.count(b"{", start, stop)


def _marks_outside_text(data: bytes, most: int) -> int:
    """Count them, up to a few more than `most`."""
    marks = stop = 0
    for text in _STRING.finditer(data):
        marks += _marks_in(data, stop, text.start())
        stop = text.end()
        if marks > most:
            return marks
    return marks + _marks_in(data, stop, len(data))


def _decode(decoder: msgspec.json.Decoder[Any], data: bytes | Raw) -> None:
    try:
        decoder.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return  # of another shape, whose elements are not made, or refused by whoever reads it


def _too_many(what: str) -> Refused:
    return Refused("too_many_values", f"the line has more than {MOST_VALUES:,} {what}, which a row would repeat")
