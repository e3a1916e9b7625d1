"""Write the output so that it is whole or absent.

Everything goes to files named *.part beside the target; they are flushed to the
disk and closed before the first gets its final name, and the report is the last to
get one. A run that dies leaves .part files, which the next run clears, never a short
file that looks finished. Disk-full errors can appear at `close` alone, so that counts too.
A lock beside them keeps a second run out until the last file has its name.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import msgspec

from fastsft.compression import GzipCompressor, zstd_frame
from fastsft.errors import UsageError, errors_naming
from fastsft.options import DEFAULT_SHARD_NBYTES, Options
from fastsft.report import OutputShard, RefusedLine, Report
from fastsft.signals import signals_later, signals_too_late
from fastsft.target import Target
from fastsft.workers import cores

_MAX_THREADS = 16  # that compress; so many blocks of 1 MiB again may wait
# Hashed and then written while it is in the cache: for 4 GB, that cut the system's time from 1.7 s to 1.1 s.
_AT_ONCE_NBYTES = 256 * 1024
_ROWS_PER_COPY = 1000  # rows held at once when one file is cut into a number of shards


class Output:
    """The files of one run, from its first row to their final names. Use it in a `with` block."""

    def __init__(self, target: Target, earlier: set[str], options: Options) -> None:
        self.target = target
        self._options = options
        self._earlier = earlier
        self._parts: list[_Part] = []
        self._refused: _Part | None = None
        self._names: list[str] = []
        self._report: _Part | None = None
        self._lock = -1
        self._made: list[Path] = []
        self._threads: ThreadPoolExecutor | None = None
        if target.file is not None:
            self._limit: float = float("inf")
        elif options.shards is not None:
            self._limit = float("inf")  # cut when the number of rows is known
        else:
            self._limit = options.shard_nbytes or DEFAULT_SHARD_NBYTES

    def __enter__(self) -> Output:
        with errors_naming(self.target.folder), signals_later():
            self._made = [folder for folder in (self.target.folder, *self.target.folder.parents) if not folder.exists()]
            self.target.folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.target)
            try:
                self._sweep()
            except OSError:
                self._unlock()
                raise
        shutil.rmtree(self.target.spool, ignore_errors=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clean()

    def clean(self) -> None:
        """Remove what has no final name, and let go of the target; harmless the second time."""
        with signals_too_late():  # a second one finds the work done
            if self._lock >= 0:
                if self._threads:
                    self._threads.shutdown(cancel_futures=True)
                shutil.rmtree(self.target.spool, ignore_errors=True)
                for part in [*self._parts, *filter(None, [self._refused, self._report])]:
                    part.close_unwritten()
                with contextlib.suppress(OSError):
                    self._sweep()
                self._unlock()
            for folder in self._made:  # those that are empty still: nothing was published
                with contextlib.suppress(OSError):
                    folder.rmdir()
            self._made = []

    def _sweep(self) -> None:
        """Remove unfinished files: of a run that died, or of this one, those too that it did not come to note."""
        for name in os.listdir(self.target.folder):
            if self.target.is_part(name):
                (self.target.folder / name).unlink()

    def _unlock(self) -> None:
        self.target.lock.unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = -1

    def write_rows(self, rows: bytes | memoryview, count: int) -> None:
        """Append whole rows, each ending in a line feed, cutting them into shards where they are full."""
        while rows:
            part = self._parts[-1] if self._parts else self._new_part()
            room = self._limit - part.nbytes
            if len(rows) <= room:
                part.write(rows, count)
                return
            rows = bytes(rows)
            cut = rows.rfind(b"\n", 0, max(int(room), 0)) + 1
            if cut == 0 and part.nbytes == 0:
                cut = rows.find(b"\n") + 1  # one row longer than a shard
            fitting = rows.count(b"\n", 0, cut)
            part.write(rows[:cut], fitting)
            rows, count = rows[cut:], count - fitting
            if rows:
                self._new_part()

    def record_refused(self, lines: Sequence[RefusedLine]) -> None:
        """Append to the list of refused lines."""
        if lines:
            if self._refused is None:
                self._refused = _Part(self.target.refused.with_name(self.target.refused.name + ".part"))
            self._refused.write(msgspec.json.Encoder().encode_lines(lines), len(lines))

    def close(self, report: Report) -> None:
        """Make sure that everything is on the disk, and fill in what the report says of the files."""
        if self._options.shards is not None and self.target.file is None:
            self._cut_by_count(self._options.shards)
        elif not self._parts:
            self._new_part()
        self._names = names = self._final_names()
        report.folder = str(self.target.folder)
        report.outputs = [part.close(name) for part, name in zip(self._parts, names, strict=True)]
        report.refused_lines = self.target.refused.name if self._refused else None
        self._report = _Part(self.target.report.with_name(f"{self.target.report.name}.part"))
        self._report.write(report.to_json(), 0)
        self._report.close(self.target.report.name)
        if self._refused:
            self._refused.close(self.target.refused.name)

    def publish(self) -> None:
        """Give all files their final names, what `close` has closed."""
        assert self._report, "not closed"
        names = self._names
        with errors_naming(self.target.folder, "publishing was not finished, and no report stands there"):
            self.target.report.unlink(missing_ok=True)  # from here on no report stands beside a mixture
            for name in self._earlier - set(names):
                (self.target.folder / name).unlink(missing_ok=True)
            for part, name in zip(self._parts, names, strict=True):
                part.rename(name)
            if self._refused:
                self._refused.rename(self.target.refused.name)
            self._report.rename(self.target.report.name)

    def _new_part(self) -> _Part:
        if self.target.file is not None:
            name = f"{self.target.file}.part"
        elif self._options.shards is not None:
            name = f"{self.target.stem}-rows.part"
        else:
            name = f"{self.target.stem}-{len(self._parts):05}.part"
        if self._parts:
            self._parts[-1].close("")  # a run may write more shards than a process may hold open
        staged = self._options.shards is not None and self.target.file is None
        path = self.target.folder / name
        self._parts.append(_Part(path) if staged else self._part_at(path))
        return self._parts[-1]

    def _part_at(self, path: Path) -> _Part:
        workers = min(self._options.jobs or cores(), _MAX_THREADS)
        if self.target.compression == "gz":
            self._threads = self._threads or ThreadPoolExecutor(workers)
            return _Part(path, GzipCompressor(self._threads, ahead=2 * _MAX_THREADS))
        return _ZstdPart(path, workers) if self.target.compression == "zst" else _Part(path)

    def _cut_by_count(self, count: int) -> None:
        """Cut the one file of rows into shards whose row counts differ by one at most; none is empty if rows allow."""
        whole = self._parts.pop() if self._parts else _Part(self.target.folder / f"{self.target.stem}-rows.part")
        whole.close("")
        count = max(1, min(count, whole.rows))
        with errors_naming(whole.path), open(whole.path, "rb") as rows:
            for index in range(count):
                left = whole.rows // count + (index < whole.rows % count)
                part = self._part_at(self.target.folder / f"{self.target.stem}-{index:05}.part")
                self._parts.append(part)
                while left:
                    lines = list(itertools.islice(rows, min(left, _ROWS_PER_COPY)))
                    part.write(b"".join(lines), len(lines))
                    left -= len(lines)
                part.close("")
        whole.path.unlink()

    def _final_names(self) -> list[str]:
        if self.target.file is not None:
            return [self.target.file]
        total = len(self._parts)
        return [f"{self.target.stem}-{index:05}-of-{total:05}{self.target.suffix}" for index in range(total)]


class _Part:
    """One file that is being written under a name that says so."""

    def __init__(self, path: Path, compressor: GzipCompressor | None = None) -> None:
        self.path = path
        self.rows = 0
        self.nbytes = 0  # before compression, so that what a shard holds does not depend on a library's version
        self._written_nbytes = 0
        self._sha256 = hashlib.sha256()
        self._compressor = compressor
        with errors_naming(path):  # mode 0666 less the umask, as any program's; a link in its place is not followed
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._open = True

    def write(self, data: bytes | memoryview, rows: int) -> None:
        """Append bytes that hold so many rows; who made them knows, and counting again costs as much as a hash."""
        self.rows += rows
        self.nbytes += len(data)
        self._write(self._compressor.compress(data) if self._compressor else data)

    def _write(self, data: bytes | memoryview) -> None:
        left = memoryview(data)
        while left:
            piece = left[:_AT_ONCE_NBYTES]
            self._sha256.update(piece)
            left = left[len(piece) :]
            with errors_naming(self.path):
                while piece:
                    piece = piece[os.write(self._file, piece) :]
        if hasattr(os, "posix_fadvise"):  # lets Linux begin to write, so that fsync waits for less: 1.04 times as fast
            os.posix_fadvise(self._file, self._written_nbytes, len(data), os.POSIX_FADV_DONTNEED)
        self._written_nbytes += len(data)

    def close(self, name: str) -> OutputShard:
        """Make sure that the file is on the disk; harmless the second time."""
        if self._open:
            self._finish()
            with errors_naming(self.path):
                os.fsync(self._file)
                self._open = False
                os.close(self._file)
        return OutputShard(name, self.rows, self._written_nbytes, self._sha256.hexdigest())

    def _finish(self) -> None:
        if self._compressor:
            self._write(self._compressor.flush())

    def rename(self, name: str) -> None:
        os.replace(self.path, self.path.with_name(name))

    def close_unwritten(self) -> None:
        """Let go of the file as it is; harmless the second time."""
        if self._open:
            self._open = False
            with contextlib.suppress(OSError):
                os.close(self._file)


class _ZstdPart(_Part):
    """One file of Zstandard, whose rows lie in a file without a name until their length is known."""

    def __init__(self, path: Path, workers: int) -> None:
        super().__init__(path)
        self._workers = workers
        with errors_naming(path):
            self._plain = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 # closed where the part is

    def write(self, data: bytes | memoryview, rows: int) -> None:
        self.rows += rows
        self.nbytes += len(data)
        with errors_naming(self.path):
            self._plain.write(data)

    def _finish(self) -> None:
        with errors_naming(self.path):
            self._plain.seek(0)
            for block in zstd_frame(self._plain, self.nbytes, workers=self._workers):
                self._write(block)
            self._plain.close()

    def close_unwritten(self) -> None:
        super().close_unwritten()
        with contextlib.suppress(OSError):
            self._plain.close()


@contextlib.contextmanager
def written_whole(path: Path, outcome: str = "nothing was written") -> Iterator[Path]:
    """Give the path of an unfinished file beside `path`, which takes its place at the end of the block, or never does.

    Raises:
        FailedRun: The system would not write it; `outcome` says what came of it.
    """
    part = path.with_name(f".{path.name}.part")  # hidden, as nobody's own file is
    with errors_naming(path, outcome):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            os.replace(part, path)
        finally:
            with contextlib.suppress(OSError):
                part.unlink()


def _locked(target: Target) -> int:
    """Open and lock the target's lock file; its descriptor.

    The holder removes the file when it is done, so after locking it is asked
    whether the locked file is still the one that others will find.

    Raises:
        UsageError: Another run holds it.
    """
    while True:
        file = os.open(target.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise UsageError(f"another run is writing to {target.folder / target.stem}") from None
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), os.stat(target.lock)):
                    return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)
