"""Every rule of the `chat` layout, one test a rule; that it says what NeMo Gym says, test_real.py asks."""

from __future__ import annotations

import json

import msgspec
import pytest
from builders import (
    call,
    chat_call,
    line,
    messages_of,
    raw_call,
    returned,
    rollout,
    row_of,
    said,
    sampled,
    system,
    thought,
    tool,
    turn,
    user,
)

from fastsft.errors import Refused, UsageError
from fastsft.formats import FORMATS
from fastsft.formats.row import Layout
from fastsft.options import Options
from fastsft.rollouts.line import rollout_of


def assistant(content: str = "", **more: object) -> dict[str, object]:
    return {**turn("assistant", content), **more}


def refusal(value: object, **layout: str) -> str:
    with pytest.raises(Refused) as caught:
        FORMATS["chat"](rollout_of(json.dumps(value).encode()), layout=Layout(**layout))
    return caught.value.reason


def test_reasoning_text_and_calls_are_one_turn():
    made = rollout(user("?"), thought("hm"), said("Let me add."), call("add", a=2), returned("4"), said("4"))

    assert messages_of(made, "chat") == [
        turn("user", "?"),
        assistant("Let me add.", reasoning_content="hm", tool_calls=[chat_call("add", {"a": 2})]),
        tool("4", id="call_1"),
        assistant("4"),
    ]


def test_a_turn_goes_on_until_a_result_or_another_speaks():
    made = rollout(
        user("?"),
        raw_call("a", "{}", id="1"),
        said("and"),
        raw_call("b", "{}", id="2"),
        returned("x", id="1"),
        returned("y", id="2"),
        said("so"),
        user("go on"),
        said("I ", "do"),
        said(" it"),
    )

    assert messages_of(made, "chat") == [
        turn("user", "?"),
        assistant("and", tool_calls=[chat_call("a", {}, id="1"), chat_call("b", {}, id="2")]),
        tool("x", id="1"),
        tool("y", id="2"),
        assistant("so"),
        turn("user", "go on"),
        assistant("I do it"),
    ]


def test_arguments_as_the_model_wrote_them_or_as_an_object():
    made = rollout(user("?"), raw_call("f", '{"x": 1.50, "y": [ ]}'))

    assert messages_of(made, "chat")[1]["tool_calls"] == [chat_call("f", {"x": 1.5, "y": []})]
    assert messages_of(made, "chat", arguments="string")[1]["tool_calls"] == [chat_call("f", '{"x": 1.50, "y": [ ]}')]


@pytest.mark.parametrize(("given", "written"), [({"x": 1}, '{"x":1}'), (None, "{}")])
def test_arguments_that_are_no_string_become_one(given, written):
    item = {"type": "function_call", "name": "f", "call_id": "call_1", **({"arguments": given} if given else {})}

    made = rollout(user("?"), item)

    assert messages_of(made, "chat", arguments="string")[1]["tool_calls"] == [chat_call("f", written)]


@pytest.mark.parametrize("arguments", ["[1]", "{", "[]", 3])
@pytest.mark.parametrize("form", ["object", "string"])
def test_arguments_that_are_no_object_refuse_the_line(arguments, form):
    with pytest.raises(Refused, match="are not a JSON object"):
        messages_of(rollout(user("?"), raw_call("f", arguments)), "chat", arguments=form)


@pytest.mark.parametrize(
    ("reasoning", "expected"),
    [
        ("field", [assistant("4", reasoning_content="one\n\ntwo\n\nthree")]),
        ("think", [assistant("<think>one</think><think>two</think>4<think>three</think>")]),
        ("drop", [assistant("4")]),
    ],
)
def test_where_reasoning_goes(reasoning, expected):
    made = rollout(user("?"), thought("one", "", "two"), said("4"), thought("three"))

    assert messages_of(made, "chat", reasoning=reasoning)[1:] == expected


def test_reasoning_is_the_content_else_the_summary():
    both = {
        "type": "reasoning",
        "summary": [{"text": "short"}],
        "content": [{"type": "reasoning_text", "text": "long"}],
    }
    summary = {**both, "content": []}

    assert messages_of(rollout(user("?"), both, said("4")), "chat")[1]["reasoning_content"] == "long"
    assert messages_of(rollout(user("?"), summary, said("4")), "chat")[1]["reasoning_content"] == "short"
    assert messages_of(rollout(user("?"), {"type": "reasoning"}, said("4")), "chat")[1:] == [assistant("4")]


