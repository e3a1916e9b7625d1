"""A run's own folder beside its output, `.NAME.fastsft/`: what spans leave, until it is published.

    .NAME.fastsft/
        run.json            which run this is: the record that makes the folder ours
        RUN_ID/             segments, receipts, parts of the table, of this run alone
        publish.json        while files get their names: what goes where (`publication.py`)

A run that died leaves the folder, and the same words go on from its receipts: they are bound to the version, the
options and the inputs by a fingerprint. Receipts and segments are taken over into the folder of the new run's id, so
that a late span of the old run reaches nothing. Nothing is removed but folders that the record names.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from fastsft.errors import Busy, FailedRun, UsageError, errors_naming
from fastsft.outputs.publication import RECORD as PUBLICATION
from fastsft.outputs.publication import finish_publication, is_pending
from fastsft.outputs.receipts import Receipt
from fastsft.outputs.record import RECORD, Run, fingerprint_of, holder_in, lock_folder, record_in
from fastsft.storage.files import (
    discard,
    discard_empty_folder,
    discard_folder,
    is_part,
    make_folder,
    read_file,
    remove_folder,
    rename,
    write_new,
)
from fastsft.storage.locks import share

CHOICE_FILES = ("chosen.arrow", "choice.json")  # which lines were chosen, and where those of each span stand
_encode = msgspec.json.Encoder().encode
_receipt = msgspec.json.Decoder(Receipt)


class Staging:
    """The folder of one run of one target.

    Attributes:
        folder: `.NAME.fastsft/`.
        run: The record of this run.
        notes: What was taken over from an earlier run or not, as sentences.
    """

    def __init__(self, folder: Path, made_from: dict[str, Any], call: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.notes: list[str] = []
        plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(made_from))
        holder = f"process {os.getpid()} on {socket.gethostname()}"
        self.run = Run(secrets.token_hex(8), fingerprint_of(made_from), plain, holder=holder, call=call)
        self._is_joined = False
        self._is_open = False
        self._lock = -1

    @property
    def path(self) -> Path:
        """The folder of this run's id."""
        return self.folder / self.run.run_id

    @property
    def record(self) -> Path:
        """The record of this run."""
        return self.folder / RECORD

    @property
    def has_receipts(self) -> bool:
        """Whether there is something that a run can go on from."""
        return any(name.endswith(".receipt") for name in _names(self.path))

    def open(self, *, fresh: bool) -> None:
        """Make the folder, taking over what an earlier run of the same kind left, unless `fresh`.

        Raises:
            UsageError: Something else has its name, or a run that lives writes there.
            FailedRun: It cannot be made.
        """
        with errors_naming(self.folder):
            make_folder(self.folder, exist_ok=True)
            self._lock = lock_folder(self.folder)  # the target's lock file may have been deleted by hand
            self._begin(record_in(self.folder), fresh=fresh)

    def join(self) -> None:
        """Make the folder, or work in the one that other parts of the same run have made; they may be at work.

        Raises:
            Busy: Another run writes there.
            UsageError: Something else has its name.
            FailedRun: It cannot be made.
        """
        with errors_naming(self.folder):
            make_folder(self.folder, exist_ok=True)
            try:
                self._lock = lock_folder(self.folder)
            except Busy:  # by other parts, which have made it
                self._lock = lock_folder(self.folder, shared=True)
            else:
                earlier = record_in(self.folder)
                if earlier is None or not self._is_of_this(earlier):
                    self._begin(earlier, fresh=False)
                share(self._lock)
            self._is_joined = self._is_open = True
            joined = record_in(self.folder)
            if joined is None or not self._is_of_this(joined):
                differs = " and ".join(self._differs(joined)) if joined else "record"
                raise Busy(f"another run is writing to {self.folder}{holder_in(self.folder)}: it has other {differs}")
            self.run = joined

    def _is_of_this(self, other: Run) -> bool:
        is_whole = not other.before and (self.folder / other.run_id).is_dir()
        return is_whole and other.call is not None and other.fingerprint == self.run.fingerprint

    def _differs(self, other: Run) -> list[str]:
        return [name for name in self.run.made_from if self.run.made_from[name] != other.made_from.get(name)]

    def _begin(self, earlier: Run | None, *, fresh: bool) -> None:
        if earlier is None and not all(_is_unfinished(name) for name in _names(self.folder)):
            raise UsageError(f"{self.folder} is in the way: it is no folder of fastsft's; remove it")
        left = [earlier.run_id, *earlier.before] if earlier else []
        self._is_open = not left  # else what the earlier run left is not put away before it is taken over
        self._write_record(left)  # first, so that no folder is there that it does not name
        make_folder(self.path)
        if earlier is not None and (self.folder / earlier.run_id).is_dir():
            self._note(earlier, fresh=fresh)
        for name in left:
            if not fresh:
                self._take_over(self.folder / name)
                if earlier is not None and earlier.fingerprint == self.run.fingerprint:
                    self._take_over_choice(self.folder / name)
            remove_folder(self.folder / name)
        if left:
            self._write_record([])
        self._is_open = True

    def _write_record(self, before: list[str]) -> None:
        write_new(self.record, _encode(msgspec.structs.replace(self.run, before=before)))

    def _note(self, earlier: Run, *, fresh: bool) -> None:
        """Say why receipts that an earlier run left are not used."""
        if not any(name.endswith(".receipt") for name in _names(self.folder / earlier.run_id)):
            return
        if fresh:
            self.notes.append("what an interrupted run left is not used: --fresh")
        elif earlier.fingerprint != self.run.fingerprint:
            differs = " and ".join(self._differs(earlier))
            self.notes.append(f"what an interrupted run left is not used: it had other {differs}")

    def _take_over(self, left: Path) -> None:
        """Take over the receipts that were made from the same, with their files, if they have the right size."""
        for name in sorted(_names(left)):
            if not name.endswith(".receipt"):
                continue
            try:
                receipt = _receipt.decode(read_file(left / name))
                is_whole = all(os.stat(left / file.name).st_size == file.nbytes for file in receipt.files)
            except (OSError, msgspec.DecodeError, UnicodeDecodeError):
                continue
            if is_whole and receipt.fingerprint == self.run.fingerprint:
                for file_name in [*(file.name for file in receipt.files), name]:
                    rename(left / file_name, self.path / file_name)

    def _take_over_choice(self, left: Path) -> None:
        """Take over which lines were chosen: the receipts of their rows speak of it."""
        for name in CHOICE_FILES:
            with contextlib.suppress(FileNotFoundError):
                rename(left / name, self.path / name)

    def receipts(self, phase: str) -> dict[int, Receipt]:
        """Read the receipts that there are of a phase, by span."""
        found = {}
        for name in os.listdir(self.path):
            if name.startswith(f"{phase}-") and name.endswith(".receipt"):
                receipt = _receipt.decode(read_file(self.path / name))
                found[receipt.span] = receipt
        return found

    def close(self, *, keeps: bool) -> bool:
        """Remove the folder, or, with `keeps`, leave what a run after this can go on from; harmless the second time.

        Returns:
            Whether it is gone, or stays on purpose.
        """
        is_open, self._is_open = self._is_open, False
        try:
            return not is_open or self._is_joined or self._put_away(keeps=keeps)  # joined: others may be at work
        finally:
            if self._lock >= 0:
                lock, self._lock = self._lock, -1
                with contextlib.suppress(OSError):
                    os.close(lock)

    def _put_away(self, *, keeps: bool) -> bool:
        with contextlib.suppress(OSError):
            if is_pending(self.folder):  # the next run finishes it, with the files that lie here
                return False
        if keeps and self.has_receipts:
            return True
        return _remove(self.folder, [self.run.run_id])


