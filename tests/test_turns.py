"""Turns of a rollout, whatever the layout: what one response said, no more and no less."""

from __future__ import annotations

import json
from typing import Any

import baseline
import pytest
from builders import (
    Json,
    assistant,
    call,
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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastsft.errors import Refused
from fastsft.formats import FORMATS
from fastsft.formats.row import Layout
from fastsft.rollouts.line import rollout_of

LAYOUTS = list(FORMATS)


def outcome(value: Json, format: str, **layout: Any) -> Any:
    """The row of a rollout, or the reason why it has none."""
    try:
        return row_of(value, format, **layout)
    except Refused as refused:
        return refused.reason


def outcomes(value: Json) -> dict[str, Any]:
    return {layout: outcome(value, layout) for layout in LAYOUTS}


def ids(item: Json, *numbers: int) -> Json:
    """An item with the recorded ids of the response that it ends; each number is another response."""
    return {**sampled(item), "prompt_token_ids": list(range(numbers[0])), "generation_token_ids": [7]}


# One response, one turn.


def test_text_and_calls_of_one_response_are_one_turn():
    made = rollout(user("?"), said("Let me look."), call("f"), returned("72"), said("It is 72."))

    assert messages_of(made) == [
        turn("user", "?"),
        assistant("Let me look.", calls=[("f", {})]),
        tool("72"),
        assistant("It is 72."),
    ]


def test_an_item_with_ids_ends_a_response_and_what_follows_is_another_turn():
    made = rollout(user("?"), ids(said("One."), 1), ids(said("Two."), 2))

    assert messages_of(made) == messages_of(made, "chat") == [turn("user", "?"), assistant("One."), assistant("Two.")]


def test_two_items_with_the_ids_of_one_response_are_one_turn():
    both = [ids(said("Let me look."), 1), ids(call("f"), 1)]
    made = rollout(user("?"), *both, returned("72"), ids(said("It is 72."), 3))

    assert messages_of(made)[1] == assistant("Let me look.", calls=[("f", {})])


@pytest.mark.parametrize("behind", [call("g"), said("It is 72."), ids(said("It is 72."), 2), ids(thought("hm"), 2)])
def test_results_that_are_missing_between_two_responses_refuse_the_line(behind):
    made = rollout(user("?"), ids(call("f"), 1), behind, ids(said("So."), 9))

    assert outcomes(made) == dict.fromkeys(LAYOUTS, "results_missing")


def test_the_refusal_names_the_token_capture_that_lost_what_stood_between():
    made = rollout(user("?"), ids(said("Which one?"), 1), ids(said("It is 72."), 9))
    captured = {**made, "_ng_token_capture": {"n_calls": 2}}

    with pytest.raises(Refused, match=r"what was said is missing between two responses .*_ng_token_capture"):
        row_of(captured)
    assert len(messages_of({**made, "_ng_token_capture": None})) == 3


def test_words_that_nobody_sampled_behind_the_last_response_are_cut():
    made = rollout(user("?"), ids(call("f"), 1), returned("72"), ids(said("72."), 5), said("Done."), user("bye"))

    for layout in ("openai", "chat"):
        row = FORMATS[layout](rollout_of(json.dumps(made).encode()))
        assert [message["content"] for message in messages_of(made, layout)] == ["?", "", "72", "72."]
        assert row.turns_cut == 2
    assert row_of(made, "simple") == {"input": "?", "output": "72."}


def test_words_that_nobody_sampled_elsewhere_are_turns_of_their_own_without_loss():
    made = rollout(user("?"), said("I am an agent."), user("go on"), ids(said("72."), 5))

    marks = [(message["content"], message.get("weight")) for message in messages_of(made, "chat", loss="own")]
    assert marks == [("?", None), ("I am an agent.", 0), ("go on", None), ("72.", 1)]


def test_ids_without_content_are_no_turn():
    nothing = {"type": "message", "prompt_token_ids": [1], "generation_token_ids": [2], "generation_log_probs": [0.1]}
    made = rollout(user("?"), ids(said("72."), 1), user("and?"), nothing)

    assert messages_of(made) == [turn("user", "?"), assistant("72.")]
    assert outcomes(rollout(user("?"), nothing)) == dict.fromkeys(LAYOUTS, "no_assistant_turn")


# Results stand in the order of their calls.


@pytest.mark.parametrize("layout", ["openai", "chat"])
@pytest.mark.parametrize("in_prompt", [True, False])
def test_results_of_a_batch_stand_in_the_order_of_their_calls(layout, in_prompt):
    calls = [raw_call("f", "{}", id="1"), raw_call("g", "{}", id="2"), raw_call("h", "{}", id="3")]
    results = [returned("H", id="3"), returned("nobody's", id="9"), returned("F", id="1"), returned("G", id="2")]
    batch = [*calls, *results]
    made = rollout([user("?"), *batch], said("4")) if in_prompt else rollout(user("?"), *batch, said("4"))

    found = [message["content"] for message in messages_of(made, layout) if message["role"] == "tool"]
    assert found == ["F", "nobody's", "G", "H"]


def test_a_result_that_names_no_call_answers_the_first_that_no_other_result_names():
    calls = [raw_call("f", "{}", id="1"), raw_call("g", "{}", id="2")]
    unnamed = {"type": "function_call_output", "output": "G"}
    made = rollout(user("?"), *calls, unnamed, returned("F", id="1"), said("4"))

    assert messages_of(made, "chat")[2:4] == [tool("F", id="1"), tool("G", id="2")]


def test_results_behind_another_turn_answer_no_batch():
    calls = [raw_call("f", "{}", id="1"), raw_call("g", "{}", id="2")]
    made = rollout(user("?"), *calls, user("wait"), returned("G", id="2"), returned("F", id="1"), said("4"))

    assert [message["content"] for message in messages_of(made)][2:5] == ["wait", "G", "F"]


# A row says all that the line does.


def test_functions_of_a_namespace_have_the_names_that_models_see():
    offered = {"type": "namespace", "name": "shop", "tools": [{"type": "function", "name": "find"}]}
    made = rollout(user("?"), {**call("find"), "namespace": "shop"}, returned("9"), said("9."), tools=[offered])

    assert row_of(made)["tools"] == [{"name": "shop__find", "description": "", "parameters": {}}]
    assert messages_of(made)[1] == assistant(calls=[("shop__find", {})])
    assert row_of(made, "chat")["tools"] == [{"type": "function", "function": {"name": "shop__find"}}]
    plain = rollout(user("?"), {**call("find"), "namespace": None}, said("9."))
    assert messages_of(plain)[1] == assistant("9.", calls=[("find", {})])


def test_tools_of_the_response_serve_where_the_request_has_none():
    made = rollout(user("?"), said("4"), tools=[])
    made["response"]["tools"] = [{"type": "function", "name": "f"}]
    both = rollout(user("?"), said("4"), tools=[{"type": "function", "name": "g"}])
    both["response"]["tools"] = made["response"]["tools"]

    assert [tool["name"] for tool in row_of(made)["tools"]] == ["f"]
    assert [tool["name"] for tool in row_of(both)["tools"]] == ["g"]


@pytest.mark.parametrize("where", [{"previous_response_id": "r"}, {"prompt": {"id": "p"}}, {"conversation": "c"}])
def test_a_prompt_that_lies_elsewhere_refuses_the_line(where):
    assert outcomes(rollout(user("?"), said("4"), **where)) == dict.fromkeys(LAYOUTS, "prompt_elsewhere")
    assert row_of(rollout(user("?"), said("4"), **dict.fromkeys(where))) == row_of(rollout(user("?"), said("4")))


@pytest.mark.parametrize("arguments", ["", None, "  \n", "null"])
def test_a_call_without_arguments_has_none(arguments):
    made = rollout(user("?"), raw_call("f", arguments), returned("4"), said("4"))

    assert messages_of(made)[1] == assistant(calls=[("f", {})])
    written = messages_of(made, "chat", arguments="string")[1]["tool_calls"][0]["function"]["arguments"]
    assert written == "{}"


@pytest.mark.parametrize("source", [{"video_url": "u"}, {"video": "u"}, {"video_url": {"url": "u"}}])
def test_a_video_is_a_part_of_chat(source):
    made = rollout(user([{"type": "input_video", **source}, {"type": "input_text", "text": "?"}]), said("4"))

    video = {"type": "video_url", "video_url": {"url": "u"}}
    assert messages_of(made)[0]["content"] == [video, {"type": "text", "text": "?"}]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Add.\n</think>\n\n4", "4"),
        ("<think>Add.</think>4", "4"),
        ("It is 4.</think>4", "4"),
        ("It is 4. </think> 4", " 4"),
        ("it is 4</think>4", "4"),
        ("Close it with `</think>` and go on.", "Close it with `</think>` and go on."),
        ("The tag </think> closes it.", "The tag </think> closes it."),
    ],
)
def test_thought_is_not_the_answer_in_any_layout(text, answer):
    made = rollout(user("?"), said(text))

    found = [messages_of(made)[1]["content"], row_of(made, "simple")["output"], messages_of(made, "chat")[1]["content"]]
    assert found == [answer] * 3


