"""All settings of a run in one frozen struct, checked once, when it is built."""

from __future__ import annotations

import math
import re
from fractions import Fraction

import msgspec

from fastsft.compression import SUFFIXES
from fastsft.errors import UsageError
from fastsft.formats import FORMATS

DEFAULT_SHARD_NBYTES = 1_000_000_000
DEFAULT_MAX_LINE_NBYTES = 256_000_000

_UNITS = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGT", 1):
    _UNITS |= {_letter: 1000**_power, f"{_letter}B": 1000**_power, f"{_letter}IB": 1024**_power}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_REFUSED_LIMIT = re.compile(r"(\d+)|(\d+(?:\.\d+)?)%")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

# The gates that `allow` lifts. None closes anything yet, so for now the words are only checked.
GATES = ("masked", "failed", "unverified", "incomplete")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is asked to do, but for its inputs and its output.

    Attributes:
        format: The layout of the rows, a name in `fastsft.FORMATS`.
        reward_threshold: Keep rollouts with reward >= this; no unit, any finite number.
        allow: Gates to lift, from `GATES`, or `all`.
        max_refused: Fail if more lines are refused: a count, or a share of the
            lines that are not blank, as in `1%`. None for no limit.
        shards: Write this many shards of nearly equal row counts.
        shard_nbytes: Write shards of at most this many bytes; a longer row has one of its own.
        name: What the names of shards begin with.
        compress: Compress the rows: `gz` or `zst`. None leaves it to the suffix of the output.
        max_line_nbytes: Refuse longer lines unread, in bytes.
        jobs: Worker processes; 1 stays in this process; None for all cores where that pays.
            Never changes a byte of what is written.
        chunk_nbytes: Bytes of input that are converted at once. Never changes a byte of what is written.
    """

    format: str = "openai"
    reward_threshold: float = 0.95
    allow: tuple[str, ...] = ()
    max_refused: int | str | None = None
    shards: int | None = None
    shard_nbytes: int | None = None
    name: str = "train"
    compress: str | None = None
    max_line_nbytes: int = DEFAULT_MAX_LINE_NBYTES
    jobs: int | None = None
    chunk_nbytes: int = 16 * 1024 * 1024

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, naming what can.

        Raises:
            UsageError: A value is out of its range, or two contradict each other.
        """
        if self.format not in FORMATS:
            raise UsageError(f"no format named {self.format!r}; there are: {', '.join(FORMATS)}")
        if not math.isfinite(self.reward_threshold):
            raise UsageError(f"the reward threshold must be a finite number, not {self.reward_threshold}")
        for gate in self.allow:
            if gate not in (*GATES, "all"):
                raise UsageError(f"nothing to allow named {gate!r}; there are: {', '.join(GATES)}, all")
        if self.max_refused is not None and not _REFUSED_LIMIT.fullmatch(str(self.max_refused)):
            raise UsageError(
                f"the limit of refused lines is a count or a share, as 100 or 1%, not {self.max_refused!r}"
            )
        if self.compress not in (None, *SUFFIXES):
            raise UsageError(f"no compression named {self.compress!r}; there are: {', '.join(SUFFIXES)}")
        if self.shards is not None and self.shard_nbytes is not None:
            raise UsageError("shards are cut by count or by size, not by both")
        for value, what in (
            (self.shards, "number of shards"),
            (self.shard_nbytes, "shard size"),
            (self.max_line_nbytes, "longest line"),
            (self.jobs, "number of jobs"),
            (self.chunk_nbytes, "chunk size"),
        ):
            if value is not None and value < 1:
                raise UsageError(f"the {what} must be at least 1, not {value}")
        if not _NAME.fullmatch(self.name):
            raise UsageError(f"a shard name has letters, digits, '.', '_' and '-' alone, not {self.name!r}")

    def shown(self) -> dict[str, str | int | float | list[str] | None]:
        """Give the settings that what is written depends on, by name, for the report."""
        return {
            "format": self.format,
            "reward_threshold": self.reward_threshold,
            "allow": sorted(self.allow),
            "max_refused": self.max_refused,
            "shards": self.shards,
            "shard_nbytes": self.shard_nbytes,
            "name": self.name,
            "compress": self.compress,
            "max_line_nbytes": self.max_line_nbytes,
        }

    def refuses_too_many(self, refused: int, lines: int | None) -> bool:
        """Tell whether so many refused among so many lines that are not blank exceed `max_refused`.

        With `lines` None, before all are known, only a count can be exceeded.
        """
        match _REFUSED_LIMIT.fullmatch(str(self.max_refused)):
            case None:
                return False
            case limit if limit[1] is not None:
                return refused > int(limit[1])
            case limit:
                return lines is not None and refused > Fraction(limit[2]) / 100 * lines


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
