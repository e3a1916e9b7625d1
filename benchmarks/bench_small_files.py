"""What does it cost that the same rollouts lie in many small files, not in one?

usage: python benchmarks/bench_small_files.py [--size 250MB] [--pairs 3] [--shapes real] [--results FOLDER]

Files of 1 MB, 100 kB and 10 kB (a line at least), with two processes, in one pass and where lines are compared.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import corpora
from timing import Results, arguments, in_turns, peaks_of, ratios, run, seconds_of, spread

from fastsft.quantities import nbytes_of


def main() -> None:
    parser = arguments(__doc__, size="250MB", pairs=3)
    parser.add_argument("--shapes", nargs="+", choices=corpora.SHAPES, default=corpora.SHAPES[:1])
    chosen = parser.parse_args()
    results = Results(chosen.results)
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch, "rows.jsonl")
        for shape in chosen.shapes:
            (whole,) = corpora.write(Path(scratch, shape), shape, nbytes_of(chosen.size), shards=1)
            folders = {"one file": [whole]}
            for name, nbytes in (("1 MB", 10**6), ("100 kB", 10**5), ("10 kB", 10**4)):
                files = cut(whole, Path(scratch, f"{shape} {name}"), nbytes)
                folders[f"{len(files):,} of {name}"] = [files[0].parent]
            for options in ([], ["--best-of", "1"]):
                command = [
                    sys.executable,
                    "-m",
                    "fastsft",
                    "convert",
                    "--output",
                    output,
                    "-q",
                    "--jobs",
                    "2",
                    *options,
                ]
                works = {
                    name: lambda inputs=inputs, command=command: run([*command, *inputs])  # type: ignore[misc]
                    for name, inputs in folders.items()
                }
                digests = {name: digest_after(work, output) for name, work in works.items()}
                if len(set(digests.values())) > 1 and not options:  # a task may be one file's alone
                    raise AssertionError(f"other rows: {digests}")
                raw = in_turns(works, pairs=chosen.pairs)
                what = " ".join([shape, *options])
                for name, runs in raw.items():
                    ratio = f"{spread(ratios(runs, raw['one file']))} of one file"
                    results.add(f"{what}, {name}: {seconds_of(runs):.2f} s, {ratio}, {peaks_of(runs)}", {name: runs})


def cut(whole: Path, folder: Path, nbytes: int) -> list[Path]:
    """Cut a file at lines into files of about so many bytes."""
    folder.mkdir()
    files: list[Path] = []
    with whole.open("rb") as source:
        while data := source.read(nbytes):
            files.append(folder / f"{len(files):07}.jsonl")
            files[-1].write_bytes(data + source.readline())
    os.sync()
    return files


def digest_after(work: Callable[[], object], output: Path) -> str:
    work()
    return hashlib.sha256(output.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
