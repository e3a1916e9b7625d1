"""Does `simulate.py` foresee how long real runs take, and what their drivers do?

usage: python benchmarks/bench_simulate.py [--size 500MB] [--pairs 3] [--results FOLDER]

Costs are measured as in `bench_constants.py` but by the clock, with one and with two workers at work, in turns with the
runs: with one and two jobs, spans of several sizes, forked and loky's workers, one file and shards, one pass and two.
The least of each counts on both sides. What a span takes the driver comes from a run with other spans.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import corpora
import msgspec
from bench_constants import dispatch_cost, file_costs, measured, work_cost
from simulate import MEASURED, Costs, Pass, Plan, simulate, sizes_of
from timing import Results, arguments

from fastsft.quantities import nbytes_of


class Case(NamedTuple):
    """A run: its jobs, the parts that its input is cut into, and the rest as in `Plan`."""

    jobs: int
    spans: int
    backend: str = "forked"
    output: str = "shards"
    work: str = "convert"

    @property
    def name(self) -> str:
        words = f"{self.work}, {self.jobs} {self.backend}, {self.output}, {self.spans:,} spans"
        return words.replace("1 forked", "1 process")


CASES = [
    Case(1, 32),
    Case(1, 1000),
    Case(2, 8),
    Case(2, 32),
    Case(2, 250),
    Case(2, 2000),
    Case(2, 32, output="file"),
    Case(2, 32, backend="loky"),
    Case(2, 1000, backend="loky"),
    Case(2, 32, work="best-of"),
    Case(2, 1000, work="best-of"),
]


def main() -> None:
    chosen = arguments(__doc__, size="500MB", pairs=3).parse_args()
    results = Results(chosen.results)
    nbytes = nbytes_of(chosen.size)
    cases = CASES if nbytes >= 100_000_000 else CASES[::4]  # at toy size, some of them
    with tempfile.TemporaryDirectory() as scratch:
        paths = corpora.write(Path(scratch, "corpus"), corpora.SHAPES[0], nbytes)
        tiny = corpora.write(Path(scratch, "tiny"), "short", 10_000, shards=1)
        ran: dict[Case, list[tuple[float, float]]] = {case: [] for case in cases}
        costs: dict[int, list[Costs]] = {1: [], 2: []}
        for turn in range(chosen.pairs):
            for jobs in costs:
                costs[jobs].append(_costs(jobs, paths, tiny, Path(scratch, f"files-{turn}-{jobs}"), nbytes))
            for case in cases:
                ran[case].append(_run(case, paths))
        errors = []
        for case in cases:
            cost = _least(costs[case.jobs])
            outcome = simulate(_plan(case, paths), _flushed(cost) if case.output == "shards" else cost)
            clock, own = (min(values) for values in zip(*ran[case], strict=True))
            driver = outcome.driver_seconds
            errors.append(outcome.seconds / clock - 1)
            told = f"{clock:.2f} s by the clock, foreseen {outcome.seconds:.2f} ({errors[-1]:+.0%})"
            if case.jobs > 1:
                told += f"; driver {own:.2f} s, foreseen {driver:.2f} ({driver / own - 1:+.0%})"
            results.add(f"{case.name}: {told}", {})
        near = sum(abs(error) <= 0.2 for error in errors)
        results.add(f"{near} of {len(errors)} by the clock within 20 %, the worst {max(errors, key=abs):+.0%}", {})


def _run(case: Case, paths: list[Path]) -> tuple[float, float]:
    """Seconds by the clock, and the driver's own."""
    own, _, _, clock = measured("run", **_words(case, paths))
    return clock, own


def _words(case: Case, paths: list[Path]) -> dict[str, Any]:
    return {
        "paths": list(map(str, paths)),
        "span_nbytes": max(corpora.size_of(paths) // case.spans, 1),
        "jobs": case.jobs,
        "backend": case.backend,
        "output": case.output,
        "work": case.work,
    }


def _plan(case: Case, paths: list[Path]) -> Plan:
    nbytes = corpora.size_of(paths)
    sizes = sizes_of(nbytes, nbytes // case.spans, files=len(paths))
    backend = case.backend if case.jobs > 1 else "alone"
    return Plan(workers=case.jobs, spans=sizes, work=case.work, backend=backend, output=case.output)


def _costs(jobs: int, paths: list[Path], tiny: list[Path], folder: Path, nbytes: int) -> Costs:
    passes = {}
    for name in ("convert", "convert, flushed", "scan", "chosen"):
        cost = work_cost(name, paths, pairs=1, at_once=jobs, clock=True)
        rows = 0.0 if name == "scan" else cost.written
        passes[name] = Pass(cost.a_gigabyte, cost.a_span, cost.first, operations=0, rows=rows)
    starts, owns = {}, []
    for backend in ("forked", "loky") if jobs > 1 else ("alone",):
        case = Case(jobs, 4, "forked" if backend == "alone" else backend)
        own, _, _, starts[backend] = measured("run", **_words(case, tiny))
        owns.append(own)
    first = Case(jobs, 4, work="best-of")
    choosing = measured("run", **_words(first, tiny))[3] - min(starts.values()) - passes["scan"].first_seconds
    folder.mkdir()
    files = file_costs(folder, 100, min(nbytes, 200_000_000))
    dispatch = {"alone": 0.0}
    if jobs > 1:
        dispatch |= {backend: dispatch_cost(backend, 1000, 1)[0] for backend in ("forked", "loky")}
    return msgspec.structs.replace(
        MEASURED,
        passes=passes,
        start_seconds=starts,
        start_own_seconds=min(owns),
        end_seconds=0.0,
        dispatch=dispatch,
        hash_seconds=files["hash"],
        build_seconds=files["build"],
        copy_seconds=files["build"] - files["hash"],
        choosing_start_seconds=max(choosing, 0.0),
        piece_seconds=files["piece"],
    )


def _least(found: list[Costs]) -> Costs:
    """The least of each cost, as more is noise of neighbours."""

    def least(name: str) -> Any:
        values = [getattr(one, name) for one in found]
        return (
            {key: min(one[key] for one in values) for key in values[0]} if isinstance(values[0], dict) else min(values)
        )

    names = [
        *("start_seconds", "start_own_seconds", "dispatch", "choosing_start_seconds", "piece_seconds"),
        *("hash_seconds", "build_seconds", "copy_seconds"),
    ]
    passes = {name: min((one.passes[name] for one in found), key=_seconds_in_all) for name in found[0].passes}
    return msgspec.structs.replace(found[0], passes=passes, **{name: least(name) for name in names})


def _flushed(cost: Costs) -> Costs:
    """Have segments flushed, which takes time for their bytes too."""
    flush = max(cost.passes["convert, flushed"].seconds_a_span - cost.passes["convert"].seconds_a_span, 0.0)
    passes = cost.passes | {"convert": cost.passes["convert, flushed"]}
    chosen = cost.passes["chosen"]
    passes["chosen"] = msgspec.structs.replace(chosen, seconds_a_span=chosen.seconds_a_span + flush)
    return msgspec.structs.replace(cost, passes=passes, flush_seconds=0.0)


def _seconds_in_all(one: Pass) -> float:
    return one.seconds_a_gigabyte + 1000 * one.seconds_a_span


if __name__ == "__main__":
    main()
