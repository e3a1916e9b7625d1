"""The account of a run: what became of every line, taken in chunk by chunk, judged at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from fastsft import __version__
from fastsft.errors import FailedRun, TooManyRefused
from fastsft.options import Options
from fastsft.report import Converted, Fates, InputShard, RefusedLine, Report, Scanned, added
from fastsft.seen import Seen, merged, why_nothing
from fastsft.shards import Shard, printable


class Account:
    """A report that grows, and the list of refused lines beside it, which `record` is handed."""

    def __init__(
        self,
        shards: Sequence[Shard],
        notes: Sequence[str],
        options: Options,
        record: Callable[[Sequence[RefusedLine]], object],
    ) -> None:
        self.report = Report(
            version=__version__,
            options=options.shown(),
            inputs=[InputShard(printable(shard.path), shard.nbytes, Fates()) for shard in shards],
            notes=[printable(note) for note in notes],
        )
        self._options = options
        self._record = record
        self._first_refused: RefusedLine | None = None
        self.seen: Seen | None = None  # of rollouts that are not kept

    def take(self, given: Converted | Scanned) -> int:
        """Take in what a chunk gave, the next of its shard, and give the number of lines before it.

        Raises:
            TooManyRefused: More lines were refused than may be.
        """
        entry = self.report.inputs[given.chunk.shard.place]
        entry.problem = given.problem
        before = entry.fates.lines
        for line in given.refused:
            line.line += before + 1
        if isinstance(given, Converted):
            self._take_rows(given)
        self._add(given.chunk.shard.place, given.fates, given.refused)
        return before

    def take_chosen(self, converted: Converted) -> None:
        """Take in what became of chosen lines, which are counted already."""
        self._take_rows(converted)
        self._add(converted.chunk.shard.place, converted.fates, [])

    def _take_rows(self, converted: Converted) -> None:
        if converted.left_out:
            self.report.left_out = added(self.report.left_out, converted.left_out)
        self.seen = merged(self.seen, converted.seen)

    def _add(self, place: int, fates: Fates, refused: Sequence[RefusedLine]) -> None:
        entry = self.report.inputs[place]
        if refused:
            for line in refused:
                line.shard = entry.path
            self._first_refused = self._first_refused or refused[0]
            self._record(refused)
        entry.fates += fates
        self.report.fates += fates
        if self._options.refuses_too_many(self.report.fates.all_refused, None):
            raise TooManyRefused(self._refusals(self._options), self.report)

    def refuse(self, refused: Iterable[tuple[int, int, int, str, str]]) -> None:
        """Take in lines that have no row: place of the shard, line, offset, reason and problem of each, in order.

        Raises:
            TooManyRefused: More lines were refused than may be.
        """
        for place, several in groupby(refused, key=lambda line: line[0]):
            lines = [RefusedLine("", line, offset, reason, problem) for _, line, offset, reason, problem in several]
            counts = Counter(line.reason for line in lines)
            self._add(place, Fates(refused=dict(counts)), lines)

    def drop(self, dropped: Iterable[tuple[int, str, int]]) -> None:
        """Take in how many lines of which shard, by its place, were dropped for which reason."""
        for place, reason, count in dropped:
            gone = Fates(dropped={reason: count})
            self.report.inputs[place].fates += gone
            self.report.fates += gone

    def judge(self) -> None:
        """Make sure that every line has its one fate and that enough of them were usable.

        Raises:
            TooManyRefused: More lines were refused than may be.
            FailedRun: All were, or none was kept.
        """
        report, options = self.report, self._options
        for entry in report.inputs:
            entry.fates.check(entry.path)
        report.fates.check("all lines")
        if sum((entry.fates for entry in report.inputs), Fates()) != report.fates:
            raise AssertionError("the shards do not add up to the whole, please report this")
        fates = report.fates
        usable = fates.lines - fates.blank - fates.all_refused
        limited = options.max_refused is not None
        if options.refuses_too_many(fates.all_refused, fates.lines - fates.blank) or (limited and report.damaged):
            raise TooManyRefused(self._refusals(options), report)
        if (fates.all_refused or report.damaged) and not usable:
            raise FailedRun(self._refusals(None), report)
        if not fates.kept and not options.allow_empty:
            why = why_nothing(fates.dropped, options, self.seen)
            raise FailedRun(
                f"nothing was kept, and nothing was published: {why}.\n  --allow-empty writes no rows.", report
            )

    def judge_scan(self) -> None:
        """Make sure that a scan found a rollout.

        Raises:
            FailedRun: It found none.
        """
        fates = self.report.fates
        if not fates.lines - fates.blank - fates.all_refused:
            if fates.all_refused or self.report.damaged:
                raise FailedRun(self._refusals(None, "nothing was written"))
            raise FailedRun("the input holds no rollout; nothing was written")

    def _refusals(self, limit: Options | None, outcome: str = "nothing was published") -> str:
        """Say in sentences that too much was refused, and show the first of it."""
        report = self.report
        if limit is None:
            what = "every line was refused" if report.fates.all_refused else "no file could be read"
        elif report.damaged:
            what = f"files that could not be read: {len(report.damaged):,}, and --max-refused allows none such"
        else:
            what = f"{report.fates.all_refused:,} lines were refused, more than --max-refused {limit.max_refused}"
        if report.damaged:
            example = f"{report.damaged[0].problem}."
        elif first := self._first_refused:
            example = f"The first: {first.shard}:{first.line}: {first.reason}: {first.problem}."
        else:
            example = ""
        return f"{what}; {outcome}.\n  {example}"
