"""Does time per gigabyte stay flat as the input grows, and memory too?

usage: python benchmarks/bench_growth.py [--size 1GB] [--pairs 3] [--shapes real] [--results FOLDER]

Runs at a quarter of the size, at the size, and at four times it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import corpora
from timing import Results, arguments, in_turns, peaks_of, run, seconds_of

from fastsft.quantities import nbytes_of


def main() -> None:
    parser = arguments(__doc__, size="1GB", pairs=3)
    parser.add_argument("--shapes", nargs="+", choices=corpora.SHAPES, default=corpora.SHAPES[:1])
    chosen = parser.parse_args()
    results = Results(chosen.results)
    with tempfile.TemporaryDirectory() as scratch:
        for shape in chosen.shapes:
            for factor in (0.25, 1, 4):
                shards = corpora.write(Path(scratch, shape), shape, int(nbytes_of(chosen.size) * factor))
                output = Path(scratch, "rows.jsonl")
                command = [sys.executable, "-m", "fastsft", "convert", *shards, "--output", output, "-q"]
                raw = in_turns({"fastsft": lambda command=command: run(command)}, pairs=chosen.pairs)  # type: ignore[misc]
                size, seconds = corpora.size_of(shards), seconds_of(raw["fastsft"])
                rate = f"{seconds:.2f} s, {seconds / size * 1e9:.2f} s/GB"
                results.add(f"{shape}, {size / 1e6:,.0f} MB: {rate}, {peaks_of(raw['fastsft'])}", raw)
                for path in shards:
                    path.unlink()


if __name__ == "__main__":
    main()
