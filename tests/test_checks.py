"""What `fastsft check` finds: each planted fault by its name, and nothing in clean rows."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import generate
import jinja2
import pytest
from builders import (
    assistant,
    call,
    chat_call,
    line,
    lines,
    raw_call,
    returned,
    rollout,
    said,
    system,
    thought,
    tool,
    turn,
    user,
)

import fastsft
from fastsft.checks.kinds import KINDS

TEMPLATES = Path(__file__).parent / "data" / "templates"
ASKED, ANSWERED = turn("user", "2+2?"), assistant("4")
OFFERED = [{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {}}}]


def row(*messages: Any, **more: Any) -> dict[str, Any]:
    return {"messages": list(messages), **more}


def answered(call: Any) -> bytes:
    """A row in which a call is made and answered."""
    return line(row(ASKED, calling(call), tool("4", id="call_1"), ANSWERED, tools=OFFERED))


def calling(*calls: Any, content: str = "") -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def found(path: Path, data: bytes, **options: Any) -> tuple[dict[str, int], dict[str, int]]:
    """Faults and notes, with how many rows have them."""
    path.write_bytes(data)
    report = fastsft.check(path, jobs=1, **options)
    return tuple({one.kind: one.rows for one in several} for several in (report.findings, report.notes))


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (b"{\n", "bad_json"),
        (b'{"messages": [], "x": "\xff"}\n', "bad_json"),
        (b'{"messages": [], "x": "' + b"\xa8" * 1000 + b'"}\n', "bad_json"),  # so ends U+2028
        (rb'{"input": "\ud800", "output": "4"}' + b"\n", "bad_json"),
        (b'{"input": NaN, "output": "4"}\n', "bad_json"),
        (b"[" * 2000 + b"]" * 2000 + b"\n", "bad_json"),
        (b'{"input": "a", "output": "4", "x": 1e999}\n', "bad_number"),
        (b"\n", "blank_line"),
        (line({"input": "a\u2028b", "output": "4"}), "line_end"),
        (
            b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"a","content":"b"}]}\n',
            "repeated_key",
        ),
        (b"[1]\n", "not_a_row"),
        (line(rollout(user("?"), said("4"))), "not_a_row"),
        (line({"messages": []}), "not_a_row"),
        (line({"messages": ["hello"]}), "not_a_row"),
        (line({"input": [ASKED], "output": "4"}), "bad_content"),
        (line({"input": "2+2?", "output": ""}), "empty_turn"),
        (line(row(ASKED, turn("bot", "4"), ANSWERED)), "unknown_role"),
        (line(row(ASKED, {"content": "2+2?"}, ANSWERED)), "unknown_role"),
        (line(row(turn("user", None), ANSWERED)), "bad_content"),
        (line(row(turn("user", ["2+2?"]), ANSWERED)), "bad_content"),
        (line(row(ASKED, ANSWERED, turn("user", "Thanks."))), "last_role"),
        (line(row(ASKED, turn("user", "Well?"), ANSWERED)), "alternation"),
        (line(row(ANSWERED)), "no_user_turn"),
        (line(row(turn("system", "Add."), ANSWERED)), "no_user_turn"),
        (line({"input": "", "output": "4"}), "no_user_turn"),
        (line(row(ASKED, assistant("It is 4.</think>4"))), "stray_think_tag"),
        (line(row(ASKED, assistant("<think>a</think>b</think>4"))), "stray_think_tag"),
        (line({"input": "2+2?", "output": "</think>4"}), "stray_think_tag"),
        (line(row(ASKED, ANSWERED, tools="[1]")), "bad_tool"),
        (line(row(ASKED, assistant(""))), "empty_turn"),
        (line(row(ASKED, calling({"function": {}}), tool("4"), ANSWERED, tools=OFFERED)), "bad_call"),
        (line(row(ASKED, {**ANSWERED, "tool_calls": "add"})), "bad_call"),
        (line(row({**ASKED, "tool_calls": ["add"]}, ANSWERED)), "bad_call"),
        (
            line(row(ASKED, calling(chat_call("add", {})), {**tool("4", id="call_1"), "tool_calls": 1}, ANSWERED)),
            "bad_call",
        ),
        (
            line(row(ASKED, calling(chat_call("add", [2, 2])), tool("4", id="call_1"), ANSWERED, tools=OFFERED)),
            "bad_arguments",
        ),
        (
            line(row(ASKED, calling(chat_call("add", "2, 2")), tool("4", id="call_1"), ANSWERED, tools=OFFERED)),
            "bad_arguments",
        ),
        (
            line(row(ASKED, calling(chat_call("add", {})), turn("user", "Well?"), ANSWERED, tools=OFFERED)),
            "unanswered_call",
        ),
        (line(row(ASKED, tool("4"), ANSWERED)), "orphan_tool_result"),
        (
            line(row(ASKED, calling(chat_call("add", {}, id="a")), tool("4", id="b"), ANSWERED, tools=OFFERED)),
            "orphan_tool_result",
        ),
        (
            line(row(ASKED, calling(chat_call("sum", {})), tool("4", id="call_1"), ANSWERED, tools=OFFERED)),
            "undeclared_tool",
        ),
        (line(row(ASKED, ANSWERED, tools="add")), "bad_tool"),
        (line(row(ASKED, ANSWERED)) * 2, "duplicate"),
    ],
)
def test_a_planted_fault_is_found_and_stands_alone(tmp_path, value, kind):
    clean = line(row(turn("user", "How are you?"), assistant("Fine.")))

    data = clean + value + line(row(turn("user", "1+1?"), assistant("2")))

    faults, _ = found(tmp_path / "rows.jsonl", data)

    assert found(tmp_path / "rows.jsonl", data, template=TEMPLATES / "three_roles.jinja")[0].items() >= faults.items()
    assert kind in faults
    assert faults[kind] == 1
    # The result of another call leaves one without any.
    assert set(faults) - {"mixed_rows"} <= {
        kind,
        "unanswered_call",
    }


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (row(ASKED, calling({"name": "add", "arguments": {}}), tool("4"), ANSWERED), "no_tools"),
        (row(ASKED, assistant("Let me see."), ANSWERED), "two_assistant_turns"),
        (row(ASKED, {**calling(chat_call("add", {})), "content": None}, tools=OFFERED), "null_content"),
        (row(ASKED, turn("system", "Be brief."), ANSWERED), "late_system"),
        (row(turn("developer", "Be brief."), ASKED, ANSWERED), "developer_role"),
        (
            row(ASKED, calling(chat_call("add", "{}")), tool("4", id="call_1"), ANSWERED, tools=OFFERED),
            "string_arguments",
        ),
        *(
            (
                row(
                    ASKED,
                    calling(chat_call("add", {"a": [{"b": value}]})),
                    tool("4", id="call_1"),
                    ANSWERED,
                    tools=OFFERED,
                ),
                kind,
            )
            for value, kind in (
                (1 << 127, "long_integer"),
                (-(1 << 127) - 1, "long_integer"),
                ({"id": 1, "ID": 2}, "case_keys"),
            )
        ),
        *(
            (row(ASKED, ANSWERED, tools=[{"name": "add", "description": "", "parameters": {"a": [value]}}]), kind)
            for value, kind in (({"maximum": 1 << 127}, "long_integer"), ({"id": {}, "ID": {}}, "case_keys"))
        ),
    ],
)
def test_what_matters_to_some_is_a_note_and_no_fault(tmp_path, value, kind):
    assert found(tmp_path / "rows.jsonl", line(value)) == ({}, {kind: 1})


@pytest.mark.parametrize("value", [(1 << 127) - 1, -(1 << 127), "1" * 99, {"é": 1, "É": 2}, {"a": 1, "b": {"A": 2}}])
def test_what_readers_take_is_no_note(tmp_path, value):
    call = calling(chat_call("add", {"a": [value]}))
    answered = row(ASKED, call, tool("4", id="call_1"), ANSWERED, tools=OFFERED)
    assert found(tmp_path / "rows.jsonl", line(answered)) == ({}, {})


def test_a_byte_order_mark_is_found_though_the_reader_passes_over_it(tmp_path):
    assert found(tmp_path / "rows.jsonl", b"\xef\xbb\xbf" + line(row(ASKED, ANSWERED)))[0] == {"bad_json": 1}


def test_a_file_without_rows_and_one_of_two_kinds_are_found(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "mixed.jsonl").write_bytes(lines(row(ASKED, ANSWERED), {"input": "a", "output": "b"}, row(ANSWERED)))

    report = fastsft.check([tmp_path / "empty.jsonl", tmp_path / "mixed.jsonl"])

    places = {one.kind: [(Path(e.file).name, e.line) for e in one.examples] for one in report.findings}
    assert places["no_rows"] == [("empty.jsonl", 0)]
    assert places["mixed_rows"] == [("mixed.jsonl", 2)]


def test_a_duplicate_is_told_with_its_twin(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines(row(turn("user", "?"), ANSWERED), row(ASKED, ANSWERED)))
    (tmp_path / "b.jsonl").write_bytes(line(row(ASKED, ANSWERED)))

    (one,) = fastsft.check([tmp_path / "a.jsonl", tmp_path / "b.jsonl"]).findings

    (example,) = one.examples
    assert (one.kind, Path(example.file).name, example.line) == ("duplicate", "b.jsonl", 1)
    assert example.detail == f"as {tmp_path}/a.jsonl:2"


def test_results_come_right_behind_their_calls(tmp_path):
    called, twice = calling(chat_call("add", {})), calling(chat_call("add", {}), chat_call("add", {}))
    result = tool("4", id="call_1")
    for messages, kinds in [
        ([ASKED, called, assistant("and"), result, ANSWERED], {"unanswered_call", "orphan_tool_result"}),
        ([ASKED, called, result, assistant("and"), ANSWERED], set()),
        ([ASKED, called, ANSWERED], {"unanswered_call"}),
        ([ASKED, called], set()),
        ([ASKED, twice, result, ANSWERED], {"bad_call"}),
    ]:
        assert set(found(tmp_path / "rows.jsonl", line(row(*messages, tools=OFFERED)))[0]) == kinds


def test_images_of_chat_and_of_nemo_rl_are_told_apart(tmp_path):
    chat = row(turn("user", [{"type": "image_url", "image_url": {"url": "x"}}]), ANSWERED)
    nemo_rl = row(turn("user", [{"type": "image", "image": "x"}]), ANSWERED)

    assert found(tmp_path / "rows.jsonl", line(chat)) == ({"media_parts": 1}, {"parts": 1})
    assert found(tmp_path / "rows.jsonl", line(nemo_rl)) == ({}, {"parts": 1})


def test_tools_with_other_schemas_are_mixed_and_arguments_with_other_keys_are_not(tmp_path):
    calls = [calling(chat_call("add", arguments)) for arguments in ({"a": 1}, {"b": 1})]
    values = [row(ASKED, made, tool("4", id="call_1"), ANSWERED, tools=OFFERED) for made in calls]
    schemas = [{"type": "object", "properties": {name: {"type": "number"}}} for name in "ab"]
    offered = [[{"type": "function", "function": {"name": "add", "parameters": schema}}] for schema in schemas]
    mixed = [row(ASKED, ANSWERED, tools=offered[0]), row(turn("user", "?"), ANSWERED, tools=offered[1])]

    assert found(tmp_path / "rows.jsonl", lines(*values)) == ({}, {})
    assert found(tmp_path / "rows.jsonl", lines(*mixed)) == ({}, {"mixed_schemas": 2})
    assert found(tmp_path / "rows.jsonl", lines(*mixed[:1])) == ({}, {})
    packed = [{**value, "tools": json.dumps(value["tools"])} for value in mixed]
    assert found(tmp_path / "rows.jsonl", lines(*packed)) == ({}, {"string_tools": 2})


@pytest.mark.parametrize("shape", ["short", "tools", "unicode", "tokens"])
@pytest.mark.parametrize("layout", ["openai", "chat", "simple"])
def test_nothing_is_found_in_clean_rows(tmp_path, shape, layout):
    (tmp_path / "in.jsonl").write_bytes(b"".join(islice(generate.lines(shape, seed=3, kept=1.0), 40)))
    fastsft.convert(tmp_path / "in.jsonl", tmp_path / "rows.jsonl", format=layout, dedup=True)

    report = fastsft.check(tmp_path / "rows.jsonl")

    assert report.findings == []
    assert report.rows == report.lines > 20


def test_the_report_is_the_same_whatever_the_jobs(tmp_path, monkeypatch):
    values = [row(turn("user", "x" * (number % 900)), assistant(str(number % 700))) for number in range(2000)]
    data = lines(*values, values[7], values[3]).replace(b'"699"', b'""') + b"\n"
    (tmp_path / "rows.jsonl").write_bytes(data)
    alone = fastsft.check(tmp_path / "rows.jsonl", jobs=1)
    monkeypatch.setattr("fastsft.inputs.shards._MOST_SPAN_NBYTES", 20_000)
    monkeypatch.setattr("fastsft.checks.run._ROWS_AT_ONCE", 500)

    assert fastsft.check([tmp_path / "rows.jsonl"], jobs=2) == alone
    assert [(one.kind, [(at.line, at.detail) for at in one.examples]) for one in alone.findings] == [
        ("duplicate", [(2001, f"as {tmp_path}/rows.jsonl:8"), (2002, f"as {tmp_path}/rows.jsonl:4")]),
        ("empty_turn", [(700, "message 1"), (1400, "message 1")]),
        ("blank_line", [(2003, "")]),
    ]
    assert alone.lengths["turns"]["1.0"] == 2
    assert alone.lengths["nbytes"]["1.0"] == max(map(len, data.splitlines()))


# Templates.


def conversions(folder: Path) -> dict[str, Path]:
    """One rollout of everything in each form of rows."""
    tools = [{"type": "function", "name": "add", "description": "Adds.", "parameters": {"type": "object"}}]
    made = rollout(
        [system("Be brief."), user("2+2?")],
        thought("I add."),
        call("add", term="two"),
        returned("4"),
        said("It is 4."),
        tools=tools,
    )
    (folder / "in.jsonl").write_bytes(line(made))
    forms = {
        "object": {"format": "chat"},
        "string": {"format": "chat", "arguments": "string"},
        "flat": {"format": "openai"},
    }
    for name, form in forms.items():
        fastsft.convert(folder / "in.jsonl", folder / f"{name}.jsonl", **form)
    return {name: folder / f"{name}.jsonl" for name in forms}


@pytest.mark.parametrize(
    ("template", "form", "kinds"),
    [
        ("qwen2_5", "object", {"reasoning_lost"}),
        ("qwen2_5", "string", {"reasoning_lost", "template_encodes_twice"}),
        ("qwen2_5", "flat", set()),
        ("qwen3", "object", set()),
        ("qwen3", "string", set()),
        ("qwen3", "flat", set()),
        ("qwen3_5", "object", {"template_stops"}),
        ("qwen3_5", "string", {"template_stops"}),
        ("qwen3_5", "flat", {"template_stops"}),
        ("nemotron_3", "object", set()),
        ("nemotron_3", "string", {"template_stops"}),
        ("nemotron_3", "flat", set()),
        ("gpt_oss", "object", set()),
        ("gpt_oss", "string", {"template_encodes_twice"}),
        ("gpt_oss", "flat", {"template_stops"}),
        ("llama_3_1", "object", {"reasoning_lost", "template_stops"}),
        ("llama_3_1", "string", {"reasoning_lost", "template_encodes_twice", "template_stops"}),
        ("llama_3_1", "flat", {"template_stops"}),
        ("glm_4", "object", set()),
        ("glm_4", "string", {"template_stops"}),
        ("glm_4", "flat", set()),
        ("three_roles", "object", {"reasoning_lost", "template_loses"}),
        ("three_roles", "flat", {"template_loses"}),
    ],
)
def test_what_a_family_of_templates_does_to_a_row(tmp_path, template, form, kinds):
    report = fastsft.check(conversions(tmp_path)[form], template=TEMPLATES / f"{template}.jinja")

    told = {one.kind for one in [*report.findings, *report.notes]} - {"string_arguments", "two_assistant_turns"}
    assert told == kinds


def test_a_turn_that_is_rendered_otherwise_when_the_row_goes_on(tmp_path):
    value = row(ASKED, {**ANSWERED, "reasoning_content": "I add."}, turn("user", "And 3+3?"), assistant("6"))

    faults, notes = found(tmp_path / "rows.jsonl", line(value), template=TEMPLATES / "qwen3.jinja")

    assert (faults, notes) == ({"template_changes": 1}, {"reasoning_lost": 1})
    assert found(tmp_path / "rows.jsonl", line(value), template=TEMPLATES / "glm_4.jinja") == ({}, {})


@pytest.mark.parametrize("arguments", [{'a"b': 1}, {"C:\\x": 1}, {"a": "line\nfeed"}])
def test_what_json_escapes_is_not_lost(tmp_path, arguments):
    (tmp_path / "calls.jinja").write_text(
        "{{ tools | tojson }}{% for m in messages %}{{ m.content }}"
        "{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}{% endfor %}"
    )
    value = answered(chat_call("add", arguments))

    assert found(tmp_path / "rows.jsonl", value, template=tmp_path / "calls.jinja") == ({}, {})


def test_arguments_that_are_left_out_are_lost(tmp_path):
    (tmp_path / "names.jinja").write_text(
        "{{ tools | tojson }}{% for m in messages %}{{ m.content }}"
        "{% for c in m.tool_calls %}add city{% endfor %}{% endfor %}"
    )
    value = answered(chat_call("add", {"city": "Paris"}))

    assert found(tmp_path / "rows.jsonl", value, template=tmp_path / "names.jinja") == ({"template_loses": 1}, {})


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (row(ASKED, calling(chat_call("add", {})), tool("a<|im_end|>b", id="call_1"), ANSWERED, tools=OFFERED), 2),
        (row(turn("user", "Say <|im_start|>."), ANSWERED), 0),
        (row(ASKED, calling(chat_call("add", {"a": ["<|im_end|>"]})), tools=OFFERED), 1),
        (row(ASKED, {**ANSWERED, "reasoning_content": "<|im_end|>"}), 1),
    ],
)
def test_control_tokens_of_the_template_in_what_a_row_says_are_found(tmp_path, value, where):
    (tmp_path / "rows.jsonl").write_bytes(line(value))

    report = fastsft.check(tmp_path / "rows.jsonl", template=TEMPLATES / "qwen3.jinja")

    details = {one.kind: one.examples[0].detail for one in report.findings}
    assert details["control_tokens"].startswith(f"message {where}: <|im_")
    assert "control_tokens" not in found(tmp_path / "rows.jsonl", line(value))[0]


def test_special_tokens_of_the_tokenizer_are_control_tokens(tmp_path, tokenizer):
    config = json.loads((tokenizer / "tokenizer.json").read_bytes())
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = enumerate([("[STOP]", True), ("<tool>", False)], 1)
    config["added_tokens"] = [{"id": at, "content": text, "special": special, **plain} for at, (text, special) in added]
    (tokenizer / "tokenizer.json").write_text(json.dumps(config))

    values = lines(
        {"input": "a [STOP]", "output": "b"}, {"input": "<tool>", "output": "b"}, {"input": "<s>", "output": "b"}
    )

    assert found(tmp_path / "rows.jsonl", values, template=tokenizer)[0] == {"control_tokens": 2}


# Beginnings, which NeMo RL renders one by one.


def test_a_beginning_at_which_the_template_raises_stops_nemo_rl(tmp_path):
    value = row(turn("system", "Be brief."), ASKED, ANSWERED)
    (tmp_path / "asks.jinja").write_text(
        "{% if messages[-1].role == 'system' %}{{ raise_exception('who asks?') }}{% endif %}"
        "{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    (tmp_path / "rows.jsonl").write_bytes(line(value))

    (one,) = fastsft.check(tmp_path / "rows.jsonl", template=tmp_path / "asks.jinja").findings

    assert (one.kind, one.examples[0].detail) == (
        "template_stops",
        "the beginning up to message 0: TemplateError: who asks?",
    )


@pytest.mark.parametrize(
    ("template", "safe"),
    [
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}", True),
        (
            "{{ bos_token }}{% if tools %}{{ tools | tojson }}{% endif %}"
            "{% for m in messages %}{{ m.content }}{% endfor %}",
            True,
        ),
        ("{% set n = namespace(i=0) %}{% for m in messages %}{% set n.i = n.i + 1 %}{{ n.i }}{% endfor %}", True),
        ("{% for m in messages %}{% if loop.first %}>{% endif %}{{ m.content }}{% endfor %}", True),
        ("{% for m in messages %}{{ messages[loop.index0 - 1].role }}{% endfor %}", False),
        (
            "{% for m in messages %}{% for c in m.tool_calls %}{{ loop.last }}{% endfor %}{{ m.content }}{% endfor %}",
            True,
        ),
        ("{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}>{% endif %}", True),
        ("{% for m in messages %}{{ m.content }}{% endfor %}{{ eos_token }}", False),
        ("{% for m in messages %}{{ m.content }}{% if loop.last %}.{% endif %}{% endfor %}", False),
        ("{% for m in messages %}{{ m.content }}{% if not loop.revindex %}.{% endif %}{% endfor %}", False),
        ("{% for m in messages %}{{ m.content }}{{ messages[loop.index0 + 1].role }}{% endfor %}", False),
        ("{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}", False),
        ("{% for m in messages[1:] %}{{ m.content }}{% endfor %}", False),
        ("{% for m in messages | reverse %}{{ m.content }}{% endfor %}", False),
        ("{% for m in messages %}{{ m.content }}{% endfor %}{% for m in messages %}{{ m.role }}{% endfor %}", False),
        ("{{ messages[1].content }}{% for m in messages %}{{ m.content }}{% endfor %}", False),
        ("{% for m in messages if m.role != 'x' %}{{ m.content }}{% endfor %}", False),
    ],
)
def test_a_template_is_safe_only_where_no_message_changes_what_stands_before_it(template, safe):
    from fastsft.checks.prefixes import is_safe

    tree = jinja2.Environment().parse(template)
    assert is_safe(tree) is safe
    turns = [turn(role, f"{role}!") for role in ("system", "user", "assistant", "user", "assistant")]
    turns[2]["tool_calls"] = [1, 2]
    if safe:
        render = jinja2.Environment().from_string(template).render
        texts = [render(messages=turns[:end], tools=[1], eos_token="</s>") for end in range(1, 6)]
        assert all(after.startswith(before) for before, after in pairwise(texts))


def test_a_template_that_tries_to_get_out_is_stopped(tmp_path):
    (tmp_path / "evil.jinja").write_text("{{ messages.__class__.__mro__[1].__subclasses__() }}")
    (tmp_path / "edits.jinja").write_text("{% set _ = messages.append(1) %}")

    for name in ("evil", "edits"):
        faults, _ = found(tmp_path / "rows.jsonl", line(row(ASKED, ANSWERED)), template=tmp_path / f"{name}.jinja")
        assert faults == {"template_stops": 1}


def children() -> set[str]:
    """Processes that this one has started; joblib's workers stay for a while."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


