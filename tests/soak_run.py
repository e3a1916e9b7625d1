"""Run the command for the soak, killed at a random moment or not, and see which of its processes remain.

Spans and blocks are made small, so that a few hundred lines are many spans; and file operations slow, now and then, so
that a kill comes between two of them.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parent.parent
SECONDS_UNTIL_HUNG = 120
_SECONDS_UNTIL_GONE = 15  # workers look every half second whether their parent lives

_LAUNCHER = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_DFL)
span, block, slow_us = (int(word) for word in sys.argv[1:4])
sys.argv[:4] = ["fastsft"]
from fastsft.inputs import shards
from fastsft.pipeline import staged
if span:
    shards._MOST_SPAN_NBYTES, staged._BLOCK_NBYTES = span, block
def slowed(function):
    def slow(*words, **more):
        time.sleep(slow_us / 1e6)
        return function(*words, **more)
    return slow
if slow_us:
    for name in ("replace", "rename", "unlink", "fsync", "mkdir", "rmdir"):
        setattr(os, name, slowed(getattr(os, name)))
from fastsft.cli.entry import begin
begin()
"""


class Sizes(NamedTuple):
    """Bytes in a span and in a block, 0 for those of fastsft; and how long file operations are held up."""

    span: int = 0
    block: int = 0
    slow_us: int = 0


class Kill(NamedTuple):
    """Who gets which signal when.

    Attributes:
        who: `parent`, `group` or `worker`.
        number: The signal.
        when: After so many `seconds`; as soon as so many `files` or `receipts` lie in the staging folder; or as it is
            `published`.
        count: How many of them.
    """

    who: str
    number: int
    when: str
    count: float

    def __str__(self) -> str:
        return f"{signal.Signals(self.number).name} to the {self.who} at {self.count:.3g} {self.when}"


class Ended(NamedTuple):
    """How a run ended; `was_killed` tells whether it got the signal."""

    code: int
    said: str
    was_killed: bool
    seconds: float


@dataclass
class Runner:
    """Runs commands in a folder, and remembers them.

    Attributes:
        folder: Their working directory, in which `tmp/` is for what they hold for a while.
        history: The commands so far, as a person would type them, and the signals.
        sessions: Of the processes so far.
        kills: How many runs got a signal.
        resumed: How many went on from what another left.
    """

    folder: Path
    history: list[str] = field(default_factory=list)
    sessions: list[int] = field(default_factory=list)
    kills: int = 0
    resumed: int = 0

    def __post_init__(self) -> None:
        (self.folder / "tmp").mkdir(parents=True)

    def run(self, words: list[str], sizes: Sizes, kill: Kill | None = None) -> Ended:
        """Run a command, and kill it on its way."""
        said = self.folder.parent / "said"
        environment = {**os.environ, "PYTHONPATH": str(PROJECT), "TMPDIR": str(self.folder / "tmp")}
        launched = [sys.executable, "-c", _LAUNCHER, *map(str, sizes), *words]
        started = time.monotonic()
        with said.open("wb") as file:
            process = subprocess.Popen(
                launched, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                start_new_session=True,
            )  # fmt: skip
        self.sessions.append(process.pid)
        was_killed = False
        while process.poll() is None:
            seconds = time.monotonic() - started
            if kill is not None and not was_killed and self._is_time(kill, seconds):
                was_killed = _send(kill, process)
            if seconds > SECONDS_UNTIL_HUNG:
                process.send_signal(signal.SIGABRT)
                time.sleep(1)
                os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.001 if kill else 0.01)
        self.kills += was_killed
        told = f"  # {kill}" if was_killed else ""
        self.history.append(f"fastsft {' '.join(words)}  # {sizes}, exit code {process.returncode}{told}")
        text = said.read_text(errors="replace")
        self.resumed += "goes on from an interrupted run" in text
        return Ended(process.returncode, text, was_killed, time.monotonic() - started)

    def _is_time(self, kill: Kill, seconds: float) -> bool:
        if kill.when == "seconds":
            return seconds >= kill.count
        staging = [*self.folder.glob("out/.*.fastsft")]
        if kill.when == "published":
            return any((folder / "publish.json").exists() for folder in staging)
        names = [name for folder in staging for _, _, names in os.walk(folder) for name in names]
        return sum(kill.when == "files" or name.endswith(".receipt") for name in names) >= kill.count

    def remaining(self) -> list[int]:
        """List the processes of all commands so far that live on for a while."""
        ends = time.monotonic() + _SECONDS_UNTIL_GONE
        while (left := list(_processes_of(set(self.sessions)))) and time.monotonic() < ends:
            time.sleep(0.05)
        return left

    def end_all(self) -> None:
        """Kill what remains."""
        for process in _processes_of(set(self.sessions)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def draw_kill(rng: random.Random, seconds: float, *, jobs: int) -> Kill:
    """Draw a kill of a run that takes so long."""
    if jobs > 1 and rng.random() < 0.3:
        who, number = "worker", signal.SIGKILL
    else:
        who, number = rng.choice(
            [("parent", signal.SIGKILL)] * 3
            + [
                ("group", signal.SIGKILL),
                ("group", signal.SIGINT),
                ("parent", signal.SIGTERM),
                ("parent", signal.SIGINT),
            ]
        )
    when = rng.choice(["seconds", "files", "receipts", "receipts", "receipts", "published"])
    counts = {
        "seconds": rng.uniform(0, seconds * 1.1),
        "files": rng.choice([1, 3, 6, 12, 25]),
        "receipts": rng.choice([1, 1, 2, 3, 5, 10]),
        "published": 1,
    }
    return Kill(who, number, when, counts[when])


def _send(kill: Kill, process: subprocess.Popen[bytes]) -> bool:
    """Send the signal; tell whether somebody got it."""
    with contextlib.suppress(OSError):
        if kill.who == "parent":
            process.send_signal(kill.number)
            return True
        if kill.who == "group":
            os.killpg(process.pid, kill.number)
            return True
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if children:
            os.kill(int(random.choice(children)), kill.number)
            return True
    return False


def _processes_of(sessions: set[int]) -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            _, _, rest = path.read_text().rpartition(")")
            state, _, _, session = rest.split()[:4]
            if int(session) in sessions and state != "Z":
                yield int(path.parent.name)
