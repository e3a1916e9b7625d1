"""`--with`: each row says which line it is of, whatever way it took, and is the same row otherwise."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import generate
import pytest
from builders import line, lines, rollout, said, user

import fastsft
from fastsft import Options, UsageError
from fastsft.pipeline import choosing_in_parts, run

EVERYTHING = ("reward", "agent", "task", "shard", "line")


def attempt(task: int, **more: Any) -> dict[str, Any]:
    return {**rollout(user(f"{task}+1?"), said(str(task + 1))), "agent_ref": {"name": "sums"}, **more}


def rows_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(row) for row in path.read_bytes().splitlines()]


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """A plain one with a blank line and a torn one, and a compressed one."""
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"
    first.write_bytes(line(attempt(1)) + b"\n{torn\n" + line(attempt(2, reward=1.5)))
    second.write_bytes(gzip.compress(lines(attempt(3, reward=0.5), attempt(1, agent_ref=None))))
    return [first, second]


def test_a_row_says_its_reward_agent_task_shard_and_line(shards, tmp_path):
    fastsft.convert(shards, tmp_path / "rows.jsonl", provenance=EVERYTHING, reward_threshold=0.5)

    table = fastsft.scan(shards).collect()
    tasks = {(one["shard"], one["line"]): f"{one['task']:016x}" for one in table.iter_rows(named=True)}
    first, second = map(str, shards)
    assert [row["metadata"] for row in rows_in(tmp_path / "rows.jsonl")] == [
        {"reward": 1.0, "agent": "sums", "task": tasks[first, 1], "shard": first, "line": 1},
        {"reward": 1.5, "agent": "sums", "task": tasks[first, 4], "shard": first, "line": 4},
        {"reward": 0.5, "agent": "sums", "task": tasks[second, 1], "shard": second, "line": 1},
        {"reward": 1.0, "agent": "", "task": tasks[second, 2], "shard": second, "line": 2},
    ]
    assert tasks[first, 1] == tasks[second, 2]


@pytest.mark.parametrize("columns", [("line",), "shard,reward", ["agent"], ("task", "reward")])
def test_only_what_is_asked_for_is_said_in_the_order_of_asking(columns, shards, tmp_path):
    fastsft.convert(shards, tmp_path / "rows.jsonl", provenance=columns)

    names = columns.split(",") if isinstance(columns, str) else list(columns)
    assert [list(row["metadata"]) for row in rows_in(tmp_path / "rows.jsonl")] == [names] * 3


WAYS = {
    "as they are": {},
    "the best": {"best_of": 1},
    "no duplicates": {"dedup": True},
    "in one process": {"jobs": 1},
    "in two": {"jobs": 2},
    "in a large table": {"per_task": 5},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("columns", [("reward", "shard"), EVERYTHING])
def test_rows_are_the_same_but_for_where_they_come_from(way, columns, tmp_path, monkeypatch):
    generate.write(tmp_path / "in", "mixed", count=90, nbytes=0, shards=3, seed=11)
    if way == "in a large table":
        monkeypatch.setattr(choosing_in_parts, "_MOST_LINES_IN_MEMORY", 10)
        monkeypatch.setattr(choosing_in_parts, "_LINES_AT_ONCE", 20)
    for name, provenance in (("with", columns), ("without", ())):
        options = Options(**WAYS[way], provenance=provenance, span_nbytes=30_000, reward_threshold=0.5)
        run([tmp_path / "in"], tmp_path / f"{name}.jsonl", options)
    said = rows_in(tmp_path / "with.jsonl")
    origins = [row.pop("metadata") for row in said]

    assert said == rows_in(tmp_path / "without.jsonl")
    assert len(said) > 10
    for row, origin in zip(said, origins, strict=True):
        if "line" in origin:
            there = Path(origin["shard"]).read_bytes().split(b"\n")[origin["line"] - 1]
            assert fastsft.to_row(there) == row


def test_splits_and_an_index_say_the_same(tmp_path):
    generate.write(tmp_path / "in", "mixed", count=60, nbytes=0, shards=2, seed=12)
    fastsft.index(tmp_path / "in", tmp_path / "i.parquet")

    fastsft.convert(tmp_path / "in", tmp_path / "a.jsonl", provenance=EVERYTHING, splits={tmp_path / "v.jsonl": 0.3})
    scanned = rows_in(tmp_path / "a.jsonl") + rows_in(tmp_path / "v.jsonl")
    fastsft.convert(tmp_path / "in", tmp_path / "a.jsonl", provenance=EVERYTHING, index=tmp_path / "i.parquet")

    def by_place(rows: list[Any]) -> list[Any]:
        return sorted(rows, key=lambda row: (row["metadata"]["shard"], row["metadata"]["line"]))

    assert by_place(rows_in(tmp_path / "a.jsonl")) == by_place(scanned)


def test_a_name_that_is_not_utf8_is_printable(tmp_path):
    shard = os.path.join(os.fsencode(tmp_path), b"\xff.jsonl")
    with open(shard, "wb") as file:
        file.write(line(attempt(1)))

    fastsft.convert(os.fsdecode(shard), tmp_path / "rows.jsonl", provenance="shard,line")

    assert rows_in(tmp_path / "rows.jsonl")[0]["metadata"] == {"shard": f"{tmp_path}/\\xff.jsonl", "line": 1}


def test_rows_are_given_with_where_they_come_from(shards):
    given = list(fastsft.rows(shards, provenance=("line", "shard")))
    assert [row["metadata"]["line"] for row in given] == [1, 4, 2]


def test_a_check_finds_rows_that_differ_in_where_they_come_from_alone(shards, tmp_path):
    fastsft.convert(shards, tmp_path / "rows.jsonl", provenance=EVERYTHING, reward_threshold=0.5)

    checked = fastsft.check(tmp_path / "rows.jsonl")

    assert {one.kind: one.rows for one in (*checked.findings, *checked.notes)} == {"duplicate": 1}


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ("offset", "no column for a row named 'offset'; there are: reward, agent, task, shard, line"),
        ("line,line", "--with names a column twice"),
    ],
)
def test_a_wrong_column_is_refused(columns, problem, shards, tmp_path):
    with pytest.raises(UsageError) as caught:
        fastsft.convert(shards, tmp_path / "rows.jsonl", provenance=columns)
    assert str(caught.value) == problem
