"""The functions that write rows, and what parts of a run have left."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from fastsft.api.arguments import logged, paths_of
from fastsft.errors import UsageError, failures_told
from fastsft.options import (
    DEFAULT_MAX_LINE_NBYTES,
    DEFAULT_MAX_REFUSED_RECORDED,
    DEFAULT_RENDER_SECONDS,
    DEFAULT_RETRIES,
    DEFAULT_STALL_SECONDS,
    Options,
    Split,
    options_of,
    pair_options_of,
)
from fastsft.pipeline import run
from fastsft.quantities import share_of
from fastsft.report import Progress, Report
from fastsft.storage.urls import is_remote

if TYPE_CHECKING:
    from fastsft.choices import (
        Arguments,
        Backend,
        Compression,
        FormatName,
        Gate,
        Loss,
        Provenance,
        Reasoning,
        Tools,
        TrainerName,
    )


@failures_told()
def convert(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    trainer: TrainerName | None = None,
    format: FormatName | None = None,
    arguments: Arguments | None = None,
    reasoning: Reasoning | None = None,
    loss: Loss | None = None,
    tools: Tools | None = None,
    provenance: str | Iterable[Provenance] = (),
    reward_threshold: float = 0.95,
    max_reward: float | None = None,
    allow: str | Iterable[Gate] = (),
    where: str | None = None,
    max_tokens: int | None = None,
    template: str | os.PathLike[str] | None = None,
    trainable: bool = False,
    pass_rate: tuple[float, float] | str | None = None,
    dedup: bool = False,
    best_of: int | None = None,
    per_task: int | None = None,
    per_agent: int | None = None,
    sample: int | str | None = None,
    seed: int = 0,
    splits: Mapping[str, float | str] | None = None,
    index: str | os.PathLike[str] | None = None,
    allow_empty: bool = False,
    max_refused: int | str | None = None,
    max_refused_recorded: int | None = DEFAULT_MAX_REFUSED_RECORDED,
    shards: int | None = None,
    shard_size: int | str | None = None,
    name: str = "train",
    compress: Compression | None = None,
    card: bool = False,
    max_line: int | str = DEFAULT_MAX_LINE_NBYTES,
    fresh: bool = False,
    verify_inputs: bool = False,
    jobs: int | None = None,
    backend: Backend | None = None,
    address: str | None = None,
    retries: int = DEFAULT_RETRIES,
    part: tuple[int, int] | str | None = None,
    stall_seconds: float = DEFAULT_STALL_SECONDS,
    render_seconds: float = DEFAULT_RENDER_SECONDS,
    work: str | os.PathLike[str] | None = None,
    log: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Convert NeMo Gym rollouts into training rows.

    The rules are those of NeMo Gym's SFT guide where it loses nothing; README lists
    where it does and what is done instead.

    Args:
        inputs: Files, folders or globs of rollouts, one or several; URLs of objects name them in the same ways.
        output: A file for all rows, or a folder for shards: it exists, or is a text that ends in `/` (which a Path
            loses); or the URL of one.
        trainer: The trainer whose loader is to read the rows, a name in `fastsft.TRAINERS`. It sets the next five and
            the kind of file; what is given beside it wins, or is refused.
        format: The layout of the rows, a name in `fastsft.FORMATS`; the trainer's or `openai` if None.
        arguments: For `chat`: arguments of calls as an `object` (if None) or a JSON `string`.
        reasoning: For `chat`: reasoning in a `field` of its own (if None), in `think` tags, or `drop`.
        loss: `own` marks the turns that the model sampled; None marks nothing. Not for `simple`.
        tools: Tools as a `list` (if None), or as one JSON `string`, which no loader alters. Not for `simple`.
        provenance: Say in each row, under `metadata`, where it comes from: `reward`, `agent`, `task`, `shard`, `line`,
            one or several.
        reward_threshold: Keep rollouts with reward >= this; no unit, usually 0 to 1.
        max_reward: Keep rollouts with reward <= this.
        allow: Gates to lift, from `masked`, `failed`, `unverified`, `incomplete`, `no_generation`, `no_user_turn`, or
            `all`, one or several.
        where: Keep lines of which this SQL expression over the table's columns is true.
        max_tokens: Keep what has no more tokens, as recorded; rollouts without a count are kept.
        template: A chat template, for `trainable`; the folder of a tokenizer, for `max_tokens` of the rendered row.
        trainable: Leave out rows in which `check` finds a fault, with `template` those that it finds there, too.
        pass_rate: Keep tasks whose share of rollouts at or above the threshold lies in this band.
        dedup: Keep the first of rows with the same content.
        best_of: Keep this many of a task, the best.
        per_task: Keep at most this many of a task, at random.
        per_agent: Keep at most this many of an agent, at random.
        sample: Keep so many lines, or a share as in `"10%"`, at random.
        seed: What the random choices depend on, beside the input.
        splits: More outputs, and the share of the tasks that goes to each instead of to `output`.
        index: An index of the inputs, which `index` wrote, to use instead of a scan.
        allow_empty: Publish no rows where none are kept, instead of failing.
        max_refused: Fail if more lines are refused: a count, or a share as in `"1%"`.
        max_refused_recorded: List so many refused lines, the first; None for all. All are counted.
        shards: Write this many shards of nearly equal row counts.
        shard_size: Write shards of at most this size, in bytes or as in `"500MB"`.
        name: What the names of shards begin with.
        compress: Compress the rows: `gz` or `zst`; for one file its suffix says it.
        card: Write a dataset card, README.md, beside shards.
        max_line: Refuse longer lines unread, in bytes or as in `"256MB"`.
        fresh: Start over, although an interrupted run left something to go on from.
        verify_inputs: Hash the inputs, so that a run goes on only from spans whose bytes are the same; without it, size
            and time of change decide.
        jobs: Worker processes; 1 stays in this process; None for all cores where that pays.
        backend: `loky`, `ray` or `dask`; None for processes of this machine, or what `joblib.parallel_config` chose.
        address: Of the cluster; None for the one that the backend finds, or starts here.
        retries: How often a span is done once more, whose worker was lost.
        part: Which part of how many is done, from 1, or as in `"3/16"`; `publish` or the last of them publishes.
        stall_seconds: A worker that does one span for longer is taken for lost.
        render_seconds: How long the template may take for a row, in a process of its own; then the run fails.
        work: Where rows for a store are made first; None for `TMPDIR`.
        log: Log to stderr how far the run is: a line a minute, and one for each phase.
        on_progress: Called in this process where a phase begins, and after each span of input.

    Returns:
        What became of every line, and what was written; the same as the report file. Of a part that did not publish,
        `part` says what it did.

    Raises:
        UsageError: The arguments are wrong; nothing was read or written.
        TooManyRefused: More lines were refused than `max_refused` allows; nothing was published.
        FailedRun: The run could not be finished, every line was refused, or nothing was kept; nothing was published.
    """
    return _run(inputs, output, options_of(dict(locals())), splits, index, on_progress)


