"""Scan rollouts for a table and nothing else, as an index and the statistics want it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from fastsft.execution.spans import make_all
from fastsft.execution.workers import Workers
from fastsft.inputs.shards import Shard, expanded_nbytes, find_rollouts, local_paths, spans_of
from fastsft.options import Options
from fastsft.pipeline.ledger import Ledger
from fastsft.pipeline.two_passes import LineTable
from fastsft.report import Progress
from fastsft.storage.files import nonce_in, scratch_folder

R = TypeVar("R")


class Scan(contextlib.ExitStack):
    """Workers that scan all lines of shards, and a folder for what they find; use it in a `with` block.

    The workers are forked when it is made: Polars is not to be imported before.

    Attributes:
        ledger: What becomes of the lines.
        folder: Where the spans' parts of the table lie, and their refused lines.
    """

    def __init__(self, shards: Sequence[Shard], notes: Sequence[str], options: Options) -> None:
        super().__init__()
        self._options = options
        self._spans = spans_of(shards, options.span_nbytes)
        self.ledger = Ledger(shards, notes, options)
        nbytes = expanded_nbytes(shards)
        self._workers = self.enter_context(
            Workers(options.placement, nbytes=nbytes, tasks=len(self._spans), selects=True)
        )
        self.folder = self.enter_context(scratch_folder())
        self._workers.check(nonce_in(self.folder), local_paths(shards[:1]))

    def run_alone(self, task: Callable[[], R]) -> R:
        """Do one task behind the scan, with all cores to itself."""
        return self._workers.run_alone(task)

    def run(
        self,
        names: Sequence[str],
        on_progress: Callable[[Progress], None] | None,
        *,
        every_line: bool = False,
        reduce: Callable[[Any], Any] | None = None,
    ) -> None:
        """Scan the columns `names` of all rollouts.

        With `every_line`, a row is tried for every line. `reduce` turns a span's part of the table into what it writes.

        Raises:
            FailedRun: There is no rollout.
        """
        table = LineTable(
            options=self._options, folder=str(self.folder), columns=tuple(names), every_line=every_line, reduce=reduce
        )
        total = sum(span.nbytes for span in self._spans)
        done = 0

        def report_progress(nbytes: int, rows: int) -> None:
            if on_progress:
                on_progress(Progress(done + nbytes, total, rows).in_phase("scan", ("scan",), done + nbytes, total))

        report_progress(0, 0)
        receipts = make_all(table, self._spans, self._workers, report_progress)
        for span, receipt in zip(self._spans, receipts, strict=True):
            self.ledger.take(receipt)
            done += span.nbytes
            report_progress(0, 0)
        self.ledger.judge_scan()


def table_of(
    inputs: Iterable[str | os.PathLike[str]], options: Options, on_progress: Callable[[Progress], None] | None = None
) -> Any:
    """Return the table of lines as `--where` sees it, a Polars LazyFrame with a row for each rollout, in input order.

    Raises:
        UsageError: The arguments are wrong.
        FailedRun: The scan could not be finished, or found no rollout.
    """
    shards, notes = find_rollouts(inputs)
    with Scan(shards, notes, options) as scan:
        from fastsft.pipeline.choosing import scanned_lines  # Polars: not before the workers are forked
        from fastsft.selection.table import COLUMNS
        from fastsft.selection.tasks import TASK_FROM, with_tasks

        names = list(dict.fromkeys([*(name for name in COLUMNS if name != "task"), *TASK_FROM]))
        scan.run(names, on_progress)
        lines = scanned_lines(scan.ledger.parts, scan.folder, names)
    return with_tasks(lines).lazy().select(list(COLUMNS))
