"""Every rule of the `openai` layout, one test a rule; SPEC's difference table is among them."""

from __future__ import annotations

import json

import msgspec
import pytest
from builders import (
    assistant,
    call,
    messages_of,
    raw_call,
    returned,
    rollout,
    row_of,
    said,
    system,
    thought,
    tool,
    turn,
    user,
)

from fastsft.errors import Refused
from fastsft.formats import FORMATS
from fastsft.rollouts.line import rollout_of

CHAT_CALL = {"id": "c", "type": "function", "function": {"name": "b", "arguments": '{"y": 2}'}}


def refusal(value: object) -> str:
    encoded = value if isinstance(value, bytes) else json.dumps(value).encode()
    with pytest.raises(Refused) as caught:
        FORMATS["openai"](rollout_of(encoded))
    return caught.value.reason


def test_prompt_and_answer_become_a_conversation():
    assert row_of(rollout([system("Be brief."), user("2+2?")], said("4"))) == {
        "messages": [turn("system", "Be brief."), turn("user", "2+2?"), assistant("4")]
    }


def test_calls_made_together_share_one_assistant_turn():
    made = rollout(user("?"), call("add", a=2, b=2), call("now"), returned("4"), returned("noon"), said("4 at noon"))

    assert messages_of(made) == [
        turn("user", "?"),
        assistant(calls=[("add", {"a": 2, "b": 2}), ("now", {})]),
        tool("4"),
        tool("noon"),
        assistant("4 at noon"),
    ]


def test_calls_part_where_something_stands_between_them():
    made = rollout(user("?"), call("a"), returned("1"), call("b"), said("so"), call("c"), returned("3"), said("done"))

    assert messages_of(made) == [
        turn("user", "?"),
        assistant(calls=[("a", {})]),
        tool("1"),
        assistant("so", calls=[("b", {}), ("c", {})]),
        tool("3"),
        assistant("done"),
    ]


def test_reasoning_is_left_out_and_does_not_part_calls():
    made = rollout([user("?"), thought("hm")], thought("first"), call("a"), thought("second"), call("b"), said("x"))

    assert messages_of(made) == [turn("user", "?"), assistant("x", calls=[("a", {}), ("b", {})])]


def test_page_shape_with_output_on_top_wins_over_the_response():
    both = {**rollout(user("?"), said("response")), "output": [said("top")]}

    assert messages_of(both) == [turn("user", "?"), assistant("top")]


@pytest.mark.parametrize("other", [None, "text of the environment", {"a": 1}, 3])
def test_top_output_that_is_no_list_gives_way_to_the_response(other):
    assert messages_of({**rollout(user("?"), said("4")), "output": other}) == [turn("user", "?"), assistant("4")]


def test_flat_and_nested_tools_are_kept_whole():
    flat = {"type": "function", "name": "add", "description": "Adds.", "parameters": {"type": "object"}, "strict": True}
    nested = {"type": "function", "function": {"name": "now", "description": "Time.", "parameters": {"x": [1.50]}}}

    assert row_of(rollout(user("?"), said("4"), tools=[flat, nested]))["tools"] == [
        {"name": "add", "description": "Adds.", "parameters": {"type": "object"}},
        {"name": "now", "description": "Time.", "parameters": {"x": [1.5]}},
    ]


def test_missing_description_and_parameters_are_empty_and_null_stays_null():
    bare = {"type": "function", "name": "a"}
    nested = {"type": "function", "function": {"name": "b", "description": None}}

    assert row_of(rollout(user("?"), said("4"), tools=[bare, nested]))["tools"] == [
        {"name": "a", "description": "", "parameters": {}},
        {"name": "b", "description": None, "parameters": {}},
    ]


def test_other_kinds_of_tools_pass_through():
    custom = {"type": "custom", "name": "sh", "format": {"type": "text"}}

    assert row_of(rollout(user("?"), said("4"), tools=[custom, {"name": "untyped"}]))["tools"] == [
        custom,
        {"name": "untyped"},
    ]


@pytest.mark.parametrize("tools", [None, [], {}])
def test_no_tools_no_key(tools):
    assert row_of(rollout(user("?"), said("4"), tools=tools)) == {"messages": [turn("user", "?"), assistant("4")]}


def test_several_text_parts_are_joined_without_a_separator():
    assert messages_of(rollout(user("?"), said("one, ", 'two"\n', "😀"))) == [
        turn("user", "?"),
        assistant('one, two"\n😀'),
    ]


def test_turns_of_others_inside_the_output_keep_their_role():
    made = rollout(user("guess"), said("3"), user("higher"), said("4"), system("time"), said("5"))

    assert messages_of(made) == [
        turn("user", "guess"),
        assistant("3"),
        turn("user", "higher"),
        assistant("4"),
        turn("system", "time"),
        assistant("5"),
    ]


