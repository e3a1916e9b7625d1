"""Pipes, links and names that stand in a run's way: nothing is waited for, followed or believed."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builders import lines, rollout, said, user

import fastsft
from fastsft import UsageError
from fastsft.inputs.globs import files_matching

ROLLOUTS = lines(*(rollout(user(f"{number}?"), said("4")) for number in range(3)))


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with rollouts in `in/`, their rows in `rows/`, and a folder for output."""
    monkeypatch.chdir(tmp_path)
    for name in ("in", "out", "model"):
        Path(name).mkdir()
    Path("in/a.jsonl").write_bytes(ROLLOUTS)
    fastsft.convert("in", "rows/train.jsonl", jobs=1)
    return tmp_path


def fastsft_says(words: str) -> tuple[int, str]:
    """Run the command; one that waits for something is ended."""
    command = [sys.executable, "-m", "fastsft", *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("pipe", "words", "told"),
    [
        ("out/train.report.json", "convert in --output out/train.jsonl", "train.report.json: Not a regular file"),
        ("out/train.refused", "convert in --output out/train.jsonl", "is in the way: it is not a regular file"),
        ("out/.train.lock", "convert in --output out/train.jsonl", "is in the way: it is no lock of fastsft's"),
        ("out/.train.fastsft/run.json", "convert in --output out/train.jsonl", "Not a regular file"),
        ("out/.train.fastsft/publish.json", "convert in --output out/train.jsonl", "Not a regular file"),
        ("in/b", "convert in/b --output out/train.jsonl", "in/b: it is not a regular file"),
        ("in/b.jsonl", "convert in --output out/train.jsonl", "in/b.jsonl: it is not a regular file"),
        ("i.index", "convert in --output out/train.jsonl --index i.index", "i.index is no index of fastsft"),
        (
            "t.jinja",
            "check rows/train.jsonl --template t.jinja",
            "template t.jinja: Not a regular file",
        ),
        ("model/tokenizer_config.json", "check rows/train.jsonl --template model", "Not a regular file"),
        ("out/a.yaml", "nemo-rl rows/train.jsonl --output out/a.yaml", "out/a.yaml: it is not a regular file"),
        ("out/a.svg", "stats in --plot out/a.svg", "out/a.svg: it is not a regular file"),
        ("out/i.index", "index in --output out/i.index", "out/i.index is no index of fastsft"),
    ],
)
def test_a_pipe_where_a_file_is_expected_is_no_wait(here, pipe, words, told):
    Path(pipe).parent.mkdir(exist_ok=True)
    os.mkfifo(pipe)

    code, problem = fastsft_says(words)

    assert code in (1, 2)
    assert told in problem
    assert problem.count("\n") == 1
    assert Path(pipe).is_fifo()


def test_a_glob_goes_through_each_folder_once_though_links_lead_in_a_circle(here):
    Path("in/deep").mkdir()
    Path("in/deep/b.jsonl").write_bytes(ROLLOUTS)
    Path("elsewhere").mkdir()
    Path("elsewhere/c.jsonl").write_bytes(ROLLOUTS)
    Path("in/.hidden").mkdir()
    Path("in/.hidden/d.jsonl").write_bytes(ROLLOUTS)
    for name in ("one", "two", "deep/three"):
        Path("in", name).symlink_to(here / "in")
    Path("in/beside").symlink_to(here / "elsewhere")

    assert files_matching("in/**/*.jsonl") == ["in/a.jsonl", "in/beside/c.jsonl", "in/deep/b.jsonl"]
    assert "in/deep/b.jsonl" in files_matching("in/**/deep/**")
    assert files_matching("**/b.jsonl") == ["in/deep/b.jsonl"]
    assert files_matching(f"{here}/in/**/a.jsonl") == [f"{here}/in/a.jsonl"]


@pytest.mark.parametrize("glob", ["in/*.jsonl", "**/*.jsonl", "in/[!z]*.jsonl"])
def test_a_glob_that_would_name_the_output_the_next_time_is_refused(here, glob):
    with pytest.raises(UsageError, match=r"names the output, too"):
        fastsft.convert(["in/a.jsonl", "in/*.jsonl", glob], "in/train.jsonl", jobs=1)
    assert os.listdir("in") == ["a.jsonl"]


