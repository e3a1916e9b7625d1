"""What pairs cost beside the best two of each task, and how long choosing them from a table of 10 million lines takes.

usage: python benchmarks/bench_pairs.py [--size 200MB] [--pairs 5] [--lines 10000000] [--results FOLDER]

Both runs scan the same rollouts, eight of a task, make a row of each to know that it has one, and then the rows of
those that are chosen: `pairs` with `--pairs-per-task 1`, `convert --best-of 2` whatever the reward. That one gives as
many lines as the other has sides is checked first. The table is random: eight rollouts of a task, rewards of 0 and 1.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import generate
import polars as pl
from timing import Results, Run, arguments, in_turns, peaks_of, ratios, run, seconds_of, spread

from fastsft.options import pair_options_of
from fastsft.quantities import nbytes_of
from fastsft.selection.criteria import columns_of, judge
from fastsft.selection.pairs import pair
from fastsft.selection.tasks import with_tasks

ROLLOUTS = 8


def main() -> None:
    parser = arguments(__doc__, pairs=5)
    parser.add_argument("--lines", help="lines of the table (default: 10M, or few where --size is small)")
    chosen = parser.parse_args()
    results = Results(chosen.results)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        inputs = generate.write(folder / "in", "attempts", count=None, nbytes=nbytes_of(chosen.size), shards=4, seed=1)
        for jobs in sorted({1, os.cpu_count() or 1}):
            _compare(results, inputs, folder, jobs, chosen.pairs)
    _choose(results, nbytes_of(chosen.lines or ("10M" if chosen.size == "200MB" else "10K")))


def _compare(results: Results, inputs: list[Path], folder: Path, jobs: int, turns: int) -> None:
    words = {
        "convert --best-of 2": ["convert", "--format", "chat", "--best-of", "2", "--reward-threshold", "-9"],
        "pairs": ["pairs"],
    }
    kept = {}

    def work_of(name: str) -> Run:
        output = folder / f"{name.split()[0]}.jsonl"
        return run(
            [sys.executable, "-m", "fastsft", *words[name], *inputs, "--output", output, "--jobs", str(jobs), "--quiet"]
        )

    for name in words:
        work_of(name)
        kept[name] = json.loads((folder / f"{name.split()[0]}.report.json").read_bytes())["fates"]["kept"]
    if not 0.9 < kept["pairs"] / kept["convert --best-of 2"] <= 1:
        sys.exit(f"they choose other numbers of lines; settle that before timing: {kept}")
    raw = in_turns({name: (lambda name=name: work_of(name)) for name in words}, pairs=turns)
    nbytes = sum(path.stat().st_size for path in inputs)
    results.add(
        f"{nbytes / 1e6:,.0f} MB, {jobs} jobs: pairs take {spread(ratios(raw['pairs'], raw['convert --best-of 2']))} "
        f"the time of convert --best-of 2: {seconds_of(raw['pairs']):.2f} s, {peaks_of(raw['pairs'])}",
        raw,
    )


def _choose(results: Results, lines: int) -> None:
    options = pair_options_of({})
    table = _table(lines, columns_of(options, splits=False))
    started, cpu = time.perf_counter(), time.process_time()
    paired = pair(judge(with_tasks(table.with_row_index("order")), options).left, options)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    peak = int(subprocess.check_output(["grep", "VmHWM", f"/proc/{os.getpid()}/status"]).split()[1]) / 1e6
    results.add(
        f"choosing {paired.counts.pairs:,} pairs of {lines:,} lines in memory: {seconds:.1f} s ({cpu:.1f} s of all "
        f"cores), at most {peak:.1f} GB, of a table of {table.estimated_size() / 1e9:.1f} GB",
        {},
    )


def _table(lines: int, names: list[str]) -> pl.DataFrame:
    line = pl.int_range(lines, dtype=pl.UInt64, eager=True)
    task = line // ROLLOUTS
    known = {
        "shard_index": pl.repeat(0, lines, dtype=pl.UInt32, eager=True),
        "line": line + 1,
        "offset": line * 20_000,
        "nbytes": (line.hash(1) % 30_000 + 1).cast(pl.UInt32),
        "reward": (line.hash(2) % 2).cast(pl.Float64),
        "agent": pl.repeat("agent", lines, eager=True),
        "task_index": task.cast(pl.Int64),
        "prompt": task.hash(3),
        "tokens": (line.hash(4) % 4000).cast(pl.UInt32),
        "unusable": pl.repeat(None, lines, dtype=pl.String, eager=True),
        "problem": pl.repeat(None, lines, dtype=pl.String, eager=True),
        "context": task.hash(5),
        "answer": line.hash(6),
        "answer_length": (line.hash(7) % 3000).cast(pl.UInt32),
        "whole": line.hash(8),
        "later": pl.repeat(None, lines, dtype=pl.Binary, eager=True),
    }
    gate = pl.repeat(False, lines, dtype=pl.Boolean, eager=True)
    return pl.DataFrame({name: known.get(name, gate) for name in names})


if __name__ == "__main__":
    main()