@pytest.mark.parametrize(
    ("text", "reasoning", "rest"),
    [
        ("<think>\nAdd.\n</think>\n\n4", "Add.", "4"),
        ("Add.\n</think>\n\n4", "Add.", "4"),  # the template wrote the opening tag
        ("<think></think>4", None, "4"),
        ("    def f():\n  x\n</think>\n\n4", "    def f():\n  x", "4"),
        ("The tag that closes it is </think>", None, "The tag that closes it is </think>"),
        ("Add.\n</think>\n ", None, "Add.\n</think>\n "),
        ("<think>cut short", None, "<think>cut short"),
        ("The tag </think> closes.", None, "The tag </think> closes."),
        ("Not </think> yet, nor </think>\\n.\n</think>\n\n4", "Not </think> yet, nor </think>\\n.", "4"),
        ("First. <think>Add.</think> 4", None, "First. <think>Add.</think> 4"),
        ("First. <think>Add.</think>\n4", None, "First. <think>Add.</think>\n4"),
        ("<think>a</think><think>b</think>4", "a", "<think>b</think>4"),
    ],
)
def test_reasoning_inside_a_text(text, reasoning, rest):
    made = rollout(user("?"), said(text))
    field = {"reasoning_content": reasoning} if reasoning else {}

    assert messages_of(made, "chat")[1:] == [assistant(rest, **field)]
    assert messages_of(made, "chat", reasoning="drop")[1:] == [assistant(rest)]
    assert messages_of(made, "chat", reasoning="think")[1:] == [assistant(text)]


def test_a_closing_tag_alone_is_a_word_where_the_reasoning_is_known():
    made = rollout(user("?"), thought("hm"), said("It ends with </think>\nand then text."))

    assert messages_of(made, "chat")[1:] == [assistant("It ends with </think>\nand then text.", reasoning_content="hm")]


def test_each_text_of_a_turn_may_begin_with_reasoning():
    made = rollout(user("?"), said("<think>a</think>One, "), said("<think>b</think>"), said("<think>c</think>two."))

    assert messages_of(made, "chat")[1:] == [assistant("One, two.", reasoning_content="a\n\nb\n\nc")]
    assert messages_of(made, "chat", reasoning="drop")[1:] == [assistant("One, two.")]


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        ([call("f")], assistant(reasoning_content="Add.", tool_calls=[chat_call("f", {})])),
        ([said("4")], assistant("4", reasoning_content="Add.")),
        ([], assistant("Add.\n</think>\n")),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_closing_tag_at_the_end_of_a_text_closes_where_the_turn_goes_on(end, behind, expected):
    text = f"Add.\n</think>{end}"
    expected = {**expected, "content": expected["content"].replace("</think>\n", f"</think>{end}")}

    assert messages_of(rollout(user("?"), said(text), *behind, said("")), "chat")[1:2] == [expected]


def test_a_closing_tag_may_be_the_last_of_its_text():
    made = rollout(user("?"), said("Add.\n</think>"), call("f"), returned("4"), said("So.\n</think>"), said("4"))

    assert messages_of(made, "chat")[1:] == [
        assistant(reasoning_content="Add.", tool_calls=[chat_call("f", {})]),
        tool("4", id="call_1"),
        assistant("4", reasoning_content="So."),
    ]


def test_a_call_before_a_text_does_not_go_on_with_it():
    made = rollout(user("?"), call("f"), said("Close it with:\n</think>\n"))

    assert messages_of(made, "chat")[1:] == [
        assistant("Close it with:\n</think>\n", tool_calls=[chat_call("f", {})]),
    ]


def test_a_call_ends_reasoning_that_is_not_closed():
    made = rollout(user("?"), said("<think>\nhm\n\n"), call("f"), returned("4"), said("<think>cut short"))
    called = [chat_call("f", {})]

    assert messages_of(made, "chat")[1:] == [
        assistant(reasoning_content="hm", tool_calls=called),
        tool("4", id="call_1"),
        assistant("<think>cut short"),
    ]
    assert messages_of(made, "chat", reasoning="drop")[1] == assistant(tool_calls=called)


