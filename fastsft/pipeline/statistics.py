"""Scan rollouts, and tell how they are distributed before anything is converted.

One pass, at the speed of the scan. Workers count by value, and `tally.py` adds up what they counted, so that what is
held grows with the number of tasks, not of lines.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastsft.inputs.shards import Shard, find_rollouts
from fastsft.options import GATES, Options
from fastsft.pipeline.scan import Scan
from fastsft.report import Progress
from fastsft.statistics.distribution import Stats, Success

if TYPE_CHECKING:
    from fastsft.selection.index_file import Index

# What is counted, of the columns of the table: rewards, what tells tasks, gates, lengths.
_COLUMNS = ("reward", "shard_index", "agent", "task_index", "prompt", *GATES, "nbytes", "turns", "calls", "tokens")


def stats_of(
    inputs: Iterable[str | os.PathLike[str]],
    options: Options,
    *,
    on_progress: Callable[[Progress], None] | None = None,
) -> Stats:
    """Scan the rollouts of `inputs` and tell how they are distributed.

    Raises:
        UsageError: The arguments are wrong.
        FailedRun: The scan could not be finished.
    """
    shards, notes = find_rollouts(inputs)
    with Scan(shards, notes, options) as scan:
        scan.run(_COLUMNS, on_progress, reduce=partial(_counted, options=options))
        results = scan.run_alone(partial(_added_up, [scan.folder / part[0] for part in scan.ledger.parts]))
    report = scan.ledger.report
    return Stats(
        shards=len(shards),
        nbytes=sum(shard.nbytes for shard in shards),
        fates=report.fates,
        reward_threshold=options.reward_threshold,
        notes=[*report.notes, *(f"Skipped file: {shard.problem}" for shard in report.damaged)],
        **results,
    )


def success_of(shards: Sequence[Shard], options: Options, index: Index | None, *, most: int) -> Success:
    """Tell how often the rollouts of shards succeed, from a scan, or from at most `most` rows of an index of them.

    Raises:
        FailedRun: They cannot be scanned, or hold no rollout; or the index is damaged.
    """
    from fastsft.statistics.tally import Tally, counts_of

    tally = Tally()
    if index is not None:
        for lines in index.some_rollouts(_COLUMNS, most=most):
            tally.add_counts(counts_of(lines, options))
    else:
        with Scan(shards, [], options) as scan:
            scan.run(_COLUMNS, None, reduce=partial(_counted, options=options))
            tally.add([scan.folder / part[0] for part in scan.ledger.parts])
    results = tally.results()
    return Success(
        reward_threshold=options.reward_threshold,
        agents=tally.rates(),
        octaves={name: tally.octaves(name) for name in results["lengths"]},
        **{name: results[name] for name in ("rollouts", "rewards", "histogram", "tasks", "lengths")},
    )


def _counted(lines: Any, options: Options) -> Any:
    from fastsft.statistics.tally import counts_of

    return counts_of(lines, options)


def _added_up(paths: Sequence[Path]) -> dict[str, Any]:
    from fastsft.statistics.tally import Tally

    tally = Tally()
    tally.add(paths)
    return tally.results()