def test_unanswered_calls_at_the_end_are_the_last_assistant_turn():
    assert messages_of(rollout(user("?"), said("well"), call("add", a=1))) == [
        turn("user", "?"),
        assistant("well", calls=[("add", {"a": 1})]),
    ]


def test_string_prompt_is_a_user_turn():
    assert messages_of(rollout("2+2?\n", said("4"))) == [turn("user", "2+2?\n"), assistant("4")]


def test_text_parts_of_the_prompt_are_joined():
    parts = [{"type": "input_text", "text": "a"}, {"type": "text", "text": "b"}]

    assert messages_of(rollout({"role": "user", "content": parts}, said("4"))) == [turn("user", "ab"), assistant("4")]


def test_images_become_chat_parts():
    parts = [
        {"type": "input_text", "text": "What is it?"},
        {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "high"},
        {"type": "input_image", "image_url": "data:image/png;base64,AA"},
        {"type": "image_url", "image_url": {"url": "https://example.com/b.png"}},
    ]

    assert messages_of(rollout(user(parts), said("4"))) == [
        turn(
            "user",
            [
                {"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "high"}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "auto"}},
                {"type": "image_url", "image_url": {"url": "https://example.com/b.png"}},
            ],
        ),
        assistant("4"),
    ]


def test_items_and_chat_shaped_turns_in_the_prompt_are_calls_and_results():
    older_call = {"name": "c", "arguments": "{}"}
    prompt = [
        user("?"),
        call("a", x=1),
        returned("1"),
        {"role": "assistant", "content": None, "tool_calls": [CHAT_CALL]},
        {"role": "tool", "content": "2", "tool_call_id": "c"},
        {"role": "assistant", "content": None, "function_call": older_call, "tool_calls": []},
        {"role": "user", "content": "!", "tool_calls": []},
    ]

    assert messages_of(rollout(prompt, said("3"))) == [
        turn("user", "?"),
        assistant(calls=[("a", {"x": 1})]),
        tool("1"),
        assistant(calls=[("b", {"y": 2})]),
        tool("2"),
        assistant(calls=[("c", {})]),
        turn("user", "!"),
        assistant("3"),
    ]


@pytest.mark.parametrize("trailing", [[user("more?")], [returned("x")], [system("stop"), user("bye")]])
def test_trailing_turns_are_cut_so_that_the_row_ends_with_the_assistant(trailing):
    value = rollout(user("?"), said("4"), *trailing)

    assert messages_of(value) == [turn("user", "?"), assistant("4")]
    assert FORMATS["openai"](rollout_of(json.dumps(value).encode())).turns_cut == len(trailing)


@pytest.mark.parametrize(
    "value",
    [
        rollout(user("?")),
        rollout(user("?"), thought("hm")),
        rollout(user("?"), returned("x"), user("y")),
        rollout([user("?"), said("an example of the prompt")], user("well?")),
    ],
)
def test_an_output_without_an_assistant_turn_refuses_the_line(value):
    assert refusal(value) == "no_assistant_turn"


def test_instructions_are_the_leading_system_turn():
    assert messages_of(rollout([system("b"), user("?")], said("4"), instructions="a")) == [
        turn("system", "a"),
        turn("system", "b"),
        turn("user", "?"),
        assistant("4"),
    ]


def test_of_a_list_of_lists_the_last_counts_and_its_prompt_is_not_repeated():
    prompt = [system("s"), user("?"), call("a")]

    assert messages_of(rollout(prompt, [*prompt, said("1")], [*prompt, call("b"), returned("r"), said("2")])) == [
        turn("system", "s"),
        turn("user", "?"),
        assistant(calls=[("a", {}), ("b", {})]),
        tool("r"),
        assistant("2"),
    ]


def test_a_list_of_lists_may_repeat_the_prompt_in_another_dialect_and_with_the_instructions():
    parts = {"role": "user", "content": [{"type": "input_text", "text": "?"}]}

    assert messages_of(rollout("?", [system("s"), parts, said("4")], instructions="s")) == [
        turn("system", "s"),
        turn("user", "?"),
        assistant("4"),
    ]


@pytest.mark.parametrize(
    ("asked", "repeated"),
    [
        ({"role": "user", "content": "?", "tool_calls": []}, {"role": "user", "content": "?", "tool_calls": None}),
        (
            user([{"type": "input_image", "image_url": "data:,"}]),
            user([{"type": "input_image", "image_url": "data:,", "detail": "auto", "file_id": None}]),
        ),
    ],
)
def test_a_list_of_lists_may_repeat_the_prompt_with_what_stands_for_nothing(asked, repeated):
    made = rollout(asked, [{"role": "developer", "content": "s"}, repeated, said("4")], instructions="s")

    assert messages_of(made) == messages_of(rollout(asked, said("4"), instructions="s"))


@pytest.mark.parametrize(
    ("first", "behind"), [(said("3"), [assistant("34")]), (user("no"), [turn("user", "no"), assistant("4")])]
)
def test_a_list_of_lists_that_does_not_repeat_the_prompt_follows_it(first, behind):
    assert messages_of(rollout(user("?"), [first, said("4")])) == [turn("user", "?"), *behind]


def test_missing_role_is_the_user_in_the_prompt_and_the_assistant_in_the_output():
    assert messages_of(rollout({"content": "?"}, {"type": "message", "content": "4"})) == [
        turn("user", "?"),
        assistant("4"),
    ]


@pytest.mark.parametrize("form", ["openai", "chat"])
@pytest.mark.parametrize("role", ["", "bot"])
def test_a_role_that_nobody_knows_is_no_missing_one(form, role):
    made = rollout(user("?"), {"role": role, "content": "Not the model."}, said("4"))

    assert messages_of(made, format=form) == [turn("user", "?"), turn(role, "Not the model."), assistant("4")]


def test_missing_and_null_content_are_empty_text():
    made = rollout(
        {"role": "user"}, call("a"), {"type": "function_call_output"}, {"role": "assistant", "content": None}
    )

    assert messages_of(made) == [turn("user", ""), assistant(calls=[("a", {})]), tool(""), assistant("")]


def test_reasoning_parts_of_a_message_are_left_out():
    parts = [{"type": "reasoning_text", "text": "hm"}, {"type": "output_text", "text": "4"}]
    image = {"type": "image_url", "image_url": {"url": "u"}}

    assert messages_of(rollout(user("?"), {"role": "assistant", "content": parts}))[-1] == assistant("4")
    assert messages_of(rollout(user("?"), {"role": "assistant", "content": [*parts, image]}))[-1] == turn(
        "assistant", [{"type": "text", "text": "4"}, image]
    )


def test_a_part_without_a_type_that_has_text_is_text():
    assert messages_of(rollout(user([{"text": "?"}]), said("4"))) == [turn("user", "?"), assistant("4")]


@pytest.mark.parametrize("empty", ["", None])
def test_empty_instructions_are_none(empty):
    assert messages_of(rollout(user("?"), said("4"), instructions=empty)) == [turn("user", "?"), assistant("4")]


def test_refusals_of_the_model_are_its_text():
    chat = {"role": "assistant", "content": None, "refusal": "I can't."}
    assert messages_of(rollout(user("?"), chat)) == [turn("user", "?"), assistant("I can't.")]

    for part in ({"type": "refusal", "refusal": "I won't."}, {"type": "refusal", "refusal": "I won't.", "text": None}):
        refused = {"type": "message", "role": "assistant", "content": [part]}
        assert messages_of(rollout(user("?"), refused)) == [turn("user", "?"), assistant("I won't.")]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"a": 1}', {"a": 1}),
        ({"a": 1}, {"a": 1}),
        (' {\n "a" : [1,\r\n 2] }\t', {"a": [1, 2]}),
        ('{"a": 1, "a": 2}', {"a": 2}),
        ('{"a": {"b": 1, "c": [{"d": 1, "d": 2}], "b": 3}}', {"a": {"b": 3, "c": [{"d": 2}]}}),
        ("{}", {}),
    ],
)
def test_arguments_become_an_object_with_each_key_once(arguments, expected):
    row = msgspec.json.encode(
        FORMATS["openai"](rollout_of(json.dumps(rollout(user("?"), raw_call("f", arguments))).encode())).body
    )

    def pairs(found):
        assert len(found) == len(dict(found)), found
        return dict(found)

    decoded = json.loads(row, object_pairs_hook=pairs)
    assert decoded["messages"][-1] == assistant(calls=[("f", expected)])
    assert b"\n" not in row
    assert b"\r" not in row


