"""Keep a second run away from a target while one writes to it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from fastsft.errors import Busy, UsageError, errors_naming
from fastsft.inputs.shards import Shard, is_same_file
from fastsft.outputs.record import holder_in
from fastsft.outputs.target import Target
from fastsft.storage.files import discard, discard_empty_folder, flush, make_folder
from fastsft.storage.locks import become_alone, flock, open_lock


class Lock:
    """A lock on a target, held by whoever has locked its file; the folder is made for it where it is not there.

    The parts of a run share it, and wait for one another where one publishes.

    Attributes:
        is_locked: Whether it keeps others away; some file systems have no locks.
    """

    def __init__(self, target: Target, *, shared: bool = False) -> None:
        self.target = target
        self.is_locked = True
        self._shared = shared
        self._file = -1
        self._made: list[Path] = []

    def take(self, inputs: Sequence[Shard]) -> None:
        """Lock the target.

        Raises:
            Busy: Another run holds it.
            UsageError: Something else has the lock's name.
            FailedRun: The folder or the file cannot be made.
        """
        folder, path = self.target.folder, self.target.lock
        if os.path.lexists(path) and (
            path.is_symlink() or not path.is_file() or path.stat().st_size or _is_input(path, inputs)
        ):
            raise UsageError(f"{path} is in the way: it is no lock of fastsft's; choose another output or remove it")
        with errors_naming(folder):
            self._made = [one for one in (folder, *folder.parents) if not one.exists()]
            try:
                make_folder(folder, parents=True, exist_ok=True)
                for made in self._made:
                    flush(made.parent)
            except (NotADirectoryError, FileExistsError):
                raise UsageError(f"cannot write to {folder}: Not a directory") from None
            self._file, self.is_locked = self._locked(path)

    def release(self) -> bool:
        """Let go of the target, and remove the folders that were made for it if they are empty still.

        Returns:
            Whether the lock's file is gone; it is harmless where it stays.
        """
        is_gone = True
        if self._file >= 0:
            if not self._shared or become_alone(self._file):
                is_gone = discard(self.target.lock)
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = -1
        for folder in self._made:
            discard_empty_folder(folder)
        self._made = []
        return is_gone

    def _locked(self, path: Path) -> tuple[int, bool]:
        """Open and lock the lock file; its descriptor, and whether the file system has locks.

        The holder removes the file when it is done, so after locking it is asked
        whether the locked file is still the one that others will find.
        """
        while True:
            file = open_lock(path)
            try:
                is_locked = flock(file, shared=self._shared)
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(file), os.stat(path)):
                        return file, is_locked
            except BlockingIOError:
                os.close(file)
                name = self.target.folder / self.target.stem
                raise Busy(f"another run is writing to {name}{holder_in(self.target.staging)}") from None
            except BaseException:
                os.close(file)
                raise
            os.close(file)


def _is_input(path: Path, inputs: Sequence[Shard]) -> bool:
    return any(is_same_file(path, shard.path) for shard in inputs)
