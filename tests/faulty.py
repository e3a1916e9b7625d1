"""Make the N-th file operation of a command fail, for N = 1, 2, 3 and on until a run passes clean; see what is left.

usage: python tests/faulty.py PLAN ... [--faults once-EIO killed ...] [--before nothing older left] [--every K]

The command runs in a process forked from this one, in which the functions of `os` that touch files are replaced, in
its workers too. Operations are counted on files below the test's folder alone. What is wrong is printed, a line each;
the last line says how many runs there were. SQLite tests itself so: https://www.sqlite.org/testing.html (3.2, 3.3).
"""

from __future__ import annotations

import argparse
import builtins
import contextlib
import errno
import io
import itertools
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "benchmarks")]

SECONDS_UNTIL_HUNG = 60
SPAN_NBYTES = 6_000

ONE = ["convert", "in", "--output", "out/train.jsonl", "--jobs", "1"]
FOLDER = ["convert", "in", "--output", "out/", "--name", "train"]
PLANS: dict[str, list[str]] = {
    "one-file": ONE,
    "one-file-2-jobs": [*ONE[:-1], "2"],
    "shards-by-size": [*FOLDER, "--shard-size", "4KB", "--jobs", "1"],
    "shards-by-number": [*FOLDER, "--shards", "3", "--jobs", "2"],
    "splits": [*ONE, "--val", "out/val.jsonl", "--val-fraction", "0.4"],
    "gz": [*ONE[:3], "out/train.jsonl.gz", "--jobs", "1"],
    "zst": [*FOLDER, "--shards", "2", "--compress", "zst", "--jobs", "1"],
    "best-of": [*ONE, "--best-of", "1"],
    "best-of-2-jobs": [*ONE[:-1], "2", "--best-of", "1"],
    "index": ["index", "in", "--output", "out/rollouts.index", "--jobs", "1"],
    "stats-plot": ["stats", "in", "--plot", "out/stats.svg", "--jobs", "1"],
    "nemo-rl": ["nemo-rl", "rows/train.jsonl", "--model", "some/model", "--output", "out/sft.yaml"],
}
BEFORE = ("nothing", "older", "left")
ERRORS = ("ENOSPC", "EIO", "EACCES", "EMFILE")
FAULTS = (*(f"{often}-{name}" for often in ("once", "always") for name in ERRORS), "short", "killed", "killed-after")

_PATHS = (
    "open stat lstat listdir scandir mkdir rmdir unlink remove rename replace readlink truncate utime chmod"
).split()
_FILES = "write pwrite read pread fsync fdatasync ftruncate close fstat lseek copy_file_range posix_fadvise".split()


class Fault:
    """What happens at an operation, counted over all processes of a run."""

    def __init__(self, root: Path, kind: str, at: int) -> None:
        self.root = os.fspath(root)
        self.kind = kind
        self.at = at
        self.count = multiprocessing.get_context("fork").Value("q", 0)
        self.log: list[str] = []

    def install(self) -> None:
        """Replace what touches files."""
        for name in _PATHS:
            setattr(os, name, self._wrapped(name, getattr(os, name), self._is_path))
        for name in _FILES:
            setattr(os, name, self._wrapped(name, getattr(os, name), self._is_file))
        opened = self._wrapped("open", io.open, self._is_path)
        builtins.open = io.open = opened  # type: ignore[assignment]
        os.fork = self._wrapped("fork", os.fork, lambda _: True)

    def _tell(self, name: str, arguments: Any, mode: str = "w") -> None:
        """Write down which operation it is, for whoever reads what is wrong."""
        what = str(arguments[0]) if arguments else ""
        if what.isdigit():
            what = _readlink(f"/proc/self/fd/{what}")
        if name in ("rename", "replace"):
            what += f" {arguments[1]}"
        with _open(f"{self.root}.operation", mode) as file:
            file.write(f"{name} {what.replace(self.root, '')}\n")

    def _is_path(self, argument: Any) -> bool:
        if isinstance(argument, int):
            return self._is_file(argument)
        return os.path.join(os.getcwd(), os.fsdecode(argument)).startswith(self.root) if argument else False

    def _is_file(self, argument: Any) -> bool:
        try:
            return _readlink(f"/proc/self/fd/{argument}").startswith(self.root)
        except OSError:
            return False

    def _wrapped(self, name: str, function: Callable[..., Any], counts: Callable[[Any], bool]) -> Callable[..., Any]:
        def operation(*arguments: Any, **keywords: Any) -> Any:
            if not counts(arguments[0] if arguments else None):
                return function(*arguments, **keywords)
            with self.count:
                self.count.value += 1
                number = self.count.value
                if self.kind == "logged":
                    self._tell(name, arguments, "a")
            if number < self.at or (number > self.at and not self.kind.startswith("always")):
                return function(*arguments, **keywords)
            self._tell(name, arguments)
            if self.kind == "killed":
                _kill_all()
            if self.kind == "killed-after":
                function(*arguments, **keywords)
                _kill_all()
            if self.kind == "short":
                return _short(name, function, arguments, keywords)
            if name == "close":
                function(*arguments, **keywords)
            code = getattr(errno, self.kind.split("-")[1])
            where = arguments[0] if arguments and isinstance(arguments[0], (str, bytes, os.PathLike)) else None
            raise OSError(code, os.strerror(code), where)

        return operation


