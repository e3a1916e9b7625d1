"""The library's door: the same core as the command, with keywords for options."""

from __future__ import annotations

from fastsft.api.checking import check, verify, write_report
from fastsft.api.reading import index, rows, scan, stats, to_row
from fastsft.api.writing import convert, pairs, publish, tasks

__all__ = [
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