LOOPS = "{% for _ in range(99999) %}{% for _ in range(99999) %}{% endfor %}{% endfor %}"
BEYOND = {
    "loops": (LOOPS, "it takes more than 1 s (--render-seconds)"),
    "grows": ("{{ ('x' * 10**6) * (10**4 * messages | length) }}", "it wants more than 4 GiB of memory"),
    "works": ("{{ (messages | length + 7) ** (9 ** 9) }}", "it takes more than 1 s (--render-seconds)"),
}


@pytest.mark.parametrize("name", BEYOND)
def test_a_template_that_does_not_end_or_grows_without_end_is_stopped(tmp_path, name):
    template, beyond = BEYOND[name]
    asks = "{% if messages[0].content == 'go' %}" + template + "{% else %}{{ messages }}{% endif %}"
    (tmp_path / "beyond.jinja").write_text(asks)
    other = row(turn("user", "go"), ANSWERED)
    (tmp_path / "rows.jsonl").write_bytes(lines(other, row(ASKED, ANSWERED), other))

    before = children()
    report = fastsft.check(tmp_path / "rows.jsonl", template=tmp_path / "beyond.jinja", render_seconds=1)

    stops = [(one.rows, one.examples[0].detail) for one in report.findings if one.kind == "template_stops"]
    assert (report.rows, stops) == (3, [(2, beyond)])
    assert children() <= before


