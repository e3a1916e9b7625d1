"""The library as a notebook uses it: rows without files, one row, the table, reports that show themselves."""

from __future__ import annotations

import json

import generate
import polars as pl
import pytest
from builders import in_a_new_process, line, rollout, said, user

import fastsft
from fastsft import Refused, UsageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("in")
    generate.write(path, "mixed", count=90, nbytes=0, shards=3, seed=7)
    return path


OPTIONS = [
    {},
    {"format": "chat", "reward_threshold": 0.5, "max_line": "40kB"},
    {"format": "chat", "best_of": 1, "dedup": True},
    {"where": "reward > avg(reward)"},
    {"reward_threshold": 99},
    {"best_of": 1, "reward_threshold": 99},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_rows_are_those_that_convert_writes(folder, tmp_path, options):
    fastsft.convert(folder, tmp_path / "rows.jsonl", allow_empty=True, jobs=1, **options)

    rows = list(fastsft.rows(folder, jobs=1, **options))

    path = tmp_path / "rows.jsonl"
    assert rows == ([json.loads(row) for row in path.read_bytes().splitlines()] if path.exists() else [])


def test_rows_come_in_parallel_and_as_they_are_asked_for(folder):
    script = """
import sys, fastsft, fastsft.inputs.shards, multiprocessing
fastsft.inputs.shards._MOST_SPAN_NBYTES = 20_000
rows = fastsft.rows(sys.argv[1], jobs=2, allow="all", reward_threshold=-9)
first = next(rows)
print(len(multiprocessing.active_children()))
print(first == next(fastsft.rows(sys.argv[1], jobs=1, allow="all", reward_threshold=-9)))
rows.close()
print(multiprocessing.active_children())
"""
    assert in_a_new_process(script, folder).splitlines() == ["2", "True", "[]"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"reward_treshold": 1}, "no option 'reward_treshold'"),
        ({"shards": 3}, "have no part, no shards and no compression"),
        ({"format": "sharegpt"}, "no format named 'sharegpt'"),
    ],
)
def test_wrong_options_of_rows_are_told(folder, options, problem):
    with pytest.raises(UsageError, match=problem):
        list(fastsft.rows(folder, **options))


def test_one_rollout_becomes_one_row():
    value = rollout(user("2+2?"), said("4"), reward=0.0)
    messages = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]

    assert fastsft.to_row(value) == fastsft.to_row(line(value), format="chat") == {"messages": messages}
    assert fastsft.to_row(value, format="simple") == {"input": "2+2?", "output": "4"}
    with pytest.raises(Refused, match="the output has no assistant turn") as caught:
        fastsft.to_row(rollout(user("2+2?")))
    assert caught.value.reason == "no_assistant_turn"


def test_the_table_of_lines_is_what_where_sees(folder):
    table = fastsft.scan(folder, jobs=1)
    kept = table.filter((pl.col("reward") >= 0.95) & (pl.col("calls") > 0)).collect()

    report_rows = len(list(fastsft.rows(folder, where="calls > 0", jobs=1, allow="all")))
    refused = kept.height - report_rows  # for what no row can hold
    assert kept["line"].dtype == pl.UInt64
    assert 0 <= refused < 5
    assert table.collect_schema().names()[:6] == ["shard", "line", "offset", "nbytes", "reward", "agent"]
    assert fastsft.stats(folder, jobs=1).rollouts == table.collect().height


def test_a_report_shows_itself_in_five_lines(tmp_path):
    (tmp_path / "<b>.jsonl").write_bytes(
        line(rollout(user("?"), said("4"))) + b"\n{torn\n" + line(rollout(user("?"), said("4"), reward=0.0))
    )

    report = fastsft.convert(tmp_path / "<b>.jsonl", tmp_path / "<out>/rows.jsonl", jobs=1)

    assert repr(report).splitlines() == [
        "lines    4 of 1 shards, 1 blank",
        "kept     1",
        "dropped  1 (below_threshold 1)",
        "refused  1 (bad_json 1)",
        f"written  1 rows, 80 bytes, 1 files in {tmp_path}/<out>",
    ]
    assert report._repr_html_().count("<tr>") == 5
    assert "<out>" not in report._repr_html_()
