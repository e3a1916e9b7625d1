"""NeMo Gym rollouts -> training rows, in parallel.

The library is the same door as the command:

    >>> import fastsft
    >>> report = fastsft.convert("rollouts/", "sft_data/train.jsonl")  # doctest: +SKIP
    >>> report.fates.kept, report.fates.refused  # of 330 rollouts that NeMo Gym ships  # doctest: +SKIP
    (185, {'bad_json': 5, 'no_output': 5, 'no_assistant_turn': 1})
"""

from fastsft.api import check, convert, index, stats, verify
from fastsft.errors import FailedRun, FastsftError, TooManyRefused, UsageError
from fastsft.formats import FORMATS
from fastsft.options import Options
from fastsft.report import Fates, Progress, Report
from fastsft.version import __version__

__all__ = [
    "FORMATS",
    "FailedRun",
    "FastsftError",
    "Fates",
    "Options",
    "Progress",
    "Report",
    "TooManyRefused",
    "UsageError",
    "__version__",
    "check",
    "convert",
    "index",
    "stats",
    "verify",
]
