"""A run in parts, each a process of its own on any machine: a job array, which needs no engine.

Parts share one staging folder and leave receipts there. A part that ends when no other is at work tries to publish;
so does `fastsft publish`. Where lines are compared, all parts scan first; whoever publishes then chooses, and the same
parts, run once more, make the rows of what was chosen.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from fastsft.errors import Busy, LinesChosen, UnfinishedParts, UsageError
from fastsft.options import Options, Split
from fastsft.outputs.record import call_in
from fastsft.outputs.target import Target, report_before, target_of
from fastsft.pipeline.drive import Published, begin, run
from fastsft.report import Progress, Report
from fastsft.version import __version__


def run_part(
    inputs: Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    options: Options,
    *,
    splits: Sequence[Split],
    index: str | os.PathLike[str] | None,
    on_progress: Callable[[Progress], None] | None,
) -> Report:
    """Do the part of a run that the options name, and publish if it was the last.

    Returns:
        The report of the whole run where it is published; else one that says in `part` what was done.

    Raises:
        UsageError: The arguments are wrong, or another run writes to the output.
        FailedRun: The part could not be done.
    """
    assert options.part is not None
    number, count = options.part
    paths = [os.fspath(path) for path in inputs]
    whole = msgspec.structs.replace(options, part=None)
    call = {
        "inputs": paths,
        "output": os.fspath(output),
        "options": msgspec.to_builtins(whole),
        "splits": [[split.output, split.share] for split in splits],
        "index": None if index is None else os.fspath(index),
        "folder": os.getcwd(),
        "parts": count,
    }
    try:
        with begin(
            paths, output, whole, splits=splits, index=index, call=call, joins=True, on_progress=on_progress
        ) as begun:
            done = begun.job.do_part(number, count)
            fates = begun.ledger.report
            fates.notes += begun.workers.losses
    except Published as published:
        return published.report
    try:
        return run(paths, output, whole, splits=splits, index=index, call=call)
    except Busy:
        fates.part = f"{done}; others are at work, the last of them publishes"
    except UnfinishedParts as unfinished:
        fates.part = f"{done}; {unfinished.problem}"
    return fates


def publish_parts(output: str | os.PathLike[str], *, jobs: int | None = None) -> Report:
    """Publish a run in parts, or choose its lines where all are scanned; in the folder where the parts ran.

    Raises:
        UsageError: There is no such run at the output, or a part of it is at work.
        UnfinishedParts: Some parts are not done.
        FailedRun: It could not be published.
    """
    targets = list(_targets_at(output))
    for target in targets:
        call = call_in(target.staging)
        if call is not None:
            return _publish(call, jobs)
    for target in targets:
        if (report := report_before(target)) and report.run:
            report.folder, report.file = str(target.folder), target.report.name
            return report
    raise UsageError(f"no run in parts is at {os.fspath(output)}")


def _publish(call: dict[str, Any], jobs: int | None) -> Report:
    options = msgspec.convert(call["options"] | {"jobs": jobs}, Options)
    splits = [Split(*split) for split in call["splits"]]
    with _in_folder(call["folder"]):
        try:
            return run(call["inputs"], call["output"], options, splits=splits, index=call["index"], call=call)
        except LinesChosen as chosen:
            return Report(version=__version__, options={}, part=chosen.problem)


@contextlib.contextmanager
def _in_folder(folder: str) -> Iterator[None]:
    """Go where the parts were run: paths are as they were named there."""
    before = os.getcwd()
    try:
        os.chdir(folder)
    except OSError as error:
        raise UsageError(f"the parts were run in {folder}: {error.strerror}") from None
    try:
        yield
    finally:
        os.chdir(before)


def _targets_at(output: str | os.PathLike[str]) -> Iterator[Target]:
    path = Path(os.path.realpath(output))
    if not path.is_dir():
        yield target_of(path, Options())
        return
    for name in sorted(os.listdir(path)):
        if match := re.fullmatch(r"\.(.+)\.fastsft|(.+)\.report\.json", name):
            yield Target(path, match[1] or match[2], None)