# What nobody finds again: of a process that was killed while it wrote a picture, a config or an index.
_PART = re.compile(r"\.[0-9a-f]{8}\.part$")
_readlink, _open = os.readlink, io.open


def _short(name: str, function: Callable[..., Any], arguments: Any, keywords: Any) -> Any:
    """Do half of what was asked, which the system may."""
    if name in ("write", "pwrite"):
        return function(arguments[0], memoryview(arguments[1])[: max(1, len(arguments[1]) // 2)], *arguments[2:])
    if name in ("read", "pread"):
        return function(arguments[0], max(1, arguments[1] // 2), *arguments[2:])
    if name == "copy_file_range":
        return function(arguments[0], arguments[1], max(1, arguments[2] // 2), *arguments[3:])
    return function(*arguments, **keywords)


def _kill_all() -> None:
    os.killpg(0, signal.SIGKILL)


class Ended(NamedTuple):
    """How a run ended."""

    code: int | None
    said: str
    operations: int


def run(root: Path, words: list[str], kind: str = "none", at: int = 0) -> Ended:
    """Run a command in a forked process, with a fault."""
    fault = Fault(root, kind, at)
    said = root.parent / "said"
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.chdir(root)
        os.environ["TMPDIR"] = tempfile.tempdir = str(root / "tmp")
        for number in (1, 2):
            os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND), number)
        sys.argv = ["fastsft", *words]
        threading.excepthook = sys.__excepthook__
        if at:
            fault.install()
        from fastsft.cli.main import main

        try:
            main()
        except SystemExit as ended:
            os._exit(ended.code if isinstance(ended.code, int) else 1)
        except BaseException:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
            os._exit(99)
        os._exit(98)
    ends = time.monotonic() + SECONDS_UNTIL_HUNG
    pid = status = 0
    while not pid and time.monotonic() < ends:
        pid, status = os.waitpid(child, os.WNOHANG)
        if not pid:
            time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if not pid:
        os.waitpid(child, 0)
        return Ended(None, "it hung", fault.count.value)
    return Ended(os.waitstatus_to_exitcode(status), said.read_text(errors="replace"), fault.count.value)


def files_in(folder: Path) -> dict[str, bytes]:
    """What lies in a folder; of reports, all but the time and what is said of interruptions."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name in found:
        if name.endswith(".report.json"):
            report = json.loads(found[name])
            report["seconds"], report["notes"] = 0, []
            found[name] = json.dumps(report).encode()
    return found


def hidden(name: str) -> bool:
    """Tell whether a file is none that a user looks at."""
    return any(part.startswith(".") for part in Path(name).parts)


def visible(folder: Path) -> dict[str, bytes]:
    """The outputs in a folder."""
    return {name: data for name, data in files_in(folder).items() if not hidden(name)}


class Case:
    """One plan, one state before."""

    def __init__(self, work: Path, plan: str, before: str) -> None:
        self.plan, self.before = plan, before
        self.words = PLANS[plan]
        self.start = work / "start"
        self.root = work / "root"
        self._prepare()

    def _prepare(self) -> None:
        import generate

        root = self.start
        for name in ("in", "out", "tmp", "rows"):
            (root / name).mkdir(parents=True)
        generate.write(root / "in", "short", count=16, nbytes=0, shards=2, seed=7)
        for path in sorted((root / "in").iterdir()):
            path.write_bytes(b"{torn\n" + path.read_bytes())
        self._must(run(root, ["convert", "in", "--output", "rows/train.jsonl", "--jobs", "1"]))
        shutil.copytree(root, self.root)
        self._must(run(self.root, self.words))
        self.new = visible(self.root / "out")
        self.inputs = files_in(root / "in") | {f"rows/{name}": data for name, data in files_in(root / "rows").items()}
        older = {"index": ["--loss", "own"], "stats-plot": ["--allow", "all"], "nemo-rl": ["--epochs", "2"]}
        if self.before == "older":
            self._must(run(root, [*self.words, *older.get(self.plan, ["--reward-threshold", "0.3"])]))
        if self.before == "left":
            self._leave()
        self.old = visible(root / "out")

    def _must(self, ended: Ended) -> None:
        assert ended.code == 0, ended

    def _leave(self) -> None:
        """Leave what a run leaves that is killed in its midst."""
        reset(self.root, self.start)
        whole = run(self.root, self.words, "none", 1 << 40).operations
        reset(self.root, self.start)
        run(self.root, self.words, "killed", whole // 2)
        reset(self.start, self.root)

    def problems(self, kind: str, every: int, first: int) -> Iterator[str]:
        """Say what is wrong after a fault at each operation; the last thing is how many there were."""
        at = first
        while True:
            reset(self.root, self.start)
            ended = run(self.root, self.words, kind, at)
            if ended.operations < at:
                return
            yield ""
            operation = Path(f"{self.root}.operation").read_text().strip()
            for problem in self.looked_at(ended, kind):
                yield f"{self.plan} {self.before} {kind} {at} ({operation}): {problem.strip()}"
            at += every

    def operations(self) -> list[tuple[str, ...]]:
        """Return the operations of a run without a fault, in order: name and paths, from the root on."""
        reset(self.root, self.start)
        Path(f"{self.root}.operation").unlink(missing_ok=True)
        self._must(run(self.root, self.words, "logged", 1 << 40))
        return [tuple(text.split(" ")) for text in Path(f"{self.root}.operation").read_text().splitlines()]

    def looked_at(self, ended: Ended, kind: str) -> Iterator[str]:
        """Say what is wrong after a run that ended so."""
        out = self.root / "out"
        if ended.code is None:
            yield "it hung"
        is_killed = kind.startswith("killed")
        if "Traceback" in ended.said:
            yield f"a traceback: {ended.said[-600:]}"
        elif not is_killed and ended.code not in (0, 1, 2):
            yield f"exit code {ended.code}: {ended.said[-300:]}"
        elif not is_killed and ended.code:
            sentences = [text for text in ended.said.splitlines() if text.startswith("fastsft: ")]
            code = getattr(errno, kind.split("-")[1]) if "-" in kind else 0
            if len(sentences) != 1:
                yield f"{len(sentences)} sentences: {ended.said[-300:]}"
            elif code and not any(os.strerror(one) in ended.said for one in (code, errno.EBADF)):
                yield f"no reason: {ended.said[-300:]}"
        yield from self._left(ended, is_killed)
        again = run(self.root, self.words)
        if again.code != 0:
            yield f"the next run: exit code {again.code}: {again.said[-300:]}"
        elif visible(out) != self.new:
            yield f"the next run gives something else: {_differing(visible(out), self.new)}"
        left = [name for name in os.listdir(out) if hidden(name)]
        if left and not (kind.startswith(("killed", "always")) and all(map(_PART.search, left))):
            yield f"the next run leaves {left}"

    def _left(self, ended: Ended, is_killed: bool) -> Iterator[str]:
        found = visible(self.root / "out")
        is_pending = any((self.root / "out").glob(".*.fastsft/publish.json"))
        inputs = files_in(self.root / "in")
        inputs |= {f"rows/{name}": data for name, data in files_in(self.root / "rows").items()}
        if inputs != self.inputs:
            yield f"inputs were touched: {_differing(inputs, self.inputs)}"
        if found not in (self.old, self.new) and not (is_pending and ended.code != 0):
            yield f"neither old nor new: {_differing(found, self.new)} {ended.said[-200:]}"
        if ended.code == 0 and found != self.new:
            yield f"exit code 0, and not new: {_differing(found, self.new)}"
        if ended.code and found == self.new and found != self.old and not is_killed and not is_pending:
            yield f"exit code {ended.code}, and new: {ended.said[-300:]}"
        if not is_killed and not is_pending:
            left = [name for name in os.listdir(self.root / "out") if hidden(name)]
            if left and ended.code == 0 and "could not be removed" not in ended.said:
                yield f"left {left}"


def reset(folder: Path, source: Path) -> None:
    """Make a folder what another is."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder, symlinks=True)


def _differing(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plans", nargs="+", choices=PLANS)
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=FAULTS)
    parser.add_argument("--before", nargs="+", choices=BEFORE, default=BEFORE)
    parser.add_argument("--every", type=int, default=1)
    words = parser.parse_args()
    import fastsft.api
    import fastsft.cli.app  # noqa: F401 # so that each child need not
    from fastsft.inputs import shards

    shards._MOST_SPAN_NBYTES = SPAN_NBYTES
    runs = wrong = 0
    for plan, before in itertools.product(words.plans, words.before):
        with tempfile.TemporaryDirectory() as folder:
            case = Case(Path(folder), plan, before)
            for number, kind in enumerate(words.faults):
                for problem in case.problems(kind, words.every, 1 + number % words.every):
                    runs += not problem
                    wrong += bool(problem)
                    if problem:
                        print(problem, flush=True)
    print(f"{runs} runs, {wrong} things wrong")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
