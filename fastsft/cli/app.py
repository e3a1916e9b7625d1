"""The commands by their names, and the app that reads their words."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from fastsft.cli.check import check
from fastsft.cli.convert import convert
from fastsft.cli.docs import docs
from fastsft.cli.help import HelpCommand, HelpGroup
from fastsft.cli.index import index
from fastsft.cli.nemo_rl import nemo_rl
from fastsft.cli.pairs import pairs
from fastsft.cli.publish import publish
from fastsft.cli.report import report
from fastsft.cli.show import show
from fastsft.cli.slurm import slurm
from fastsft.cli.stats import stats
from fastsft.cli.tasks import tasks
from fastsft.cli.verify import verify
from fastsft.errors import UsageError
from fastsft.version import __version__

COMMANDS: dict[str, Callable[..., None]] = {
    "convert": convert,
    "pairs": pairs,
    "index": index,
    "stats": stats,
    "show": show,
    "tasks": tasks,
    "check": check,
    "report": report,
    "verify": verify,
    "publish": publish,
    "slurm": slurm,
    "docs": docs,
    "nemo-rl": nemo_rl,
}


_PASSES_WORDS_ON: dict[str, Any] = {
    "context_settings": {"ignore_unknown_options": True, "allow_extra_args": True},
    "options_metavar": "[OPTIONS] INPUT... --output OUT [OPTIONS OF CONVERT]",
}


def run() -> int:
    """Do what the words of the command line ask for, and give the exit code.

    Raises:
        FastsftError: It could not be done, or the words are wrong.
    """
    named = sys.argv[1:2]
    app = app_of(named if named and named[0] in COMMANDS else list(COMMANDS))  # reading all takes typer 0.02 s
    try:
        return app(standalone_mode=False, prog_name="fastsft") or 0
    except typer.TyperException as error:
        raise UsageError(error.format_message()) from None
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # `--help | true`: typer takes it for a failure
            return 0
        raise


def app_of(names: list[str]) -> typer.Typer:
    """Return the app of some commands; that of all has the options for shell completion."""
    # Help is our own (`help.py`), and errors are plain: the boxes of rich pass on escape characters of what was typed.
    app = typer.Typer(
        add_completion=len(names) == len(COMMANDS),
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(cls=HelpGroup, invoke_without_command=True)(_fastsft)
    for name in names:
        app.command(name, cls=HelpCommand, **(_PASSES_WORDS_ON if name == "slurm" else {}))(COMMANDS[name])
    return app


def _fastsft(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Turn NeMo Gym rollouts into training rows, in parallel."""
    if show_version:
        print(f"fastsft {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)
