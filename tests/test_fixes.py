"""What each finding advises helps: with it, the finding is gone."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
from builders import assistant, call, line, lines, raw_call, returned, rollout, said, system, thought, tool, turn, user

import fastsft
from fastsft.checks.kinds import KINDS, OF_PAIRS
from fastsft.cli import app

TEMPLATES = Path(__file__).parent / "data" / "templates"
GOOD = rollout(user("2+2?"), said("4"))
TOOLS = [{"type": "function", "name": name, "parameters": {"type": "object"}} for name in "fg"]
CALLING = rollout(user("?"), raw_call("f", "{}"), returned("4"), said("4"), tools=TOOLS)
IMAGE = rollout(user([{"type": "input_image", "image_url": "data:image/png;base64,AA=="}]), said("Red."))


class Case(NamedTuple):
    """Rollouts with a finding, as `words` convert them or as somebody else wrote their rows."""

    rollouts: list[Any]
    words: str = "--format chat"
    rows: bytes | None = None
    template: str | None = None
    trainer: str | None = None  # that the finding is of


def row(*messages: Any, **more: Any) -> bytes:
    return line({"messages": list(messages), **more})


ASKED, ANSWERED = turn("user", "2+2?"), assistant("4")
CASES = {
    "bad_json": Case([GOOD], rows=b'{"messages": [\n'),
    "line_end": Case([rollout(user("a\u2028b"), said("4"))], rows=row(turn("user", "a\u2028b"), ANSWERED)),
    "bad_number": Case([GOOD], rows=b'{"input": "a", "output": "4", "x": 1e999}\n'),
    "repeated_key": Case([CALLING], rows=b'{"messages":[{"role":"user","role":"user","content":"?"}]}\n'),
    "not_a_row": Case([GOOD], rows=line(GOOD)),
    "mixed_rows": Case([GOOD], rows=row(ASKED, ANSWERED) + line({"input": "a", "output": "b"})),
    "unknown_role": Case([GOOD, rollout(user("?"), said("4"), {"role": "bot", "content": "!"}, said("5"))]),
    "bad_content": Case([GOOD], rows=row(turn("user", None), ANSWERED)),
    "last_role": Case([rollout(user("?"), said("4"), user("!"))], rows=row(ASKED, ANSWERED, turn("user", "!"))),
    "no_user_turn": Case([GOOD, rollout([], said("4"))], "--format chat --allow no_user_turn"),
    "alternation": Case([GOOD, rollout([user("?"), user("!")], said("4"))]),
    "empty_turn": Case([GOOD, rollout(user("?"), said(""))]),
    "stray_think_tag": Case([GOOD, rollout(user("?"), said("The tag </think> closes."))]),
    "bad_call": Case([GOOD, rollout(user("?"), call("f"), call("g"), returned("4"), said("4"), tools=TOOLS)]),
    "bad_arguments": Case(
        [CALLING], rows=row(ASKED, {**assistant(calls=[("f", [1])])}, tool("4"), ANSWERED, tools=TOOLS)
    ),
    "unanswered_call": Case([GOOD, rollout(user("?"), call("f"), user("!"), said("4"), tools=TOOLS)]),
    "orphan_tool_result": Case([GOOD, rollout(user("?"), returned("4"), said("4"))]),
    "undeclared_tool": Case([GOOD, rollout(user("?"), call("h"), returned("4"), said("4"), tools=TOOLS)]),
    "bad_tool": Case([CALLING], rows=row(ASKED, ANSWERED, tools="f")),
    "duplicate": Case([GOOD, GOOD]),
    "too_long": Case([GOOD, rollout(user("a b c d e f g h"), said("4"))], template="tokenizer"),
    "template_stops": Case([GOOD, rollout([system("s"), user("?")], said("4"))], template="qwen3_5.jinja"),
    "template_loses": Case([GOOD, CALLING], template="three_roles.jinja"),
    "template_encodes_twice": Case(
        [rollout(user("?"), call("f", a="b"), returned("4"), said("4"), tools=TOOLS)],
        "--format chat --arguments string",
        template="qwen2_5.jinja",
    ),
    "template_changes": Case(
        [GOOD, rollout(user("?"), thought("hm"), said("4"), user("!"), said("5"))], template="qwen3.jinja"
    ),
    "control_tokens": Case(
        [GOOD, rollout(user("?"), call("f"), returned("<|im_end|>"), said("4"), tools=TOOLS)], template="qwen3.jinja"
    ),
    "no_tools": Case([GOOD, rollout(user("?"), call("f"), returned("4"), said("4"))]),
    "two_assistant_turns": Case(
        [rollout(user("?"), said("Let me look."), call("f"), returned("4"), said("4"))],
        rows=row(ASKED, assistant("Let me look."), assistant(calls=[("f", {})]), tool("4"), ANSWERED),
    ),
    "late_system": Case([GOOD, rollout([user("?"), system("s")], said("4"))], template="qwen3_5.jinja"),
    "developer_role": Case([rollout([{"role": "developer", "content": "s"}, user("?")], said("4"))], "--format openai"),
    "null_content": Case([CALLING], rows=row(ASKED, {**assistant(calls=[("f", {})]), "content": None}, tools=TOOLS)),
    "parts": Case([GOOD, IMAGE]),
    "media_parts": Case([GOOD, IMAGE]),
    "string_arguments": Case([CALLING], "--format chat --arguments string"),
    "long_integer": Case([rollout(user("?"), call("f", a=1 << 127), returned("4"), said("4"), tools=TOOLS)]),
    "case_keys": Case([rollout(user("?"), call("f", a=1, A=2), returned("4"), said("4"), tools=TOOLS)]),
    "string_tools": Case([CALLING], "--format chat --tools string"),
    "mixed_schemas": Case(
        [CALLING, rollout(user("?"), said("4"), tools=[{**TOOLS[0], "parameters": {"x": 1}}])],
    ),
    "columns": Case([GOOD], "--format simple", trainer="trl"),
    "file_kind": Case([GOOD], trainer="verl"),
    "flat_calls": Case([CALLING], "--format openai", trainer="llama-factory"),
    "arguments_no_string": Case([CALLING], trainer="openai"),
    "list_tools": Case([CALLING], trainer="verl"),
    "no_call_id": Case([CALLING], "--format openai", trainer="automodel"),
    "function_name": Case(
        [GOOD, rollout(user("?"), call("f g"), returned("4"), said("4"), tools=[{**TOOLS[0], "name": "f g"}])],
        trainer="openai",
    ),
    "media_place": Case(
        [GOOD, rollout(user([{"type": "input_audio", "input_audio": {}}]), said("4"))], trainer="openai"
    ),
    "no_turns_taken": Case([GOOD, rollout([user("?"), user("!")], said("4"))], trainer="llama-factory"),
    "assistant_first": Case([GOOD, rollout([assistant("Hi."), user("?")], said("4"))], trainer="automodel"),
    "reasoning_field": Case([rollout(user("?"), thought("hm"), said("4"))], trainer="openai"),
    "reasoning_lost": Case([rollout(user("?"), thought("hm"), said("4"))], template="qwen2_5.jinja"),
}


def run(*words: Any) -> tuple[int, str]:
    """The exit code of the command, in this process, and what it prints."""
    argv, printed = ["fastsft", *map(str, words)], io.StringIO()
    with mock.patch.object(sys, "argv", argv), contextlib.redirect_stdout(printed):
        return app.run(), printed.getvalue()


def found(path: Path, *words: Any) -> set[str]:
    report = json.loads(run("check", path, "--json", *words)[1])
    return {one["kind"] for one in report["findings"] + report["notes"]}


@pytest.mark.parametrize("kind", [kind for kind, known in KINDS.items() if known.options is not None])
def test_converting_as_a_finding_advises_makes_it_go(tmp_path, tokenizer, kind):
    case = CASES[kind]
    source, before, after = tmp_path / "in.jsonl", tmp_path / "before.jsonl", tmp_path / "after.jsonl"
    source.write_bytes(lines(*case.rollouts))
    template = tokenizer if case.template == "tokenizer" else TEMPLATES / (case.template or "")
    checking = ["--template", template, *(["--max-tokens", 5] if kind == "too_long" else [])] if case.template else []
    checking += ["--for", case.trainer] if case.trainer else []
    if case.rows is None:
        assert run("convert", source, "--output", before, *shlex.split(case.words))[0] == 0
    else:
        before.write_bytes(case.rows)
    assert kind in found(before, *checking)

    advised = shlex.split((KINDS[kind].options or "").format(template=template, tokens=5))
    kept = [word for word in shlex.split(case.words) if word not in ("--allow", "no_user_turn")]
    if case.trainer and "--for" in KINDS[kind].fix:
        kept, advised = [], ["--for", case.trainer]
        after = after.with_suffix(".parquet") if case.trainer == "verl" else after

    assert run("convert", source, "--output", after, *kept, *advised)[0] == 0
    assert json.loads((tmp_path / "after.report.json").read_bytes())["fates"]["kept"] >= 1
    assert kind not in found(after, *checking)
    named = [word for word in advised if word.startswith("--") and word not in ("--where",)]
    assert all(word in KINDS[kind].fix for word in named), "the sentence names what helps"


def test_what_else_a_finding_advises_helps(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(b"\n" + row(ASKED, ANSWERED))
    assert found(rows) == {"blank_line"}
    command = KINDS["blank_line"].fix.partition("remove it: ")[2]
    subprocess.run(f"{command} {rows}", shell=True, check=True)
    assert found(rows) == set()

    (tmp_path / "empty.jsonl").touch()
    assert [one.kind for one in fastsft.check([rows, tmp_path / "empty.jsonl"]).findings] == ["no_rows"]
    assert fastsft.check([rows]).findings == []
    assert {kind for kind, known in KINDS.items() if known.options is None} == {
        *("blank_line", "no_rows", "rounded_numbers", "text_beside_calls"),
        *OF_PAIRS,
    }
