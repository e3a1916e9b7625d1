"""Which lines are dropped, and for which reason."""

from __future__ import annotations

from fastsft.options import Options
from fastsft.selection import drop_reasons, table


def reasons(*rewards: float | None, threshold: float = 0.95) -> list[str | None]:
    lines = table(range(len(rewards)), rewards).lazy()
    return drop_reasons(lines, Options(reward_threshold=threshold))


def test_rewards_at_or_above_the_threshold_are_kept():
    assert reasons(0.95, 0.9499999, 1.0, 19.4, -100.0) == [None, "below_threshold", None, None, "below_threshold"]


def test_the_threshold_may_be_any_finite_number():
    assert reasons(-1.0, -0.5, -0.0, 0.0, threshold=-0.5) == ["below_threshold", None, None, None]
    assert reasons(-100.0, 0.0, threshold=-1e9) == [None, None]


def test_no_reward_is_asked_before_the_threshold():
    assert reasons(None, 0.0, None, threshold=-1e9) == ["no_reward", None, "no_reward"]


def test_an_empty_table_has_no_reasons():
    assert reasons() == []
