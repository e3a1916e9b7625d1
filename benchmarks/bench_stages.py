"""Where does the time of one process go, and how far is each stage from its floor?

usage: python benchmarks/bench_stages.py [--size 100MB] [--pairs 5] [--shapes real short ...] [--results FOLDER]

In one process, no start-up: reading the page cache, finding lines, checking UTF-8, decoding, selecting, formatting,
encoding, writing. Each stage is timed over the whole corpus, about 1 MiB at a time, as the pipeline does it; the floor
beside decoding is msgspec reading `reward` alone.
"""

from __future__ import annotations

import gc
import hashlib
import itertools
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import corpora
import msgspec
from timing import Results, arguments

from fastsft.errors import Refused
from fastsft.execution.memory import keep_freed_memory
from fastsft.formats import FORMATS
from fastsft.inputs.encoding import escape_line_separators, is_utf8
from fastsft.inputs.lines import line_starts, lines_in
from fastsft.inputs.shards import ByteRange, find_shards, spans_of
from fastsft.options import Options
from fastsft.quantities import nbytes_of
from fastsft.rollouts.line import rollout_of
from fastsft.rollouts.rollout import Rollout
from fastsft.selection.gates import drop_reasons


class _Header(msgspec.Struct):
    reward: Any = 0.0


def main() -> None:
    parser = arguments(__doc__, size="100MB")
    parser.add_argument("--shapes", nargs="+", choices=corpora.SHAPES, default=corpora.SHAPES)
    chosen = parser.parse_args()
    results = Results(chosen.results)
    gc.disable()  # as the pipeline does during a span
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as scratch:
        for shape in chosen.shapes:
            paths = corpora.write(Path(scratch, shape), shape, nbytes_of(chosen.size))
            spans = spans_of(find_shards(paths)[0], Options().span_nbytes)
            ranges = [one for span in spans for one in span.ranges]
            measured: dict[str, list[float]] = defaultdict(list)
            for _ in range(chosen.pairs):
                for name, seconds in stages(ranges, Path(scratch, "rows")).items():
                    measured[name].append(seconds)
            size = corpora.size_of(paths)
            total = sum(statistics.median(values) for name, values in measured.items() if name != "floor of decode")
            parts = ", ".join(
                f"{name} {size / statistics.median(values) / 1e9:.2f}" for name, values in measured.items()
            )
            results.add(f"{shape}: {size / total / 1e9:.2f} GB/s in all; GB/s of input by stage: {parts}", {})
            for path in paths:
                path.unlink()


def stages(ranges: list[ByteRange], output: Path) -> dict[str, float]:
    """Seconds of each stage over all ranges."""
    spent: dict[str, float] = defaultdict(float)

    def timed(name: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        spent[name] += time.perf_counter() - started
        return result

    header = msgspec.json.Decoder(_Header)
    encoder = msgspec.json.Encoder()
    digest = hashlib.sha256()
    with output.open("wb", buffering=0) as file:
        for one in ranges:
            pieces = lines_in(one, nbytes=1 << 20, max_line=1 << 28)
            while (read := timed("read", lambda pieces=pieces: next(pieces, None))) is not None:
                data = read.data
                starts = timed("lines", lambda data=data: line_starts(data))
                timed("utf-8", lambda data=data: is_utf8(data))
                view = memoryview(data)
                lines = [view[start : stop - 1] for start, stop in itertools.pairwise(starts)]
                timed("floor of decode", lambda lines=lines: [_tried(header.decode, line) for line in lines])
                decoded = timed("decode", lambda lines=lines: [_tried(rollout_of, line) for line in lines])
                rollouts: list[Rollout] = [rollout for rollout in decoded if rollout is not None]
                reasons = timed("select", lambda rollouts=rollouts: drop_reasons(rollouts, Options()))
                wanted = [rollout for rollout, reason in zip(rollouts, reasons, strict=True) if reason is None]
                made = timed("format", lambda wanted=wanted: [_tried(FORMATS["openai"], rollout) for rollout in wanted])
                rows = timed(
                    "encode",
                    lambda made=made: escape_line_separators(encoder.encode_lines([row.body for row in made if row])),
                )
                timed("hash", lambda rows=rows: digest.update(rows))
                timed("write", lambda rows=rows: os.write(file.fileno(), rows))
    return spent


def _tried(work: Callable[[Any], Any], value: Any) -> Any:
    try:
        return work(value)
    except (Refused, msgspec.DecodeError):
        return None


if __name__ == "__main__":
    main()
