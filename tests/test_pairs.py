"""`fastsft pairs` from files to files: one fate for every line, and the same rows whoever does the work."""

from __future__ import annotations

import gzip
import json
import random
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import generate
import pytest
from builders import call, line, lines, returned, rollout, said, user

import fastsft
from fastsft import FailedRun, Report, UsageError
from fastsft.cli import app
from fastsft.formats.pairs import PAIR_FORMATS
from fastsft.outputs import staging
from fastsft.pipeline import drive

Json = dict[str, Any]


@pytest.fixture
def pairs(tmp_path: Path) -> Callable[..., tuple[Report, list[Json]]]:
    """Pair the lines of one shard; give the report and the rows."""

    def run(data: bytes, **options: Any) -> tuple[Report, list[Json]]:
        shard, output = tmp_path / "in.jsonl", tmp_path / "out" / "train.jsonl"
        shard.write_bytes(data)
        report = fastsft.pairs(shard, output, **options)
        return report, rows_in(output)

    return run


def rows_in(path: Path) -> list[Json]:
    return [json.loads(row) for row in path.read_bytes().splitlines()]


def attempt(text: str, reward: float | None, *, agent: str = "a", prompt: str = "2+2?", **more: Any) -> Json:
    return {**rollout(user(prompt), said(text), reward=reward), "agent_ref": {"name": agent}, **more}


def sides_in(rows: list[Json]) -> list[tuple[str, str]]:
    return [tuple(one["completion"][-1]["content"] for one in row["completions"]) for row in rows]


def test_the_best_and_the_worst_of_a_task_are_a_pair(pairs):
    report, rows = pairs(lines(attempt("5", 0.5), attempt("4", 1.0), attempt("?", 0.0), attempt("3", 0.9)))

    assert rows == [
        {
            "context": [{"role": "user", "content": "2+2?"}],
            "completions": [
                {"rank": 0, "completion": [{"role": "assistant", "content": "4"}]},
                {"rank": 1, "completion": [{"role": "assistant", "content": "?"}]},
            ],
        }
    ]
    assert (report.fates.kept, report.fates.dropped) == (2, {"per_task": 2})
    assert report.pairs is not None
    assert (report.pairs.pairs, report.pairs.chosen, report.pairs.rejected, report.pairs.both) == (1, 1, 1, 0)
    assert (report.pairs.chosen_length, report.pairs.rejected_length, report.pairs.turns) == (1.0, 1.0, {"1": 1})


def test_every_line_has_its_fate(pairs):
    data = lines(
        attempt("4", 1.0), attempt("5", 0.0), attempt("6", 0.3),
        attempt("other harness", 0.0, agent="b"),
        attempt("same", 1.0, prompt="A?"), attempt("same", 0.0, prompt="A?"),
        attempt("one", 1.0, prompt="B?"), attempt("two", 1.0, prompt="B?"),
        attempt("one", 1.0, prompt="C?"), attempt("two", 0.9, prompt="C?"),
        attempt("outage", 0.0, mask_sample=True),
        attempt("not scored", None),
        {**attempt("x", 0.0), "responses_create_params": 3},
    ) + b"\n{torn\n"  # fmt: skip

    report, rows = pairs(data)

    assert sides_in(rows) == [("4", "5")]
    fates = report.fates
    assert fates.dropped == {
        "gap": 2, "masked": 1, "no_partner": 1, "no_reward": 1, "per_task": 1, "same_content": 2, "tie": 2
    }  # fmt: skip
    assert (fates.lines, fates.kept, fates.blank, fates.all_refused) == (15, 2, 1, 2)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ([attempt("4", 1.0)], "no other rollout of the same task, agent, tools and context is there"),
        ([attempt("4", 1.0), attempt("4", 0.0)], "all that could be their partners say and do the same"),
        ([attempt("4", 1.0), attempt("5", 1.0)], "all that could be their partners have the same reward"),
        ([attempt("4", 1.0), attempt("5", 0.9)], "no partner's reward is far enough away"),
    ],
)
def test_a_run_without_pairs_says_why(pairs, data, why):
    with pytest.raises(FailedRun, match=why):
        pairs(lines(*data))


def test_a_gate_closes_for_both_sides_and_is_lifted_for_both(pairs):
    data = lines(attempt("4", 1.0), attempt("outage", 0.0, mask_sample=True))

    with pytest.raises(FailedRun, match=r"1 rollout is dropped as masked .* \(the others: no_partner 1\)"):
        pairs(data)
    assert sides_in(pairs(data, allow="masked")[1]) == [("4", "outage")]


