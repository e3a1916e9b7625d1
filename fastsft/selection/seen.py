"""What is known of rollouts none of which is kept, so that a run can say why in terms of the data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from fastsft.options import UNTRAINABLE, Options
from fastsft.rollouts.rollout import Rollout
from fastsft.selection import facts

_MOST_AGENTS = 1000  # that are remembered
_SHOWN_AGENTS = 8
_NAMED = re.compile(r"\bagent\s*(?:=|==|IN)\s*(\(?\s*'[^)]*)", re.IGNORECASE)
_TEXT = re.compile(r"'((?:[^']|'')*)'")
_PAIRS_SAY = {
    "no_partner": "no other rollout of the same task, agent, tools and context is there",
    "same_content": "all that could be their partners say and do the same",
    "tie": "all that could be their partners have the same reward",
    "gap": "no partner's reward is far enough away: --min-gap, --reward-threshold, --max-rejected",
    "length": "no partner is of a length that --length-ratio allows",
    "multi_turn": "their answers have several turns: --turn first-difference, or whole, takes them",
}
_GATES_SAY = {
    "masked": "mask_sample is true",
    "failed": "_ng_failure_class is there",
    "unverified": "verification_skipped is true",
    "incomplete": "the attempt was cut short",
    "no_generation": "the model never answered",
    "no_user_turn": "nobody asks in them",
}


class Seen(msgspec.Struct):
    """What rollouts hold.

    Attributes:
        highest: The highest reward; None without any.
        lowest: The lowest.
        agents: The names of their agents.
    """

    highest: float | None = None
    lowest: float | None = None
    agents: list[str] = []


def seen_in(rollouts: Sequence[Rollout]) -> Seen | None:
    """Return what some rollouts hold; None without any."""
    if not rollouts:
        return None
    return seen_of((rollout.reward for rollout in rollouts), map(facts.agent, rollouts))


def seen_of(rewards: Iterable[float | None], agents: Iterable[str | None]) -> Seen:
    """Return the same from values."""
    known = [reward for reward in rewards if reward is not None]
    names = sorted({name for name in agents if name is not None})[:_MOST_AGENTS]
    return Seen(max(known, default=None), min(known, default=None), names)


def merged(seen: Seen | None, other: Seen | None) -> Seen | None:
    """Put together what two parts of the input hold."""
    if seen is None or other is None:
        return seen or other
    rewards = (seen.highest, seen.lowest, other.highest, other.lowest)
    return seen_of(rewards, (*seen.agents, *other.agents))


def why_nothing(dropped: dict[str, int], options: Options, seen: Seen | None) -> str:
    """Say in sentences why nothing was kept, and what would keep something."""
    if not dropped:
        return "the input holds no rollout"
    reason, count = max(dropped.items(), key=lambda one: one[1])
    rest = sum(dropped.values()) - count
    return f"{_why(reason, count, options, seen or Seen())}{_also(dropped, reason) if rest else ''}"


def _also(dropped: dict[str, int], main: str) -> str:
    others = ", ".join(f"{reason} {count:,}" for reason, count in dropped.items() if reason != main)
    return f" (the others: {others})"


def _why(reason: str, count: int, options: Options, seen: Seen) -> str:
    are = "1 rollout is" if count == 1 else f"{count:,} rollouts are"
    have = "1 rollout has" if count == 1 else f"{count:,} rollouts have"
    if reason == "below_threshold":
        highest = "" if seen.highest is None else f": the highest reward is {seen.highest:g}"
        return f"{are} below --reward-threshold {options.reward_threshold:g}{highest}"
    if reason == "above_max":
        lowest = "" if seen.lowest is None else f": the lowest reward is {seen.lowest:g}"
        return f"{are} above --max-reward {options.max_reward:g}{lowest}"
    if reason == "where":
        return f"--where is true of none of {count:,} rollouts{_unknown_agents(options.where or '', seen)}"
    if reason in _GATES_SAY:
        return f"{are} dropped as {reason} ({_GATES_SAY[reason]}); --allow {reason} keeps them"
    if reason in _PAIRS_SAY:
        return f"{are} dropped as {reason} ({_PAIRS_SAY[reason]})"
    if reason == "no_reward":
        return f"{have} no reward (it is null)"
    if reason == "too_long":
        return f"{have} more than {options.max_tokens:,} tokens"
    if reason.startswith(UNTRAINABLE):
        return f"{are} dropped as {reason}; fastsft check says why, of rows made without --trainable"
    if options.trainer is not None and reason.startswith(f"{options.trainer}:"):
        return f"{are} dropped as {reason}; fastsft check --for {options.trainer} says why, of rows made without --for"
    return f"{are} dropped as {reason}"


def _unknown_agents(where: str, seen: Seen) -> str:
    named = [name.replace("''", "'") for group in _NAMED.findall(where) for name in _TEXT.findall(group)]
    unknown = [name for name in named if name not in seen.agents]
    if not seen.agents:
        return ""
    more = f" and {len(seen.agents) - _SHOWN_AGENTS:,} more" if len(seen.agents) > _SHOWN_AGENTS else ""
    there_are = f"there are: {', '.join(seen.agents[:_SHOWN_AGENTS])}{more}"
    return f": no agent is called {unknown[0]!r}; {there_are}" if unknown else f"; agents {there_are}"