@failures_told()
def pairs(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    format: str = "nemo-rl",
    choose: str = "auto",
    turn: str | None = None,
    min_gap: float = 0.2,
    reward_threshold: float | None = None,
    max_rejected: float | None = None,
    pairs_per_task: int | None = None,
    uses: int | None = None,
    length_ratio: tuple[float, float] | str | None = None,
    balance: bool = False,
    strategy: str = "same_prompt",
    high_threshold: float | None = None,
    low_threshold: float | None = None,
    arguments: str | None = None,
    reasoning: str | None = None,
    tools: str | None = None,
    allow: str | Iterable[str] = (),
    where: str | None = None,
    max_tokens: int | None = None,
    seed: int = 0,
    splits: Mapping[str, float | str] | None = None,
    index: str | os.PathLike[str] | None = None,
    allow_empty: bool = False,
    max_refused: int | str | None = None,
    max_refused_recorded: int | None = DEFAULT_MAX_REFUSED_RECORDED,
    shards: int | None = None,
    shard_size: int | str | None = None,
    name: str = "train",
    compress: str | None = None,
    max_line: int | str = DEFAULT_MAX_LINE_NBYTES,
    fresh: bool = False,
    verify_inputs: bool = False,
    jobs: int | None = None,
    backend: str | None = None,
    address: str | None = None,
    retries: int = DEFAULT_RETRIES,
    part: tuple[int, int] | str | None = None,
    stall_seconds: float = DEFAULT_STALL_SECONDS,
    work: str | os.PathLike[str] | None = None,
    log: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Make preference pairs of NeMo Gym rollouts: a better and a worse attempt at one task, by one agent.

    Args:
        inputs: As in `convert`.
        output: As in `convert`.
        format: Whose rows: `nemo-rl`, `trl`, `binary`, `kto` (one rollout to a row), `openai`, `llama-factory`.
        choose: Which pairs of a task: `best-worst`, `sigma`, `threshold`, `all`, or `auto` for the first or the second.
        turn: Compare answers of one turn `only`, the turns of the `first-difference`, or the `whole` answers; None for
            the first difference, and `only` for `binary` and `kto`.
        min_gap: The least difference between the rewards of a pair; no unit.
        reward_threshold: The least reward that is chosen; None for no limit, and 0.95 for `kto`.
        max_rejected: The greatest reward that is rejected; None for no limit, and the threshold less the gap for `kto`.
        pairs_per_task: The most pairs of a task; None for 1, and for no limit where `choose` is `all`.
        uses: The most pairs that a rollout is in; None for the same.
        length_ratio: The least and the greatest ratio of the lengths of both sides, chosen to rejected, in characters.
        balance: For `kto`: as many good rows as bad ones, drawn at random.
        strategy: `same_prompt`, which is what is done; `stratified` is refused.
        high_threshold: Of the guide's script, without effect.
        low_threshold: Of the guide's script, without effect.
        arguments: For `trl` and `kto`: arguments of calls as an `object` or a JSON `string` (if None).
        reasoning: As in `convert`, as far as a format has it.
        tools: For `trl` and `kto`: tools as a `list`, or as one JSON `string` (if None).
        allow: As in `convert`, as are all that follow.
        where: As in `convert`.
        max_tokens: As in `convert`.
        seed: As in `convert`.
        splits: As in `convert`.
        index: An index of the inputs, which `index` wrote with `pairs` and `format="chat"`.
        allow_empty: As in `convert`.
        max_refused: As in `convert`.
        max_refused_recorded: As in `convert`.
        shards: As in `convert`.
        shard_size: As in `convert`.
        name: As in `convert`.
        compress: As in `convert`.
        max_line: As in `convert`.
        fresh: As in `convert`.
        verify_inputs: As in `convert`.
        jobs: As in `convert`.
        backend: As in `convert`.
        address: As in `convert`.
        retries: As in `convert`.
        part: As in `convert`.
        stall_seconds: As in `convert`.
        work: As in `convert`.
        log: As in `convert`.
        on_progress: As in `convert`.

    Returns:
        What became of every line, and what was written; `pairs` counts rows and sides, their lengths, and where they
        part.

    Raises:
        UsageError: The arguments are wrong; nothing was read or written.
        TooManyRefused: More lines were refused than `max_refused` allows; nothing was published.
        FailedRun: The run could not be finished, every line was refused, or nothing was kept; nothing was published.
    """
    return _run(inputs, output, pair_options_of(dict(locals())), splits, index, on_progress)


@failures_told()
def tasks(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    pass_rate: tuple[float, float] | str | None = None,
    reward_threshold: float = 0.95,
    allow: str | Iterable[str] = (),
    where: str | None = None,
    per_agent: int | None = None,
    sample: int | str | None = None,
    seed: int = 0,
    splits: Mapping[str, float | str] | None = None,
    allow_empty: bool = False,
    max_refused: int | str | None = None,
    max_refused_recorded: int | None = DEFAULT_MAX_REFUSED_RECORDED,
    shards: int | None = None,
    shard_size: int | str | None = None,
    name: str = "train",
    max_line: int | str = DEFAULT_MAX_LINE_NBYTES,
    fresh: bool = False,
    verify_inputs: bool = False,
    jobs: int | None = None,
    backend: str | None = None,
    address: str | None = None,
    retries: int = DEFAULT_RETRIES,
    stall_seconds: float = DEFAULT_STALL_SECONDS,
    work: str | os.PathLike[str] | None = None,
    log: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Write the tasks of a band of pass rates as NeMo Gym task rows, for GRPO and on-policy distillation.

    A row is the first line with the rollout's `_ng_task_index` in the `*_materialized_inputs.jsonl` beside its shard,
    else the rollout without what the attempt added, which its line does not tell for sure: `notes` say so.

    Args:
        inputs: Files, folders or globs of rollouts, one or several; URLs of objects name them in the same ways.
        output: A file for all rows, or a folder for shards, as in `convert`.
        pass_rate: Take tasks whose share of rollouts at or above the threshold lies in this band.
        reward_threshold: What counts as solving a task.
        allow: Gates to lift, as in `convert`: what they drop counts neither as solved nor as tried.
        where: Take tasks of which a line makes this SQL expression true; asked once the pass rates are known.
        per_agent: Take at most this many tasks of an agent, at random.
        sample: Take so many tasks, or a share as in `"10%"`, at random.
        seed: As in `convert`; so are the others.
        splits: As in `convert`.
        allow_empty: As in `convert`.
        max_refused: As in `convert`.
        max_refused_recorded: As in `convert`.
        shards: As in `convert`.
        shard_size: As in `convert`.
        name: As in `convert`.
        max_line: As in `convert`.
        fresh: As in `convert`.
        verify_inputs: As in `convert`.
        jobs: As in `convert`.
        backend: As in `convert`.
        address: As in `convert`.
        retries: As in `convert`.
        stall_seconds: As in `convert`.
        work: As in `convert`.
        log: As in `convert`.
        on_progress: Called in this process where a phase begins, and after each span of input.

    Returns:
        What became of every line, and what was written; `tasks` says where the rows come from.

    Raises:
        UsageError: The arguments are wrong; nothing was read or written.
        FailedRun: The run could not be finished, or no task was in the band; nothing was published.
    """
    keywords = dict(locals())
    paths = [os.fspath(output), *(os.fspath(path) for path in splits or {})]
    if packed := [path for path in paths if path.endswith((".gz", ".zst"))]:
        raise UsageError(f"NeMo RL reads task rows from plain files, and {packed[0]} would be compressed")
    return _run(inputs, output, options_of({**keywords, "makes": "tasks"}), splits, None, on_progress)


def _run(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    options: Options,
    splits: Mapping[str, float | str] | None,
    index: str | os.PathLike[str] | None,
    on_progress: Callable[[Progress], None] | None,
) -> Report:
    """Do a run, to wherever its output is."""
    shares = {path: share_of(share) if isinstance(share, str) else share for path, share in (splits or {}).items()}
    several = [Split(os.fspath(path), share) for path, share in shares.items()]
    with logged(options.log, on_progress) as watch:
        if any(map(is_remote, [output, *shares])):
            from fastsft.pipeline.to_store import run_to_store

            return run_to_store(
                paths_of(inputs), os.fspath(output), options, splits=several, index=index, on_progress=watch
            )
        if options.part is not None:
            from fastsft.pipeline.parts import run_part

            return run_part(paths_of(inputs), output, options, splits=several, index=index, on_progress=watch)
        return run(paths_of(inputs), output, options, splits=several, index=index, on_progress=watch)


@failures_told()
def publish(output: str | os.PathLike[str], *, jobs: int | None = None) -> Report:
    """Publish what `convert` with `part` has done, or choose the lines once all parts have scanned theirs.

    Args:
        output: The file or the folder that the parts convert to.
        jobs: Worker processes; None for all cores where that pays.

    Returns:
        The report; where lines were chosen and nothing is published yet, `part` says so.

    Raises:
        UsageError: There is no run in parts, or a part is at work.
        FailedRun: Parts are not done, or it could not be published.
    """
    from fastsft.pipeline.parts import publish_parts

    return publish_parts(output, jobs=jobs)
