"""All settings of a run in one frozen struct, checked once, when it is built."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import msgspec

from fastsft.errors import UsageError
from fastsft.formats import CHOICES, FORMATS, TRAINERS
from fastsft.formats.row import Layout
from fastsft.storage.compression import SUFFIXES

DEFAULT_SHARD_NBYTES = 1_000_000_000
DEFAULT_MAX_LINE_NBYTES = 256_000_000
INDEX_NAME = "fastsft.index.parquet"  # where an index is found by itself, beside the first shard

_UNITS = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGT", 1):
    _UNITS |= {_letter: 1000**_power, f"{_letter}B": 1000**_power, f"{_letter}IB": 1024**_power}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_REFUSED_LIMIT = re.compile(r"(\d+)|(\d+(?:\.\d+)?)%")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

_SAMPLE = re.compile(r"(\d{1,18})|(\d{1,3}(?:\.\d{1,6})?)%")  # so that no product goes beyond 64 bits
# What a line can say of itself that keeps it out; `allow` lets it in. The order is that of asking.
GATES = ("masked", "failed", "unverified", "incomplete", "no_generation", "no_user_turn")

UNTRAINABLE = "untrainable:"  # begins the reason of rows in which `check` finds a fault; its name follows

_OF_NO_BYTE = ("jobs", "span_nbytes", "fresh", "verify_inputs")  # settings that never change a byte of what is written
LAYOUT_CHOICES = {
    "arguments": ("object", "string"),
    "reasoning": ("field", "think", "drop"),
    "loss": ("own",),
    "tools": ("list", "string"),
    "trainer": TRAINERS,
}
_FLAGS = {"trainer": "for"}  # options of the command that are called otherwise


class Split(msgspec.Struct, frozen=True):
    """One more output of a run: where, and the share of the tasks that goes there instead of to the main one."""

    output: str
    share: float


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is asked to do, but for its inputs and its output.

    Attributes:
        format: The layout of the rows, a name in `fastsft.FORMATS`.
        arguments: For `chat`: arguments of calls as an `object` (if None) or a JSON `string`.
        reasoning: For `chat`: reasoning in a `field` of its own (if None), in `think` tags, or `drop`.
        loss: `own` marks the turns that the model sampled; None marks nothing. Not for `simple`.
        tools: Tools as a `list` (if None), or as one JSON `string`. Not for `simple`.
        trainer: The trainer whose loader is to read the rows: images in the form that it reads.
        reward_threshold: Keep rollouts with reward >= this; no unit, any finite number.
        max_reward: Keep rollouts with reward <= this; None for no limit.
        allow: Gates to lift, from `GATES`, or `all`.
        where: Keep lines of which this SQL expression over the table's columns is true.
        max_tokens: Keep what has no more tokens, as recorded with the rollout; what has an unknown number, too.
        template: A chat template, for `trainable`; the folder of a tokenizer, for `max_tokens` of the rendered row.
        trainable: Leave out rows in which `check` finds a fault, with `template` those that it finds there, too.
        pass_rate: Keep tasks whose share of rollouts at or above the threshold lies between these two, both included.
        dedup: Keep the first of rows with the same content, within and across tasks.
        best_of: Keep this many of a task: the highest rewards, then fewer tokens, then fewer bytes, then the earlier.
        per_task: Keep at most this many of a task, at random.
        per_agent: Keep at most this many of an agent, at random.
        sample: Keep a number of lines, or a share as in `10%`, at random.
        seed: What the random choices depend on, beside the input.
        allow_empty: Publish no rows where none are kept, instead of failing.
        max_refused: Fail if more lines are refused: a count, or a share of the
            lines that are not blank, as in `1%`. None for no limit.
        shards: Write this many shards of nearly equal row counts.
        shard_nbytes: Write shards of at most this many bytes; a longer row has one of its own.
        name: What the names of shards begin with.
        compress: Compress the rows: `gz` or `zst`. None leaves it to the suffix of the output.
        max_line_nbytes: Refuse longer lines unread, in bytes.
        jobs: Worker processes; 1 stays in this process; None for all cores where that pays.
            Never changes a byte of what is written.
        fresh: Begin anew, though a run that died left something to go on from.
        verify_inputs: Hash the inputs, so that a run goes on only from spans whose bytes are the same.
        span_nbytes: Bytes of input in a span; None for what follows from the size of the input. Shards of a run hold
            whole spans; otherwise it never changes a byte of what is written.
    """

    format: str = "openai"
    arguments: str | None = None
    reasoning: str | None = None
    loss: str | None = None
    tools: str | None = None
    trainer: str | None = None
    reward_threshold: float = 0.95
    max_reward: float | None = None
    allow: tuple[str, ...] = ()
    where: str | None = None
    max_tokens: int | None = None
    template: str | None = None
    trainable: bool = False
    pass_rate: tuple[float, float] | None = None
    dedup: bool = False
    best_of: int | None = None
    per_task: int | None = None
    per_agent: int | None = None
    sample: int | str | None = None
    seed: int = 0
    allow_empty: bool = False
    max_refused: int | str | None = None
    shards: int | None = None
    shard_nbytes: int | None = None
    name: str = "train"
    compress: str | None = None
    max_line_nbytes: int = DEFAULT_MAX_LINE_NBYTES
    jobs: int | None = None
    fresh: bool = False
    verify_inputs: bool = False
    span_nbytes: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, naming what can.

        Raises:
            UsageError: A value is out of its range, or two contradict each other.
        """
        if self.format not in FORMATS:
            raise UsageError(f"no format named {self.format!r}; there are: {', '.join(FORMATS)}")
        for name, values in LAYOUT_CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in values:
                raise UsageError(f"no {_FLAGS.get(name, name)} named {value!r}; there are: {', '.join(values)}")
            if value is not None and name not in CHOICES[self.format]:
                able = [other for other in FORMATS if name in CHOICES[other]]
                raise UsageError(
                    f"--{_FLAGS.get(name, name)} belongs to the format {' or '.join(able)}, and this is {self.format}"
                )
        if not math.isfinite(self.reward_threshold):
            raise UsageError(f"the reward threshold must be a finite number, not {self.reward_threshold}")
        if self.max_reward is not None and not self.max_reward >= self.reward_threshold:
            raise UsageError(
                f"no reward lies between the threshold {self.reward_threshold} and the maximum {self.max_reward}"
            )
        if self.pass_rate is not None and not 0 <= self.pass_rate[0] <= self.pass_rate[1] <= 1:
            raise UsageError("a pass rate lies between two shares of 0 to 1, the smaller first, as 0.1:0.9")
        if self.template is not None and self.max_tokens is None and not self.trainable:
            raise UsageError("--template is for --max-tokens and --trainable, and neither is given")
        if self.sample is not None:
            sample_of(self.sample)
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
            (self.max_tokens, "most tokens"),
            (self.best_of, "number of the best"),
            (self.per_task, "most of a task"),
            (self.per_agent, "most of an agent"),
            (self.span_nbytes, "span size"),
        ):
            if value is not None and value < 1:
                raise UsageError(f"the {what} must be at least 1, not {value}")
        if not _NAME.fullmatch(self.name):
            raise UsageError(f"a shard name has letters, digits, '.', '_' and '-' alone, not {self.name!r}")

    def shown(self) -> dict[str, Any]:
        """Give the settings that what is written depends on, by name, for the report."""
        settings = {name: value for name, value in msgspec.to_builtins(self).items() if name not in _OF_NO_BYTE}
        chosen = {
            name: getattr(self.layout, name) if name in CHOICES[self.format] else None
            for name in ("arguments", "reasoning", "tools")
        }
        return settings | chosen | {"allow": sorted(self.allow)}

    @property
    def layout(self) -> Layout:
        """What is chosen about the layout."""
        return Layout(
            self.arguments or "object", self.reasoning or "field", self.loss, self.tools or "list", self.trainer
        )

    @property
    def gates(self) -> tuple[str, ...]:
        """List the gates that are closed, in the order of asking."""
        return tuple(gate for gate in GATES if not {gate, "all"} & set(self.allow))

    @property
    def judges_rows(self) -> bool:
        """Tell whether rows themselves are judged, which an index knows nothing of."""
        return self.template is not None or self.trainable

    @property
    def may_compare(self) -> bool:
        """Tell whether a criterion is asked for that may compare lines; which do, `selection.criteria` says."""
        asked = (self.where, self.pass_rate, self.best_of, self.per_task, self.per_agent, self.sample)
        return self.dedup or any(value is not None for value in asked)

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


def gates_of(allow: str | Iterable[str]) -> tuple[str, ...]:
    """Read which gates to lift: words, or several in one with commas between.

    >>> gates_of("masked, failed"), gates_of(["masked,failed", "unverified"])
    (('masked', 'failed'), ('masked', 'failed', 'unverified'))
    """
    several = [allow] if isinstance(allow, str) else allow
    return tuple(gate.strip() for words in several for gate in str(words).split(","))


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
