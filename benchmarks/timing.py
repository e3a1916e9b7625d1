"""Paired runs, median ratio, spread, throughput, peak memory; the one place that prints results."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple


class Run(NamedTuple):
    """One run of a command: wall-clock seconds, and the peak resident memory of its largest process in bytes."""

    seconds: float
    peak_nbytes: int


def run(command: Sequence[str | Path]) -> Run:
    """Run a command to its end, and stop if it fails."""
    started = time.perf_counter()
    with subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
        assert child.stderr is not None
        complaint = child.stderr.read()
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{complaint.decode()}")
    return Run(seconds, usage.ru_maxrss * 1024)


def paired(baseline: Callable[[], Run], candidate: Callable[[], Run], *, pairs: int) -> tuple[list[Run], list[Run]]:
    """Run two works in turns, so that a busy machine slows both alike; the first pair only warms the caches."""
    baseline(), candidate()
    runs = [(baseline(), candidate()) for _ in range(pairs)]
    return [before for before, _ in runs], [after for _, after in runs]


def verdict(name: str, baseline: Sequence[Run], candidate: Sequence[Run], *, nbytes: int, rows: int) -> str:
    """Say in one line how many times faster the candidate is, with the spread, its throughput and its memory."""
    ratios = [before.seconds / after.seconds for before, after in zip(baseline, candidate, strict=True)]
    seconds = statistics.median(run.seconds for run in candidate)
    peak = max(run.peak_nbytes for run in candidate) / 1e6
    spread = f"{min(ratios):.1f}x to {max(ratios):.1f}x over {len(ratios)} pairs"
    return (
        f"{name}: {statistics.median(ratios):.1f}x ({spread}), "
        f"{nbytes / seconds / 1e6:,.0f} MB/s, {rows / seconds:,.0f} rows/s, {peak:,.0f} MB peak, same {rows:,} rows"
    )


def provenance() -> str:
    """Say on what a result was measured."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("fastsft", "msgspec", "polars", "joblib"))
    cores = len(os.sched_getaffinity(0))
    return f"CPython {platform.python_version()}, {packages}; {cores} cores, {_processor()}, {platform.system()}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Give the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="200MB", help="size of each corpus (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=7, help="runs of each, in turns (default: %(default)s)")
    return parser
