"""What do the parts of a run cost on this machine: the numbers that `simulate.py` and `scale.md` calculate with?

usage: python benchmarks/bench_constants.py [--size 1GB] [--pairs 3] [--spans 2000] [--lines 2000000]
                                            [--backends forked loky] [--results FOLDER]

Each number is measured in processes of its own, several times, and the least counts, as more is noise of neighbours.
It is processor time unless the clock is named; of workers two are at work at once, as they slow each other. `--spans`
is how many tasks, spans and receipts there are, `--lines` how many lines the table has that is chosen from.
`--backends` takes `ray` and `dask` too, where they are installed; Dask's scheduler is a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import corpora
import msgspec
from timing import Results, arguments

from fastsft.execution.placement import Placement
from fastsft.execution.workers import Workers
from fastsft.inputs.shards import Shard, find_rollouts, spans_of
from fastsft.options import GATES, Options
from fastsft.outputs.assembly import digest_of, files_by_size
from fastsft.outputs.outputs import Outputs
from fastsft.outputs.receipts import RangeFates, Receipt, Segment
from fastsft.outputs.target import targets_of
from fastsft.pipeline.drive import run
from fastsft.pipeline.ledger import Ledger
from fastsft.pipeline.one_pass import Rows
from fastsft.pipeline.staged import StagedProduct
from fastsft.pipeline.two_passes import CHOSEN, ChosenRows, ChosenSpan, LineTable
from fastsft.quantities import nbytes_of
from fastsft.report import Fates

_EVERYTHING = {"reward_threshold": -1e9, "allow": GATES}
WORKS: dict[str, tuple[type[StagedProduct], dict[str, Any]]] = {
    "convert": (Rows, {}),
    "convert, flushed": (Rows, {}),  # as where segments may become shards
    "everything": (Rows, _EVERYTHING),
    "scan": (LineTable, {"best_of": 1}),
    "chosen": (ChosenRows, {"best_of": 1}),  # few, as the real rollouts are repeated
    "a quarter chosen": (ChosenRows, {"sample": "25%"}),
}
CHOICES: dict[str, dict[str, Any]] = {
    "best-of": {"best_of": 1, "reward_threshold": 0.5},
    "dedup": {"dedup": True, "reward_threshold": 0.5},
    "sample": {"sample": "10%", "reward_threshold": 0.5},
}


class Made(NamedTuple):
    """A span that was made: its bytes, the seconds it took by the processor and the clock, the bytes written.

    `first` is what its process took to make one span before, if this is its second.
    """

    nbytes: int
    processor: float
    clock: float
    written: int
    first: float


class WorkCost(NamedTuple):
    """What making spans takes a worker: so much for each span, and for each byte.

    Attributes:
        a_span: Seconds for each span.
        a_gigabyte: Seconds for each gigabyte of input.
        written: Bytes that are written, of rows or of the table, for each byte of input.
        spread: The standard deviation of what large spans take, in shares of their mean.
        first: Seconds for a worker's first span beside that, in which it imports what it needs.
    """

    a_span: float
    a_gigabyte: float
    written: float
    spread: float
    first: float


def main() -> None:
    parser = arguments(__doc__, size="1GB", pairs=3)
    parser.add_argument("--spans", type=int, help="tasks, spans and receipts (default: 2000, or as --size has)")
    parser.add_argument("--lines", type=int, help="lines to choose from (default: 2000000, or as --size has)")
    parser.add_argument("--backends", nargs="+", default=["forked", "loky"])
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        name, words = chosen.measure
        print(json.dumps(MEASURES[name](**json.loads(words))))
        return
    results = Results(chosen.results)
    nbytes = nbytes_of(chosen.size)
    is_toy = nbytes < 100_000_000
    spans, lines = chosen.spans or (20 if is_toy else 2000), chosen.lines or (10_000 if is_toy else 2_000_000)
    with tempfile.TemporaryDirectory() as scratch:
        paths = corpora.write(Path(scratch, "corpus"), corpora.SHAPES[0], nbytes)
        told = partial(results.add, raw={})
        size = corpora.size_of(paths)
        told(f"corpus: {corpora.SHAPES[0]}, {size:,} bytes, {size / _lines_in(paths):,.0f} bytes a line")
        for name in WORKS:
            by_clock = name.endswith("flushed")  # it waits for the disk
            cost = work_cost(name, paths, pairs=chosen.pairs, clock=by_clock)
            told(f"worker, {name}{', by the clock' * by_clock}: {_told_work(cost)}")
        for backend in chosen.backends:
            told(f"driver, a task that does nothing, {backend}: {_told_dispatch(backend, spans, chosen.pairs)}")
        for name in RUNS:
            told(f"driver, a whole run, {name}: {_told_run(name, paths, spans, chosen.pairs)}")
        for line in _told_receipts(paths, spans):
            told(line)
        for name in CHOICES:
            told(f"choosing, {name}: {_told_choice(name, lines, chosen.pairs)}")
        told(f"files: {_told_files(Path(scratch), spans, min(nbytes, 500_000_000))}")


def measured(name: str, /, **words: Any) -> Any:
    """Measure something in a process of its own."""
    command = [sys.executable, __file__, "--measure", name, json.dumps(words, default=str)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def work_cost(name: str, paths: Sequence[Path], *, pairs: int, at_once: int = 2, clock: bool = False) -> WorkCost:
    """What spans take a worker while so many are at work: a line through small spans and large ones."""
    total = corpora.size_of(list(paths))
    few_and_many = []
    for span_nbytes in (max(min(total // 16, 64 * 1024**2), 2), max(total // 2000, 1)):
        runs = [
            [
                Made(*one)
                for one in measured(
                    "work", name=name, paths=list(map(str, paths)), span_nbytes=span_nbytes, at_once=at_once
                )
            ]
            for _ in range(pairs)
        ]
        few_and_many.append(min(runs, key=lambda run: sum(_seconds(one, clock) for one in run)))
    (few, low), (many, high) = [(len(run), sum(_seconds(one, clock) for one in run)) for run in few_and_many]
    a_span = max((high - low) / max(many - few, 1), 0.0)
    large = few_and_many[0]
    rates = [_seconds(one, clock) / one.nbytes for one in large if one.nbytes == max(each.nbytes for each in large)]
    spread = statistics.stdev(rates) / statistics.mean(rates) if len(rates) > 1 else 0.0
    written = sum(one.written for one in large) / total
    first = max(min((one.first for one in few_and_many[1] if one.first), default=0.0) - a_span, 0.0)
    return WorkCost(a_span, (low - a_span * few) / total * 1e9, written, spread, first)


def _seconds(one: Made, clock: bool) -> float:
    return one.clock if clock else one.processor


def _told_work(cost: WorkCost) -> str:
    return (
        f"{cost.a_gigabyte:.2f} s/GB and {cost.a_span * 1e3:.2f} ms a span, "
        f"{cost.first:.2f} s a worker, {cost.written:.4f} bytes written a byte, large spans vary by {cost.spread:.0%}"
    )


def _work(name: str, paths: list[str], span_nbytes: int, at_once: int) -> list[Made]:
    """Make every span, in processes of which each does every n-th."""
    os.environ["POLARS_MAX_THREADS"] = "1"
    spans: Sequence[Any] = spans_of(find_rollouts(paths)[0], span_nbytes)
    with tempfile.TemporaryDirectory(dir=Path(paths[0]).parent) as folder:
        if WORKS[name][0] is ChosenRows:
            slices = measured("prepare", name=name, paths=paths, span_nbytes=span_nbytes, folder=folder)
            spans = [ChosenSpan(spans[index], tuple(map(tuple, cuts))) for index, cuts in slices]
        context, product = multiprocessing.get_context("fork"), _product(name, folder)
        with context.Pool(at_once, _warm_up, (product, spans[0])) as pool:
            return pool.map(partial(_made, product), spans, chunksize=max(len(spans) // at_once // 8, 1))


_first = [0.0]


def _warm_up(product: Any, span: Any) -> None:
    """Make a span that does not count, so that all is imported."""
    before = time.process_time()
    product.make(span)
    _first[0] = time.process_time() - before


def _product(name: str, folder: str) -> Any:
    kind, settings = WORKS[name]
    if kind is ChosenRows:
        return ChosenRows(options=Options(**settings), folder=folder, chosen=f"{folder}/{CHOSEN}")
    if kind is LineTable:
        return _scan(settings, folder)
    return Rows(options=Options(**settings), folder=folder, most_nbytes=10**9 if name.endswith("flushed") else None)


def _scan(settings: dict[str, Any], folder: str) -> LineTable:
    columns = measured("columns", settings=settings)  # elsewhere, as a process that has Polars cannot be forked
    return LineTable(options=Options(**settings), folder=folder, columns=tuple(columns))


def _columns(settings: dict[str, Any]) -> list[str]:
    from fastsft.selection.criteria import columns_of

    return list(columns_of(Options(**settings), splits=False))


def _made(product: Any, span: Any) -> Made:
    processor, clock = time.process_time(), time.perf_counter()
    receipt = product.make(span)
    seconds = time.process_time() - processor, time.perf_counter() - clock
    first, _first[0] = _first[0], 0.0
    return Made(span.nbytes, *seconds, sum(file.nbytes for file in receipt.files), first)


def _prepare(name: str, paths: list[str], span_nbytes: int, folder: str) -> list[tuple[int, Any]]:
    """Scan, and choose, so that there are lines to convert."""
    from fastsft.pipeline.choosing import choose_lines

    options, (shards, _) = Options(**WORKS[name][1]), find_rollouts(paths)
    spans, ledger, product = spans_of(shards, span_nbytes), Ledger(shards, [], options), _scan(WORKS[name][1], folder)
    for span in spans:
        ledger.take(product.make(span))
    choice = choose_lines(ledger.parts, Path(folder), shards, spans, options, [])
    return [(one.index, one.slices) for one in choice.spans]


def _told_dispatch(backend: str, tasks: int, pairs: int) -> str:
    own, clock = dispatch_cost(backend, tasks, pairs)
    return f"{own * 1e3:.3f} ms of its own, {clock * 1e3:.3f} ms by the clock"


def dispatch_cost(backend: str, tasks: int, pairs: int) -> tuple[float, float]:
    """What a task that does nothing takes the driver, and by the clock, without the start."""
    found = []
    for _ in range(pairs):
        own, clock, few, many = measured("dispatch", backend=backend, tasks=tasks)
        found.append((own / (many - few), clock / (many - few)))
    return min(one[0] for one in found), min(one[1] for one in found)


def _dispatch(backend: str, tasks: int) -> tuple[float, float, int, int]:
    """The driver's own time for many tasks less that for few."""
    few = max(tasks // 10, 2)
    nothing = partial(dict.get, {})  # gives back what it is given, a receipt, wherever it is done
    receipt = Receipt(0, [RangeFates(0, Fates(kept=1))], [Segment("convert-000000.01234567.rows", 1, 1, "0" * 64)])
    before = []
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(_dask_scheduler()) if backend == "dask" else None
        placement = Placement(jobs=2, backend=None if backend == "forked" else backend, address=address)
        workers = stack.enter_context(Workers(placement, nbytes=1 << 40, tasks=tasks))
        list(workers.in_order(nothing, [receipt] * few))  # imports, and workers that have begun
        for count in (few, tasks):
            own, clock = time.process_time(), time.perf_counter()
            assert sum(1 for _ in workers.in_order(nothing, [receipt] * count)) == count
            before.append((time.process_time() - own, time.perf_counter() - clock))
    return before[1][0] - before[0][0], before[1][1] - before[0][1], few, tasks


@contextlib.contextmanager
def _dask_scheduler() -> Iterator[str]:
    """Start a scheduler and two workers, and return the scheduler's address."""
    address = "tcp://127.0.0.1:18786"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dask = [sys.executable, "-m", "dask"]
    scheduler = subprocess.Popen(
        [*dask, "scheduler", "--host", "127.0.0.1", "--port", "18786", "--no-dashboard"], **quiet
    )
    worker = subprocess.Popen(
        [*dask, "worker", address, "--nworkers", "2", "--nthreads", "1", "--no-dashboard"], **quiet
    )
    try:
        while True:  # until it listens
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", 18786), timeout=1).close()
                break
            time.sleep(0.1)
        time.sleep(2)  # until the workers have come
        yield address
    finally:
        worker.terminate()
        scheduler.terminate()
        worker.wait()
        scheduler.wait()


def _told_run(name: str, paths: Sequence[Path], spans: int, pairs: int) -> str:
    own, memory = run_cost(name, paths, spans, pairs)
    return f"{own * 1e3:.3f} ms of its own and {memory:,.0f} bytes of memory a span"


RUNS = {"one file": ("file", "convert"), "shards": ("shards", "convert"), "best-of": ("file", "best-of")}


def run_cost(name: str, paths: Sequence[Path], spans: int, pairs: int) -> tuple[float, float]:
    """What a span takes the driver of a whole run, and how much more memory it has for it."""
    total = corpora.size_of(list(paths))
    output, work = RUNS[name]
    least = []
    for count in (max(spans // 10, 2), spans):
        words = {"paths": list(map(str, paths)), "span_nbytes": max(total // count, 1), "output": output, "work": work}
        found = [measured("run", **words) for _ in range(pairs)]
        least.append([min(values) for values in zip(*found, strict=True)])
    (own, memory, few, _), (more, most, many, _) = least
    return (more - own) / max(many - few, 1), (most - memory) / max(many - few, 1)


def _run(
    paths: list[str], span_nbytes: int, output: str, work: str, jobs: int = 2, backend: str = "forked"
) -> tuple[float, int, int, float]:
    """The driver's own seconds, its peak memory, how many spans there were, and the seconds by the clock."""
    settings = {"convert": {}, "everything": _EVERYTHING, "best-of": {"best_of": 1}}[work]
    settings["backend"] = None if backend == "forked" else backend
    options = Options(jobs=jobs, span_nbytes=span_nbytes, allow_empty=True, **settings)
    with tempfile.TemporaryDirectory(dir=Path(paths[0]).parent) as folder:
        target = f"{folder}/rows.jsonl" if output == "file" else f"{folder}/rows/"
        if output == "shards":
            os.mkdir(target)
        before = time.perf_counter()
        run(paths, target, options)
        clock = time.perf_counter() - before
    own = resource.getrusage(resource.RUSAGE_SELF)
    spans = len(spans_of(find_rollouts(paths)[0], span_nbytes))
    return own.ru_utime + own.ru_stime, own.ru_maxrss * 1024, spans, clock


def _told_receipts(paths: Sequence[Path], spans: int) -> list[str]:
    found = measured("receipts", paths=list(map(str, paths)), spans=spans)
    count = found["spans"]
    return [
        f"receipt of one range: {found['disk'] / count:,.0f} bytes on disk, {found['memory'] / count:,.0f} in memory; "
        f"of {found['wide ranges']:,} ranges: {found['wide disk']:,.0f} and {found['wide memory']:,.0f}",
        f"driver, going on from {count:,} receipts, ms each: {found['take over'] / count * 1e3:.3f} to take over, "
        f"{found['read'] / count * 1e3:.3f} to read; a worker {found['verify'] / count * 1e3:.3f} to verify files of "
        f"{found['rows'] / count:,.0f} bytes; to take into the ledger {found['ledger'] / count * 1e3:.4f}, "
        f"to plan files {found['plan'] / count * 1e3:.4f}",
    ]


def _receipts(paths: list[str], spans: int) -> dict[str, float]:
    """What receipts take to be kept, read and gone on from."""
    shards, _ = find_rollouts(paths)
    cut = spans_of(shards, max(sum(shard.nbytes for shard in shards) // spans, 1))
    options = Options()
    found: dict[str, float] = {"spans": len(cut)}
    with tempfile.TemporaryDirectory(dir=Path(paths[0]).parent) as folder:
        os.mkdir(f"{folder}/rows")

        @contextlib.contextmanager
        def staged() -> Any:
            outputs = Outputs(targets_of(f"{folder}/rows/", [], options), options)
            with outputs.staged({"of": "a benchmark"}):
                yield outputs

        with contextlib.suppress(KeyboardInterrupt), staged() as outputs:
            product = Rows(options=options, folder=str(outputs.folder), fingerprint=outputs.fingerprint)
            for span in cut:
                product.make(span)
            raise KeyboardInterrupt  # so that the receipts stay
        before = time.process_time()
        with staged() as outputs:
            found["take over"] = time.process_time() - before
            sizes = [one.stat().st_size for one in outputs.folder.glob("*.receipt")]
            found["disk"] = sum(sizes)
            known, found["read"] = _timed(lambda: outputs.receipts("convert"))
            found["verify"] = _timed(
                lambda: [digest_of([file.name], outputs.folder) for one in known.values() for file in one.files]
            )[1]
            found["rows"] = sum(file.nbytes for one in known.values() for file in one.files)
            in_order = [known[span.index] for span in cut]
            ledger = Ledger(shards, [], options)
            found["ledger"] = _timed(lambda: [ledger.take(one) for one in in_order])[1]
            segments = [segment for one in in_order for segment in one.segments]
            found["plan"] = _timed(lambda: files_by_size(segments, 1_000_000_000))[1]
        text = msgspec.json.encode(in_order)
        found["memory"] = _memory_of(text, list[Receipt])
        wide = msgspec.structs.replace(in_order[0], ranges=[in_order[0].ranges[0]] * 100)
        text = msgspec.json.encode(wide)
        found |= {"wide ranges": 100, "wide disk": len(text), "wide memory": _memory_of(text, Receipt)}
    return found


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    before = time.process_time()
    done = work()
    return done, time.process_time() - before


def _memory_of(text: bytes, kind: Any) -> int:
    tracemalloc.start()
    value = msgspec.json.decode(text, type=kind)
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del value
    return taken


def _told_choice(name: str, lines: int, pairs: int) -> str:
    seconds, memory, disk = choice_cost(name, lines, pairs)
    return (
        f"{seconds / lines * 1e6:.2f} us, {memory / lines:,.0f} bytes at the peak and {disk / lines:.0f} on disk a line"
    )


def choice_cost(name: str, lines: int, pairs: int) -> tuple[float, float, float]:
    """What choosing from a table of so many lines takes: seconds of the clock, memory, and what the table has on disk.

    Of memory, what a table of a tenth of the lines takes is the start.
    """
    few = [measured("choice", name=name, lines=lines // 10) for _ in range(pairs)]
    many = [measured("choice", name=name, lines=lines) for _ in range(pairs)]
    memory = (min(one[1] for one in many) - min(one[1] for one in few)) / 0.9
    return min(one[0] for one in many), memory, many[0][2]


def _choice(name: str, lines: int) -> tuple[float, int, int]:
    import bench_select
    import polars as pl

    from fastsft.pipeline.choosing import choose_lines
    from fastsft.selection.criteria import columns_of
    from fastsft.selection.table import _dtype

    options = Options(**CHOICES[name])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "scan.arrow")
        writer = [sys.executable, "-c", f"import bench_select as b; b._table({lines}).write_ipc({str(path)!r})"]
        subprocess.run(writer, check=True, cwd=Path(bench_select.__file__).parent)  # its memory is not ours
        # As a scan writes it: its columns alone.
        names = columns_of(options, splits=False)
        with path.open("rb") as file:
            table = pl.scan_ipc(file).select(pl.col(one).cast(_dtype(one)) for one in names)
            table.sink_ipc(Path(folder, "part.arrow"))
        shards = [Shard("rollouts.jsonl", lines * 20_000, 0)]
        parts = [("part.arrow", lines, 0, 0)]
        before = time.perf_counter()
        choose_lines(parts, Path(folder), shards, spans_of(shards), options, [])
        seconds = time.perf_counter() - before
        disk = Path(folder, "part.arrow").stat().st_size
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, disk


def _told_files(folder: Path, count: int, nbytes: int) -> str:
    found = file_costs(folder, count, nbytes)
    small = ", ".join(
        f"{name} {found[name] * 1e6:,.0f} us" for name in ("create", "rename", "flush", "unlink", "piece")
    )
    return f"{small}; hash {found['hash']:.2f} s/GB, hash and copy into a flushed file {found['build']:.2f} s/GB"


def file_costs(folder: Path, count: int, nbytes: int) -> dict[str, float]:
    """Seconds by the clock, for each operation on a small file, and for each gigabyte that is hashed, or copied too.

    A piece is a small segment that becomes a part of a file, and is removed.
    """
    from fastsft.outputs.assembly import FilePlan, Piece, build_file
    from fastsft.storage.files import flush

    names = [folder / f"small-{number}" for number in range(count)]
    costs = {}
    works: dict[str, Callable[[Path], Any]] = {
        "create": lambda path: path.write_bytes(b"receipt"),
        "flush": flush,
        "rename": lambda path: path.replace(f"{path}.new"),
        "unlink": lambda path: os.unlink(f"{path}.new"),
    }
    for name, work in works.items():
        before = time.perf_counter()
        for path in names:
            work(path)
        costs[name] = (time.perf_counter() - before) / count
    for path in names:
        path.write_bytes(b"row")
    small = FilePlan("built", [Piece(Segment(path.name, 1, 3, "")) for path in names])
    before = time.perf_counter()
    build_file(small, folder / "built", folder, None, 1)
    for path in names:
        os.unlink(path)
    costs["piece"] = (time.perf_counter() - before) / count
    large = folder / "large"
    with large.open("wb") as file:
        block = os.urandom(1024**2)
        while file.tell() < nbytes:
            file.write(block)
    size = large.stat().st_size
    plan = FilePlan("built", [Piece(Segment("large", 1, size, ""))])
    for name, hashed in {
        "hash": lambda: digest_of(["large"], folder),
        "build": lambda: build_file(plan, folder / "built", folder, None, 1),
    }.items():
        before = time.perf_counter()
        hashed()
        costs[name] = (time.perf_counter() - before) / size * 1e9
    return costs


def _lines_in(paths: Sequence[Path]) -> int:
    count = 0
    for path in paths:
        with path.open("rb") as file:
            while data := file.read(1024**2):
                count += data.count(b"\n")
    return max(count, 1)


MEASURES: dict[str, Callable[..., Any]] = {
    "work": _work,
    "prepare": _prepare,
    "columns": _columns,
    "dispatch": _dispatch,
    "run": _run,
    "receipts": _receipts,
    "choice": _choice,
}


if __name__ == "__main__":
    main()
