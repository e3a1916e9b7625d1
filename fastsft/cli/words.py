"""Words that several commands share, and how all of them print."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Annotated, TextIO

import typer

from fastsft.errors import FailedRun, Stopped, UsageError
from fastsft.formats import FORMATS
from fastsft.options import GATES

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
Tools = Annotated[
    str | None,
    typer.Option(metavar="FORM", help="Tools as a list (if not given) or as one JSON string, which no loader alters."),
]
Trainer = Annotated[
    str | None,
    typer.Option("--for", metavar="TRAINER", help="Write images as the loader of TRAINER reads them: nemo-rl."),
]
Template = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="Render rows with a chat template: the folder of a tokenizer, or FILE.jinja."),
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
        metavar="GATES",
        help=f"Keep rollouts flagged as one of: {', '.join(GATES)} (with commas), or all.",
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
