"""Which lines are dropped, and for which reason: a rule each, their order, and a naive selection that agrees."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from fractions import Fraction
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from fastsft.errors import FailedRun, UsageError
from fastsft.options import GATES, Options
from fastsft.pairing import Pairing
from fastsft.quantities import sample_of
from fastsft.rollouts.rollout import Item, Marks, ResponseMarks, Rollout
from fastsft.selection import gates
from fastsft.selection.criteria import choose, columns_of, compares_lines, criteria, drop_reasons, where_of
from fastsft.selection.table import COLUMNS, HIDDEN, ShardColumns, columns, frame_of
from fastsft.selection.tasks import draw_for

ASKED = Item(role="user", content=Raw(b'"?"'))
KNOWN: dict[str, Any] = {
    "shard_index": 0,
    "shard": "a.jsonl",
    "reward": 1.0,
    "agent": "math",
    "task_index": None,
    "prompt": 0,
    "masked": False,
    "failed": False,
    "unverified": False,
    "incomplete": False,
    "no_generation": False,
    "no_user_turn": False,
    "status": None,
    "turns": 2,
    "calls": 0,
    "tokens": 100,
    "nbytes": 1000,
    "unusable": None,
    "problem": None,
    "content": None,
}


def lines_of(*several: dict[str, Any]) -> pl.DataFrame:
    """The table of some lines, of which only what matters is said."""
    rows = [{**KNOWN, "line": number, "offset": number * 1000, **known} for number, known in enumerate(several, 1)]
    kinds = {name: (COLUMNS.get(name) or HIDDEN[name]).dtype for name in [*KNOWN, "line", "offset"]}
    return pl.DataFrame(rows, schema=kinds)


def kept(*several: dict[str, Any], **options: Any) -> list[int]:
    """The places, from 0, of the lines that are left."""
    return (choose(lines_of(*several), Options(**options))[0]["line"] - 1).to_list()


def dropped(*several: dict[str, Any], **options: Any) -> dict[str, int]:
    return {reason: count for _, reason, count in choose(lines_of(*several), Options(**options))[1]}


# Each line by itself.


def reasons(*rewards: float | None, threshold: float = 0.95) -> list[str | None]:
    return reasons_of([Rollout([ASKED], [], reward) for reward in rewards], Options(reward_threshold=threshold))


def reasons_of(rollouts: list[Rollout], options: Options) -> list[str | None]:
    """What values are asked one by one, and columns of them at once, with the same answers."""
    asked = criteria(options)
    names = dict.fromkeys(name for one in asked for name in one.dropped.meta.root_names())
    known = frame_of(columns(names, rollouts, shard=ShardColumns("", 0), lines=range(len(rollouts)), offsets=[]))
    by_columns = pl.coalesce(pl.when(one.dropped).then(pl.lit(one.reason)) for one in asked)
    found = gates.drop_reasons(rollouts, options)
    assert gates.only_value_criteria(options)
    assert found == known.select(by_columns).to_series().to_list()
    return found


def test_rewards_at_or_above_the_threshold_are_kept():
    assert reasons(0.95, 0.9499999, 1.0, 19.4, -100.0) == [None, "below_threshold", None, None, "below_threshold"]


def test_the_threshold_may_be_any_finite_number():
    assert reasons(-1.0, -0.5, -0.0, 0.0, threshold=-0.5) == ["below_threshold", None, None, None]
    assert reasons(-100.0, 0.0, threshold=-1e9) == [None, None]


def test_no_reward_is_asked_before_the_threshold():
    assert reasons(None, 0.0, None, threshold=-1e9) == ["no_reward", None, "no_reward"]


def test_an_empty_table_has_no_reasons():
    assert reasons() == []


@given(
    lines=st.lists(
        st.tuples(*[st.booleans()] * 6, st.none() | st.sampled_from([-0.0, 0.0, 0.5, 1.0]) | st.floats(-2, 2))
    ),
    held=st.sampled_from([0, 1, 1000]),
    maximum=st.none() | st.just(1.0),
    allowed=st.sets(st.sampled_from(GATES)),
)
@settings(deadline=None)
def test_a_combination_of_values_is_judged_the_same_the_second_time_and_in_columns(lines, held, maximum, allowed):
    options = Options(reward_threshold=0.5, max_reward=maximum, allow=tuple(allowed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gates, "_ANSWERS_HELD", held)
        gates._answers.cache_clear()
        for several in (lines, lines[::2], lines * 2):
            expected = [naive_reason(*line, maximum, allowed) for line in several]

            assert reasons_of([saying(*line) for line in several], options) == expected
            assert len(gates._answers(options)) <= held


def saying(
    masked: bool,
    failed: bool,
    unverified: bool,
    incomplete: bool,
    no_generation: bool,
    no_user_turn: bool,
    reward: float | None,
) -> Rollout:
    """A rollout that says so of itself."""
    yes, no = Raw(b"true"), Raw(b"false")
    marks = Marks(
        mask_sample=yes if masked else no,
        failure_class=Raw(b'"timeout"') if failed else Raw(b"null"),
        verification_skipped=yes if unverified else no,
        truncated=yes if incomplete else no,
    )
    response = ResponseMarks(metadata=Raw(b'{"ng_no_generation": "true"}') if no_generation else Raw(b"{}"))
    said = Item(role="assistant", content=Raw(b'"4"'))
    return Rollout([] if no_user_turn else [ASKED], [said], reward, marks=marks, response=response)


def naive_reason(
    masked: bool,
    failed: bool,
    unverified: bool,
    incomplete: bool,
    no_generation: bool,
    no_user_turn: bool,
    reward: float | None,
    maximum: float | None,
    allowed: set[str],
) -> str | None:
    closed = (masked, failed, unverified, incomplete, no_generation, no_user_turn)
    for gate, is_closed in zip(GATES, closed, strict=True):
        if is_closed and gate not in allowed:
            return gate
    if reward is None:
        return "no_reward"
    if reward < 0.5:
        return "below_threshold"
    return "above_max" if maximum is not None and reward > maximum else None


CHOSEN = {
    "format": "chat",
    "arguments": None,
    "reasoning": None,
    "loss": None,
    "tools": "string",
    "trainer": "axolotl",
    "provenance": ("reward", "line"),
    "makes": "tasks",
    "log": True,
    "card": True,
    "file": "jsonl",
    "reward_threshold": 0.5,
    "max_reward": 2.0,
    "allow": GATES,
    "where": "turns < 5",
    "max_tokens": 5,
    "template": "folder",
    "trainable": True,
    "pass_rate": (0.1, 0.9),
    "dedup": True,
    "best_of": 1,
    "per_task": 1,
    "per_agent": 1,
    "sample": 5,
    "seed": 1,
    "allow_empty": True,
    "max_refused": 5,
    "shards": 2,
    "shard_nbytes": 10**6,
    "name": "rows",
    "compress": "gz",
    "max_line_nbytes": 10**6,
    "jobs": 2,
    "span_nbytes": 10**6,
    "fresh": True,
    "max_refused_recorded": 3,
    "verify_inputs": True,
    "stall_seconds": 9.0,
    "render_seconds": 9.0,
    "backend": "ray",
    "address": "head:6379",
    "retries": 3,
    "part": (1, 2),
    "work": "folder",
    "pairs": True,
    "pairing": Pairing(),
}


def test_gates_suffice_where_no_other_criterion_judges_a_line_by_itself():
    assert set(CHOSEN) == set(Options.__struct_fields__), "a new option: say here what it may be"
    by_gates = {*GATES, "no_reward", "below_threshold", "above_max"}
    for several in (
        [],
        *([name] for name in CHOSEN if name not in ("template", "address", "pairs")),
        ["max_tokens", "template"],
        ["backend", "address"],
        ["max_tokens", "where", "template"],
    ):
        options = Options(**{name: CHOSEN[name] for name in several})
        asked = {one.reason for one in criteria(options) if not one.compares}
        assert gates.only_value_criteria(options) == (asked <= by_gates), several


def test_where_tells_a_negative_zero_from_zero():
    options = Options(reward_threshold=-1.0, where="1 / reward < 0")
    assert drop_reasons({"reward": [0.0, -0.0, 0.0]}, options) == ["where", None, "where"]


def test_rewards_at_or_below_the_maximum_are_kept():
    rewards = [{"reward": 0.95}, {"reward": 1.0}, {"reward": 1.0000001}, {"reward": 10.0}]
    assert kept(*rewards, max_reward=1.0) == [0, 1]
    assert dropped(*rewards, max_reward=1.0) == {"above_max": 2}


def test_gates_are_asked_before_any_reward_and_the_first_that_is_closed_counts():
    lines = [{gate: True, "reward": None} for gate in GATES] + [{"masked": True, "incomplete": True}]
    assert dropped(*lines) == {**dict.fromkeys(GATES, 1), "masked": 2}


@pytest.mark.parametrize("gate", GATES)
def test_a_gate_that_is_allowed_is_open(gate):
    lines = [{name: True} for name in GATES]
    assert kept(*lines, allow=(gate,)) == [GATES.index(gate)]
    assert kept(*lines, allow=("all",)) == list(range(len(GATES)))


def test_where_keeps_what_is_true_and_neither_false_nor_unknown():
    lines = [{"tokens": 10}, {"tokens": 8192}, {"tokens": None}, {"tokens": 10, "agent": "it's"}, {"calls": 1}]
    assert kept(*lines, where="tokens < 8192 AND calls = 0") == [0, 3]
    assert kept(*lines, where="agent = 'it''s'") == [3]
    assert dropped(*lines, where="tokens < 8192 AND calls = 0") == {"where": 3}


def test_what_has_more_tokens_is_too_long_and_what_has_an_unknown_number_is_not():
    lines = [{"tokens": 8192}, {"tokens": 8193}, {"tokens": None}]
    assert kept(*lines, max_tokens=8192) == [0, 2]
    assert dropped(*lines, max_tokens=8192) == {"too_long": 1}


def test_numbers_may_go_below_zero():
    lines = [{"turns": 3, "tokens": 5000}, {"turns": 200, "tokens": 3000}]
    assert kept(*lines, where="turns - 100 > 0") == [1]
    assert kept(*lines, where="tokens - 4000 < 0") == [1]


@pytest.mark.parametrize(
    "text",
    [
        "agent = 'max(x)' AND calls > 0",
        "tokens BETWEEN 1 AND 2 OR agent IN ('a', 'b')",
        "length(agent) > 3 and not masked",
        "shard LIKE '%a%' AND offset > 5",
        "agent = 'select max(x) from y'",
        "\"agent\" LIKE'a -- select max(x) $%' OR `agent` IN ('/* max(x)')",
        "(calls IS DISTINCT FROM 1) AND trim(agent) <> '' -- max(reward)",
    ],
)
def test_what_looks_at_one_line_takes_one_pass(text):
    assert where_of(text)[1] is False
    assert compares_lines(Options(where=text)) is False


@pytest.mark.parametrize(
    "text",
    [
        "reward > avg(reward)",
        "task > 0",
        "line < 5",
        "median(reward) > 0",
        "count(*) > 1",
        '"max"(reward) > 1',
        "max/* */(reward) > 1",
        "`reward` > `avg`(`reward`)",
    ],
)
def test_what_looks_at_several_lines_takes_two(text):
    assert where_of(text)[1] is True
    assert compares_lines(Options(where=text)) is True


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nope = 1", "--where names no column of the table: nope; the columns are: shard, line, offset"),
        ("content IS NULL", "--where names no column of the table: content"),
        ("reward >", "--where cannot be read: "),
        ("reward > 1; drop table x", "--where cannot be read: "),
        ("reward > 1, calls > 2", "--where cannot be read: "),
        ("reward > 1 calls > 2", "--where cannot be read: "),
        ("reward > 1 calls", "--where cannot be read: "),
        ("agent = '\udcff'", "--where cannot be read: "),
        ("reward + 1", "--where must be true or false of a line"),
        ("agent > 5", "--where cannot be read: "),
    ],
)
def test_a_wrong_expression_is_told_with_the_columns(text, problem):
    with pytest.raises(UsageError) as told:
        where_of(text)
    assert str(told.value).startswith(problem)
    assert "calls, tokens" in str(told.value)


def test_what_cannot_be_worked_out_fails_the_run_and_says_so():
    with pytest.raises(FailedRun, match="--where cannot be worked out: conversion from `str` to `i32` failed"):
        kept({"agent": "math"}, where="CAST(agent AS INTEGER) > 3")


def test_where_is_asked_of_the_lines_that_those_before_it_left(tmp_path):
    number = "CAST(agent AS INTEGER) > 3"
    lines = [{"agent": "8"}, {"agent": "math", "masked": True}, {"agent": "x", "reward": 0.0}]

    assert kept(*lines, where=number) == kept(*lines, where=f"{number} AND count(*) > 0") == [0]


@pytest.mark.parametrize("query", ["SELECT 1", "select a FROM b", "FROM read_csv('/no/such')", "VALUES (1)", "TABLE b"])
@pytest.mark.parametrize("text", ["reward IN ({})", "reward > (/* ' */ {})", "agent <> '' -- '\n AND (({})) > 0"])
def test_an_expression_reads_from_nothing_else(text, query):
    with pytest.raises(UsageError, match="--where is of one line and its run, and reads from nothing else"):
        where_of(text.format(query))


@pytest.mark.parametrize(
    "text", ["agent <> $$'$$ AND (select 1) > 0 AND agent <> $$'$$", "agent = E'\\''", "agent = q'[x]'"]
)
def test_text_stands_in_single_quotes(text):
    with pytest.raises(UsageError, match="--where takes text in single quotes, without anything in front of them"):
        where_of(text)


@pytest.mark.parametrize(
    "text",
    [
        "tokens" + "+1" * 8000 + " > 0",
        "tokens" + " % 7" * 480 + " > 0",
        "reward > 0" + " IS NULL" * 12000,
        " OR ".join(f"line={number}" for number in range(3000)),
        "nullif(" * 20 + "reward" + ", 1)" * 20 + " > 0",
        f"reward IN ({', '.join(['tokens'] * 1000)})",
    ],
)
def test_an_expression_at_which_polars_would_crash_or_not_end_is_refused(text):
    with pytest.raises(UsageError, match=r"--where is too long for Polars: [\d,]+ operators and [\d,]+ words, of 250"):
        where_of(text)


def test_a_list_of_values_may_be_long():
    lines = [{"tokens": tokens} for tokens in (1, 19_999, 50_000)]

    assert kept(*lines, where=f"tokens IN ({', '.join(map(str, range(-9, 20_000)))})") == [0, 1]
    assert kept(*lines, where=" OR ".join(f"tokens >= {tokens}" for tokens in range(30_000, 30_120))) == [2]
    assert kept(*lines, where=" AND ".join(f"agent <> 'a--{number}'" for number in range(120))) == [0, 1, 2]


# Lines against lines.


def test_the_pass_rate_is_that_of_the_task_before_its_failures_are_dropped():
    lines = [{"prompt": task, "reward": reward} for task in (1, 2, 3) for reward in (float(task > 1), float(task > 2))]
    assert kept(*lines, pass_rate=(0.5, 0.5)) == [2]
    lines += [{"prompt": 2, "reward": 0.0}]
    assert kept(*lines, pass_rate=(0.5, 0.5)) == []
    assert kept(*lines, pass_rate=(0.1, 0.9)) == [2]
    assert dropped(*lines, pass_rate=(0.1, 0.9)) == {"pass_rate": 4, "below_threshold": 2}
    assert kept(*lines, pass_rate=(0.0, 1 / 3)) == [2]


def test_duplicates_are_of_one_content_whatever_the_task():
    lines = [{"content": content, "prompt": task} for task, content in enumerate([b"a", b"b", b"a", None, None, b"b"])]
    assert kept(*lines, dedup=True) == [0, 1, 3, 4]


def test_the_best_of_a_task_have_the_highest_reward_then_the_fewest_tokens_then_bytes_then_are_first():
    lines = [
        {"reward": 0.97},
        {"reward": 1.0, "tokens": None, "nbytes": 1},
        {"reward": 1.0, "tokens": 70, "nbytes": 500},
        {"reward": 1.0, "tokens": 70, "nbytes": 400},
        {"reward": 1.0, "tokens": 70, "nbytes": 400},
        {"reward": 2.0, "prompt": 5},
    ]
    assert [kept(*lines, best_of=count) for count in (1, 2, 3, 4, 5)] == [
        [3, 5],
        [3, 4, 5],
        [2, 3, 4, 5],
        [1, 2, 3, 4, 5],
        [0, 1, 2, 3, 4, 5],
    ]


def test_what_has_no_row_takes_the_place_of_none():
    lines = [{"reward": 2.0, "unusable": "bad_arguments", "problem": "no object"}, {}, {"reward": 0.0, "unusable": "x"}]
    for options in ({"best_of": 1}, {"per_task": 1}, {"per_agent": 1}, {"sample": "100%"}):
        chosen, dropped, rowless = choose(lines_of(*lines), Options(**options))
        assert chosen["line"].to_list() == [2]
        assert dropped == [(0, "below_threshold", 1)]
        assert rowless.rows() == [(0, 1, 1000, "bad_arguments", "no object")]


def test_caps_and_samples_keep_no_more_than_they_say():
    lines = [{"prompt": number % 3, "agent": "ab"[number % 2]} for number in range(30)]
    by_task = Counter(number % 3 for number in kept(*lines, per_task=4))
    assert by_task == {0: 4, 1: 4, 2: 4}
    assert Counter(number % 2 for number in kept(*lines, per_agent=5)) == {0: 5, 1: 5}
    assert len(kept(*lines, sample=7)) == 7
    assert len(kept(*lines, sample="33.4%")) == 10
    assert len(kept(*lines * 400, sample="33.333333%")) == 3999
    assert len(kept(*lines, sample=1000)) == 30
    assert kept(*lines, sample=0) == []


def test_chance_depends_on_the_seed_and_on_the_task_alone():
    lines = [{"prompt": task} for task in range(50)]
    chosen = kept(*lines, sample="20%", seed=1)

    assert chosen == kept(*lines, sample="20%", seed=1)
    assert chosen != kept(*lines, sample="20%", seed=2)
    turned = kept(*lines[::-1], sample="20%", seed=1)
    assert sorted(49 - index for index in turned) == chosen


def test_one_choice_at_random_tells_nothing_of_the_next():
    """Each expected count is that of a fair draw; what is allowed is five standard deviations."""
    once, often = [{"prompt": task} for task in range(1000)], [{"prompt": task} for task in range(1000, 2000)] * 9
    few = [{"prompt": task, "agent": "few"} for task in range(100)]
    many = [{"prompt": task, "agent": "many"} for task in range(100, 10_100)]
    for seed in (0, 1):
        chosen = kept(*once, *often, per_task=1, sample=200, seed=seed)
        assert 65 < sum(index < 1000 for index in chosen) < 135
        chosen = kept(*few, *many, per_agent=100, sample=100, seed=seed)
        assert 32 < sum(index < 100 for index in chosen) < 68
        lines, *_ = choose(lines_of(*once), Options(seed=seed, sample=200), [0.25])
        assert 22 < lines["split"].sum() < 78


def test_a_task_is_what_hangs_together_by_its_prompt_or_by_its_index_in_one_file_of_one_agent():
    lines = [
        {"prompt": 7},
        {"prompt": 7, "shard_index": 1, "agent": "other"},
        {"prompt": 8, "task_index": 0},
        {"prompt": 9, "task_index": 0},
        {"prompt": 9, "task_index": 0, "shard_index": 1},
        {"prompt": 10, "task_index": 0, "shard_index": 1},
        {"prompt": 11, "task_index": 0, "agent": "other"},
        {"prompt": 12, "task_index": 0, "shard_index": 2},
    ]
    chosen, *_ = choose(lines_of(*lines), Options(per_task=99))
    assert chosen["task"].to_list() == [7, 7, 8, 8, 8, 8, 11, 12]


def test_each_task_goes_to_one_split_whatever_else_is_there():
    lines = [{"prompt": task * 2**40 + task} for task in range(2000) for _ in range(2)]
    chosen, *_ = choose(lines_of(*lines), Options(), [0.1, 0.3])
    split_of_task = dict(chosen.select("task", "split").rows())

    assert all(
        set(part) == {split_of_task[task]}
        for (task,), part in (
            (key, part["split"].to_list()) for key, part in chosen.partition_by("task", as_dict=True).items()
        )
    )
    shares = Counter(split_of_task.values())
    assert 140 < shares[1] < 260
    assert 500 < shares[2] < 700
    fewer, *_ = choose(lines_of(*lines[::-3]), Options(), [0.1, 0.3])
    assert all(split_of_task[task] == split for task, split in fewer.select("task", "split").rows())
    other, *_ = choose(lines_of(*lines), Options(seed=5), [0.1, 0.3])
    assert dict(other.select("task", "split").rows()) != split_of_task


# All of them together.


def naive(lines: list[dict[str, Any]], options: Options) -> tuple[list[int], Counter[str]]:
    """The same selection in plain Python, one criterion after the other; chance is taken from the table."""
    gone: Counter[str] = Counter()
    left = list(range(len(lines)))

    def drop(reason: str, wrong: list[int]) -> None:
        gone[reason] += len(wrong)
        left[:] = [number for number in left if number not in set(wrong)]

    def groups(key: str) -> list[list[int]]:
        found = defaultdict(list)
        for number in left:
            found[lines[number][key]].append(number)
        return list(found.values())

    for gate in GATES:
        if gate not in options.allow:
            drop(gate, [number for number in left if lines[number][gate]])
    drop("no_reward", [number for number in left if lines[number]["reward"] is None])
    if options.pass_rate:
        for group in groups("prompt"):
            share = sum(lines[number]["reward"] >= options.reward_threshold for number in group) / len(group)
            if not options.pass_rate[0] <= share <= options.pass_rate[1]:
                drop("pass_rate", group)
    drop("below_threshold", [number for number in left if lines[number]["reward"] < options.reward_threshold])
    if options.max_reward is not None:
        drop("above_max", [number for number in left if lines[number]["reward"] > options.max_reward])
    if options.where:
        drop("where", [number for number in left if not (lines[number]["tokens"] or 0) > 50])
    if options.max_tokens is not None:
        drop("too_long", [number for number in left if (lines[number]["tokens"] or 0) > options.max_tokens])
    if options.dedup:
        seen: set[bytes] = set()
        for number in list(left):
            content = lines[number]["content"]
            if content in seen:
                drop("duplicate", [number])
            elif content is not None:
                seen.add(content)
    if options.best_of:
        for group in groups("prompt"):
            best = sorted(
                group,
                key=lambda number: (
                    -lines[number]["reward"],
                    float("inf") if lines[number]["tokens"] is None else lines[number]["tokens"],
                    lines[number]["nbytes"],
                    number,
                ),
            )
            drop("not_best", best[options.best_of :])
    if options.per_task:
        for group in groups("prompt"):
            drop("per_task", sorted(group, key=lambda number: lines[number]["draw"]["per_task"])[options.per_task :])
    if options.per_agent:
        for group in groups("agent"):
            drop("per_agent", sorted(group, key=lambda number: lines[number]["draw"]["per_agent"])[options.per_agent :])
    if options.sample is not None:
        count, part = sample_of(options.sample)
        wanted = count if part is None else int(Fraction(len(left)) * part)
        drop("not_sampled", sorted(left, key=lambda number: lines[number]["draw"]["not_sampled"])[wanted:])
    return left, +gone


RANDOM = ("per_task", "per_agent", "not_sampled")
LINE = st.fixed_dictionaries(
    {
        "reward": st.sampled_from([None, 0.0, 0.5, 0.95, 1.0, 2.0]),
        "prompt": st.integers(0, 4),
        "agent": st.sampled_from(["a", "b", None]),
        "tokens": st.sampled_from([None, 10, 60, 90]),
        "nbytes": st.integers(1, 3),
        "content": st.sampled_from([None, b"x", b"y", b"z"]),
        **{gate: st.sampled_from([False, False, False, True]) for gate in GATES},
    }
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "reward_threshold": st.sampled_from([0.5, -1.0]),
        "allow": st.lists(st.sampled_from(GATES), unique=True).map(tuple),
        "max_reward": st.sampled_from([1.0, 1.5]),
        "where": st.just("tokens > 50"),
        "max_tokens": st.sampled_from([10, 60]),
        "pass_rate": st.sampled_from([(0.1, 0.9), (0.5, 1.0)]),
        "dedup": st.just(True),
        "best_of": st.integers(1, 3),
        "per_task": st.integers(1, 3),
        "per_agent": st.integers(1, 4),
        "sample": st.sampled_from([0, 3, "50%"]),
        "seed": st.integers(-5, 2**65),
    },
)


@given(lines=st.lists(LINE, max_size=40), options=OPTIONS)
@settings(deadline=None, max_examples=150)
def test_a_naive_selection_agrees(lines, options):
    asked = Options(**options)
    drawn, *_ = choose(lines_of(*lines), Options(reward_threshold=-1e9, seed=asked.seed, allow=("all",), per_task=99))
    draws = drawn.select("line", **{reason: draw_for(reason) for reason in RANDOM}).rows_by_key("line", named=True)
    for number, line in enumerate(lines, 1):
        (line["draw"],) = draws.get(number, [dict.fromkeys(RANDOM, 0)])

    left, gone = naive(lines, asked)

    assert kept(*lines, **options) == left
    assert dropped(*lines, **options) == gone


def test_what_may_compare_lines_is_said_in_one_place_more_and_agrees():
    rng = random.Random(3)
    values = {"pass_rate": (0, 1), "dedup": True, "best_of": 1, "per_task": 1, "per_agent": 1, "sample": 0}
    for _ in range(50):
        options = Options(**{name: value for name, value in values.items() if rng.random() < 0.2})
        assert compares_lines(options) == options.may_compare
        assert {"shard_index", "line", "offset", "nbytes"} <= set(columns_of(options, splits=False))
    assert {criterion.reason for criterion in criteria(Options(**values, where="line > 1", max_reward=2.0))} == {
        *GATES,
        *"no_reward pass_rate below_threshold above_max where duplicate".split(),
        *"not_best per_task per_agent not_sampled".split(),
    }
