"""Which rollouts are a pair: a naive pairing of random tables agrees, for every way of choosing."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
import struct
from collections import Counter
from typing import Any, NamedTuple

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsft.errors import UsageError
from fastsft.options import Options
from fastsft.pairing import Pairing
from fastsft.selection.entries import PAIR_REASONS
from fastsft.selection.pairs import Paired, pair
from fastsft.selection.table import HIDDEN


class Step(NamedTuple):
    """What the assistant says in a turn, how long that is, and what it is told then."""

    says: int
    length: int
    told: int


class Attempt(NamedTuple):
    """A rollout; `asks` is all that stands before its first turn, of its agent and tools, too."""

    task: int
    asks: int
    steps: tuple[Step, ...]
    reward: float
    tokens: int | None
    nbytes: int

    @property
    def said(self) -> tuple[Any, ...]:
        """All that is said, but what stands behind the last turn, which no row has."""
        return (self.asks, *self.steps[:-1], self.steps[-1].says)

    @property
    def whole(self) -> int:
        return number_of(self.said)


def number_of(value: Any) -> int:
    return int.from_bytes(hashlib.sha256(repr(value).encode()).digest()[:8], "little")


def table_of(attempts: list[Attempt]) -> pl.DataFrame:
    """The table of lines, as a scan finds it."""
    rows = []
    for order, one in enumerate(attempts):
        contexts = [number_of(("before", one.asks, one.steps[:index])) for index in range(len(one.steps))]
        answers = [number_of((*one.steps[:index], one.asks, step.says)) for index, step in enumerate(one.steps)]
        lengths = [step.length for step in one.steps]
        turns = list(zip(contexts, answers, lengths, strict=True))[1:]
        later = b"".join(struct.pack("<QQQ", *turn) for turn in turns) or None
        rows.append(
            {
                "order": order, "shard_index": order % 3, "line": order + 1, "offset": order * 10, "nbytes": one.nbytes,
                "task": one.task, "reward": one.reward, "tokens": one.tokens,
                "context": contexts[0], "answer": answers[0], "answer_length": lengths[0], "whole": one.whole,
                "length": sum(lengths), "acts": len(lengths),
                "later": later,
            }
        )  # fmt: skip
    kinds = {name: HIDDEN[name].dtype for name in rows[0] if name in HIDDEN}
    kinds |= {"order": pl.UInt32, "task": pl.UInt64, "tokens": pl.UInt32, "nbytes": pl.UInt32, "reward": pl.Float64}
    return pl.DataFrame(rows, schema_overrides=kinds)


# The naive pairing: every pair of a task is looked at, one after another.

U64 = 2**64 - 1


def mixed(number: int) -> int:
    """SplitMix64, as its authors have it."""
    number = (number + 0x9E3779B97F4A7C15) & U64
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & U64
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & U64
    return number ^ (number >> 31)


def parting(one: Attempt, other: Attempt, turns: str) -> int | None:
    """The turn in which two part, 0 where all turns are compared; None where they do in none."""
    if one.asks != other.asks:
        return None
    if turns == "whole":
        return None if one.said == other.said else 0
    for number, (step, with_it) in enumerate(zip(one.steps, other.steps, strict=False), 1):
        if step.says != with_it.says:
            return number
        if step != with_it:
            return None
    return None


def length_at(one: Attempt, turn: int) -> int:
    return one.steps[turn - 1].length if turn else sum(step.length for step in one.steps)


def naive_stage(attempt: Attempt, others: list[Attempt], pairing: Pairing) -> str:
    if not any(other.asks == attempt.asks for other in others):
        return "no_partner"
    others = [other for other in others if parting(attempt, other, pairing.turns) is not None]
    if not others:
        return "same_content"
    others = [other for other in others if other.reward != attempt.reward]
    if not others:
        return "tie"
    others = [one for one in others if rewards_fit(attempt, one, pairing) or rewards_fit(one, attempt, pairing)]
    if not others:
        return "gap"
    others = [one for one in others if lengths_fit(attempt, one, pairing) or lengths_fit(one, attempt, pairing)]
    return "per_task" if others else "length"


def rewards_fit(chosen: Attempt, rejected: Attempt, pairing: Pairing) -> bool:
    threshold, most = pairing.least_chosen, pairing.max_rejected
    return (
        chosen.reward > rejected.reward
        and chosen.reward - rejected.reward >= pairing.min_gap - 1e-9
        and (threshold is None or chosen.reward >= threshold)
        and (pairing.choose != "threshold" or (threshold is not None and rejected.reward < threshold))
        and (most is None or rejected.reward <= most)
    )


def lengths_fit(chosen: Attempt, rejected: Attempt, pairing: Pairing) -> bool:
    if not rewards_fit(chosen, rejected, pairing):
        return False
    turn = parting(chosen, rejected, pairing.turns)
    if pairing.length_ratio is None or turn is None:
        return turn is not None
    low, high = pairing.length_ratio
    return low * length_at(rejected, turn) <= length_at(chosen, turn) <= high * length_at(rejected, turn)


def naive_pairs(attempts: list[Attempt], pairing: Pairing, seed: int) -> tuple[set[tuple[int, int, int]], Counter[str]]:
    """The pairs, as the orders of chosen and rejected and the turn; and why the others are in none."""
    reasons: Counter[str] = Counter()
    taken: set[tuple[int, int, int]] = set()
    in_play = list(enumerate(attempts))
    if pairing.turns == "only":
        reasons["multi_turn"] = sum(len(one.steps) > 1 for one in attempts)
        in_play = [(order, one) for order, one in in_play if len(one.steps) == 1]
    for task in {one.task for _, one in in_play}:
        mine = [(order, one) for order, one in in_play if one.task == task]

        def wanted(pair: tuple[tuple[int, Attempt], tuple[int, Attempt]], mine: Any = mine, task: int = task) -> Any:
            (order, chosen), (other_order, rejected) = pair
            rewards = [one.reward for _, one in mine if one.asks == rejected.asks]
            spread = len(rewards) > 4 and len(set(rewards)) > 2
            mean = math.fsum(rewards) / len(rewards)
            target = mean - 2 * math.sqrt(math.fsum((one - mean) ** 2 for one in rewards) / len(rewards))
            draws = [mixed(mixed(task ^ seed) ^ one.whole) for one in (chosen, rejected)]
            match pairing.choose:
                case "all":
                    first, second = -round(chosen.reward - rejected.reward, 9), 0.0
                case "threshold":
                    first, second = mixed(draws[0] ^ mixed(draws[1])), 0.0
                case how:
                    by_target = how == "sigma" or (how == "auto" and spread)
                    first = -chosen.reward
                    second = round(abs(rejected.reward - target), 9) if by_target else rejected.reward
            turn = parting(chosen, rejected, pairing.turns)
            apart = abs(length_at(chosen, turn) - length_at(rejected, turn))
            ties = [(2**32 if one.tokens is None else one.tokens, one.nbytes, one.whole) for one in (chosen, rejected)]
            return first, second, apart, (*ties[0], order), (*ties[1], other_order)

        pairs = [two for two in itertools.permutations(mine, 2) if lengths_fit(two[0][1], two[1][1], pairing)]
        uses: Counter[int] = Counter()
        count = 0
        for (order, chosen), (other_order, rejected) in sorted(pairs, key=wanted):
            if pairing.most_pairs is not None and count == pairing.most_pairs:
                break
            if pairing.most_uses is None or max(uses[order], uses[other_order]) < pairing.most_uses:
                turn = parting(chosen, rejected, pairing.turns)
                assert turn is not None
                taken.add((order, other_order, turn))
                uses.update([order, other_order])
                count += 1
        for order, one in mine:
            if not uses[order]:
                reasons[naive_stage(one, [other for at, other in mine if at != order], pairing)] += 1
    return taken, reasons


STEPS = st.builds(Step, st.integers(0, 2), st.just(0), st.integers(0, 1)).map(
    lambda step: step._replace(length=(7, 20, 9)[step.says])
)
ATTEMPTS = st.lists(
    st.builds(
        Attempt,
        task=st.integers(0, 2),
        asks=st.integers(0, 1),
        steps=st.lists(STEPS, min_size=1, max_size=3).map(tuple),
        reward=st.sampled_from([0.0, 0.25, 0.3, 0.5, 0.8, 1.0]),
        tokens=st.sampled_from([None, 5, 9]),
        nbytes=st.integers(100, 103),
    ),
    min_size=1,
    max_size=24,
)
PAIRINGS = st.builds(
    Pairing,
    format=st.just("trl"),
    choose=st.sampled_from(["auto", "best-worst", "sigma", "threshold", "all"]),
    turn=st.sampled_from(["only", "first-difference", "whole"]),
    min_gap=st.sampled_from([0.0, 0.2, 0.5]),
    least_chosen=st.sampled_from([0.5, 0.8]),
    max_rejected=st.sampled_from([None, None, 0.25]),
    pairs_per_task=st.sampled_from([None, 1, 2, 5]),
    uses=st.sampled_from([None, 1, 2]),
    length_ratio=st.sampled_from([None, None, (0.5, 2.0), (0.9, 1.1)]),
)


def orders_in(paired: Paired) -> set[tuple[int, int, int]]:
    rows = paired.pairs.select("line", "other_line", "turn").rows()
    return {(line - 1, other_line - 1, turn) for line, other_line, turn in rows}


@settings(max_examples=250, deadline=None)
@given(attempts=ATTEMPTS, pairing=PAIRINGS, seed=st.integers(0, 3), at_once=st.sampled_from([1, 2_000_000]))
def test_a_naive_pairing_agrees(attempts, pairing, seed, at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastsft.selection.pairs._PAIRS_AT_ONCE", at_once)
        paired = pair(table_of(attempts), Options(format="chat", pairing=pairing, seed=seed))

    taken, reasons = naive_pairs(attempts, pairing, seed)
    assert orders_in(paired) == taken
    told: Counter[str] = Counter()
    for _, reason, count in paired.dropped:
        told[reason] += count
    assert told == +reasons
    assert set(told) <= set(PAIR_REASONS)
    chosen, rejected = {one for one, _, _ in taken}, {other for _, other, _ in taken}
    counts = paired.counts
    assert (counts.pairs, counts.chosen, counts.rejected, counts.both) == (
        len(taken), len(chosen - rejected), len(rejected - chosen), len(chosen & rejected)
    )  # fmt: skip
    assert sum(count for _, count in paired.kept) + sum(told.values()) == len(attempts)
    assert counts.chosen_characters == sum(length_at(attempts[one], turn) for one, _, turn in taken)
    assert counts.rejected_characters == sum(length_at(attempts[other], turn) for _, other, turn in taken)
    assert counts.turns == {str(turn): count for turn, count in Counter(t for *_, t in sorted(taken) if t).items()}
    earlier = [min(line, other_line) for line, other_line in paired.pairs.select("line", "other_line").rows()]
    assert earlier == sorted(earlier)


@settings(max_examples=60, deadline=None)
@given(attempts=ATTEMPTS, pairing=PAIRINGS, order=st.randoms(use_true_random=False))
def test_what_is_paired_does_not_depend_on_the_order_of_lines(attempts, pairing, order):
    def said(attempts: list[Attempt]) -> list[Any]:
        found = orders_in(pair(table_of(attempts), Options(format="chat", pairing=pairing)))
        return [(attempts[one], attempts[other], turn) for one, other, turn in found]

    def comparable(pairs: list[Any]) -> list[str]:
        return sorted(
            repr((one.task, one.said, other.said, one.reward, other.reward, turn)) for one, other, turn in pairs
        )

    attempts = [one._replace(tokens=5) for one in attempts]
    shuffled = list(attempts)
    order.shuffle(shuffled)
    assert comparable(said(shuffled)) == comparable(said(attempts))


# Their mean less two deviations is 0.31; with the deviation of a sample it would be 0.29.
SPREAD = [0.25, 0.35, 0.75, 0.75, 0.75, 0.8, 0.8, 0.85, 0.95, 0.95, 0.99, 1.0]


@pytest.mark.parametrize(
    ("choose", "rewards", "expected"),
    [
        ("best-worst", SPREAD, (1.0, 0.25)),
        ("sigma", SPREAD, (1.0, 0.35)),
        ("auto", SPREAD, (1.0, 0.35)),
        ("auto", [0.0, 0.3, 0.9, 1.0], (1.0, 0.0)),
        ("auto", [0.0] * 3 + [1.0] * 30, (1.0, 0.0)),
    ],
)
def test_sigma_leaves_the_very_worst(choose, rewards, expected):
    attempts = [Attempt(1, 0, (Step(number, 10, 0),), reward, None, 100) for number, reward in enumerate(rewards)]

    paired = pair(table_of(attempts), Options(format="chat", pairing=Pairing(choose=choose)))

    assert [(attempts[one].reward, attempts[other].reward) for one, other, _ in orders_in(paired)] == [expected]


def test_of_very_many_rollouts_the_best_and_the_worst_are_compared():
    attempts = [
        Attempt(1, 0, (Step(number, 10, 0),), number / 1000, None, 100)
        for number in random.Random(1).sample(range(1000), 1000)
    ]

    paired = pair(
        table_of(attempts), Options(format="chat", pairing=Pairing(choose="all", min_gap=0.9, pairs_per_task=3, uses=1))
    )

    rewards = [
        (round(1000 * attempts[one].reward), round(1000 * attempts[other].reward))
        for one, other, _ in orders_in(paired)
    ]
    assert sorted(rewards) == [(997, 2), (998, 1), (999, 0)]


@pytest.mark.parametrize(("rewards", "good", "bad"), [([0, 0, 1, 1], 2, 2), ([0.95, 0.75, 0.76, 1.0, 0.9], 2, 1)])
def test_kto_takes_each_rollout_by_itself(rewards, good, bad):
    attempts = [
        Attempt(1, 0, (Step(number, 10, 0),), float(reward), None, 100) for number, reward in enumerate(rewards)
    ]

    paired = pair(table_of(attempts), Options(format="chat", pairing=Pairing(format="kto")))

    assert (paired.counts.chosen, paired.counts.rejected, paired.counts.both) == (good, bad, 0)
    assert sum(count for _, reason, count in paired.dropped if reason == "gap") == len(rewards) - good - bad
    assert paired.pairs["other_line"].null_count() == good + bad


def test_kto_drops_what_is_both_good_and_bad_and_balances_by_the_seed():
    steps = [(Step(number, 10, 0),) for number in range(60)]
    attempts = [Attempt(1, 0, steps[number], float(number % 3 > 0), None, 100) for number in range(60)]
    attempts += [Attempt(1, 0, steps[0], 1.0, None, 100)]

    def kept(seed: int) -> list[int]:
        options = Options(format="chat", seed=seed, pairing=Pairing(format="kto", balance=True))
        paired = pair(table_of(attempts), options)
        assert told(paired) == {"same_content": 2, "balance": 21}
        assert (paired.counts.chosen, paired.counts.rejected) == (19, 19)
        return paired.pairs["line"].to_list()

    assert kept(1) == kept(1) != kept(2)


def told(paired: Paired) -> Counter[str]:
    reasons: Counter[str] = Counter()
    for _, reason, count in paired.dropped:
        reasons[reason] += count
    return reasons


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"strategy": "stratified"}, "stratified pairs answers to different prompts"),
        ({"turn": "whole"}, "--turn whole belongs to the format trl or kto, and this is nemo-rl"),
        ({"format": "binary", "turn": "first-difference"}, "belongs to the format nemo-rl or trl"),
        ({"choose": "threshold"}, "--choose threshold pairs what is at or above --reward-threshold"),
        ({"choose": "best"}, "no choose named 'best'; there are: auto, best-worst, sigma, threshold, all"),
        ({"format": "chat"}, "no format of pairs named 'chat'"),
        ({"min_gap": -0.1}, "the gap between rewards must be at least 0"),
        ({"min_gap": math.nan}, "--min-gap must be a finite number"),
        ({"max_rejected": math.inf}, "--max-rejected must be a finite number"),
        ({"length_ratio": (2.0, 1.0)}, "a ratio of lengths is two numbers"),
        ({"balance": True}, "--balance belongs to the format kto"),
        ({"format": "kto", "uses": 2}, "--uses is of pairs, and kto has none"),
        ({"format": "kto", "choose": "all"}, "--choose is of pairs, and kto has none"),
        ({"format": "kto", "max_rejected": 0.95}, "what is rejected has a smaller reward"),
        ({"pairs_per_task": 0}, "the most pairs of a task must be at least 1"),
        ({"uses": 0}, "the most uses of a rollout must be at least 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(wrong, told):
    with pytest.raises(UsageError, match=told):
        Pairing(**wrong)
