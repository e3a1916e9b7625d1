"""The order of things: read this file first.

paths -shards-> chunks of lines -rollout-> structs and a table of lines
-selection-> the chosen lines -formats-> rows -write-> output files and one report.

A chunk is the unit of work. What it gives depends on its bytes and the options, so
it may be converted anywhere, in any order, twice; its rows are written in input order.
Criteria that judge each line by itself are asked chunk by chunk, in the one pass over
the input below. Criteria that compare lines need the table of the whole run first: a pass
that keeps only the tables, then one that reads the chosen lines.
"""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

import msgspec

from fastsft.depth import flattened
from fastsft.encoding import is_utf8, one_line_each
from fastsft.errors import DamagedShard, FailedRun, Refused, TooManyRefused
from fastsft.formats import FORMATS
from fastsft.options import Options
from fastsft.report import Converted, Fates, InputShard, RefusedLine, Report
from fastsft.rollout import Rollout, rollout_of
from fastsft.shards import Chunk, Lines, Shard, chunks_of, find_shards, is_blank, line_starts, lines_in
from fastsft.target import check_target, target_of
from fastsft.write import Output, spooled, take_spool

# Starting workers and importing what they need takes about as long as one process takes for this much.
WORKERS_PAY_FROM_NBYTES = 256 * 1024 * 1024
_EXPANSION = 5  # how many times larger compressed rollouts are taken to be

_encoder = msgspec.json.Encoder()  # built once per process; cannot be pickled, so never passed around


class Progress(msgspec.Struct, frozen=True):
    """How far a run is: input bytes done and in all, rows written."""

    nbytes: int
    total_nbytes: int
    rows: int


