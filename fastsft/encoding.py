"""What JSON does not settle about bytes: that what comes in is UTF-8, and that what goes out is one line a row.

Both are told of many lines at once, in pieces that stay in a processor's cache. Polars
checks them at 5 GB/s; 16 MiB in one, whose memory the system has to find first, at 2, and
`bytes.decode` runs at 0.1 to 0.6 outside English. The search costs a third of one over everything.
"""

from __future__ import annotations

from collections.abc import Iterator

_CHECKED_NBYTES = 256 * 1024
_SEARCHED_NBYTES = 16 * 1024
# Line ends to some loaders, in valid JSON only ever inside a string: U+2028, U+2029, U+0085.
_LINE_ENDS = {"\u2028": b"\\u2028", "\u2029": b"\\u2029", "\u0085": b"\\u0085"}
_LAST_BYTES = [character.encode()[-1:] for character in _LINE_ENDS]


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
    """Search where the last byte of one is, which `find` tells at 20 GB/s: a tenth of English text, all of Chinese."""
    suspects = [
        rows[start:stop]
        for start, stop in _pieces(rows, _SEARCHED_NBYTES)
        if any(rows.find(byte, start, stop) >= 0 for byte in _LAST_BYTES)
    ]
    if not suspects:
        return False
    import polars as pl

    texts = pl.Series(suspects, dtype=pl.Binary).cast(pl.String)
    return texts.str.contains(f"[{''.join(_LINE_ENDS)}]").any()


def _pieces(data: bytes, nbytes: int) -> Iterator[tuple[int, int]]:
    """Cut bytes behind line feeds, where no character is cut, into pieces that are longer by a line at most."""
    start = 0
    while start < len(data):
        stop = data.find(b"\n", start + nbytes) + 1 or len(data)
        yield start, stop
        start = stop