def test_what_a_layout_leaves_out_is_told():
    def left_out(value: Json, format: str, **layout: Any) -> tuple[str, ...]:
        return FORMATS[format](rollout_of(json.dumps(value).encode()), layout=Layout(**layout)).left_out

    image = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}
    made = rollout([user([image]), user("?")], thought("hm"), call("f"), returned("4"), said("4"))
    sound = rollout(user("?"), said("4"), metadata={"audio_url": "data:audio/wav;base64,AA=="})
    assert left_out(made, "openai") == left_out(made, "chat", reasoning="drop") == ("reasoning",)
    assert left_out(made, "chat") == ()
    assert left_out(made, "simple") == ("calls", "images", "reasoning")
    assert left_out(sound, "chat") == left_out(sound, "simple") == ("sounds",)


def test_images_for_nemo_rl_have_the_form_that_it_reads():
    parts = [
        {"type": "input_image", "image_url": "data:image/png;base64,AA=="},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "input_text", "text": "?"},
    ]
    for layout in ("openai", "chat"):
        assert messages_of(rollout(user(parts), said("4")), layout, media="nemo-rl")[0]["content"] == [
            {"type": "image", "image": "data:image/png;base64,AA=="},
            {"type": "image", "image": "https://example.org/a.png"},
            {"type": "text", "text": "?"},
        ]


