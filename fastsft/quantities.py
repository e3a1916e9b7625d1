"""Words -> values: sizes, shares, samples, bands, lists."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from fractions import Fraction

from fastsft.errors import UsageError

_UNITS = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGT", 1):
    _UNITS |= {_letter: 1000**_power, f"{_letter}B": 1000**_power, f"{_letter}IB": 1024**_power}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_REFUSED_LIMIT = re.compile(r"(\d+)|(\d+(?:\.\d+)?)%")
_PART = re.compile(r"(\d{1,6})/(\d{1,6})")
_SAMPLE = re.compile(r"(\d{1,18})|(\d{1,3}(?:\.\d{1,6})?)%")  # so that no product goes beyond 64 bits


def words_of(words: str | Iterable[str]) -> tuple[str, ...]:
    """Read a list: words, or several in one with commas between.

    >>> words_of("masked, failed"), words_of(["masked,failed", "unverified"])
    (('masked', 'failed'), ('masked', 'failed', 'unverified'))
    """
    texts = [words] if isinstance(words, str) else words
    return tuple(word.strip() for text in texts for word in str(text).split(","))


def sample_of(sample: int | str) -> tuple[int, Fraction | None]:
    """Read a sample: a number of lines and None, or 0 and a share of them.

    >>> sample_of("1000"), sample_of("2.5%")
    ((1000, None), (0, Fraction(1, 40)))

    Raises:
        UsageError: It is neither.
    """
    match = _SAMPLE.fullmatch(str(sample))
    if match is None or (match[2] and Fraction(match[2]) > 100):
        raise UsageError(f"a sample is a number of lines or a share of them, as 10000 or 10%, not {sample!r}")
    return (int(match[1]), None) if match[1] else (0, Fraction(match[2]) / 100)


def part_of(text: str) -> tuple[int, int]:
    """Read which part of how many, as `3/16`; `auto` asks Slurm, whose array says it in the environment.

    >>> part_of("3/16")
    (3, 16)

    Raises:
        UsageError: It is none.
    """
    if text == "auto":
        names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MAX")
        said = [os.environ.get(name, "") for name in names]
        if not all(word.isdecimal() for word in said):
            raise UsageError("--part auto is for a job array of Slurm, which sets SLURM_ARRAY_TASK_ID and its like")
        task, first, count, last = map(int, said)
        step = (last - first) // (count - 1) if count > 1 else 1
        return (task - first) // step + 1, count
    match = _PART.fullmatch(text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"a part is one of how many, as 3/16, or auto, not {text!r}")
    return int(match[1]), int(match[2])


def share_of(text: str) -> float:
    """Read a share: `0.05` or `5%`.

    Raises:
        UsageError: It is none.
    """
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise UsageError(f"a share is a number between 0 and 1 or a percentage, as 0.05 or 5%, not {text!r}") from None


def pass_rate_of(text: str) -> tuple[float, float]:
    """Read a band of pass rates, as `0.1:0.9`.

    Raises:
        UsageError: It is none.
    """
    try:
        low, high = map(float, text.split(":"))
    except ValueError:
        raise UsageError(f"a pass rate is two shares of 0 to 1, as 0.1:0.9, not {text!r}") from None
    return low, high


def length_ratio_of(text: str) -> tuple[float, float]:
    """Read a band of ratios, as `0.5:2`.

    Raises:
        UsageError: It is none.
    """
    try:
        low, high = map(float, text.split(":"))
    except ValueError:
        raise UsageError(f"a ratio of lengths is two numbers from 0, as 0.5:2, not {text!r}") from None
    return low, high


def nbytes_of(size: str) -> int:
    """Read a size with or without a unit: `1000`, `500MB`, `1.5GB` (powers of 1000), `64MiB` (of 1024).

    >>> nbytes_of("1.5 kB"), nbytes_of("64MiB")
    (1500, 67108864)

    Raises:
        UsageError: It is not a size.
    """
    match = _SIZE.fullmatch(size.strip())
    if match is None or match[2].upper() not in _UNITS:
        raise UsageError(f"not a size: {size!r}; write it as 500MB, 1.5GB or 64MiB")
    return int(Fraction(match[1]) * _UNITS[match[2].upper()])


def refused_limit_of(limit: int | str) -> tuple[int, Fraction | None]:
    """Read a limit of refused lines: a count and None, or 0 and a share of the lines that are not blank.

    Raises:
        UsageError: It is neither.
    """
    match = _REFUSED_LIMIT.fullmatch(str(limit))
    if match is None:
        raise UsageError(f"the limit of refused lines is a count or a share, as 100 or 1%, not {limit!r}")
    return (int(match[1]), None) if match[1] is not None else (0, Fraction(match[2]) / 100)
