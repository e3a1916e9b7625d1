"""A run whose outputs are in a store: done in a work folder as any other, then uploaded (`outputs/upload.py`)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from fastsft.errors import Busy, FailedRun, UsageError
from fastsft.execution.placement import LOCAL
from fastsft.execution.workers import Workers
from fastsft.options import Options, Split
from fastsft.outputs.places import Place, check_place, is_complete, make_work, place_of
from fastsft.outputs.record import lock_folder
from fastsft.outputs.target import Target, report_before, targets_of
from fastsft.outputs.upload import Plan, plan_in, upload, write_plan
from fastsft.pipeline.drive import Published, run
from fastsft.report import Progress, Report
from fastsft.storage.files import discard, discard_folder
from fastsft.storage.urls import scheme_of

_IN_THIS_PROCESS = ("memory",)


def run_to_store(
    inputs: Iterable[str | os.PathLike[str]],
    output: str,
    options: Options,
    *,
    splits: Sequence[Split] = (),
    index: str | os.PathLike[str] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Convert rollouts into rows at a URL, whole or not at all to whoever goes by the report.

    Raises:
        UsageError: The arguments are wrong; nothing was read or written.
        FailedRun: The run could not be finished; no report was published.
    """
    if options.part is not None:
        raise UsageError("--part is for a folder that all parts see; upload the rows when they are published")
    arguments = [os.fspath(path) for path in inputs]
    place = place_of(output, splits, options)
    options = msgspec.structs.replace(options, work=None)
    with _held(place, output):
        if options.fresh:
            discard_folder(place.out)
        targets = targets_of(place.output, place.splits, options)
        folders = [place.url_of(target.folder) for target in targets]
        plan = _planned(place, targets, folders, arguments)
        is_left = all(_is_left(target) for target in targets)
        if not is_left:
            for target in targets:
                discard(target.report)  # of which files are gone
                discard(target.card)
        write_plan(place.work, plan)
        try:
            report = run(
                arguments,
                place.output,
                options,
                splits=place.splits,
                index=index,
                is_kept=True,
                on_progress=on_progress,
            )
        except Published as published:  # all but the upload was done before
            report = published.report
        reports = [(target, url, _report_of(target)) for target, url in zip(targets, folders, strict=True)]
        placement = LOCAL if scheme_of(output) in _IN_THIS_PROCESS else options.placement
        nbytes = 0 if placement is LOCAL else sum(one.nbytes for _, _, one in reports)
        tasks = sum(len(one.outputs) + 1 for _, _, one in reports)
        if on_progress:
            total = sum(shard.nbytes for shard in reports[0][2].inputs)
            on_progress(Progress(total, total, report.rows).in_phase("upload", (), 0, 0))
        with Workers(placement, nbytes=nbytes, tasks=tasks) as workers:
            upload(reports, place.work, plan, workers, checked=not is_left)
            report.notes += workers.losses
        if not discard_folder(place.work):
            report.notes.append(f"{place.work} could not be removed")
    report.folder, report.file = folders[0], targets[0].report.name
    return report


@contextlib.contextmanager
def _held(place: Place, output: str) -> Iterator[None]:
    """Keep other runs of this machine away, and say of what ends the run that the same command goes on from it."""
    while True:
        make_work(place.work)
        try:
            lock = lock_folder(place.work)
        except Busy:
            raise Busy(f"another run is writing to {output}, in {place.work}") from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), os.stat(place.work)):
                break
        os.close(lock)
    try:
        yield
    except BaseException as error:
        if any(place.work.rglob("*.receipt")) or any(place.work.rglob("*.report.json")):
            if not isinstance(error, Exception):
                error.keeps_receipts = True  # type: ignore[attr-defined] # for whoever tells a person of it
        else:
            discard_folder(place.work)
        raise
    finally:
        os.close(lock)


def _planned(place: Place, targets: Sequence[Target], folders: Sequence[str], inputs: Sequence[str]) -> Plan:
    """Say what is at the URLs now, and which of it is an earlier run's, or an earlier attempt's."""
    left = plan_in(place.work)
    plan = Plan(files=left.files)
    for target, url in zip(targets, folders, strict=True):
        found = check_place(target, url, inputs, left.files)
        plan.reports[url + target.report.name] = found.report
        plan.files = sorted({*plan.files, *found.files})
    return plan


def _is_left(target: Target) -> bool:
    """Tell whether an attempt before this one has made all files of a target."""
    report = report_before(target)
    return report is not None and is_complete(report, target.folder)


def _report_of(target: Target) -> Report:
    report = report_before(target)
    if report is None:
        raise FailedRun(f"{target.report} is gone; convert again")
    return report
