"""The functions that read rollouts and write no rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fastsft.api.arguments import check_keywords, logged, paths_of
from fastsft.errors import failures_told
from fastsft.execution.polars_after_fork import check_polars
from fastsft.options import (
    DEFAULT_MAX_LINE_NBYTES,
    DEFAULT_RETRIES,
    DEFAULT_STALL_SECONDS,
    options_of,
)
from fastsft.report import Progress, Report

if TYPE_CHECKING:
    import polars
    from typing_extensions import Unpack  # of Python 3.12

    from fastsft.choices import (
        Arguments,
        Backend,
        FormatName,
        Gate,
        Loss,
        Reasoning,
        RowOptions,
        Tools,
        TrainerName,
    )
    from fastsft.statistics.distribution import Stats


def rows(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], **options: Unpack[RowOptions]
) -> Iterator[dict[str, Any]]:
    """Give the rows of NeMo Gym rollouts one by one, without writing them, in input order.

    Args:
        inputs: Files, folders or globs of rollouts, one or several.
        **options: Those of `convert` that choose rollouts and lay out rows, and `jobs`.

    Yields:
        Each row, decoded. Spans are done ahead, in parallel where that pays; where lines are compared, all come first.

    Raises:
        UsageError: The arguments are wrong.
        FailedRun: An input cannot be read.
    """
    from fastsft.pipeline.rows import rows_of

    check_keywords(options)
    return rows_of(paths_of(inputs), options_of({**options}))


def to_row(
    rollout: Mapping[str, Any] | bytes,
    *,
    trainer: TrainerName | None = None,
    format: FormatName | None = None,
    arguments: Arguments | None = None,
    reasoning: Reasoning | None = None,
    loss: Loss | None = None,
    tools: Tools | None = None,
) -> dict[str, Any]:
    """Convert one rollout, whatever its reward.

    Args:
        rollout: A decoded line, or its bytes.
        trainer: As in `convert`; so are the others.
        format: As in `convert`.
        arguments: As in `convert`.
        reasoning: As in `convert`.
        loss: As in `convert`.
        tools: As in `convert`.

    Returns:
        The row, decoded.

    Raises:
        UsageError: The arguments are wrong.
        Refused: The rollout has no row; `reason` is the word that reports count it under.
    """
    keywords = dict(locals())
    from fastsft.pipeline.rows import row_of_rollout

    del keywords["rollout"]
    return row_of_rollout(rollout, options_of(keywords))


@failures_told()
def scan(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    max_line: int | str = DEFAULT_MAX_LINE_NBYTES,
    jobs: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> polars.LazyFrame:
    """Return the table of lines, with the columns that `where` knows, a row for each rollout.

    Args:
        inputs: Files, folders or globs of rollouts, one or several.
        max_line: Refuse longer lines unread, in bytes or as in `"256MB"`.
        jobs: Worker processes; 1 stays in this process; None for all cores where that pays.
        on_progress: Called in this process where a phase begins, and after each span of input.

    Raises:
        UsageError: The arguments are wrong; nothing was read.
        FailedRun: The scan could not be finished, or found no rollout.
    """
    check_polars()
    from fastsft.pipeline.scan import table_of

    table: polars.LazyFrame = table_of(paths_of(inputs), options_of({"max_line": max_line, "jobs": jobs}), on_progress)
    return table


@failures_told()
def index(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    dedup: bool = False,
    pairs: bool = False,
    trainer: TrainerName | None = None,
    format: FormatName | None = None,
    arguments: Arguments | None = None,
    reasoning: Reasoning | None = None,
    loss: Loss | None = None,
    tools: Tools | None = None,
    max_line: int | str = DEFAULT_MAX_LINE_NBYTES,
    jobs: int | None = None,
    backend: Backend | None = None,
    address: str | None = None,
    retries: int = DEFAULT_RETRIES,
    stall_seconds: float = DEFAULT_STALL_SECONDS,
    log: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Write the table of lines of NeMo Gym rollouts, so that choosing again reads only the chosen lines.

    Args:
        inputs: Files, folders or globs of rollouts, one or several.
        output: The Parquet file to write; in a folder, `fastsft.index.parquet`.
        dedup: Hash the rows too, so that the index serves `dedup`.
        pairs: Hash the turns of `chat` rows too, so that the index serves `pairs`.
        trainer: Of the rows that are to be made by it, as in `convert`; so are the next five.
        format: As in `convert`.
        arguments: As in `convert`.
        reasoning: As in `convert`.
        loss: As in `convert`.
        tools: As in `convert`.
        max_line: Refuse longer lines unread, in bytes or as in `"256MB"`.
        jobs: Worker processes; 1 stays in this process; None for all cores where that pays.
        backend: `loky`, `ray` or `dask`; None for processes of this machine, or what `joblib.parallel_config` chose.
        address: Of the cluster; None for the one that the backend finds, or starts here.
        retries: How often a span is done once more, whose worker was lost.
        stall_seconds: A worker that does one span for longer is taken for lost.
        log: Log to stderr how far the run is: a line a minute, and one for each phase.
        on_progress: Called in this process where a phase begins, and after each span of input.

    Returns:
        What is known of every line: the refused and blank ones; rollouts have no fate yet.

    Raises:
        UsageError: The arguments are wrong; nothing was read or written.
        FailedRun: The scan could not be finished; nothing was written.
    """
    keywords = dict(locals())
    check_polars()
    from fastsft.pipeline.index import write_index

    options = options_of(keywords)
    with logged(log, on_progress) as watch:
        return write_index(paths_of(inputs), output, options, on_progress=watch)


@failures_told()
def stats(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    reward_threshold: float = 0.95,
    allow: str | Iterable[Gate] = (),
    max_line: int | str = DEFAULT_MAX_LINE_NBYTES,
    jobs: int | None = None,
    backend: Backend | None = None,
    address: str | None = None,
    retries: int = DEFAULT_RETRIES,
    stall_seconds: float = DEFAULT_STALL_SECONDS,
    log: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Stats:
    """Tell how NeMo Gym rollouts are distributed: rewards, tasks, lengths.

    Args:
        inputs: Files, folders or globs of rollouts, one or several.
        reward_threshold: What counts as a success of a task.
        allow: Gates to lift, as in `convert`.
        max_line: Refuse longer lines unread, in bytes or as in `"256MB"`.
        jobs: Worker processes; 1 stays in this process; None for all cores where that pays.
        backend: `loky`, `ray` or `dask`; None for processes of this machine, or what `joblib.parallel_config` chose.
        address: Of the cluster; None for the one that the backend finds, or starts here.
        retries: How often a span is done once more, whose worker was lost.
        stall_seconds: A worker that does one span for longer is taken for lost.
        log: Log to stderr how far the run is: a line a minute, and one for each phase.
        on_progress: Called in this process where a phase begins, and after each span of input.

    Returns:
        `rewards`, `tasks`, `agents`, `lengths` and more; `help` of its type lists them.

    Raises:
        UsageError: The arguments are wrong; nothing was read.
        FailedRun: The scan could not be finished.
    """
    keywords = dict(locals())
    check_polars()
    from fastsft.pipeline.statistics import stats_of

    options = options_of(keywords)
    with logged(log, on_progress) as watch:
        return stats_of(paths_of(inputs), options, on_progress=watch)
