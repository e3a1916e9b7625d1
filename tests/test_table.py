"""What is known of a rollout without its text, and that nothing a line says makes it unusable."""

from __future__ import annotations

import json
from typing import Any

import pytest
from builders import call, line, raw_call, returned, rollout, said, system, thought, user

from fastsft.rollouts.line import rollout_of
from fastsft.rollouts.prompts import prompt_hash
from fastsft.selection.table import ShardColumns, table


def known(value: dict[str, Any], *names: str) -> Any:
    found = table(
        names, [rollout_of(line(value))], shard=ShardColumns("in.jsonl", 3), lines=[1], offsets=[0, 10, 100]
    ).row(0)
    return found[0] if len(names) == 1 else found


def good(**more: Any) -> dict[str, Any]:
    return {**rollout(user("?"), said("!")), **more}


def with_response(**more: Any) -> dict[str, Any]:
    value = rollout(user("?"), said("!"))
    return {**value, "response": {**value["response"], **more}}


def test_the_place_of_a_line():
    assert known(good(), "shard", "shard_index", "line", "offset", "nbytes") == ("in.jsonl", 3, 2, 10, 89)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (good(mask_sample=True), True),
        (good(instance_config={"mask_sample": True, "more": [{}]}), True),
        (good(mask_sample=False, instance_config={"mask_sample": None}), False),
        (good(mask_sample="true", instance_config=[1]), False),
        (good(mask_sample=1, instance_config={"mask_sample": 1}), False),
        (good(), False),
    ],
)
def test_masked(value, expected):
    assert known(value, "masked") is expected


@pytest.mark.parametrize(
    ("value", "expected"), [("timeout", True), ({}, True), (0, True), (None, False), (False, False)]
)
def test_failed(value, expected):
    assert known(good(_ng_failure_class=value), "failed") is expected


@pytest.mark.parametrize(("value", "expected"), [(True, True), (False, False), (None, False), ("yes", False)])
def test_unverified(value, expected):
    assert known(good(verification_skipped=value), "unverified") is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (good(truncated=True), True),
        (with_response(incomplete_details={"reason": "max_output_tokens"}), True),
        (with_response(status="incomplete"), True),
        (with_response(status="completed", incomplete_details=None), False),
        (with_response(status=None), False),
        (good(truncated="no"), False),
        (good(), False),
    ],
)
def test_incomplete(value, expected):
    assert known(value, "incomplete") is expected


def test_who_and_what():
    named = good(agent_ref={"type": "t", "name": "math"}, _ng_task_index=7)
    assert known({**named, "response": {**named["response"], "status": "failed"}}, "agent", "task_index", "status") == (
        "math",
        7,
        "failed",
    )
    assert known(good(task_source="maths"), "agent") == known(good(task_source={"name": "maths"}), "agent") == "maths"
    assert known(good(agent_ref={"name": "math"}, task_source="maths"), "agent") == "math"
    odd = good(agent_ref="math", _ng_task_index="7")
    assert known({**odd, "response": {**odd["response"], "status": 3}}, "agent", "task_index", "status") == (None,) * 3
    assert known(good(agent_ref={"name": 3}, _ng_task_index=2**80), "agent", "task_index") == (None, None)


def test_turns_and_calls():
    value = rollout(
        [system("s"), user("?"), call("before"), returned("r")],
        thought("hm"),
        call("f"),
        thought("hm"),
        call("g"),
        returned("1"),
        returned("2"),
        said("!"),
        instructions="Be brief.",
    )
    assert known(value, "turns", "calls") == (9, 2)
    chat = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}] * 3}
    assert known(rollout(user("?"), chat, raw_call("f", "{}")), "calls") == 4


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            rollout(
                user("?"), {**said("!"), "prompt_token_ids": [1, 2, 3], "generation_token_ids": [4]}, returned("x")
            ),
            4,
        ),
        (rollout(user("?"), {**said("!"), "prompt_token_ids": [], "generation_token_ids": [4, 5]}), 2),
        *(
            (with_response(output=[{**said("!"), "generation_token_ids": none}], usage={"total_tokens": 12}), 12)
            for none in (None, [])
        ),
        (
            with_response(
                output=[{**said(""), "prompt_token_ids": [0], "generation_token_ids": [0]}], usage={"total_tokens": 12}
            ),
            12,
        ),
        (with_response(usage={"total_tokens": None, "input_tokens": 5, "output_tokens": 6}), 11),
        (with_response(usage={"total_tokens": 12, "input_tokens": "many"}), 12),
        (with_response(usage={"input_tokens": 5, "output_tokens": 6, "total_tokens": 12}), 12),
        (with_response(usage={"input_tokens": 5, "output_tokens": 6}), 11),
        (with_response(usage={"prompt_tokens": 5, "completion_tokens": 7}), 12),
        (with_response(usage={"total_tokens": 0}), None),
        (with_response(usage={"total_tokens": "many"}), None),
        (with_response(usage=None), None),
        (good(), None),
    ],
)
def test_tokens(value, expected):
    assert known(value, "tokens") == expected


# Tasks.


def asked(prompt: Any = "2+2?", **params: Any) -> int:
    return prompt_hash(
        rollout_of(line(rollout(user(prompt) if isinstance(prompt, str) else prompt, said("4"), **params)))
    )


def test_the_same_task_in_other_words_of_json():
    tools = [{"type": "function", "name": "add", "parameters": {"a": 1, "b": 2}}]
    turned = [{"parameters": {"b": 2, "a": 1}, "name": "add", "type": "function"}]
    text = rollout(user("é?"), said("4"))
    escaped = json.dumps(text).encode()

    assert prompt_hash(rollout_of(escaped)) == prompt_hash(rollout_of(line(text)))
    assert asked("é?") == asked([{"role": "user", "content": [{"type": "input_text", "text": "é?"}]}])
    assert asked([{**user("2+2?"), "id": "msg_5"}]) == asked()
    assert asked(tools=tools) == asked(tools=turned)
    assert asked(tools=[]) == asked(tools=None) == asked(instructions="") == asked(instructions=None) == asked()
    assert asked(metadata={"seed": 1}, temperature=0.5) == asked()
    assert prompt_hash(rollout_of(line({**rollout("2+2?", said("5")), "reward": 0}))) == asked()


def test_an_empty_prompt_is_what_the_output_begins_with():
    def replayed(*output: Any) -> int:
        return prompt_hash(rollout_of(line(rollout([], *output))))

    assert replayed(system("s"), user("?"), said("a")) == replayed(system("s"), user("?"), said("b"), user("!"))
    assert replayed(system("s"), user("?"), said("a")) == asked([system("s"), user("?")])
    assert replayed(user("?"), said("a")) != replayed(user("??"), said("a"))
    assert replayed(said("a")) != replayed(said("b"))


def test_another_prompt_tool_or_instruction_is_another_task():
    tools = [{"type": "function", "name": "add"}]
    several = [asked(), asked("2+3?"), asked(tools=tools), asked(instructions="Be brief."), asked([system("2+2?")])]
    assert len(set(several)) == 5


def test_a_hash_stays_what_it_is():
    assert asked() == 14638631509865756242  # or splits change between versions


def test_a_prompt_that_nests_too_deep_has_a_task_too():
    deep = json.loads("[" * 200 + "]" * 200)
    assert asked(tools=[{"type": "function", "name": "f", "parameters": deep}]) != asked()
