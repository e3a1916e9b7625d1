"""`fastsft slurm`."""

from __future__ import annotations

import os
import shlex
import sys
from typing import Annotated

import typer

from fastsft.cli.convert import convert
from fastsft.cli.words import in_panel, print_all, require_inputs
from fastsft.errors import UsageError
from fastsft.options import declared, keyword_of, options_of
from fastsft.storage.urls import is_remote


def slurm(
    context: typer.Context,
    parts: Annotated[int, in_panel("run", metavar="N", help="Tasks of the job array.", least=1)] = 16,
    cpus: Annotated[int, in_panel("run", metavar="N", help="Cores of each task.", least=1)] = 8,
    sbatch: Annotated[
        str, in_panel("run", metavar="WORDS", help="More words for each sbatch, as '-p cpu -t 2:00:00'.")
    ] = "",
) -> None:
    """Print a script that converts in a job array of Slurm.

    What stands behind its own options are the words of `fastsft convert`.
    """
    words = context.args
    output, compares = _read(words)
    if any(word.split("=")[0] in ("--part", "--jobs", "--backend") for word in words):
        raise UsageError("the script says --part and --jobs itself, and its tasks need no --backend")
    program = shlex.join([sys.executable, "-m", "fastsft"])
    part = f"{program} convert {shlex.join(words)} --part auto --jobs {cpus} --quiet --log"
    publishing = f"{program} publish {shlex.quote(output)} --jobs {cpus}"
    common = f"sbatch --parsable --cpus-per-task={cpus}" + (f" {sbatch}" if sbatch else "")
    array = f"{common} --job-name=fastsft --array=1-{parts} --output=fastsft-%A-%a.log"
    after = f"{common} --job-name=fastsft-publish --output=fastsft-%j.log"
    lines = ["#!/bin/bash", "# Each task leaves receipts; the last command publishes one report.", "set -e"]
    lines.append(f"cd {shlex.quote(os.getcwd())}")
    if compares:
        lines += [
            "# Lines are compared: a first array scans them, then they are chosen, then a second makes the rows.",
            f"scan=$({array} --wrap {shlex.quote(part)})",
            f'choose=$({after} --dependency=afterok:"$scan" --wrap {shlex.quote(publishing)})',
            f'rows=$({array} --dependency=afterok:"$choose" --wrap {shlex.quote(part)})',
        ]
    else:
        lines.append(f"rows=$({array} --wrap {shlex.quote(part)})")
    lines.append(f'{after} --dependency=afterok:"$rows" --wrap {shlex.quote(publishing)}')
    print_all(["\n".join(lines)])


def _read(words: list[str]) -> tuple[str, bool]:
    """Read the words of `fastsft convert`, which are wrong or right as there: the output, and if lines are compared."""
    from fastsft.selection.criteria import compares_lines

    app = typer.Typer(add_completion=False)
    app.command()(convert)
    said = typer.main.get_command(app).make_context("fastsft convert", list(words)).params
    require_inputs([*(said["inputs"] or []), *(said["more_inputs"] or [])])
    if not said["output"]:
        raise UsageError("no output: name a file or a folder with --output")
    if is_remote(said["output"]):
        raise UsageError("--part is for a folder that all parts see; upload the rows when they are published")
    names = {keyword_of(name) for name in declared()}
    options = options_of({name: value for name, value in said.items() if name in names and value is not None})
    return said["output"], compares_lines(options) or bool(said["val"] or said["split"])
