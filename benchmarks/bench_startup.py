"""How long does a user wait for help, and for a small run, measured in Pythons that do nothing?

usage: python benchmarks/bench_startup.py [--size 2MB] [--pairs 9] [--results FOLDER]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import generate
from timing import Results, arguments, in_turns, ratios, run, seconds_of, spread

from fastsft.quantities import nbytes_of


def main() -> None:
    chosen = arguments(__doc__, size="2MB", pairs=9).parse_args()
    results = Results(chosen.results)
    with tempfile.TemporaryDirectory() as scratch:
        shards = generate.write(Path(scratch), "short", count=None, nbytes=nbytes_of(chosen.size), shards=1)
        count = sum(1 for _ in shards[0].open("rb"))
        convert = [sys.executable, "-m", "fastsft", "convert", *shards, "--output", Path(scratch, "rows.jsonl"), "-q"]
        works = {
            "python -c pass": lambda: run([sys.executable, "-c", "pass"]),
            "fastsft --help": lambda: run([sys.executable, "-m", "fastsft", "--help"]),
            "fastsft convert --help": lambda: run([sys.executable, "-m", "fastsft", "convert", "--help"]),
            f"fastsft convert, {count:,} lines": lambda: run(convert),
        }
        raw = in_turns(works, pairs=chosen.pairs)
        nothing = raw["python -c pass"]
        for name, runs in raw.items():
            results.add(
                f"{name}: {seconds_of(runs):.3f} s, {spread(ratios(runs, nothing))} of python -c pass", {name: runs}
            )


if __name__ == "__main__":
    main()