def test_reasoning_that_the_prompt_begins_goes_on_in_the_output():
    begun = [user("?"), said("<think>\nOkay,")]
    output = said(" 2+2.\n</think>\n\n4")

    assert messages_of(rollout(begun, output), "chat")[1:] == [assistant("4", reasoning_content="Okay, 2+2.")]
    assert messages_of(rollout(begun, output), "chat", reasoning="drop")[1:] == [assistant("4")]
    opened = rollout([user("?"), said("<think>\n")], thought("hm"), said("4"))
    assert messages_of(opened, "chat")[1:] == [assistant("4", reasoning_content="hm")]
    cut_short = rollout(begun, said(" 2+"))
    assert messages_of(cut_short, "chat")[1:] == [assistant("<think>\nOkay, 2+")]
    in_pieces = rollout(user("?"), said("<think>a"), *[said("b")] * 9, said("c</think>4"))
    assert messages_of(in_pieces, "chat")[1:] == [assistant("4", reasoning_content="abbbbbbbbbc")]


def test_an_opening_tag_alone_says_nothing():
    opened = rollout([user("?"), said("<think>\n")], said("Add.\n</think>\n\n4"))

    assert messages_of(opened, "chat", loss="own")[1:] == [
        assistant("4", reasoning_content="Add.", weight=1, loss_mask=1)
    ]
    assert refusal(rollout(user("?"), said("<think>"))) == "no_assistant_turn"


def test_reasoning_that_a_call_ended_does_not_go_on_behind_it():
    for behind in ("4", "<think>so</think>4"):
        made = rollout(user("?"), said("<think>plan"), call("f"), said(behind))
        thoughts = "plan" if behind == "4" else "plan\n\nso"
        called = assistant("4", reasoning_content=thoughts, tool_calls=[chat_call("f", {})])
        assert messages_of(made, "chat")[1:] == [called]
        assert messages_of(made, "chat", reasoning="drop")[1:] == [assistant("4", tool_calls=[chat_call("f", {})])]


def test_a_turn_has_its_reasoning_by_an_older_or_a_newer_name():
    for names in (["reasoning_content"], ["reasoning"], ["reasoning_content", "reasoning"]):
        made = rollout(user("?"), {**said("4"), **dict.fromkeys(names, "hm")})
        assert messages_of(made, "chat")[1:] == [assistant("4", reasoning_content="hm")]
    settings = rollout(user("?"), {**said("4"), "reasoning": {"effort": "low"}})
    assert messages_of(settings, "chat")[1:] == [assistant("4")]
    assert refusal(rollout(user("?"), {**said("4"), "reasoning_content": ["hm"]})) == "bad_item"


def test_empty_reasoning_is_none():
    empty = {"role": "assistant", "reasoning_content": ""}

    for layout in ({}, {"reasoning": "think"}):
        made = rollout(user("?"), {**empty, "content": "4"})
        assert messages_of(made, "chat", **layout)[1:] == [assistant("4")]
    made = rollout(user("?"), {**empty, "content": "Add.\n</think>\n4"})
    assert messages_of(made, "chat")[1:] == [assistant("4", reasoning_content="Add.")]
    assert messages_of(rollout(user("?"), {**empty, "content": ""}), "chat")[1:] == [assistant()]


def test_ids_of_calls_are_text_or_absent():
    def calling(*ids: object) -> dict[str, object]:
        return rollout(user("?"), *({**call("f"), "call_id": one} for one in ids), returned("x"), said("4"))

    assert refusal(calling(1, 2)) == "bad_item"
    assert refusal(rollout(user("?"), call("f"), {**returned("x"), "call_id": 7}, said("4"))) == "bad_item"
    assert messages_of(calling(None), "chat")[1]["tool_calls"] == [chat_call("f", {}, id="unnamed_call_0")]


def test_a_result_finds_its_call_however_its_id_is_written():
    calls = [{**call("f"), "call_id": "c/1"}, {**call("g"), "call_id": "c/2"}]
    named = {"role": "tool", "content": "G", "tool_call_id": None, "call_id": "c/2"}
    made = json.dumps(rollout(user("?"), *calls, named, {"role": "tool", "content": "F"}, said("4")))
    escaped = made[::-1].replace("2/c", "2/\\c", 1)[::-1].encode()  # the result's

    body = FORMATS["chat"](rollout_of(escaped)).body
    told = [(one.get("content"), one.get("tool_call_id")) for one in json.loads(msgspec.json.encode(body))["messages"]]
    assert told[2:4] == [("F", "c/1"), ("G", "c/2")]


