"""How long choosing from a table of many lines takes, and how much memory and disk: in partitions, and in memory.

usage: python benchmarks/bench_choose.py [--lines 100M] [--plan all] [--jobs 2] [--in-memory] [--folder FOLDER]
"""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
import threading
import time
from pathlib import Path

import polars as pl
from timing import Results, arguments

from fastsft.execution.placement import Placement
from fastsft.execution.workers import Workers
from fastsft.inputs.shards import Shard, spans_of
from fastsft.options import Options
from fastsft.pipeline import choosing_in_parts
from fastsft.pipeline.choosing import choose_lines
from fastsft.quantities import nbytes_of
from fastsft.selection.criteria import columns_of
from fastsft.selection.table import write_part

PART_LINES = 1_000_000
LINE_NBYTES = 20_000
PLANS = {
    "best of 2": {"best_of": 2},
    "all": {"dedup": True, "best_of": 4, "per_agent": 1_000_000, "sample": "10%", "seed": 1},
}


def write_table(folder: Path, names: list[str], lines: int, rollouts: int) -> list[tuple[str, int, int, int]]:
    """Write a table of random lines in one file of input, the rollouts of a task side by side, as NeMo Gym has them."""
    parts = []
    for number, start in enumerate(range(0, lines, PART_LINES)):
        rows = min(PART_LINES, lines - start)
        line = pl.int_range(start, start + rows, dtype=pl.UInt64, eager=True)
        task = line // rollouts
        known = {
            "shard_index": pl.repeat(0, rows, dtype=pl.UInt32, eager=True),
            "line": line - start + 1,
            "offset": line * LINE_NBYTES,
            "nbytes": (line.hash(1) % 30_000 + 1).cast(pl.UInt32),
            "reward": (line.hash(2) % 8).cast(pl.Float64) / 7,
            "agent": "agent_" + (task.hash(3) % 60).cast(pl.String),
            "task_index": task.cast(pl.Int64),
            "prompt": task.hash(4),
            "tokens": (line.hash(5) % 4000).cast(pl.UInt32),
            "unusable": pl.repeat(None, rows, dtype=pl.String, eager=True),
            "problem": pl.repeat(None, rows, dtype=pl.String, eager=True),
            "content": (line.hash(6) % (lines * 4)).cast(pl.String).str.pad_start(16).cast(pl.Binary),
        }
        gates = pl.repeat(False, rows, dtype=pl.Boolean, eager=True)
        part = pl.DataFrame({name: known.get(name, gates) for name in names})
        write_part([part], folder / f"scan-{number:06}.arrow")
        parts.append((f"scan-{number:06}.arrow", rows, 0, start))
    return parts


class Watch(threading.Thread):
    """Looks ten times a second how much memory all processes of this one have, and how much a folder holds."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder = folder
        self.most_memory = self.most_disk = 0
        self.is_over = threading.Event()

    def run(self) -> None:
        """Look until it is over."""
        while not self.is_over.wait(0.1):
            pids = [os.getpid(), *map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())]
            self.most_memory = max(self.most_memory, sum(map(private_nbytes, pids)))
            held = sum(one.stat().st_size for one in self.folder.glob("choosing/*") if one.exists())
            self.most_disk = max(self.most_disk, held)


def private_nbytes(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Private"))


def main() -> None:
    parser = arguments(__doc__, pairs=1)
    parser.add_argument("--lines", help="lines of the table (default: 100M, or few where --size is small)")
    parser.add_argument("--folder", type=Path, help="where the table and the files between go (default: a new one)")
    parser.add_argument("--rollouts", type=int, default=16, help="of a task")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--plan", choices=PLANS, default="best of 2")
    parser.add_argument("--in-memory", action="store_true")
    asked = parser.parse_args()
    results = Results(asked.results)
    options = Options(**PLANS[asked.plan])
    lines = nbytes_of(asked.lines or ("100M" if asked.size == "200MB" else "10K"))
    asked.folder = asked.folder or Path(tempfile.mkdtemp())
    names = columns_of(options, splits=False)
    shutil.rmtree(asked.folder, ignore_errors=True)
    asked.folder.mkdir(parents=True)
    # Written by another process, as this one is to fork its workers, and as that has the memory then.
    with Workers(Placement(jobs=asked.jobs), nbytes=1 << 40, tasks=99) as workers:
        pid = os.fork()
        if not pid:
            write_table(asked.folder, names, lines, asked.rollouts)
            os._exit(0)
        os.waitpid(pid, 0)
        count = -(-lines // PART_LINES)
        rows = [min(PART_LINES, lines - number * PART_LINES) for number in range(count)]
        parts = [(f"scan-{number:06}.arrow", rows[number], 0, number * PART_LINES) for number in range(count)]
        shards = [Shard("in.jsonl", lines * LINE_NBYTES, 0)]
        spans = spans_of(shards)
        watch = Watch(asked.folder)
        watch.start()
        started = time.perf_counter()
        if asked.in_memory:
            choice = choose_lines(parts, asked.folder, shards, spans, options, ())
        else:
            choice = choosing_in_parts.choose_in_parts(parts, asked.folder, shards, spans, options, (), workers)
        seconds = time.perf_counter() - started
        watch.is_over.set()
        watch.join()
    table = sum((asked.folder / name).stat().st_size for name, *_ in parts)
    chosen = sum(stop - start for span in choice.spans for start, stop in span.slices)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    results.add(
        f"{asked.plan}{' in memory' if asked.in_memory else ''}: {lines:,} lines, {chosen:,} chosen: {seconds:.1f} s, "
        f"{watch.most_memory / 1e9:.2f} GB in all processes, {peak / 1e9:.2f} GB in this one at most, a table of "
        f"{table / 1e9:.2f} GB, files between of {watch.most_disk / 1e9:.2f} GB",
        {},
    )
    shutil.rmtree(asked.folder)


if __name__ == "__main__":
    main()
