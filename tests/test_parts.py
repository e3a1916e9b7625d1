"""A run in parts: in any order, at once, twice, killed; its last part publishes what one process would."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import generate
import pytest

import fastsft
from fastsft import FailedRun, Options, UsageError
from fastsft.errors import Busy
from fastsft.options import Split
from fastsft.outputs import staging
from fastsft.outputs.lock import Lock
from fastsft.outputs.target import Target
from fastsft.pipeline import run
from fastsft.pipeline.parts import publish_parts, run_part

SPAN_NBYTES = 40_000
PLANS = {
    "one file": ("train.jsonl", {}, {}),
    "shards by size": ("", {"shard_nbytes": 100_000}, {}),
    "shards by number": ("", {"shards": 3, "compress": "gz"}, {}),
    "two passes": ("", {"best_of": 1}, {}),
    "Parquet with where rows come from": ("", {"trainer": "verl", "provenance": ("line", "task")}, {}),
    "splits": ("", {"where": "calls < 3"}, {"splits": [Split("val/", 0.2)]}),
}
COMPARE = ("two passes", "splits", "Parquet with where rows come from")


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> list[Path]:
    paths = generate.write(tmp_path_factory.mktemp("in"), "mixed", count=120, nbytes=0, shards=3, seed=7)
    for path in paths:
        path.write_bytes(b"{torn\n" + path.read_bytes())
    return paths


class Case:
    """A plan, as a whole in `whole/` and in parts in `parts/`, each with relative outputs."""

    def __init__(self, folder: Path, plan: str, shards: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
        name, options, self.places = PLANS[plan]
        self.output = f"out/{name}"
        self.shards = shards
        self.options = {"jobs": 1, "span_nbytes": SPAN_NBYTES, **options}
        self.folder = folder / "parts"
        for name in ("whole", "parts"):
            (folder / name).mkdir()
        monkeypatch.chdir(folder / "whole")
        self.report = run(shards, self.output, Options(**self.options), **self.places)
        self.expected = files_in(folder / "whole")
        monkeypatch.chdir(self.folder)

    def part(self, number: int, count: int = 4, **more: object) -> fastsft.Report:
        options = Options(**{**self.options, "part": (number, count), **more})
        places = {"splits": (), "index": None, **self.places}
        return run_part(self.shards, self.output, options, **places, on_progress=None)

    def files(self) -> dict[str, bytes]:
        return files_in(self.folder)


def files_in(folder: Path) -> dict[str, bytes]:
    """What a run left: names and bytes; of reports, all but the clock, and which run in parts it was."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name in found:
        if name.endswith(".report.json"):
            report = json.loads(found[name])
            report.pop("run", None)
            del report["seconds"]
            found[name] = json.dumps(report).encode()
    return found


@pytest.fixture
def case(request, tmp_path, shards, monkeypatch) -> Case:
    return Case(tmp_path, request.param, shards, monkeypatch)


@pytest.mark.parametrize("case", PLANS, indirect=True)
def test_parts_in_any_order_some_twice_publish_what_one_run_does(case, request):
    order = [1, 2, 3, 4, 2, 4]
    random.Random(5).shuffle(order)
    is_in_two = request.node.callspec.params["case"] in COMPARE

    said = [case.part(number).part for number in (order + order if is_in_two else order)]

    assert case.files() == case.expected
    assert said[-1] == ""
    assert said[0].startswith(f"part {order[0]} of 4: ")
    if is_in_two:
        assert [text for text in said if "the lines are chosen; run the parts once more, for their rows" in text]


@pytest.mark.parametrize("case", PLANS, indirect=True)
@pytest.mark.parametrize("seed", [1, 2])
def test_parts_that_are_killed_are_run_again(case, seed, monkeypatch, request):
    write, random_number = staging.write_receipt, random.Random(seed)

    def killed_now_and_then(*receipt):
        if random_number.random() < 0.15:
            raise Killed
        return write(*receipt)

    monkeypatch.setattr("fastsft.pipeline.staged.write_receipt", killed_now_and_then)
    for _ in range(2 if request.node.callspec.params["case"] in COMPARE else 1):
        left = {1, 2, 3}
        while left:
            number = random_number.choice(sorted(left))
            try:
                case.part(number, 3)
                left.remove(number)
            except Killed:
                continue

    assert case.files() == case.expected


