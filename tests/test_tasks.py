"""Task rows: the tasks of a band of pass rates, from materialized inputs or from the rollouts themselves."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import Json, line, lines, rollout, said, user

import fastsft
from fastsft import FailedRun, UsageError
from fastsft.cli.settings import options_table
from fastsft.configs.nemo_gym import data_block_of
from fastsft.errors import Refused
from fastsft.formats.tasks import VERIFICATION, task_row
from fastsft.options import PANELS, declared
from fastsft.report import TaskCounts

AGENT = {"agent_ref": {"name": "math"}}
PAGE = (Path(__file__).parent.parent / "fastsft/docs/tasks.md").read_text()


def task(question: str, **more: Any) -> Json:
    return {"responses_create_params": {"input": [user(question)]}, **AGENT, **more}


def attempt(question: str, reward: Any, index: int | None = None, **more: Any) -> Json:
    numbered = {} if index is None else {"_ng_task_index": index, "_ng_rollout_index": 0}
    return {**rollout(user(question), said("!"), reward=reward), **AGENT, **more, **numbered}


def materialized(question: str, index: int, **more: Any) -> Json:
    return {**task(question, **more), "_ng_task_index": index, "_ng_rollout_index": 0}


def rows_in(path: Path) -> list[Json]:
    return [json.loads(one) for one in path.read_bytes().splitlines()]


def rows_of(folder: Path, *rollouts: Json, beside: list[Json] | None = None, **options: Any) -> list[Json]:
    (folder / "in.jsonl").write_bytes(lines(*rollouts))
    if beside is not None:
        (folder / "in_materialized_inputs.jsonl").write_bytes(lines(*beside))
    fastsft.tasks(folder / "in.jsonl", folder / "tasks.jsonl", **{"pass_rate": (0, 1), **options})
    return rows_in(folder / "tasks.jsonl")


# One row.


def test_a_rollout_loses_what_the_attempt_added_and_keeps_its_numbers_as_they_are_written():
    encoded = (
        b'{"responses_create_params": {"input": "2+2?", "temperature": 1.0}, "level": 1.50, '
        b'"big": 12345678901234567890, "text": "\\u00e9 \\/", '
        b'"response": {"output": []}, "reward": 1, "output": [], "extracted_answer": "4",'
        b' "agent_ref": {"name": "a"}, "_ng_task_index": 3, "_ng_rollout_index": 0, "ng_model_call_capture": {}}'
    )

    assert task_row(encoded, is_rollout=True) == (
        b'{"responses_create_params":{"input":"2+2?","temperature":1.0},"level":1.50,"big":12345678901234567890,'
        b'"text":"\\u00e9 \\/","agent_ref":{"name":"a"}}',
        ("extracted_answer",),
        ("level", "big", "text"),
        "a",
        False,
    )


def test_of_materialized_inputs_only_the_numbering_goes():
    encoded = line(materialized("?", 4, output="as the verifier wants it", extracted_answer="5"))

    row = task_row(encoded, is_rollout=False)

    assert json.loads(row.body) == task("?", output="as the verifier wants it", extracted_answer="5")


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"[]", "not_object"),
        (b"{", "bad_json"),
        (b'{"responses_create_params": "?"}', "no_prompt"),
        (b'{"responses_create_params": {}, "n": 1e999}', "bad_number"),
        (b'{"responses_create_params": {}, "n": ' + b"[" * 70 + b"]" * 70 + b"}", "too_deep"),
        (b'{"responses_create_params": {}, "n": ' + b"[" * 5000 + b"]" * 5000 + b"}", "too_deep"),
    ],
)
def test_what_no_strict_reader_takes_is_no_task_row(encoded, reason):
    with pytest.raises(Refused) as caught:
        task_row(encoded, is_rollout=True)
    assert caught.value.reason == reason


def test_what_is_left_out_may_be_what_no_reader_takes():
    encoded = b'{"responses_create_params": {}, "reward": 0, "response": ' + b"[" * 5000 + b"]" * 5000 + b"}"

    assert task_row(encoded, is_rollout=True).body == b'{"responses_create_params":{}}'


def test_of_a_repeated_key_the_last_value_counts_once():
    encoded = b'{"responses_create_params": {"input": "a", "input": "b"}, "x": 1, "x": 2}'

    assert task_row(encoded, is_rollout=True).body == b'{"responses_create_params":{"input":"b"},"x":2}'


@pytest.mark.parametrize(
    ("metadata", "has_seed"),
    [
        ({"extra_body": '{"seed": 3}'}, True),
        ({"extra_body": '{"top_k": 3}'}, False),
        ({"extra_body": "{"}, False),
        ({"extra_body": 5}, False),
        ({"seed": 3}, False),
        (None, False),
    ],
)
def test_a_seed_of_all_attempts_is_found(metadata, has_seed):
    value = {"responses_create_params": {"input": "extra_body", "metadata": metadata}}

    assert task_row(line(value), is_rollout=True).has_seed is has_seed


def test_no_name_is_dropped_that_a_task_is_known_to_have():
    # Of NeMo Gym's own data, 07d6b0d: what tasks have that an environment also echoes.
    echoed = (
        "expected_answer expected_output ground_truth question answer metadata info verifier_metadata id task_id label"
    )

    assert set(echoed.split()) & VERIFICATION == set()


# Which tasks.


def test_one_row_of_each_task_of_the_band_in_input_order(tmp_path):
    found = rows_of(
        tmp_path,
        *(attempt("always", 1.0) for _ in range(4)),
        *(attempt("half", reward, seed=number) for number, reward in enumerate((1.0, 0.0, 0.95, 0.94))),
        *(attempt("never", 0.0) for _ in range(2)),
        *(attempt("third", reward) for reward in (0.0, 1.0, 0.0)),
        pass_rate="0.3:0.5",
    )

    assert found == [task("half", seed=0), task("third")]


def test_the_threshold_says_what_is_solved_and_drops_nothing_itself(tmp_path):
    assert rows_of(tmp_path, attempt("?", 0.4), attempt("?", 0.2), pass_rate=(0.5, 0.5), reward_threshold=0.3) == [
        task("?")
    ]


def test_every_line_has_its_fate(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(
        lines(
            attempt("a", 1.0),
            attempt("a", 0.0),
            attempt("a", 0.0, mask_sample=True),
            attempt("b", 1.0),
            attempt("c", None),
            attempt("d", 0.0, where="out"),
            attempt("d", 1.0),
        )
        + b"{\n\n"
        + b'{"responses_create_params": {"input": "e"}, "output": [], "reward": 0, "n": 1e999}\n'
        + line({**attempt("e", 1.0), "responses_create_params": {"input": "e"}})
    )  # fmt: skip

    report = fastsft.tasks(tmp_path / "in.jsonl", tmp_path / "tasks.jsonl", pass_rate=(0.1, 0.9), where="line <> 6")

    assert counted(report) == (
        10, 3, 1,
        {"masked": 1, "no_reward": 1, "pass_rate": 1, "same_task": 1, "where": 1},
        {"bad_json": 1, "bad_number": 1},
    )  # fmt: skip
    assert [row["responses_create_params"]["input"] for row in rows_in(tmp_path / "tasks.jsonl")] == [
        [user("a")], [user("d")], "e",
    ]  # fmt: skip
    refused = rows_in(tmp_path / "tasks.refused")
    assert [(one["line"], one["reason"]) for one in refused] == [(8, "bad_json"), (10, "bad_number")]


def counted(report: fastsft.Report) -> tuple[Any, ...]:
    fates = report.fates
    return fates.lines - 1, fates.kept, fates.blank, fates.dropped, fates.refused


def test_the_bytes_are_the_same_whatever_jobs_and_spans(tmp_path):
    rollouts = [attempt(f"task {n % 40}", n % 3 / 2, n % 40) for n in range(400)]
    beside = [materialized(f"task {n % 40}", n % 40, level=n) for n in range(30, 120)]
    for name, some in (("a", rollouts[:250]), ("b", rollouts[250:])):
        (tmp_path / f"{name}.jsonl").write_bytes(lines(*some))
    (tmp_path / "a_materialized_inputs.jsonl").write_bytes(lines(*beside))
    written = set()
    for number, (jobs, span) in enumerate([(1, None), (2, 3000), (1, 900)]):
        output = tmp_path / f"{number}.out/tasks.jsonl"
        fastsft.api.writing._run(
            [tmp_path / "a.jsonl", tmp_path / "b.jsonl"], output,
            fastsft.Options(makes="tasks", pass_rate=(0.2, 0.8), jobs=jobs, span_nbytes=span), None, None, None,
        )  # fmt: skip
        written.add(output.read_bytes())

    (found,) = written
    assert [json.loads(row)["level"] for row in found.splitlines()] == [n if n >= 30 else n + 40 for n in range(40)]


# Where rows come from.


def test_a_row_is_the_first_line_with_its_index_beside_the_rollouts(tmp_path):
    report_rows = rows_of(
        tmp_path,
        attempt("b", 1.0, 1, extracted_answer="4"),
        attempt("a", 0.0, 0),
        attempt("other", 0.0, 2),
        attempt("unnumbered", 0.0),
        beside=[
            materialized("a", 0, expected_answer="1.50"),
            materialized("b", 1, expected_answer="2"),
            materialized("b", 1, expected_answer="of another attempt"),
        ],
    )

    assert report_rows == [
        task("b", expected_answer="2"),
        task("a", expected_answer="1.50"),
        task("other"),
        task("unnumbered"),
    ]
    report = json.loads((tmp_path / "tasks.report.json").read_bytes())
    assert report["tasks"] == {
        "materialized": 2, "rollouts": 2, "unmatched": 2, "differing": 0, "agentless": 0, "seeded": 0,
        "dropped": {}, "kept": {},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("suffix", "beside"), [(".jsonl.gz", ".jsonl.gz"), (".jsonl.gz", ".jsonl"), (".jsonl", ".jsonl.gz")]
)
def test_either_may_be_compressed(tmp_path, suffix, beside):
    for name, value in (
        (f"in{suffix}", attempt("a", 1.0, 0)),
        (f"in_materialized_inputs{beside}", materialized("a", 0, n=1)),
    ):
        data = line(value)
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)

    fastsft.tasks(tmp_path / f"in{suffix}", tmp_path / "tasks.jsonl", pass_rate=(0, 1))

    assert rows_in(tmp_path / "tasks.jsonl") == [task("a", n=1)]


def test_lines_that_are_no_task_rows_stand_for_nothing(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines(attempt("a", 1.0, 0), attempt("b", 1.0, 1)))
    torn = (
        b'{"_ng_task_index": 0}\n\xff{}\n\n{"_ng_task_index": "0"}\n' + line(materialized("a", 0, n=1)) + b'{"respons'
    )
    (tmp_path / "in_materialized_inputs.jsonl").write_bytes(torn)

    report = fastsft.tasks(tmp_path / "in.jsonl", tmp_path / "tasks.jsonl", pass_rate=(0, 1))

    assert rows_in(tmp_path / "tasks.jsonl") == [task("a", n=1), task("b")]
    assert (report.tasks.materialized, report.tasks.rollouts, report.tasks.unmatched) == (1, 1, 1)


def test_inputs_of_other_tasks_alone_are_as_good_as_none(tmp_path):
    assert rows_of(tmp_path, attempt("a", 1.0, 7), attempt("b", 1.0), beside=[materialized("c", 0)]) == [
        task("a"), task("b"),
    ]  # fmt: skip


def test_damaged_materialized_inputs_are_told_and_the_rollouts_stand_for_them(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines(attempt("a", 1.0, 0)))
    (tmp_path / "in_materialized_inputs.jsonl.gz").write_bytes(gzip.compress(line(materialized("a", 0)))[:-9])

    report = fastsft.tasks(tmp_path / "in.jsonl", tmp_path / "tasks.jsonl", pass_rate=(0, 1))

    assert rows_in(tmp_path / "tasks.jsonl") == [task("a")]
    assert next(note for note in report.notes if "is damaged" in note).endswith("; the rollouts stand for its tasks")


def test_an_index_means_nothing_in_another_file(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_bytes(lines(attempt(name, 1.0, 0)))
        (tmp_path / f"{name}_materialized_inputs.jsonl").write_bytes(lines(materialized(name, 0, of=name)))

    report = fastsft.tasks(tmp_path, tmp_path / "out/tasks.jsonl", pass_rate=(0, 1))

    assert rows_in(tmp_path / "out/tasks.jsonl") == [task("a", of="a"), task("b", of="b")]
    assert report.tasks == TaskCounts(materialized=2)


def test_of_one_index_the_line_of_the_same_agent_counts(tmp_path):
    def of(name: str | None, value: Json) -> Json:
        return {**{key: inner for key, inner in value.items() if key != "agent_ref"}, **agent(name)}

    def agent(name: str | None) -> Json:
        return {"agent_ref": {"name": name}} if name else {}

    found = rows_of(
        tmp_path,
        *(of(name, attempt(f"of {name}", 1.0, 0)) for name in ("b", "a", "c", None)),
        of("d", attempt("of d", 1.0, 1)),
        beside=[
            *(of(name, materialized(f"of {name}", 0, n=1)) for name in ("a", "b")),
            of(None, materialized("of d", 1, n=1)),
        ],
    )

    assert [(row["responses_create_params"]["input"][0]["content"], row.get("n")) for row in found] == [
        ("of b", 1), ("of a", 1), ("of c", None), ("of a", 1), ("of d", 1),
    ]  # fmt: skip


# What is said aloud.


def test_what_a_person_should_know_is_in_the_notes(tmp_path):
    seed = {"metadata": {"extra_body": '{"seed": 0}'}}
    (tmp_path / "in.jsonl").write_bytes(
        lines(
            attempt("echo", 1.0, expected_answer="4", is_correct=True),
            {**rollout(user("no agent"), said("!"), **seed), "is_correct": True},
            attempt("other prompt", 1.0, 0),
            attempt("game", 1.0, 1, agent_ref={"name": "game"}),
        )
    )
    observed = {**materialized("game", 1), "agent_ref": {"name": "game"}}
    (tmp_path / "in_materialized_inputs.jsonl").write_bytes(lines(materialized("stale", 0), observed))

    report = fastsft.tasks(tmp_path / "in.jsonl", tmp_path / "tasks.jsonl", pass_rate=(0, 1))

    assert report.tasks == TaskCounts(
        materialized=2, rollouts=2, unmatched=2, differing=1, agentless=1, seeded=1,
        dropped={"is_correct": 2}, kept={"expected_answer": 1},
    )  # fmt: skip
    assert report.notes == [
        "task rows from *_materialized_inputs.jsonl beside the rollouts: 2",
        "task rows rebuilt from rollouts: 2, as no *_materialized_inputs.jsonl beside them has their index, 2 of them "
        "beside one; check that all fields are there that the verifier reads",
        "kept, though verification may have added them: expected_answer",
        "materialized inputs with another prompt than their rollout's: 1; check that both are of the same run",
        "NeMo RL stops at task rows without agent_ref.name; add it to 1",
        "task rows that fix a seed: 1, in metadata.extra_body (num_repeats_add_seed), with which all attempts at a "
        "task sample the same: take it out before GRPO",
    ]


def test_a_game_s_first_sight_is_no_other_prompt(tmp_path):
    value = attempt("rules", 1.0, 0)
    value["responses_create_params"]["input"].append(user("what you see"))

    assert rows_of(tmp_path, value, beside=[materialized("rules", 0)]) == [task("rules")]
    assert json.loads((tmp_path / "tasks.report.json").read_bytes())["tasks"]["differing"] == 0


# Runs.


def test_wrong_words_are_told_and_nothing_is_written(tmp_path):
    shard, beside = tmp_path / "in.jsonl", tmp_path / "in_materialized_inputs.jsonl"
    shard.write_bytes(lines(attempt("?", 1.0)))
    beside.write_bytes(lines(materialized("?", 0)))
    for output, options, problem in [
        ("tasks.jsonl", {"pass_rate": "0.9:0.1"}, "a pass rate lies between two shares"),
        ("tasks.jsonl.gz", {"pass_rate": "0:1"}, "NeMo RL reads task rows from plain files"),
        (beside.name, {"pass_rate": "0:1"}, "is an input and would be overwritten"),
    ]:
        with pytest.raises(UsageError, match=problem):
            fastsft.tasks(shard, tmp_path / output, **options)
    with pytest.raises(
        FailedRun, match="nothing was kept, and nothing was published: 1 rollout is dropped as pass_rate"
    ):
        fastsft.tasks(shard, tmp_path / "tasks.jsonl", pass_rate=(0, 0.5))
    assert sorted(os.listdir(tmp_path)) == [shard.name, beside.name]


def test_a_run_that_died_goes_on_but_not_with_other_materialized_inputs(tmp_path, monkeypatch):
    shard, beside = tmp_path / "in.jsonl", tmp_path / "in_materialized_inputs.jsonl"
    shard.write_bytes(lines(*(attempt(f"{n}", 1.0, n) for n in range(9))))
    beside.write_bytes(lines(*(materialized(f"{n}", n, v=1) for n in range(9))))

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("fastsft.outputs.outputs.Outputs.assemble", stop)
        with pytest.raises(KeyboardInterrupt):
            fastsft.tasks(shard, tmp_path / "tasks.jsonl", pass_rate=(0, 1), jobs=1)
    beside.write_bytes(lines(*(materialized(f"{n}", n, v=22) for n in range(9))))

    fastsft.tasks(shard, tmp_path / "tasks.jsonl", pass_rate=(0, 1), jobs=1)

    assert [row["v"] for row in rows_in(tmp_path / "tasks.jsonl")] == [22] * 9


def test_splits_hold_whole_tasks_and_verify_reads_them(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines(*(attempt(f"{n // 2}", n % 2, n // 2) for n in range(80))))

    report = fastsft.tasks(
        tmp_path / "in.jsonl", tmp_path / "tasks.jsonl", pass_rate=(0.5, 0.5), splits={str(tmp_path / "val.jsonl"): 0.3}
    )

    asked = [[row["responses_create_params"]["input"][0]["content"] for row in rows_in(tmp_path / name)]
             for name in ("tasks.jsonl", "val.jsonl")]  # fmt: skip
    assert sorted(map(int, asked[0] + asked[1])) == list(range(40))
    assert [split.rows for split in report.splits] == [len(asked[0]), len(asked[1])]
    assert fastsft.verify(tmp_path / "tasks.jsonl").differences == []


def test_the_command_prints_the_block_that_nemo_rl_reads(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines(*(attempt(f"{n}", 1.0) for n in range(9))))
    words = "tasks in.jsonl --pass-rate 0:1 --output tasks.jsonl --val val.jsonl --val-fraction 30%".split()

    done = subprocess.run(
        [sys.executable, "-m", "fastsft", *words], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )

    assert (done.returncode, done.stderr) == (0, "")
    block = done.stdout.partition("NeMo RL reads them with this in its config:\n\n")[2]
    here = os.path.realpath(tmp_path)
    # As `examples/nemo_gym/grpo_workplace_assistant_nemotron_nano_v2_9b.yaml` of NeMo RL (7ea279a).
    assert yaml.safe_load(block) == {
        "data": {
            "max_input_seq_length": None,
            "shuffle": True,
            "num_workers": 0,
            "use_multiple_dataloader": False,
            "train": {"data_path": f"{here}/tasks.jsonl"},
            "validation": {"data_path": f"{here}/val.jsonl"},
            "default": {
                "dataset_name": "NemoGymDataset",
                "env_name": "nemo_gym",
                "prompt_file": None,
                "system_prompt_file": None,
                "processor": "nemo_gym_data_processor",
            },
        }
    }


def test_several_shards_are_several_blocks(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines(*(attempt(f"{n}", 1.0) for n in range(9))))

    report = fastsft.tasks(tmp_path / "in.jsonl", f"{tmp_path}/out/", pass_rate=(0, 1), shards=2)

    here = os.path.realpath(tmp_path)
    assert yaml.safe_load(data_block_of(report) or "")["data"]["train"] == [
        {"data_path": f"{here}/out/train-0000{number}-of-00002.jsonl"} for number in range(2)
    ]


def test_the_page_has_a_table_for_each_panel_of_help():
    for panel in {one.panel for one in declared().values() if "tasks" in one.commands}:
        assert f"\n### {PANELS[panel]}\n\n{options_table('tasks', panel=panel)}\n" in PAGE


def test_real_rollouts_have_task_rows(real_rollouts, tmp_path):
    report = fastsft.tasks(real_rollouts, tmp_path / "tasks.jsonl", pass_rate=(0, 1), allow="all")

    rows = rows_in(tmp_path / "tasks.jsonl")
    assert report.fates.kept == len(rows) == report.tasks.rollouts
    originals = {
        json.dumps(value["responses_create_params"], sort_keys=True)
        for path in real_rollouts
        for text in path.read_bytes().splitlines()
        if (value := _decoded(text)) is not None
    }
    assert {json.dumps(row["responses_create_params"], sort_keys=True) for row in rows} <= originals
    assert not {key for row in rows for key in row} & {"response", "reward", "_ng_task_index", "extracted_answer"}


def _decoded(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
