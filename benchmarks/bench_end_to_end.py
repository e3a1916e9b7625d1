"""How much faster is a whole run of the command than plain `json` and a for loop (baseline.py)?

usage: python benchmarks/bench_end_to_end.py [--size 200MB] [--pairs 7] [--shapes mixed short ...]

Whole processes from start to exit, page cache warm, on seeded rollouts. The rows
of both are compared as JSON values before any clock starts.
"""

from __future__ import annotations

import json
import sys
import tempfile
from itertools import zip_longest
from pathlib import Path

import generate
from timing import arguments, paired, provenance, run, verdict

from fastsft.options import nbytes_of

HERE = Path(__file__).parent


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--shapes", nargs="+", choices=generate.SHAPES, default=list(generate.SHAPES))
    parser.add_argument("--kept", type=float, default=0.5)
    chosen = parser.parse_args()
    print(provenance())
    with tempfile.TemporaryDirectory() as scratch:
        for shape in chosen.shapes:
            print(compare(Path(scratch), shape, nbytes_of(chosen.size), chosen.kept, chosen.pairs), flush=True)


def compare(scratch: Path, shape: str, nbytes: int, kept: float, pairs: int) -> str:
    """Time both on one corpus."""
    shards = generate.write(scratch / shape, shape, count=None, nbytes=nbytes, shards=4, kept=kept)
    theirs, ours = scratch / "baseline.jsonl", scratch / "fastsft.jsonl"
    baseline = [sys.executable, HERE / "baseline.py", *shards, "--output", theirs]
    candidate = [sys.executable, "-m", "fastsft", "convert", *shards, "--output", ours, "--quiet"]
    before, after = paired(lambda: run(baseline), lambda: run(candidate), pairs=pairs)
    rows = same_rows(theirs, ours)
    result = verdict(f"{shape}", before, after, nbytes=sum(path.stat().st_size for path in shards), rows=rows)
    for path in [*shards, theirs, ours]:
        path.unlink()
    return result


def same_rows(theirs: Path, ours: Path) -> int:
    """Compare two files of rows as JSON values, and count them."""
    count = 0
    with theirs.open("rb") as first, ours.open("rb") as second:
        for one, other in zip_longest(first, second):
            if one is None or other is None or json.loads(one) != json.loads(other):
                sys.exit(f"rows differ at line {count + 1} of {theirs} and {ours}; settle that before timing")
            count += 1
    return count


if __name__ == "__main__":
    main()