class Killed(BaseException):
    """As if the process were killed."""


PART = """
import sys
from fastsft import Options
from fastsft.pipeline.parts import run_part
options = Options(jobs=1, span_nbytes=40_000, part=(int(sys.argv[1]), 3), **eval(sys.argv[2]))
print(run_part(sys.argv[3:], "out/", options, splits=(), index=None, on_progress=None).part)
"""


@pytest.mark.parametrize("case", ["shards by size", "two passes"], indirect=True)
def test_parts_at_once_one_of_them_killed(case, request):
    options = PLANS[request.node.callspec.params["case"]][1]

    def started(number: int) -> subprocess.Popen:
        words = [sys.executable, "-c", PART, str(number), repr(options), *map(str, case.shards)]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    for _ in range(2 if "best_of" in options else 1):
        parts = [started(number) for number in (1, 2, 3, 2)]
        parts[0].send_signal(signal.SIGKILL)
        parts.append(started(1))
        said = [part.communicate(timeout=60) for part in parts]
        assert [complaint for _, complaint in said] == [""] * 5

    publish_parts("out/")
    assert case.files() == case.expected


@pytest.mark.parametrize("case", ["one file", "two passes"], indirect=True)
def test_publish_names_the_parts_that_are_not_done(case, request):
    for number in (4, 2):
        case.part(number, 5)

    with pytest.raises(
        FailedRun, match=r"spans are not done yet: those of part 1, 3, 5 \(of 5\); nothing was published"
    ):
        publish_parts(case.output)
    for number in (1, 3, 5):
        case.part(number, 5)
    if request.node.callspec.params["case"] in COMPARE:
        assert publish_parts(case.output).part == "the lines are chosen; run the parts once more, for their rows"
        for number in (1, 2, 3, 4, 5):
            case.part(number, 5)

    assert publish_parts(case.output).rows == case.report.rows
    assert case.files() == case.expected


@pytest.mark.parametrize("case", ["one file"], indirect=True)
def test_publishing_goes_on_in_the_folder_where_the_parts_ran(case, tmp_path, monkeypatch):
    case.part(1, 2)
    monkeypatch.setattr("fastsft.pipeline.parts.run", lambda *_, **__: (_ for _ in ()).throw(fastsft.errors.Busy("")))
    case.part(2, 2)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)

    assert fastsft.publish("parts/out/train.jsonl", jobs=1).rows == case.report.rows
    assert case.files() == case.expected


@pytest.mark.parametrize("case", ["one file"], indirect=True)
def test_whoever_goes_on_without_parts_takes_over_what_they_did(case):
    case.part(1)

    run(case.shards, case.output, Options(**{**case.options, "jobs": 2}))

    files = case.files()
    del files["out/train.report.json"], case.expected["out/train.report.json"]
    assert files == case.expected


@pytest.mark.parametrize("case", ["one file"], indirect=True)
def test_parts_of_other_runs_do_not_mix(case):
    case.part(1)
    locked = staging.lock_folder(case.folder / "out/.train.fastsft", shared=True)  # as another part that is at work

    with pytest.raises(UsageError, match=r"another run is writing to .*: it has other options"):
        case.part(2, reward_threshold=0.5)
    with pytest.raises(UsageError, match="another run is writing to"):
        run(case.shards, case.output, Options(**case.options))
    assert "others are at work" in case.part(2).part
    os.close(locked)


@pytest.mark.parametrize("case", ["one file"], indirect=True)
def test_nothing_is_left_of_a_part_that_runs_after_all_was_published(case):
    for number in (1, 2, 3, 4):
        case.part(number)
    before = case.files()

    assert (case.part(3).rows, publish_parts("out/train.jsonl").rows) == (case.report.rows, case.report.rows)
    assert case.files() == before == case.expected


