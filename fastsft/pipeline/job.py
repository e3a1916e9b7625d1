"""The phases of a run: which spans are made of what, from which receipts it goes on, what is chosen between."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import msgspec

from fastsft.errors import FailedRun, LinesChosen, UnfinishedParts
from fastsft.execution.spans import Product, make_all
from fastsft.execution.workers import Workers
from fastsft.inputs.shards import Shard, Span, expanded_nbytes
from fastsft.options import Options
from fastsft.outputs.assembly import digest_of
from fastsft.outputs.outputs import Outputs
from fastsft.outputs.receipts import Receipt
from fastsft.pipeline.ledger import Ledger
from fastsft.pipeline.one_pass import Rows
from fastsft.pipeline.staged import input_digest
from fastsft.pipeline.two_passes import CHOICE, CHOSEN, ChosenRows, ChosenSpan, LineTable
from fastsft.report import Progress
from fastsft.storage.files import kind_of, read_file, write_new

if TYPE_CHECKING:
    from fastsft.pipeline.choosing import Choice
    from fastsft.pipeline.pair_rows import PairRows
    from fastsft.selection.index_file import Index

_Choice = tuple[str, list[tuple[int, tuple[tuple[int, int], ...], tuple[int, ...]]]]  # as the file has it
_MOST_PARTS = 20  # that are named
# From which importing Polars pays where text is Chinese: 0.12 s in each process, where Python takes 0.8 s/GB more.
_LARGE_NBYTES = 1024**3

S = TypeVar("S", Span, ChosenSpan)
S_contra = TypeVar("S_contra", contravariant=True)


class _Staged(Product[S_contra, Receipt], Protocol[S_contra]):
    phase: ClassVar[str]

    @property
    def choice(self) -> str: ...


class Job:
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
        *,
        shares: Sequence[float],
        index: Index | None,
        compares: bool,
        parts: int | None,
        materialized: Sequence[Shard] = (),
    ) -> None:
        self._shards = shards
        self._spans = spans
        self._options = options
        self._workers = workers
        self._outputs = outputs
        self._ledger = ledger
        self._on_progress = on_progress
        self._shares = shares
        self._index = index
        self._compares = compares
        self._parts = parts
        self._materialized = materialized
        self._sources = ""  # what they left, once the lines are chosen
        self._phases = ("scan", "convert") if compares and index is None else ("convert",)
        self._total_nbytes = sum(span.nbytes for span in spans)
        self._phases_done = 0
        self._rows = 0

    def do_all(self) -> list[Receipt]:
        """Convert every span, or choose from the table of all lines and convert those; the receipts of all rows.

        Raises:
            UnfinishedParts: The run is one in parts, and some of them are not done.
        """
        return self._in_two_passes() if self._compares else self._make(self._rows_of_all(), self._spans, (0.0, 1.0))

    def report_phase(self, phase: str) -> None:
        """Tell whoever watches that a phase begins that is no pass over the input."""
        if self._on_progress:
            done = self._total_nbytes * self._phases_done // len(self._phases)
            self._on_progress(Progress(done, self._total_nbytes, self._rows).in_phase(phase, self._phases, 0, 0))

    def do_part(self, number: int, count: int) -> str:
        """Do one part of what there is to do now, from 1, and say in a sentence what that was."""
        what = "converted"
        if not self._compares:
            done, spans = self._make_part(self._rows_of_all(), self._spans, number, count), len(self._spans)
        elif (choice := self._read_choice()) is not None:
            digest, chosen = choice
            self._check_chosen(digest)
            done, spans = self._make_part(self._rows_of_chosen(digest), chosen, number, count), len(chosen)
        elif self._index is not None:
            done, spans, what = 0, 0, "scanned, as an index is there"
        else:
            done, spans, what = self._make_part(self._table(), self._spans, number, count), len(self._spans), "scanned"
        return f"part {number:,} of {count:,}: {done:,} of {spans:,} spans {what}"

    def _rows_of_all(self) -> Rows:
        is_large = expanded_nbytes(self._shards) >= _LARGE_NBYTES
        return Rows(**self._staged(), most_nbytes=self._outputs.most_nbytes, is_large=is_large)

    def _rows_of_chosen(self, digest: str) -> ChosenRows | PairRows:
        settings = {**self._staged(), "most_nbytes": self._outputs.most_nbytes, "choice": digest}
        settings["chosen"] = str(self._outputs.folder / CHOSEN)
        # Task rows and pairs are imported where they are made: 14 ms of every run.
        if self._options.makes == "tasks":
            from fastsft.pipeline.task_rows import TaskRows

            return TaskRows(**settings, sources=self._sources)
        if self._options.pairing is not None:
            from fastsft.pipeline.pair_rows import PairRows

            return PairRows(**settings)
        return ChosenRows(**settings)

    def _table(self) -> LineTable:
        from fastsft.selection.criteria import columns_of

        settings = {**self._staged(), "columns": tuple(columns_of(self._options, splits=bool(self._shares)))}
        if self._options.makes == "tasks":
            from fastsft.pipeline.task_rows import TaskTable

            return TaskTable(**settings)
        return LineTable(**settings)

    def _in_two_passes(self) -> list[Receipt]:
        """Choose from the table of all lines, then convert the chosen ones, in input order within each split."""
        ledger, folder = self._ledger, self._outputs.folder
        if self._index is None:
            self._make(self._table(), self._spans, (0.0, 0.5))
        if self._parts and (choice := self._read_choice()) is not None:
            self._check_made(self._rows_of_chosen(choice[0]), choice[1])  # before choosing once more, from all lines
        table = ledger.parts if self._index is None else self._index
        self.report_phase("choose")
        found = self._choose(table)
        for receipt in found.receipts:
            ledger.take(receipt)
        ledger.drop(found.dropped)
        ledger.keep(found.kept)
        ledger.report.pairs = found.pairs
        ledger.report.splits = found.splits
        ledger.seen = found.seen
        if self._parts:
            slices = [(one.index, one.slices, [shard.index for shard in one.others]) for one in found.spans]
            write_new(folder / CHOICE, msgspec.json.encode([found.digest, slices]))
        if not found.spans:
            return []
        self._read_materialized(found.spans)
        return self._make(self._rows_of_chosen(found.digest), found.spans, (1 - 1 / len(self._phases), 1.0))

    def _read_materialized(self, chosen: Sequence[ChosenSpan]) -> None:
        """Read the materialized inputs of shards of which lines were chosen."""
        wanted = {
            one.shard.index
            for span in chosen
            for one, (start, stop) in zip(span.span.ranges, span.slices, strict=True)
            if start < stop
        }
        if inputs := [shard for shard in self._materialized if shard.index in wanted]:
            from fastsft.pipeline.materialized import SourceRows, make_sources

            product = SourceRows(**self._staged())
            self._sources, problems = make_sources(inputs, product, self._workers, self._options.span_nbytes)
            self._ledger.report.notes += problems

    def _choose(self, table: Index | Sequence[tuple[str, int, int, int]]) -> Choice:
        from fastsft.pipeline.choosing_in_parts import choose_in_parts, may_choose_in_parts

        words = (table, self._outputs.folder, self._shards, self._spans, self._options, self._shares)
        if may_choose_in_parts(table, self._options):
            return choose_in_parts(*words, self._workers)
        return self._workers.run_alone(partial(_choose, *words, pairs=self._options.pairing is not None))

    def _read_choice(self) -> tuple[str, list[ChosenSpan]] | None:
        """Read the digest of the chosen lines, and where those of each span stand; None before they are chosen."""
        path = self._outputs.folder / CHOICE
        if kind_of(path) is None:
            return None
        digest, slices = msgspec.json.decode(read_file(path), type=_Choice)
        return digest, [
            ChosenSpan(self._spans[index], cuts, tuple(self._shards[other] for other in others))
            for index, cuts, others in slices
        ]

    def _check_chosen(self, digest: str) -> None:
        """Make sure that the file of chosen lines is what whoever chose wrote.

        Raises:
            FailedRun: It is not.
        """
        folder = self._outputs.folder
        if kind_of(folder / CHOSEN) and digest_of([CHOSEN], folder) != digest:
            raise FailedRun(f"{folder / CHOSEN} is damaged; remove it and {CHOICE}, and publish once more")

    def _staged(self) -> dict[str, Any]:
        folder, fingerprint = str(self._outputs.folder), self._outputs.fingerprint
        options = self._options
        if options.template is not None:  # a worker may have another working directory
            options = msgspec.structs.replace(options, template=os.path.abspath(options.template))
        return {"options": options, "folder": folder, "fingerprint": fingerprint}

    def _make(self, product: _Staged[S], spans: Sequence[S], share: tuple[float, float]) -> list[Receipt]:
        """Make a product of the spans that have no receipt, and take all receipts in, in input order."""
        if self._parts:
            self._check_made(product, spans)
        known = self._receipts(product, {span.index for span in spans})
        total_nbytes, done_nbytes = sum(span.nbytes for span in spans), 0

        def report_progress(nbytes: int, rows: int) -> None:
            if self._on_progress:
                done = done_nbytes + nbytes
                all_done = int((share[0] + (share[1] - share[0]) * done / max(total_nbytes, 1)) * self._total_nbytes)
                so_far = Progress(all_done, self._total_nbytes, self._rows + rows)
                self._on_progress(so_far.in_phase(product.phase, self._phases, done, total_nbytes))

        report_progress(0, 0)
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
        self._phases_done += 1
        for _ in fresh:  # lets the workers know that this was all
            raise AssertionError("more receipts than spans, please report this")
        return receipts

    def _make_part(self, product: _Staged[S], spans: Sequence[S], number: int, count: int) -> int:
        """Make a product of every `count`-th span that has no receipt; return how many spans these are."""
        mine = spans[number - 1 :: count]
        known = self._receipts(product, {span.index for span in mine})
        total, done = sum(span.nbytes for span in mine), sum(span.nbytes for span in mine if span.index in known)

        def report_progress(nbytes: int, rows: int) -> None:
            if self._on_progress:
                so_far = Progress(done + nbytes, total, self._rows + rows)
                self._on_progress(so_far.in_phase(product.phase, (product.phase,), done + nbytes, total))

        unmade = [span for span in mine if span.index not in known]
        for span, receipt in zip(unmade, make_all(product, unmade, self._workers, report_progress), strict=True):
            done += span.nbytes
            self._rows += sum(segment.rows for segment in receipt.segments)
            report_progress(0, 0)
        return len(mine)

    def _check_made(self, product: _Staged[S], spans: Sequence[S]) -> None:
        """Make sure that parts have left a receipt of every span.

        Raises:
            UnfinishedParts: They have not.
        """
        known, count = self._known(product), self._parts or 1
        missing = [position for position, span in enumerate(spans) if span.index not in known]
        if missing and product.choice and len(missing) == len(spans):
            raise LinesChosen("the lines are chosen; run the parts once more, for their rows")
        if missing:
            parts = sorted({position % count + 1 for position in missing})
            named = ", ".join(map(str, parts[:_MOST_PARTS])) + (", …" if len(parts) > _MOST_PARTS else "")
            problem = f"{len(missing):,} of {len(spans):,} spans are not done yet: those of part {named}"
            raise UnfinishedParts(f"{problem} (of {count:,}); nothing was published")

    def _known(self, product: _Staged[S]) -> dict[int, Receipt]:
        """Find the receipts that there are of a product; rows of another choice than this are another product."""
        receipts = self._outputs.receipts(product.phase)
        return {index: receipt for index, receipt in receipts.items() if receipt.choice == product.choice}

    def _receipts(self, product: _Staged[S], spans: set[int]) -> dict[int, Receipt]:
        """Find the receipts that an interrupted run left and that hold still, and say how many there are."""
        left = {index: receipt for index, receipt in self._known(product).items() if index in spans}
        if not left:
            return {}
        verify = partial(_holds, folder=str(self._outputs.folder), verify_inputs=self._options.verify_inputs)
        items = [(self._spans[index], receipt) for index, receipt in left.items()]
        nbytes = max(span.nbytes + sum(file.nbytes for file in receipt.files) for span, receipt in items)
        held = self._workers.in_order(verify, items, nbytes=nbytes)
        known = {index: receipt for (index, receipt), holds in zip(left.items(), held, strict=True) if holds}
        notes, done = self._ledger.report.notes, "scanned" if product.phase == "scan" else "converted"
        if not self._parts:  # of which all were
            notes.append(f"goes on from an interrupted run: {len(known):,} of {len(spans):,} spans were {done} before")
        if len(known) < len(left):
            notes.append(f"{len(left) - len(known):,} of its spans are {done} again: their files or inputs differ")
        return known


def _choose(*table: Any, pairs: bool) -> Choice:
    from fastsft.pipeline.choosing import choose_lines  # Polars: not before the workers are forked
    from fastsft.pipeline.choosing_pairs import choose_pairs

    return choose_pairs(*table) if pairs else choose_lines(*table)


def _holds(_: int, item: tuple[Span, Receipt], folder: str, *, verify_inputs: bool) -> bool:
    """Tell whether a span's files, and with `verify_inputs` its inputs, are those that its receipt was written for."""
    span, receipt = item
    if verify_inputs and receipt.input_sha256 != input_digest(span):
        return False
    return all(digest_of([file.name], Path(folder)) == file.sha256 for file in receipt.files)
