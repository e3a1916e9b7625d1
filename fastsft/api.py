"""The library's door: the same core as the command, with keywords for options."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from fastsft.options import DEFAULT_MAX_LINE_NBYTES, Options, nbytes_of
from fastsft.pipeline import Progress, run
from fastsft.report import Report


def convert(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    format: str = "openai",
    reward_threshold: float = 0.95,
    allow: Iterable[str] = (),
    max_refused: int | str | None = None,
    shards: int | None = None,
    shard_size: int | str | None = None,
    name: str = "train",
    compress: str | None = None,
    max_line: int | str = DEFAULT_MAX_LINE_NBYTES,
    jobs: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Convert NeMo Gym rollouts into training rows.

    The rules are those of NeMo Gym's SFT guide where it loses nothing; README lists
    where it does and what is done instead.

    Args:
        inputs: Files, folders or globs of rollouts, one or several.
        output: A file for all rows, or a folder (it exists, or ends in `/`) for shards.
        format: The layout of the rows, a name in `fastsft.FORMATS`.
        reward_threshold: Keep rollouts with reward >= this; no unit, usually 0 to 1.
        allow: Gates to lift, or `["all"]`.
        max_refused: Fail if more lines are refused: a count, or a share as in `"1%"`.
        shards: Write this many shards of nearly equal row counts.
        shard_size: Write shards of at most this size, in bytes or as in `"500MB"`.
        name: What the names of shards begin with.
        compress: Compress the rows: `gz` or `zst`; for one file its suffix says it.
        max_line: Refuse longer lines unread, in bytes or as in `"256MB"`.
        jobs: Worker processes; 1 stays in this process; None for all cores where that pays.
        on_progress: Called in this process after each chunk of input.

    Returns:
        What became of every line, and what was written; the same as the report file.

    Raises:
        UsageError: The arguments are wrong; nothing was read or written.
        TooManyRefused: More lines were refused than `max_refused` allows; nothing was published.
        FailedRun: The run could not be finished, or every line was refused; nothing was published.
    """
    options = Options(
        format=format,
        reward_threshold=reward_threshold,
        allow=tuple(allow),
        max_refused=max_refused,
        shards=shards,
        shard_nbytes=nbytes_of(shard_size) if isinstance(shard_size, str) else shard_size,
        name=name,
        compress=compress,
        max_line_nbytes=nbytes_of(max_line) if isinstance(max_line, str) else max_line,
        jobs=jobs,
    )
    paths = [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)
    return run(paths, output, options, on_progress=on_progress)
