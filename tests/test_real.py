"""The real rollouts, as they are: one fate for every line, and rows that every reader takes."""

from __future__ import annotations

import json

import msgspec
import polars as pl
import pytest

import fastsft


@pytest.mark.parametrize("layout", ["openai", "simple"])
def test_every_line_has_its_one_fate_and_every_row_loads(real_rollouts, tmp_path, layout):
    output = tmp_path / "train.jsonl"

    report = fastsft.convert(real_rollouts, output, format=layout, reward_threshold=-1e9)

    data = output.read_bytes()
    rows = [json.loads(row) for row in data.splitlines()]
    assert [msgspec.json.decode(row) for row in data.splitlines()] == rows
    # Content is a string in most turns and a list where there is an image, which no typed column can hold.
    roles = {"messages": pl.List(pl.Struct({"role": pl.String}))}
    texts = {"input": pl.String, "output": pl.String}
    assert pl.read_ndjson(output, schema=roles if layout == "openai" else texts).height == len(rows) == report.rows
    assert report.fates.lines == sum(shard.fates.lines for shard in report.inputs)
    for shard in report.inputs:
        shard.fates.check(shard.path)
        with open(shard.path, "rb") as file:
            assert shard.fates.lines == sum(1 for _ in file)
    if layout == "openai":
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
