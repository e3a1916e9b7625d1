"""The ledger of a run: what became of every line, taken in receipt by receipt, judged at the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fastsft.errors import FailedRun, TooManyRefused
from fastsft.inputs.shards import Shard, printable
from fastsft.options import Options
from fastsft.outputs.receipts import Receipt
from fastsft.outputs.refused import RefusedPart
from fastsft.report import Fates, InputShard, RefusedLine, Report, added
from fastsft.selection.seen import Seen, merged, why_nothing
from fastsft.version import __version__


class Ledger:
    """A report that grows.

    Attributes:
        report: What is known so far.
        refused: The files of refused lines, in order.
        parts: Of the table, in order: the receipt's name for it, its rows, the index of its first shard, and how many
            lines of that stand before it.
        seen: What rollouts hold, where none was kept so far.
    """

    def __init__(self, shards: Sequence[Shard], notes: Sequence[str], options: Options) -> None:
        self.report = Report(
            version=__version__,
            options=options.shown(),
            inputs=[InputShard(printable(shard.path), shard.nbytes, Fates()) for shard in shards],
            notes=[printable(note) for note in notes],
        )
        self.refused: list[RefusedPart] = []
        self.parts: list[tuple[str, int, int, int]] = []
        self.seen: Seen | None = None
        self._options = options
        self._first_refused: RefusedLine | None = None

    def take(self, receipt: Receipt) -> None:
        """Take in what a span gave, the next of the input.

        Raises:
            TooManyRefused: More lines were refused than may be.
        """
        report = self.report
        first = report.inputs[receipt.ranges[0].shard_index]
        before = 0 if receipt.is_numbered else first.fates.lines
        if receipt.refused is not None:
            self.refused.append(RefusedPart(receipt.refused, first.path, before))
        if receipt.table is not None:
            self.parts.append((receipt.table.name, receipt.table.rows, receipt.ranges[0].shard_index, before))
        if receipt.first_refused is not None and self._first_refused is None:
            line = receipt.first_refused
            line.line += before if line.shard == first.path else 0
            self._first_refused = line
        for one in receipt.ranges:
            entry = report.inputs[one.shard_index]
            entry.problem = one.problem or entry.problem
            entry.fates += one.fates
            report.fates += one.fates
        if receipt.left_out:
            report.left_out = added(report.left_out, receipt.left_out)
        if receipt.tasks is not None:
            report.tasks = receipt.tasks if report.tasks is None else report.tasks + receipt.tasks
        self.seen = merged(self.seen, receipt.seen)
        if self._options.refuses_too_many(self.report.fates.all_refused, None):
            raise TooManyRefused(*self._refusals(self._options))

    def drop(self, dropped: Iterable[tuple[int, str, int]]) -> None:
        """Take in how many lines of which shard, by its index, were dropped for which reason."""
        for shard_index, reason, count in dropped:
            gone = Fates(dropped={reason: count})
            self.report.inputs[shard_index].fates += gone
            self.report.fates += gone

    def keep(self, kept: Iterable[tuple[int, int]]) -> None:
        """Take in how many lines of which shard, by its index, are in rows that have several."""
        for shard_index, count in kept:
            self.report.inputs[shard_index].fates += Fates(kept=count)
            self.report.fates += Fates(kept=count)

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
            raise TooManyRefused(*self._refusals(options))
        if (fates.all_refused or report.damaged) and not usable:
            raise FailedRun(*self._refusals(None))
        if not fates.kept and not options.allow_empty:
            why = why_nothing(fates.dropped, options, self.seen)
            raise FailedRun(
                f"nothing was kept, and nothing was published: {why}.", report, "--allow-empty writes no rows."
            )

    def judge_scan(self) -> None:
        """Make sure that a scan found a rollout.

        Raises:
            FailedRun: It found none.
        """
        fates = self.report.fates
        if not fates.lines - fates.blank - fates.all_refused:
            if fates.all_refused or self.report.damaged:
                problem, _, *more = self._refusals(None, "nothing was written")
                raise FailedRun(problem, None, *more)
            raise FailedRun("the input holds no rollout; nothing was written")

    def _refusals(self, limit: Options | None, outcome: str = "nothing was published") -> tuple[str, Report, str]:
        """Return what an error says of too much that was refused: a sentence, the report, the first of it."""
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
        return f"{what}; {outcome}.", report, example