def test_one_id_on_two_calls_waits_for_two_results():
    calls = [{**call("f"), "call_id": "1"}, {**call("f"), "call_id": "1"}]
    made = rollout(user("?"), *calls, {"role": "tool", "content": "a"}, {"role": "tool", "content": "b"}, said("4"))

    assert [message.get("tool_call_id") for message in messages_of(made, "chat")[2:4]] == ["1", "1"]


def test_instructions_take_in_the_system_turns_in_front():
    made = rollout([system("Be brief."), user("?"), system("Now.")], said("4"), instructions="You add.")

    assert messages_of(made, "chat") == [
        turn("system", "You add.\n\nBe brief."),
        turn("user", "?"),
        turn("system", "Now."),
        assistant("4"),
    ]


def test_the_developer_is_the_system():
    made = rollout([{"role": "developer", "content": "Be brief."}, user("?")], said("4"))

    assert messages_of(made, "chat") == [turn("system", "Be brief."), turn("user", "?"), assistant("4")]


def test_images_and_audio_are_chat_parts():
    image = {"type": "input_image", "image_url": "https://example.com/a.png"}
    audio = {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}
    made = rollout(user([{"type": "input_text", "text": "What?"}, image, audio]), said("4"))

    assert messages_of(made, "chat")[0] == turn(
        "user",
        [
            {"type": "text", "text": "What?"},
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "auto"}},
            audio,
        ],
    )


def test_tools_are_nested_and_say_what_they_said():
    flat = {"type": "function", "name": "a", "parameters": {"x": 1}, "strict": True}
    nested = {"type": "function", "function": {"name": "b", "description": None}}
    other = {"type": "custom", "name": "sh"}

    assert row_of(rollout(user("?"), said("4"), tools=[flat, nested, other]), "chat")["tools"] == [
        {"type": "function", "function": {"name": "a", "parameters": {"x": 1}}},
        {"type": "function", "function": {"name": "b", "description": None}},
        {"type": "custom", "name": "sh"},
    ]


def test_chat_shaped_turns_and_refusals():
    made = rollout(
        [
            user("?"),
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "hm",
                "tool_calls": [chat_call("b", "{}", id="9")],
            },
            {"role": "tool", "content": "2", "tool_call_id": "9"},
            {"role": "function", "name": "b", "content": "3"},
        ],
        {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
    )

    assert messages_of(made, "chat") == [
        turn("user", "?"),
        assistant(reasoning_content="hm", tool_calls=[chat_call("b", {}, id="9")]),
        tool("2", id="9"),
        tool("3"),
        assistant("No."),
    ]


def test_calls_and_results_without_ids_are_paired_in_order():
    calls = [{"type": "function_call", "name": name, "arguments": "{}"} for name in "ab"]
    results = [{"type": "function_call_output", "output": text} for text in "xy"]

    assert messages_of(rollout(user("?"), *calls, *results, said("4")), "chat")[1:] == [
        assistant(tool_calls=[chat_call("a", {}, id="unnamed_call_0"), chat_call("b", {}, id="unnamed_call_1")]),
        tool("x", id="unnamed_call_0"),
        tool("y", id="unnamed_call_1"),
        assistant("4"),
    ]


def test_an_empty_id_stays_with_its_call_and_says_of_a_result_nothing():
    made = rollout(user("?"), raw_call("f", "{}", id=""), returned("x", id=""), said("4"))

    assert messages_of(made, "chat")[1:] == [
        assistant(tool_calls=[chat_call("f", {}, id="")]),
        tool("x"),
        assistant("4"),
    ]


def test_nothing_said_is_no_turn_and_what_comes_behind_is_cut():
    made = rollout(user("?"), said("4"), user("more?"), said(""), user("hello?"))
    row = FORMATS["chat"](rollout_of(line(made)))

    assert messages_of(made, "chat") == [turn("user", "?"), assistant("4")]
    assert row.turns_cut == 3


