"""What a person reads when a run has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastsft.escape import escaped
from fastsft.views.terminal import many, path_in, size_of

if TYPE_CHECKING:
    from fastsft.report import Report

FEW_ROWS = 100  # below this the page advises to lower the threshold

_LOWEST_ADVISED = 0.85  # threshold


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
