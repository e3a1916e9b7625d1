"""Draw the distribution of rewards for people; matplotlib is imported when it is asked for."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastsft.errors import FailedRun, UsageError
from fastsft.inputs.shards import find_shards, is_same_file
from fastsft.statistics.distribution import Bin, Stats, edges_of
from fastsft.storage.files import kind_of
from fastsft.storage.whole import written_whole


def check_plot(path: str, inputs: Sequence[str]) -> None:
    """Make sure that a drawing can be made there.

    Raises:
        UsageError: The name is that of no picture or of an input, the folder is not there, or matplotlib is not
            installed.
    """
    if Path(path).suffix not in (".png", ".svg"):
        raise UsageError(f"a plot is a .png or .svg file, not {path}")
    if kind_of(path) == "other":
        raise UsageError(f"cannot write {path}: it is not a regular file")
    if not Path(path).resolve().parent.is_dir() or Path(path).is_dir():
        raise UsageError(f"cannot write {path}: its folder is not there, or it is one")
    if any(is_same_file(path, shard.path) for shard in find_shards(inputs)[0]):
        raise UsageError(f"{path} is an input and would be overwritten; choose another file")
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise UsageError("a plot needs matplotlib: pip install matplotlib") from None


_KEPT, _BELOW, _LINE = "#1f6fb2", "#b8bcc2", "#454a50"  # those of benchmarks/plot.py
# Else an SVG has random names and the time in it.
_SAME_BYTES: Any = {"svg.hashsalt": "fastsft"}
_NO_DATE: dict[str, dict[str, None]] = {"svg": {"Date": None}, "png": {}}


def draw_plot(stats: Stats, path: str) -> None:
    """Draw the histogram of rewards, and how many rows each threshold would keep.

    Raises:
        FailedRun: It cannot be drawn or written.
    """
    import matplotlib

    with written_whole(Path(path)) as part, warnings.catch_warnings(), matplotlib.rc_context(_SAME_BYTES):
        warnings.simplefilter("ignore", RuntimeWarning)  # said better below
        suffix = Path(path).suffix[1:]
        try:
            _figure(stats).savefig(part, format=suffix, dpi=150, metadata=_NO_DATE[suffix])
        except (ArithmeticError, ValueError) as error:  # of axes that no double can measure
            raise FailedRun(f"cannot draw {path}: {error}; nothing was written") from None


def _figure(stats: Stats) -> Any:
    """Draw the bins as the terminal lists them: all of one width, however far the outermost reach."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.5), layout="constrained")
    rewards, kept = figure.subplots(1, 2, width_ratios=(3, 2))
    edges = edges_of(stats.histogram)
    colours = [_KEPT if high > stats.reward_threshold else _BELOW for _, high in edges]
    labels = [f"{low:.3g} to {high:.3g}" for low, high in edges]
    _bars(rewards, labels, [bar.count for bar in stats.histogram], height=0.85, colours=colours)
    rewards.set_title(f"{stats.rewards.count:,} rewards, and how many lines have each", loc="left")
    at = _place_of(stats.reward_threshold, stats.histogram)
    if at is not None:
        rewards.axhline(at, color=_LINE, linewidth=0.8)
        rewards.annotate(
            f"threshold {stats.reward_threshold:g}",
            (1, at),
            xycoords=("axes fraction", "data"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=8,
            color=_LINE,
        )
    colours = [_KEPT if float(threshold) == stats.reward_threshold else _BELOW for threshold in stats.kept]
    _bars(kept, [f"{threshold}" for threshold in stats.kept], list(stats.kept.values()), height=0.4, colours=colours)
    kept.set_title("rows that a threshold keeps, at most", loc="left")
    return figure


def _bars(axes: Any, labels: Sequence[str], counts: Sequence[int], *, height: float, colours: Sequence[str]) -> None:
    """Draw a bar for each count, lowest at the bottom, with the count at its end."""
    positions = range(len(counts))
    bars = axes.barh(positions, counts, height=height, color=colours)
    axes.bar_label(bars, [f"{count:,}" if count else "" for count in counts], padding=3, fontsize=8)
    axes.set_yticks(positions, labels, fontsize=8)
    axes.margins(x=0.3, y=0.01)
    axes.xaxis.set_visible(False)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(_BELOW)
    axes.tick_params(axis="y", length=0)


def _place_of(value: float, bins: Sequence[Bin]) -> float | None:
    """Find where a value stands among bars of one width; None where it lies beyond them."""
    for index, (low, high) in enumerate(edges_of(bins)):
        if low <= value <= high:
            return index - 0.5 + (value - low) / ((high - low) or 1.0)
    return None