def test_an_output_without_an_assistant_turn_refuses_the_line():
    assert refusal(rollout([user("?"), said("4")], user("!"))) == "no_assistant_turn"
    assert refusal(rollout([user("?"), said("4")], said(""))) == "no_assistant_turn"


def test_an_output_that_says_nothing_at_all_is_one_empty_turn():
    assert messages_of(rollout(user("?"), said("")), "chat") == [turn("user", "?"), assistant()]


@pytest.mark.parametrize(
    "only", [[said("<think>hm</think>")], [thought("hm")], [said("<think>hm</think>"), thought("so")]]
)
def test_reasoning_alone_is_no_answer_but_where_it_is_text(only):
    made = rollout([user("?"), said("4"), user("!")], *only)

    assert refusal(made) == refusal(made, reasoning="drop") == "no_assistant_turn"
    assert len(messages_of(made, "chat", reasoning="think")) == 4
    answered = rollout(user("?"), said("4"), user("!"), *only)
    assert messages_of(answered, "chat") == [turn("user", "?"), assistant("4")]
    assert refusal(rollout([user("?"), said("<think>hm</think>4")], said("<think></think>"))) == "no_assistant_turn"


def test_the_output_goes_on_where_the_prompt_ends_with_the_assistant():
    assert messages_of(rollout([user("?"), said("It is ")], said("4")), "chat") == [
        turn("user", "?"),
        assistant("It is 4"),
    ]


def test_an_empty_prompt_is_repeated_by_the_output():
    made = rollout([], system("Be brief."), user("?"), said("4"))

    assert messages_of(made, "chat") == [turn("system", "Be brief."), turn("user", "?"), assistant("4")]


# Loss where it belongs.


def marks(value: object, format: str) -> list[tuple[object, object]]:
    return [
        (message.get("weight"), message.get("loss_mask"))
        for message in messages_of(value, format, loss="own")
        if message["role"] == "assistant"
    ]


@pytest.mark.parametrize("format", ["openai", "chat"])
def test_turns_of_the_prompt_are_not_the_models_own(format):
    made = rollout([user("?"), said("3"), user("no")], said("4"))

    assert marks(made, format) == [(0, 0), (1, 1)]
    assert all("weight" not in message for message in messages_of(made, format))


def test_a_turn_that_the_prompt_begins_is_two_where_turns_are_marked():
    made = rollout([user("?"), said("It is ")], said("4"))

    assert marks(made, "chat") == marks(made, "openai") == [(0, 0), (1, 1)]
    assert messages_of(made, "chat", loss="own")[1]["content"] == "It is "


@pytest.mark.parametrize("format", ["openai", "chat"])
def test_where_token_ids_are_recorded_turns_without_any_were_not_sampled(format):
    made = rollout(
        user("?"), said("from the agent"), user("!"), thought("hm"), sampled(said("mine")), returned("?"), said("x")
    )

    assert marks(made, format) == [(0, 0), (1, 1)]


def test_ids_on_the_last_item_of_a_response_speak_for_all_of_it():
    made = rollout(user("?"), said("I add."), sampled(call("add", a=1)), returned("1"), sampled(said("1")))

    assert marks(made, "openai") == marks(made, "chat") == [(1, 1), (1, 1)]


@pytest.mark.parametrize("format", ["openai", "chat"])
def test_ids_of_an_empty_message_that_only_say_that_there_are_none_are_none(format):
    nothing = {**said(""), "prompt_token_ids": [0], "generation_token_ids": [0], "generation_log_probs": [0.0]}
    made = rollout(user("?"), said("I add."), call("add", a=1), returned("1"), said("1"), user("!"), nothing)

    assert set(marks(made, format)) == {(1, 1)}


@pytest.mark.parametrize(
    ("choice", "problem"),
    [
        ({"reasoning": "think"}, "--reasoning belongs to the format chat, and this is openai"),
        ({"format": "simple", "loss": "own"}, "--loss belongs to the format openai or chat, and this is simple"),
        ({"format": "chat", "arguments": "list"}, "no arguments named 'list'; there are: object, string"),
    ],
)
def test_a_choice_that_a_layout_does_not_have_is_told(choice, problem):
    with pytest.raises(UsageError, match=problem):
        Options(**choice)