def test_what_is_unfinished_is_written_through_no_link(here):
    other = Path("other")
    other.write_text("mine")
    for name in (".a.index.part", ".a.yaml.part", ".a.svg.part", ".train.jsonl.part"):
        Path("out", name).symlink_to(here / other)

    fastsft.convert("in", "out/train.jsonl", jobs=1)
    for words in ("index in -o", "nemo-rl rows/train.jsonl -o", "stats in -o"):
        command, ending = words.split()[0], {"index": "index", "nemo-rl": "yaml", "stats": "svg"}[words.split()[0]]
        option = "--plot" if command == "stats" else "--output"
        code, problem = fastsft_says(words.replace("-o", f"{option} out/a.{ending}"))
        assert (code, problem.replace("\n", "")[:8]) in ((0, ""), (0, "Warning:"))

    assert other.read_text() == "mine"
    assert {"a.index", "a.yaml", "a.svg", "train.jsonl"} < set(os.listdir("out"))


def test_a_name_begins_no_line_of_an_error(here):
    done = subprocess.run(
        [sys.executable, "-m", "fastsft", "convert", "in/x\nfastsft: all is well", "--output", "out/train.jsonl"],
        capture_output=True,
        text=True,
    )
    assert done.stderr == ("fastsft: cannot read in/x\\nfastsft: all is well: No such file or directory\n")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("${oc.env:HOME}", "takes ${ for a reference"),
        ("???", "takes ??? for what is not given yet"),
        ("a\x85b", "characters that are not printed: a\\x85b"),
        ("a\udcffb", "is UTF-8, and this name is not"),
    ],
)
def test_a_name_that_the_config_would_not_give_back_is_refused(here, name, told):
    for words in (["--model", name], ["--run", name]):
        command = [sys.executable, "-m", "fastsft", "nemo-rl", "rows/train.jsonl", "--output", "out/a.yaml", *words]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 2
        assert told in done.stderr
        assert os.listdir("out") == []


@pytest.mark.parametrize("place", ["checkout", "rows"])
def test_a_folder_that_the_config_would_not_give_back_is_refused(here, place):
    folder = Path("a${oc.env:HOME}b")
    (folder / "examples/configs").mkdir(parents=True)
    (folder / "examples/configs/sft.yaml").write_text("policy: {}")
    shutil.copy("rows/train.jsonl", folder)
    rows, checkout = (folder / "train.jsonl", "") if place == "rows" else ("rows/train.jsonl", f" --nemo-rl {folder}")

    code, problem = fastsft_says(f"nemo-rl {rows} --output out/a.yaml{checkout}")

    assert (code, "takes ${ for a reference" in problem) == (2, True)


def test_a_run_whose_lock_was_deleted_keeps_others_away_and_is_named(here):
    Path("out/.train.fastsft").mkdir()
    first = os.open("out/.train.fastsft", os.O_RDONLY)
    fcntl.flock(first, fcntl.LOCK_EX)
    Path("out/.train.fastsft/run.json").write_text(
        '{"run_id":"0123456789abcdef","fingerprint":"","made_from":{},"holder":"process 7 on a"}'
    )
    try:
        with pytest.raises(UsageError, match=r"another run is writing to .*\.train\.fastsft \(process 7 on a\)"):
            fastsft.convert("in", "out/train.jsonl", jobs=1)
    finally:
        os.close(first)
    assert os.listdir("out") == [".train.fastsft"]

    fastsft.convert("in", "out/train.jsonl", jobs=1)
    assert sorted(os.listdir("out")) == ["train.jsonl", "train.report.json"]


def test_a_file_system_without_locks_is_said(here, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    report = fastsft.convert("in", "out/train.jsonl", jobs=1)
    assert report.notes == [f"{here}/out has no locks: let no other run write there"]
    assert report.rows == 3


@pytest.mark.parametrize("words", ["check rows/train.jsonl", "nemo-rl rows/train.jsonl --output out/a.yaml"])
def test_rows_that_are_half_published_are_neither_checked_nor_trained_on(here, words):
    Path("rows/.train.fastsft").mkdir()
    Path("rows/.train.fastsft/publish.json").write_text('{"renames":[],"away":[],"reports":[]}')

    code, problem = fastsft_says(words)

    assert code == 2
    assert problem.endswith(
        f"/rows is half published, as a run was killed there; `fastsft verify {here}/rows` finishes it\n"
    )
    assert fastsft_says("verify rows")[0] == 0
    assert fastsft_says(words)[0] in (0, 1)


def test_what_cannot_be_removed_when_all_is_published_is_said_and_the_next_run_removes_it(here, monkeypatch):
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", path)

    with monkeypatch.context() as patch:
        patch.setattr("fastsft.storage.files.shutil.rmtree", refuse)
        report = fastsft.convert("in", "out/train.jsonl", jobs=1)

    assert report.notes == [f"{here}/out/.train.fastsft could not be removed; the next run does it"]
    assert sorted(os.listdir("out")) == [".train.fastsft", "train.jsonl", "train.report.json"]
    assert fastsft.convert("in", "out/train.jsonl", jobs=1).notes == []
    assert sorted(os.listdir("out")) == ["train.jsonl", "train.report.json"]
