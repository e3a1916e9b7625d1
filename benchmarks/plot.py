"""Pictures of kept results: seconds for a gigabyte by shape and tool, and as the input grows.

usage: python benchmarks/plot.py RESULTS_FOLDER

One colour for fastsft and grey for the others, each bar with its name and its value beside it. A tool that cannot do
a shape, or was not run on it, says so where its bar would be.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

import peers
from matplotlib import pyplot

_FROM, _BELOW = 900, 2000  # MB: about 1 GB, as smaller runs are mostly start-up
_OURS, _OTHERS, _FAINT = "#1f6fb2", "#b8bcc2", "#767b82"
_SAME_BYTES: Any = {"svg.hashsalt": "fastsft", "font.size": 9}  # the same numbers give the same file
_TOOLS = {  # by their names in results, as a reader knows them
    "fastsft": "fastsft",
    "json": "Python, one process",
    "orjson-pool": "Python and orjson, all cores",
    "datasets": "Hugging Face datasets",
    "datatrove": "datatrove",
    "jq": "jq",
    "polars": "Polars",
    "duckdb": "DuckDB",
    "reference": "NeMo Gym's own script",
}
_SHAPES = {
    "real": "Real rollouts of many environments",
    "page": "Real ones in the layout of the guide",
    "mixed": "Generated, of every kind",
    "short": "Short questions and answers",
    "tools": "40 tool calls in each",
    "tokens": "Long lines, mostly token ids",
    "unicode": "Text that is not ASCII",
}
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
    """Draw a panel for each shape, a bar for each tool, shorter for faster."""
    results = sorted(results, key=lambda one: list(_SHAPES).index(one[0]))
    tools = [name for name in _TOOLS if any(name in seconds for _, _, seconds in results)]
    rows = -(-len(results) // 2)
    figure, panels = pyplot.subplots(
        rows, 2, figsize=(9.4, rows * (0.8 + 0.27 * len(tools))), layout="constrained", sharex=True, squeeze=False
    )
    most = max(time / size * 1000 for _, size, seconds in results for time in seconds.values())
    for axes, (shape, megabytes, seconds) in zip(panels.flat, results, strict=False):
        axes.set_title(_SHAPES[shape], loc="left", fontsize=10, fontweight="bold")
        for position, name in enumerate(reversed(tools)):
            _draw_bar(axes, position, seconds[name] / megabytes * 1000 if name in seconds else None, name, shape)
        axes.set_yticks(range(len(tools)), [_TOOLS[name] for name in reversed(tools)])
        axes.get_yticklabels()[-1].set(color=_OURS, fontweight="bold")
        axes.set_xlim(0, most * 1.15)
        _bare(axes)
    for axes in panels.flat[len(results) :]:
        axes.set_visible(False)
    title = "Seconds for 1 GB, whole runs of each tool on the same machine; shorter is better"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08, hspace=0.04)
    _save(figure, path)


def _draw_bar(axes: Any, position: int, seconds: float | None, name: str, shape: str) -> None:
    """Draw one bar with its value behind it, or why there is none."""
    is_ours = name == "fastsft"
    axes.barh(position, seconds or 0, height=0.72, color=_OURS if is_ours else _OTHERS)
    if seconds is None:
        can = shape in peers.SHAPES.get(name, {shape})
        axes.annotate("not run" if can else "cannot do this", (0, position), xytext=(3, 0), **_BESIDE, **_MISSING)
        return
    style = {"color": _OURS, "fontweight": "bold"} if is_ours else {"color": "black"}
    axes.annotate(f"{seconds:.2f} s", (seconds, position), xytext=(4, 0), **_BESIDE, **style)


_BESIDE: Any = {"textcoords": "offset points", "va": "center"}
_MISSING: Any = {"color": _FAINT, "fontstyle": "italic"}


def _bare(axes: Any) -> None:
    """Take away what values beside their bars make needless."""
    axes.xaxis.set_visible(False)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(_OTHERS)
    axes.tick_params(axis="y", length=0)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def plot_growth(results: list[tuple[str, float, dict[str, float]]], path: Path) -> None:
    """Draw time per gigabyte against size."""
    figure, axes = pyplot.subplots(figsize=(6.2, 2.6), layout="constrained")
    sizes = [megabytes / 1000 for _, megabytes, _ in results]
    times = [seconds["fastsft"] / size for size, (_, _, seconds) in zip(sizes, results, strict=True)]
    axes.plot(sizes, times, "o-", color=_OURS)
    for size, time in zip(sizes, times, strict=True):
        style: Any = {"color": _OURS, "fontweight": "bold", "textcoords": "offset points"}
        axes.annotate(f"{time:.2f} s", (size, time), xytext=(0, 7), ha="center", **style)
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:.2g} GB" for size in sizes])
    axes.minorticks_off()
    axes.set_xlim(sizes[0] * 0.8, sizes[-1] * 1.25)
    axes.set_ylim(0, max(times) * 1.25)
    axes.yaxis.set_visible(False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_OTHERS)
    axes.tick_params(axis="x", length=0)
    axes.set_title("Seconds for each GB of real rollouts, as the input grows", loc="left", fontsize=10)
    _save(figure, path)


def main() -> None:
    folder = Path(sys.argv[1])
    pyplot.rcParams.update(_SAME_BYTES)
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
