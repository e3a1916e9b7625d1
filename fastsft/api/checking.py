"""The functions that look at what was written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from fastsft.api.arguments import logged, paths_of
from fastsft.errors import failures_told
from fastsft.execution.polars_after_fork import check_polars
from fastsft.options import (
    DEFAULT_RENDER_SECONDS,
    DEFAULT_RETRIES,
    DEFAULT_STALL_SECONDS,
    options_of,
)
from fastsft.report import Progress
from fastsft.storage.urls import is_remote

if TYPE_CHECKING:
    from fastsft.checks.report import CheckReport
    from fastsft.choices import (
        Backend,
        TrainerName,
    )
    from fastsft.outputs.verify import Verification


@failures_told()
def check(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    trainer: TrainerName | None = None,
    template: str | os.PathLike[str] | None = None,
    max_tokens: int | None = None,
    jobs: int | None = None,
    backend: Backend | None = None,
    address: str | None = None,
    retries: int = DEFAULT_RETRIES,
    stall_seconds: float = DEFAULT_STALL_SECONDS,
    render_seconds: float = DEFAULT_RENDER_SECONDS,
    log: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> CheckReport:
    """Tell whether rows will train, and if not, why and what to do.

    Args:
        inputs: Files, folders or globs of rows, one or several.
        trainer: Whose loader is to read them: only what stops it is a finding; None for any.
        template: A chat template to render each row with: a `.jinja` file, or the folder of a tokenizer.
        max_tokens: Find rows of more tokens, by the tokenizer in `template`.
        jobs: Worker processes; 1 stays in this process; None for all cores where that pays.
        backend: As in `convert`.
        address: As in `convert`.
        retries: As in `convert`.
        stall_seconds: As in `convert`.
        render_seconds: How long the template may take for a row.
        log: Log to stderr how far the run is: a line a minute, and one for each phase.
        on_progress: Called in this process where a phase begins, and after each span of input.

    Returns:
        `findings`, each with rows and examples, `notes`, and `lengths`: quantiles, by name ("nbytes", "turns" and
        with a tokenizer "tokens") and share ("0.5" to "1.0").

    Raises:
        UsageError: The arguments are wrong; nothing was read.
        FailedRun: A file could not be read to its end.
    """
    options = options_of(
        {
            "trainer": trainer,
            "jobs": jobs,
            "backend": backend,
            "address": address,
            "retries": retries,
            "stall_seconds": stall_seconds,
        }
    )
    check_polars()
    from fastsft.checks.run import check_rows

    path = None if template is None else os.fspath(template)
    with logged(log, on_progress) as watch:
        return check_rows(
            paths_of(inputs),
            template=path,
            max_tokens=max_tokens,
            trainer=options.trainer,
            render_seconds=render_seconds,
            placement=options.placement,
            on_progress=watch,
        )


@failures_told()
def verify(output: str | os.PathLike[str], *, jobs: int | None = None) -> Verification:
    """Check the files of an output, and of the splits of its run, against the reports beside them.

    What an interrupted run had begun to publish is finished first.

    Args:
        output: The file or the folder that `convert` wrote to, or its URL.
        jobs: Worker processes; None for all cores.

    Returns:
        `differences`, empty where all is as the reports say, and how much was checked: `files`, `rows`, `nbytes`.

    Raises:
        UsageError: No report is there, or another run is writing there.
        FailedRun: A report cannot be read.
    """
    if is_remote(output):
        from fastsft.outputs.verify_objects import verify_url

        return verify_url(os.fspath(output), jobs=jobs)
    from fastsft.outputs.verify import verify_output

    return verify_output(output, jobs=jobs)


@failures_told()
def write_report(
    output: str | os.PathLike[str],
    page: str | os.PathLike[str] | None = None,
    *,
    template: str | os.PathLike[str] | None = None,
    render_seconds: float = DEFAULT_RENDER_SECONDS,
) -> Path:
    """Write a page that shows an output: what became of the lines, rewards, lengths, faults, examples.

    It is one HTML file that loads nothing from elsewhere, the same bytes for the same output. Totals are the report's;
    the rest is from all of the rows and inputs where they are small, and else from a part of them, which it says.

    Args:
        output: The file or the folder that `convert` wrote to, or the report of one of its outputs.
        page: The file to write; None for NAME.report.html beside the report.
        template: A chat template to check rows with: a `.jinja` file, or a tokenizer's folder, which counts tokens.
        render_seconds: How long the template may take for a row.

    Returns:
        Where the page is.

    Raises:
        UsageError: No report is there, or `page` is no page of fastsft's; nothing was written.
        FailedRun: The report cannot be read, or the page cannot be written.
    """
    check_polars()
    from fastsft.views.html.write import write_page

    path = None if template is None else os.fspath(template)
    return write_page(output, page, template=path, render_seconds=render_seconds)