def test_tools_may_be_one_text_that_no_loader_alters():
    offered = [{"type": "function", "name": "f", "parameters": {"minimum": 0.60}}]
    for layout in ("openai", "chat"):
        made = rollout(user("?"), said("4"), tools=offered)
        assert json.loads(row_of(made, layout, tools="string")["tools"]) == row_of(made, layout)["tools"]
        assert "tools" not in row_of(rollout(user("?"), said("4")), layout, tools="string")


def test_simple_takes_the_last_text_and_the_question_before_it():
    assert row_of(rollout([], system("Be brief."), user("?"), said("4")), "simple") == {"input": "?", "output": "4"}
    several = rollout([user("old"), said("so"), user("?")], said("One."), said("Two."))
    assert row_of(several, "simple") == {"input": "?", "output": "Two."}
    calling = rollout(user("?"), said("4"), user("!"), call("f"))
    assert row_of(calling, "simple") == {"input": "?", "output": "4"}


# The layouts agree on which lines have a row, but for what one cannot hold.

_TEXTS = st.sampled_from(
    ["a", "", "<think>", "<think>a", "a\n</think>\n", "b</think>c", "<think>a</think>b", "x\n</think>\ny"]
)
_IDS = st.sampled_from([None, None, 1, 2, 3])
_ITEMS = st.one_of(
    _TEXTS.map(said),
    st.lists(_TEXTS, min_size=2, max_size=2).map(lambda texts: said(*texts)),
    st.sampled_from(["hm", ""]).map(thought),
    st.tuples(st.sampled_from("fg"), st.sampled_from(["1", "2", None])).map(
        lambda one: raw_call(one[0], "{}", id=one[1])
    ),
    st.sampled_from(["1", "2", None]).map(lambda name: returned("r", id=name)),
    st.sampled_from(["?", "!"]).map(user),
    st.just(system("s")),
    st.just({"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f"}}]}),
    st.just(user([{"type": "input_image", "image_url": "u"}])),
    st.just({"type": "message", "role": "assistant", "content": []}),
)
_OUTPUT = st.lists(
    st.tuples(_ITEMS, _IDS).map(lambda one: one[0] if one[1] is None else ids(one[0], one[1])), max_size=7
)
_ROLLOUTS = st.tuples(st.lists(_ITEMS, max_size=3), _OUTPUT, st.booleans()).map(
    lambda parts: {**rollout(parts[0], *parts[1]), **({"_ng_token_capture": {}} if parts[2] else {})}
)


@given(value=_ROLLOUTS)
@settings(max_examples=1500, suppress_health_check=list(HealthCheck), deadline=None)
def test_layouts_agree_on_which_lines_have_a_row(value):
    found = {
        "chat": outcome(value, "chat"),
        "chat without reasoning": outcome(value, "chat", reasoning="drop"),
        "openai": outcome(value, "openai"),
        "simple": outcome(value, "simple"),
    }
    fates = {name: reason if isinstance(reason, str) else "a row" for name, reason in found.items()}
    if fates["simple"] == "not_text":
        fates["simple"] = "a row"
    assert len(set(fates.values())) == 1, found
    thinks = outcome(value, "chat", reasoning="think")  # where reasoning is text, it is an answer
    assert (fates["chat"] if isinstance(thinks, str) else "a row") in (thinks, "a row")
    for layout in LAYOUTS:
        try:
            expected: Any = baseline.FORMATS[layout](value)
        except baseline.UnusableError as unusable:
            expected = str(unusable)
        assert json.dumps(found[layout]) == json.dumps(expected), layout


@given(value=_ROLLOUTS)
@settings(max_examples=300, suppress_health_check=list(HealthCheck), deadline=None)
def test_marks_and_forms_change_no_turn_but_where_the_prompt_begins_it(value):
    value["responses_create_params"]["input"].append(user("so?"))
    for layout in ("openai", "chat"):
        plain, marked = outcome(value, layout), outcome(value, layout, loss="own")
        if isinstance(marked, dict):
            for message in marked["messages"]:
                message.pop("weight", None)
                message.pop("loss_mask", None)
        assert plain == marked
