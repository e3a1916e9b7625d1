"""Scan rollouts for a table and nothing else, as an index and the statistics want it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fastsft.options import Options
from fastsft.pipeline.ledger import Ledger
from fastsft.pipeline.spans import Work, scan_span
from fastsft.report import Progress
from fastsft.shards import Shard, spans_of
from fastsft.workers import Workers, jobs_for


@contextlib.contextmanager
def scanned(
    shards: Sequence[Shard],
    notes: Sequence[str],
    options: Options,
    names: Sequence[str],
    on_progress: Callable[[Progress], None] | None,
    *,
    every_line: bool = False,
) -> Iterator[tuple[Ledger, Path]]:
    """Scan the columns `names` of all rollouts; in the block, parts of the table lie in the folder.

    With `every_line`, a row is tried for every line.
    """
    spans = spans_of(shards, options.span_nbytes)
    total = sum(span.nbytes for span in spans)
    ledger = Ledger(shards, notes, options)
    with contextlib.ExitStack() as stack:
        workers = stack.enter_context(Workers(jobs_for(shards, spans, options)))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fastsft-", ignore_cleanup_errors=True))
        work = Work(options, folder, phase="scan", columns=tuple(names), every_line=every_line)
        done = 0

        def tell(nbytes: int, rows: int) -> None:
            if on_progress:
                on_progress(Progress(done + nbytes, total, rows))

        alone: dict[str, Any] = {"tell": tell} if workers.jobs == 1 else {}
        receipts = workers.in_order(partial(scan_span, work=work, **alone), spans)
        for span, receipt in zip(spans, receipts, strict=True):
            ledger.take(receipt)
            done += span.nbytes
            tell(0, 0)
        yield ledger, Path(folder)
