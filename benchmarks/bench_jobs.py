"""What do more worker processes gain over one, on one huge shard and on many?

usage: python benchmarks/bench_jobs.py [--size 1GB] [--pairs 5] [--shapes real] [--jobs 1 2] [--results FOLDER]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import corpora
from timing import Results, Run, arguments, in_turns, peaks_of, ratios, run, seconds_of, spread

from fastsft.quantities import nbytes_of


def main() -> None:
    parser = arguments(__doc__, size="1GB")
    parser.add_argument("--shapes", nargs="+", choices=corpora.SHAPES, default=corpora.SHAPES[:1])
    parser.add_argument("--jobs", nargs="+", type=int, default=[1, 2])
    chosen = parser.parse_args()
    results = Results(chosen.results)
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch, "rows.jsonl")

        def work(shards: list[Path], jobs: int) -> Run:
            return run(
                [sys.executable, "-m", "fastsft", "convert", *shards, "--output", output, "-q", "--jobs", str(jobs)]
            )

        for shape in chosen.shapes:
            for count in (1, 16):
                shards = corpora.write(Path(scratch, shape), shape, nbytes_of(chosen.size), shards=count)
                works = {str(jobs): lambda jobs=jobs, shards=shards: work(shards, jobs) for jobs in chosen.jobs}  # type: ignore[misc]
                raw = in_turns(works, pairs=chosen.pairs)
                size = corpora.size_of(shards)
                for jobs in chosen.jobs:
                    runs = raw[str(jobs)]
                    results.add(
                        f"{shape}, {size / 1e6:,.0f} MB in {count} shards, {jobs} jobs: {seconds_of(runs):.2f} s, "
                        f"{size / seconds_of(runs) / 1e6:,.0f} MB/s, {peaks_of(runs)}, "
                        f"{spread(ratios(raw[str(chosen.jobs[0])], runs))} as fast as {chosen.jobs[0]}",
                        {str(jobs): runs},
                    )
                for path in shards:
                    path.unlink()


if __name__ == "__main__":
    main()