def finish_left(folder: Path) -> bool:
    """Finish what an interrupted run had begun to publish from a staging folder; return whether there was such a run.

    Raises:
        FailedRun: It cannot be finished.
    """
    if not finish_publication(folder):
        return False
    if record := record_in(folder):
        _remove(folder, [record.run_id, *record.before])
    return True


def _remove(folder: Path, names: Iterable[str]) -> bool:
    """Remove the folders of runs, and the staging folder if nothing else lies in it; tell whether all is gone.

    The record stays while something is there that it names, so that the next run removes it.
    """
    are_gone = [discard_folder(folder / name) for name in names]
    if not all(are_gone):
        return False
    for name in _names(folder):
        if _is_unfinished(name):
            discard(folder / name)
    if not discard(folder / RECORD):
        return False
    return discard_empty_folder(folder)


def _is_unfinished(name: str) -> bool:
    return is_part(name, RECORD) or is_part(name, PUBLICATION)


def write_receipt(folder: Path, phase: str, receipt: Receipt) -> Receipt:
    """Write a receipt beside the files that it speaks of, and return it.

    Neither is flushed to the disk: a run that goes on from it compares digests, so a power failure loses time alone,
    and 64 receipts of 1 GB cost 0.12 s each way.

    Raises:
        FailedRun: The folder is gone, or the receipt cannot be written.
    """
    if not folder.is_dir():
        raise FailedRun(f"{folder} is gone: the run was ended or another has begun")
    write_new(receipt_path(folder, phase, receipt.span), _encode(receipt), flush=False)
    return receipt


def receipt_path(folder: Path, phase: str, span: int) -> Path:
    """Return where the receipt of a span is."""
    return folder / f"{phase}-{span:06}.receipt"


def _names(folder: Path) -> Sequence[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
