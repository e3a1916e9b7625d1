"""Pictures of kept results: throughput by shape and tool, and time per gigabyte as the input grows.

usage: python benchmarks/plot.py RESULTS_FOLDER
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from pathlib import Path

from matplotlib import pyplot

_FROM, _BELOW = 900, 2000  # MB: about 1 GB, as smaller runs are mostly start-up
_HEAD = re.compile(r"(\w+), ([\d,]+) MB")


def results_of(path: Path) -> list[tuple[str, float, dict[str, float]]]:
    """Give shape, megabytes, and median seconds by tool, for each result that has them."""
    found = []
    for result in json.loads(path.read_text())["results"]:
        if result["seconds"] and (head := _HEAD.match(result["line"])):
            seconds = {name: statistics.median(values) for name, values in result["seconds"].items()}
            found.append((head[1], float(head[2].replace(",", "")), seconds))
    return found


def plot_throughput(results: list[tuple[str, float, dict[str, float]]], path: Path) -> None:
    """Draw a group of bars for each shape, a bar for each tool."""
    names = list(dict.fromkeys(name for _, _, seconds in results for name in seconds))
    _, axes = pyplot.subplots(figsize=(9, 4))
    width = 0.8 / len(names)
    for index, name in enumerate(names):
        positions = [position + index * width for position, (_, _, seconds) in enumerate(results) if name in seconds]
        rates = [megabytes / seconds[name] for _, megabytes, seconds in results if name in seconds]
        axes.bar(positions, rates, width, label=name)
    middles = [position + 0.4 - width / 2 for position in range(len(results))]
    axes.set_xticks(middles, [shape for shape, _, _ in results])
    axes.set_ylabel("MB of rollouts a second")
    axes.set_title("Whole runs of each tool on the same rollouts, by shape")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)  # beside the bars, as it would hide some
    pyplot.savefig(path, bbox_inches="tight")


def plot_growth(results: list[tuple[str, float, dict[str, float]]], path: Path) -> None:
    """Draw time per gigabyte against size."""
    _, axes = pyplot.subplots(figsize=(6, 4))
    sizes = [megabytes / 1000 for _, megabytes, _ in results]
    axes.plot(sizes, [seconds["fastsft"] / size for size, (_, _, seconds) in zip(sizes, results, strict=True)], "o-")
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:.2g}" for size in sizes])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("GB of rollouts")
    axes.set_ylabel("s/GB")
    axes.set_title("Time per gigabyte, whole runs")
    pyplot.savefig(path, bbox_inches="tight")


def main() -> None:
    folder = Path(sys.argv[1])
    pyplot.rcParams["svg.hashsalt"] = "fastsft"  # the same numbers give the same file
    end_to_end: dict[str, tuple[str, float, dict[str, float]]] = {}
    for path in sorted(folder.glob("bench_end_to_end*.json")):
        for shape, megabytes, seconds in results_of(path):
            if _FROM <= megabytes < _BELOW:  # of a shape's tool that is in two files, the first counts
                _, _, before = end_to_end.get(shape, (shape, megabytes, {}))
                end_to_end[shape] = (shape, megabytes, {**seconds, **before})
    plot_throughput(list(end_to_end.values()), folder / "throughput.svg")
    plot_growth(results_of(folder / "bench_growth.json"), folder / "growth.svg")


if __name__ == "__main__":
    main()
