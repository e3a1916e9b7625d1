"""Lengths are true or unknown: recorded ids in whatever form, and `usage` of a single response."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from builders import Json, call, returned, rollout, said, thought, user

from fastsft.rollouts.line import rollout_of
from fastsft.selection import facts


def tokens(value: Json) -> int | None:
    return facts.tokens(rollout_of(json.dumps(value).encode()))


def with_ids(item: Json, prompt: Any, generated: Any) -> Json:
    return {**item, "prompt_token_ids": prompt, "generation_token_ids": generated}


def packed(count: int, form: str = "i") -> str:
    return base64.b64encode(struct.pack(f"<{count}{form}", *range(count))).decode()


@pytest.mark.parametrize(
    ("prompt", "generated", "length"),
    [
        ([1, 2, 3], [4], 4),
        ([], [4], 1),
        (None, [4], 1),
        (f"ngtm1:i32:3:{packed(3)}", f"ngtm1:i32:2:{packed(2)}", 5),
        (f"v1:int64:{packed(3, 'q')}", [1], 4),
        ({"dtype": "<i4", "data": packed(3)}, {"dtype": "<i4", "data": packed(1)}, 4),
        ({"version": 1, "encoding": "base64", "dtype": "i32", "shape": [3], "data": packed(3)}, [1], 4),
        (f"data:application/x;i32,{packed(3)}", [1], 4),
        ("1,2,3,4,5", [1], None),
        (f"i32:{packed(3)[:-2]}!", [1], None),
        (packed(3), [1], None),
        (["1", "2"], [1], None),
        ([[1, 2], [3]], [1], None),
        ([1, 2], "abc,def", None),
    ],
)
def test_ids_are_counted_in_every_form_that_is_known_and_never_guessed(prompt, generated, length):
    assert tokens(rollout(user("?"), with_ids(said("4"), prompt, generated))) == length


def test_the_longest_context_counts_where_an_agent_compacts_it():
    made = [with_ids(call("f"), [0] * 200, [0] * 70), returned("x"), with_ids(said("4"), [0] * 90, [0] * 10)]
    assert tokens(rollout(user("?"), *made)) == 270


def test_ids_tell_even_where_usage_says_otherwise():
    made = rollout(user("?"), with_ids(said("4"), "?", "?"))
    made["response"]["usage"] = {"total_tokens": 99}
    assert tokens(made) is None


@pytest.mark.parametrize(
    ("output", "length"),
    [
        ([said("4")], 99),
        ([thought("hm"), said("4"), call("f")], 99),
        ([call("f"), call("g"), returned("1"), returned("2")], 99),
        ([call("f"), returned("1"), said("4")], None),
        ([said("3"), user("no"), said("4")], None),
        ([user("?"), said("4")], 99),
        ([], 99),
    ],
)
def test_usage_counts_only_where_the_output_is_one_response(output, length):
    made = rollout(user("?"), *output)
    made["response"]["usage"] = {"input_tokens": 90, "output_tokens": 9, "total_tokens": 99}
    assert tokens(made) == length
