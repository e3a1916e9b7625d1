"""How much faster is a whole run of the command than other tools at the same job (peers.py)?

usage: python benchmarks/bench_end_to_end.py [--size 200MB] [--pairs 5] [--shapes real short ...] [--kept 0.1 0.5 1]
                                             [--peers json orjson-pool ...] [--results FOLDER]

Whole processes from start to exit, page cache warm, all cores. The rows of each peer are compared with ours as JSON
values before any clock starts. `json` is baseline.py: plain `json` and a for loop, one process.
"""

from __future__ import annotations

import json
import sys
import tempfile
from itertools import zip_longest
from pathlib import Path

import corpora
import generate
import peers
from timing import Results, Run, arguments, in_turns, peaks_of, ratios, run, seconds_of, spread

from fastsft.quantities import nbytes_of

HERE = Path(__file__).parent


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--shapes", nargs="+", choices=corpora.SHAPES, default=corpora.SHAPES)
    parser.add_argument("--kept", nargs="+", type=float, default=[0.5])
    parser.add_argument("--peers", nargs="+", choices=peers.PEERS, default=list(peers.PEERS))
    chosen = parser.parse_args()
    results = Results(chosen.results)
    with tempfile.TemporaryDirectory() as scratch:
        for shape in chosen.shapes:
            for kept in chosen.kept if shape in generate.SHAPES else chosen.kept[:1]:
                names = [name for name in chosen.peers if peers.can_do(name, shape)]
                compare(Path(scratch), shape, nbytes_of(chosen.size), kept, names, chosen.pairs, results)


def compare(
    scratch: Path, shape: str, nbytes: int, kept: float, names: list[str], pairs: int, results: Results
) -> None:
    """Time fastsft and the peers on one corpus, in turns."""
    shards = corpora.write(scratch / shape, shape, nbytes, kept=kept)
    outputs = {name: scratch / "out" / f"{name}.jsonl" for name in ["fastsft", *names]}
    outputs["fastsft"].parent.mkdir(exist_ok=True)
    works = {
        "fastsft": lambda: run(
            [
                sys.executable,
                "-m",
                "fastsft",
                "convert",
                *shards,
                "--output",
                outputs["fastsft"],
                "-q",
                "--allow",
                "all",
            ]
        )
    }

    def work_of(name: str) -> Run:
        return run([sys.executable, HERE / "peers.py", name, *shards, "--output", outputs[name]])

    for name in names:
        works[name] = lambda name=name: work_of(name)  # type: ignore[misc]
    for work in works.values():
        work()
    rows = sum(1 for _ in outputs["fastsft"].open("rb"))
    for name in names:
        same_rows(outputs[name], outputs["fastsft"])
    raw = in_turns(works, pairs=pairs)
    size = corpora.size_of(shards)
    head = f"{shape}, {size / 1e6:,.0f} MB" + (f", {kept:.0%} kept" if shape in generate.SHAPES else "")
    ours = seconds_of(raw["fastsft"])
    results.add(
        f"{head}: fastsft {ours:.2f} s, {size / ours / 1e6:,.0f} MB/s, {rows / ours:,.0f} rows/s, "
        f"{peaks_of(raw['fastsft'])}, same {rows:,} rows",
        raw,
    )
    for name in names:
        results.add(
            f"  {spread(ratios(raw[name], raw['fastsft']))} as fast as {name}: "
            f"{seconds_of(raw[name]):.2f} s, {peaks_of(raw[name])}",
            {},
        )
    for path in [*shards, *outputs.values()]:
        path.unlink()


def same_rows(theirs: Path, ours: Path) -> None:
    """Stop where two files of rows differ as JSON values."""
    with theirs.open("rb") as first, ours.open("rb") as second:
        for number, (one, other) in enumerate(zip_longest(first, second), 1):
            if one is None or other is None or (one != other and json.loads(one) != json.loads(other)):
                sys.exit(f"rows differ at line {number} of {theirs} and {ours}; settle that before timing")


if __name__ == "__main__":
    main()
