"""Plan a run, have its spans done, publish what they left."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fastsft.errors import UsageError
from fastsft.execution.polars_after_fork import check_polars
from fastsft.execution.signals import signals_too_late
from fastsft.execution.workers import Workers
from fastsft.inputs.materialized import materialized_inputs
from fastsft.inputs.shards import (
    Shard,
    Span,
    expanded_nbytes,
    find_rollouts,
    local_paths,
    printable,
    spans_of,
    whole_of,
)
from fastsft.options import Options, Split
from fastsft.outputs.outputs import Outputs
from fastsft.outputs.record import fingerprint_of
from fastsft.outputs.target import Target, check_target, report_before, splits_left, targets_of
from fastsft.pipeline.job import Job
from fastsft.pipeline.ledger import Ledger
from fastsft.report import Progress, Report
from fastsft.storage.files import kind_of
from fastsft.version import __version__

if TYPE_CHECKING:
    from fastsft.selection.index_file import Index


class Published(Exception):
    """The run in parts that a part is to join is published, or one that is to be uploaded is done: its report."""

    def __init__(self, report: Report) -> None:
        super().__init__(report)
        self.report = report


class Started(NamedTuple):
    """A run that has begun: its targets are locked, its workers wait, and its folder is there.

    Attributes:
        job: Its phases.
        ledger: What becomes of the lines.
        outputs: Where rows go.
        targets: The same, by their names.
        earlier: Which files of an earlier run lie at each.
        workers: Who does the work.
        shares: The share of the tasks that goes to each split.
    """

    job: Job
    ledger: Ledger
    outputs: Outputs
    targets: list[Target]
    earlier: list[set[str]]
    workers: Workers
    shares: list[float]


def run(
    inputs: Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    options: Options,
    *,
    splits: Sequence[Split] = (),
    index: str | os.PathLike[str] | None = None,
    call: dict[str, Any] | None = None,
    is_kept: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Convert the rollouts of `inputs` into rows at `output` and at the splits, whole or not at all.

    With `call`, all is done by parts, and only published here; it says what was asked of them (`parts.py`). With
    `is_kept`, what the same run published there before is not done again.

    Raises:
        UsageError: The arguments are wrong; nothing was read or written.
        FailedRun: The run could not be finished; nothing was published.
        Published: With `is_kept`: it was done before.
    """
    started = time.perf_counter()
    begun_run = begin(
        inputs, output, options, splits=splits, index=index, call=call, is_kept=is_kept, on_progress=on_progress
    )
    with contextlib.ExitStack() as at_last, begun_run as begun:  # and at its end, signals come too late still
        receipts = begun.job.do_all()
        report = _judged(begun, options)
        begun.job.report_phase("publish")
        files = begun.outputs.assemble(receipts, begun.ledger.refused, begun.workers)
        names = _names_of(begun.targets)
        report.options["splits"] = dict(zip(names[1:], begun.shares, strict=True))
        for split, name in zip(report.splits, names, strict=bool(splits)):
            split.name = name
        report.notes += begun.workers.losses
        noted = len(begun.workers.losses)
        report.run = begun.outputs.fingerprint if call or is_kept else ""
        report.seconds = round(time.perf_counter() - started, 3)
        at_last.enter_context(signals_too_late())  # until everything is put away
        begun.outputs.publish(files, report, begun.earlier)
        begun.outputs.remove_segments(receipts, begun.workers)
    report.notes += begun.workers.losses[noted:]  # while what is left was removed
    report.notes += [f"{path} could not be removed; the next run does it" for path in begun.outputs.left]
    return report


@contextlib.contextmanager
def begin(
    inputs: Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    options: Options,
    *,
    splits: Sequence[Split],
    index: str | os.PathLike[str] | None,
    call: dict[str, Any] | None = None,
    joins: bool = False,
    is_kept: bool = False,
    on_progress: Callable[[Progress], None] | None,
) -> Iterator[Started]:
    """Plan a run, check what can be checked before any work, and have everything that it needs until it ends.

    With `joins`, it is a part of the run of `call`, whose other parts may be at work; with `is_kept`, it may be done.

    Raises:
        UsageError: The arguments are wrong; nothing was read or written.
        Published: The run is done.
    """
    if options.work is not None:
        raise UsageError("--work is for rows that go to a store, and the output is a path")
    arguments = [os.fspath(path) for path in inputs]
    shards, notes = find_rollouts(arguments)
    materialized = materialized_inputs(shards) if options.makes == "tasks" else []
    targets = targets_of(output, splits, options)
    spans = spans_of(shards, options.span_nbytes)
    outputs = Outputs(targets, options)
    # Workers come first: Polars, which reads the expressions, starts threads, and then none can be forked; and what is
    # forked later would hold the lock, too.
    selects = options.may_compare or bool(splits) or index is not None
    workers = Workers(options.placement, nbytes=expanded_nbytes(shards), tasks=len(spans), selects=selects)
    with contextlib.ExitStack() as stack:
        stack.callback(_end_renderer)
        stack.callback(workers.end)
        stack.enter_context(outputs.locked(shards, shared=joins))
        earlier = [check_target(target, [*shards, *materialized], arguments, index) for target in targets]
        notes += splits_left(targets)
        notes += filter(None, [options.target_note()])
        notes += [] if options.pairing is None else options.pairing.notes
        found = _index_for(shards, splits, options, index, notes)
        compares = _compares(splits, options) or found is not None
        if spans and call is None and _writes_straight(workers, targets):
            spans = [whole_of(shards)]
        made_from = _made_from(shards, spans, splits, options, targets, compares, index)
        if materialized:
            made_from["materialized"] = _inputs_of(materialized)
        if (joins or is_kept) and (report := _published(targets[0], fingerprint_of(made_from))):
            raise Published(report)
        stack.enter_context(outputs.staged(made_from, call=call, joins=joins))
        workers.check(outputs.record, local_paths(shards[:1]))
        stack.callback(workers.end)  # before the folder is put away that they write to
        notes += outputs.notes
        ledger = Ledger(shards, notes, options)
        shares = [split.share for split in splits]
        parts = call["parts"] if call and not joins else None
        job = Job(
            shards,
            spans,
            options,
            workers,
            outputs,
            ledger,
            on_progress,
            shares=shares,
            index=found,
            compares=compares,
            parts=parts,
            materialized=materialized,
        )
        yield Started(job, ledger, outputs, targets, earlier, workers, shares)