def test_missing_arguments_are_an_empty_object():
    assert messages_of(rollout(user("?"), {"type": "function_call", "name": "f"}))[-1] == assistant(calls=[("f", {})])


@pytest.mark.parametrize(
    "arguments", ["[2, 2]", '"x"', "{", '{"a": NaN}', '{"a": "\\ud800"}', "{'a': 1}", [1], 7, True]
)
def test_arguments_that_are_no_object_refuse_the_line(arguments):
    assert refusal(rollout(user("?"), raw_call("add", arguments), said("4"))) == "bad_arguments"


def test_the_refusal_names_the_call_and_what_was_found():
    with pytest.raises(Refused, match=r"^arguments of call `add` are not a JSON object, found `\[2, 2\]`$"):
        row_of(rollout(user("?"), raw_call("add", "[2, 2]")))


@pytest.mark.parametrize("number", ["1e999", "-1E+400", "9" * 400, "1" + "0" * 400 + ".5"])
def test_numbers_that_no_double_holds_refuse_the_line(number):
    assert refusal(rollout(user("?"), raw_call("f", '{"a": [' + number + "]}"))) == "bad_number"
    tools = '[{"type":"function","name":"f","parameters":{"maximum":' + number + "}}]"
    value = json.dumps(rollout(user("?"), said("4"), tools=0)).replace('"tools": 0', f'"tools": {tools}')
    assert refusal(value.encode()) == "bad_number"