def test_where_nothing_was_done_in_parts_nothing_is_published(shards, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fastsft.convert(shards, "a.jsonl", jobs=1)

    for output in ("a.jsonl", "b.jsonl", "."):
        with pytest.raises(UsageError, match="no run in parts is at"):
            fastsft.publish(output)


@pytest.mark.parametrize(
    ("word", "environment", "expected"),
    [
        ("3/16", {}, (3, 16)),
        ("auto", {"ID": "5", "MIN": "1", "MAX": "8", "COUNT": "8"}, (5, 8)),
        ("auto", {"ID": "0", "MIN": "0", "MAX": "0", "COUNT": "1"}, (1, 1)),
        ("auto", {"ID": "30", "MIN": "10", "MAX": "40", "COUNT": "4"}, (3, 4)),
    ],
)
def test_slurm_says_which_part_it_is(shards, tmp_path, monkeypatch, word, environment, expected):
    seen = []
    for name, value in environment.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    monkeypatch.setattr("fastsft.pipeline.parts.run_part", lambda *call, **_: seen.append(call[2].part))

    fastsft.convert(shards, tmp_path / "a.jsonl", part=word)

    assert seen == [expected]


@pytest.mark.parametrize("word", ["0/3", "4/3", "1", "1/0", "-1/3", "a/b", "auto"])
def test_what_is_no_part(shards, tmp_path, word):
    with pytest.raises(UsageError, match="part"):
        fastsft.convert(shards, tmp_path / "a.jsonl", part=word)


def fastsft_told(*words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "fastsft", *words]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )


# What stands for sbatch: the tasks of an array one after another, each with Slurm's variables; it prints a job's id.
SBATCH = """#!{python}
import os, re, subprocess, sys
words = sys.argv[1:]
array = next((word[8:] for word in words if word.startswith("--array=")), "")
first, last = map(int, array.split("-")) if array else (0, 0)
for task in reversed(range(first, last + 1)):
    slurm = dict(ID=task, MIN=first, MAX=last, COUNT=last - first + 1) if array else {{}}
    environment = os.environ | {{f"SLURM_ARRAY_TASK_{{name}}": str(value) for name, value in slurm.items()}}
    subprocess.run(words[words.index("--wrap") + 1], shell=True, env=environment, check=True, stdout=2)
print(7)
"""


@pytest.mark.parametrize("more", [[], ["--best-of", "1", "--val", "a b/val.jsonl"]])
def test_the_script_for_slurm_does_it(shards, tmp_path, more):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sbatch").write_text(SBATCH.format(python=sys.executable))
    (tmp_path / "bin/sbatch").chmod(0o755)
    words = [*map(str, shards), "--output", "a b/rows.jsonl", *more]
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"

    script = fastsft_told("slurm", "--parts", "3", "--cpus", "1", "--sbatch", "-p cpu", *words, folder=tmp_path)
    done = subprocess.run(
        ["bash"], input=script.stdout, cwd="/", env={**os.environ, "PATH": path}, capture_output=True, text=True
    )

    assert (script.returncode, script.stderr, done.returncode) == (0, "", 0), done.stderr
    assert script.stdout.count("--array=1-3") == (2 if more else 1)
    assert script.stdout.count("-p cpu") == (4 if more else 2)
    (tmp_path / "alone").mkdir()
    fastsft_told("convert", *words, "--jobs", "1", folder=tmp_path / "alone")
    assert files_in(tmp_path / "a b") == files_in(tmp_path / "alone/a b")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["in.jsonl"], "no output"),
        (["--output", "a.jsonl"], "no input"),
        (["in.jsonl", "--output", "a.jsonl", "--part", "1/3"], "the script says --part and --jobs itself"),
        (["in.jsonl", "--output", "s3://bucket/out/"], "--part is for a folder that all parts see; upload the rows"),
        (["in.jsonl", "--output", "a.jsonl", "--formatt", "chat"], "No such option: --formatt"),
        (["in.jsonl", "--output", "a.jsonl", "--format", "sharegpt"], "no format named 'sharegpt'"),
    ],
)
def test_a_script_of_wrong_words_is_not_printed(tmp_path, words, problem):
    told = fastsft_told("slurm", *words, folder=tmp_path)

    assert (told.returncode, told.stdout) == (2, "")
    assert re.match(rf"fastsft: {re.escape(problem)}", told.stderr)


def test_a_part_that_ends_leaves_the_lock_to_the_others(tmp_path):
    target = Target(tmp_path, "train", None)
    one, other = Lock(target, shared=True), Lock(target, shared=True)
    one.take([])
    other.take([])

    one.release()
    with pytest.raises(Busy, match="another run is writing to"):
        Lock(target).take([])
    assert target.lock.exists()

    other.release()
    assert not target.lock.exists()
