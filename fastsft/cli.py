"""The command: words -> values, and a report -> what a person reads and an exit code. It decides nothing else."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from fastsft.errors import FailedRun, FastsftError, UsageError
from fastsft.escape import escaped
from fastsft.formats import FORMATS
from fastsft.terminal import ProgressBar, example_of, few_rows_warning, summary_of

# Plain help and errors: the boxes of rich pass on escape characters from what the user typed.
app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


class _Stopped(BaseException):
    """A signal asked the run to end; raised where it was, so that everything is cleaned up on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@app.callback(invoke_without_command=True)
def _fastsft(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Turn NeMo Gym rollouts into training rows, in parallel."""
    if show_version:
        print(f"fastsft {version('fastsft')}")
    elif context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


@app.command()
def convert(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT...", help="Files, folders or globs of rollouts, mixed, in any number."),
    ] = None,
    more_inputs: Annotated[
        list[str] | None, typer.Option("--input", metavar="INPUT", help="The same as an argument; repeatable.")
    ] = None,
    output: Annotated[
        str,
        typer.Option(metavar="OUT", help="Write one file OUT, or, where OUT is a folder or ends in /, shards in it."),
    ] = "",
    format: Annotated[
        str, typer.Option(metavar="NAME", help=f"Lay rows out as NAME: {' or '.join(FORMATS)}.")
    ] = "openai",
    reward_threshold: Annotated[
        float,
        typer.Option(
            "--reward-threshold",
            "--reward_threshold",
            metavar="SCORE",
            help="Keep rollouts with reward >= SCORE (no unit, usually 0 to 1).",
        ),
    ] = 0.95,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GATES", help="Lift gates: masked, failed, unverified, incomplete, or all. None is closed yet."
        ),
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
    max_line: Annotated[
        str, typer.Option(metavar="SIZE", help="Refuse lines longer than SIZE, without holding them in memory.")
    ] = "256MB",
    jobs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Run N worker processes; 1 stays in this process. All cores where that pays if not given.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Convert rollouts into rows, keeping the attempts worth imitating.

    Lines that are no usable rollout are refused: counted by reason, listed beside
    the output, and the run goes on. Exit codes: 0 done; 1 failed; 2 the command
    was wrong; 3 over --max-refused; 128+n signal n. Unless it is 0, nothing was published.
    """
    from fastsft.api import convert as run  # what the run needs is not loaded for --help

    paths = [*(inputs or []), *(more_inputs or [])]
    if not paths:
        raise UsageError("no input: name files, folders or globs of rollouts")
    if not output:
        raise UsageError("no output: name a file or a folder with --output")
    gates = [gate.strip() for words in allow or [] for gate in words.split(",")]
    with ProgressBar(hidden=quiet) as bar:
        report = run(
            paths,
            output,
            format=format,
            reward_threshold=reward_threshold,
            allow=gates,
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


def main() -> NoReturn:
    """Run the command, and exit with one of the codes that README lists."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="backslashreplace")  # a terminal of another encoding loses no summary
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` leaves it
            signal.signal(number, _stop)
    try:
        code = app(standalone_mode=False, prog_name="fastsft") or 0
    except FastsftError as error:
        code = error.exit_code
        if isinstance(error, FailedRun) and error.report is not None and sys.stderr:
            print(summary_of(error.report), file=sys.stderr)
        _complain(str(error))
    except typer.TyperException as error:
        code = 2
        _complain(error.format_message())
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except _Stopped as stopped:
        code = 128 + stopped.number
        _complain(f"stopped by {signal.Signals(stopped.number).name}; nothing was published")
    if code == 128 + signal.SIGINT:  # typer turns a KeyboardInterrupt into this code
        _complain("interrupted; nothing was published")
    sys.exit(code)


def _complain(problem: str) -> None:
    if sys.stderr:
        print(f"fastsft: {escaped(problem, keep=chr(10))}", file=sys.stderr)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise _Stopped(number)


@contextlib.contextmanager
def _published_whatever_happens() -> Iterator[None]:
    """Let nothing that happens while the summary is printed look like a failed run: the rows are there.

    Not a closed pipe (`fastsft ... | head`), not a full disk behind stdout, not a signal.
    """
    try:
        yield
        if sys.stdout:
            sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)  # what is left in the buffer is flushed at exit
        os.dup2(nowhere, sys.stdout.fileno())
    except (KeyboardInterrupt, _Stopped):
        pass