def test_a_template_that_does_not_even_begin_is_refused(tmp_path):
    (tmp_path / "folded.jinja").write_text("{{ 9 ** (9 ** 9) }}")  # which is worked out while it is compiled
    (tmp_path / "rows.jsonl").write_bytes(line(row(ASKED, ANSWERED)))

    before = children()

    with pytest.raises(fastsft.UsageError, match=r"folded.jinja cannot be read: it takes more than 1 s \(--render-s"):
        fastsft.check(tmp_path / "rows.jsonl", template=tmp_path / "folded.jinja", render_seconds=1)
    assert children() <= before


def test_no_fate_follows_from_a_template_beyond_its_limits(tmp_path, tokenizer):
    (tokenizer / "chat_template.jinja").write_text(LOOPS)
    (tmp_path / "in.jsonl").write_bytes(lines(rollout(user("?"), said("4"))))
    rows = tmp_path / "out/rows.jsonl"

    with pytest.raises(fastsft.FailedRun, match=r"takes more than 1 s .*; nothing was published"):
        fastsft.convert(tmp_path / "in.jsonl", rows, template=tokenizer, max_tokens=9, render_seconds=1)
    assert not rows.parent.exists()


def test_tokens_are_counted_with_the_tokenizer_of_a_folder(tmp_path, tokenizer):
    values = [{"input": "a b", "output": "c"}, {"input": "a", "output": "b c d e"}]

    faults, _ = found(tmp_path / "rows.jsonl", lines(*values), template=tokenizer, max_tokens=5)

    assert faults == {"too_long": 1}
    assert fastsft.check(tmp_path / "rows.jsonl", template=tokenizer).lengths["tokens"] == {
        "0.5": 4,
        "0.9": 6,
        "0.95": 6,
        "0.99": 6,
        "1.0": 6,
    }