def run(
    inputs: Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    options: Options,
    *,
    on_progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Convert the rollouts of `inputs` into rows at `output`, whole or not at all.

    Raises:
        UsageError: The arguments are wrong; nothing was read or written.
        FailedRun: The run could not be finished; nothing was published.
    """
    started = time.perf_counter()
    shards, notes = find_shards(inputs)
    target = target_of(output, options)
    earlier = check_target(target, shards)
    report = Report(
        version=version("fastsft"),
        options=options.shown(),
        inputs=[InputShard(printable(shard.path), shard.nbytes, Fates()) for shard in shards],
        notes=[printable(note) for note in notes],
    )
    with Output(target, options, earlier) as out:
        _convert_all(shards, options, report, out, on_progress)
        _judge(report, options, out)
        report.seconds = round(time.perf_counter() - started, 3)
        out.publish(report)
    return report


def printable(path: str) -> str:
    """Give a path that JSON can hold: bytes that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _convert_all(
    shards: Sequence[Shard],
    options: Options,
    report: Report,
    out: Output,
    on_progress: Callable[[Progress], None] | None,
) -> None:
    """Convert every chunk and write what it gives, in input order."""
    by_path = {shard.path: entry for shard, entry in zip(shards, report.inputs, strict=True)}
    total_nbytes = sum(shard.nbytes for shard in shards)
    done_nbytes = 0
    for index, converted in enumerate(_converted(shards, options, out.target.spool)):
        entry = by_path[converted.chunk.shard.path]
        entry.problem = converted.problem
        for line in converted.refused:
            line.shard = entry.path
            line.line += entry.fates.lines + 1
        for rows in take_spool(out.target.spool, index) if converted.rows is None else [converted.rows]:
            out.write_rows(rows)
        out.record_refused(converted.refused)
        entry.fates += converted.fates
        report.fates += converted.fates
        if options.refuses_too_many(report.fates.all_refused, None):
            raise TooManyRefused(_refusals(report, options, out), report)
        if on_progress:
            done_nbytes += converted.chunk.stop - converted.chunk.start
            on_progress(Progress(done_nbytes, total_nbytes, report.fates.kept))


def _judge(report: Report, options: Options, out: Output) -> None:
    """Make sure that every line has its one fate and that enough of them were usable."""
    for entry in report.inputs:
        entry.fates.check(entry.path)
    report.fates.check("all lines")
    if sum((entry.fates for entry in report.inputs), Fates()) != report.fates:
        raise AssertionError("the shards do not add up to the whole, please report this")
    fates = report.fates
    limited = options.max_refused is not None
    if options.refuses_too_many(fates.all_refused, fates.lines - fates.blank) or (limited and report.damaged):
        raise TooManyRefused(_refusals(report, options, out), report)
    if (fates.all_refused or report.damaged) and fates.all_refused == fates.lines - fates.blank:
        raise FailedRun(_refusals(report, None, out), report)


def _refusals(report: Report, limit: Options | None, out: Output) -> str:
    """Say in sentences that too much was refused, and show the first of it."""
    if limit is None:
        what = "every line was refused"
    elif report.damaged:
        what = f"{len(report.damaged):,} compressed shards are damaged, and --max-refused allows none such"
    else:
        what = f"{report.fates.all_refused:,} lines were refused, more than --max-refused {limit.max_refused}"
    if report.damaged:
        example = f"{report.damaged[0].problem}."
    elif first := out.first_refused:
        example = f"The first: {first.shard}:{first.line}: {first.reason}: {first.problem}."
    else:
        example = ""
    return f"{what}; nothing was published.\n  {example}"


def _converted(shards: Sequence[Shard], options: Options, spool: Path) -> Iterator[Converted]:
    """Convert the chunks of all shards, in as many processes as asked for or as pay, in input order."""
    chunks = chunks_of(shards, options.chunk_nbytes)
    jobs = _jobs(shards, options)
    if any(shard.compression for shard in shards) or jobs > 1:
        spool.mkdir(parents=True, exist_ok=True)
    if jobs == 1:
        return _converted_here(chunks, options, spool)
    from fastsft.workers import in_order  # joblib, 0.1 s, which a small run does not need to spend

    return in_order(partial(convert_to_spool, options=options, spool=spool), chunks, jobs=jobs)


def _converted_here(chunks: Iterator[Chunk], options: Options, spool: Path) -> Iterator[Converted]:
    for index, chunk in enumerate(chunks):
        if chunk.shard.compression:  # that it is whole is known at its end alone
            yield convert_to_spool(index, chunk, options=options, spool=spool)
        else:
            yield from convert_chunk(chunk, options)


def convert_to_spool(index: int, chunk: Chunk, *, options: Options, spool: Path) -> Converted:
    """Convert a chunk whole; its rows go to the spool under its index."""
    whole = Converted(chunk, Fates(), [], None)
    try:
        with spooled(spool, index) as write:
            for part in convert_chunk(chunk, options):
                write(part.rows or b"")
                for line in part.refused:
                    line.line += whole.fates.lines
                whole.refused += part.refused
                whole.fates += part.fates
    except DamagedShard as damaged:
        return Converted(chunk, Fates(), [], b"", str(damaged))
    return whole


def _jobs(shards: Sequence[Shard], options: Options) -> int:
    chunks = sum(-(-shard.nbytes // options.chunk_nbytes) for shard in shards)
    if options.jobs is not None:
        return max(1, min(options.jobs, chunks))
    nbytes = sum(shard.nbytes * (_EXPANSION if shard.compression else 1) for shard in shards)
    if nbytes < WORKERS_PAY_FROM_NBYTES:
        return 1
    from fastsft.workers import cores

    return max(1, min(cores(), chunks))


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Hold the cycle collector back: structs make no cycles, and looking for some takes a fifth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def convert_chunk(chunk: Chunk, options: Options) -> Iterator[Converted]:
    """Give every line of a chunk its fate, and the kept ones their rows, as much at once as is in memory at once."""
    for lines in lines_in(chunk, nbytes=options.chunk_nbytes, max_line=options.max_line_nbytes):
        yield _convert(lines, chunk, options)


@_no_garbage_collection()
def _convert(lines: Lines, chunk: Chunk, options: Options) -> Converted:
    from fastsft.selection import drop_reasons, table  # polars, 0.2 s: not before a run has begun

    data, offset = lines.data, lines.offset
    starts = line_starts(data)
    fates, refused = Fates(lines=len(starts) - 1), list[RefusedLine]()

    def refuse(number: int, problem: Refused) -> None:
        fates.refused[problem.reason] = fates.refused.get(problem.reason, 0) + 1
        refused.append(RefusedLine("", number, offset + starts[number], problem.reason, problem.problem))

    def line_at(number: int) -> memoryview:
        return view[starts[number] : starts[number + 1] - 1]

    view = memoryview(data)
    all_utf8 = is_utf8(data)
    numbers: list[int] = []
    rollouts: list[Rollout] = []
    may_be_too_long = len(data) > options.max_line_nbytes
    for number in range(len(starts) - 1):
        line = line_at(number)
        try:
            if may_be_too_long and len(line) > options.max_line_nbytes:
                raise _too_long(len(line), options)
            if not all_utf8 and not is_utf8(bytes(line)):
                raise Refused("bad_utf8", "the line is not valid UTF-8")
            rollouts.append(rollout_of(line))
            numbers.append(number)
        except Refused as problem:
            if is_blank(line):
                fates.blank += 1
            else:
                refuse(number, problem)
    if lines.too_long_nbytes is not None:
        refuse(fates.lines, _too_long(lines.too_long_nbytes, options))
        fates.lines += 1
    if not rollouts:
        return Converted(chunk, fates, refused, b"")

    known = table(numbers, [rollout.reward for rollout in rollouts]).lazy()
    to_row = FORMATS[options.format]
    rows: list[msgspec.Struct] = []
    for number, rollout, reason in zip(numbers, rollouts, drop_reasons(known, options), strict=True):
        if reason is not None:
            fates.dropped[reason] = fates.dropped.get(reason, 0) + 1
            continue
        try:
            try:
                row = to_row(rollout)
            except RecursionError:  # something that the row does not use nests too deep for a second look
                row = to_row(rollout_of(flattened(bytes(line_at(number)))))
        except Refused as problem:
            refuse(number, problem)
            continue
        rows.append(row.body)
        fates.trimmed += row.turns_cut > 0
    fates.kept = len(rows)
    refused.sort(key=lambda entry: entry.line)
    return Converted(chunk, fates, refused, one_line_each(_encoder.encode_lines(rows)))


def _too_long(nbytes: int, options: Options) -> Refused:
    limit = options.max_line_nbytes
    return Refused("line_too_long", f"the line has {nbytes:,} bytes, more than --max-line allows ({limit:,})")
