"""What does a task that does nothing cost the process that drives a run, on each kind of worker?

usage: python benchmarks/bench_backends.py [--tasks 1000] [--pairs 5] [--results FOLDER]

The driver's own processor time for each task, all its threads counted, at a tenth of the tasks and at all of them: the
difference is what a task costs, without the start. So are the seconds of waiting, with two workers. `--size` is not
looked at. Ray and Dask are left out where they are not installed, and are started on this machine.
"""

from __future__ import annotations

import contextlib
import importlib.util
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

from timing import Results, arguments

BACKENDS = {"forked": None, "loky": None, "ray": "ray", "dask": "distributed"}
SCRIPT = """
import operator, sys, time
from fastsft.execution import workers

if __name__ == "__main__":
    backend, address, *counts = sys.argv[1:]
    placement = workers.Placement(jobs=2, backend=None if backend == "forked" else backend, address=address or None)
    with workers.Workers(placement, nbytes=0, tasks=max(map(int, counts))) as two:
        list(two.in_order(operator.add, [0] * 100))
        for count in map(int, counts):
            used, began = time.process_time(), time.perf_counter()
            assert list(two.in_order(operator.add, [0] * count)) == list(range(count))
            print(time.process_time() - used, time.perf_counter() - began)
"""


SCHEDULER = """
import distributed, sys
if __name__ == "__main__":
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as here:
        print(here.scheduler_address, flush=True)
        sys.stdin.read()
"""


class Cost(NamedTuple):
    """What a task costs, in milliseconds: processor time of the driver, and time that passes."""

    driver: float
    passed: float


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--tasks", type=int, default=1000, help="how many (default: %(default)s)")
    chosen = parser.parse_args()
    results = Results(chosen.results)
    present = [name for name, module in BACKENDS.items() if module is None or importlib.util.find_spec(module)]
    costs: dict[str, list[Cost]] = {name: [] for name in present}
    for _ in range(chosen.pairs):
        for name in present:
            costs[name].append(cost_of(name, chosen.tasks))
    for name, measured in costs.items():
        driver, passed = (statistics.median(values) for values in zip(*measured, strict=True))
        low, high = min(cost.driver for cost in measured), max(cost.driver for cost in measured)
        line = f"{name}: {driver:.2f} ms of the driver for a task ({low:.2f} to {high:.2f}), {passed:.2f} ms pass"
        results.add(line, {})
    for name in BACKENDS.keys() - costs.keys():
        results.add(f"{name}: not installed", {})


@contextlib.contextmanager
def address_for(name: str) -> Iterator[str]:
    """Have a cluster where that is not started by the driver: its scheduler's work is not the driver's."""
    if name != "dask":
        yield "local" if name == "ray" else ""
        return
    command = [sys.executable, "-c", SCHEDULER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as scheduler:
        assert scheduler.stdout is not None
        yield scheduler.stdout.readline().strip()
        scheduler.communicate()


def cost_of(name: str, tasks: int) -> Cost:
    """Run tasks in a new process."""
    few = max(tasks // 10, 1)
    with address_for(name) as address:
        command = [sys.executable, "-c", SCRIPT, name, address, str(few), str(tasks)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    before, after = (map(float, line.split()) for line in done.stdout.splitlines()[-2:])
    return Cost(*(1000 * (of_many - of_few) / (tasks - few) for of_few, of_many in zip(before, after, strict=True)))


if __name__ == "__main__":
    main()
