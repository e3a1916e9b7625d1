"""The options of commands, made of what `options.py` declares of each setting."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_type_hints

import typer

from fastsft.cli.words import completer_of
from fastsft.options import Options, declared, flag_of, keyword_of
from fastsft.quantities import words_of

_LAST = ("json", "no_example", "quiet")  # of the options that a command has of its own


def with_settings(
    command: str, *, panel: str = "", **helps: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a function, which takes `**settings`, an option for each setting of a command.

    It gets those that were given, as the library's keywords. `helps` says what some do in this command, and `panel` in
    which they stand there.
    """

    def decorated(function: Callable[..., None]) -> Callable[..., None]:
        own = get_type_hints(function, include_extras=True)
        parameters = [
            parameter.replace(annotation=own[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in inspect.signature(function).parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        names = [parameter.name for parameter in parameters]
        settings = [_parameter(name, helps, panel) for name, one in declared().items() if command in one.commands]
        first = [parameter for parameter in parameters if parameter.name not in _LAST]
        last = [parameter for parameter in parameters if parameter.name in _LAST]

        def call(**words: Any) -> None:
            function(**{name: value for name, value in words.items() if name in names or value is not None})

        call.__doc__ = function.__doc__
        call.__name__ = function.__name__
        signature = inspect.Signature([*first, *settings, *last])
        call.__signature__ = signature  # type: ignore[attr-defined] # which typer reads
        call.__annotations__ = {one.name: one.annotation for one in signature.parameters.values()}
        return call

    return decorated


def _parameter(name: str, helps: dict[str, str], panel: str) -> inspect.Parameter:
    """Return the option of a setting; without a value that says nothing, as the library has the defaults."""
    setting, keyword = declared()[name], keyword_of(name)
    kind, default = _word_type(name), getattr(_DEFAULT, name)
    said = helps.get(keyword, setting.help)
    if kind is not bool:
        said += f" [default: {setting.unset.replace('`', '') or default}]"
    flags = setting.flags or (flag_of(name),)  # named, so that a switch has no negative one
    where = panel if panel and keyword in helps else setting.panel
    completer = completer_of(setting.choices, listed=setting.read is words_of) if setting.choices else None
    metavar = setting.metavar or None
    option = typer.Option(*flags, metavar=metavar, help=said, rich_help_panel=where, autocompletion=completer)
    word: Any = kind if kind is bool else kind | None
    annotation, unset = Annotated[word, option], False if kind is bool else None
    return inspect.Parameter(keyword, inspect.Parameter.KEYWORD_ONLY, default=unset, annotation=annotation)


def options_table(command: str) -> str:
    """Return the table of the settings of a command."""
    lines = ["| option | meaning | default |", "|---|---|---|"]
    for name, setting in declared().items():
        if command in setting.commands:
            default = setting.unset or ("" if _word_type(name) is bool else f"`{getattr(_DEFAULT, name)}`")
            flag = f"{flag_of(name)} {setting.metavar}".strip().replace("|", "\\|")
            lines.append(f"| `{flag}` | {' '.join(filter(None, [setting.help, setting.more]))} | {default} |")
    return "\n".join(lines)


def _word_type(name: str) -> Any:
    """Return the type of a setting's word: text where words are read, else that of its value."""
    setting = declared()[name]
    if setting.read is words_of:
        return list[str]
    kinds = [kind for kind in get_args(_HINTS[name]) or [_HINTS[name]] if kind is not type(None)]
    return str if setting.read is not None or len(kinds) > 1 else kinds[0]


_HINTS = get_type_hints(Options)
_DEFAULT = Options()
