"""Plan a run, have its spans done, publish what they left."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import msgspec

from fastsft.errors import UsageError
from fastsft.execution.polars_after_fork import check_polars
from fastsft.execution.signals import signals_too_late
from fastsft.execution.spans import Product, make_all
from fastsft.execution.workers import Workers
from fastsft.inputs.shards import Shard, Span, expanded_nbytes, find_rollouts, printable, spans_of, whole_of
from fastsft.options import Options, Split
from fastsft.outputs.assembly import digest_of
from fastsft.outputs.outputs import Outputs
from fastsft.outputs.receipts import Receipt
from fastsft.outputs.target import Target, check_target, splits_left, targets_of
from fastsft.pipeline.ledger import Ledger
from fastsft.pipeline.one_pass import Rows
from fastsft.pipeline.staged import input_digest
from fastsft.pipeline.two_passes import CHOSEN, ChosenRows, ChosenSpan, LineTable
from fastsft.report import Progress, Report
from fastsft.storage.files import kind_of
from fastsft.version import __version__

if TYPE_CHECKING:
    from fastsft.pipeline.choosing import Choice
    from fastsft.selection.index_file import Index


def run(
    inputs: Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    options: Options,
    *,
    splits: Sequence[Split] = (),
    index: str | os.PathLike[str] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Convert the rollouts of `inputs` into rows at `output` and at the splits, whole or not at all.

    Raises:
        UsageError: The arguments are wrong; nothing was read or written.
        FailedRun: The run could not be finished; nothing was published.
    """
    started = time.perf_counter()
    arguments = [os.fspath(path) for path in inputs]
    shards, notes = find_rollouts(arguments)
    targets = targets_of(output, splits, options)
    spans = spans_of(shards, options.span_nbytes)
    outputs = Outputs(targets, options)
    # Workers come first: Polars, which reads the expressions, starts threads, and then none can be forked; and what is
    # forked later would hold the lock, too.
    selects = options.may_compare or bool(splits) or index is not None
    workers = Workers(options.placement, nbytes=expanded_nbytes(shards), tasks=len(spans), selects=selects)
    with contextlib.ExitStack() as at_last, contextlib.ExitStack() as stack:
        stack.callback(_end_renderer)
        stack.callback(workers.end)
        stack.enter_context(outputs.locked(shards))
        earlier = [check_target(target, shards, arguments, index) for target in targets]
        notes += splits_left(targets)
        found = _index_for(shards, splits, options, index, notes)
        compares = _compares(splits, options) or found is not None
        if spans and _writes_straight(workers, targets):
            spans = [whole_of(shards)]
        stack.enter_context(outputs.staged(_made_from(shards, spans, splits, options, targets, compares, index)))
        workers.check(outputs.record, [shards[0].location] if shards else [])
        stack.callback(workers.end)  # before the folder is put away that they write to
        notes += outputs.notes
        ledger = Ledger(shards, notes, options)
        job = _Job(
            shards, spans, options, workers, outputs, ledger, on_progress, passes=2 if compares and not found else 1
        )
        shares = [split.share for split in splits]
        receipts = job.in_two_passes(shares, found) if compares else job.in_one_pass()
        ledger.judge()
        report = ledger.report
        most, refused = options.max_refused_recorded, report.fates.all_refused
        if most is not None and refused > most:
            report.notes.append(f"the first {most:,} of {refused:,} refused lines are listed (--max-refused-recorded)")
        files = outputs.assemble(receipts, ledger.refused, workers)
        names = [os.path.relpath(target.folder / (target.file or ""), targets[0].folder) for target in targets]
        report.options["splits"] = dict(zip(names[1:], shares, strict=True))
        for split, name in zip(report.splits, names, strict=bool(splits)):
            split.name = name
        report.notes += workers.losses
        noted = len(workers.losses)
        report.seconds = round(time.perf_counter() - started, 3)
        at_last.enter_context(signals_too_late())  # until everything is put away
        outputs.publish(files, report, earlier)
        outputs.remove_segments(receipts, workers)
    report.notes += workers.losses[noted:]  # while what is left was removed
    report.notes += [f"{path} could not be removed; the next run does it" for path in outputs.left]
    return report


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
        "inputs": [[printable(shard.location), shard.nbytes, shard.modified_ns] for shard in shards],
        "spans": [len(spans), options.span_nbytes],
        "output": [str(target.folder / (target.file or target.stem)) for target in targets],
    }


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
    check_polars()
    from fastsft.selection.index_file import index_for

    usable = (_compares(splits, options) or index is not None) and not options.judges_rows
    return index_for(index, shards, options, notes) if usable else None


# From which importing Polars pays where text is Chinese: 0.12 s in each process, where Python takes 0.8 s/GB more.
_LARGE_NBYTES = 1024**3

S = TypeVar("S", Span, ChosenSpan)
S_contra = TypeVar("S_contra", contravariant=True)


class _Staged(Product[S_contra, Receipt], Protocol[S_contra]):
    phase: ClassVar[str]


