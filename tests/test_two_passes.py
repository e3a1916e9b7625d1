"""Runs that compare lines: a scan or an index, a choice, and the chosen lines alone."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import generate
import polars as pl
import pytest
from builders import call, line, lines, raw_call, rollout, said, system, user

import fastsft
from fastsft.errors import FailedRun, UsageError
from fastsft.options import Options, Split
from fastsft.pipeline import run
from fastsft.pipeline.index import write_index
from fastsft.report import Fates


def good(answer: str = "4", *, prompt: str = "2+2?", **more: Any) -> dict[str, Any]:
    return {**rollout(user(prompt), said(answer)), **more}


def answers(path: Path) -> list[str]:
    return [json.loads(row)["messages"][-1]["content"] for row in path.read_bytes().splitlines()]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("mixed")
    return generate.write(folder, "mixed", count=400, nbytes=0, shards=3, seed=5)


EVERYTHING: dict[str, Any] = {"sample": "100%"}  # drops nothing, but compares


@pytest.mark.parametrize("span_nbytes", [9_000, 200_000, 2**24])
@pytest.mark.parametrize("jobs", [1, 2])
def test_what_drops_nothing_gives_the_rows_and_the_fates_of_one_pass(mixed, tmp_path, jobs, span_nbytes):
    one = run(mixed, tmp_path / "one.jsonl", Options(jobs=1))
    two = run(mixed, tmp_path / "two.jsonl", Options(jobs=jobs, span_nbytes=span_nbytes, **EVERYTHING))

    assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
    assert two.fates == one.fates
    assert [shard.fates for shard in two.inputs] == [shard.fates for shard in one.inputs]
    refused = [sorted((tmp_path / f"{name}.refused").read_bytes().splitlines()) for name in ("one", "two")]
    assert refused[0] == refused[1]


CHOICE: dict[str, Any] = {"dedup": True, "best_of": 2, "per_agent": 60, "sample": "80%", "pass_rate": (0.1, 1.0)}


def test_the_bytes_do_not_depend_on_jobs_chunks_compression_or_an_index(mixed, tmp_path):
    def made(name: str, inputs: list[Path], index: Path | None = None, **how: Any) -> list[bytes]:
        folder = tmp_path / name
        splits = [Split(str(folder / "val.jsonl"), 0.2)]
        run(inputs, folder / "train.jsonl", Options(**CHOICE, **how), splits=splits, index=index)
        return [(folder / file).read_bytes() for file in ("train.jsonl", "val.jsonl")]

    expected = made("a", mixed, jobs=1)
    assert all(part.count(b"\n") > 10 for part in expected)
    assert made("b", mixed, jobs=2, span_nbytes=9_000) == expected
    packed = [path.with_suffix(".jsonl.gz") for path in mixed]
    for plain, path in zip(mixed, packed, strict=True):
        path.write_bytes(gzip.compress(plain.read_bytes()))
    assert made("c", packed, jobs=2, span_nbytes=50_000) == expected
    fastsft.index(mixed, tmp_path / "index.parquet", dedup=True, jobs=1)
    assert made("d", mixed, tmp_path / "index.parquet", jobs=2) == expected
    fastsft.index(packed, tmp_path / "packed.parquet", dedup=True)
    assert made("e", packed, tmp_path / "packed.parquet", jobs=1) == expected


@pytest.mark.parametrize("indexed", [False, True])
def test_a_line_without_a_row_is_refused_and_takes_no_place(tmp_path, indexed):
    shard = tmp_path / "in.jsonl"
    bad = rollout(user("2+2?"), raw_call("f", "[1]"), said("4"), reward=2.0)
    shard.write_bytes(b"\n" + line(good()) + line(bad) + line({**bad, "reward": 0.0}))
    if indexed:
        fastsft.index(shard, tmp_path / "index.parquet")

    index = tmp_path / "index.parquet" if indexed else None
    report = fastsft.convert(shard, tmp_path / "rows.jsonl", best_of=1, index=index)

    assert report.fates.dropped == {"below_threshold": 1}

    assert (report.fates.kept, report.fates.blank, report.fates.refused) == (1, 1, {"bad_arguments": 1})
    refused = json.loads((tmp_path / "rows.refused").read_bytes())
    assert (refused["line"], refused["offset"]) == (3, 1 + len(line(good())))


def test_duplicates_are_rows_of_the_same_content(tmp_path):
    shard = tmp_path / "in.jsonl"
    again = good("a")
    again["response"]["output"][0]["id"] = "another"
    shard.write_bytes(lines(good("a", reward=0), good("a"), again, good("b"), good("a", prompt="3+3?")))

    report = fastsft.convert(shard, tmp_path / "rows.jsonl", dedup=True)

    assert answers(tmp_path / "rows.jsonl") == ["a", "b", "a"]
    assert report.fates.dropped == {"below_threshold": 1, "duplicate": 1}


@pytest.mark.parametrize("layout", ["openai", "chat"])
def test_duplicates_may_differ_in_the_ids_of_calls_and_in_how_text_is_written(tmp_path, layout):
    def attempt(first: str, second: str, *results: str) -> dict[str, Any]:
        calls = [{**call("f"), "call_id": first}, {**call("f"), "call_id": second}]
        answers = (
            {"type": "function_call_output", "call_id": one, "output": text}
            for one, text in zip(results, "ab", strict=True)
        )
        tools = [{"type": "function", "name": "f", "parameters": {"default": 1e-05}}]
        return rollout(user("né/?"), *calls, *answers, said("x"), tools=tools)

    shard = tmp_path / "in.jsonl"
    turned = line(attempt("e", "f", "f", "e"))  # the results answer other calls
    escaped = json.dumps(attempt("c", "d", "c", "d")).encode().replace(b"/", b"\\/") + b"\n"
    shard.write_bytes(lines(attempt("a", "b", "a", "b")) + escaped + turned)

    report = fastsft.convert(shard, tmp_path / "rows.jsonl", dedup=True, format=layout)

    assert b"\\u00e9" in escaped
    assert report.fates.kept == 2


def test_the_best_of_each_task_are_kept_in_the_order_of_the_input(tmp_path):
    shard = tmp_path / "in.jsonl"
    rewards = [("p", 0.96), ("q", 1.0), ("p", 1.0), ("q", 0.97), ("p", 0.5)]
    shard.write_bytes(lines(*(good(str(n), prompt=p, reward=r) for n, (p, r) in enumerate(rewards))))

    fastsft.convert(shard, tmp_path / "rows.jsonl", best_of=1)
    assert answers(tmp_path / "rows.jsonl") == ["1", "2"]


def test_where_that_fails_in_the_scan_may_succeed_among_the_lines_that_others_leave(tmp_path):
    shard = tmp_path / "in.jsonl"
    attempts = [("p", "8", 1.0), ("p", "8", 0.0), ("q", "math", 1.0)]  # q is solved always, p half the time
    shard.write_bytes(lines(*(good(prompt=p, agent_ref={"name": name}, reward=r) for p, name, r in attempts)))

    report = fastsft.convert(
        shard, tmp_path / "rows.jsonl", pass_rate=(0.1, 0.9), where="CAST(agent AS INTEGER) > 3", jobs=1
    )

    assert report.fates == Fates(lines=3, kept=1, dropped={"pass_rate": 1, "below_threshold": 1})


# Splits.


def test_whole_tasks_go_to_one_side_and_the_reports_prove_it(mixed, tmp_path):
    report = fastsft.convert(
        mixed, tmp_path / "train.jsonl", splits={str(tmp_path / "val/"): 0.2, str(tmp_path / "test.jsonl"): 0.1}
    )

    assert (tmp_path / "val").is_file()  # a path without a slash at its end
    assert [split.name for split in report.splits] == ["train.jsonl", "val", "test.jsonl"]
    assert report.options["splits"] == {"val": 0.2, "test.jsonl": 0.1}
    counts = {Path(split.name).stem: (split.rows, split.tasks_elsewhere) for split in report.splits}
    assert all(lines > 0 and elsewhere == 0 for lines, elsewhere in counts.values())
    reports = [json.loads((tmp_path / f"{name}.report.json").read_bytes()) for name in counts]
    rows = [one["outputs"][0]["rows"] for one in reports]
    assert sum(rows) == report.fates.kept
    assert rows == [count for count, _ in counts.values()]
    whole = fastsft.convert(mixed, tmp_path / "whole.jsonl")
    together = [row for name in counts for row in answers(tmp_path / Path("val" if name == "val" else f"{name}.jsonl"))]
    assert sorted(together) == sorted(answers(tmp_path / "whole.jsonl"))
    assert whole.fates == report.fates


def test_a_task_stays_on_its_side_when_data_are_added(mixed, tmp_path):
    def val(inputs: list[Path], name: str) -> set[str]:
        fastsft.convert(inputs, tmp_path / f"{name}.jsonl", splits={str(tmp_path / f"{name}-val.jsonl"): 0.3})
        return set((tmp_path / f"{name}-val.jsonl").read_text().splitlines())

    assert val(mixed[:1], "a") < val(mixed[::-1], "b")


def test_a_split_in_a_folder_has_its_name(mixed, tmp_path):
    fastsft.convert(mixed, f"{tmp_path}/train/", splits={f"{tmp_path}/val/": 0.3}, shards=2)
    assert sorted(os.listdir(tmp_path / "val")) == [
        "val-00000-of-00002.jsonl",
        "val-00001-of-00002.jsonl",
        "val.report.json",
    ]
    fastsft.convert(mixed, f"{tmp_path}/train/", splits={f"{tmp_path}/val/": 0.3}, shards=1)
    assert sorted(os.listdir(tmp_path / "val")) == ["val-00000-of-00001.jsonl", "val.report.json"]


def test_splits_of_the_same_name_in_several_folders_are_told_apart(mixed, tmp_path):
    splits = {f"{tmp_path}/{folder}/rows.jsonl": share for folder, share in (("val", 0.2), ("test", 0.1))}
    report = fastsft.convert(mixed, tmp_path / "rows.jsonl", splits=splits)

    assert report.options["splits"] == {"val/rows.jsonl": 0.2, "test/rows.jsonl": 0.1}
    assert [split.name for split in report.splits] == ["rows.jsonl", "val/rows.jsonl", "test/rows.jsonl"]


def test_a_split_of_the_run_before_that_stays_is_told(mixed, tmp_path):
    splits = {f"{tmp_path}/val.jsonl": 0.2, f"{tmp_path}/test/": 0.1}
    fastsft.convert(mixed, tmp_path / "train.jsonl", splits=splits)
    again = fastsft.convert(mixed, tmp_path / "train.jsonl", splits={f"{tmp_path}/test/": 0.1})

    stays = "is a split of the run before and stays: its tasks may be among the rows of this run"
    assert again.notes == [f"{tmp_path}/val.jsonl {stays}"]


@pytest.mark.parametrize(
    ("splits", "problem"),
    [
        ({"train.jsonl": 0.1}, "two outputs have the same folder and name"),
        ({"val.jsonl": 0.0}, "the share of a split lies between 0 and 1"),
        ({"val.jsonl": 1.5}, "the share of a split lies between 0 and 1"),
        ({"val.jsonl": 0.6, "test.jsonl": 0.4}, "the splits take all tasks"),
        ({"in.jsonl": 0.5}, "is an input and would be overwritten"),
    ],
)
def test_wrong_splits_are_told_before_any_work(tmp_path, splits, problem):
    (tmp_path / "in.jsonl").write_bytes(line(good()))
    splits = {str(tmp_path / name): share for name, share in splits.items()}
    with pytest.raises(UsageError, match=problem):
        fastsft.convert(tmp_path / "in.jsonl", tmp_path / "train.jsonl", splits=splits)
    assert os.listdir(tmp_path) == ["in.jsonl"]


# The index.


def test_an_index_reads_the_chosen_lines_alone(tmp_path, monkeypatch):
    shard = tmp_path / "in.jsonl"
    shard.write_bytes(lines(*(good(str(n), reward=n / 10) for n in range(10))) + b"{\n\n")
    first = fastsft.index(shard, tmp_path / "index.parquet")
    assert (first.fates.lines, first.fates.blank, first.fates.refused) == (12, 1, {"bad_json": 1})

    monkeypatch.setattr("fastsft.pipeline.two_passes.LineTable.make", None)  # no scan
    for threshold in (0.85, 0.5):
        report = fastsft.convert(
            shard, tmp_path / "rows.jsonl", reward_threshold=threshold, index=tmp_path / "index.parquet"
        )
        monkeypatch.setattr("fastsft.execution.workers.WORKERS_PAY_FROM_NBYTES", 1)
        expected = fastsft.convert(shard, tmp_path / "again.jsonl", reward_threshold=threshold)
        assert report.fates == expected.fates
        assert (tmp_path / "rows.jsonl").read_bytes() == (tmp_path / "again.jsonl").read_bytes()
        assert (tmp_path / "rows.refused").read_bytes() == (tmp_path / "again.refused").read_bytes()


def test_an_index_knows_of_every_line_whether_it_has_a_row(tmp_path):
    """Whatever the threshold and the gates of the run that made it: the next one may have others."""
    shard = tmp_path / "in.jsonl"
    rowless = rollout(user("2+2?"), raw_call("f", "[1]"), said("4"))
    shard.write_bytes(lines(good(), {**rowless, "reward": 0.0}, {**rowless, "mask_sample": True}))
    fastsft.index(shard, tmp_path / "index.parquet")

    report = fastsft.convert(
        shard, tmp_path / "rows.jsonl", reward_threshold=0.0, allow="all", index=tmp_path / "index.parquet"
    )

    assert report.fates == Fates(lines=3, kept=1, refused={"bad_arguments": 2})


def test_an_index_holds_every_refused_line_however_few_a_run_lists(tmp_path):
    shard = tmp_path / "in.jsonl"
    shard.write_bytes(b"{torn\n" + line(good()) + b"{torn\n")
    write_index([shard], tmp_path / "index.parquet", Options(max_refused_recorded=1))

    fastsft.convert(shard, tmp_path / "rows.jsonl", index=tmp_path / "index.parquet")

    refused = [json.loads(one) for one in (tmp_path / "rows.refused").read_bytes().splitlines()]
    assert [(one["line"], one["reason"]) for one in refused] == [(1, "bad_json"), (3, "bad_json")]


def test_an_index_serves_its_shards_in_any_order(mixed, tmp_path):
    fastsft.index(mixed, tmp_path / "index.parquet")
    fastsft.convert(mixed[::-1], tmp_path / "scanned.jsonl", **EVERYTHING)

    fastsft.convert(mixed[::-1], tmp_path / "rows.jsonl", index=tmp_path / "index.parquet", **EVERYTHING)

    assert (tmp_path / "rows.jsonl").read_bytes() == (tmp_path / "scanned.jsonl").read_bytes()


def test_an_index_beside_the_inputs_is_used_while_it_fits(tmp_path):
    shard = tmp_path / "in.jsonl"
    shard.write_bytes(lines(good("a"), good("b")))
    fastsft.index(tmp_path, tmp_path)
    beside = tmp_path / "fastsft.index.parquet"
    assert beside.exists()

    report = fastsft.convert(tmp_path, tmp_path / "out/rows.jsonl", best_of=1)
    assert report.notes == [f"{beside} is used instead of a scan"]

    shard.write_bytes(lines(good("a"), good("b"), good("c")))
    report = fastsft.convert(tmp_path, tmp_path / "out/rows.jsonl", per_task=9)
    assert report.notes == [
        f"{beside} is older than {shard}, which has changed; "
        "rebuild it with: fastsft index INPUT... --output FILE; it is not used"
    ]
    assert answers(tmp_path / "out/rows.jsonl") == ["a", "b", "c"]


def test_an_index_that_does_not_fit_stops_the_run(tmp_path):
    shard, other, index = tmp_path / "in.jsonl", tmp_path / "other.jsonl", tmp_path / "index.parquet"
    for path in (shard, other):
        path.write_bytes(line(good()))
    fastsft.index(shard, index)
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "table.parquet")

    def problem(inputs: Any, index: Path, **options: Any) -> str:
        with pytest.raises(UsageError) as told:
            fastsft.convert(inputs, tmp_path / "rows.jsonl", index=index, **options)
        assert not (tmp_path / "rows.jsonl").exists()
        return str(told.value)

    assert "no index of fastsft" in problem(shard, tmp_path / "table.parquet")
    assert "no index of fastsft" in problem(shard, shard)
    assert "cannot read" in problem(shard, tmp_path / "nothing")
    assert f"knows nothing of {other}" in problem([shard, other], index)
    assert "holds no hashes of rows" in problem(shard, index, dedup=True)
    assert "is of openai rows" in problem(shard, index, format="simple")
    assert "was made with --max-line" in problem(shard, index, max_line="1MB")
    scanned = shard.stat()
    os.utime(shard, ns=(1, 1))
    assert f"is older than {shard}, which has changed" in problem(shard, index)
    shard.write_bytes(line(good()) * 2)
    os.utime(shard, ns=(scanned.st_atime_ns, scanned.st_mtime_ns))
    assert f"is older than {shard}, which has changed" in problem(shard, index)


def test_the_index_that_is_read_is_not_written(tmp_path):
    shard, index = tmp_path / "in.jsonl", tmp_path / "table.index"
    shard.write_bytes(line(good()))
    fastsft.index(shard, index)
    before = index.read_bytes()

    with pytest.raises(UsageError, match=r"table\.index is an input and would be overwritten"):
        fastsft.convert(shard, index, index=index)

    assert index.read_bytes() == before


def test_a_pipe_is_no_index_and_is_not_waited_for(tmp_path):
    shard, pipe = tmp_path / "in.jsonl", tmp_path / "fastsft.index.parquet"
    shard.write_bytes(line(good()))
    os.mkfifo(pipe)

    assert fastsft.convert(shard, tmp_path / "out/rows.jsonl", best_of=1).rows == 1
    with pytest.raises(UsageError, match="is no index of fastsft, and would be overwritten"):
        fastsft.index(shard, pipe)
    with pytest.raises(UsageError, match="is no index of fastsft"):
        fastsft.convert(shard, tmp_path / "out/rows.jsonl", index=pipe)


def test_a_plot_does_not_overwrite_an_input(tmp_path):
    (tmp_path / "in.svg").write_bytes(line(good()))

    told = command("stats", tmp_path / "in.svg", "--plot", tmp_path / "in.svg", ok=False)

    assert "in.svg is an input and would be overwritten" in told
    assert (tmp_path / "in.svg").read_bytes() == line(good())


def test_an_index_overwrites_nothing_but_an_index(tmp_path):
    shard = tmp_path / "in.jsonl"
    shard.write_bytes(line(good()))
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "rollouts").write_bytes(line(good()))
    with pytest.raises(UsageError, match="is an input and would be overwritten"):
        fastsft.index(tmp_path / "rollouts", tmp_path / "rollouts")
    with pytest.raises(UsageError, match=r"promises another kind of file; an index is one \.parquet file"):
        fastsft.index(shard, shard)
    with pytest.raises(UsageError, match="is no index of fastsft"):
        fastsft.index(shard, tmp_path / "notes.txt")
    fastsft.index(shard, tmp_path / "index.parquet")
    fastsft.index(shard, tmp_path / "index.parquet")
    assert sorted(os.listdir(tmp_path)) == ["in.jsonl", "index.parquet", "notes.txt", "rollouts"]


def test_a_shard_that_changes_between_the_passes_stops_the_run(tmp_path, monkeypatch):
    shard = tmp_path / "in.jsonl"
    shard.write_bytes(lines(good("a"), good("b")))
    fastsft.index(shard, tmp_path / "index.parquet")
    times = shard.stat()
    shard.write_bytes(shard.read_bytes().replace(b'"role"', b'"rule"').replace(b'{"type"', b'["type"'))
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(FailedRun, match="not the rollout that was scanned"):
        fastsft.convert(shard, tmp_path / "rows.jsonl", index=tmp_path / "index.parquet")
    assert not (tmp_path / "rows.jsonl").exists()


@pytest.mark.parametrize("pack", [bytes, partial(gzip.compress, compresslevel=0, mtime=0)])
def test_a_chosen_line_that_is_no_utf8_any_more_stops_the_run(tmp_path, pack):
    shard, index = tmp_path / "in.jsonl", tmp_path / "index.parquet"
    shard.write_bytes(pack(lines(good("aaaa"), good("bbbb"))))
    fastsft.index(shard, index)
    scanned = shard.stat()
    shard.write_bytes(pack(lines(good("aaaa"), good("bbbb")).replace(b"bbbb", b"b\xff\xffb")))
    os.utime(shard, ns=(scanned.st_atime_ns, scanned.st_mtime_ns))

    with pytest.raises(FailedRun, match=r"in\.jsonl is not what was scanned"):
        fastsft.convert(shard, tmp_path / "rows.jsonl", index=index)

    assert sorted(os.listdir(tmp_path)) == ["in.jsonl", "index.parquet"]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_what_lies_between_chosen_lines_may_be_no_utf8(tmp_path, pack):
    shard = tmp_path / "in.jsonl"
    shard.write_bytes(pack(line(good("a")) + b'{"a": "\xff"}\n' + line(good("b"))))

    report = fastsft.convert(shard, tmp_path / "rows.jsonl", **EVERYTHING)

    assert report.fates == Fates(lines=3, kept=2, refused={"bad_utf8": 1})
    assert answers(tmp_path / "rows.jsonl") == ["a", "b"]


# Looking first.


def test_stats_count_what_a_run_would_meet(mixed):
    found = fastsft.stats(mixed)

    assert found.rollouts + found.fates.all_refused + found.fates.blank == found.fates.lines == 400
    assert found.rewards.count + found.no_reward + sum(found.gated.values()) == found.rollouts
    assert sum(bar.count for bar in found.histogram) == found.rewards.count
    assert sum(agent.rewards.count for agent in found.agents) == found.rewards.count
    assert found.tasks.never + found.tasks.sometimes + found.tasks.always == found.tasks.count
    for edge, kept in found.kept.items():
        lines = [json.loads(one) for path in mixed for one in path.read_bytes().splitlines()]
        rewards = [one.get("reward") for one in lines if one.get("response")]
        assert 0 < kept <= sum(reward is not None and reward >= float(edge) for reward in rewards)


def test_stats_of_a_few_known_lines(tmp_path):
    values = [("p", 0.0), ("p", 1.0), ("q", 1.0), ("q", 1.0), ("r", 0.25), ("r", None)]
    shard = tmp_path / "in.jsonl"
    agent = {"agent_ref": {"name": "math"}}
    shard.write_bytes(
        lines(*(good(prompt=p, reward=r, **(agent if p == "p" else {})) for p, r in values), good(mask_sample=True))
        + b"{\n"
    )
    found = json.loads(fastsft.stats(shard).to_json())

    assert (found["rollouts"], found["gated"], found["no_reward"]) == (7, {"masked": 1}, 1)
    assert found["rewards"] == {
        "count": 5,
        "mean": 0.65,
        "min": 0.0,
        "max": 1.0,
        "quantiles": {"0.05": 0.0, "0.25": 0.25, "0.5": 1.0, "0.75": 1.0, "0.95": 1.0},
    }
    assert found["kept"] == {"0.5": 3, "0.85": 3, "0.9": 3, "0.95": 3, "1.0": 3}
    assert [(agent["name"], agent["rewards"]["count"]) for agent in found["agents"]] == [(None, 3), ("math", 2)]
    assert found["tasks"] == {**found["tasks"], "count": 3, "never": 1, "sometimes": 1, "always": 1}
    assert found["lengths"]["turns"]["quantiles"]["0.5"] == 2
    assert found["fates"]["refused"] == {"bad_json": 1}


def test_stats_take_for_one_task_what_choosing_does(tmp_path):
    """What a gate drops connects tasks all the same, here `A` by its prompt with `B` by its index."""
    where = {"agent_ref": {"name": "math"}}
    asked = [
        ("A", 1, 1.0, False),
        ("A", 1, 1.0, False),
        ("B", 2, 0.0, False),
        ("B", 2, 0.0, False),
        ("A", 2, 0.0, True),
    ]
    (tmp_path / "in.jsonl").write_bytes(
        lines(*(good(prompt=p, _ng_task_index=i, reward=r, mask_sample=m, **where) for p, i, r, m in asked))
    )

    tasks = fastsft.stats(tmp_path / "in.jsonl").tasks
    assert (tasks.count, tasks.never, tasks.sometimes, tasks.always, tasks.rollouts.max) == (1, 0, 1, 0, 4)
    assert fastsft.convert(tmp_path / "in.jsonl", tmp_path / "rows.jsonl", pass_rate=(0.4, 0.6)).fates.kept == 2


@pytest.mark.parametrize("more", [{}, {"dedup": True}, {"best_of": 9}, {"max_tokens": 99}])
@pytest.mark.parametrize(("where", "kept"), [("true", 2), ("1 = 1", 2), ("NULL IS NULL", 2), ("false", 0)])
def test_where_may_name_no_column(tmp_path, where, kept, more):
    (tmp_path / "in.jsonl").write_bytes(lines(good("a"), good("b"), good("c", reward=0)))
    report = fastsft.convert(tmp_path / "in.jsonl", tmp_path / "rows.jsonl", where=where, allow_empty=True, **more)
    assert report.fates.kept == kept


def test_what_has_no_reward_is_no_attempt_at_its_task(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines(good("a"), good("b", reward=None)))
    tasks = fastsft.stats(tmp_path / "in.jsonl").tasks
    assert (tasks.count, tasks.always, tasks.rollouts.max) == (1, 1, 1)
    assert fastsft.convert(tmp_path / "in.jsonl", tmp_path / "rows.jsonl", pass_rate=(1, 1)).fates.kept == 1


def test_nothing_that_is_read_is_written_over_on_the_way(tmp_path):
    for name, words in (("i.parquet", ["index"]), ("p.svg", ["stats"])):
        path = tmp_path / f"{name}.part"
        path.write_bytes(line(good()))
        command(*words, path, "--output" if words == ["index"] else "--plot", tmp_path / name)
        assert path.read_bytes() == line(good())


def test_stats_of_nothing(tmp_path):
    for data, problem in ((b"\n", "the input holds no rollout"), (b"[1]\n{\n", "every line was refused")):
        (tmp_path / "in.jsonl").write_bytes(data)
        for scan in (fastsft.stats, partial(fastsft.index, output=tmp_path / "i.parquet")):
            with pytest.raises(FailedRun, match=f"{problem}; nothing was written"):
                scan(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["in.jsonl"]
    (tmp_path / "in.jsonl").write_bytes(line(good(reward=None)))
    found = fastsft.stats(tmp_path)
    assert (found.rollouts, found.rewards.mean, found.histogram, found.tasks.count) == (1, None, [], 0)


def command(*words: Any, ok: bool = True) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "fastsft", *map(str, words)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode == 0) == ok, done.stderr
    return done.stdout if ok else done.stderr


def test_the_commands_print_and_draw(mixed, tmp_path):
    told = command("stats", *mixed, "--plot", tmp_path / "rewards.svg")
    assert max(map(len, told.splitlines())) <= 80
    assert "400 lines of 3 shards" in told
    assert (tmp_path / "rewards.svg").read_text().startswith("<?xml")
    assert json.loads(command("stats", *mixed, "--json"))["fates"]["lines"] == 400
    assert "Wrote their table" in command("index", *mixed, "--output", tmp_path / "i.parquet")
    told = command("convert", *mixed, "--output", tmp_path / "t.jsonl", "--val", tmp_path / "v.jsonl", "--best-of", 1)
    assert f"  rows     {tmp_path}/v.jsonl (" in told
    assert "a plot is a .png or .svg file" in command("stats", *mixed, "--plot", "x.pdf", ok=False)
    assert "a split is another path" in command("convert", *mixed, "--output", "x", "--split", "y", ok=False)


def test_show_tells_what_is_in_a_line_and_what_becomes_of_it(tmp_path):
    shard = tmp_path / "in.jsonl"
    asked = rollout(user("2+2?\x1b[31m"), call("add", a=2), said("4"), tools=[{"type": "function", "name": "add"}])
    shard.write_bytes(lines(asked, good(reward=0.5)) + b"\n{\n" + line(good(mask_sample=True)))
    told = command("show", shard, "-n", 9)

    assert "\x1b" not in told
    parts = told.split("─" * 72 + "\n")[1:]
    assert parts[0].splitlines() == [
        f"{shard}:1",
        "kept; reward 1",
        "tools: add",
        "",
        "[user]",
        "2+2?\\x1b[31m",
        "",
        "[assistant]",
        "4",
        '  calls add({"a":2})',
    ]
    assert [part.splitlines()[1] for part in parts[1:]] == [
        "dropped: below_threshold; reward 0.5",
        "blank",
        "refused: bad_json: not a JSON object: Input data was truncated",
        "dropped: masked; reward 1",
    ]
    fastsft.convert(shard, tmp_path / "rows.jsonl")
    assert "a row\ntools: add" in command("show", tmp_path / "rows.jsonl")
    assert "has no line 7" in command("show", shard, "--line", 7, ok=False)
    assert f"has no line {2**64}" in command("show", shard, "--line", 2**64, ok=False)
    assert command("show", shard, "-n", 2**64) == told
    assert list(itertools.islice(command("show", shard, "--line", 2, "-n", 1).splitlines(), 1, 2)) == [f"{shard}:2"]


# What a newcomer tripped over.


def test_rows_do_not_go_among_the_rollouts(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(line(good()))
    for output in (f"{tmp_path}/", str(tmp_path / "rows.jsonl")):
        with pytest.raises(UsageError, match="is an input folder, and rows in it would be taken for rollouts"):
            fastsft.convert(tmp_path, output)
    with pytest.raises(UsageError, match="is an input folder"):
        fastsft.convert(tmp_path, tmp_path / "out/rows.jsonl", splits={str(tmp_path / "val.jsonl"): 0.5})


@pytest.mark.parametrize(
    "settings", [{"best_of": "3"}, {"best_of": 1.5}, {"pass_rate": 0.5}, {"jobs": "2"}, {"reward_threshold": "0.9"}]
)
def test_a_setting_of_the_wrong_type_is_told(tmp_path, settings):
    (tmp_path / "in.jsonl").write_bytes(line(good()))
    with pytest.raises(UsageError, match="a setting has the wrong type: Expected"):
        fastsft.convert(tmp_path / "in.jsonl", tmp_path / "rows.jsonl", **settings)


def test_a_damaged_shard_is_told_by_stats_and_index_too(tmp_path):
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(line(good()) * 100)[:50])
    (tmp_path / "good.jsonl").write_bytes(line(good()))
    assert any("in.jsonl.gz is damaged" in note for note in fastsft.stats(tmp_path).notes)
    told = command("index", tmp_path, "--output", f"{tmp_path}/new/")
    assert "Skipped file: " in told
    assert f"Wrote their table: {tmp_path}/new/fastsft.index.parquet" in told


def test_what_cannot_be_printed_is_no_success(mixed):
    words = f"{sys.executable} -m fastsft stats {mixed[0]}"
    full = subprocess.run(["bash", "-c", f"{words} > /dev/full"], capture_output=True, text=True, timeout=60)
    assert (full.returncode, "cannot write to standard output: No space left" in full.stderr) == (1, True)
    enough = ["bash", "-c", f"{words} | head -c 9; exit ${{PIPESTATUS[0]}}"]
    assert subprocess.run(enough, capture_output=True, timeout=60).returncode == 0


# What a reviewer found.


@pytest.mark.parametrize("span_nbytes", [1, 150, 333, 2**24])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gz"])
def test_the_longest_line_is_the_same_wherever_a_chunk_ends(tmp_path, pack, span_nbytes):
    shard = tmp_path / "in.jsonl"
    longest = len(line(good("x" * 300))) - 1
    data = lines(*(good("x" * length) for length in (299, 300, 301, 300, 302, 299)))
    shard.write_bytes(pack(data))

    report = run([shard], tmp_path / "rows.jsonl", Options(max_line_nbytes=longest, span_nbytes=span_nbytes, jobs=1))

    assert (report.fates.kept, report.fates.refused) == (4, {"line_too_long": 2})
    told = [json.loads(entry)["problem"] for entry in (tmp_path / "rows.refused").read_bytes().splitlines()]
    assert [f"{longest + more:,} bytes" in problem for more, problem in zip((1, 2), told, strict=True)] == [True, True]


def test_an_index_is_of_its_own_path_and_says_where_shards_are_now(tmp_path, monkeypatch):
    for name in ("g[1]", "g1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "in.jsonl").write_bytes(line(good(name)))
        fastsft.index(tmp_path / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)

    report = fastsft.convert("g[1]", "rows.jsonl", best_of=1, where="shard = 'g[1]/in.jsonl'")

    assert answers(tmp_path / "rows.jsonl") == ["g[1]"]
    assert report.notes == ["g[1]/fastsft.index.parquet is used instead of a scan"]


def test_a_folder_whose_name_is_not_utf8_has_an_index_too(tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/nu\xff")
    os.mkdir(folder)
    Path(folder, "in.jsonl").write_bytes(line(good()))
    fastsft.index(folder, folder)
    report = fastsft.convert(folder, tmp_path / "rows.jsonl", best_of=1)
    assert (report.fates.kept, len(report.notes)) == (1, 1)


def test_an_index_of_which_any_byte_has_changed_is_told(tmp_path):
    shard, index = tmp_path / "in.jsonl", tmp_path / "index.parquet"
    shard.write_bytes(lines(*(good(str(n)) for n in range(99))) + b"{\n")
    fastsft.index(shard, index)
    data = index.read_bytes()

    def problem(changed: bytes) -> str:
        index.write_bytes(changed)
        with pytest.raises(UsageError) as told:
            fastsft.convert(shard, tmp_path / "rows.jsonl", index=index, best_of=1)
        return str(told.value)

    again = "rebuild it with: fastsft index INPUT... --output FILE"
    for position in range(0, len(data), 7):
        told = problem(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        in_its_head = (
            data.rindex(b'{"version"') <= position < data.rindex(b'","max_line_nbytes"') or position >= len(data) - 8
        )
        assert told == f"{index} is damaged; {again}" or (in_its_head and "fastsft" in told), position
    for position in (0, 1, 7, 8, 9, len(data) // 2, len(data) - 1):
        assert f"{index} is no index of fastsft; make one with" in problem(data[:position])
    assert problem(data[:200] + data) == f"{index} is damaged; {again}"


def test_a_damaged_index_beside_the_inputs_is_not_used(tmp_path):
    shard, beside = tmp_path / "in.jsonl", tmp_path / "fastsft.index.parquet"
    shard.write_bytes(lines(good("a"), good("b")))
    fastsft.index(tmp_path, tmp_path)
    data = beside.read_bytes()
    beside.write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])

    report = fastsft.convert(shard, tmp_path / "out/rows.jsonl", best_of=1)

    assert report.notes == [
        f"{beside} is damaged; rebuild it with: fastsft index INPUT... --output FILE; it is not used"
    ]
    assert answers(tmp_path / "out/rows.jsonl") == ["a"]


def test_text_of_lines_is_not_taken_for_what_an_index_says_of_itself(tmp_path):
    """The least and largest value of a column stand in the file's footer, as its head does."""
    head = '{"version":9,"fastsft":"9"'
    shard, index = tmp_path / "in.jsonl", tmp_path / "index.parquet"
    shard.write_bytes(lines({**good(), "agent_ref": {"name": head}}))
    fastsft.index(shard, index)

    assert index.read_bytes().count(head.encode()) > 0
    assert fastsft.convert(shard, tmp_path / "rows.jsonl", index=index, best_of=1).rows == 1


