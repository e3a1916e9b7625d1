"""What a person reads when a run has ended."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from fastsft.escape import escaped
from fastsft.views.colour import Paint, plain
from fastsft.views.terminal import many, path_in, shown_path, size_of

if TYPE_CHECKING:
    from fastsft.report import PairCounts, Report

FEW_ROWS = 100  # below this the page advises to lower the threshold

_LOWEST_ADVISED = 0.85  # threshold
_COLUMNS = 80
_SHOWN_NOTES = 5
_FATE_STYLES = {"kept": "green", "refused": "yellow"}


def summary_of(report: Report, paint: Paint = plain) -> str:
    """Write on one screen where the rows are, what to do next, what was lost, and what became of all lines."""
    lines = [*_written(report, paint), ""] if report.outputs else []
    if lost := _lost(report):
        lines += [paint("Lost on the way:", "bold"), *(f"  {one}" for one in lost), ""]
    if report.pairs is not None:
        lines += [paint("Pairs:", "bold"), *(f"  {one}" for one in _pairs_told(report.pairs)), ""]
    lines += _fates(report, paint)
    for note in _first(map(escaped, report.notes), _SHOWN_NOTES, "notes"):
        lines += textwrap.wrap(note, _COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)


def _written(report: Report, paint: Paint) -> Iterator[str]:
    """Say where what is, and what comes next."""
    if report.splits:
        yield paint(f"Wrote {many(sum(split.rows for split in report.splits), 'row')}", "bold") + (
            f" in {report.seconds:.1f} s, no task in two outputs."
        )
        outputs = [path_in(report.folder, split.name) for split in report.splits]
        counts = [f" ({many(split.rows, 'row')} of {many(split.tasks, 'task')})" for split in report.splits]
    else:
        yield paint(f"Wrote {many(report.rows, 'row')}", "bold") + (
            f", {size_of(report.nbytes)}, in {report.seconds:.1f} s."
        )
        several = len(report.outputs) > 1
        outputs = [path_in(report.folder, "" if several else report.outputs[0].name)]
        counts = [f" ({many(len(report.outputs), 'file')})" if several else ""]
    refused = many(report.fates.all_refused, "line")
    entries = [("rows", shown_path(output) + count) for output, count in zip(outputs, counts, strict=True)]
    entries.append(("report", shown_path(path_in(report.folder, report.file))))
    if report.refused_lines:
        entries.append(("refused", f"{shown_path(path_in(report.folder, report.refused_lines))} ({refused})"))
    if report.rows and not report.tasks and outputs == list(map(escaped, outputs)):  # as a shell would take them
        target = ["--for", trainer] if (trainer := report.options.get("trainer")) else []
        entries.append(("next", shlex.join(["fastsft", "check", *target, *map(shown_path, outputs)])))
    yield from (f"  {paint(f'{name:<8}', 'cyan')} {text}" for name, text in entries)


def _lost(report: Report) -> list[str]:
    lost = [f"the {what} of {many(count, 'row')}: {how}" for what, count, how in left_out_of(report)]
    if report.fates.trimmed:
        lost.append(f"turns after the last assistant turn of {many(report.fates.trimmed, 'row')}")
    return [*lost, *_first(damaged_of(report), _SHOWN_NOTES, "files")]


def _fates(report: Report, paint: Paint) -> Iterator[str]:
    """Write what became of all lines, every reason with its count, in alphabetical order."""
    fates, shards = report.fates, report.inputs
    nbytes = size_of(sum(shard.nbytes for shard in shards))
    where = f"of {many(len(shards), 'shard')}, {nbytes}:" if report.outputs else "when the run ended:"
    yield f"Read {many(fates.lines, 'line')} {where}"
    for fate, count, reasons in (
        ("kept", fates.kept, _kept_as(report)),
        ("dropped", fates.all_dropped, fates.dropped),
        ("refused", fates.all_refused, fates.refused),
        ("blank", fates.blank, {}),
    ):
        head = f"  {fate:<8} {count:>11,}"
        told = ", ".join(f"{reason} {number:,}".replace(" ", "\xa0") for reason, number in reasons.items())
        first, *more = textwrap.wrap(told, _COLUMNS - len(head) - 2, break_on_hyphens=False) or [""]
        lines = [f"{paint(head, _FATE_STYLES.get(fate, 'none') if count else 'none')}  {first}".rstrip()]
        lines += [f"{'':{len(head)}}  {line}" for line in more]
        yield from (line.replace("\xa0", " ") for line in lines)


def _first(texts: Iterable[str], count: int, what: str) -> Iterator[str]:
    """Give so many of some texts, and say that the report has the others."""
    several = list(texts)
    yield from several[:count]
    if len(several) > count:
        yield f"… and {len(several) - count:,} more {what}, in the report"


def _kept_as(report: Report) -> dict[str, int]:
    if report.pairs is None:
        return {}
    counts = {name: getattr(report.pairs, name) for name in ("chosen", "rejected", "both")}
    return {name: count for name, count in counts.items() if count}


_LONGER = 1.2  # times, from which on a difference in length is worth a hint
_SHOWN_TURNS = 5


def _pairs_told(pairs: PairCounts) -> Iterator[str]:
    """Write how long both sides are, as that is what is learned first, and in which turns they part."""
    chosen, rejected = pairs.chosen_length, pairs.rejected_length
    yield f"mean length in characters: {chosen:,.0f} chosen, {rejected:,.0f} rejected"
    if pairs.turns and max(chosen, rejected) > _LONGER * min(chosen, rejected):
        which = "longer" if chosen > rejected else "shorter"
        yield f"chosen sides are {which}, which DPO learns first; --length-ratio 0.5:2 leaves out such pairs"
    if pairs.turns:
        told = [f"{turn}: {count:,}" for turn, count in list(pairs.turns.items())[:_SHOWN_TURNS]]
        beyond = sum(list(pairs.turns.values())[_SHOWN_TURNS:])
        yield f"the sides part in turn {', '.join(told)}{f', later: {beyond:,}' if beyond else ''}"


_KEPT_BY = {"reasoning": "--format chat keeps it", "calls": "--format openai and chat keep them"}
_KEPT_BY_PAIRS = {
    "reasoning": "--format nemo-rl and trl keep it",
    "calls": "--format nemo-rl and trl keep them",
    "tools": "the trainer does not show them to the model",
    "turns": "system texts and earlier turns",
    "texts": "LLaMA-Factory has no place for them beside calls",
}


def left_out_of(report: Report) -> Iterator[tuple[str, int, str]]:
    """Return what rows lack that their rollouts have: what, how many rows, and how to keep it."""
    for what, count in report.left_out.items():
        if what in ("images", "sounds", "videos"):
            how = "they lie in the metadata, or in turns that are left out"
        else:
            kept_by = _KEPT_BY if report.pairs is None else _KEPT_BY_PAIRS
            is_asked = report.pairs is None and report.options.get("reasoning") == "drop"
            how = "--reasoning drop leaves it out" if is_asked else kept_by[what]
        yield what, count, how


def damaged_of(report: Report) -> list[str]:
    """Write which shards were refused whole."""
    return [f"Skipped file: {escaped(shard.problem or '')}" for shard in report.damaged]


def indexed(report: Report, path: object) -> str:
    """Write what an index holds and where it is."""
    fates = report.fates
    rollouts = fates.lines - fates.all_refused - fates.blank
    lines = [*map(escaped, report.notes), *damaged_of(report)]
    lines.append(
        f"Read {many(fates.lines, 'line')} of {many(len(report.inputs), 'shard')}: {many(rollouts, 'rollout')}, "
        f"{fates.all_refused:,} refused, {fates.blank:,} blank."
    )
    lines.append(f"Wrote their table: {escaped(str(path))}")
    return "\n".join(lines)


def few_rows_warning(report: Report) -> str | None:
    """Warn of too few rows to train on, with the advice of NeMo Gym's SFT guide."""
    if report.rows >= FEW_ROWS:
        return None
    few = f"Warning: fewer than {FEW_ROWS} rows." if report.rows else "Warning: no rows."
    reason, count = max(report.fates.dropped.items(), key=lambda one: one[1], default=("", 0))
    if reason == "below_threshold" and report.options["reward_threshold"] > _LOWEST_ADVISED:
        return f"{few} Consider lowering --reward-threshold\n(try 0.90 or 0.85), or collect more rollouts."
    why = f" Most were dropped as {reason} ({count:,})." if reason else ""
    return f"{few}{why} Consider collecting more rollouts."