class _Job:
    """The phases of a run."""

    def __init__(
        self,
        shards: Sequence[Shard],
        spans: Sequence[Span],
        options: Options,
        workers: Workers,
        outputs: Outputs,
        ledger: Ledger,
        on_progress: Callable[[Progress], None] | None,
        passes: int,
    ) -> None:
        self._shards = shards
        self._spans = spans
        self._options = options
        self._workers = workers
        self._outputs = outputs
        self._ledger = ledger
        self._on_progress = on_progress
        self._passes = passes
        self._total_nbytes = sum(span.nbytes for span in spans)
        self._rows = 0

    def in_one_pass(self) -> list[Receipt]:
        """Convert every span, in input order."""
        is_large = expanded_nbytes(self._shards) >= _LARGE_NBYTES
        rows = Rows(**self._staged(), most_nbytes=self._outputs.most_nbytes, is_large=is_large)
        return self._make(rows, self._spans, share=(0.0, 1.0))

    def in_two_passes(self, shares: Sequence[float], index: Index | None) -> list[Receipt]:
        """Choose from the table of all lines, then convert the chosen ones, in input order within each split."""
        from fastsft.selection.criteria import columns_of

        ledger, folder = self._ledger, self._outputs.folder
        if index is None:
            columns = tuple(columns_of(self._options, splits=bool(shares)))
            self._make(LineTable(**self._staged(), columns=columns), self._spans, share=(0.0, 0.5))
        table = ledger.parts if index is None else index
        choosing = partial(_choose, table, folder, self._shards, self._spans, self._options, shares)
        choice = self._workers.run_alone(choosing)
        for receipt in choice.receipts:
            ledger.take(receipt)
        ledger.drop(choice.dropped)
        ledger.report.splits = choice.splits
        ledger.seen = choice.seen
        rows = ChosenRows(**self._staged(), most_nbytes=self._outputs.most_nbytes, chosen=str(folder / CHOSEN))
        return self._make(rows, choice.spans, share=(1 / self._passes - 0.5, 1.0)) if choice.spans else []

    def _staged(self) -> dict[str, Any]:
        folder, fingerprint = str(self._outputs.folder), self._outputs.fingerprint
        options = self._options
        if options.template is not None:  # a worker may have another working directory
            options = msgspec.structs.replace(options, template=os.path.abspath(options.template))
        return {"options": options, "folder": folder, "fingerprint": fingerprint}

    def _make(self, product: _Staged[S], spans: Sequence[S], share: tuple[float, float]) -> list[Receipt]:
        """Make a product of the spans that have no receipt, and take all receipts in, in input order."""
        known = self._receipts(product.phase, {span.index for span in spans})
        done_nbytes = 0

        def report_progress(nbytes: int, rows: int) -> None:
            if self._on_progress:
                part = share[0] + (share[1] - share[0]) * (done_nbytes + nbytes) / max(self._total_nbytes, 1)
                self._on_progress(Progress(int(part * self._total_nbytes), self._total_nbytes, self._rows + rows))

        unmade = [span for span in spans if span.index not in known]
        fresh = iter(make_all(product, unmade, self._workers, report_progress))
        receipts = []
        for span in spans:
            receipt = known.get(span.index) or next(fresh)
            self._ledger.take(receipt)
            receipts.append(receipt)
            done_nbytes += span.nbytes
            self._rows += sum(segment.rows for segment in receipt.segments)
            report_progress(0, 0)
        for _ in fresh:  # lets the workers know that this was all
            raise AssertionError("more receipts than spans, please report this")
        return receipts

    def _receipts(self, phase: str, spans: set[int]) -> dict[int, Receipt]:
        """Find the receipts that an interrupted run left and that hold still, and say how many there are."""
        left = {index: receipt for index, receipt in self._outputs.receipts(phase).items() if index in spans}
        if not left:
            return {}
        verify = partial(_holds, folder=str(self._outputs.folder), verify_inputs=self._options.verify_inputs)
        held = self._workers.in_order(verify, [(self._spans[index], receipt) for index, receipt in left.items()])
        known = {index: receipt for (index, receipt), holds in zip(left.items(), held, strict=True) if holds}
        notes, done = self._ledger.report.notes, "scanned" if phase == "scan" else "converted"
        notes.append(f"goes on from an interrupted run: {len(known):,} of {len(spans):,} spans were {done} before")
        if len(known) < len(left):
            notes.append(f"{len(left) - len(known):,} of its spans are {done} again: their files or inputs differ")
        return known


def _choose(*table: Any) -> Choice:
    from fastsft.pipeline.choosing import choose_lines  # Polars: not before the workers are forked

    return choose_lines(*table)


def _holds(_: int, item: tuple[Span, Receipt], folder: str, *, verify_inputs: bool) -> bool:
    """Tell whether a span's files, and with `verify_inputs` its inputs, are those that its receipt was written for."""
    span, receipt = item
    if verify_inputs and receipt.input_sha256 != input_digest(span):
        return False
    files = [*receipt.segments, *filter(None, [receipt.refused])]
    return all(digest_of([file.name], Path(folder)) == file.sha256 for file in files)
