"""How much does the process that drives a run do itself, and how many workers would keep it busy all the time?

usage: python benchmarks/bench_parent.py [--size 1GB] [--pairs 3] [--shapes real] [--works convert stats ...]
                                         [--results FOLDER]

Processor time as the operating system counts it, of the parent alone and of its workers, at a quarter of the size and
at all of it: the difference is what a gigabyte costs, without the start. Where the parent takes a share of p of what a
worker takes, 1 / p workers keep it busy.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import corpora
from timing import Results, arguments

from fastsft.quantities import nbytes_of

_TICKS = os.sysconf("SC_CLK_TCK")
_CONVERT = ["convert", "{inputs}", "--quiet", "--output"]
WORKS = {
    "convert": [*_CONVERT, "{out}/rows.jsonl"],
    "shards": [*_CONVERT, "{out}/", "--shard-size", "64MiB"],
    "everything": [*_CONVERT, "{out}/rows.jsonl", "--reward-threshold", "-1000", "--allow", "all"],
    "best-of": [*_CONVERT, "{out}/rows.jsonl", "--best-of", "1"],
    "stats": ["stats", "{inputs}", "--quiet"],
    "index": ["index", "{inputs}", "--quiet", "--output", "{out}/index.parquet"],
    "check": ["check", "{rows}", "--quiet"],
}


class Spent(NamedTuple):
    """Processor time of a run in seconds: the parent's own, and that of the processes it waited for."""

    parent: float
    workers: float


def main() -> None:
    parser = arguments(__doc__, size="1GB", pairs=3)
    parser.add_argument("--shapes", nargs="+", choices=corpora.SHAPES, default=corpora.SHAPES[:1])
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS))
    chosen = parser.parse_args()
    results = Results(chosen.results)
    nbytes = nbytes_of(chosen.size)
    with tempfile.TemporaryDirectory() as scratch:
        for shape in chosen.shapes:
            inputs = [
                corpora.write(Path(scratch, f"{shape}-{part}"), shape, nbytes // part, shards=1) for part in (4, 1)
            ]
            for name in chosen.works:
                results.add(f"{shape}: {name}: {cost_of(name, inputs, Path(scratch), chosen.pairs)}", {})


def cost_of(name: str, inputs: list[list[Path]], scratch: Path, pairs: int) -> str:
    """Say what the parent takes for a gigabyte of input."""
    if name == "check":
        inputs = [rows_of(paths, scratch / f"rows-{index}") for index, paths in enumerate(inputs)]
    sizes = [corpora.size_of(paths) for paths in inputs]
    medians = []
    for paths in inputs:
        spent = [spent_by(command_of(name, paths, scratch / "out"), scratch / "out") for _ in range(pairs)]
        medians.append(Spent(*(statistics.median(values) for values in zip(*spent, strict=True))))
    gigabytes = max(sizes[1] - sizes[0], 1) / 1e9  # at toy sizes both are the same block
    parent, workers = ((after - before) / gigabytes for before, after in zip(*medians, strict=True))
    full_at = "no number of" if parent <= 0 else f"{max(workers, 0) / parent:,.0f}"
    return (
        f"parent {parent:.3f} s/GB, workers {workers:.2f} s/GB, full at {full_at} workers "
        f"(start {medians[0].parent - parent * sizes[0] / 1e9:.2f} s, {sizes[1] / 1e6:,.0f} MB)"
    )


def rows_of(paths: list[Path], folder: Path) -> list[Path]:
    """Convert everything, so that there are rows to check."""
    output = folder / "rows.jsonl"
    if not output.exists():
        spent_by(command_of("everything", paths, folder), folder)
    return [output]


def command_of(name: str, paths: list[Path], out: Path) -> list[str]:
    """The words of a run with two workers."""
    words = []
    for word in WORKS[name]:
        words += [str(path) for path in paths] if word in ("{inputs}", "{rows}") else [word.format(out=out)]
    return [sys.executable, "-m", "fastsft", *words, "--jobs", "2"]


def spent_by(command: list[str], out: Path) -> Spent:
    """Run a command into an empty folder, and read what it took while the system still knows of it."""
    shutil.rmtree(out, ignore_errors=True)  # else the system frees what is replaced, 0.04 s/GB, on the parent's account
    out.mkdir(parents=True)
    os.sync()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
    own, waited = (sum(map(int, fields[start : start + 2])) / _TICKS for start in (11, 13))
    _, complaint = child.communicate()
    if child.returncode not in ((0, 1) if "check" in command else (0,)):  # it finds faults
        sys.exit(f"{' '.join(command)}\n{complaint.decode()}")
    return Spent(own, waited)


if __name__ == "__main__":
    main()
