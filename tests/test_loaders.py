"""What comes out loads: in Hugging Face datasets for real, in TRL's and NeMo RL's by their rules."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import generate
import pytest

import fastsft

datasets = pytest.importorskip("datasets")


@pytest.fixture(scope="module", params=["generated", "real"])
def rows(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of rows by layout, from generated and from real rollouts."""
    folder = tmp_path_factory.mktemp("rows")
    if request.param == "real":
        inputs = request.getfixturevalue("real_rollouts")
    else:
        shapes = {shape: b"".join(islice(generate.lines(shape, seed=5, kept=1.0), 30)) for shape in generate.SHAPES}
        inputs = [folder / f"in-{shape}.jsonl" for shape in shapes]
        for path, data in zip(inputs, shapes.values(), strict=True):
            path.write_bytes(data)
    forms: dict[str, dict[str, Any]] = {
        "openai": {},
        "chat": {"format": "chat"},
        "strings": {"format": "chat", "arguments": "string"},
        "simple": {"format": "simple"},
    }
    for name, form in forms.items():
        fastsft.convert(inputs, folder / f"{name}.jsonl", reward_threshold=0.5, **form)
    return {name: folder / f"{name}.jsonl" for name in forms}


def values(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


# NeMo RL, `oai_format_dataset.py` and `response_dataset.py`, by what they do to a file.


@pytest.mark.parametrize("layout", ["openai", "chat", "strings"])
def test_nemo_rl_s_openai_format_with_the_preserving_dataset(rows, layout):
    with rows[layout].open() as file:  # as it does: the platform's encoding, every line parsed
        loaded = [json.loads(line) for line in file]

    assert loaded == values(rows[layout])
    assert len(loaded) > 50
    for row in loaded:
        assert set(row) <= {"messages", "tools"}
        assert row["messages"][-1]["role"] == "assistant"
        assert all(isinstance(message["role"], str) and "content" in message for message in row["messages"])


def test_nemo_rl_s_response_dataset(rows, tmp_path):
    loaded = datasets.load_dataset("json", data_files=str(rows["simple"]), cache_dir=str(tmp_path))["train"]

    messages = [
        [{"role": "user", "content": row["input"]}, {"role": "assistant", "content": row["output"]}] for row in loaded
    ]
    assert [[message["content"] for message in row] for row in messages] == [
        [row["input"], row["output"]] for row in values(rows["simple"])
    ]
    assert all(isinstance(message["content"], str) for row in messages for message in row)


# Hugging Face datasets, and TRL, which reads its rows from them.


@pytest.mark.parametrize("layout", ["openai", "chat", "strings"])
def test_datasets_hold_every_row_when_they_are_handed_over_as_json(rows, layout, tmp_path):
    """Rows with tools of different kinds need no column for each key: TRL decodes `tools` that are a JSON string."""
    packed = [
        {"messages": json.dumps(row["messages"]), "tools": json.dumps(row.get("tools", []))}
        for row in values(rows[layout])
    ]

    loaded = datasets.Dataset.from_list(packed)

    unpacked = [{"messages": json.loads(row["messages"]), "tools": json.loads(row["tools"])} for row in loaded]
    assert unpacked == [{"tools": [], **row} for row in values(rows[layout])]


def test_a_column_typed_loader_keeps_rows_without_objects_whole(rows, tmp_path):
    """With arguments as strings and tools left out nothing is filled in but what a message does not have at all."""
    kept = [row for row in values(rows["strings"]) if all(isinstance(m["content"], str) for m in row["messages"])]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"messages": row["messages"]}) + "\n" for row in kept))

    loaded = datasets.load_dataset("json", data_files=str(path), cache_dir=str(tmp_path / "cache"))["train"]

    def without_none(message: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in message.items() if value is not None}

    assert [[without_none(message) for message in row["messages"]] for row in loaded] == [
        row["messages"] for row in kept
    ]


def test_check_says_of_objects_what_a_column_typed_loader_does_to_them(tmp_path):
    """The fault that `mixed_schemas` tells of is real: keys of another row's call come out as null."""
    calls = [{"name": "f", "arguments": arguments} for arguments in ({"a": 1}, {"b": "x"})]
    said = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"messages": [said[0], {**said[1], "tool_calls": [call]}]}) + "\n" for call in calls)
    )

    loaded = datasets.load_dataset("json", data_files=str(path), cache_dir=str(tmp_path / "cache"))["train"]

    held = [row["messages"][1]["tool_calls"][0]["arguments"] for row in loaded]
    whole = held == [call["arguments"] for call in calls]
    assert whole or held == [{"a": 1, "b": None}, {"a": None, "b": "x"}]  # newer ones hold mixed objects as JSON
    assert "mixed_schemas" in {note.kind for note in fastsft.check(path).notes}


def test_rows_are_conversational_as_trl_asks(rows):
    """`is_conversational` looks for role and content in the first message; tools are nested schemas (chat)."""
    for row in values(rows["chat"]):
        assert {"role", "content"} <= row["messages"][0].keys()
        for tool in row.get("tools", []):
            if tool["type"] == "function":
                assert set(tool) == {"type", "function"}
                assert {"name"} <= tool["function"].keys() <= {"name", "description", "parameters"}
        for message in row["messages"]:
            for call in message.get("tool_calls", []):
                assert (call["type"], set(call["function"])) == ("function", {"name", "arguments"})
                assert isinstance(call["function"]["arguments"], dict)
