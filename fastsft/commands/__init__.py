"""What the command can do: words -> values, and what comes of them -> what a person reads. It decides nothing else."""

from __future__ import annotations

from collections.abc import Callable

from fastsft.commands.convert import convert
from fastsft.commands.look import index, show, stats
from fastsft.commands.train import check, nemo_rl

COMMANDS: dict[str, Callable[..., None]] = {
    "convert": convert,
    "index": index,
    "stats": stats,
    "show": show,
    "check": check,
    "nemo-rl": nemo_rl,
}
