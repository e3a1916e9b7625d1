"""What a person sees of a run: the progress bar, the summary, an example."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from typing import IO, TYPE_CHECKING, Any

from fastsft.escape import escaped
from fastsft.storage.compression import SUFFIXES, open_compressed
from fastsft.storage.urls import is_remote, root_and_key

if TYPE_CHECKING:
    from fastsft.report import Progress, Report

FEW_ROWS = 100  # below this the page advises to lower the threshold

_LOWEST_ADVISED = 0.85  # threshold

_BAR_COLUMNS = 78
_SHOWN_CHARACTERS = 200
_SHOWN_ELEMENTS = 6


class ProgressBar:
    """Input bytes, rows and rate on one line of a terminal; nothing where stderr is none, or too narrow for one line.

    Use it in a `with` block.
    """

    def __init__(self, *, hidden: bool) -> None:
        self._hidden = hidden or not (sys.stderr and sys.stderr.isatty()) or _columns() < _BAR_COLUMNS
        self._bar: Any = None
        self._started = self._drawn = time.monotonic()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.render_progress()  # of the last update, which it may have left for later
            self._bar.render_finish()

    def show(self, progress: Progress) -> None:
        """Draw how far the run is."""
        if self._hidden:
            return
        length = max(progress.total_nbytes, 1)
        if self._bar is None or self._bar.length != length:  # of the first files, or of others
            import typer

            self.__exit__()
            self._bar = typer.progressbar(length=length, file=sys.stderr, width=16)
            self._started = self._drawn
        self._drawn = time.monotonic()
        seconds = max(self._drawn - self._started, 0.001)
        rate = f"{size_of(progress.nbytes / seconds)}/s"
        self._bar.label = f"{size_of(progress.nbytes):>8} {rate:>10} {progress.rows:>11,} rows"
        self._bar.update(progress.nbytes - self._bar.pos)


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _BAR_COLUMNS  # 0 where nobody has set it
    except OSError:
        return _BAR_COLUMNS


def size_of(nbytes: float) -> str:
    """Write a number of bytes for a person, in powers of 1000.

    >>> size_of(999), size_of(1_500_000)
    ('999 B', '1.5 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} TB"


def summary_of(report: Report) -> str:
    """Write what became of all lines, every reason with its count, and where the rows are."""
    fates = report.fates
    nbytes = sum(shard.nbytes for shard in report.inputs)
    lines = [f"{escaped(note)}" for note in report.notes]
    lines += [damaged_of(report)] if report.damaged else []
    if report.outputs:
        lines.append(f"Read {many(fates.lines, 'line')} of {many(len(report.inputs), 'shard')}, {size_of(nbytes)}.")
    else:
        lines.append(f"Read {many(fates.lines, 'line')} when the run ended.")
    lines.append("")
    for fate, count, reasons in (
        ("kept", fates.kept, {"trimmed": fates.trimmed} if fates.trimmed else {}),
        ("dropped", fates.all_dropped, fates.dropped),
        ("refused", fates.all_refused, fates.refused),
        ("blank", fates.blank, {}),
    ):
        lines.append(f"  {fate:<8} {count:>14,}")
        lines.extend(f"    {reason:<20} {number:>14,}" for reason, number in reasons.items())
    if report.outputs:
        first = escaped(path_in(report.folder, report.outputs[0].name))
        more = f" and {many(len(report.outputs) - 1, 'more shard')}" if len(report.outputs) > 1 else ""
        if report.splits:
            lines += ["", f"Wrote {many(fates.kept, 'row')} in {report.seconds:.1f} s, no task in two outputs:"]
        else:
            lines += ["", f"Wrote {many(report.rows, 'row')}, {size_of(report.nbytes)}, in {report.seconds:.1f} s:"]
            lines.append(f"  {first}{more}")
        for split in report.splits:
            path = escaped(path_in(report.folder, split.name))
            lines.append(f"  {path}: {many(split.rows, 'row')} of {many(split.tasks, 'task')}")
        lines += left_out_of(report)
        if report.refused_lines:
            lines.append(f"The refused lines are listed in {escaped(report.refused_lines)} beside it.")
    return "\n".join(lines)


_KEPT_BY = {"reasoning": "--format chat keeps it", "calls": "--format openai and chat keep them"}


def left_out_of(report: Report) -> list[str]:
    """Write how many rows lack something that their rollouts have, and how to keep it."""
    lines = []
    for what, count in report.left_out.items():
        if what in ("images", "sounds", "videos"):
            how = "they lie in the metadata, where no row has them, or in turns that are left out"
        else:
            how = "--reasoning drop leaves it out" if report.options.get("reasoning") == "drop" else _KEPT_BY[what]
        lines.append(f"Left out: the {what} of {many(count, 'row')} ({how}).")
    return lines


def damaged_of(report: Report) -> str:
    """Write which shards were refused whole, a line each."""
    return "\n".join(f"Skipped file: {escaped(shard.problem or '')}" for shard in report.damaged)


def indexed(report: Report, path: object) -> str:
    """Write what an index holds and where it is."""
    fates = report.fates
    rollouts = fates.lines - fates.all_refused - fates.blank
    lines = [escaped(note) for note in report.notes]
    lines += [damaged_of(report)] if report.damaged else []
    lines.append(
        f"Read {many(fates.lines, 'line')} of {many(len(report.inputs), 'shard')}: {many(rollouts, 'rollout')}, "
        f"{fates.all_refused:,} refused, {fates.blank:,} blank."
    )
    lines.append(f"Wrote their table: {escaped(str(path))}")
    return "\n".join(lines)


def many(count: int, what: str) -> str:
    """Write a number of things, one or several."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


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


def path_in(folder: str, name: str) -> str:
    """Return where a file is that a report names; its folder may be a URL.

    >>> path_in("s3://bucket/sft/", "../val.jsonl"), path_in("sft", "val.jsonl")
    ('s3://bucket/val.jsonl', 'sft/val.jsonl')
    """
    if not is_remote(folder):
        return os.path.normpath(os.path.join(folder, name))
    root, key = root_and_key(folder)
    return f"{root}/{os.path.normpath(os.path.join(key, name))}"


def example_of(rows: str | os.PathLike[str]) -> str:
    """Show the first row of a file as indented JSON, long texts and lists cut, everything escaped."""
    path = os.fspath(rows)
    compression = os.path.splitext(path)[1][1:]
    with contextlib.ExitStack() as stack:
        file: Any = stack.enter_context(_opened(path))
        if compression in SUFFIXES:
            file = stack.enter_context(open_compressed(file, compression))
        row = json.loads(file.readline())
    text = json.dumps(_shortened(row), indent=2, ensure_ascii=False)
    return f"\nAn example, the first row, long texts and lists cut:\n{escaped(text, keep=chr(10))}"


def _opened(path: str) -> IO[bytes]:
    if not is_remote(path):
        return open(path, "rb")
    from fastsft.storage.read_ahead import open_object
    from fastsft.storage.stores import entry_at

    entry = entry_at(path)
    if entry is None:
        raise FileNotFoundError(path)
    return open_object(entry)


def _shortened(value: Any) -> Any:
    match value:
        case str() if len(value) > _SHOWN_CHARACTERS:
            return f"{value[:_SHOWN_CHARACTERS]}… ({len(value) - _SHOWN_CHARACTERS:,} more characters)"
        case list():
            more = [f"… ({len(value) - _SHOWN_ELEMENTS:,} more)"] if len(value) > _SHOWN_ELEMENTS else []
            return [_shortened(element) for element in value[:_SHOWN_ELEMENTS]] + more
        case dict():
            return {key: _shortened(element) for key, element in value.items()}
        case _:
            return value
