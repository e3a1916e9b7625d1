"""What a side of a pair is, in numbers; and the row of each format, whole."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from builders import call, raw_call, returned, rollout, said, system, thought, user

from fastsft.errors import Refused
from fastsft.formats.pairs import PAIR_FORMATS, Judged, pair_layout, side_row
from fastsft.formats.row import Layout, Row
from fastsft.formats.sides import Sides, sides_of, turns_in
from fastsft.rollouts.line import rollout_of

CHAT = Layout(arguments="string")
TOOLS = [{"type": "function", "name": "add", "description": "Add.", "parameters": {"type": "object"}}]
NESTED = [{"type": "function", "function": {"name": "add", "description": "Add.", "parameters": {"type": "object"}}}]


def side(value: Any, format: str = "trl", **layout: str) -> Row:
    return side_row(rollout_of(json.dumps(value).encode()), pair_layout(format, layout), format)


def sides(*output: Any, prompt: Any = None, begins: bytes = b"", **layout: str) -> Sides:
    return sides_of(side(rollout(prompt or user("2+2?"), *output), **layout), begins=begins)


def test_a_side_is_its_context_its_first_turn_and_all_of_them():
    short, long = sides(said("4")), sides(said("4"), user("Sure?"), said("Yes."))

    assert (short.context, short.answer, short.answer_length) == (long.context, long.answer, long.answer_length)
    assert (short.whole, short.length, short.acts) == (short.answer, 1, 1)
    assert short.later is None
    ((context, answer, length),) = turns_in([long.later or b""])
    assert (long.length, long.acts, length) == (5, 2, 4)
    assert answer == long.whole
    assert len({short.context, short.answer, context, long.whole}) == 4


def test_what_is_asked_the_agent_and_the_tools_are_in_the_context():
    contexts = [
        sides(said("4")),
        sides(said("4"), prompt=user("2+3?")),
        sides(said("4"), prompt=[system("Be brief."), user("2+2?")]),
        sides(said("4"), begins=b"other agent"),
    ]
    assert len({one.context for one in contexts}) == 4


def test_a_prompt_that_holds_answers_has_none_of_the_sides():
    found = sides(said("4"), prompt=[user("1+1?"), said("2"), user("2+2?")])

    assert (found.acts, found.length) == (1, 1)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([raw_call("f", '{"a": 1, "b": [2]}', id="c1")], [raw_call("f", '{"b":[2],"a":1}', id="c9")]),
        (
            [raw_call("f", "{}", id="c1"), returned("x", id="c1"), said("y")],
            [raw_call("f", "{}", id="c2"), returned("x", id="c2"), said("y")],
        ),
        ([raw_call("f", '{"s": "a\\/b"}')], [raw_call("f", '{"s": "a/b"}')]),
    ],
)
def test_what_is_said_in_another_way_is_the_same(one, other):
    ours, theirs = sides(*one), sides(*other)

    assert (ours.answer, ours.whole, ours.acts) == (theirs.answer, theirs.whole, theirs.acts)


def test_escapes_make_no_difference():
    value = rollout(user("½?"), said("½"), call("f", a="½/"))
    raw = json.dumps(value, ensure_ascii=False).encode()
    escaped = json.dumps(value).replace("/", "\\/").encode()

    one, other = (sides_of(side_row(rollout_of(line), CHAT, "trl"), begins=b"") for line in (raw, escaped))

    assert raw != escaped
    assert one == other


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([raw_call("f", '{"a": 1}')], [raw_call("f", '{"a": 2}')]),
        ([raw_call("f", '{"a": 1}')], [raw_call("g", '{"a": 1}')]),
        ([raw_call("f", '{"a": "1"}')], [raw_call("f", '{"a": 1}')]),
        ([thought("Hm."), said("4")], [said("4")]),
        ([said("4")], [said("4 ")]),
        ([said("4"), call("f")], [said("4")]),
    ],
)
def test_what_says_something_else_is_not(one, other):
    assert sides(*one).answer != sides(*other).answer


def test_results_that_answer_other_calls_are_told_apart():
    calls = [raw_call("f", "{}", id="a"), raw_call("f", "{}", id="b")]
    one = sides(*calls, returned("x", id="a"), returned("y", id="b"), said("z"))
    other = sides(*calls, returned("x", id="b"), returned("y", id="a"), said("z"))

    assert one.answer == other.answer
    contexts = [turns_in([found.later or b""])[0][0] for found in (one, other)]
    assert contexts[0] != contexts[1]


def test_reasoning_that_the_row_leaves_out_makes_no_difference():
    assert sides(thought("Hm."), said("4"), reasoning="drop").answer == sides(said("4"), reasoning="drop").answer


def test_length_counts_characters_of_text_reasoning_and_calls():
    found = sides(thought("Hm."), said("a\nü"), raw_call("add", '{"a": 1}'))

    assert found.answer_length == len("Hm.") + len("a\nü") + len("add") + len('{"a":1}')


# Rows.

CHOSEN = rollout(
    [system("Add."), user("2+2?")], thought("Easy."), said("So: "), raw_call("add", '{"a": 2}', id="x"),
    returned("4", id="x"), said("4"), tools=TOOLS,
)  # fmt: skip
REJECTED = rollout([system("Add."), user("2+2?")], said("5"), tools=TOOLS)

CONTEXT = [{"role": "system", "content": "Add."}, {"role": "user", "content": "2+2?"}]
CALL = {"id": "x", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}
ACTS = {"role": "assistant", "content": "So: ", "reasoning_content": "Easy.", "tool_calls": [CALL]}
ANSWERS = {"role": "assistant", "content": "5"}
RESULT = {"role": "tool", "content": "4", "tool_call_id": "x"}


def row_of(format: str, turn: int = 1, *, one: Any = CHOSEN, other: Any = REJECTED, **layout: str) -> Row:
    rejected = None if other is None else side(other, format, **layout)
    return PAIR_FORMATS[format].make(Judged(side(one, format, **layout), rejected, turn, 1.0, 0.25, True))


def body_of(row: Row) -> Any:
    return json.loads(msgspec.json.encode(row.body))


def test_nemo_rl_has_two_ranks_and_arguments_as_strings():
    row = row_of("nemo-rl")

    assert body_of(row) == {
        "context": CONTEXT,
        "completions": [{"rank": 0, "completion": [ACTS]}, {"rank": 1, "completion": [ANSWERS]}],
    }
    assert row.left_out == ("tools",)


def test_trl_has_the_tools_as_text_that_no_loader_fills_with_nulls():
    row = row_of("trl")

    assert body_of(row) == {
        "prompt": CONTEXT, "chosen": [ACTS], "rejected": [ANSWERS], "tools": json.dumps(NESTED, separators=(",", ":"))
    }  # fmt: skip
    assert row.left_out == ()


def test_trl_has_objects_and_lists_if_asked_for():
    body = body_of(row_of("trl", tools="list", arguments="object", reasoning="drop"))

    arguments = {**CALL, "function": {"name": "add", "arguments": {"a": 2}}}
    assert body["chosen"] == [{"role": "assistant", "content": "So: ", "tool_calls": [arguments]}]
    assert body["tools"] == NESTED


def test_whole_answers_have_all_that_follows_the_prompt():
    body = body_of(row_of("trl", 0))

    assert (body["prompt"], body["chosen"], body["rejected"]) == (
        CONTEXT, [ACTS, RESULT, {"role": "assistant", "content": "4"}], [ANSWERS]
    )  # fmt: skip


def test_a_later_turn_has_what_was_the_same_before_it_in_its_context():
    other = rollout(
        [system("Add."), user("2+2?")], thought("Easy."), said("So: "), raw_call("add", '{"a":2}', id="q"),
        returned("4", id="q"), said("It is 5."), tools=TOOLS,
    )  # fmt: skip

    body = body_of(row_of("nemo-rl", 2, other=other))

    assert body["context"] == [*CONTEXT, ACTS, RESULT]
    assert [one["completion"] for one in body["completions"]] == [
        [{"role": "assistant", "content": "4"}], [{"role": "assistant", "content": "It is 5."}]
    ]  # fmt: skip


@pytest.mark.parametrize(("turn", "completion"), [(1, [ANSWERS]), (0, [ANSWERS])])
def test_kto_judges_one(turn, completion):
    body = body_of(row_of("kto", turn, one=REJECTED, other=None))

    assert body == {
        "prompt": CONTEXT, "completion": completion, "label": True, "tools": json.dumps(NESTED, separators=(",", ":"))
    }  # fmt: skip


def test_a_bad_row_of_kto_says_so():
    row = PAIR_FORMATS["kto"].make(Judged(side(REJECTED, "kto"), None, 1, 0.0, 0.0, False))

    assert body_of(row)["label"] is False


def test_binary_has_the_six_columns_of_the_guide():
    row = row_of("binary", one=rollout([system("Add."), user("2+2?")], thought("Easy."), said("4"), tools=TOOLS))

    assert body_of(row) == {
        "prompt": "2+2?", "chosen": "4", "rejected": "5",
        "reward_gap": 0.75, "chosen_reward": 1.0, "rejected_reward": 0.25,
    }  # fmt: skip
    assert row.left_out == ("reasoning", "tools", "turns")


def test_openai_has_tools_beside_the_messages_and_no_reasoning():
    row = row_of("openai")

    acts = {name: value for name, value in ACTS.items() if name != "reasoning_content"}
    assert body_of(row) == {
        "input": {"messages": CONTEXT, "tools": NESTED, "parallel_tool_calls": True},
        "preferred_output": [acts],
        "non_preferred_output": [ANSWERS],
    }
    assert row.left_out == ("reasoning",)


def test_openai_says_nothing_of_tools_where_there_are_none():
    body = body_of(row_of("openai", one=rollout(user("?"), said("4")), other=rollout(user("?"), said("5"))))

    assert body["input"] == {"messages": [{"role": "user", "content": "?"}]}


def test_llama_factory_has_calls_as_the_text_of_a_turn():
    row = row_of("llama-factory")

    assert body_of(row) == {
        "conversations": [{"from": "human", "value": "2+2?"}],
        "chosen": {"from": "function_call", "value": '<think>Easy.</think>[{"name":"add","arguments":{"a":2}}]'},
        "rejected": {"from": "gpt", "value": "5"},
        "system": "Add.",
        "tools": json.dumps(NESTED, separators=(",", ":")),
    }
    assert row.left_out == ("texts",)


def test_llama_factory_joins_the_results_of_calls_that_were_made_together():
    calls = [raw_call("add", "{}", id="a"), raw_call("add", "{}", id="b")]
    begin = [*calls, returned("1", id="a"), returned("2", id="b")]
    one, other = (rollout(user("?"), *begin, said(text)) for text in ("3", "4"))

    body = body_of(row_of("llama-factory", 2, one=one, other=other))

    assert body["conversations"] == [
        {"from": "human", "value": "?"},
        {"from": "function_call", "value": '[{"name":"add","arguments":{}},{"name":"add","arguments":{}}]'},
        {"from": "observation", "value": "1\n</tool_response>\n<tool_response>\n2"},
    ]
    assert (body["system"], body["tools"]) == ("", "")


IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}


@pytest.mark.parametrize(
    ("format", "value", "reason"),
    [
        ("binary", rollout(user([IMAGE]), said("4")), "not_text"),
        ("binary", rollout(user("?"), call("f")), "not_text"),
        ("openai", rollout(user([IMAGE]), said("4")), "not_text"),
        ("llama-factory", rollout(user([IMAGE]), said("4")), "not_text"),
        ("llama-factory", rollout([user("?"), user("!")], said("4")), "not_alternating"),
        ("llama-factory", rollout([user("?"), system("!")], said("4")), "not_alternating"),
        ("llama-factory", rollout([], said("4")), "not_alternating"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(format, value, reason):
    with pytest.raises(Refused) as refused:
        side(value, format)

    assert refused.value.reason == reason


def test_a_format_that_holds_chat_refuses_nothing_that_chat_has():
    for name in ("nemo-rl", "trl", "kto"):
        assert side(rollout([user([IMAGE]), user("!")], said("4"), call("f")), name).asked == 2


def test_nemo_rl_has_images_in_the_form_of_its_loader():
    body = body_of(row_of("nemo-rl", one=rollout(user([IMAGE]), said("4")), other=rollout(user([IMAGE]), said("5"))))

    assert body["context"][0]["content"] == [{"type": "image", "image": "data:image/png;base64,AAAA"}]