def test_a_task_is_the_same_whatever_the_escapes_of_calls_and_results(tmp_path):
    prompt = [user("?"), call("f", a="é"), {"type": "function_call_output", "call_id": "c", "output": "é"}]
    shard = tmp_path / "in.jsonl"
    value = rollout(prompt, said("4"))
    shard.write_bytes(line(value) + json.dumps(value).encode() + b"\n")
    assert fastsft.stats(shard).tasks.count == 1


def test_stats_of_rewards_at_the_ends_of_a_double(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(
        lines(good(reward=1e308), good(reward=-1e308), good(agent_ref={"name": "\x9b"}))
    )
    found = fastsft.stats(tmp_path)
    assert sum(bar.count for bar in found.histogram) == 3
    assert found.to_json().isascii()


def test_the_mean_of_rewards_whose_sum_is_beyond_a_double(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines(good(reward=1.7e308), good(reward=1.7e308), good("5", reward=0.0)))

    mean = json.loads(fastsft.stats(tmp_path).to_json(), parse_constant=pytest.fail)["rewards"]["mean"]
    assert mean == pytest.approx(1.7e308 / 3 * 2)
    told = command("stats", tmp_path, "--plot", tmp_path / "rewards.png")
    assert max(map(len, told.splitlines())) <= 80
    assert (tmp_path / "rewards.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "value",
    [
        {"messages": [{"role": "a", "tool_calls": 5}, 7, {"role": "a", "tool_calls": [{"function": 5}, 3]}]},
        {"messages": [], "tools": [1, {"function": "s"}, {"function": None, "type": "t"}]},
        good(responses_create_params={"input": "?", "tools": ["x", {"type": "function", "function": None}]}),
        {"input": 5, "output": None},
        [],
    ],
)
def test_show_takes_whatever_a_line_holds(tmp_path, value):
    (tmp_path / "in.jsonl").write_bytes(line(value) + b'{"tools": 1e999}\n')
    assert command("show", tmp_path / "in.jsonl").count("in.jsonl:") == 2


def test_a_run_that_fails_leaves_no_folder(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(b"{\n")
    with pytest.raises(FailedRun):
        fastsft.convert(tmp_path / "in.jsonl", tmp_path / "a/b/rows.jsonl")
    assert os.listdir(tmp_path) == ["in.jsonl"]


def test_too_many_different_rewards_are_cut_and_none_comes_over_a_threshold(tmp_path, monkeypatch):
    monkeypatch.setattr("fastsft.statistics.tally._MOST_VALUES", 10)
    rewards = [0.94996, 0.94999999, 0.95, 0.850001, 0.8499999, 1.0, *(number / 1e7 for number in range(30))]
    (tmp_path / "in.jsonl").write_bytes(lines(*(good(reward=reward) for reward in rewards)))
    found = fastsft.stats(tmp_path)
    assert found.kept == {"0.5": 6, "0.85": 5, "0.9": 4, "0.95": 2, "1.0": 1}
    assert found.rewards.quantiles["0.25"] == 0.0


@pytest.mark.parametrize("options", [{}, {"best_of": 9}, {"splits": {"val.jsonl": 0.4}}])
@pytest.mark.parametrize("jobs", [1, 2])
def test_rows_are_as_long_as_a_tokenizer_says(tmp_path, tokenizer, monkeypatch, options, jobs):
    monkeypatch.chdir(tmp_path)
    config = json.loads((tokenizer / "tokenizer_config.json").read_bytes())
    config["chat_template"] += "{% if messages | length > 2 %}{{ raise_exception('three') }}{% endif %}"
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(config))
    made = [rollout(user("a " * words), said("b")) for words in range(1, 9)]  # and the <s> in front
    made.append(rollout([system("c"), user("a")], said("b")))
    (tmp_path / "in.jsonl").write_bytes(lines(*made))

    report = fastsft.convert("in.jsonl", "rows.jsonl", max_tokens=6, template=tokenizer, jobs=jobs, **options)

    assert report.fates.kept == 4
    assert report.fates.dropped == {"too_long": 4}
    assert report.fates.refused == {"not_rendered": 1}


def test_a_tokenizer_is_asked_for_before_any_work(tmp_path, tokenizer):
    (tmp_path / "in.jsonl").write_bytes(lines(rollout(user("?"), said("4"))))
    fastsft.index(tmp_path / "in.jsonl", tmp_path / "in.parquet")
    for problem, options in [
        ("--template is for --max-tokens and --trainable", {"template": tokenizer}),
        ("has no chat template", {"template": tmp_path, "max_tokens": 5}),
        ("an index does not know what", {"template": tokenizer, "max_tokens": 5, "index": tmp_path / "in.parquet"}),
    ]:
        with pytest.raises(fastsft.UsageError, match=problem):
            fastsft.convert(tmp_path / "in.jsonl", tmp_path / "rows.jsonl", **options)
    (tokenizer / "tokenizer.json").unlink()
    with pytest.raises(fastsft.UsageError, match=r"has no tokenizer.json"):
        fastsft.check(tmp_path / "in.jsonl", template=tokenizer, max_tokens=5)


def test_an_index_of_another_version_is_reported_and_rebuilt_in_place(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines(good()))
    older = '{"version":1,"fastsft":"0.2.0"}'
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "i.parquet", metadata={"fastsft": older})

    with pytest.raises(UsageError, match=r"is an index of fastsft 0\.2\.0, which this one cannot read; rebuild it"):
        fastsft.convert(tmp_path / "in.jsonl", tmp_path / "rows.jsonl", index=tmp_path / "i.parquet")

    fastsft.index(tmp_path / "in.jsonl", tmp_path / "i.parquet")
    assert fastsft.convert(tmp_path / "in.jsonl", tmp_path / "rows.jsonl", index=tmp_path / "i.parquet").rows == 1


def test_an_index_of_other_choices_of_the_layout_does_not_fit(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines(good()))
    fastsft.index(tmp_path / "in.jsonl", tmp_path / "i.parquet", format="chat", reasoning="drop")
    options = {"format": "chat", "index": tmp_path / "i.parquet"}

    with pytest.raises(UsageError, match="is of chat rows, and this run makes others"):
        fastsft.convert(tmp_path / "in.jsonl", tmp_path / "rows.jsonl", **options)
    assert fastsft.convert(tmp_path / "in.jsonl", tmp_path / "rows.jsonl", reasoning="drop", **options).rows == 1


def test_a_folder_whose_name_is_a_pattern_holds_outputs_of_runs_that_compare_lines(tmp_path):
    folder = tmp_path / "runs[1]*"
    folder.mkdir()
    (folder / "in.jsonl").write_bytes(lines(good(), good("four")))

    report = fastsft.convert(folder / "in.jsonl", folder / "rows.jsonl", best_of=1)

    assert (report.fates.kept, report.fates.dropped) == (1, {"not_best": 1})
