"""The options of commands, made of what `options.py` declares of each setting."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, get_args, get_type_hints

import typer

from fastsft.cli.words import completer_of
from fastsft.options import Options, declared, flag_of, keyword_of
from fastsft.pairing import Pairing
from fastsft.quantities import words_of
from fastsft.settings import Setting

_DEFAULT_IS = "\n"
_LAST = ("json", "no_example", "quiet")  # of the options that a command has of its own


def with_settings(
    command: str, *, panel: str = "", **helps: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a function, which takes `**settings`, an option for each setting of a command.

    It gets those that were given, as the library's keywords. `helps` says what some do in this command, and on a line
    of its own what they are by default, where that is something else here; `panel` in which they stand there.
    """

    def decorated(function: Callable[..., None]) -> Callable[..., None]:
        own = get_type_hints(function, include_extras=True)
        parameters = [
            parameter.replace(annotation=own[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in inspect.signature(function).parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        names = [parameter.name for parameter in parameters]
        settings = [_parameter(name, helps, panel, kind) for kind, name, _ in _settings_of(command)]
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


def _settings_of(command: str) -> list[tuple[type[Options | Pairing], str, Setting]]:
    """List the settings of a command: what they are a field of, its name, and what is declared of it."""
    kinds: tuple[type[Options | Pairing], ...] = (Pairing, Options)
    return [(kind, name, one) for kind in kinds for name, one in declared(kind).items() if command in one.commands]


def _parameter(name: str, helps: dict[str, str], panel: str, kind: type[Options | Pairing]) -> inspect.Parameter:
    """Return the option of a setting; without a value that says nothing, as the library has the defaults."""
    setting, keyword = declared(kind)[name], keyword_of(name, kind)
    word_type, default = _word_type(name, kind), getattr(_DEFAULTS[kind], name)
    said, _, unset_here = helps.get(keyword, setting.help).partition(_DEFAULT_IS)
    if word_type is not bool:
        said += f" [default: {unset_here or setting.unset.replace('`', '') or default}]"
    flags = setting.flags or (flag_of(name, kind),)  # named, so that a switch has no negative one
    where = panel if panel and keyword in helps else setting.panel
    completer = completer_of(setting.choices, listed=setting.read is words_of) if setting.choices else None
    metavar = setting.metavar or None
    option = typer.Option(*flags, metavar=metavar, help=said, rich_help_panel=where, autocompletion=completer)
    word: Any = word_type if word_type is bool else word_type | None
    annotation, unset = Annotated[word, option], False if word_type is bool else None
    return inspect.Parameter(keyword, inspect.Parameter.KEYWORD_ONLY, default=unset, annotation=annotation)


def options_table(command: str, helps: Mapping[str, str] = MappingProxyType({}), *, panel: str | None = None) -> str:
    """Return the table of the settings of a command, or of those in one panel of its `--help`.

    `helps` says what some do there.
    """
    lines = ["| option | meaning | default |", "|---|---|---|"]
    for kind, name, setting in _settings_of(command):
        if panel not in (None, setting.panel):
            continue
        own, _, unset_here = helps.get(keyword_of(name, kind), "").partition(_DEFAULT_IS)
        default = (
            unset_here
            or setting.unset
            or ("" if _word_type(name, kind) is bool else f"`{getattr(_DEFAULTS[kind], name)}`")
        )
        flag = f"{flag_of(name, kind)} {setting.metavar}".strip().replace("|", "\\|")
        lines.append(f"| `{flag}` | {own or ' '.join(filter(None, [setting.help, setting.more]))} | {default} |")
    return "\n".join(lines)


def _word_type(name: str, kind: type[Options | Pairing]) -> Any:
    """Return the type of a setting's word: text where words are read, else that of its value."""
    setting, hint = declared(kind)[name], _HINTS[kind][name]
    if setting.read is words_of:
        return list[str]
    types = [one for one in get_args(hint) or [hint] if one is not type(None)]
    return str if setting.read is not None or len(types) > 1 else types[0]


_HINTS: dict[type[Options | Pairing], dict[str, Any]] = {kind: get_type_hints(kind) for kind in (Options, Pairing)}
_DEFAULTS: dict[type[Options | Pairing], Options | Pairing] = {Options: Options(), Pairing: Pairing()}