@pytest.mark.parametrize("number", ["1.50", "1e5", "-0", "1E-7", "123456789012345678901234567890", "0.1000", "1e308"])
def test_numbers_keep_their_written_form(number):
    arguments = '{"a":' + number + ',"b":[' + number + "]}"
    made = rollout(user("?"), raw_call("f", arguments))

    row = msgspec.json.encode(FORMATS["openai"](rollout_of(json.dumps(made).encode())).body)

    assert row.endswith(b'"arguments":' + arguments.encode() + b"}]}]}")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (rollout(user("?"), {"type": "web_search_call"}), "unknown_item"),
        (rollout(user("?"), {"id": "x"}), "unknown_item"),
        (rollout(user("?"), "text"), "bad_item"),
        (rollout(user("?"), said("x"), [said("y")]), "bad_item"),
        (rollout(user("?"), {"type": 5}), "bad_item"),
        (rollout(user("?"), {"type": "function_call", "arguments": "{}"}), "bad_item"),
        (rollout(user("?"), {"role": "assistant", "tool_calls": {"a": 1}}), "bad_item"),
        (rollout(user("?"), {"role": "user", "tool_calls": [1]}, said("x")), "bad_item"),
        (rollout({"content": "x", "tool_calls": [CHAT_CALL]}, said("x")), "bad_item"),
        (rollout(user(5), said("x")), "bad_content"),
        (rollout(user(["text"]), said("x")), "bad_content"),
        (rollout(user([{"type": "input_text", "text": 5}]), said("x")), "bad_content"),
        (rollout(user([{"type": "input_image", "file_id": "f"}]), said("x")), "bad_content"),
        (rollout(user("?"), said("x"), instructions=["a"]), "bad_content"),
        (rollout(user([{"type": "video", "url": "x"}]), said("x")), "unknown_part"),
        (rollout(user([{"id": "x"}]), said("x")), "unknown_part"),
        (rollout(user("?"), said("x"), tools={"a": 1}), "bad_tool"),
        (rollout(user("?"), said("x"), tools=0), "bad_tool"),
        (rollout(user("?"), said("x"), tools=["a"]), "bad_tool"),
        (rollout(user("?"), said("x"), tools=[{"type": "function", "description": "no name"}]), "bad_tool"),
    ],
)
def test_what_no_row_can_hold_refuses_the_line(value, reason):
    assert refusal(value) == reason


@pytest.mark.parametrize("depth", [65, 500, *range(880, 1010, 7), 1490, 5000, 9_900])
def test_too_deep_is_refused_at_any_depth_wherever_the_value_stands(convert, depth):
    deep = "[" * depth + "]" * depth
    parts = json.dumps(rollout(user([{"type": "file", "file": 0}]), said("4"))).replace('"file": 0', f'"file": {deep}')
    tools = json.dumps(rollout(user("?"), said("4"), tools=0)).replace("0", f'[{{"type": "x", "y": {deep}}}]', 1)
    ignored = json.dumps(rollout(user("?"), said("4"))).replace('"annotations": []', f'"annotations": {deep}')
    arguments = json.dumps(rollout(user("?"), raw_call("f", f'{{"a": {deep}}}')))

    report, rows = convert("\n".join([parts, tools, ignored, arguments]).encode())

    assert report.fates.refused == {"too_deep": 3}
    assert [json.loads(row)["messages"] for row in rows] == [[turn("user", "?"), assistant("4")]]


@pytest.mark.parametrize(("depth", "fits"), [(64, True), (65, False), (2000, False), (50_000, False)])
def test_a_value_for_the_row_nests_at_most_64_levels(depth, fits):
    arguments = '{"a":' * (depth - 1) + "{}" + "}" * (depth - 1)
    value = rollout(user("?"), raw_call("f", arguments))

    if fits:
        assert json.dumps(row_of(value)).count('{"a"') == 63
    else:
        assert refusal(value) == "too_deep"
