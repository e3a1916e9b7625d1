"""Runs in turns, median ratio, spread, throughput, peak memory; the one place that prints and keeps results."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import fastsft

PACKAGES = ("msgspec", "polars", "joblib", "orjson", "datasets", "datatrove", "duckdb")


class Run(NamedTuple):
    """One run of a command.

    Attributes:
        seconds: Wall-clock time of the whole process, from start to exit.
        peaks: Peak resident memory of each of its processes in bytes, the parent's first, then the largest.
    """

    seconds: float
    peaks: list[int]


def run(command: Sequence[str | Path]) -> Run:
    """Run a command to its end, and stop if it fails."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}  # compiled once, as whatever is installed is
    started = time.perf_counter()
    with subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    ) as child:
        assert child.stderr is not None
        ended = threading.Event()
        peaks: dict[int, int] = {}
        watcher = threading.Thread(target=_watch, args=(child.pid, ended, peaks))
        watcher.start()
        complaint = child.stderr.read()
        code = child.wait()
        seconds = time.perf_counter() - started
        ended.set()
        watcher.join()
    if code:
        sys.exit(f"{' '.join(map(str, command))}\n{complaint.decode()}")
    parent = peaks.pop(child.pid, 0)
    return Run(seconds, [parent, *sorted(peaks.values(), reverse=True)])


def _watch(session: int, ended: threading.Event, peaks: dict[int, int]) -> None:
    """Note the peak memory of every process of a session, twenty times a second."""
    while not ended.wait(0.05):
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if os.getsid(int(entry.name)) == session:
                        status = (entry / "status").read_text()
                        peaks[int(entry.name)] = int(status.partition("VmHWM:")[2].split()[0]) * 1024
                except (OSError, IndexError):
                    continue  # it has just ended


def in_turns(works: dict[str, Callable[[], Run]], *, pairs: int) -> dict[str, list[Run]]:
    """Run several works in turns, so that a busy machine slows all alike; a first turn only warms the caches.

    What one wrote is on the disk before the next begins: else who makes sure that its own output is there, as fastsft
    alone does, waits for that of the others too.
    """
    runs: dict[str, list[Run]] = {name: [] for name in works}
    for turn in range(pairs + 1):
        for name, work in works.items():
            os.sync()
            done = work()
            if turn:
                runs[name].append(done)
    return runs


def ratios(baseline: Sequence[Run], candidate: Sequence[Run]) -> list[float]:
    """How many times faster the candidate is, pair by pair."""
    return [before.seconds / after.seconds for before, after in zip(baseline, candidate, strict=True)]


def seconds_of(runs: Sequence[Run]) -> float:
    """Median seconds."""
    return statistics.median(run.seconds for run in runs)


def spread(values: Sequence[float], unit: str = "x") -> str:
    """A median with its smallest and largest value."""
    return f"{statistics.median(values):.2f}{unit} ({min(values):.2f} to {max(values):.2f})"


def peaks_of(runs: Sequence[Run]) -> str:
    """The largest peak memory of the parent, and of a worker where there were any."""
    parent = max(run.peaks[0] for run in runs) / 1e6
    worker = max((peak for run in runs for peak in run.peaks[1:]), default=0) / 1e6
    return f"{parent:,.0f} MB" + (f" + workers of {worker:,.0f} MB" if worker else "")


def provenance() -> str:
    """Say on what a result was measured."""
    found = [f"fastsft {fastsft.__version__}"]  # what runs, whatever an older installation says
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except ModuleNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0))
    return (
        f"CPython {platform.python_version()}, {', '.join(found)}; {cores} cores, {_processor()}, {platform.system()}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def arguments(description: str | None, *, size: str = "200MB", pairs: int = 5) -> argparse.ArgumentParser:
    """Give the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default=size, help="size of each corpus (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=pairs, help="runs of each, in turns (default: %(default)s)")
    parser.add_argument("--results", type=Path, help="a folder to keep the raw numbers and the printed lines in")
    return parser


class Results:
    """Prints each line of a benchmark, and keeps it with the raw numbers and the provenance if a folder is given."""

    def __init__(self, folder: Path | None) -> None:
        self._path = folder and folder / f"{Path(sys.argv[0]).stem}.json"
        words = [Path(sys.argv[0]).name, *sys.argv[1:]]
        if folder:  # where it was kept is of no interest to others
            del words[words.index("--results") : words.index("--results") + 2]
        self._kept: dict[str, object] = {"command": " ".join(words), "machine": provenance(), "results": []}
        print(provenance(), flush=True)

    def add(self, line: str, raw: dict[str, list[Run]]) -> None:
        print(line, flush=True)
        results = self._kept["results"]
        assert isinstance(results, list)
        results.append({"line": line, "seconds": {name: [run.seconds for run in runs] for name, runs in raw.items()}})
        if self._path:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(self._kept, indent=1) + "\n")