def _published(target: Target, fingerprint: str) -> Report | None:
    """Return the report at a target where that is of the same run in parts."""
    report = report_before(target)
    if report is None or report.run != fingerprint:
        return None
    report.folder, report.file = str(target.folder), target.report.name
    return report


def _judged(begun: Started, options: Options) -> Report:
    """Return the report of what was done, if enough lines are usable and kept."""
    begun.ledger.judge()
    report = begun.ledger.report
    if report.tasks is not None:
        from fastsft.pipeline.task_rows import notes_of

        report.notes += notes_of(report.tasks)
    most, refused = options.max_refused_recorded, report.fates.all_refused
    if most is not None and refused > most:
        report.notes.append(f"the first {most:,} of {refused:,} refused lines are listed (--max-refused-recorded)")
    return report


def _names_of(targets: Sequence[Target]) -> list[str]:
    return [os.path.relpath(target.folder / (target.file or ""), targets[0].folder) for target in targets]


def _end_renderer() -> None:
    if "fastsft.checks.renderer" in sys.modules:
        sys.modules["fastsft.checks.renderer"].end_renderer()


def _writes_straight(workers: Workers, targets: Sequence[Target]) -> bool:
    """Tell whether this process alone writes to the one segment that becomes the file."""
    return workers.is_alone and all(target.file is not None for target in targets)


def _made_from(
    shards: Sequence[Shard],
    spans: Sequence[Span],
    splits: Sequence[Split],
    options: Options,
    targets: Sequence[Target],
    compares: bool,
    index: str | os.PathLike[str] | None,
) -> dict[str, Any]:
    """Return what receipts are made from: a run goes on only from those of the same."""
    return {
        "version": __version__,
        "options": [options.shown(), [[split.output, split.share] for split in splits], compares],
        "template": _versions_of(options.template),
        "index": _versions_of(index),
        "inputs": _inputs_of(shards),
        "spans": [len(spans), options.span_nbytes],
        "output": [str(target.folder / (target.file or target.stem)) for target in targets],
    }


def _inputs_of(shards: Sequence[Shard]) -> list[list[Any]]:
    return [[printable(shard.location), printable(shard.path), shard.nbytes, shard.modified_ns] for shard in shards]


def _versions_of(path: str | os.PathLike[str] | None) -> list[tuple[str, int, int]]:
    """Return path, size and time of change of a file, or of the files in a folder."""
    if path is None:
        return []
    files = sorted(Path(path).iterdir()) if kind_of(path) == "folder" else [Path(path)]
    found = [(os.path.abspath(file), file.stat()) for file in files if file.exists()]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in found]


def _compares(splits: Sequence[Split], options: Options) -> bool:
    if not (options.may_compare or splits):
        return False
    from fastsft.selection.criteria import compares_lines

    return compares_lines(options) or bool(splits)


def _index_for(
    shards: Sequence[Shard],
    splits: Sequence[Split],
    options: Options,
    index: str | os.PathLike[str] | None,
    notes: list[str],
) -> Index | None:
    """Find the index that the run chooses from, and what is wrong with what was asked before any work."""
    if options.template is not None:
        from fastsft.checks.renderer import check_template

        check_template(options.template, options.render_seconds, counting=options.max_tokens is not None)
    if options.judges_rows and index is not None:
        raise UsageError("an index does not know what --template and --trainable say of rows; leave one of them out")
    if not (options.may_compare or splits or index is not None):
        return None
    if options.makes == "tasks":  # an index says which lines have rows to imitate
        check_polars()
        return None
    check_polars()
    from fastsft.selection.index_file import index_for

    usable = (_compares(splits, options) or index is not None) and not options.judges_rows
    return index_for(index, shards, options, notes) if usable else None
