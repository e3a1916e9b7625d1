"""A page of the reference as a terminal shows it: wrapped at words, a table as entries under each other.

In Markdown, a row of a table is one line, which a terminal cuts anywhere. It reads the Markdown of `docs/` and no more:
headings, paragraphs, lists of one level, tables and code between fences.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

from fastsft.views.colour import Paint

_MOST_COLUMNS = 100  # lines that are longer are hard to read
_LEAST_COLUMNS = 24
_ENTRY = "      "  # the indent of what stands under the first cell of a row
_UNLABELLED = "meaning"  # a column whose cells need no header in front
_LIST_ITEM = re.compile(r"(?:-|\d+\.) ")


def page_of(markdown: str, columns: int, paint: Paint) -> str:
    r"""Write a page of Markdown for a terminal of so many columns.

    >>> page = "| reason | meaning |\n|---|---|\n| `too_long` | See [it](a.md). |"
    >>> print(page_of(page, 40, lambda text, style: text))
      too_long
          See it (fastsft docs a).
    """
    width = max(_LEAST_COLUMNS, min(columns, _MOST_COLUMNS))
    return "\n\n".join("\n".join(_block(block, width, paint)) for block in _blocks(markdown))


def _blocks(markdown: str) -> Iterator[list[str]]:
    """Split a page at blank lines; code between fences is one block."""
    block: list[str] = []
    in_code = False
    for line in markdown.splitlines():
        if line.startswith("```"):
            in_code = not in_code
        if block and not in_code and (not line or (line.startswith("```") and not block[0].startswith("```"))):
            yield block
            block = []
        if line or in_code:
            block.append(line)
    if block:
        yield block


def _block(lines: list[str], width: int, paint: Paint) -> Iterator[str]:
    if lines[0].startswith("```"):
        yield from (f"    {paint(line, 'dim')}" for line in lines[1:] if line != "```")
    elif lines[0].startswith("#"):
        yield paint(_inline(lines[0].lstrip("# ")).replace("`", ""), "bold")
    elif lines[0].startswith("|"):
        yield from _table(lines, width, paint)
    else:
        for paragraph in re.split(r"\n(?=- |\d+\. )", "\n".join(lines)):
            bullet = _LIST_ITEM.match(paragraph)
            yield from _wrapped(paragraph, width, " " * len(bullet[0]) if bullet else "", "")


def _table(lines: list[str], width: int, paint: Paint) -> Iterator[str]:
    """Write each row as an entry: its first cell, the others below it, with their headers where there are several."""
    header, _, *rows = ([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines)
    for name, *cells in rows:
        yield from (paint(line, "cyan") for line in _wrapped(name.replace("`", ""), width, "    ", "  "))
        for title, cell in zip(header[1:], cells, strict=True):
            label = "" if len(cells) == 1 or title == _UNLABELLED else f"{title}: "
            if cell:
                yield from _wrapped(label + cell, width, _ENTRY, _ENTRY)


def _wrapped(text: str, width: int, indent: str, first: str) -> list[str]:
    return textwrap.wrap(
        _inline(text),
        width,
        initial_indent=first,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _inline(text: str) -> str:
    """Leave out the marks of Markdown; a link to another page names the command that shows it."""
    text = re.sub(r"\[([^\]]+)\]\((\w+)\.md[^)]*\)", r"\1 (fastsft docs \2)", text)
    text = re.sub(r"\[([^\]]+)\]\((https?:[^)]+)\)", r"\1 (\2)", text)
    text = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"(`[^`]*`)|\*\*", r"\1", text)  # in code, two stars are a glob
    return " ".join(text.replace("\\|", "|").split())
