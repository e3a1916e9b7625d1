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
_MOST_LYING = 255  # at once in a slot, so that a byte can count them
_COPY_NBYTES = 16 * 1024 * 1024  # bytes held at once when rows are taken from a file


class Held(NamedTuple):
    """Where rows are in the memory that forked workers share."""

    slot: int
    start: int
    nbytes: int


class Slots:
    """Memory shared with the workers that are forked after it is made: slots for the rows of a chunk, or of small ones.

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
        # For each, how often rows were put into it, which its worker counts, and taken, which the writer does, modulo
        # 256: nobody has to add to what another adds to. Where both are the same, nothing lies in it.
        self._given = mmap.mmap(-1, count)
        self._freed = mmap.mmap(-1, count)
        self._ends = [0] * count  # how far each is filled, as its worker knows
        self._owned = mmap.mmap(-1, workers)  # a byte for each worker that has begun
        self._lock = multiprocessing.get_context("fork").Lock()
        self._own = range(0)

    def own(self) -> None:
        """Take slots for this worker."""
        with self._lock:
            worker = self._owned.find(b"\0", 0)
            self._owned[worker] = 1
        self._own = range(worker * _SLOTS_EACH, min((worker + 1) * _SLOTS_EACH, len(self._slots)))

    def room(self, nbytes: int) -> tuple[int, int] | None:
        """Find room for about so many bytes in a slot of this worker's: which, and where in it; None without any."""
        for slot in self._own:  # the first is likely in its cache
            lying = (self._given[slot] - self._freed[slot]) % 256
            if not lying:
                self._ends[slot] = 0
            start = self._ends[slot]
            if lying < _MOST_LYING and (start == 0 or start + nbytes <= len(self._slots[slot])):
                return slot, start
        return None

    def give(self, held: Held) -> None:
        """Hand over what this worker has put there."""
        self._ends[held.slot] = held.start + held.nbytes
        self._given[held.slot] = (self._given[held.slot] + 1) % 256

    def memory(self, slot: int) -> mmap.mmap:
        """Give the memory of a slot."""
        return self._slots[slot]

    @contextlib.contextmanager
    def taken(self, held: Held) -> Iterator[memoryview]:
        """Give the rows that a worker handed over, and their slot back to it afterwards."""
        memory = self._slots[held.slot]
        with memoryview(memory) as whole, whole[held.start : held.start + held.nbytes] as rows:
            yield rows
        self._freed[held.slot] = freed = (self._freed[held.slot] + 1) % 256
        if held.slot >= _SLOTS_MAPPED and freed == self._given[held.slot]:
            memory.madvise(mmap.MADV_DONTNEED)  # it stays the worker's; with many workers all this would be much

    def close(self) -> None:
        """Give the memory back, but for rows that an error on its way still has in hand."""
        for memory in (*self._slots, self._given, self._freed, self._owned):
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

    def __init__(self, part: Path, nbytes: int) -> None:
        self.held: Held | None = None
        self._part = part
        self._file: BinaryIO | None = None
        self._room = _slots.room(nbytes) if _slots else None
        self._nbytes = 0

    def write(self, rows: bytes) -> None:
        """Append rows."""
        if _slots and self._room:
            slot, first = self._room
            memory, start = _slots.memory(slot), first + self._nbytes
            if start + len(rows) <= len(memory):
                memory[start : start + len(rows)] = rows
                self._nbytes += len(rows)
                return
            self._to_file().write(memory[first:start])  # more than there is room for
            self._room = None
        self._to_file().write(rows)

    def finish(self, path: Path) -> None:
        """Hand all of them over."""
        if _slots and self._room:
            self.held = Held(*self._room, self._nbytes)
            _slots.give(self.held)
            return
        self._to_file().close()
        os.replace(self._part, path)

    def give_up(self) -> None:
        """Hand nothing over."""
        if self._file:
            with contextlib.suppress(OSError):
                self._file.close()
            self._part.unlink(missing_ok=True)

    def _to_file(self) -> BinaryIO:
        if self._file is None:
            self._file = self._part.open("wb")  # buffered, as that writes again what the disk took in part
        return self._file


@contextlib.contextmanager
def spooled(spool: Path, index: int, nbytes: int) -> Iterator[Handover]:
    """Hand rows, of about `nbytes`, from a worker to the writer, all or none, the same whoever does it."""
    handover = Handover(spool / f"{index:08}.{os.getpid()}.{threading.get_ident()}.part", nbytes)
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
