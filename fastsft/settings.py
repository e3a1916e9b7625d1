"""What is declared of a setting, and what comes of it for every setting: its names, and the check of its value."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, get_type_hints

import msgspec

from fastsft.errors import UsageError


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of a setting beside its name, type and default.

    Attributes:
        panel: The panel of `--help` that it stands in, one of `PANELS`.
        help: What it does, a sentence, for `--help` and README.
        more: What README says beside that.
        metavar: What stands for its value; empty for a switch.
        unset: What README says of the default; empty where the value says it.
        keyword: What the library calls it, and the command with `-` for `_`; None for the field's name.
        flags: What the command calls it, where that is not the keyword.
        read: What turns a word into its value; None where its type does.
        choices: The values that there are.
        noun: What an error calls it; None for the name of its flag.
        least: The least that it may be; None for no limit.
        commands: The commands that have it.
        changes_bytes: Whether what is written depends on it.
    """

    panel: str
    help: str
    more: str = ""
    metavar: str = ""
    unset: str = ""
    keyword: str | None = None
    flags: tuple[str, ...] = ()
    read: Callable[[Any], Any] | None = None
    choices: tuple[str, ...] = ()
    noun: str | None = None
    least: int | None = None
    commands: tuple[str, ...] = ("convert",)
    changes_bytes: bool = True


@lru_cache(maxsize=8)
def settings_of(kind: type[msgspec.Struct]) -> dict[str, Setting]:
    """Return what is declared of each field of a struct of settings, in order."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: hints[name].__metadata__[0] for name in kind.__struct_fields__}


def keyword_in(kind: type[msgspec.Struct], name: str) -> str:
    """Return what the library calls a field."""
    return settings_of(kind)[name].keyword or name


def flag_in(kind: type[msgspec.Struct], name: str) -> str:
    """Return what the command calls a field."""
    setting = settings_of(kind)[name]
    return setting.flags[0] if setting.flags else f"--{keyword_in(kind, name).replace('_', '-')}"


def check_values(settings: msgspec.Struct) -> None:
    """Check each value by what is declared of it alone.

    Raises:
        UsageError: One is out of its range.
    """
    for name, setting in settings_of(type(settings)).items():
        _check_value(setting, flag_in(type(settings), name), getattr(settings, name))


def _check_value(setting: Setting, flag: str, value: Any) -> None:
    """Check a value by what is declared of it alone."""
    if value is None:
        return
    if setting.choices:
        for one in value if isinstance(value, tuple) else [value]:
            if one not in setting.choices:
                what = setting.noun or flag.lstrip("-")
                raise UsageError(f"no {what} named {one!r}; there are: {', '.join(setting.choices)}")
    if setting.least is not None and value < setting.least:
        raise UsageError(f"the {setting.noun} must be at least {setting.least}, not {value}")
