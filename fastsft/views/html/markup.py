"""HTML from values: all that is not `Markup` is escaped, so that nothing untrusted becomes an element."""

from __future__ import annotations

import html
from typing import Any

from fastsft.escape import escaped

_KEPT = "\n\t\u200c\u200d"  # line ends, and the joiners that some scripts and emoji are written with
_EMPTY = frozenset({"rect", "path", "line"})  # of SVG


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def plain(value: Any) -> Markup:
    r"""Return a value as text of a page: escaped, and what steers the direction of text written out.

    >>> plain("<b>&\u202e")
    '&lt;b&gt;&amp;\\u202e'
    """
    return value if isinstance(value, Markup) else Markup(html.escape(escaped(str(value), keep=_KEPT)))


def tag(name: str, *children: Any, **attributes: Any) -> Markup:
    """Return an element; attributes that are None or False are left out, `class_` is `class`, `_` is `-`.

    >>> tag("td", "a < b", class_="number", data_v=1)
    '<td class="number" data-v="1">a &lt; b</td>'
    """
    said = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{plain(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _EMPTY and not children:
        return Markup(f"<{name}{said}/>")
    return Markup(f"<{name}{said}>{joined(children)}</{name}>")


def joined(children: Any) -> Markup:
    """Return elements and texts one after another."""
    return Markup("".join(map(plain, children)))


def table(heads: list[str], rows: list[list[Any]], *, numbers: set[int] | None = None) -> Markup:
    """Return a table that sorts; a cell may be a pair of what it sorts by and what it shows."""
    aligned = numbers or set()
    head = [tag("th", text, scope="col", class_="number" if at in aligned else None) for at, text in enumerate(heads)]
    body = [
        tag("tr", *(_cell(value, "number" if at in aligned else None) for at, value in enumerate(row))) for row in rows
    ]
    whole = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *body), class_="sortable")
    return tag("div", whole, class_="scroll")


def _cell(value: Any, kind: str | None) -> Markup:
    if isinstance(value, tuple):
        return tag("td", value[1], class_=kind, data_v=value[0])
    if isinstance(value, int):
        return tag("td", f"{value:,}", class_=kind, data_v=value)
    return tag("td", value, class_=kind)
