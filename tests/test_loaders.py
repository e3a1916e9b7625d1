"""What comes out loads: in Hugging Face datasets for real, in TRL's and NeMo RL's by their rules."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import generate
import pytest
from builders import call, lines, returned, rollout, said, user

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


def loaded_by_columns(path: Path, cache: Path) -> list[list[dict[str, Any]]]:
    """The messages of a file as a loader with a type for each column holds them, less what it fills in with null."""
    rows = datasets.load_dataset("json", data_files=str(path), cache_dir=str(cache))["train"]
    return [
        [{name: value for name, value in message.items() if value is not None} for message in row["messages"]]
        for row in rows
    ]


def test_arguments_as_strings_come_through_a_column_typed_loader(rows, tmp_path):
    """Tools of any kind beside them; objects do not: datasets 5.2 rounds their numbers to ten digits."""
    held = loaded_by_columns(rows["strings"], tmp_path)

    assert held == [row["messages"] for row in values(rows["strings"])]


@pytest.mark.parametrize("layout", ["openai", "chat"])
def test_whatever_the_tools_every_row_loads_with_its_texts(rows, layout, tmp_path):
    held = loaded_by_columns(rows[layout], tmp_path)

    def said(messages: list[dict[str, Any]]) -> list[tuple[str, Any]]:
        return [(message["role"], message["content"]) for message in messages]

    assert list(map(said, held)) == [said(row["messages"]) for row in values(rows[layout])]


def test_rows_with_the_same_tools_load_as_they_are(tmp_path):
    tools = [{"type": "function", "name": "add", "description": "Adds.", "parameters": {"type": "object"}}]
    made = [rollout(user(f"{n}?"), call("add", n=n), returned("4"), said("4"), tools=tools) for n in range(20)]
    (tmp_path / "in.jsonl").write_bytes(lines(*made))
    for layout in ("openai", "chat"):
        fastsft.convert(tmp_path / "in.jsonl", tmp_path / f"{layout}.jsonl", format=layout)
        held = loaded_by_columns(tmp_path / f"{layout}.jsonl", tmp_path / "cache")
        assert held == [row["messages"] for row in values(tmp_path / f"{layout}.jsonl")]


def test_numbers_of_tool_schemas_survive_as_a_string_alone(tmp_path):
    """The fault that `mixed_schemas` tells of is real: datasets 5.2 writes 0.6000000000000001 for 0.6."""
    schemas = [{"type": "object", "properties": {name: {"type": "number", "minimum": 0.6}}} for name in "ab"]
    tools = [[{"type": "function", "name": "f", "description": "F.", "parameters": schema}] for schema in schemas]
    (tmp_path / "in.jsonl").write_bytes(lines(*(rollout(user("?"), said("4"), tools=offered) for offered in tools)))
    held = {}
    for form in ("list", "string"):
        path = tmp_path / f"{form}.jsonl"
        fastsft.convert(tmp_path / "in.jsonl", path, format="chat", tools=form)
        loaded = datasets.load_dataset("json", data_files=str(path), cache_dir=str(tmp_path / "cache"))["train"]
        held[form] = [row["tools"] for row in loaded] == [row["tools"] for row in values(path)]

    assert held == {"list": False, "string": True}
    assert [note.kind for note in fastsft.check(tmp_path / "list.jsonl").notes] == ["mixed_schemas"]


def test_rows_are_conversational_as_trl_asks(rows):
    """`is_conversational` looks for role and content in the first message; tools are nested schemas (chat)."""
    for row in values(rows["chat"]):
        assert {"role", "content"} <= row["messages"][0].keys()
        for tool in row.get("tools", []):
            if tool["type"] == "function":
                assert set(tool) == {"type", "function"}
                assert {"name"} <= tool["function"].keys() <= {"name", "description", "parameters"}
        for message in row["messages"]:
            for made in message.get("tool_calls", []):
                assert (made["type"], set(made["function"])) == ("function", {"name", "arguments"})
                assert isinstance(made["function"]["arguments"], dict)
