"""Hand rows from workers to the writer: through memory that forked workers share with it, else through files.

There is memory for so many tasks and no more. Rows that find no room there, as they wait for a slow chunk before
them, and those of other workers, go to files in a folder of the run's own, each whole or absent.
"""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from fastsft.errors import errors_naming

_SLOT_NBYTES = 16 * 1024 * 1024  # a chunk, and its rows are seldom more
_SLOTS_EACH = 3  # for a worker: one being filled, two that wait for the rows before them
_SLOTS_MAPPED = 12  # that the writer keeps mapped, 192 MiB at most: 1.04 times as fast a run of 4 GB (7 pairs)
_COPY_NBYTES = 16 * 1024 * 1024  # bytes held at once when rows are taken from a file


class Held(NamedTuple):
    """Where rows are in the memory that forked workers share."""

    slot: int
    nbytes: int


class Slots:
    """Memory shared with the workers that are forked after it is made, in slots for the rows of one task each.

    Files would cost the system a page fault for each page, and a file system across a network would see rows twice:
    1.04 times as fast a run without them (15 pairs; 1.06 where input and output are on tmpfs). Each worker has slots of
    its own, so that it touches no more memory however many workers there are.
    """

    def __init__(self, workers: int) -> None:
        count = workers * _SLOTS_EACH
        self._slots: list[mmap.mmap] = []
        with contextlib.suppress(OSError):  # where the system gives less, more goes to files
            for _ in range(count):
                self._slots.append(mmap.mmap(-1, _SLOT_NBYTES))
        self._taken = mmap.mmap(-1, count)  # a byte for each: 1 where rows lie in it
        self._owned = mmap.mmap(-1, workers)  # a byte for each worker that has begun
        self._lock = multiprocessing.get_context("fork").Lock()
        self._own = range(0)

    def own(self) -> None:
        """Take slots for this worker."""
        with self._lock:
            worker = self._owned.find(b"\0", 0)
            self._owned[worker] = 1
        self._own = range(worker * _SLOTS_EACH, min((worker + 1) * _SLOTS_EACH, len(self._slots)))

    def take(self) -> int | None:
        """Take a slot of this worker's, the first that is free, which is likely in its cache; None where none is."""
        slot = self._taken.find(b"\0", self._own.start, self._own.stop)
        if slot < 0:
            return None
        self._taken[slot] = 1
        return slot

    def free(self, slot: int) -> None:
        """Let the worker have a slot of its own again."""
        self._taken[slot] = 0

    def memory(self, slot: int) -> mmap.mmap:
        """Give the memory of a slot."""
        return self._slots[slot]

    @contextlib.contextmanager
    def taken(self, held: Held) -> Iterator[memoryview]:
        """Give the rows that a worker handed over, and their slot back to it afterwards."""
        memory = self._slots[held.slot]
        with memoryview(memory) as whole, whole[: held.nbytes] as rows:
            yield rows
        if held.slot >= _SLOTS_MAPPED:
            memory.madvise(mmap.MADV_DONTNEED)  # it stays the worker's; with many workers all this would be much
        self.free(held.slot)

    def close(self) -> None:
        """Give the memory back, but for rows that an error on its way still has in hand."""
        for memory in (*self._slots, self._taken, self._owned):
            with contextlib.suppress(BufferError):
                memory.close()


_slots: Slots | None = None


def share(slots: Slots) -> None:
    """Let this process, which is a worker, hand rows over in these slots."""
    global _slots
    _slots = slots
    slots.own()


class Handover:
    """Rows on their way from a worker to the writer.

    Attributes:
        held: Where in shared memory they are; None if they are in a file.
    """

    def __init__(self, part: Path) -> None:
        self.held: Held | None = None
        self._part = part
        self._file: BinaryIO | None = None
        self._slot = _slots.take() if _slots else None
        self._nbytes = 0

    def write(self, rows: bytes) -> None:
        """Append rows."""
        start = self._nbytes
        self._nbytes += len(rows)
        if _slots and self._slot is not None:
            memory = _slots.memory(self._slot)
            if self._nbytes <= len(memory):
                memory[start : self._nbytes] = rows
                return
            self._to_file().write(memory[:start])  # more than there is room for
            self._leave_slot()
        self._to_file().write(rows)

    def finish(self, path: Path) -> None:
        """Hand all of them over."""
        if self._slot is not None:
            self.held = Held(self._slot, self._nbytes)
            return
        self._to_file().close()
        os.replace(self._part, path)

    def give_up(self) -> None:
        """Hand nothing over."""
        self._leave_slot()
        if self._file:
            with contextlib.suppress(OSError):
                self._file.close()
            self._part.unlink(missing_ok=True)

    def _to_file(self) -> BinaryIO:
        if self._file is None:
            self._file = self._part.open("wb")  # buffered, as that writes again what the disk took in part
        return self._file

    def _leave_slot(self) -> None:
        if _slots and self._slot is not None:
            _slots.free(self._slot)
        self._slot = None


@contextlib.contextmanager
def spooled(spool: Path, index: int) -> Iterator[Handover]:
    """Hand rows from a worker to the writer, all or none, the same whoever does it."""
    handover = Handover(spool / f"{index:08}.{os.getpid()}.{threading.get_ident()}.part")
    with errors_naming(spool / f"{index:08}"):
        try:
            yield handover
            handover.finish(spool / f"{index:08}")
        except BaseException:
            handover.give_up()
            raise


def take_spool(spool: Path, index: int, count: int) -> Iterator[tuple[memoryview, int]]:
    """Give the `count` rows that a worker handed over in a file, some and their number at a time, and remove them.

    They are mapped, not read, as they are looked at once and passed on: 1.05 times as fast a run.
    """
    path = spool / f"{index:08}"
    with errors_naming(path):
        with path.open("rb") as file:
            nbytes = os.fstat(file.fileno()).st_size
            start, window = 0, _COPY_NBYTES
            while start < nbytes:
                before = start % mmap.ALLOCATIONGRANULARITY
                room = min(before + nbytes - start, window)
                rows = mmap.mmap(file.fileno(), room, offset=start - before, access=mmap.ACCESS_READ)
                stop = rows.rfind(b"\n") + 1
                if stop <= before:
                    window *= 2  # one row is longer
                    continue
                whole = stop - before == nbytes
                yield memoryview(rows)[before:stop], count if whole else rows[before:stop].count(b"\n")
                start += stop - before
        path.unlink()
