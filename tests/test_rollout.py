"""What a line is, and why it is refused."""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest
from builders import messages_of, raw_call, rollout, said, user
from hypothesis import given
from hypothesis import strategies as st

from fastsft.errors import Refused
from fastsft.rollouts import sizes
from fastsft.rollouts.depth import prune_deep_values
from fastsft.rollouts.line import rollout_of

GOOD = json.dumps(rollout(user("?"), said("4")))[1:-1]


def refusal(line: bytes | str) -> str:
    with pytest.raises(Refused) as caught:
        rollout_of(line if isinstance(line, bytes) else line.encode())
    assert "\n" not in caught.value.problem
    return caught.value.reason


@pytest.mark.parametrize(
    "line",
    ["<PLACEHOLDER ROW>", "{", '{"a": 1', "{}{}", '{"a": NaN}', '{"a": "\\ud800"}', '{"a": "\t"}', "[1, 2", "{'a': 1}"],
)
def test_malformed_lines_are_bad_json(line):
    assert refusal(line) == "bad_json"


@pytest.mark.parametrize("line", ["[]", "[1, 2]", '"text"', "7", "null", "true"])
def test_other_json_is_no_object(line):
    assert refusal(line) == "not_object"


@pytest.mark.parametrize(
    "params", ['"x"', "null", "{}", '{"input": null}', '{"input": 7}', '{"input": {"role": "user"}}']
)
def test_without_a_prompt_there_is_no_rollout(params):
    assert refusal('{"responses_create_params": ' + params + ', "output": []}') == "no_prompt"


@pytest.mark.parametrize(
    "rest", ["", ', "response": null', ', "response": "x"', ', "response": {}', ', "output": {"a": 1}']
)
def test_without_a_list_of_items_there_is_no_output(rest):
    assert refusal('{"responses_create_params": {"input": "?"}' + rest + "}") == "no_output"


@pytest.mark.parametrize(
    ("reward", "expected"), [("1", 1.0), ("0.5", 0.5), ("-100", -100.0), ("19.4", 19.4), ("1e2", 100.0), ("null", None)]
)
def test_rewards_are_numbers_or_null(reward, expected):
    assert rollout_of(f"{{{GOOD[: GOOD.rindex(':')]}: {reward}}}".encode()).reward == expected


def test_a_missing_reward_counts_as_zero():
    line = rollout(user("?"), said("4"))
    del line["reward"]
    assert rollout_of(json.dumps(line).encode()).reward == 0.0


@pytest.mark.parametrize("reward", ['"1.0"', "true", "[1]", "{}", "1e999", "-" + "9" * 400])
def test_anything_else_is_no_reward(reward):
    assert refusal(f"{{{GOOD[: GOOD.rindex(':')]}: {reward}}}") == "reward_type"


def test_of_a_repeated_key_the_last_value_counts():
    assert rollout_of(f'{{"responses_create_params": 3, "response": 3, {GOOD}}}'.encode()).reward == 1.0


@pytest.mark.parametrize("first", ["1.0", "0", "null", '"x"', "[1]", "1e999", "9" * 400, "9" * 5000])
@pytest.mark.parametrize("key", ["reward", "rew\\u0061rd"])
def test_a_line_has_one_reward(first, key):
    assert refusal(f'{{"{key}": {first}, {GOOD}}}') == "repeated_key"
    assert (
        rollout_of(f'{{"x": {{"{key}": {first if len(first) < 99 else 1}, "reward": 2}}, {GOOD}}}'.encode()).reward == 1
    )


def test_what_is_not_read_is_not_judged():
    extra = '"response_extra": {"output": 3}, "logprobs": [1e999, [[["x"]]]]'
    assert messages_of(f"{{{extra}, {GOOD}}}".encode()) == messages_of(f"{{{GOOD}}}".encode())


@pytest.mark.parametrize("depth", [100, 990, 1100, 1600, 5000, 9_990])
@pytest.mark.parametrize(("start", "end"), [("[", "]"), ('{"a":', "}")])
def test_what_is_not_read_may_nest_deep_on_every_python(depth, start, end):
    deep = start * depth + "1" + end * depth
    assert messages_of(f'{{"x": {deep}, {GOOD}}}'.encode()) == messages_of(f"{{{GOOD}}}".encode())


@pytest.mark.parametrize("depth", [10_001, 300_000])
def test_a_line_nests_at_most_10_000_levels(depth):
    assert refusal('{"x": ' + "[" * depth + "]" * depth + f", {GOOD}}}") == "too_deep"


@pytest.mark.parametrize("fault", ["1,", "x", '"', "\\", "}", "1 2", '"\t"'])
def test_malformed_text_deep_inside_is_bad_json(fault):
    assert refusal('{"x": ' + "[" * 3000 + fault + "]" * 3000 + f", {GOOD}}}") == "bad_json"


