"""Find lines for a person: by what is known of them, by what becomes of them and why, or at random.

What one line tells by itself is found as the input streams by, up to the last line that is wanted. As soon as lines
are compared, the table of the whole run is scanned first, or an index read, as `convert` does. At random, a large
input is read in few places. Nothing holds more lines than are wanted, but for that table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import msgspec

from fastsft.errors import DamagedShard, FailedRun, UsageError
from fastsft.execution.polars_after_fork import check_polars
from fastsft.inputs.lines import lines_in
from fastsft.inputs.places import Place, PlacedLine, all_lines, drawn_of, drawn_places
from fastsft.inputs.shards import ByteRange, Shard, expanded_nbytes, find_rollouts, find_shards, printable
from fastsft.options import UNTRAINABLE, Options
from fastsft.pipeline.judging import JudgedBlock, drop_reasons, judge_lines, row_maker
from fastsft.pipeline.scan import Scan
from fastsft.pipeline.search import FoundLine, OnProgress, Search, check_search, found_at, nothing_found
from fastsft.pipeline.two_passes import known_of_row
from fastsft.reasons import FATES, REFUSED, is_of
from fastsft.report import Progress

_READ_NBYTES = 4 * 1024 * 1024  # at a time
_READ_WHOLE_NBYTES = 256_000_000  # from here on lines are drawn by reading few places


def find_lines(
    inputs: Iterable[str], search: Search, options: Options, notes: list[str], on_progress: OnProgress = None
) -> Iterator[FoundLine]:
    """Return the lines that are wanted, in the order of the input; files that cannot be read are noted.

    `on_progress` is called until the first is found.

    Raises:
        UsageError: The arguments are wrong, or there is no such line.
        FailedRun: Nothing was found, or a file cannot be read.
    """
    check_search(search, options)
    filters = search.where is not None or search.reason is not None
    may_compare = search.reason != "blank" and (options.may_compare or search.where is not None)
    if may_compare:
        check_polars()
    shards, more = find_rollouts(inputs) if filters or may_compare else find_shards(inputs)
    notes += more
    if search.first > 1 and len(shards) > 1:
        raise UsageError(f"--line is of one file, and these are {len(shards):,}")
    found = 0
    for line in _found(shards, search, options, notes, on_progress, may_compare=may_compare):
        found += 1
        yield line
    if not found and search.first > 1 and not filters:
        raise UsageError(f"{shards[0].path} has no line {search.first}")
    if not found:
        raise FailedRun(nothing_found(shards, search), None, *notes)


def _found(
    shards: Sequence[Shard],
    search: Search,
    options: Options,
    notes: list[str],
    on_progress: OnProgress,
    *,
    may_compare: bool,
) -> Iterator[FoundLine]:
    if may_compare:
        # Workers come first, as none can be forked once Polars has read the expressions.
        with Scan(shards, notes, msgspec.structs.replace(options, max_refused_recorded=None)) as scan:
            from fastsft.pipeline.finding_in_table import compares, find_in_table

            if compares(search, options):
                yield from find_in_table(scan, shards, search, options, notes, on_progress)
                return
    if search.where is None and search.reason is None:
        yield from _any_lines(shards, search, options, notes, on_progress)
        return
    matching = _matching(shards, search, options, notes, on_progress)
    if search.at_random:
        yield from found_at(drawn_of((line.place for line in matching), search.count, options.seed), shards, options)
        return
    after = (line for line in matching if (line.place.number or 0) >= search.first)
    for line in islice(after, search.count):
        yield FoundLine(shards[line.place.shard_index].path, line)


def _any_lines(
    shards: Sequence[Shard], search: Search, options: Options, notes: list[str], on_progress: OnProgress
) -> Iterator[FoundLine]:
    """Return lines whatever they are."""
    if not search.at_random:
        every = _every_line(shards, options, notes)
        stop = search.first - 1 + search.count
        for number, line in enumerate(every, 1):
            if number >= search.first:
                yield FoundLine(shards[line.place.shard_index].path, line)
            if number >= stop:
                return
        return
    if expanded_nbytes(shards) > _READ_WHOLE_NBYTES and not any(shard.compression for shard in shards):
        places = drawn_places(shards, search.count, options.seed, max_line=options.max_line_nbytes)
    else:
        every = _every_line(shards, options, notes, on_progress)
        said = (line.place for line in every if line.too_long_nbytes or line.data.strip())
        places = drawn_of(said, search.count, options.seed)
    yield from found_at(places, shards, options)


def _every_line(
    shards: Sequence[Shard], options: Options, notes: list[str], on_progress: OnProgress = None
) -> Iterator[PlacedLine]:
    """Read the lines of all shards; of several, a damaged one is noted and passed over."""
    total, done = sum(shard.nbytes for shard in shards), 0
    for shard in shards:
        try:
            yield from all_lines(shard, max_line=options.max_line_nbytes)
        except DamagedShard as damaged:
            if len(shards) == 1:
                raise
            notes.append(f"Skipped file: {damaged}")
        done += shard.nbytes
        if on_progress:
            on_progress(Progress(done, total, 0).in_phase("scan", ("scan",), done, total))


def _matching(
    shards: Sequence[Shard], search: Search, options: Options, notes: list[str], on_progress: OnProgress
) -> Iterator[PlacedLine]:
    """Stream all lines, and return those that are wanted, as each tells by itself."""
    total, before_shard, found = sum(shard.nbytes for shard in shards), 0, False
    for shard in shards:
        part, before = ByteRange(shard, 0, shard.nbytes), 0
        try:
            for lines in lines_in(part, nbytes=_READ_NBYTES, max_line=options.max_line_nbytes):
                count = before
                for judged in judge_lines(lines, part, before, options):
                    for number in _numbers_wanted(judged, search, options):
                        found = found or not search.at_random
                        yield _line_of(judged, number, lines.too_long_nbytes)
                    count += judged.fates.lines
                before = count
                if on_progress and not found:
                    done = before_shard + min(lines.offset + len(lines.data), shard.nbytes)
                    on_progress(Progress(done, total, 0).in_phase("scan", ("scan",), done, total))
        except DamagedShard as damaged:
            notes.append(f"Skipped file: {damaged}")
        before_shard += shard.nbytes


def _line_of(judged: JudgedBlock, number: int, too_long_nbytes: int | None) -> PlacedLine:
    place = Place(judged.shard.index, judged.offsets[number], judged.before + number + 1)
    if number < len(judged.offsets) - 1:
        return PlacedLine(place, bytes(judged.line(number)))
    return PlacedLine(place, b"", too_long_nbytes)


def _numbers_wanted(judged: JudgedBlock, search: Search, options: Options) -> list[int]:
    """Return which lines of a block are wanted, from 0 at its first."""
    refused = {line.line - judged.before - 1: line.reason for line in judged.refused}
    if search.reason == "blank":
        others = {*judged.numbers, *refused}
        return [number for number in range(judged.fates.lines) if number not in others and search.where is None]
    wanted = list(range(len(judged.rollouts)))
    if search.where is not None and judged.rollouts:
        is_true = _is_true(judged, search.where)
        wanted = [index for index in wanted if is_true[index]]
    if search.reason is None:
        return [judged.numbers[index] for index in wanted]
    numbers = [number for number, why in refused.items() if search.where is None and is_of(why, search.reason)]
    reasons, make = drop_reasons(judged, options), row_maker(options)
    of_rows = search.reason in (*FATES, "too_long", *REFUSED) or search.reason.startswith(UNTRAINABLE[:-1])
    for index in wanted:
        reason, number = reasons[index], judged.numbers[index]
        if reason is None and of_rows:
            reason = known_of_row(judged.rollouts[index], judged.line(number), make, is_hashed=False)[0]
        elif reason is None:
            continue
        if is_of(reason, search.reason):
            numbers.append(number)
    return sorted(numbers)


def _is_true(judged: JudgedBlock, where: str) -> list[bool]:
    """Tell of each rollout of a block whether an expression is true of it."""
    from fastsft.selection.criteria import columns_asked, matching
    from fastsft.selection.table import ShardColumns, table

    numbers = [number + judged.before for number in judged.numbers]
    shard = ShardColumns(printable(judged.shard.path), judged.shard.index)
    known = table(
        dict.fromkeys(["shard_index", *columns_asked(where)]),
        judged.rollouts,
        shard=shard,
        lines=judged.numbers,
        offsets=judged.offsets,
        numbers=numbers,
    )
    found: list[bool] = matching(known, where).to_list()
    return found