def test_rollouts_with_other_tools_are_no_pair(pairs):
    tools = [[{"type": "function", "name": name}] for name in ("add", "sub")]
    data = [rollout(user("?"), said(str(n)), reward=n, tools=of) for n, of in enumerate([*tools, tools[1]])]
    data = [{**one, "_ng_task_index": 1} for one in data]  # one task

    report, rows = pairs(lines(*data))

    assert sides_in(rows) == [("2", "1")]
    assert report.fates.dropped == {"no_partner": 1}
    assert report.left_out == {"tools": 1}


def test_rollouts_whose_prompts_differ_are_no_pair_though_of_one_task(pairs):
    data = [attempt(str(n), n, prompt=f"Today is {n // 2}.", _ng_task_index=1) for n in range(4)]

    _, rows = pairs(lines(*data), pairs_per_task=9)

    assert sorted(sides_in(rows)) == [("1", "0"), ("3", "2")]


def test_the_first_difference_has_what_is_the_same_before_it(pairs):
    begin = [call("add", a=2), returned("4")]
    data = lines(
        rollout(user("?"), *begin, said("4"), reward=1.0),
        rollout(user("?"), *begin, said("5"), reward=0.0),
    )

    report, rows = pairs(data)

    assert [turn["role"] for turn in rows[0]["context"]] == ["user", "assistant", "tool"]
    assert sides_in(rows) == [("4", "5")]
    assert report.pairs.turns == {"2": 1}


def test_where_the_environment_answers_otherwise_there_is_no_pair(pairs):
    data = [rollout(user("?"), call("add"), returned(text), said(text), reward=int(text)) for text in "10"]

    with pytest.raises(FailedRun, match="same_content"):
        pairs(lines(*data))
    assert len(pairs(lines(*data), format="trl", turn="whole")[1]) == 1


def test_only_drops_what_has_several_turns(pairs):
    data = lines(
        attempt("4", 1.0), attempt("5", 0.0),
        rollout(user("2+2?"), call("add"), returned("4"), said("4"), reward=1.0),
    )  # fmt: skip

    report, rows = pairs(data, turn="only", pairs_per_task=9)

    assert (sides_in(rows), report.fates.dropped) == ([("4", "5")], {"multi_turn": 1})


OPTIONS = [
    ({"min_gap": 0.3}, [("1.0", "0.0")]),
    ({"min_gap": 1.01}, None),
    ({"choose": "best-worst", "pairs_per_task": 2}, [("1.0", "0.0"), ("0.9", "0.3")]),
    ({"choose": "sigma"}, [("1.0", "0.0")]),
    ({"choose": "all"}, 13),
    ({"choose": "all", "pairs_per_task": 1}, [("1.0", "0.0")]),
    ({"choose": "all", "uses": 1}, [("1.0", "0.0"), ("0.9", "0.3"), ("0.8", "0.5")]),
    ({"choose": "threshold", "reward_threshold": 0.95}, 1),
    ({"reward_threshold": 1.1}, None),
    ({"max_rejected": -0.1}, None),
    ({"choose": "all", "max_rejected": 0.1, "reward_threshold": 0.85}, [("0.9", "0.0"), ("1.0", "0.0")]),
    ({"pairs_per_task": 3, "uses": 3}, [("1.0", "0.0"), ("1.0", "0.3"), ("1.0", "0.5")]),
    ({"where": "reward < 0.95"}, [("0.9", "0.0")]),
]


@pytest.mark.parametrize(("options", "expected"), OPTIONS)
def test_options_choose(pairs, options, expected):
    data = lines(*(attempt(str(reward), reward) for reward in (0.0, 0.3, 0.5, 0.8, 0.9, 1.0)))

    if expected is None:
        with pytest.raises(FailedRun, match="6 rollouts are dropped as gap"):
            pairs(data, **options)
        return
    _, rows = pairs(data, **options)
    assert (len(rows) if isinstance(expected, int) else sorted(sides_in(rows))) == (
        expected if isinstance(expected, int) else sorted(expected)
    )


def test_rewards_that_differ_by_the_gap_as_it_is_written_are_a_pair(pairs):
    assert 1.0 - 0.8 < 0.2
    assert sides_in(pairs(lines(attempt("a", 1.0), attempt("b", 0.8)))[1]) == [("a", "b")]