def _called_from(depth: int, function: Callable[[], str]) -> str:
    return function() if depth == 0 else _called_from(depth - 1, function)


@pytest.mark.parametrize(
    ("deep", "expected"),
    [
        ("[" * 800, "bad_json"),
        ("[" * 800 + "x" + "[" * 10_000, "bad_json"),
        ("[" * 9_000 + "{" * 9_000, "bad_json"),
        (f"[{'[' * 800 + ']' * 800}, x, {'[' * 10_000}", "bad_json"),
        ("[" * 10_000, "too_deep"),
    ],
)
@pytest.mark.parametrize("depth", [0, 300])
def test_how_deep_the_caller_is_decides_nothing(deep, expected, depth):
    """How deep the decoder descends follows from it, and from the Python version."""
    assert _called_from(depth, lambda: refusal('{"x": ' + deep)) == expected


@pytest.mark.parametrize(
    ("deep", "expected"),
    [
        ("[" * 800, "bad_arguments"),
        ("[" * 800 + "x" + "]" * 800 + "}", "bad_arguments"),
        ("[" * 800 + "]" * 800 + "} x", "bad_arguments"),
        ("[" * 800 + "]" * 800 + "}", "too_deep"),
        ("[" * 10_000, "too_deep"),
    ],
)
@pytest.mark.parametrize("depth", [0, 300])
def test_nor_does_it_for_arguments(deep, expected, depth):
    line = json.dumps(rollout(user("?"), raw_call("f", '{"a": ' + deep)))

    def reason() -> str:
        with pytest.raises(Refused) as caught:
            messages_of(line.encode())
        return caught.value.reason

    assert _called_from(depth, reason) == expected


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet=st.sampled_from('ab"\\[]{}\n é')),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='a"[]{}', max_size=2), inner, max_size=3)
    ),
)


@given(_JSON, st.integers(0, 200))
def test_flattening_changes_only_what_lies_deeper_than_128_levels(value, depth):
    line = (b"[" * depth) + json.dumps(value).encode() + (b"]" * depth)
    flat = prune_deep_values(line)

    if depth <= 100:
        assert json.loads(flat) == json.loads(line)
    elif depth > 128:
        assert flat == b"[" * 128 + b"0" + b"]" * 128


def test_token_ids_are_never_built():
    line = GOOD.replace('"output": [{', '"output": [{"generation_token_ids": [1, 2], ')
    (item,) = rollout_of(f"{{{line}}}".encode()).output
    assert isinstance(item.generation_token_ids, msgspec.Raw)


MANY = sizes.MOST_VALUES


def numbers(count: int) -> str:
    return "[" + "1," * (count - 1) + "1]"


@pytest.mark.parametrize(
    "line",
    [
        rollout(user("?"), raw_call("f", '{"a":' + numbers(MANY) + "}")),
        rollout(user("?"), raw_call("f", '{"a":' + numbers(MANY) + "}".replace(",", "\\u002c"))),
        rollout(user("?"), raw_call("f", {"a": [1] * MANY})),
        rollout(user("?"), *[raw_call("f", '{"a":' + numbers(1000) + "}")] * (MANY // 1000)),
        rollout(user("?"), {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}] * MANY}),
        rollout(user("?"), said("4"), tools=[{"type": "function", "name": "f"}] * MANY),
        rollout(user("?"), said("4"), tools=[{"type": "function", "name": "f", "parameters": {"enum": [1] * MANY}}]),
        rollout(user("?"), *[said("4")] * (MANY + 1)),
        rollout([user("?")] * (MANY + 1), said("4")),
        rollout(user([{"type": "input_text", "text": ""}] * (MANY + 1)), said("4")),
        {**rollout(user("?")), "output": [[]] * (MANY + 1)},
    ],
    ids="arguments escaped object together chat-calls tools enum items prompt parts lists".split(),
)
def test_a_line_of_too_many_values_is_refused_by_name(line):
    assert refusal(json.dumps(line)) == "too_many_values"


@pytest.mark.parametrize(
    "line",
    [
        rollout(user("?"), raw_call("f", '{"a":' + numbers(MANY - 9) + "}")),
        rollout(user("?"), raw_call("f", json.dumps({"code": "[1,{}" * MANY}))),
        rollout(user(",[{" * MANY), said(",[{" * MANY)),
        rollout(user("?"), *[said("4")] * (MANY - 1)),
        rollout(user("?"), {**said("4"), "generation_token_ids": [1] * 2 * MANY, "logprobs": [{}] * 2 * MANY}),
        {**rollout(user("?"), said("4")), "captures": [{}] * 2 * MANY},
    ],
    ids="arguments code text items tokens unknown".split(),
)
def test_text_and_what_no_row_repeats_may_be_as_long_as_the_line(line):
    assert len(rollout_of(json.dumps(line).encode()).output) == len(line["response"]["output"])
