"""What goes in comes out: text code point for code point, numbers in their written form, one row a line."""

from __future__ import annotations

import json
from typing import Any

from builders import assistant, call, line, raw_call, returned, rollout, said, tool, turn, user
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

LINE_ENDS = "\u2028\u2029\u0085\r\n\x0b\x0c\x1c\x1d\x1e"
# Every code point that UTF-8 has, those with a meaning to parsers and loaders more often.
TEXT = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\/{}[]<>&\t\x00\x7f\ufeff\u202e😀' + LINE_ENDS)
)
NUMBER = st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][-+]?[0-9]{1,2})?", fullmatch=True)

any_text = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@given(texts=st.tuples(*[TEXT] * 6), ascii_only=st.booleans())
@any_text
def test_text_comes_out_code_point_for_code_point(convert, texts, ascii_only):
    prompt, first, second, argument, result, key = texts
    value = rollout(user(prompt), said(first, second), call("f", **{key: argument}), returned(result), said("end"))

    _, rows = convert(json.dumps(value, ensure_ascii=ascii_only).encode() + b"\n")

    assert [json.loads(row)["messages"] for row in rows] == [
        [
            turn("user", prompt),
            assistant(first + second, calls=[("f", {key: argument})]),
            tool(result),
            assistant("end"),
        ]
    ]


@given(text=TEXT)
@any_text
def test_a_row_is_one_line_to_every_loader(convert, text):
    _, rows = convert(
        line(rollout(user(text), said(text), raw_call("f", json.dumps({text: text}, ensure_ascii=False))))
    )

    assert len(rows) == 1
    assert rows[0].decode().splitlines() == [rows[0].decode().removesuffix("\n")]


@given(numbers=st.lists(NUMBER, min_size=1, max_size=4))
@any_text
def test_numbers_keep_their_written_form(convert, numbers):
    arguments = '{"a":[' + ",".join(numbers) + "]}"

    _, rows = convert(line(rollout(user("?"), raw_call("f", arguments))))

    assert [row.endswith(f'"arguments":{arguments}}}]}}]}}\n'.encode()) for row in rows] == [True]


def test_line_ends_of_some_loaders_are_escaped_wherever_they_stand(convert):
    text = f"a{LINE_ENDS}b"
    schema = {"type": "function", "name": "f", "parameters": {text: text}}
    data = line(rollout(user(text), raw_call("f", {text: [text]}), tools=[schema]))
    assert data.count(b"\xe2\x80\xa8") > 3

    _, rows = convert(data)

    expected: dict[str, Any] = {
        "messages": [turn("user", text), assistant(calls=[("f", {text: [text]})])],
        "tools": [{"name": "f", "description": "", "parameters": {text: text}}],
    }
    assert [json.loads(row) for row in rows] == [expected]
    assert not any(end.encode() in rows[0] for end in "\u2028\u2029\u0085")
