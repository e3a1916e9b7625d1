"""What JSON does not settle about bytes: that what comes in is UTF-8, and that what goes out is one line a row.

Both are told of many lines at once. Polars checks 1 MiB at 13 GB/s, four pieces of it at 8, as it has
to be called for each; 16 MiB in one, whose memory the system has to find first, at 2; and
`bytes.decode` runs at 0.1 to 0.6 outside English.
"""

from __future__ import annotations

from collections.abc import Iterator

_CHECKED_NBYTES = 2 * 1024 * 1024
# Line ends to some loaders, in valid JSON only ever inside a string: U+2028, U+2029, U+0085.
_LINE_ENDS = {"\u2028": b"\\u2028", "\u2029": b"\\u2029", "\u0085": b"\\u0085"}
_ENCODED_LINE_ENDS = [character.encode() for character in _LINE_ENDS]
_LOOKED_AT_FIRST, _NBYTES_FOR_ONE_MORE = 64, 256


def is_utf8(data: bytes) -> bool:
    """Tell whether bytes are valid UTF-8, the one thing about a line that msgspec does not check."""
    return data.isascii() or all(_is_utf8(data[start:stop]) for start, stop in _pieces(data, _CHECKED_NBYTES))


def _is_utf8(piece: bytes) -> bool:
    if piece.isascii():
        return True
    import polars as pl  # 0.2 s, which a run that needs it has paid already

    try:
        pl.Series([piece], dtype=pl.Binary).cast(pl.String)
    except pl.exceptions.ComputeError:
        return False
    return True


def one_line_each(rows: bytes) -> bytes:
    """Escape the characters at which some loaders would split a row; `rows` is valid UTF-8."""
    if not rows.isascii() and _has_line_end(rows):
        for character, escape in _LINE_ENDS.items():
            rows = rows.replace(character.encode(), escape)
    return rows


def _has_line_end(rows: bytes) -> bool:
    """Look at each place where the last byte of one is, which `find` tells at 20 GB/s.

    In English text there are 20 in a megabyte. In Chinese there are 20,000, and Polars searches all of it, at 2 GB/s.
    """
    for character in _ENCODED_LINE_ENDS:
        last, looked_at = character[-1:], 0
        place = rows.find(last)
        while place >= 0:
            if rows.endswith(character, 0, place + 1):
                return True
            looked_at += 1
            if looked_at > _LOOKED_AT_FIRST + place // _NBYTES_FOR_ONE_MORE:
                return _polars_finds_line_end(rows)
            place = rows.find(last, place + 1)
    return False


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
