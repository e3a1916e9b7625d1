"""JSON values on their way into a row: which are fit for one, and their plainest form.

A row is read by programs that are stricter than msgspec (a repeated key stops
DuckDB and pyarrow, a number beyond a double stops five readers of seven, a line
feed inside a value splits the row), so what a row repeats is checked here, and
rewritten only where it must be: text and numbers keep the form they came in.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from fastsft.errors import Refused
from fastsft.rollouts.depth import MAX_DEPTH, prune_deep_values
from fastsft.rollouts.rollout import QUOTE, json_type
from fastsft.rollouts.sizes import FEW_NBYTES, check_values

_object = msgspec.json.Decoder(dict[str, Raw])
_list = msgspec.json.Decoder(list[Raw])
_string = msgspec.json.Decoder(str)
_encode = msgspec.json.Encoder().encode

_OPENERS_FROM = ord("[")  # `[`, `{` and the first letters of null, true and false lie above all digits and signs
_BEYOND_FROM = len("9e999")  # no shorter number is beyond a double
_MAX_PLAIN_DIGITS = 300  # a number no longer than this and without an exponent fits a double (1.8e308)


def text_of(string: Raw) -> str:
    """Decode a JSON string."""
    return _string.decode(string)


def joined(strings: list[Raw]) -> Raw:
    r"""Join JSON strings end to end without decoding them.

    Their escapes stay as they are; a surrogate pair cannot be split over two of
    them, as msgspec takes no string with half a pair.

    >>> bytes(joined([Raw(b'"a\\n"'), Raw(b'"b"')]))
    b'"a\\nb"'
    """
    return Raw(b'"%b"' % b"".join([bytes(string)[1:-1] for string in strings]))


def object_of(value: str | bytes | Raw, depth: int = 1) -> dict[str, Raw]:
    """Decode a JSON object one level deep, every value fit for a row; of a repeated key the last value counts.

    It is the `depth`-th object or list around its inside.

    Raises:
        msgspec.DecodeError: It is not a JSON object.
        Refused: A value nests too deep, or is a number that no double holds.
    """
    if depth > MAX_DEPTH:
        raise _too_deep()
    try:
        pairs: dict[str, Raw] = _object.decode(value)
    except RecursionError:  # far deeper than `MAX_DEPTH`, or malformed behind that
        _check_grammar(value.encode() if isinstance(value, str) else bytes(value))
        raise _too_deep() from None
    for key, item in pairs.items():
        first = memoryview(item)[0]
        if first == QUOTE or (first < _OPENERS_FROM and len(item) < _BEYOND_FROM):
            continue  # a string or a short number: nearly all
        pairs[key] = _canonical_at(item, depth)
    return pairs


def _check_grammar(value: bytes) -> None:
    """Raise as the decoder would if it descended as far as the value does: its own limit must not decide."""
    try:
        _object.decode(prune_deep_values(value))
    except Refused as problem:
        if problem.reason == "bad_json":
            raise msgspec.DecodeError(problem.problem) from None


def canonical_json(value: Raw) -> Raw:
    """Return a JSON value in a form fit for a row: no white space between tokens, no repeated keys.

    >>> bytes(canonical_json(Raw(b'{"a": [1.50, {"b": 1, "b": 2}], "c": "x y"}')))
    b'{"a":[1.50,{"b":2}],"c":"x y"}'

    Raises:
        Refused: It nests too deep, holds too many values, or a number that no double holds.
    """
    if len(value) > FEW_NBYTES:
        check_values(value)
    return _canonical_at(value, 0)


def _list_of(value: Raw, depth: int) -> list[Raw]:
    if depth > MAX_DEPTH:
        raise _too_deep()
    try:
        return [_canonical_at(item, depth) for item in _list.decode(value)]
    except RecursionError:
        raise _too_deep() from None


def _too_deep() -> Refused:
    return Refused("too_deep", f"a value for the row nests deeper than {MAX_DEPTH} levels")


def _canonical_at(value: Raw, depth: int) -> Raw:
    match json_type(value):
        case "object":
            return Raw(_encode(object_of(value, depth + 1)))
        case "list":
            return Raw(_encode(_list_of(value, depth + 1)))
        case "number":
            digits = bytes(value)
            if (len(digits) > _MAX_PLAIN_DIGITS or b"e" in digits or b"E" in digits) and float(digits) in _INFINITIES:
                raise Refused("bad_number", f"a number that no double holds: {digits[:20].decode()}")
            return value
        case _:
            return value


_INFINITIES = (float("inf"), float("-inf"))
