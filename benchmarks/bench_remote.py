"""What does a worker pay for rollouts and rows in a store, rather than in files?

usage: python benchmarks/bench_remote.py [--size 200MB] [--pairs 5] [--shape real] [--all] [--results FOLDER]

One process converts the same four shards from files to a file, from a store to a file, and from a store to a store: a
moto server on loopback, whose own time does not count. With `--all`, every line becomes a row. Processor time of the
process (user and system) is compared, as a network is no part of it here, nor is TLS. All outputs are compared before
any clock starts.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import corpora
from timing import Results, Run, arguments, spread

from fastsft.quantities import nbytes_of

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from faulty_store import moto

KEYS = {"AWS_ACCESS_KEY_ID": "fake", "AWS_SECRET_ACCESS_KEY": "fake", "AWS_REGION": "us-east-1"}


def processor_seconds(words: Sequence[str | Path]) -> Run:
    """Run the command to its end; what it takes of the processors."""
    command = [sys.executable, "-m", "fastsft", *map(str, words)]
    started = time.perf_counter()
    pid = os.posix_spawn(sys.executable, command, os.environ)
    _, status, used = os.wait4(pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    seconds = used.ru_utime + used.ru_stime
    print(f"  {seconds:.2f} s of processor, {time.perf_counter() - started:.2f} s", file=sys.stderr)
    return Run(seconds, [])


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--shape", choices=corpora.SHAPES, default=corpora.SHAPES[0])
    parser.add_argument("--all", action="store_true")
    chosen = parser.parse_args()
    if any(find_spec(name) is None for name in ("obstore", "moto", "boto3")):
        print("not measured: pip install 'fastsft[remote]' 'moto[server]' boto3")
        return
    import boto3

    results = Results(chosen.results)
    with tempfile.TemporaryDirectory() as scratch, moto() as server:
        os.environ.update(KEYS, AWS_ENDPOINT_URL=server)
        shards = corpora.write(Path(scratch, "in"), chosen.shape, nbytes_of(chosen.size))
        client = boto3.client("s3", endpoint_url=server)
        client.create_bucket(Bucket="bucket")
        for path in shards:
            client.upload_file(str(path), "bucket", f"in/{path.name}")
        rows, url = Path(scratch, "rows.jsonl"), "s3://bucket/in/"
        more = ["--jobs", "1", "--quiet", *(["--reward-threshold", "-1e9", "--format", "chat"] if chosen.all else [])]
        works = {
            "file to file": ["convert", *shards, "--output", rows, *more],
            "store to file": ["convert", url, "--output", rows, *more],
            "store to store": ["convert", url, "--output", "s3://bucket/out/rows.jsonl", *more],
        }
        written = set()
        for name, words in works.items():
            processor_seconds(words)
            is_there = name == "store to store"
            there = client.get_object(Bucket="bucket", Key="out/rows.jsonl")["Body"].read() if is_there else b""
            written.add(there or rows.read_bytes())
        if len(written) != 1:
            sys.exit("rows differ; settle that before timing")
        raw: dict[str, list[Run]] = {name: [] for name in works}
        for _ in range(chosen.pairs):
            for name, words in works.items():
                raw[name].append(processor_seconds(words))
        size, kept = corpora.size_of(shards), len(written.pop())
        for name, runs in raw.items():
            pairs = zip(runs, raw["file to file"], strict=True)
            against = spread([one.seconds / local.seconds for one, local in pairs])
            taken = statistics.median(one.seconds for one in runs) / size * 1e9
            results.add(
                f"{chosen.shape}, {size / 1e6:,.0f} MB to {kept / 1e6:,.0f} MB, {name}: {taken:.2f} s/GB of processor, "
                f"{against} that of file to file",
                {name: runs},
            )


if __name__ == "__main__":
    main()
