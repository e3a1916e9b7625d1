"""Write the output so that it is whole or absent.

Everything goes to files named *.part beside the target; they are flushed to the
disk and closed before the first gets its final name, and the report is the last to
get one. A run that dies leaves .part files, which the next run clears, never a short
file that looks finished. Disk-full errors can appear at `close` alone, so that counts too.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import msgspec

from fastsft.errors import FailedRun, UsageError
from fastsft.options import DEFAULT_SHARD_NBYTES, Options
from fastsft.report import OutputShard, RefusedLine, Report
from fastsft.shards import Shard, is_same_file

_ROWS_PER_COPY = 1000  # rows held at once when one file is cut into a number of shards


class Target(msgspec.Struct, frozen=True):
    """Where a run writes: one file of rows, or shards in a folder; the rest lies beside them.

    Attributes:
        folder: The folder, with links resolved.
        stem: What the names of all files begin with.
        file: The name of the one file of rows; None for shards.
    """

    folder: Path
    stem: str
    file: str | None

    @property
    def report(self) -> Path:
        """The report's path. No glob for `*.jsonl` finds it, nor the refused lines."""
        return self.folder / f"{self.stem}.report.json"

    @property
    def refused(self) -> Path:
        """The path of the list of refused lines, JSON lines too."""
        return self.folder / f"{self.stem}.refused"

    @property
    def spool(self) -> Path:
        """The folder through which workers hand rows to the writer."""
        return self.folder / f".{self.stem}.spool"

    def is_shard(self, name: str) -> bool:
        """Tell whether a file name is that of a shard with this stem."""
        return re.fullmatch(re.escape(self.stem) + r"-\d{5,}-of-\d{5,}\.jsonl", name) is not None

    def is_part(self, name: str) -> bool:
        """Tell whether a file name is that of an unfinished file of this target."""
        finals = {self.report.name, self.refused.name, self.file or ""}
        return name.endswith(".part") and (
            name.removesuffix(".part") in finals
            or re.fullmatch(re.escape(self.stem) + r"-(\d{5,}|rows)\.part", name) is not None
        )


def target_of(output: str | os.PathLike[str], options: Options) -> Target:
    """Resolve the output argument: a folder (it exists, or ends in `/`) takes shards, anything else is one file.

    Raises:
        UsageError: It is neither, or the options want shards and it is a file.
    """
    text = os.fspath(output)
    if not text:
        raise UsageError("no output: the path is empty")
    path = Path(os.path.realpath(text))
    if text.endswith("/") or path.is_dir():
        if path.exists() and not path.is_dir():
            raise UsageError(f"cannot write shards to {text}: it is a file")
        return Target(path, options.name, None)
    if options.shards or options.shard_nbytes:
        raise UsageError(f"shards go to a folder; write the output as {text}/")
    if os.path.exists(text) and not os.path.isfile(text):
        raise UsageError(f"cannot write to {text}: it is not a regular file")
    return Target(path.parent, path.name.removesuffix(".jsonl"), path.name)


def check_target(target: Target, shards: Sequence[Shard]) -> set[str]:
    """Make sure that publishing will overwrite no input and mix with no older shards.

    Returns:
        The names in the folder that an earlier run wrote and this one replaces or removes.

    Raises:
        UsageError: It would.
    """
    earlier = _earlier_outputs(target)
    present = {name for name in _names(target.folder) if target.is_shard(name)} if target.file is None else set()
    written = [target.folder / name for name in (target.file, *present) if name] + [target.report, target.refused]
    for path in written:
        for shard in shards:
            if is_same_file(path, shard):
                raise UsageError(f"{shard.path} is an input and would be overwritten; choose another output")
    if unknown := sorted(present - earlier):
        raise UsageError(
            f"{target.folder} holds {unknown[0]}, which no report there names, and new shards would mix with it; "
            "remove it, or choose another folder or --name"
        )
    return earlier


def _earlier_outputs(target: Target) -> set[str]:
    try:
        report = msgspec.json.decode(target.report.read_bytes(), type=Report)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return set()
    names = {output.name for output in report.outputs if target.is_shard(output.name)}
    return names | {target.refused.name} if report.refused_lines == target.refused.name else names


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


