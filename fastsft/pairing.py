"""The settings of a run that compares rollouts: which of them are a pair, and in which turns."""

from __future__ import annotations

import math
from typing import Annotated, Any

import msgspec

from fastsft.errors import UsageError
from fastsft.formats.pairs import PAIR_FORMATS, TURNS, PairFormat
from fastsft.quantities import length_ratio_of
from fastsft.settings import Setting, check_values, flag_in, settings_of

_THRESHOLD = 0.95  # of good rows of KTO, as in `convert`
_LEAST_GAP = 1e-9


class Pairing(msgspec.Struct, frozen=True, kw_only=True):
    """How rollouts are compared; `help(fastsft.pairs)` says what each is.

    `high_threshold` and `low_threshold` are of a strategy that is refused, so nothing depends on them.
    """

    format: Annotated[
        str,
        Setting(
            panel="rows",
            help=f"Lay rows out for NAME: {', '.join(PAIR_FORMATS)}.",
            more="[By trainer](pairs.md#formats).",
            metavar="NAME",
            noun="format of pairs",
            choices=tuple(PAIR_FORMATS),
            commands=("pairs",),
        ),
    ] = "nemo-rl"
    choose: Annotated[
        str,
        Setting(
            panel="choose",
            help="Which pairs of a task: best-worst, sigma, threshold, all.",
            more="`auto` takes `best-worst` for up to four rollouts, or two different rewards, and `sigma` for more. "
            "[Choosing](pairs.md#choosing).",
            metavar="HOW",
            choices=("auto", "best-worst", "sigma", "threshold", "all"),
            commands=("pairs",),
        ),
    ] = "auto"
    turn: Annotated[
        str | None,
        Setting(
            panel="choose",
            help="Compare whole answers, or the turns in which two answers part.",
            more="`only`: answers of one turn. `first-difference`: the first turns that differ, behind what is the "
            "same. `whole`: all turns, for `trl` and `kto`. [Turns](pairs.md#turns).",
            metavar="only|first-difference|whole",
            unset="`first-difference`; `only` for binary and kto",
            choices=TURNS,
            commands=("pairs",),
        ),
    ] = None
    min_gap: Annotated[
        float,
        Setting(
            panel="choose",
            help="Pair rollouts whose rewards differ by GAP or more.",
            more="Also spelled `--min_gap`, as in the guide's script.",
            metavar="GAP",
            flags=("--min-gap", "--min_gap"),
            noun="gap between rewards",
            least=0,
            commands=("pairs",),
        ),
    ] = 0.2
    least_chosen: Annotated[
        float | None,
        Setting(
            panel="choose",
            help="Choose rollouts with reward >= SCORE.",
            metavar="SCORE",
            unset="no limit; 0.95 for kto",
            keyword="reward_threshold",
            flags=("--reward-threshold", "--reward_threshold"),
            commands=("pairs",),
        ),
    ] = None
    max_rejected: Annotated[
        float | None,
        Setting(
            panel="choose",
            help="Reject rollouts with reward <= SCORE.",
            metavar="SCORE",
            unset="no limit; the threshold less the gap for kto",
            commands=("pairs",),
        ),
    ] = None
    pairs_per_task: Annotated[
        int | None,
        Setting(
            panel="choose",
            help="Make at most N pairs of a task.",
            metavar="N",
            unset="1; no limit for --choose all",
            noun="most pairs of a task",
            least=1,
            commands=("pairs",),
        ),
    ] = None
    uses: Annotated[
        int | None,
        Setting(
            panel="choose",
            help="Use a rollout in at most N pairs.",
            metavar="N",
            unset="1; no limit for --choose all",
            noun="most uses of a rollout",
            least=1,
            commands=("pairs",),
        ),
    ] = None
    length_ratio: Annotated[
        tuple[float, float] | None,
        Setting(
            panel="choose",
            help="Pair sides whose lengths, chosen to rejected, have a ratio in the band.",
            more="Of the characters in which they differ, as in `0.5:2`.",
            metavar="LOW:HIGH",
            unset="any",
            read=length_ratio_of,
            commands=("pairs",),
        ),
    ] = None
    balance: Annotated[
        bool,
        Setting(panel="choose", help="For kto: as many good rows as bad ones, drawn at random.", commands=("pairs",)),
    ] = False
    strategy: Annotated[
        str,
        Setting(
            panel="choose",
            help="Pair rollouts of one task, which the guide's script calls same_prompt.",
            more="Its `stratified` pairs answers to different prompts, and is refused.",
            metavar="same_prompt",
            choices=("same_prompt", "stratified"),
            commands=("pairs",),
            changes_bytes=False,
        ),
    ] = "same_prompt"
    high_threshold: Annotated[
        float | None,
        Setting(
            panel="choose",
            help="Of the guide's stratified: accepted, and without effect.",
            more="`--reward-threshold` says what may be chosen.",
            metavar="SCORE",
            unset="none",
            flags=("--high-threshold", "--high_threshold"),
            commands=("pairs",),
            changes_bytes=False,
        ),
    ] = None
    low_threshold: Annotated[
        float | None,
        Setting(
            panel="choose",
            help="Of the guide's stratified: accepted, and without effect.",
            more="`--max-rejected` says what may be rejected.",
            metavar="SCORE",
            unset="none",
            flags=("--low-threshold", "--low_threshold"),
            commands=("pairs",),
            changes_bytes=False,
        ),
    ] = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, naming what can.

        Raises:
            UsageError: A value is out of its range, or two contradict each other.
        """
        check_values(self)
        known = self.laid_out
        if self.strategy == "stratified":
            raise UsageError(
                "--strategy stratified pairs answers to different prompts, from which nothing is learned by DPO: both "
                "sides of a pair continue one context; leave it out to pair within each task"
            )
        if self.turn is not None and self.turn not in known.turns:
            able = " or ".join(name for name, other in PAIR_FORMATS.items() if self.turn in other.turns)
            raise UsageError(f"--turn {self.turn} belongs to the format {able}, and this is {self.format}")
        for name in ("min_gap", "least_chosen", "max_rejected"):
            if not math.isfinite(getattr(self, name) or 0):
                raise UsageError(f"{flag_in(Pairing, name)} must be a finite number, not {getattr(self, name)}")
        if self.choose == "threshold" and self.least_chosen is None:
            raise UsageError("--choose threshold pairs what is at or above --reward-threshold with what is below it")
        if self.length_ratio is not None and not 0 <= self.length_ratio[0] <= self.length_ratio[1]:
            raise UsageError("a ratio of lengths is two numbers from 0, the smaller first, as 0.5:2")
        if known.pairs and self.balance:
            raise UsageError(f"--balance belongs to the format kto, and this is {self.format}")
        if not known.pairs:
            for name in ("pairs_per_task", "uses", "length_ratio"):
                if getattr(self, name) is not None:
                    raise UsageError(f"{flag_in(Pairing, name)} is of pairs, and {self.format} has none")
            if self.choose != "auto":
                raise UsageError(f"--choose is of pairs, and {self.format} has none")
            if self.most_rejected >= self.threshold:
                raise UsageError("for kto, what is rejected has a smaller reward than what is chosen")

    @property
    def laid_out(self) -> PairFormat:
        """The format."""
        return PAIR_FORMATS[self.format]

    @property
    def turns(self) -> str:
        """Which turns two sides may part in."""
        return self.turn or self.laid_out.turns[0]

    @property
    def threshold(self) -> float:
        """The least reward of a good row of KTO."""
        return _THRESHOLD if self.least_chosen is None else self.least_chosen

    @property
    def most_rejected(self) -> float:
        """The greatest reward of a bad row of KTO."""
        return (
            self.threshold - max(self.min_gap - _LEAST_GAP, _LEAST_GAP)
            if self.max_rejected is None
            else self.max_rejected
        )

    @property
    def most_pairs(self) -> int | None:
        """How many pairs of a task are made at most; None for no limit."""
        return 1 if self.pairs_per_task is None and self.choose != "all" else self.pairs_per_task

    @property
    def most_uses(self) -> int | None:
        """In how many pairs a rollout may be; None for no limit."""
        return 1 if self.uses is None and self.choose != "all" else self.uses

    @property
    def notes(self) -> list[str]:
        """What was asked for and changes nothing, as sentences."""
        if self.high_threshold is None and self.low_threshold is None:
            return []
        more = "--reward-threshold and --max-rejected bound what is chosen and rejected"
        return [f"--high_threshold and --low_threshold change nothing, as they are of the strategy stratified; {more}"]

    def shown(self) -> dict[str, Any]:
        """Return the settings that what is written depends on, by name."""
        settings = msgspec.to_builtins(self)
        return {name: settings[name] for name, one in settings_of(Pairing).items() if one.changes_bytes}
