"""NeMo Gym rollouts -> training rows, in parallel.

The library is the same door as the command:

    >>> import fastsft
    >>> report = fastsft.convert("rollouts/", "sft_data/train.jsonl")  # doctest: +SKIP
    >>> report.fates.kept, report.fates.refused  # of 330 rollouts that NeMo Gym ships  # doctest: +SKIP
    (185, {'bad_json': 5, 'no_output': 5, 'no_assistant_turn': 1})
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastsft.version import __version__

if TYPE_CHECKING:
    from fastsft.api import (
        check,
        convert,
        index,
        pairs,
        publish,
        rows,
        scan,
        stats,
        tasks,
        to_row,
        verify,
        write_report,
    )
    from fastsft.checks.report import CheckReport
    from fastsft.errors import FailedRun, FastsftError, Refused, TooManyRefused, UsageError
    from fastsft.formats import FORMATS
    from fastsft.options import Options
    from fastsft.report import Fates, Progress, Report
    from fastsft.statistics.distribution import Stats
    from fastsft.trainers import TRAINERS

__all__ = [
    "FORMATS",
    "TRAINERS",
    "CheckReport",
    "FailedRun",
    "FastsftError",
    "Fates",
    "Options",
    "Progress",
    "Refused",
    "Report",
    "Stats",
    "TooManyRefused",
    "UsageError",
    "__version__",
    "check",
    "convert",
    "index",
    "pairs",
    "publish",
    "rows",
    "scan",
    "stats",
    "tasks",
    "to_row",
    "verify",
    "write_report",
]

# Imported when they are asked for, so that the command can look after signals before it imports anything.
_HOMES = {
    **dict.fromkeys(
        (
            *("check", "convert", "index", "pairs", "publish", "rows", "scan", "stats", "tasks", "to_row", "verify"),
            "write_report",
        ),
        "api",
    ),
    **dict.fromkeys(("FailedRun", "FastsftError", "Refused", "TooManyRefused", "UsageError"), "errors"),
    **dict.fromkeys(("Fates", "Progress", "Report"), "report"),
    "FORMATS": "formats",
    "CheckReport": "checks.report",
    "Options": "options",
    "Stats": "statistics.distribution",
    "TRAINERS": "trainers",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"fastsft.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
