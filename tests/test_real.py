"""The real rollouts, as they are: one fate for every line, and rows that every reader takes."""

from __future__ import annotations

import json
from itertools import takewhile
from pathlib import Path
from typing import Any

import baseline
import msgspec
import polars as pl
import pytest
from builders import messages_of

import fastsft


@pytest.mark.parametrize("layout", ["openai", "chat", "simple"])
def test_every_line_has_its_one_fate_and_every_row_loads(real_rollouts, tmp_path, layout):
    output = tmp_path / "train.jsonl"

    report = fastsft.convert(real_rollouts, output, format=layout, reward_threshold=-1e9)

    data = output.read_bytes()
    rows = [json.loads(row) for row in data.splitlines()]
    assert [msgspec.json.decode(row) for row in data.splitlines()] == rows
    # Content is a string in most turns and a list where there is an image, which no typed column can hold.
    roles = {"messages": pl.List(pl.Struct({"role": pl.String}))}
    texts = {"input": pl.String, "output": pl.String}
    assert pl.read_ndjson(output, schema=texts if layout == "simple" else roles).height == len(rows) == report.rows
    assert report.fates.lines == sum(shard.fates.lines for shard in report.inputs)
    for shard in report.inputs:
        shard.fates.check(shard.path)
        with open(shard.path, "rb") as file:
            assert shard.fates.lines == sum(1 for _ in file)
    if layout != "simple":
        assert {row["messages"][-1]["role"] for row in rows} == {"assistant"}


def test_each_refused_line_is_where_the_record_says(real_rollouts, tmp_path):
    fastsft.convert(real_rollouts, tmp_path / "train.jsonl", reward_threshold=-1e9)

    recorded = [json.loads(entry) for entry in (tmp_path / "train.refused").read_bytes().splitlines()]

    assert recorded
    for entry in recorded:
        with open(entry["shard"], "rb") as file:
            data = file.read()
        line = data.split(b"\n")[entry["line"] - 1]
        assert data[entry["offset"] :].startswith(line)
        if entry["reason"] == "bad_json":
            with pytest.raises(json.JSONDecodeError):
                json.loads(line)


def test_chat_rows_say_what_nemo_gym_says(real_rollouts, expected_chat):
    """But for what README lists: a developer is the system, text parts are joined, an empty turn and what follows the
    last assistant turn are left out."""

    def as_here(message: Any) -> Any:
        content = message.get("content") or ""
        if isinstance(content, list) and all(part["type"] == "text" for part in content):
            content = "".join(part["text"] for part in content)
        calls = message.get("tool_calls") or []
        return {
            "role": {"developer": "system"}.get(message["role"], message["role"]),
            "content": content,
            **({"tool_calls": calls} if calls else {}),
            **({"tool_call_id": message["tool_call_id"]} if "tool_call_id" in message else {}),
        }

    compared = 0
    for path in real_rollouts:
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            turns = [as_here(message) for message in expected_chat.get((path.name, number), [])]
            turns = [turn for turn in turns if turn["role"] != "assistant" or turn["content"] or "tool_calls" in turn]
            while turns and turns[-1]["role"] != "assistant":
                turns.pop()
            if turns:
                compared += 1
                assert messages_of(line, "chat", arguments="string", reasoning="think") == turns, (path.name, number)
    assert compared > 300


def test_splits_of_real_rollouts_share_no_prompt(real_rollouts, tmp_path):
    report = fastsft.convert(
        real_rollouts, tmp_path / "train.jsonl", splits={str(tmp_path / "val.jsonl"): 0.4}, reward_threshold=-1e9
    )

    def asked(path: Path) -> set[str]:
        """What each row asks, as far as a row has it: its tools and its turns before the first of the assistant."""
        rows = [json.loads(row) for row in path.read_bytes().splitlines()]
        turns = [list(takewhile(lambda turn: turn["role"] != "assistant", row["messages"])) for row in rows]
        return {json.dumps([row.get("tools"), asked]) for row, asked in zip(rows, turns, strict=True) if asked}

    train, val = asked(tmp_path / "train.jsonl"), asked(tmp_path / "val.jsonl")
    assert min(len(train), len(val)) > 50
    assert train & val == set()
    assert sum(split.rows for split in report.splits) == report.fates.kept


def test_one_of_each_task_is_kept_and_a_task_is_what_hangs_together(real_rollouts, tmp_path):
    keys: dict[Any, Any] = {}  # of a prompt or of an index in one file: another key of the same task

    def root(key: Any) -> Any:
        while keys.setdefault(key, key) != key:
            key = keys[key]
        return key

    usable = []
    for path in real_rollouts:
        for line in path.read_bytes().splitlines():
            if baseline.row_of(line, reward_threshold=-1e9, gated=False) in ("bad_json", "no_output"):
                continue
            rollout = json.loads(line)
            params = rollout["responses_create_params"]
            _, output = baseline.parts_of(rollout)
            replayed = [*takewhile(lambda item: item.get("role") in ("system", "user"), output)]
            asked = params["input"] or replayed or output
            if not isinstance(asked, str):  # a message may say that it is one, or not
                asked = [{"type": "message", **item} for item in asked]
            given = [asked, params.get("tools") or None, params.get("instructions") or None]
            prompt = json.dumps(given, sort_keys=True)
            if (index := rollout.get("_ng_task_index")) is not None:
                keys[root((path.name, json.dumps(rollout.get("agent_ref")), index))] = root(prompt)
            if isinstance(baseline.row_of(line, reward_threshold=0.5), dict):
                usable.append(prompt)

    report = fastsft.convert(real_rollouts, tmp_path / "rows.jsonl", best_of=1, reward_threshold=0.5)

    assert report.fates.kept == len({root(prompt) for prompt in usable})
    assert report.fates.kept + report.fates.dropped["not_best"] == len(usable)