def test_settings_saved_with_a_tokenizer_do_not_hide_how_long_a_row_is(tmp_path, tokenizer):
    from tokenizers import Tokenizer

    words = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    words.enable_truncation(2)
    words.enable_padding(length=100)
    words.save(str(tokenizer / "tokenizer.json"))
    (tmp_path / "rows.jsonl").write_bytes(line({"input": "a b c", "output": "d"}))

    assert fastsft.check(tmp_path / "rows.jsonl", template=tokenizer).lengths["tokens"]["1.0"] == 5


def test_rows_with_other_faults_are_measured_too(tmp_path, tokenizer):
    value = row(turn("user", "a"), turn("user", "b"), assistant("c d e"))

    faults, _ = found(tmp_path / "rows.jsonl", line(value), template=tokenizer, max_tokens=5)

    assert faults == {"alternation": 1, "too_long": 1}


def test_a_template_file_in_the_folder_replaces_the_one_in_its_config(tmp_path, tokenizer):
    (tokenizer / "chat_template.jinja").write_text("{{ raise_exception('this one') }}")

    faults, _ = found(tmp_path / "rows.jsonl", line({"input": "a", "output": "b"}), template=tokenizer)

    assert faults == {"template_stops": 1}


def test_a_template_for_tools_is_used_where_a_row_has_some(tmp_path, tokenizer):
    config = {
        "chat_template": [
            {"name": "default", "template": "{{ raise_exception('default') }}"},
            {"name": "tool_use", "template": "{{ tools | tojson }}{% for m in messages %}{{ m.content }}{% endfor %}"},
        ]
    }
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(config))

    value = lines(row(ASKED, ANSWERED, tools=OFFERED), row(ASKED, ANSWERED))

    assert found(tmp_path / "rows.jsonl", value, template=tokenizer)[0] == {"template_stops": 1}


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["nothing.jsonl"], "cannot read nothing.jsonl"),
        ([], "no input"),
        (["rows.jsonl", "--template", "nothing.jinja"], "cannot read the template nothing.jinja"),
        (["rows.jsonl", "--template", "/dev/zero"], "cannot read the template /dev/zero: it is not a regular file"),
        (["rows.jsonl", "--template", "."], "has no chat template"),
        (["rows.jsonl", "--template", "bad.jinja"], "the template bad.jinja cannot be read"),
        (["rows.jsonl", "--template", "deep.jinja"], "the template deep.jinja cannot be read"),
        (["rows.jsonl", "--template", "odd"], "cannot read the template odd"),
        (["rows.jsonl", "--template", "good.jinja", "--max-tokens", "0"], "the most tokens must be at least 1, not 0"),
        (["rows.jsonl", "--max-tokens", "5"], "--max-tokens needs a tokenizer"),
        (["rows.jsonl", "--template", "good.jinja", "--max-tokens", "5"], "good.jinja has no tokenizer.json"),
    ],
)
def test_wrong_words_are_told(tmp_path, words, problem):
    (tmp_path / "rows.jsonl").write_bytes(line(row(ASKED, ANSWERED)))
    (tmp_path / "bad.jinja").write_text("{% if %}")
    (tmp_path / "good.jinja").write_text("{{ messages }}")
    (tmp_path / "deep.jinja").write_text("{% for a in b %}" * 30 + "{% endfor %}" * 30)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/tokenizer_config.json").write_text('{"chat_template": [5]}')

    done = subprocess.run(
        [sys.executable, "-m", "fastsft", "check", *words], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert problem in done.stderr


def test_the_command_exits_with_what_it_found_and_fits_80_columns(tmp_path):
    clean = lines(row(ASKED, ANSWERED), row(turn("user", "?"), assistant("!")))
    (tmp_path / "clean.jsonl").write_bytes(clean)
    (tmp_path / "torn.jsonl").write_bytes(clean + b'{"messages": [{"role": "\x1b[31m')
    command = [sys.executable, "-m", "fastsft", "check"]

    good = subprocess.run([*command, "clean.jsonl"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    torn = subprocess.run([*command, "torn.jsonl"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    told = subprocess.run([*command, "torn.jsonl", "--json"], cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert (good.returncode, torn.returncode, told.returncode) == (0, 1, 1)
    assert good.stdout == (
        "1 file, 179 B: 2 rows of 2 lines.\n"
        "Nothing was found that keeps them from training.\n"
        "\n"
        "of a row             50%         90%         95%         99%     longest\n"
        "  nbytes              87          90          90          90          90\n"
        "  turns                2           2           2           2           2\n"
    ), good.stdout
    assert "bad_json: 1 row\n" in torn.stdout
    assert "torn.jsonl:3" in torn.stdout
    assert "\x1b" not in torn.stdout + told.stdout
    assert all(len(text) <= 80 for text in torn.stdout.splitlines())
    assert [one["kind"] for one in json.loads(told.stdout)["findings"]] == ["bad_json"]


def test_compressed_rows_are_checked_too_and_damaged_ones_told(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines(*[rollout(user(f"{n}?"), said("4")) for n in range(50)]))
    fastsft.convert(tmp_path / "in.jsonl", tmp_path / "rows.jsonl.gz")
    shutil.copy(tmp_path / "rows.jsonl.gz", tmp_path / "cut.jsonl.gz")
    with (tmp_path / "cut.jsonl.gz").open("r+b") as file:
        file.truncate(60)

    assert fastsft.check(tmp_path / "rows.jsonl.gz").rows == 50
    with pytest.raises(fastsft.FailedRun, match="damaged"):
        fastsft.check(tmp_path / "cut.jsonl.gz")


def test_every_kind_is_planted_in_a_test():
    names = ("test_checks.py", "test_preferences.py", "test_trainers.py")
    source = "".join(Path(__file__).with_name(name).read_text() for name in names)
    assert {kind for kind in KINDS if not re.search(f'[":]{kind}"', source)} == set()


def test_arguments_of_the_model_survive_both_forms(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(line(rollout(user("?"), raw_call("f", '{"a": "\\u00e9"}'), said("x"))))
    for form in ("object", "string"):
        fastsft.convert(tmp_path / "in.jsonl", tmp_path / f"{form}.jsonl", format="chat", arguments=form)
    given = [
        json.loads((tmp_path / f"{form}.jsonl").read_bytes())["messages"][1]["tool_calls"][0]["function"]["arguments"]
        for form in ("object", "string")
    ]
    assert given == [{"a": "é"}, '{"a": "\\u00e9"}']
