"""Rows as Parquet: the same rows, the same bytes for any jobs, whole or absent, and verified as other files are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import generate
import polars as pl
import pytest
from builders import call, line, lines, returned, rollout, said, thought, user

import fastsft
from fastsft import FailedRun, Options, UsageError
from fastsft.outputs.parquet import names_in
from fastsft.pipeline import run
from fastsft.storage.parquet import open_parquet

HOSTILE = 'a "tool_calls": [\u2028 \U0001f600 \x7f\t\\ "metadata":'


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    generate.write(tmp_path / "in", "mixed", count=120, nbytes=0, shards=3, seed=21)
    return tmp_path / "in"


def rows_in(path: Path) -> list[dict[str, Any]]:
    with open_parquet(str(path)) as file:
        return [json.loads(row) for row in file]


def test_a_file_holds_the_rows_that_json_lines_would(shards, tmp_path):
    chosen = {"provenance": "reward,line", "reward_threshold": 0.5}

    report = fastsft.convert(shards, tmp_path / "rows.parquet", trainer="verl", **chosen)

    assert rows_in(tmp_path / "rows.parquet") == list(fastsft.rows(shards, trainer="verl", **chosen))
    (output,) = report.outputs
    assert (output.name, output.rows) == ("rows.parquet", report.fates.kept)
    assert output.nbytes == (tmp_path / "rows.parquet").stat().st_size
    assert fastsft.verify(tmp_path / "rows.parquet").differences == []


@pytest.mark.parametrize("shape", [{}, {"shards": 3}, {"shard_nbytes": 60_000}])
def test_the_bytes_are_the_same_for_any_jobs(shape, shards, tmp_path):
    for jobs in (1, 2):
        output = f"{tmp_path}/{jobs}/" if shape else f"{tmp_path}/{jobs}/train.parquet"
        run([shards], output, Options(trainer="verl", jobs=jobs, span_nbytes=40_000, reward_threshold=0.5, **shape))
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / jobs).glob("*.parquet")} for jobs in "12")

    assert one == two
    assert len(one) == {0: 1}.get(len(shape), 3) or len(one) > 3
    rows = [row for path in sorted((tmp_path / "1").glob("*.parquet")) for row in rows_in(path)]
    assert rows == list(fastsft.rows(shards, trainer="verl", reward_threshold=0.5))
    assert fastsft.verify(tmp_path / "1").differences == []


def test_what_no_row_has_is_no_field(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines(rollout(user(HOSTILE), said(HOSTILE)), rollout(user("?"), said("4"))))

    fastsft.convert(tmp_path / "in.jsonl", tmp_path / "rows.parquet", trainer="verl")

    turn = pl.Struct({"role": pl.String, "content": pl.String})
    assert pl.read_parquet_schema(tmp_path / "rows.parquet") == {"messages": pl.List(turn)}
    assert rows_in(tmp_path / "rows.parquet")[0]["messages"][0]["content"] == HOSTILE


def test_all_files_of_an_output_have_the_same_fields(tmp_path):
    schema = {"type": "object", "properties": {}}
    tools = [{"type": "function", "name": "add", "parameters": schema}]
    with_call = rollout(user("?"), thought("Add."), call("add", a=0.1), returned("4"), said("4"), tools=tools)
    (tmp_path / "in.jsonl").write_bytes(lines(*[rollout(user(str(n)), said("4")) for n in range(5)], with_call))

    fastsft.convert(tmp_path / "in.jsonl", f"{tmp_path}/out/", trainer="verl", shards=2)

    first, second = sorted((tmp_path / "out").glob("*.parquet"))
    assert pl.read_parquet_schema(first) == pl.read_parquet_schema(second)
    row = rows_in(second)[-1]
    assert json.loads(row["tools"])[0]["function"]["parameters"] == schema
    assert row["messages"][1]["tool_calls"][0]["function"]["arguments"] == '{"a": 0.1}'


def test_a_name_across_two_blocks_is_seen(tmp_path, monkeypatch):
    row = b'{"messages":[{"role":"user","content":"' + b"a" * 30 + b'"}],"tools":"[]"}\n'
    (tmp_path / "s").write_bytes(row)
    for size in range(1, len(row)):
        blocks = [row[start : start + size] for start in range(0, len(row), size)]
        monkeypatch.setattr("fastsft.outputs.parquet.blocks_of", lambda *_, blocks=blocks: iter(blocks))
        assert names_in(["s"], tmp_path) == ["tools"]


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "another"])
def test_verify_tells_what_became_of_a_file(damage, shards, tmp_path):
    path = tmp_path / "rows.parquet"
    fastsft.convert(shards, path, trainer="verl", reward_threshold=0.5)
    data = path.read_bytes()
    match damage:
        case "cut":
            path.write_bytes(data[:-20])
        case "changed":
            path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
        case "gone":
            path.unlink()
        case "another":
            pl.DataFrame({"messages": [1]}).write_parquet(path)

    assert fastsft.verify(path).differences != []


def test_nothing_is_published_where_the_file_cannot_be_made(shards, tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise pl.exceptions.ComputeError("No space left on device")

    monkeypatch.setattr(pl.LazyFrame, "sink_parquet", full)
    with pytest.raises(FailedRun, match="No space left on device; nothing was published"):
        fastsft.convert(shards, tmp_path / "out" / "rows.parquet", trainer="verl", jobs=1)
    assert list((tmp_path / "out").glob("**/*")) == []


def test_no_rows_are_a_file_without_rows(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(line(rollout(user("?"), said("4"), reward=0)))

    fastsft.convert(tmp_path / "in.jsonl", tmp_path / "rows.parquet", trainer="verl", allow_empty=True)

    assert rows_in(tmp_path / "rows.parquet") == []
    assert fastsft.verify(tmp_path / "rows.parquet").differences == []


@pytest.mark.parametrize(
    ("output", "options", "problem"),
    [
        (
            "rows.jsonl",
            {"trainer": "verl"},
            "cannot write rows.jsonl: .jsonl promises another kind of file; verl reads",
        ),
        ("rows", {"trainer": "verl"}, "verl reads Parquet alone; write the output as rows.parquet"),
        ("rows.parquet", {"trainer": "trl"}, "cannot write rows.parquet: .parquet promises another kind of file; rows"),
    ],
)
def test_a_name_promises_what_is_written(output, options, problem, shards, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        fastsft.convert(shards, output, **options)
    assert str(caught.value).startswith(problem)


def test_splits_are_parquet_too_and_shards_replace_those_of_the_run_before(shards, tmp_path):
    options = {"trainer": "verl", "reward_threshold": 0.5, "splits": {f"{tmp_path}/val/": 0.3}}
    fastsft.convert(shards, f"{tmp_path}/out/", shards=3, **options)
    fastsft.convert(shards, f"{tmp_path}/out/", shards=2, **options)

    assert sorted(path.name for path in tmp_path.glob("*/*.parquet")) == [
        "train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "val-00000-of-00002.parquet",
        "val-00001-of-00002.parquet",
    ]  # fmt: skip
    assert fastsft.verify(tmp_path / "out").differences == []
    checked = fastsft.check([tmp_path / "out", tmp_path / "val"], trainer="verl")
    assert (checked.files, checked.findings) == (4, [])


def test_a_damaged_file_fails_a_check(shards, tmp_path):
    fastsft.convert(shards, tmp_path / "rows.parquet", trainer="verl", reward_threshold=0.5)
    (tmp_path / "rows.parquet").write_bytes((tmp_path / "rows.parquet").read_bytes()[:-20])

    with pytest.raises(FailedRun, match="damaged"):
        fastsft.check(tmp_path / "rows.parquet")


def test_rollouts_in_parquet_are_told_as_before(tmp_path):
    pl.DataFrame({"reward": [1.0]}).write_parquet(tmp_path / "in.parquet")
    with pytest.raises(FailedRun, match="no file could be read"):
        fastsft.convert(tmp_path / "in.parquet", tmp_path / "rows.jsonl")