class Output:
    """The files of one run, from its first row to their final names. Use it in a `with` block."""

    def __init__(self, target: Target, options: Options, earlier: set[str]) -> None:
        self.target = target
        self._options = options
        self._earlier = earlier
        self._parts: list[_Part] = []
        self._refused: _Part | None = None
        self.first_refused: RefusedLine | None = None
        self._report: _Part | None = None
        if target.file is not None:
            self._limit: float = float("inf")
        elif options.shards is not None:
            self._limit = float("inf")  # cut when the number of rows is known
        else:
            self._limit = options.shard_nbytes or DEFAULT_SHARD_NBYTES

    def __enter__(self) -> Output:
        with _told(self.target.folder):
            self.target.folder.mkdir(parents=True, exist_ok=True)
        self._report = _Part(self.target.report.with_name(self.target.report.name + ".part"))
        self._report.lock(self.target)
        for name in _names(self.target.folder):
            if self.target.is_part(name) and name != self._report.path.name:
                (self.target.folder / name).unlink()
        shutil.rmtree(self.target.spool, ignore_errors=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.target.spool, ignore_errors=True)
        for part in [*self._parts, *filter(None, [self._refused, self._report])]:
            part.remove()

    def write_rows(self, rows: bytes, count: int) -> None:
        """Append whole rows, each ending in a line feed, cutting them into shards where they are full."""
        while count:
            part = self._parts[-1] if self._parts else self._new_part()
            room = self._limit - part.nbytes
            if len(rows) <= room:
                part.write(rows, count)
                return
            cut = rows.rfind(b"\n", 0, max(int(room), 0)) + 1
            if cut == 0 and part.nbytes == 0:
                cut = rows.find(b"\n") + 1  # one row longer than a shard
            if cut:
                head = rows[:cut]
                head_count = head.count(b"\n")
                part.write(head, head_count)
                rows, count = rows[cut:], count - head_count
            if count:
                self._new_part()

    def record_refused(self, lines: Sequence[RefusedLine]) -> None:
        """Append to the list of refused lines."""
        if lines:
            if self._refused is None:
                self.first_refused = lines[0]
                self._refused = _Part(self.target.refused.with_name(self.target.refused.name + ".part"))
            self._refused.write(msgspec.json.Encoder().encode_lines(lines), len(lines))

    def publish(self, report: Report) -> None:
        """Close everything, fill in what the report says of the files, and give all their final names."""
        if self._options.shards is not None and self.target.file is None:
            self._cut_by_count(self._options.shards)
        elif not self._parts:
            self._new_part()
        assert self._report is not None
        names = self._final_names()
        report.folder = str(self.target.folder)
        report.outputs = [part.close(name) for part, name in zip(self._parts, names, strict=True)]
        report.refused_lines = self.target.refused.name if self._refused else None
        self._report.write(report.to_json(), 1)
        self._report.close(self.target.report.name)
        if self._refused:
            self._refused.close(self.target.refused.name)
        with _told(self.target.folder):
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
        self._parts.append(_Part(self.target.folder / name))
        return self._parts[-1]

    def _cut_by_count(self, count: int) -> None:
        """Cut the one file of rows into shards whose row counts differ by one at most; none is empty if rows allow."""
        whole = self._parts.pop() if self._parts else _Part(self.target.folder / f"{self.target.stem}-rows.part")
        whole.close("")
        count = max(1, min(count, whole.rows))
        with _told(whole.path), open(whole.path, "rb") as rows:
            for index in range(count):
                left = whole.rows // count + (index < whole.rows % count)
                part = _Part(self.target.folder / f"{self.target.stem}-{index:05}.part")
                self._parts.append(part)
                while left:
                    lines = list(itertools.islice(rows, min(left, _ROWS_PER_COPY)))
                    part.write(b"".join(lines), len(lines))
                    left -= len(lines)
        whole.remove()

    def _final_names(self) -> list[str]:
        if self.target.file is not None:
            return [self.target.file]
        total = len(self._parts)
        return [f"{self.target.stem}-{index:05}-of-{total:05}.jsonl" for index in range(total)]


class _Part:
    """One file that is being written under a name that says so."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self.nbytes = 0
        self._sha256 = hashlib.sha256()
        with _told(path):
            # Opened without truncating, as another run may hold it; mode 0666 less the umask, as any program's.
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._open = True

    def lock(self, target: Target) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise UsageError(f"another run is writing to {target.folder / target.stem}") from None
        except OSError:
            pass  # a file system without locks
        os.truncate(self._file, 0)

    def write(self, data: bytes, rows: int) -> None:
        with _told(self.path):
            left = memoryview(data)
            while left:
                left = left[os.write(self._file, left) :]
        self._sha256.update(data)
        self.rows += rows
        self.nbytes += len(data)

    def close(self, name: str) -> OutputShard:
        with _told(self.path):
            os.fsync(self._file)
            self._open = False
            os.close(self._file)
        return OutputShard(name, self.rows, self.nbytes, self._sha256.hexdigest())

    def rename(self, name: str) -> None:
        os.replace(self.path, self.path.with_name(name))

    def remove(self) -> None:
        if self._open:
            self._open = False
            with contextlib.suppress(OSError):
                os.close(self._file)
        self.path.unlink(missing_ok=True)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn an operating system's error into one that says which path and that nothing was published."""
    try:
        yield
    except OSError as error:
        raise FailedRun(f"cannot write {path}: {error.strerror}; nothing was published") from None


def write_spool(spool: Path, index: int, rows: bytes) -> None:
    """Hand rows from a worker to the writer: a file that is whole or absent, the same whoever writes it."""
    part = spool / f"{index:08}.{os.getpid()}.part"
    with _told(part):
        part.write_bytes(rows)
        os.replace(part, spool / f"{index:08}")


def take_spool(spool: Path, index: int) -> bytes:
    """Read what a worker handed over, and remove it."""
    path = spool / f"{index:08}"
    with _told(path):
        rows = path.read_bytes()
        path.unlink()
    return rows
