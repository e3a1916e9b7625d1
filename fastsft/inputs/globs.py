"""Globs: which files one names, and whether it names a file that is not there yet."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterator, Sequence

_ANYTHING_BELOW = "**"


def is_glob(argument: str) -> bool:
    """Tell whether an argument is a glob; what is there under that very name is none."""
    return glob.has_magic(argument) and not os.path.lexists(argument)


def files_matching(pattern: str) -> list[str]:
    """Return what a glob names, sorted. `**` stands for any folders, through links too, each of them once.

    Python's own follows links that lead in a circle until a path is too long, and where there are two such links,
    until the end of days.
    """
    return sorted(set(_matching(pattern, set())))


def _matching(pattern: str, seen: set[tuple[int, int]]) -> Iterator[str]:
    parts = pattern.split("/")
    if _ANYTHING_BELOW not in parts:
        yield from glob.glob(pattern)
        return
    at = parts.index(_ANYTHING_BELOW)
    below = "/".join(parts[at + 1 :]) or "*"
    for root in glob.glob("/".join(parts[:at]) + "/") if at else [""]:
        for folder in _folders_below(root, seen):
            yield from _matching(glob.escape(folder) + below, set())


def _folders_below(folder: str, seen: set[tuple[int, int]]) -> Iterator[str]:
    """Walk through folders that are not hidden; their names end in a slash."""
    try:
        found = os.stat(folder or ".")
        if (found.st_dev, found.st_ino) in seen:
            return
        seen.add((found.st_dev, found.st_ino))
        names = sorted(entry.name for entry in os.scandir(folder or ".") if entry.is_dir() and entry.name[0] != ".")
    except OSError:
        return  # as Python's own does
    yield folder
    for name in names:
        yield from _folders_below(f"{folder}{name}/", seen)


def names_file(pattern: str, path: str) -> bool:
    """Tell whether a glob would name the file at a path, were it there.

    >>> names_file("in/**/*.jsonl", "in/a/b/c.jsonl"), names_file("in/*.jsonl", "in/a/c.jsonl")
    (True, False)
    """
    absolute = os.path.abspath(pattern)
    return _names(os.path.abspath(path).split("/"), absolute.split("/"))


def matches(path: Sequence[str], pattern: Sequence[str]) -> bool:
    """Tell whether a glob names a path, both cut at slashes, as it would a file: what is hidden is named by its dot.

    >>> matches(["a", ".b.jsonl"], ["a", "*.jsonl"]), matches(["a", ".b.jsonl"], ["**", ".*"])
    (False, True)
    """
    hidden = sum(part.startswith(".") for part in path)
    return hidden <= sum(part.startswith(".") for part in pattern) and _names(path, pattern)


def _names(path: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not path
    if pattern[0] == _ANYTHING_BELOW:
        if len(pattern) == 1:
            return bool(path)
        return any(_names(path[count:], pattern[1:]) for count in range(len(path)))
    return bool(path) and fnmatch.fnmatchcase(path[0], pattern[0]) and _names(path[1:], pattern[1:])
