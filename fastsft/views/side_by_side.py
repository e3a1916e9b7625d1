"""Two texts beside each other on a terminal, or one under the other where it is too narrow."""

from __future__ import annotations

import unicodedata
from itertools import zip_longest

LEAST_COLUMNS = 100  # of a terminal, for two texts beside each other
_GAP = " │ "


def beside(left: str, right: str, *, titles: tuple[str, str], columns: int) -> str:
    r"""Return two texts with their titles, side by side in so many columns where these are enough.

    >>> print(beside("2+2?\n4", "4", titles=("a", "b"), columns=9).replace(" ", "."))
    ──.a.──
    2+2?
    4
    <BLANKLINE>
    ──.b.──
    4
    """
    if columns < LEAST_COLUMNS:
        return f"── {titles[0]} ──\n{left.lstrip()}\n\n── {titles[1]} ──\n{right.lstrip()}"
    width = (columns - len(_GAP)) // 2
    texts = (f"── {title} ──\n{text.lstrip()}" for title, text in zip(titles, (left, right), strict=True))
    lefts, rights = (wrapped(text, width) for text in texts)
    pairs = zip_longest(lefts, rights, fillvalue="")
    return "\n".join(f"{one}{' ' * (width - width_of(one))}{_GAP}{other}".rstrip() for one, other in pairs)


def wrapped(text: str, width: int) -> list[str]:
    """Cut a text into lines of at most so many columns, at spaces where there are some.

    >>> wrapped("one two three", 8)
    ['one two', 'three']
    """
    return [piece for line in text.split("\n") for piece in _cut_line(line, width)]


def _cut_line(line: str, width: int) -> list[str]:
    pieces: list[str] = []
    begin = 0
    while True:
        end = _end_within(line, begin, width)
        if end == len(line):
            return [*pieces, line[begin:]]
        space = line.rfind(" ", begin, end + 1)
        if space > begin and line[begin:space].strip():
            pieces.append(line[begin:space])
            begin = space + 1
        else:
            pieces.append(line[begin:end])
            begin = end


def _end_within(line: str, begin: int, width: int) -> int:
    """Return where the text ends that begins there and fits."""
    used = 0
    for index in range(begin, len(line)):
        used += width_of(line[index])
        if used > width and index > begin:
            return index
    return len(line)


def width_of(text: str) -> int:
    """Return how many columns a text takes on a terminal.

    >>> width_of("ab"), width_of("日本"), width_of("e\u0301")
    (2, 4, 1)
    """
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.category(character) in ("Mn", "Me") for character in text)
