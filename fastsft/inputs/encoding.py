"""What JSON does not settle about bytes: that what comes in is UTF-8, and that what goes out is one line a row.

Both checks run over many lines at once. Python skips ASCII at 20 GB/s and decodes the rest at 0.5 to 2: real rollouts,
where a sixth of the windows is not ASCII, are checked at 4 to 6 GB/s, Chinese at 1.1. Polars checks either at 10 to
20 (1 MiB at once; 16 MiB at once only at 2, because the system must first find the memory), but importing it costs a
process 0.12 s and 45 MB. So the caller says whether it pays, with `by_polars`, and then it looks at what is dense in
characters beyond ASCII: which library looks depends on the bytes and on what the caller knows, never on what a process
has seen before.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator

_CHECKED_NBYTES = 2 * 1024 * 1024  # at once: what is read at once, 1 MiB and a line, is checked whole
_WINDOW_NBYTES = 4096  # that Python looks at at once
_SAMPLED_WINDOWS = 16
# Line ends to some loaders, in valid JSON only ever inside a string: U+2028, U+2029, U+0085.
_LINE_ENDS = {"\u2028": b"\\u2028", "\u2029": b"\\u2029", "\u0085": b"\\u0085"}
_ENCODED_LINE_ENDS = [character.encode() for character in _LINE_ENDS]
_LOOKED_AT_FIRST, _NBYTES_FOR_ONE_MORE = 64, 256


def is_utf8(data: bytes, *, by_polars: bool = False) -> bool:
    """Tell whether bytes are valid UTF-8, the one thing about a line that msgspec does not check."""
    pieces = (data[start:stop] for start, stop in _pieces(data, _CHECKED_NBYTES))
    return data.isascii() or all(_is_utf8(piece, by_polars=by_polars) for piece in pieces)


def _is_utf8(piece: bytes, *, by_polars: bool) -> bool:
    if piece.isascii():
        return True
    return _polars_decodes(piece) if by_polars and _is_dense(piece) else _python_decodes(piece)


def _is_dense(piece: bytes) -> bool:
    """Tell whether half of the windows, of some, are not ASCII."""
    step = max(len(piece) // _SAMPLED_WINDOWS, _WINDOW_NBYTES)
    plain = [piece[start : start + _WINDOW_NBYTES].isascii() for start in range(0, len(piece), step)]
    return 2 * sum(plain) <= len(plain)


def _python_decodes(piece: bytes) -> bool:
    start = 0
    while start < len(piece):
        window = piece[start : start + _WINDOW_NBYTES]
        if window.isascii():
            start += len(window)
            continue
        try:  # a character that the window cuts is left for the next
            _, nbytes = codecs.utf_8_decode(window, "strict", start + len(window) == len(piece))
        except UnicodeDecodeError:
            return False
        start += nbytes
    return True


def _polars_decodes(piece: bytes) -> bool:
    import polars as pl

    try:
        pl.Series([piece], dtype=pl.Binary).cast(pl.String)
    except pl.exceptions.ComputeError:
        return False
    return True


def escape_line_separators(rows: bytes, *, by_polars: bool = False) -> bytes:
    """Escape the characters at which some loaders would split a row; `rows` is valid UTF-8."""
    if not rows.isascii() and _has_line_end(rows, by_polars=by_polars):
        for character, escape in _LINE_ENDS.items():
            rows = rows.replace(character.encode(), escape)
    return rows


def _has_line_end(rows: bytes, *, by_polars: bool) -> bool:
    """Look at each place where the last byte of one is, which `find` tells at 20 GB/s; among many, search everything.

    In English text there are 20 in a megabyte, in Chinese 10,000.
    """
    for character in _ENCODED_LINE_ENDS:
        last, looked_at = character[-1:], 0
        position = rows.find(last)
        while position >= 0:
            if rows.endswith(character, 0, position + 1):
                return True
            looked_at += 1
            if looked_at > _LOOKED_AT_FIRST + position // _NBYTES_FOR_ONE_MORE:
                return _polars_finds_line_end(rows) if by_polars else _python_finds_line_end(rows)
            position = rows.find(last, position + 1)
    return False


def _python_finds_line_end(rows: bytes) -> bool:
    """Search decoded text, at 1.5 GB/s where a tenth is Chinese and 0.4 where all is; Polars does it at 2.5."""
    text = rows.decode()
    return any(character in text for character in _LINE_ENDS)


def _polars_finds_line_end(rows: bytes) -> bool:
    import polars as pl

    text = pl.Series([rows], dtype=pl.Binary).cast(pl.String)
    return text.str.contains(f"[{''.join(_LINE_ENDS)}]").any()


def _pieces(data: bytes, nbytes: int) -> Iterator[tuple[int, int]]:
    """Cut bytes behind line feeds, where no character is cut, into pieces that are longer by a line at most."""
    start = 0
    while start < len(data):
        stop = data.find(b"\n", start + nbytes) + 1 or len(data)
        yield start, stop
        start = stop
