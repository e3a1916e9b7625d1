"""The order of things: read this file first.

paths -shards-> chunks -lines-> lines -rollout-> structs -facts, table-> what is known of each line
-gates, selection-> the chosen lines -formats-> rows -write-> output files and one report.

What serves them: processes (workers, forked, polars_after_fork, backend, spool, signals, memory), what `--where` says
(sql), the table on disk (index_file, seal), what a person sees (terminal*, show, plot, distribution), what reads rows
again (checks/, nemo_rl*).

A chunk is the unit of work. What it gives depends on its bytes and the options, so
it may be converted anywhere, in any order, twice; its rows are written in input order.
Where each line is judged by itself, one pass over the input does it all. Where lines are compared, a
first pass scans the table of the whole run (or an index holds it), and a second reads the chosen lines.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fastsft.account import Account
from fastsft.chunk import convert_chosen, convert_chunk, convert_to_spool
from fastsft.errors import UsageError
from fastsft.options import Options, Split
from fastsft.polars_after_fork import check_polars
from fastsft.report import Converted, Progress, Report
from fastsft.seen import seen_of
from fastsft.shards import Shard, chunks_of, find_rollouts
from fastsft.signals import signals_too_late
from fastsft.spool import take_spool
from fastsft.target import check_target, splits_left, targets_of
from fastsft.workers import Workers, jobs_for
from fastsft.write import Output

if TYPE_CHECKING:
    from fastsft.index_file import Index


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
    earlier = [check_target(target, shards, arguments, index) for target in targets]
    notes += splits_left(targets)
    total_nbytes = sum(shard.nbytes for shard in shards)
    outs: list[Output] = []
    published = contextlib.ExitStack()
    try:
        with published, contextlib.ExitStack() as stack:
            # Workers come first: Polars, which reads the expressions, starts threads, and then none can be forked.
            workers = stack.enter_context(Workers(jobs_for(shards, options)))
            plan = _plan_of(shards, splits, options, index, notes)
            outs += [Output(*pair, options) for pair in zip(targets, earlier, strict=True)]
            for out in outs:
                stack.enter_context(out)
            account = Account(shards, notes, options, outs[0].record_refused)
            names = [os.path.relpath(target.folder / (target.file or ""), targets[0].folder) for target in targets]
            shares = (split.share for split in splits)
            account.report.options["splits"] = dict(zip(names[1:], shares, strict=True))

            def tell(part: float) -> None:
                if on_progress:
                    on_progress(Progress(int(part * total_nbytes), total_nbytes, account.report.fates.kept))

            spool = outs[0].target.spool
            spool.mkdir(parents=True, exist_ok=True)
            for converted in plan(account=account, workers=workers, spool=spool, tell=tell):
                for rows, count in _rows_of(converted, spool, workers):
                    outs[converted.split].write_rows(rows, count)
            account.judge()
            for split, name in zip(account.report.splits, names, strict=bool(splits)):
                split.name = name
            account.report.seconds = round(time.perf_counter() - started, 3)
            _close(account.report, outs)
            # A signal comes too late from here on, while what is left is put away too: the rows are there.
            published.enter_context(signals_too_late())
            for out in reversed(outs):
                out.publish()
    finally:
        for out in outs:  # again: Ctrl-C comes twice while Polars works, and the second may stop the first cleaning
            out.clean()
    return account.report


def _rows_of(converted: Converted, spool: Path, workers: Workers) -> Iterator[tuple[bytes | memoryview, int]]:
    """Give rows from wherever they are, some and their number at a time."""
    if isinstance(converted.rows, bytes):
        yield converted.rows, converted.fates.kept
    elif isinstance(converted.rows, int):
        yield from take_spool(spool, converted.rows, converted.fates.kept)
    else:
        assert workers.slots is not None
        with workers.slots.taken(converted.rows) as rows:
            yield rows, converted.fates.kept


def _plan_of(
    shards: Sequence[Shard],
    splits: Sequence[Split],
    options: Options,
    index: str | os.PathLike[str] | None,
    notes: list[str],
) -> Callable[..., Iterator[Converted]]:
    """Choose between the plans, and find what is wrong with what was asked before any work."""
    if options.template is not None:
        from fastsft.checks.rendering import check_template

        check_template(options.template, counting=options.max_tokens is not None)
    if options.judges_rows and index is not None:
        raise UsageError("an index does not know what --template and --trainable say of rows; leave one of them out")
    if not (options.may_compare or splits or index is not None):
        return partial(_in_one_pass, shards, options)
    check_polars()
    from fastsft.index_file import index_for
    from fastsft.selection import compares_lines

    compares = compares_lines(options) or bool(splits)
    usable = (compares or index is not None) and not options.judges_rows
    found = index_for(index, shards, options, notes) if usable else None
    if compares or found:
        return partial(_in_two_passes, shards, options, [split.share for split in splits], found)
    return partial(_in_one_pass, shards, options)


def _in_one_pass(
    shards: Sequence[Shard],
    options: Options,
    *,
    account: Account,
    workers: Workers,
    spool: Path,
    tell: Callable[[float], None],
) -> Iterator[Converted]:
    """Convert every chunk, in input order."""
    total_nbytes = sum(shard.nbytes for shard in shards)
    before = list(itertools.accumulate((shard.nbytes for shard in shards), initial=0))
    for converted in _converted(shards, options, workers, spool):
        account.take(converted)
        yield converted
        tell((before[converted.chunk.shard.place] + converted.chunk.stop) / total_nbytes)


def _converted(shards: Sequence[Shard], options: Options, workers: Workers, spool: Path) -> Iterator[Converted]:
    """Convert the chunks of all shards, in this process without a detour over files where that can be."""
    chunks = chunks_of(shards, options.chunk_nbytes)
    to_spool = partial(convert_to_spool, options=options, spool=spool)
    if workers.jobs > 1:
        yield from workers.in_order(to_spool, chunks, attrgetter("nbytes"))
        return
    for number, chunk in enumerate(chunks):
        if chunk.shard.compression or chunk.shard.problem:  # that it is whole is known at its end alone
            yield to_spool(number, chunk)
        else:
            yield from convert_chunk(chunk, options)


def _in_two_passes(
    shards: Sequence[Shard],
    options: Options,
    shares: Sequence[float],
    index: Index | None,
    *,
    account: Account,
    workers: Workers,
    spool: Path,
    tell: Callable[[float], None],
) -> Iterator[Converted]:
    """Choose from the table of all lines, then convert the chosen ones, in input order within each split."""
    from fastsft.scan import chosen_of, scan
    from fastsft.selection import choose, columns_of
    from fastsft.tasks import split_counts

    names = columns_of(options, splits=bool(shares))
    if index is None:
        lines = scan(shards, options, workers, names, account, lambda part: tell(part / 2))
    else:
        lines = index.lines(names, account)
    chosen, dropped, unusable = choose(lines, options, shares)
    account.drop(dropped)
    account.refuse(unusable)
    if chosen.is_empty():
        account.seen = seen_of(*(lines[name] if name in lines.columns else () for name in ("reward", "agent")))
    if shares:
        account.report.splits = split_counts(chosen, 1 + len(shares))
    to_spool = partial(convert_chosen, options=options, spool=spool)
    done = 0
    of_chunks = chosen_of(shards, chosen, options.chunk_nbytes)
    for converted in workers.in_order(to_spool, of_chunks, attrgetter("read_nbytes")):
        account.take_chosen(converted)
        yield converted
        done += converted.fates.kept
        tell((1 + done / len(chosen)) / 2)


def _close(report: Report, outs: Sequence[Output]) -> None:
    """Close everything; then all files can be given their final names, those of the main output last."""
    for number, out in enumerate(outs):
        out.close(report if number == 0 else msgspec.structs.replace(report))
