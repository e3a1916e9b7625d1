"""Draw the distribution of rewards for people; matplotlib is imported when it is asked for."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastsft.distribution import Stats
from fastsft.errors import FailedRun, UsageError
from fastsft.shards import find_shards, is_same_file
from fastsft.write import written_whole


def check_plot(path: str, inputs: Sequence[str]) -> None:
    """Make sure that a drawing can be made there.

    Raises:
        UsageError: The name is that of no picture or of an input, the folder is not there, or matplotlib is not
            installed.
    """
    if Path(path).suffix not in (".png", ".svg"):
        raise UsageError(f"a plot is a .png or .svg file, not {path}")
    if not Path(path).resolve().parent.is_dir() or Path(path).is_dir():
        raise UsageError(f"cannot write {path}: its folder is not there, or it is one")
    if any(is_same_file(path, shard.path) for shard in find_shards(inputs)[0]):
        raise UsageError(f"{path} is an input and would be overwritten; choose another file")
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise UsageError("a plot needs matplotlib: pip install matplotlib") from None


def draw_plot(stats: Stats, path: str) -> None:
    """Draw the histogram of rewards, and how many rows each threshold would keep.

    Raises:
        FailedRun: It cannot be drawn or written.
    """
    with written_whole(Path(path)) as part, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # said better below
        try:
            _figure(stats).savefig(part, format=Path(path).suffix[1:], dpi=150)
        except (ArithmeticError, ValueError) as error:  # of axes that no double can measure
            raise FailedRun(f"cannot draw {path}: {error}; nothing was written") from None


def _figure(stats: Stats) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    rewards, kept = figure.subplots(1, 2)
    rewards.bar(
        [bar.low for bar in stats.histogram],
        [bar.count for bar in stats.histogram],
        width=[bar.high - bar.low for bar in stats.histogram],
        align="edge",
        color="#4878a8",
    )
    rewards.axvline(stats.reward_threshold, color="#b04040", linewidth=1, label=f"threshold {stats.reward_threshold:g}")
    rewards.set(title=f"{stats.rewards.count:,} rewards", xlabel="reward", ylabel="rollouts")
    rewards.legend(frameon=False)
    kept.bar(list(stats.kept), list(stats.kept.values()), color="#4878a8")
    kept.set(title="rows that a threshold would keep", xlabel="threshold", ylabel="rows")
    for axes in (rewards, kept):
        axes.spines[["top", "right"]].set_visible(False)
    return figure
