"""What the command can do: words -> values, and what comes of them -> what a person reads. It decides nothing else."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, TextIO

import typer

from fastsft.errors import FailedRun, Stopped, UsageError
from fastsft.formats import FORMATS
from fastsft.options import share_of
from fastsft.terminal import ProgressBar, example_of, few_rows_warning, indexed, summary_of

Inputs = Annotated[
    list[str] | None,
    typer.Argument(metavar="INPUT...", help="Files, folders or globs of rollouts, mixed, in any number."),
]
Format = Annotated[str, typer.Option(metavar="NAME", help=f"Lay rows out as NAME: {' or '.join(FORMATS)}.")]
Arguments = Annotated[
    str | None,
    typer.Option(metavar="FORM", help="For chat: arguments of calls as an object (if not given) or a JSON string."),
]
Reasoning = Annotated[
    str | None,
    typer.Option(metavar="PLACE", help="For chat: reasoning in a field (if not given), in think tags, or drop."),
]
Loss = Annotated[
    str | None, typer.Option(metavar="TURNS", help="Mark which turns are the model's own: own. Nothing if not given.")
]
Threshold = Annotated[
    float,
    typer.Option(
        "--reward-threshold",
        "--reward_threshold",
        metavar="SCORE",
        help="Keep rollouts with reward >= SCORE (no unit, usually 0 to 1).",
    ),
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GATES", help="Keep what says not to train on it: masked, failed, unverified, incomplete, or all."
    ),
]
MaxLine = Annotated[
    str, typer.Option(metavar="SIZE", help="Refuse lines longer than SIZE, without holding them in memory.")
]
Jobs = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Run N worker processes; 1 stays in this process. All cores where that pays if not given."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


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
    jobs: Jobs = None,
    quiet: Quiet = False,
) -> None:
    """Convert rollouts into rows, keeping the attempts worth imitating.

    Lines that are no usable rollout are refused: counted by reason, listed beside
    the output, and the run goes on. Exit codes: 0 done; 1 failed; 2 the command
    was wrong; 3 over --max-refused; 128+n signal n. Unless it is 0, nothing was published.
    """
    from fastsft.api import convert as run  # what the run needs is not loaded for --help

    paths = _some([*(inputs or []), *(more_inputs or [])])
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
            reward_threshold=reward_threshold,
            max_reward=max_reward,
            allow=_gates(allow),
            where=where,
            pass_rate=pass_rate,
            dedup=dedup,
            best_of=best_of,
            per_task=per_task,
            per_agent=per_agent,
            sample=sample,
            seed=seed,
            splits=_splits(val, val_fraction, split or []),
            index=index,
            max_refused=max_refused,
            shards=shards,
            shard_size=shard_size,
            name=name,
            compress=compress,
            max_line=max_line,
            jobs=jobs,
            on_progress=bar.show,
        )
    if not quiet:
        with _published_whatever_happens():
            print(summary_of(report), flush=True)  # before the warning, where both go to one file
            if sys.stderr and (warning := few_rows_warning(report)):
                print(warning, file=sys.stderr)
            if report.rows:
                print(example_of(Path(report.folder, report.outputs[0].name)))


def index(
    inputs: Inputs = None,
    output: Annotated[
        str,
        typer.Option(
            metavar="OUT", help="Write the table to OUT, or into the folder OUT under a name that convert finds."
        ),
    ] = "",
    dedup: Annotated[bool, typer.Option("--dedup", help="Hash the rows too, which convert --dedup needs.")] = False,
    format: Format = "openai",
    arguments: Arguments = None,
    reasoning: Reasoning = None,
    loss: Loss = None,
    max_line: MaxLine = "256MB",
    jobs: Jobs = None,
    quiet: Quiet = False,
) -> None:
    """Write the table of lines, so that choosing again reads the chosen lines alone."""
    from fastsft.api import index as run
    from fastsft.index_file import index_path

    if not output:
        raise UsageError("no output: name a file or a folder with --output")
    with ProgressBar(hidden=quiet) as bar:
        report = run(
            _some(inputs),
            output,
            dedup=dedup,
            format=format,
            arguments=arguments,
            reasoning=reasoning,
            loss=loss,
            max_line=max_line,
            jobs=jobs,
            on_progress=bar.show,
        )
    if not quiet:
        with _published_whatever_happens():
            print(indexed(report, index_path(output)))


def stats(
    inputs: Inputs = None,
    reward_threshold: Annotated[
        float, typer.Option(metavar="SCORE", help="Count a rollout with reward >= SCORE as solving its task.")
    ] = 0.95,
    allow: Allow = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    plot: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw the rewards to FILE.png or FILE.svg (needs matplotlib).")
    ] = None,
    max_line: MaxLine = "256MB",
    jobs: Jobs = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Draw no progress bar.")] = False,
) -> None:
    """Show the distribution of rewards, tasks and lengths, before anything is converted."""
    from fastsft.api import stats as run
    from fastsft.plot import check_plot, draw_plot
    from fastsft.terminal_stats import tables_of

    paths = _some(inputs)
    if plot:
        check_plot(plot)
    with ProgressBar(hidden=quiet or json) as bar:
        found = run(
            paths,
            reward_threshold=reward_threshold,
            allow=_gates(allow),
            max_line=max_line,
            jobs=jobs,
            on_progress=bar.show,
        )
    if plot:
        draw_plot(found, plot)
    _print_all([found.to_json().decode() if json else tables_of(found)])


def show(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A shard of rollouts or of rows.")],
    count: Annotated[int, typer.Option("-n", metavar="N", help="Show N lines.")] = 3,
    line: Annotated[int, typer.Option("--line", metavar="N", help="Begin with line N, from 1.")] = 1,
    full: Annotated[bool, typer.Option("--full", help="Show long texts whole.")] = False,
    reward_threshold: Threshold = 0.95,
) -> None:
    """Show some rollouts or rows as a person reads them, and why each would be kept or not."""
    from fastsft.show import shown

    _print_all(shown(file, first=line, count=count, full=full, reward_threshold=reward_threshold))


def _some(inputs: list[str] | None) -> list[str]:
    if not inputs:
        raise UsageError("no input: name files, folders or globs of rollouts")
    return inputs


def _gates(allow: list[str] | None) -> list[str]:
    return [gate.strip() for words in allow or [] for gate in words.split(",")]


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


def _print_all(texts: Iterable[str]) -> None:
    """Print what was asked for; a reader that has seen enough (`| head`) is no error, a full disk is."""
    try:
        for text in texts:
            print(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _silence(sys.stdout)
    except OSError as error:
        _silence(sys.stdout)
        raise FailedRun(f"cannot write to standard output: {error.strerror}") from None


def _silence(stream: TextIO) -> None:
    """Send the rest nowhere: what is left in the buffer is flushed at exit, and would fail again there."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextlib.contextmanager
def _published_whatever_happens() -> Iterator[None]:
    """Let nothing that happens while the summary is printed look like a failed run: the rows are there.

    Not a closed pipe (`fastsft ... | head`), not a full disk behind stdout, not a signal.
    """
    with contextlib.suppress(OSError, KeyboardInterrupt, Stopped):
        yield
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            _silence(stream)
        except (KeyboardInterrupt, Stopped):
            continue
