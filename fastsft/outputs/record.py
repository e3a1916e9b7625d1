"""What a staging folder says of the run that it is of: its record, and its lock."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from pathlib import Path
from typing import Any

import msgspec

from fastsft.errors import Busy
from fastsft.storage.files import read_file
from fastsft.storage.locks import flock, open_folder

RECORD = "run.json"
_RUN_ID = re.compile(r"[0-9a-f]{16}")


class Run(msgspec.Struct, frozen=True):
    """The record of a run.

    Attributes:
        run_id: The name of its folder.
        fingerprint: Of what its receipts are made from, in hexadecimal.
        made_from: The same in words, so that a difference can be told: version, options, inputs.
        before: Folders of earlier runs that are being taken over.
        holder: Which process writes there, for a person.
        call: What is asked of a run in parts, for whoever publishes it; None for other runs.
    """

    run_id: str
    fingerprint: str
    made_from: dict[str, Any]
    before: list[str] = []
    holder: str = ""
    call: dict[str, Any] | None = None


def fingerprint_of(made_from: dict[str, Any]) -> str:
    """Return what the receipts of a run are bound to: a digest of what they are made from."""
    return hashlib.sha256(msgspec.json.encode(made_from, order="deterministic")).hexdigest()


def lock_folder(folder: Path, *, shared: bool = False) -> int:
    """Lock a staging folder for as long as the descriptor that is returned is open.

    Raises:
        Busy: A run that lives has locked it.
    """
    file = open_folder(folder)
    try:
        flock(file, shared=shared)
    except BlockingIOError:
        os.close(file)
        raise Busy(f"another run is writing to {folder}{holder_in(folder)}") from None
    return file


def holder_in(folder: Path) -> str:
    """Say which process a staging folder is of; nothing where that is not known."""
    with contextlib.suppress(OSError):
        if (record := record_in(folder)) and record.holder:
            return f" ({record.holder})"
    return ""


def record_in(folder: Path) -> Run | None:
    """Read the record of a staging folder; None where there is none that is ours.

    Raises:
        OSError: It cannot be read.
    """
    try:
        record = msgspec.json.decode(read_file(folder / RECORD), type=Run)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return record if all(_RUN_ID.fullmatch(name) for name in (record.run_id, *record.before)) else None


def call_in(folder: Path) -> dict[str, Any] | None:
    """Return what is asked of the run in parts whose staging folder this is; None where there is none."""
    record = record_in(folder)
    return record.call if record else None
