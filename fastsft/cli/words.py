"""Words that several commands share, and how all of them print."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, TextIO

import typer

from fastsft.errors import FailedRun, Stopped, UsageError

Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print only what is wrong: no progress, no summary.", rich_help_panel="run"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.", rich_help_panel="run")]


def argument(metavar: str, *, help: str, choices: Sequence[str] = ()) -> Any:
    """Return an argument, which stands in the first panel of `--help`."""
    completer = completer_of(choices) if choices else None
    return typer.Argument(metavar=metavar, help=help, rich_help_panel="input", autocompletion=completer)


def completer_of(choices: Sequence[str], *, listed: bool = False) -> Callable[[str], list[str]]:
    """Return what completes a word to the choices that there are; `listed`, to several with commas between them."""

    def completed(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",") if listed else ("", "", incomplete)
        return [f"{before}{comma}{choice}" for choice in choices if choice.startswith(last)]

    return completed


def in_panel(panel: str, *flags: str, metavar: str | None = None, help: str, least: int | None = None) -> Any:
    """Return an option that a command has beside its settings, in a panel of `--help`."""
    return typer.Option(*flags, metavar=metavar, help=help, min=least, rich_help_panel=panel)


Inputs = Annotated[
    list[str] | None, argument("INPUT...", help="Files, folders or globs of rollouts, mixed, in any number.")
]

MoreInputs = Annotated[
    list[str] | None, in_panel("input", "--input", metavar="INPUT", help="The same as an argument; repeatable.")
]
Output = Annotated[
    str,
    in_panel(
        "output",
        *("--output", "-o"),
        metavar="OUT",
        help="Write one file OUT, or, where OUT is a folder or ends in /, shards in it.",
    ),
]
ValFraction = Annotated[
    str | None,
    in_panel("split", metavar="SHARE", help="The share of the tasks that goes to --val. [default: 0.05]"),
]
Splits = Annotated[
    list[str] | None,
    in_panel("split", metavar="OUT=SHARE", help="Send a share of the tasks to OUT, as --val does; repeatable."),
]
NoExample = Annotated[bool, in_panel("run", "--no-example", help="Leave out the first row at the end of the summary.")]


def require_inputs(inputs: list[str] | None) -> list[str]:
    """Make sure that something was named."""
    if not inputs:
        raise UsageError("no input: name files, folders or globs of rollouts")
    return inputs


def print_all(texts: Iterable[str]) -> None:
    """Print what was asked for; a reader that has seen enough (`| head`) is no error, a full disk is."""
    try:
        for text in texts:
            print(text)
        if sys.stdout:  # not closed
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
def published_whatever_happens() -> Iterator[None]:
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
