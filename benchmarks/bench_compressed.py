"""What do compressed shards cost, in and out?

usage: python benchmarks/bench_compressed.py [--size 200MB] [--pairs 5] [--shape real] [--results FOLDER]

The same rollouts in four shards, plain and compressed, to plain rows and to compressed ones. All outputs hold the same
rows, which is checked before any clock starts; the baseline is plain to plain.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import corpora
from timing import Results, Run, arguments, in_turns, peaks_of, ratios, run, seconds_of, spread

from fastsft.quantities import nbytes_of
from fastsft.storage.compression import open_compressed

KINDS = ("plain", "gz", "zst")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--shape", choices=corpora.SHAPES, default=corpora.SHAPES[0])
    chosen = parser.parse_args()
    results = Results(chosen.results)
    with tempfile.TemporaryDirectory() as scratch:
        plain = corpora.write(Path(scratch, "in"), chosen.shape, nbytes_of(chosen.size))
        shards = {"plain": plain, **{kind: corpora.compressed(plain, kind) for kind in KINDS[1:]}}
        output = {kind: Path(scratch, kind, "rows.jsonl" + ("" if kind == "plain" else f".{kind}")) for kind in KINDS}

        def work_of(given: str, wanted: str) -> Run:
            return run([sys.executable, "-m", "fastsft", "convert", *shards[given], "--output", output[wanted], "-q"])

        pairs = [("plain", "plain"), ("gz", "plain"), ("zst", "plain"), ("plain", "gz"), ("plain", "zst")]
        works = {f"{given} to {wanted}": (lambda pair=(given, wanted): work_of(*pair)) for given, wanted in pairs}
        rows = set()
        for given, wanted in pairs:
            work_of(given, wanted)
            rows.add(_held(output[wanted], wanted))
        if len(rows) != 1:
            sys.exit("rows differ; settle that before timing")
        raw = in_turns(works, pairs=chosen.pairs)
        size = corpora.size_of(plain)
        for name, runs in raw.items():
            taken = seconds_of(runs)
            against = spread(ratios(runs, raw["plain to plain"]))
            results.add(
                f"{chosen.shape}, {size / 1e6:,.0f} MB, {name}: {taken:.2f} s, {size / taken / 1e6:,.0f} MB/s "
                f"of plain input, {against} the time of plain to plain, {peaks_of(runs)}",
                {name: runs},
            )
        for kind in KINDS[1:]:
            results.add(f"{kind} shards are {corpora.size_of(shards[kind]) / size:.0%} of the plain ones", {})


def _held(path: Path, kind: str) -> bytes:
    if kind == "plain":
        return path.read_bytes()
    with open_compressed(str(path), kind) as stream:
        return stream.read()


if __name__ == "__main__":
    main()
