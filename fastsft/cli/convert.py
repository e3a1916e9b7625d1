"""`fastsft convert`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fastsft.cli.words import (
    Allow,
    Arguments,
    Format,
    Inputs,
    Jobs,
    Loss,
    MaxLine,
    Quiet,
    Reasoning,
    Threshold,
    Tools,
    Trainer,
    published_whatever_happens,
    require_inputs,
)
from fastsft.errors import UsageError
from fastsft.options import share_of
from fastsft.views.terminal import ProgressBar, damaged_of, example_of, few_rows_warning, summary_of


def convert(
    inputs: Inputs = None,
    more_inputs: Annotated[
        list[str] | None, typer.Option("--input", metavar="INPUT", help="The same as an argument; repeatable.")
    ] = None,
    output: Annotated[
        str,
        typer.Option(metavar="OUT", help="Write one file OUT, or, where OUT is a folder or ends in /, shards in it."),
    ] = "",
    format: Format = "openai",
    arguments: Arguments = None,
    reasoning: Reasoning = None,
    loss: Loss = None,
    tools: Tools = None,
    trainer: Trainer = None,
    reward_threshold: Threshold = 0.95,
    max_reward: Annotated[
        float | None, typer.Option(metavar="SCORE", help="Keep rollouts with reward <= SCORE.")
    ] = None,
    allow: Allow = None,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="EXPR", help="Keep lines of which EXPR is true, SQL as in \"agent = 'math' AND calls > 0\"."
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", help="Keep what has at most N tokens, as recorded; what has an unknown number, too."),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="Judge rows as a chat template renders them: a tokenizer's folder, or FILE.jinja."
        ),
    ] = None,
    trainable: Annotated[
        bool,
        typer.Option("--trainable", help="Leave out rows in which `fastsft check` finds a fault; see --template."),
    ] = False,
    pass_rate: Annotated[
        str | None,
        typer.Option(metavar="LOW:HIGH", help="Keep tasks whose share of rollouts over the threshold lies there."),
    ] = None,
    dedup: Annotated[bool, typer.Option("--dedup", help="Keep the first of rows with the same content.")] = False,
    best_of: Annotated[
        int | None, typer.Option(metavar="N", help="Keep the best N of a task: highest reward, then shortest.")
    ] = None,
    per_task: Annotated[int | None, typer.Option(metavar="N", help="Keep at most N of a task, at random.")] = None,
    per_agent: Annotated[int | None, typer.Option(metavar="N", help="Keep at most N of an agent, at random.")] = None,
    sample: Annotated[
        str | None, typer.Option(metavar="N|P%", help="Keep N lines, or P percent of them, at random.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="What random choices depend on, beside the input.")] = 0,
    val: Annotated[
        str | None, typer.Option(metavar="OUT", help="Send some whole tasks to OUT instead: rows for validation.")
    ] = None,
    val_fraction: Annotated[
        str | None, typer.Option(metavar="SHARE", help="The share of the tasks that goes to --val; 0.05 if not given.")
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(metavar="OUT=SHARE", help="Send a share of the tasks to OUT, as --val does; repeatable."),
    ] = None,
    index: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Choose from an index that `fastsft index` wrote, instead of a scan."),
    ] = None,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Write no rows where none are kept, instead of failing.")
    ] = False,
    max_refused: Annotated[
        str | None,
        typer.Option(metavar="LIMIT", help="Publish nothing if more lines are refused: a count, or a share as in 1%."),
    ] = None,
    shards: Annotated[
        int | None,
        typer.Option(metavar="N", help="Write N shards of nearly equal row counts (needs the room of two copies)."),
    ] = None,
    shard_size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Write shards of at most SIZE: 500MB, 64MiB; 1GB if neither is given."),
    ] = None,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="Begin the names of shards with NAME: NAME-00000-of-00004.jsonl.")
    ] = "train",
    compress: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="Compress shards: gz or zst. For one file, its suffix .gz or .zst says it."),
    ] = None,
    max_line: MaxLine = "256MB",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew, though an interrupted run left something to go on from.")
    ] = False,
    verify_inputs: Annotated[
        bool, typer.Option("--verify-inputs", help="Hash the inputs, and go on only from those of the same bytes.")
    ] = False,
    jobs: Jobs = None,
    quiet: Quiet = False,
) -> None:
    """Convert rollouts into rows, keeping the attempts worth imitating.

    Lines that are no usable rollout are refused: counted by reason, listed beside
    the output, and the run goes on. Exit codes: 0 done; 1 failed; 2 the command
    was wrong; 3 over --max-refused; 128+n signal n. Unless it is 0, nothing was published.
    """
    from fastsft.api import convert as run  # what the run needs is not loaded for --help

    paths = require_inputs([*(inputs or []), *(more_inputs or [])])
    if not output:
        raise UsageError("no output: name a file or a folder with --output")
    with ProgressBar(hidden=quiet) as bar:
        report = run(
            paths,
            output,
            format=format,
            arguments=arguments,
            reasoning=reasoning,
            loss=loss,
            tools=tools,
            trainer=trainer,
            reward_threshold=reward_threshold,
            max_reward=max_reward,
            allow=allow or (),
            where=where,
            max_tokens=max_tokens,
            template=template,
            trainable=trainable,
            pass_rate=pass_rate,
            dedup=dedup,
            best_of=best_of,
            per_task=per_task,
            per_agent=per_agent,
            sample=sample,
            seed=seed,
            splits=_splits(val, val_fraction, split or []),
            index=index,
            allow_empty=allow_empty,
            max_refused=max_refused,
            shards=shards,
            shard_size=shard_size,
            name=name,
            compress=compress,
            max_line=max_line,
            fresh=fresh,
            verify_inputs=verify_inputs,
            jobs=jobs,
            on_progress=bar.show,
        )
    if quiet and report.damaged and sys.stderr:
        with published_whatever_happens():
            print(damaged_of(report), file=sys.stderr)  # rows of whole shards are missing, which is no detail
    if not quiet:
        with published_whatever_happens():
            print(summary_of(report), flush=True)  # before the warning, where both go to one file
            if sys.stderr and (warning := few_rows_warning(report)):
                print(warning, file=sys.stderr)
            if report.rows:
                print(example_of(Path(report.folder, report.outputs[0].name)))


def _splits(val: str | None, val_fraction: str | None, several: list[str]) -> dict[str, float]:
    if val_fraction is not None and not val:
        raise UsageError("--val-fraction says how much goes to --val, which is not given")
    splits = {val: share_of(val_fraction or "0.05")} if val else {}
    for text in several:
        path, _, share = text.rpartition("=")
        if not path or path in splits:
            raise UsageError(
                f"a split is another path and the share of the tasks for it, as test.jsonl=0.05, not {text!r}"
            )
        splits[path] = share_of(share)
    return splits
