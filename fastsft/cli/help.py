"""Help as a person reads it: options in panels, two columns that wrap, the examples last, where the prompt comes.

typer's own panels leave 24 of 80 columns for the words, as three more columns take the room.
"""

from __future__ import annotations

import inspect
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperGroup

from fastsft.cli.examples import EXAMPLES
from fastsft.options import PANELS
from fastsft.views.colour import Paint, paint_for

_MOST_COLUMNS = 100  # lines that are longer are hard to read
_NAME_COLUMNS = 25  # of an option and its value, beyond which its words begin on the next line
_LEAST_COLUMNS = 24
_NAME = "cyan"
_NARROW = 60  # columns, below which words stand under their option


class HelpCommand(TyperCommand):
    """A command that formats its own help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help into the formatter, whatever its width."""
        formatter.write(_help_of(self, ctx))


class HelpGroup(TyperGroup):
    """The command of commands."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help into the formatter, whatever its width."""
        formatter.write(_help_of(self, ctx))


def _help_of(command: TyperCommand | TyperGroup, context: Any) -> str:
    columns = min(shutil.get_terminal_size().columns, _MOST_COLUMNS)
    panels, paint = _panels(command, context), paint_for(sys.stdout)
    lines = [*_wrapped(f"Usage: {_usage(command, context)}", columns, "  ", ""), ""]
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        lines += [*_wrapped(paragraph, columns), ""]
    widths = {title: max(_width_of(name) for name, _ in entries) for title, entries in panels.items()}
    for title, entries in panels.items():
        width = widths[title] if isinstance(command, TyperGroup) else max(widths.values())
        lines.append(paint(f"{title}:", "bold"))
        for name, text in entries:
            lines += _entry(name, text, columns, width, paint)
        lines.append("")
    lines.append(paint("Examples:", "bold"))
    for what, words in EXAMPLES["" if isinstance(command, TyperGroup) else command.name or ""]:
        lines += [paint(line, "dim") for line in _wrapped(f"# {what}", columns, "  # ", "  ")]
        lines.append(f"  {words}")
    return "\n".join(lines)


def _width_of(name: str) -> int:
    return len(name) if len(name) <= _NAME_COLUMNS else 0


def _usage(command: TyperCommand | TyperGroup, context: Any) -> str:
    if isinstance(command, TyperGroup):
        return f"{context.command_path} COMMAND [OPTIONS] ..."
    arguments = [one.metavar for one in command.params if isinstance(one, TyperArgument)]
    return " ".join(filter(None, [context.command_path, command.options_metavar, *arguments]))


def _panels(command: TyperCommand | TyperGroup, context: Any) -> dict[str, list[tuple[str, str]]]:
    """Return the names and words of what a command takes, by the titles of the panels."""
    if isinstance(command, TyperGroup):
        named = [(name, (one.help or "").split("\n\n")[0]) for name, one in command.commands.items()]
        return {"Commands": named, "Options": [(_name_of(one), _words_of(one)) for one in command.get_params(context)]}
    panels: dict[str, list[tuple[str, str]]] = {title: [] for title in PANELS.values()}
    for one in command.get_params(context):
        panels[PANELS[getattr(one, "rich_help_panel", None) or "run"]].append((_name_of(one), _words_of(one)))
    return {title: entries for title, entries in panels.items() if entries}


def _name_of(one: Any) -> str:
    """Write an option with its value: `-o, --output OUT`; of two spellings of a flag, the first."""
    if isinstance(one, TyperArgument):
        return str(one.metavar)
    flags = sorted({flag.replace("_", "-"): None for flag in one.opts}, key=len)
    named = ", ".join(flags) + "".join(f" / {flag}" for flag in one.secondary_opts)
    return named if one.is_flag else f"{named} {one.metavar}"


def _words_of(one: Any) -> str:
    """Return what is said of an option, with its default; settings say theirs by themselves."""
    default = "" if isinstance(one.default, (bool, list)) else one.default
    return f"{one.help} [default: {default}]" if default not in ("", None) else str(one.help)


def _entry(name: str, text: str, columns: int, width: int, paint: Paint) -> Iterator[str]:
    if columns < _NARROW:
        yield f"  {paint(name, _NAME)}"
        yield from _wrapped(text, columns, "      ")
        return
    first, *more = _wrapped(text, columns - width - 4)
    if len(name) > width:
        yield f"  {paint(name, _NAME)}"
        more.insert(0, first)
    else:
        yield f"  {paint(name, _NAME)}{'':{width - len(name)}}  {first}"
    yield from (f"{'':{width + 4}}{line}" for line in more)


def _wrapped(text: str, columns: int, indent: str = "", first: str | None = None) -> list[str]:
    """Wrap a text; a default stays in one piece, if it is a short one."""
    whole = re.sub(r"\[default: .{1,20}\]$", lambda found: found[0].replace(" ", "\xa0"), text)
    lines = textwrap.wrap(
        whole,
        max(columns, _LEAST_COLUMNS),
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return [line.replace("\xa0", " ") for line in lines]