def test_sides_of_unlike_length_are_no_pair_if_asked(pairs):
    data = lines(attempt("4" * 30, 1.0), attempt("5", 0.0), attempt("6" * 20, 0.1))

    report, rows = pairs(data, length_ratio="0.5:2")

    assert [list(map(len, sides)) for sides in sides_in(rows)] == [[30, 20]]
    assert report.fates.dropped == {"length": 1}


def test_the_guides_words_work_and_stratified_says_why_it_does_not(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("rollouts.jsonl").write_bytes(lines(attempt("4", 1.0), attempt("5", 0.0)))
    words = "pairs --input rollouts.jsonl --output dpo.jsonl --min_gap 0.2 --high_threshold 0.7 --low_threshold 0.4"

    monkeypatch.setattr(sys, "argv", ["fastsft", *words.split(), "--strategy", "same_prompt"])
    assert app.run() == 0
    assert sides_in(rows_in(Path("dpo.jsonl"))) == [("4", "5")]
    printed = capsys.readouterr().out
    assert "mean length in characters: 1 chosen, 1 rejected" in printed
    assert "--high_threshold and --low_threshold change nothing" in " ".join(printed.split())

    monkeypatch.setattr(sys, "argv", ["fastsft", *words.split(), "--strategy", "stratified"])
    with pytest.raises(UsageError, match="pairs answers to different prompts"):
        app.run()


# The rules of the guide's script, restated: rollouts by their last user message, the best and the worst by reward.


def guides_rows(values: list[Json], min_gap: float) -> list[Json]:
    by_prompt: dict[str, list[Json]] = defaultdict(list)
    for value in values:
        asked = [item for item in value["responses_create_params"]["input"] if item.get("role") == "user"]
        by_prompt[asked[-1]["content"] if asked else ""].append(value)
    rows = []
    for prompt, several in by_prompt.items():
        ranked = sorted(several, key=lambda value: -value.get("reward", 0.0))
        best, worst = ranked[0], ranked[-1]
        gap = best.get("reward", 0.0) - worst.get("reward", 0.0)
        if len(several) > 1 and gap >= min_gap:
            texts = [
                [item for item in one["response"]["output"] if item["type"] == "message"][-1]["content"][0]["text"]
                for one in (best, worst)
            ]
            rewards = {"chosen_reward": best["reward"], "rejected_reward": worst["reward"]}
            rows.append({"prompt": prompt, "chosen": texts[0], "rejected": texts[1], "reward_gap": gap, **rewards})
    return rows


@pytest.mark.parametrize("seed", range(5))
def test_where_the_guides_pairs_are_right_ours_are_the_same(pairs, seed):
    chance = random.Random(seed)
    values = [
        attempt(f"{task} {number}", reward / 1000, prompt=f"Task {task}?")
        for task in range(30)
        for number, reward in enumerate(chance.sample(range(1000), 4))
    ]
    chance.shuffle(values)

    _, rows = pairs(b"".join(map(line, values)), format="binary", choose="best-worst")

    ours, theirs = (sorted(several, key=lambda row: row["prompt"]) for several in (rows, guides_rows(values, 0.2)))
    assert len(theirs) > 20
    assert ours == theirs


# Whoever does the work.

PLANS: dict[str, dict[str, Any]] = {
    "nemo-rl": {},
    "trl": {"format": "trl", "turn": "whole", "choose": "all", "uses": 2},
    "kto": {"format": "kto", "turn": "whole", "balance": True},
    "shards": {"shard_size": 50_000, "compress": "gz"},
    "splits": {"splits": {"val/": 0.3}},
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> list[Path]:
    """Rollouts of 40 tasks: those of a task stand in different files, one of which is compressed."""
    folder = tmp_path_factory.mktemp("in")
    source = generate.lines("attempts", seed=5)
    rollouts = [next(source) for _ in range(320)]
    paths = []
    for number in range(3):
        data = b"{torn\n" + b"".join(rollouts[number::3])
        path = folder / (f"{number}.jsonl" + (".gz" if number == 1 else ""))
        path.write_bytes(gzip.compress(data, mtime=0) if number == 1 else data)
        paths.append(path)
    return paths


def files_in(folder: Path) -> dict[str, bytes]:
    """What a run left: names and bytes; of reports, all but what the clock and an interruption change."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name in found:
        if name.endswith(".report.json"):
            report = json.loads(found[name])
            report.pop("run", None)
            del report["seconds"], report["notes"]
            found[name] = json.dumps(report).encode()
    return found


def make(shards: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch, plan: str, **more: Any) -> Report:
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    output = "out/" if plan in ("shards", "splits") else "out.jsonl"
    return fastsft.pairs(shards, output, **{**PLANS[plan], **more})


@pytest.mark.parametrize("plan", PLANS)
def test_the_bytes_do_not_depend_on_jobs_spans_or_partitions(shards, tmp_path, monkeypatch, plan):
    report = make(shards, tmp_path / "one", monkeypatch, plan, jobs=1)
    make(shards, tmp_path / "two", monkeypatch, plan, jobs=2)
    monkeypatch.setattr("fastsft.pipeline.choosing_in_parts._MOST_LINES_IN_MEMORY", 1)
    monkeypatch.setattr("fastsft.pipeline.choosing_in_parts._LINES_AT_ONCE", 60)
    make(shards, tmp_path / "apart", monkeypatch, plan, jobs=1)

    expected = files_in(tmp_path / "one")
    assert expected == files_in(tmp_path / "two") == files_in(tmp_path / "apart")
    assert report.pairs is not None
    assert report.pairs.pairs > 30
    rows = sum(split.rows for split in report.splits) if report.splits else report.rows
    assert rows == report.pairs.pairs
    fates = report.fates
    assert fates.kept == report.pairs.chosen + report.pairs.rejected + report.pairs.both
    assert fates.lines == 323 == fates.kept + fates.all_dropped + fates.all_refused + fates.blank
    assert [shard.fates.lines for shard in report.inputs] == [108, 108, 107]
    for shard in report.inputs:
        shard.fates.check(shard.path)
    assert fastsft.verify(tmp_path / "one" / ("out" if plan in ("shards", "splits") else "out.jsonl")).differences == []


@pytest.mark.parametrize("plan", ["nemo-rl", "trl"])
def test_pairs_are_the_same_in_any_order_of_files(shards, tmp_path, monkeypatch, plan):
    make(shards, tmp_path / "one", monkeypatch, plan)
    make(shards[::-1], tmp_path / "other", monkeypatch, plan)

    rows, others = (sorted((tmp_path / name / "out.jsonl").read_bytes().splitlines()) for name in ("one", "other"))
    assert rows == others


class Killed(BaseException):
    """As if the process were killed: nothing is put away."""


@pytest.mark.parametrize("plan", PLANS)
def test_a_run_that_was_killed_at_any_receipt_goes_on(shards, tmp_path, monkeypatch, plan):
    monkeypatch.setattr(drive, "_writes_straight", lambda *_: False)
    spans = {"jobs": 1}
    monkeypatch.setattr("fastsft.inputs.shards._LEAST_SPAN_NBYTES", 500_000)
    make(shards, tmp_path / "golden", monkeypatch, plan, **spans)
    expected = files_in(tmp_path / "golden")
    write = staging.write_receipt
    kills = 0
    for stop in range(1, 40, 3):
        written: list[Any] = []

        def interrupted(*receipt: Any, stop: int = stop, written: list[Any] = written) -> Any:
            written.append(write(*receipt))
            if len(written) == stop:
                raise Killed
            return written[-1]

        folder = tmp_path / str(stop)
        with monkeypatch.context() as patch:
            patch.setattr("fastsft.pipeline.staged.write_receipt", interrupted)
            try:
                make(shards, folder, monkeypatch, plan, **spans)
            except Killed:
                kills += 1
            else:
                break
        report = make(shards, folder, monkeypatch, plan, **spans)
        assert any(note.startswith("goes on from an interrupted run") for note in report.notes)
        assert files_in(folder) == expected
    assert kills > 2


@pytest.mark.parametrize("plan", PLANS)
def test_parts_publish_what_one_run_does(shards, tmp_path, monkeypatch, plan):
    make(shards, tmp_path / "whole", monkeypatch, plan, jobs=1)

    for _ in range(2):
        for number in (2, 3, 1):
            report = make(shards, tmp_path / "parts", monkeypatch, plan, jobs=1, part=(number, 3))

    assert report.part == ""
    assert files_in(tmp_path / "parts") == files_in(tmp_path / "whole")


@pytest.mark.parametrize("plan", PLANS)
def test_an_index_gives_the_same_pairs(shards, tmp_path, monkeypatch, plan):
    make(shards, tmp_path / "scanned", monkeypatch, plan)
    fastsft.index(shards, tmp_path / "i.index", pairs=True, format="chat")

    make(shards, tmp_path / "indexed", monkeypatch, plan, index=tmp_path / "i.index")

    assert files_in(tmp_path / "indexed") == files_in(tmp_path / "scanned")


def test_an_index_that_does_not_know_turns_is_not_taken(shards, tmp_path):
    fastsft.index(shards, tmp_path / "plain.index", format="chat")
    fastsft.index(shards, tmp_path / "pairs.index", format="chat", pairs=True)

    with pytest.raises(UsageError, match=r"rebuild it with: .* --format chat --pairs --reasoning field"):
        fastsft.pairs(shards, tmp_path / "out.jsonl", index=tmp_path / "plain.index")
    with pytest.raises(UsageError, match="--reasoning drop"):
        fastsft.pairs(shards, tmp_path / "out.jsonl", index=tmp_path / "pairs.index", reasoning="drop")
    with pytest.raises(UsageError, match="does not know what has no place in binary rows"):
        fastsft.pairs(shards, tmp_path / "out.jsonl", index=tmp_path / "pairs.index", format="binary")
    with pytest.raises(UsageError, match="add --format chat"):
        fastsft.index(shards, tmp_path / "i.index", pairs=True)


def test_splits_are_by_task(shards, tmp_path, monkeypatch):
    report = make(shards, tmp_path / "out", monkeypatch, "splits", pairs_per_task=3)

    asked = [
        {row["context"][0]["content"] for path in (tmp_path / "out" / name).glob("*.jsonl") for row in rows_in(path)}
        for name in ("out", "val")
    ]
    assert min(map(len, asked)) > 5
    assert not asked[0] & asked[1]
    assert [split.tasks for split in report.splits] == list(map(len, asked))


@pytest.mark.parametrize("wrong", [{"format": "nemo-rl", "tools": "list"}, {"format": "openai", "reasoning": "field"}])
def test_what_a_format_has_no_choice_of_is_refused(shards, tmp_path, wrong):
    with pytest.raises(UsageError, match="belongs to the format"):
        fastsft.pairs(shards, tmp_path / "out.jsonl", **wrong)


def test_a_line_that_is_not_what_was_scanned_stops_the_run(shards, tmp_path):
    copies = [tmp_path / path.name for path in shards]
    for copy, path in zip(copies, shards, strict=True):
        copy.write_bytes(path.read_bytes())
    fastsft.index(copies, tmp_path / "i.index", pairs=True, format="chat")
    copies[0].write_bytes(copies[0].read_bytes() + b"\n")

    with pytest.raises(UsageError, match="which has changed"):
        fastsft.pairs(copies, tmp_path / "out.jsonl", index=tmp_path / "i.index")


# Real rollouts.

PAIRS = {
    ("resources_servers__newton_bench__example_rollouts.jsonl", 1, 3, 1.0, 0.108725),
    ("resources_servers__structeval__example_rollouts.jsonl", 5, 5, 0.63, 0.0),
}


def test_the_pairs_of_the_real_rollouts(real_rollouts, tmp_path):
    """Nine tasks have a gap of 0.2. In five of them it is between harnesses, which are no pair; in two nobody asks."""
    report = fastsft.pairs(real_rollouts, tmp_path / "out.jsonl", format="trl")

    rows = rows_in(tmp_path / "out.jsonl")
    assert len(rows) == 2
    assert report.fates.lines == 330
    assert report.fates.kept == 4
    assert report.fates.dropped["no_partner"] > 200
    assert report.pairs is not None
    assert report.pairs.turns == {"1": 2}
    found = {}
    for path in real_rollouts:
        for number, text in enumerate(path.read_bytes().splitlines(), 1):
            if b"m0_gravity" in text or b"Mango Avocado" in text:
                found[path.name, number] = text
    names = {name for name, _ in found}
    assert {pair[0] for pair in PAIRS} <= names
    said = [[row["prompt"][-1]["content"], row["chosen"], row["rejected"]] for row in rows]
    assert "m0_gravity" in said[0][0]
    assert said[0][1][0]["tool_calls"][0]["function"]["name"] == "run_experiment_m0_gravity"
    assert "Mango Avocado Salsa" in said[1][1][0]["content"]
    assert "Mango Avocado Salad" in said[1][2][0]["content"]


@pytest.mark.parametrize("format", PAIR_FORMATS)
def test_the_real_rollouts_have_one_fate_each_in_every_format(real_rollouts, tmp_path, format):
    report = fastsft.pairs(real_rollouts, tmp_path / "out.jsonl", format=format, allow="all", min_gap=0.0)

    for shard in report.inputs:
        shard.fates.check(shard.path)
    assert len(rows_in(tmp_path / "out.jsonl")) == report.rows == (report.pairs.pairs if report.pairs else 0) > 0
