"""The commands that look at rollouts: `fastsft index`, `stats` and `show`."""

from __future__ import annotations

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
    print_all,
    published_whatever_happens,
    require_inputs,
)
from fastsft.errors import UsageError
from fastsft.escape import escaped
from fastsft.views.terminal import ProgressBar, indexed, many, size_of


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
    tools: Tools = None,
    trainer: Trainer = None,
    max_line: MaxLine = "256MB",
    jobs: Jobs = None,
    quiet: Quiet = False,
) -> None:
    """Write the table of lines, so that choosing again reads the chosen lines alone."""
    from fastsft.api import index as run
    from fastsft.pipeline.index import index_path

    if not output:
        raise UsageError("no output: name a file or a folder with --output")
    with ProgressBar(hidden=quiet) as bar:
        report = run(
            require_inputs(inputs),
            output,
            dedup=dedup,
            format=format,
            arguments=arguments,
            reasoning=reasoning,
            loss=loss,
            tools=tools,
            trainer=trainer,
            max_line=max_line,
            jobs=jobs,
            on_progress=bar.show,
        )
    if not quiet:
        with published_whatever_happens():
            print(indexed(report, index_path(output)))


def stats(
    inputs: Inputs = None,
    reward_threshold: Annotated[
        float,
        typer.Option(
            "--reward-threshold",
            "--reward_threshold",
            metavar="SCORE",
            help="Count a rollout with reward >= SCORE as solving its task.",
        ),
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
    from fastsft.views.plot import check_plot, draw_plot
    from fastsft.views.tables import tables_of

    paths = require_inputs(inputs)
    if plot:
        check_plot(plot, paths)
    with ProgressBar(hidden=quiet or json) as bar:
        found = run(
            paths,
            reward_threshold=reward_threshold,
            allow=allow or (),
            max_line=max_line,
            jobs=jobs,
            on_progress=bar.show,
        )
    if plot:
        draw_plot(found, plot)
    print_all([found.to_json().decode() if json else tables_of(found)])


def verify(
    output: Annotated[str, typer.Argument(metavar="OUT", help="The file or the folder that convert wrote to.")],
    jobs: Jobs = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but differences.")] = False,
) -> None:
    """Check files of rows against the report beside them: which, and their rows, bytes and sha256.

    Exit codes: 0 all is as the report says; 1 something differs; 2 there is no report.
    """
    from fastsft.api import verify as run

    found = run(output, jobs=jobs)
    lines = [] if quiet else list(map(escaped, found.notes))
    lines += [f"Differs: {escaped(difference)}" for difference in found.differences]
    if not quiet:
        so = f"{many(len(found.differences), 'difference')}." if found.differences else "All is as the report says."
        lines.append(f"Verified {many(found.files, 'file')}, {many(found.rows, 'row')}, {size_of(found.nbytes)}: {so}")
    print_all(lines)
    if found.differences:
        raise typer.Exit(1)


def show(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A shard of rollouts or of rows.")],
    count: Annotated[int, typer.Option("-n", metavar="N", help="Show N lines.")] = 3,
    line: Annotated[int, typer.Option("--line", metavar="N", help="Begin with line N, from 1.")] = 1,
    full: Annotated[bool, typer.Option("--full", help="Show long texts whole.")] = False,
    reward_threshold: Threshold = 0.95,
) -> None:
    """Show some rollouts or rows as a person reads them, and why each would be kept or not."""
    from fastsft.views.preview import shown

    print_all(shown(file, first=line, count=count, full=full, reward_threshold=reward_threshold))
