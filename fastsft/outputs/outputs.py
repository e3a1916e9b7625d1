"""All outputs of a run: locked, staged, put together from segments, and published at one point."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from fastsft.errors import Busy, FailedRun, KeepsReceipts, UsageError
from fastsft.execution.signals import signals_later, signals_too_late
from fastsft.execution.workers import Workers, cores
from fastsft.inputs.shards import Shard
from fastsft.options import DEFAULT_SHARD_NBYTES, Options
from fastsft.outputs import assembly
from fastsft.outputs.assembly import FilePlan, Piece
from fastsft.outputs.lock import Lock
from fastsft.outputs.publication import Publication, is_pending, publish
from fastsft.outputs.receipts import Receipt, Segment
from fastsft.outputs.refused import RefusedPart, build_refused
from fastsft.outputs.staging import Staging, finish_left
from fastsft.outputs.target import Target, check_card
from fastsft.report import Card, OutputShard, Report
from fastsft.storage.files import flush, make_sparse, remove, write_new


class Outputs:
    """The main target of a run and those of its splits.

    Attributes:
        notes: What was found of earlier runs, as sentences.
        left: Files and folders of the run that could not be removed when it was done.
    """

    def __init__(self, targets: Sequence[Target], options: Options) -> None:
        self._targets = targets
        self._options = options
        self._staging: list[Staging] = []
        self.notes: list[str] = []
        self.left: list[Path] = []

    @property
    def folder(self) -> Path:
        """Where spans leave their files."""
        return self._staging[0].path

    @property
    def record(self) -> Path:
        """The file that says which run this is, like no other."""
        return self._staging[0].record

    @property
    def fingerprint(self) -> str:
        """What receipts of the run are bound to."""
        return self._staging[0].run.fingerprint

    @property
    def most_nbytes(self) -> int | None:
        """How many bytes of rows a segment has at most, so that it fits a shard; None for no limit."""
        if self._options.shards is not None or all(target.file is not None for target in self._targets):
            return None
        return self._options.shard_nbytes or DEFAULT_SHARD_NBYTES

    @contextlib.contextmanager
    def locked(self, inputs: Sequence[Shard], *, shared: bool = False) -> Iterator[None]:
        """Keep other runs away from all targets, and finish what one that died had begun to publish.

        With `shared`, other parts of the run may come in.
        """
        locks = [Lock(target, shared=shared) for target in self._targets]
        try:
            with signals_later():
                for lock in locks:
                    lock.take(inputs)
                    if not lock.is_locked:
                        self.notes.append(f"{lock.target.folder} has no locks: let no other run write there")
            for target in self._targets:
                if shared and is_pending(target.staging):
                    raise Busy(f"{target.report} is half published: finish that with `fastsft verify`")
                if not shared and finish_left(target.staging):
                    self.notes.append(f"finished publishing what an interrupted run had ready: {target.report}")
            yield
        finally:
            with signals_too_late():
                for lock, target in zip(locks, self._targets, strict=True):
                    if not lock.release():
                        self.left.append(target.lock)

    @contextlib.contextmanager
    def staged(
        self, made_from: dict[str, Any], *, call: dict[str, Any] | None = None, joins: bool = False
    ) -> Iterator[None]:
        """Have a folder for what spans leave; what an interrupted run leaves there, the same run goes on from.

        `call` is what is asked of a run in parts. With `joins`, others of them may be at work there.
        """
        keeps = False
        try:
            for target in self._targets[:1] if joins else self._targets:
                staging = Staging(target.staging, made_from, call)
                self._staging.append(staging)
                if joins:
                    staging.join()
                else:
                    staging.open(fresh=self._options.fresh)
            self.notes += self._staging[0].notes
            yield
        except BaseException as error:
            keeps = isinstance(error, KeepsReceipts) or not isinstance(error, Exception)
            if keeps and self._staging and self._staging[0].has_receipts:
                error.keeps_receipts = True  # type: ignore[attr-defined] # for whoever tells a person of it
            raise
        finally:
            with signals_too_late():
                for number, staging in enumerate(self._staging):
                    if not staging.close(keeps=keeps and number == 0):
                        self.left.append(staging.folder)

    def receipts(self, phase: str) -> dict[int, Receipt]:
        """Read the receipts that an earlier run left of a phase, by span."""
        return self._staging[0].receipts(phase)

    def assemble(
        self, receipts: Sequence[Receipt], refused: Sequence[RefusedPart], workers: Workers
    ) -> list[list[OutputShard]]:
        """Put segments together into the files of each output, complete and flushed, and the refused lines into one.

        Returns:
            The files of each output.
        """
        segments = [segment for receipt in receipts for segment in receipt.segments]
        files = []
        for number, target in enumerate(self._targets):
            mine = [segment for segment in segments if segment.split == number]
            plans = self._plans(target, mine)
            staging, is_flushed = self._staging[number].path, self.most_nbytes is not None  # by who wrote the segments
            files.append(_built(plans, target, staging, self.folder, workers, self._options, is_flushed=is_flushed))
        most = self._options.max_refused_recorded
        if refused and most != 0:
            nbytes = sum(part.segment.nbytes for part in refused)
            building = partial(build_refused, folder=str(self.folder), most=most)
            list(workers.in_order(building, [list(refused)], nbytes=nbytes))
        return files

    def _plans(self, target: Target, segments: Sequence[Segment]) -> list[FilePlan]:
        pieces: list[list[Piece]]
        if target.file is not None:
            pieces = assembly.one_file(segments)
        elif self._options.shards is not None:
            pieces = assembly.files_by_count(segments, self._options.shards)
        else:
            pieces = assembly.files_by_size(segments, self._options.shard_nbytes or DEFAULT_SHARD_NBYTES)
        names = [target.file or target.shard_name(number, len(pieces)) for number in range(len(pieces))]
        return [FilePlan(name, inside) for name, inside in zip(names, pieces, strict=True)]

    def publish(self, files: Sequence[Sequence[OutputShard]], report: Report, earlier: Sequence[set[str]]) -> None:
        """Write a report for each output, and give all files their names. A signal comes too late here.

        Raises:
            FailedRun: They could not get them.
        """
        renames: list[tuple[str, str]] = []
        reports: list[tuple[str, str]] = []
        away: list[str] = []
        has_refused = (self.folder / "refused").exists()
        for number, (target, staging, outputs, old) in enumerate(
            zip(self._targets, self._staging, files, earlier, strict=True)
        ):
            mine = report if number == 0 else msgspec.structs.replace(report)
            mine.folder, mine.file, mine.outputs = str(target.folder), target.report.name, list(outputs)
            new = [output.name for output in outputs]
            mine.refused_lines = target.refused.name if has_refused and number == 0 else None
            if mine.refused_lines:
                renames.append((str(self.folder / "refused"), str(target.refused)))
                new.append(target.refused.name)
            mine.card = self._staged_card(files, mine, old) if target.has_card else None
            if mine.card:
                renames.append((str(staging.path / "card"), str(target.card)))
                new.append(mine.card.name)
            renames += [(str(staging.path / output.name), str(target.folder / output.name)) for output in outputs]
            write_new(staging.path / "report", mine.to_json())
            reports.append((str(staging.path / "report"), str(target.report)))
            away += [str(target.folder / name) for name in sorted(old - set(new))]
            flush(staging.path)
        publish(Publication(renames, away, reports[::-1]), [staging.folder for staging in self._staging])

    def _staged_card(self, files: Sequence[Sequence[OutputShard]], report: Report, earlier: set[str]) -> Card:
        """Write the card of all outputs beside the main one's staged files.

        Raises:
            KeepsReceipts: Something else has its name by now.
        """
        from fastsft.outputs.card import CardSplit, card_of  # and YAML, 10 ms

        main = self._targets[0]
        try:
            check_card(main, earlier)
        except UsageError as error:
            raise KeepsReceipts(f"{error.problem}; nothing was published") from None
        splits = [
            CardSplit(target.stem, os.path.relpath(target.folder, main.folder), list(outputs))
            for target, outputs in zip(self._targets, files, strict=True)
        ]
        data = card_of(report, splits, main.report.name)
        write_new(self._staging[0].path / "card", data)
        return Card(main.card.name, len(data), hashlib.sha256(data).hexdigest())

    def remove_segments(self, receipts: Sequence[Receipt], workers: Workers) -> None:
        """Have workers remove what was published: 1 GB takes one process 0.1 s, as the system frees it page by page."""
        names = [segment.name for receipt in receipts for segment in receipt.segments]
        shares = [names[start :: workers.jobs] for start in range(workers.jobs)]
        with contextlib.suppress(FailedRun):  # what is left goes with the folder
            list(workers.in_order(partial(_remove_segments, folder=str(self.folder)), shares))


def _built(
    plans: Sequence[FilePlan],
    target: Target,
    staging: Path,
    folder: Path,
    workers: Workers,
    options: Options,
    *,
    is_flushed: bool,
) -> list[OutputShard]:
    """Make the files of a target in its staging folder."""
    done: dict[int, OutputShard] = {}
    build: list[tuple[int, FilePlan]] = []
    for number, plan in enumerate(plans):
        is_plain = target.compression is None and target.kind == "jsonl"
        is_one = len(plan.pieces) == 1 and plan.pieces[0].is_whole and is_plain
        if is_one and _same_device(staging, folder):
            done[number] = assembly.rename_segment(plan, staging / plan.name, folder, is_flushed=is_flushed)
        elif len(plans) == 1 and is_plain and plan.pieces and workers.jobs > 1:
            done[number] = _copied(plan, staging / plan.name, folder, workers)
        else:
            build.append((number, plan))
    threads = options.jobs or cores()
    work = partial(_build, staging=str(staging), folder=str(folder), compression=target.compression, threads=threads)
    if target.kind == "parquet":
        names = _names_in([piece.segment for plan in plans for piece in plan.pieces], folder, workers)
        work = partial(_build_parquet, staging=str(staging), folder=str(folder), names=names, options=options)
    nbytes = max((sum(piece.segment.nbytes for piece in plan.pieces) for _, plan in build), default=0)
    built = workers.in_order(work, [plan for _, plan in build], nbytes=nbytes)
    for (number, _), output in zip(build, built, strict=True):
        done[number] = output
    return [done[number] for number in range(len(plans))]


def _copied(plan: FilePlan, path: Path, folder: Path, workers: Workers) -> OutputShard:
    """Copy whole segments into one file, several workers at once, while another reads the digest."""
    nbytes = sum(piece.segment.nbytes for piece in plan.pieces)
    make_sparse(path, nbytes)
    names = [piece.segment.name for piece in plan.pieces]
    tasks: list[Any] = [names, *assembly.copies_of(plan, str(path), workers.jobs)]
    digest, *_ = list(workers.in_order(partial(_copy_or_digest, folder=str(folder)), tasks, nbytes=nbytes))
    flush(path)
    return OutputShard(plan.name, plan.rows, nbytes, digest)


def _copy_or_digest(_: int, task: Any, folder: str) -> str:
    if isinstance(task, list):
        return assembly.digest_of(task, Path(folder))
    assembly.copy_segments(task, Path(folder))
    return ""


def _remove_segments(_: int, names: Sequence[str], folder: str) -> None:
    for name in names:
        with contextlib.suppress(OSError):  # it may have become an output
            remove(os.path.join(folder, name))


def _build(_: int, plan: FilePlan, *, staging: str, folder: str, compression: str | None, threads: int) -> OutputShard:
    return assembly.build_file(plan, Path(staging, plan.name), Path(folder), compression, threads)


def _build_parquet(
    _: int, plan: FilePlan, *, staging: str, folder: str, names: list[str], options: Options
) -> OutputShard:
    from fastsft.outputs.parquet import build_parquet  # Polars: not in the process that forks workers

    return build_parquet(plan, Path(staging, plan.name), Path(folder), names, options.provenance)


def _names_in(segments: Sequence[Segment], folder: Path, workers: Workers) -> list[str]:
    """Have workers find what some row of an output has, of what a row or a turn may lack."""
    names = list(dict.fromkeys(segment.name for segment in segments))
    shares = [names[start :: workers.jobs] for start in range(workers.jobs)]
    nbytes = sum(segment.nbytes for segment in segments)
    found = workers.in_order(partial(_names_in_share, folder=str(folder)), list(filter(None, shares)), nbytes=nbytes)
    return sorted({name for several in found for name in several})


def _names_in_share(_: int, names: list[str], folder: str) -> list[str]:
    from fastsft.outputs.parquet import names_in

    return names_in(names, Path(folder))


def _same_device(first: Path, second: Path) -> bool:
    return os.stat(first).st_dev == os.stat(second).st_dev
