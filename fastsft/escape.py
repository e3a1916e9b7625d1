"""Untrusted text made harmless for whoever reads it.

Rollouts hold model-written text, and file names and error messages can hold what
they like. A terminal obeys control characters, and bidi overrides make text read
as something else, so everything that is printed goes through `escaped`.
"""

from __future__ import annotations

import unicodedata

# Control, format (bidi overrides, zero-width), surrogate, private, unassigned, line and paragraph separators.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def escaped(text: str, *, keep: str = "") -> str:
    r"""Write every character that could steer a terminal as a Python escape, but for those in `keep`.

    >>> escaped("a\x1b[31mb\u202ec")
    'a\\x1b[31mb\\u202ec'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in _UNSAFE and character not in keep
        else character
        for character in text
    )


def excerpt(value: bytes | memoryview, *, limit: int = 60) -> str:
    """Show the beginning of some bytes in a sentence: one line, escaped, in back quotes.

    >>> excerpt(b"[1, 2]")
    '`[1, 2]`'
    """
    if not value:
        return "nothing"
    start = bytes(memoryview(value)[: limit + 1])
    text = start[:limit].decode("utf-8", "replace")
    return f"`{escaped(text)}{'…' if len(start) > limit else ''}`"
