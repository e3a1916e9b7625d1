"""What a person looks for among lines, and whether there can be such."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import msgspec

from fastsft.checks.kinds import KINDS
from fastsft.errors import UsageError
from fastsft.inputs.places import Place, PlacedLine, lines_at
from fastsft.inputs.shards import Shard
from fastsft.options import GATES, UNTRAINABLE, Options, flag_of
from fastsft.reasons import DROPPED, FATES, REFUSED
from fastsft.report import Progress

OnProgress: TypeAlias = "Callable[[Progress], None] | None"


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """Which lines are wanted.

    Attributes:
        count: How many at most.
        first: From which line of the one file on, from 1.
        where: An SQL expression over the table's columns that is true of them; None for any.
        reason: What becomes of them: a reason of `reasons.py`, `kept` or `blank`; None for whatever.
        at_random: Whether they are drawn, by the seed of the options, and not the first.
    """

    count: int = 3
    first: int = 1
    where: str | None = None
    reason: str | None = None
    at_random: bool = False


class FoundLine(NamedTuple):
    """One line that was found.

    Attributes:
        path: Of its shard.
        line: It and its place.
        fate: What becomes of it, where lines were compared for that; None where it tells that itself.
    """

    path: str
    line: PlacedLine
    fate: str | None = None


def found_at(places: Iterable[Place], shards: Sequence[Shard], options: Options) -> Iterator[FoundLine]:
    """Read the lines at places, in the order of the input."""
    for line in lines_at(places, shards, max_line=options.max_line_nbytes):
        yield FoundLine(shards[line.place.shard_index].path, line)


def nothing_found(shards: Sequence[Shard], search: Search) -> str:
    """Say in a sentence that there is no such line."""
    asked = []
    if search.reason:
        asked.append(f"is {search.reason if search.reason in FATES else fate_of(search.reason, None)}")
    asked += [f"is one of which {search.where} is true"] if search.where else []
    where = shards[0].path if len(shards) == 1 else f"{len(shards):,} files"
    what = f"no line of {where} {' and '.join(asked)}" if asked else f"{where} has no line"
    return f"nothing found: {what}"


def check_search(search: Search, options: Options) -> None:
    """Make sure that what is wanted can be.

    Raises:
        UsageError: It cannot.
    """
    if search.first < 1 or search.count < 1:
        raise UsageError("lines are numbered from 1, and at least one is shown")
    if search.at_random and search.first > 1:
        raise UsageError("--line says where to begin, and --random takes lines from everywhere; leave one of them out")
    reason = search.reason
    if reason is None or reason in (*FATES, *REFUSED):
        return
    name, _, kind = reason.partition(":")
    if name not in DROPPED or (kind and (name != UNTRAINABLE[:-1] or kind not in _FAULTS)):
        raise UsageError(
            f"no reason named {reason!r}; there are:",
            ", ".join(FATES),
            f"dropped: {', '.join(DROPPED)}, and untrainable: with the name of a finding, as untrainable:{_FAULTS[0]}",
            f"refused: {', '.join(REFUSED)}",
        )
    if name in GATES and name not in options.gates:
        raise UsageError(f"no line is dropped as {name}, as --allow lets it in")
    flag = DROPPED[name]
    given = {flag_of(field): getattr(options, field) for field in options.__struct_fields__}
    if flag is None or given[flag] not in (None, False):
        return
    if name == "where":
        raise UsageError(
            "--where finds lines here, and drops none: find what it would drop with --where 'NOT (…)', or name the "
            "output of a run that had it, --report OUT"
        )
    raise UsageError(f"no line is dropped as {name} without {flag}: give it, or --report OUT of a run that had it")


_FAULTS = [name for name, kind in KINDS.items() if not kind.is_note]


def fate_of(reason: str | None, problem: str | None) -> str:
    """Say in words what becomes of a line."""
    if reason in REFUSED:
        return f"refused: {reason}" + (f": {problem}" if problem else "")
    return "kept" if reason is None else f"dropped: {reason}"
