"""The criteria that ask a line for one value: the gates, which are what it says of itself, and its reward.

Each is written once, in operators that values and columns of Polars have in common: `criteria.py` asks them of
columns, `drop_reasons` of values. So a worker that needs nothing else of Polars does not import it, which takes it
0.12 s: 1 GB of the real mix is 1.04x to 1.09x faster (19 pairs), of `tokens` 1.10x (7 pairs).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from fastsft.options import Options
from fastsft.rollouts.rollout import Rollout
from fastsft.selection import facts

_ANSWERS_HELD = 1 << 16


class ValueCriterion(NamedTuple):
    """A reason to drop a line for one value.

    Attributes:
        reason: The code it is counted under.
        column: The value's name in the table of lines.
        of: How the value is found from a rollout.
        drops: What is true of a value, or of each in a column, where the line is dropped for it.
    """

    reason: str
    column: str
    of: Callable[[Rollout], Any]
    drops: Callable[[Any], Any]


def gate_criteria(options: Options) -> list[ValueCriterion]:
    """List the gates that are asked first: what lines say of themselves, and whether they have a reward."""
    gates = [ValueCriterion(name, name, getattr(facts, name), _holds) for name in options.gates]
    return [*gates, ValueCriterion("no_reward", "reward", facts.reward, _is_missing)]


def reward_criteria(options: Options) -> list[ValueCriterion]:
    """List what is asked of the rewards that there are; of a task or a pair, failures tell as much as successes."""
    if options.makes == "tasks" or options.pairing is not None:
        return []
    least = float(options.reward_threshold)
    bounds = [ValueCriterion("below_threshold", "reward", facts.reward, lambda reward: reward < least)]
    if options.max_reward is not None:
        most = float(options.max_reward)
        bounds.append(ValueCriterion("above_max", "reward", facts.reward, lambda reward: reward > most))
    return bounds


def _holds(flag: Any) -> Any:
    return flag


def _is_missing(value: Any) -> Any:
    return value.is_null() if hasattr(value, "is_null") else value is None


def only_value_criteria(options: Options) -> bool:
    """Tell whether no other criteria judge lines by themselves; a test holds each option against `criteria.py`."""
    return options.where is None and (options.max_tokens is None or options.template is not None)


def drop_reasons(rollouts: Sequence[Rollout], options: Options) -> list[str | None]:
    """Return the drop reason of each rollout, or None where it is kept."""
    answers = _answers(options)
    values = zip(*(map(of, rollouts) for of in answers.asked.values()), strict=True)
    return list(map(answers.__getitem__, values))


class _Answers(dict[tuple[Any, ...], str | None]):
    """What the criteria say of each combination of values; there are few, and asking takes four times as long."""

    def __init__(self, criteria: Sequence[ValueCriterion]) -> None:
        self.criteria = criteria
        self.asked = {one.column: one.of for one in criteria}

    def __missing__(self, values: tuple[Any, ...]) -> str | None:
        named = dict(zip(self.asked, values, strict=True))
        reason = next((one.reason for one in self.criteria if one.drops(named[one.column])), None)
        if len(self) < _ANSWERS_HELD:
            self[values] = reason
        return reason


@lru_cache(maxsize=8)
def _answers(options: Options) -> _Answers:
    return _Answers([*gate_criteria(options), *reward_criteria(options)])
