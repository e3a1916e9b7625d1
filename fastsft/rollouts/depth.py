"""Lines that nest deeper than the decoder descends.

msgspec stops with a RecursionError at a depth that follows the Python version,
and a line must not be read on one machine and refused on another. So the rules are
ours: a value that reaches a row nests at most `MAX_DEPTH` levels, what is ignored
may nest as deep as `MAX_LINE_DEPTH`, and a deeper line is refused everywhere.
"""

from __future__ import annotations

import re

import msgspec

from fastsft.errors import Refused

# Every reader of rows takes it: DuckDB reads 100 levels and fails at 128, and a row adds a few of its own.
MAX_DEPTH = 64
# Above what any supported Python decodes by itself (9,998 levels on 3.13), so that all reach this rule.
MAX_LINE_DEPTH = 10_000

_STRING_OR_BRACKET = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_grammar = msgspec.json.Decoder(msgspec.Raw)


def prune_deep_values(line: bytes) -> bytes:
    """Replace what nests deeper than any row may by 0, after checking its grammar.

    What a row would use of it stays deeper than `MAX_DEPTH`, so it is still refused.
    """
    keep = 2 * MAX_DEPTH  # beyond the depth of any used value plus where it stands in the line
    starts: list[int] = []  # where each open bracket's text begins in `out`
    out = bytearray()
    copied = 0
    for match in _STRING_OR_BRACKET.finditer(line):
        token = match[0]
        if token in b"[{":
            out += line[copied : match.start()]
            copied = match.start()
            starts.append(len(out))
            if len(starts) > MAX_LINE_DEPTH:
                _check_beginning(bytes(out), starts)
                raise Refused("too_deep", f"nests deeper than {MAX_LINE_DEPTH:,} levels")
        elif token in b"]}":
            out += line[copied : match.end()]
            copied = match.end()
            if not starts:
                raise Refused("bad_json", f"not a JSON object: unmatched {token.decode()} (byte {match.start()})")
            start = starts.pop()
            if len(starts) >= keep:
                try:
                    _grammar.decode(out[start:])
                except msgspec.DecodeError as error:
                    raise Refused("bad_json", f"not a JSON object: {error}") from None
                del out[start:]
                out += b"0"
    if starts:
        raise Refused("bad_json", "not a JSON object: the line ends inside it")
    return bytes(out + line[copied:])


def _check_beginning(text: bytes, starts: list[int]) -> None:
    """Refuse what is malformed before it is too deep: the decoder, where it descends as far, meets that first.

    The text ends where the last of the open brackets, which begin at `starts`, would: close all but that.
    """
    ends = bytes(text[start] + 2 for start in reversed(starts[:-1]))  # `[` and `]`, `{` and `}` lie two apart
    try:
        _grammar.decode(prune_deep_values(text + b"0" + ends))
    except msgspec.DecodeError as error:
        raise Refused("bad_json", f"not a JSON object: {error}") from None
