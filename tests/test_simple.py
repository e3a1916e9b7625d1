"""The `simple` layout: the prompt's last user text, the output's last assistant text."""

from __future__ import annotations

import pytest
from builders import call, returned, rollout, row_of, said, user

from fastsft.errors import Refused


def test_the_last_user_text_and_the_last_assistant_text():
    made = rollout([user("first"), said("hm"), user("second")], said("a"), call("f"), returned("r"), said("b", "c"))

    assert row_of(made, "simple") == {"input": "second", "output": "bc"}


def test_user_turns_inside_the_output_are_neither_asked_nor_said():
    assert row_of(rollout(user("asked"), said("4"), user("thanks")), "simple") == {"input": "asked", "output": "4"}


def test_a_message_with_an_empty_role_is_nobodys():
    nobodys = {"role": "", "content": "Not the model."}

    assert row_of(rollout([user("asked"), nobodys], said("4"), nobodys), "simple") == {"input": "asked", "output": "4"}


@pytest.mark.parametrize("content", [None, ""])
def test_a_refusal_is_what_the_model_said(content):
    made = rollout(user("?"), {"role": "assistant", "content": content, "refusal": "I can't."})

    assert row_of(made, "simple") == {"input": "?", "output": "I can't."}


def test_string_prompt_is_what_was_asked():
    assert row_of(rollout("2+2?", said("4")), "simple") == {"input": "2+2?", "output": "4"}


def test_without_a_user_turn_the_input_is_empty_and_without_content_the_output_is():
    assert row_of(rollout([], said("4")), "simple") == {"input": "", "output": "4"}
    assert row_of(rollout("?", {"role": "assistant", "content": None}), "simple") == {"input": "?", "output": ""}


def test_calls_after_the_last_text_are_left_out():
    assert row_of(rollout("?", said("Let me see."), call("f")), "simple") == {"input": "?", "output": "Let me see."}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (rollout("?", call("f"), returned("x")), "not_text"),
        (rollout([user("?"), said("an example")], [user("?"), said("an example"), call("f")]), "not_text"),
        (rollout(user([{"type": "input_image", "image_url": "u"}]), said("4")), "not_text"),
        (rollout("?", {"type": "mcp_call"}, said("4")), "unknown_item"),
    ],
)
def test_what_is_not_two_texts_is_refused(value, reason):
    with pytest.raises(Refused) as caught:
        row_of(value, "simple")
    assert caught.value.reason == reason
