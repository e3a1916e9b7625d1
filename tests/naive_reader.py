"""A naive reader of lines and rows: RFC 8259 with a list for a stack, slow and plain, sharing nothing with fastsft."""

from __future__ import annotations

import json
import re
from typing import Any

from builders import Json


def as_written(digits: str) -> tuple[str, str]:
    """Stand for a number by its digits: `1`, `1.0` and `"1"` are three values."""
    return ("number", digits)


def decoded(data: bytes) -> Any:
    """Decode JSON by Python's decoder, numbers as they are written; of a repeated key the last value counts."""
    return json.loads(data.decode(), parse_int=as_written, parse_float=as_written, parse_constant=_refuse)


def decoded_row(data: bytes) -> Any:
    """Decode a row, in which each object has a key once, from UTF-8 on one line to whoever splits lines."""
    text = data.decode()
    assert text.splitlines() == [text.removesuffix("\n")]
    return json.loads(
        text,
        parse_int=as_written,
        parse_float=as_written,
        parse_constant=_refuse,
        object_pairs_hook=_each_key_once,
    )


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _each_key_once(pairs: list[tuple[str, Any]]) -> Json:
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


_TOKEN = re.compile(
    r"""[ \t\r]*(?:(?P<string>"[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*")
    |(?P<other>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false|null)
    |(?P<mark>[\[\]{}:,]))[ \t\r]*""",
    re.VERBOSE,
)


def is_blank(line: bytes) -> bool:
    """Tell whether a line is empty or ASCII white space."""
    return not line.strip(b" \t\r\v\f")


def form_of(line: bytes) -> str:
    """Name the form of a line: blank, bad_utf8, bad_json, too_deep, not_object or object; what is met first counts."""
    if is_blank(line):
        return "blank"
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return "bad_utf8"
    position, wants, open_ones = 0, "value", list[str]()
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None or wants == "nothing":
            return "bad_json"
        position = token.end()
        mark = token["mark"] or ""
        if token["string"] and not _is_text(token["string"]):
            return "bad_json"
        if wants in ("key", "first key") and token["string"]:
            wants = ":"
        elif wants == ":" and mark == ":":
            wants = "value"
        elif wants in ("value", "first value") and mark in ("[", "{") and mark:
            open_ones.append(mark)
            wants = "first value" if mark == "[" else "first key"
            if len(open_ones) > 10_000:
                return "too_deep"
        elif wants in ("value", "first value") and not mark:
            wants = "," if open_ones else "nothing"
        elif wants == "," and mark == ",":
            wants = "value" if open_ones[-1] == "[" else "key"
        elif (wants, mark) in _CLOSING and open_ones and open_ones[-1] + mark in ("[]", "{}"):
            open_ones.pop()
            wants = "," if open_ones else "nothing"
        else:
            return "bad_json"
    if wants != "nothing":
        return "bad_json"
    return "object" if text.lstrip(" \t\r").startswith("{") else "not_object"


_CLOSING = {(",", "]"), (",", "}"), ("first value", "]"), ("first key", "}")}


def _is_text(string: str) -> bool:
    """Tell whether a JSON string decodes to text that UTF-8 can hold: no half of a surrogate pair."""
    return "\\u" not in string or not any("\ud800" <= character <= "\udfff" for character in json.loads(string))


def agree(fate: str, form: str) -> bool:
    """Tell whether a line of a form may have a fate: an object may be refused for what it holds, or kept."""
    return fate == form or (form == "object" and fate not in ("blank", "bad_utf8", "bad_json", "not_object"))


def lines_of(data: bytes) -> list[bytes]:
    """Split at line feeds; the last line may have none."""
    return data.removesuffix(b"\n").split(b"\n") if data else []
