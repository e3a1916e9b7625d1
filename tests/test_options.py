"""What options may be, and what is said where they may not."""

from __future__ import annotations

import gzip
import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from builders import lines, rollout, said

import fastsft
from fastsft import Options, UsageError
from fastsft.cli import app
from fastsft.cli.settings import options_table
from fastsft.configs.training import Training
from fastsft.options import PANELS, Split, declared, flag_of, keyword_of
from fastsft.pairing import Pairing
from fastsft.pipeline.search import Search
from fastsft.quantities import nbytes_of
from fastsft.views.preview import View


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"format": "yaml"}, "no format named 'yaml'; there are: openai, chat, simple"),
        ({"reward_threshold": float("nan")}, "the reward threshold must be a finite number, not nan"),
        ({"reward_threshold": float("inf")}, "the reward threshold must be a finite number, not inf"),
        (
            {"allow": ("most",)},
            "no gate named 'most'; there are: masked, failed, unverified, incomplete, no_generation, no_user_turn, all",
        ),
        ({"max_refused": "few"}, "the limit of refused lines is a count or a share, as 100 or 1%, not 'few'"),
        ({"max_refused": -1}, "the limit of refused lines is a count or a share, as 100 or 1%, not -1"),
        ({"shards": 2, "shard_nbytes": 5}, "shards are cut by count or by size, not by both"),
        ({"shards": 0}, "the number of shards must be at least 1, not 0"),
        ({"shard_nbytes": 0}, "the shard size must be at least 1, not 0"),
        ({"compress": "lz4"}, "no compression named 'lz4'; there are: gz, zst"),
        ({"max_line_nbytes": 0}, "the longest line must be at least 1, not 0"),
        ({"jobs": 0}, "the number of jobs must be at least 1, not 0"),
        ({"name": "../x"}, "a shard name has letters, digits, '.', '_' and '-' alone, not '../x'"),
        ({"name": ""}, "a shard name has letters, digits, '.', '_' and '-' alone, not ''"),
    ],
)
def test_a_wrong_choice_names_the_right_ones(options, problem):
    with pytest.raises(UsageError) as caught:
        Options(**options)
    assert str(caught.value) == problem


@pytest.mark.parametrize("allow", ["masked, failed", ["masked,failed"], ("masked", "failed")])
def test_gates_are_lifted_by_words_or_with_commas(allow, tmp_path):
    shard, marks = tmp_path / "in.jsonl", ({"mask_sample": True}, {"_ng_failure_class": "x"}, {"truncated": True})
    shard.write_bytes(lines(*({**rollout("?", said("4")), **mark} for mark in marks)))

    assert fastsft.convert(shard, tmp_path / "rows.jsonl", allow=allow).fates.kept == 2
    assert fastsft.stats(shard, allow=allow).gated == {"incomplete": 1}


@pytest.mark.parametrize(
    ("limit", "refused", "lines", "too_many"),
    [
        (None, 9, 9, False),
        (0, 0, 9, False),
        (0, 1, 9, True),
        ("2", 2, None, False),
        ("2", 3, None, True),
        ("1%", 1, 100, False),
        ("1%", 2, 100, True),
        ("0.1%", 1, 1000, False),
        ("0.1%", 1, 999, True),
        ("1%", 99, None, False),
    ],
)
def test_limits_of_refused_lines_are_counts_or_shares(limit, refused, lines, too_many):
    assert Options(max_refused=limit).refuses_too_many(refused, lines) is too_many


@pytest.mark.parametrize(
    ("size", "nbytes"),
    [
        ("7", 7),
        ("500MB", 500_000_000),
        ("1.5GB", 1_500_000_000),
        ("2k", 2000),
        ("64MiB", 64 * 1024**2),
        ("1 tb", 10**12),
    ],
)
def test_sizes_have_units_of_1000_or_1024(size, nbytes):
    assert nbytes_of(size) == nbytes


@pytest.mark.parametrize("size", ["", "MB", "-1", "1e6", "5 apples", "1.5.5"])
def test_what_is_no_size_is_said(size):
    with pytest.raises(UsageError, match="not a size"):
        nbytes_of(size)


# One declaration, and all that comes of it.

PAGE = (Path(__file__).parent.parent / "fastsft/docs/options.md").read_text()
BESIDE = {"inputs", "output", "splits", "index", "on_progress"}  # what the library takes beside settings


@pytest.mark.parametrize("command", ["convert", "pairs", "index", "stats", "tasks", "check", "verify"])
def test_the_library_has_the_settings_of_the_command_with_their_defaults(command):
    function = getattr(fastsft, command)
    parameters = {
        name: one.default for name, one in inspect.signature(function).parameters.items() if name not in BESIDE
    }
    declared_here = {
        keyword_of(name, kind): getattr(kind(), name)
        for kind in (Options, Pairing)
        for name, one in declared(kind).items()
        if command in one.commands
    }

    assert parameters == declared_here
    assert {name for name in parameters if f"        {name}: " not in function.__doc__} == set()


@pytest.mark.parametrize(
    "command", ["convert", "pairs", "index", "stats", "show", "tasks", "check", "verify", "nemo-rl"]
)
def test_the_command_has_an_option_for_each_of_its_settings(command):
    done = subprocess.run(
        [sys.executable, "-m", "fastsft", command, "--help"],
        env={**os.environ, "COLUMNS": "500"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    shown = set(done.stdout.replace(",", " ").split())

    flags = {
        flag_of(name, kind)
        for kind in (Options, Pairing)
        for name, one in declared(kind).items()
        if command in one.commands
    }
    assert flags <= shown


def test_the_page_has_a_table_for_each_panel_of_help_in_its_order():
    panels = {one.panel for one in declared().values() if "convert" in one.commands}
    titles = {panel: title for panel, title in PANELS.items() if panel in {*panels, "split"}}
    sections = dict(re.findall(r"^## (.*)\n((?:(?!## ).*\n)*)", PAGE, re.MULTILINE))

    assert [title for title in sections if title in PANELS.values()] == list(titles.values())
    for panel in panels:
        assert f"\n{options_table('convert', panel=panel)}\n" in sections[titles[panel]]


# Each setting: a word that is not its default, and the value that it stands for.
WORDS = {
    "format": ("chat", "chat"),
    "arguments": ("string", "string"),
    "reasoning": ("drop", "drop"),
    "loss": ("own", "own"),
    "tools": ("string", "string"),
    "trainer": ("axolotl", "axolotl"),
    "provenance": ("reward,line", ("reward", "line")),
    "reward_threshold": ("0.5", 0.5),
    "max_reward": ("0.75", 0.75),
    "allow": ("masked,failed", ("masked", "failed")),
    "trainable": (None, True),
    "template": ("folder", "folder"),
    "where": ("calls > 0", "calls > 0"),
    "max_tokens": ("9", 9),
    "pass_rate": ("0.1:0.9", (0.1, 0.9)),
    "dedup": (None, True),
    "best_of": ("2", 2),
    "per_task": ("3", 3),
    "per_agent": ("4", 4),
    "sample": ("5%", "5%"),
    "seed": ("6", 6),
    "allow_empty": (None, True),
    "max_refused": ("7%", "7%"),
    "max_refused_recorded": ("9", 9),
    "shards": ("8", 8),
    "shard_nbytes": ("64MiB", 64 * 1024**2),
    "name": ("val", "val"),
    "compress": ("gz", "gz"),
    "card": (None, True),
    "max_line_nbytes": ("1kB", 1000),
    "fresh": (None, True),
    "verify_inputs": (None, True),
    "jobs": ("1", 1),
    "stall_seconds": ("9.5", 9.5),
    "render_seconds": ("8.5", 8.5),
    "backend": ("dask", "dask"),
    "address": ("tcp://a:1", "tcp://a:1"),
    "retries": ("5", 5),
    "part": ("2/3", (2, 3)),
    "work": ("w", "w"),
    "log": (None, True),
}
ELSEWHERE = {"pairs": (None, True)}  # of other commands alone
EXCLUSIVE = ({"shards", "fresh"}, {"shard_nbytes", "part"})


@pytest.mark.parametrize("left_out", EXCLUSIVE)
def test_every_word_of_the_command_reaches_the_run(left_out, monkeypatch, tmp_path):
    words = {name: pair for name, pair in WORDS.items() if name not in left_out}
    seen = []

    def run(inputs, output, options, **more):
        seen.append((inputs, output, options, more["splits"], more["index"], callable(more["on_progress"])))
        raise UsageError("seen")

    monkeypatch.setattr("fastsft.api.writing.run", run)
    monkeypatch.setattr("fastsft.pipeline.parts.run_part", run)
    line = ["fastsft", "convert", "a.jsonl", "--input", "b.jsonl", "--output", "o/", "--index", "i"]
    line += ["--val", "v", "--val-fraction", "20%", "--split", "w=10%", "--split", "x=5%"]
    for name, (word, _) in words.items():
        line += [flag_of(name)] if word is None else [flag_of(name), word]
    monkeypatch.setattr("sys.argv", line)

    with pytest.raises(UsageError, match="seen"):
        app.run()

    options = Options(**{name: value for name, (_, value) in words.items()})
    splits = [Split("v", 0.2), Split("w", 0.1), Split("x", 0.05)]
    assert seen == [(["a.jsonl", "b.jsonl"], "o/", options, splits, "i", True)]
    assert set(WORDS) == {name for name, one in declared().items() if "convert" in one.commands}


# The same for pairs; `high_threshold` and `low_threshold` change nothing, but arrive.
WORDS_OF_PAIRS = {
    "format": ("trl", "trl"),
    "choose": ("threshold", "threshold"),
    "turn": ("whole", "whole"),
    "min_gap": ("0.125", 0.125),
    "least_chosen": ("0.75", 0.75),
    "max_rejected": ("0.5", 0.5),
    "pairs_per_task": ("2", 2),
    "uses": ("3", 3),
    "length_ratio": ("0.5:2", (0.5, 2.0)),
    "strategy": ("same_prompt", "same_prompt"),
    "high_threshold": ("0.7", 0.7),
    "low_threshold": ("0.4", 0.4),
}
OF_KTO = {"format": ("kto", "kto"), "balance": (None, True)}


@pytest.mark.parametrize("left_out", EXCLUSIVE)
@pytest.mark.parametrize("of_pairs", [WORDS_OF_PAIRS, OF_KTO])
@pytest.mark.parametrize("spelling", [0, -1])
def test_every_word_of_pairs_reaches_the_run(of_pairs, spelling, left_out, monkeypatch):
    known = {name for name, one in declared().items() if "pairs" in one.commands}
    words = {name: pair for name, pair in WORDS.items() if name in known - left_out}
    seen = []

    def run(inputs, output, options, **more):
        seen.append((inputs, output, options, more["splits"], more["index"], callable(more["on_progress"])))
        raise UsageError("seen")

    monkeypatch.setattr("fastsft.api.writing.run", run)
    monkeypatch.setattr("fastsft.pipeline.parts.run_part", run)
    line = ["fastsft", "pairs", "a.jsonl", "--input", "b.jsonl", "--output", "o/", "--index", "i"]
    line += ["--val", "v", "--val-fraction", "20%", "--split", "w=10%"]
    for name, (word, _) in words.items():
        line += words_of(flag_of(name), word)
    for name, (word, _) in of_pairs.items():
        line += words_of((declared(Pairing)[name].flags or (flag_of(name, Pairing),))[spelling], word)
    monkeypatch.setattr("sys.argv", line)

    with pytest.raises(UsageError, match="seen"):
        app.run()

    pairing = Pairing(**{name: value for name, (_, value) in of_pairs.items()})
    values = {name: value for name, (_, value) in words.items()} | {"pairing": pairing}
    assert seen == [(["a.jsonl", "b.jsonl"], "o/", Options(**values), [Split("v", 0.2), Split("w", 0.1)], "i", True)]
    assert set(WORDS_OF_PAIRS) | set(OF_KTO) == set(declared(Pairing))


TRAINING = {
    "model": ("m", "m"),
    "sequence_length": ("11", 11),
    "global_batch": ("12", 12),
    "micro_batch": ("2", 2),
    "epochs": ("13", 13),
    "val_period": ("14", 14),
    "checkpoint_dir": ("c", "c"),
    "images": (None, True),
    "project": ("p", "p"),
    "run": ("r", "r"),
    "gpus": ("15", 15),
    "nodes": ("16", 16),
}


def words_of(flag: str, word: str | None) -> list[str]:
    return [flag] if word is None else [flag, word]


# Of each other command, the words for its own parameters; and what does its work.
OWN = {
    "index": {"inputs": ["a"], "output": ["--output", "i"]},
    "stats": {"inputs": ["a"]},
    "tasks": {
        "inputs": ["a"],
        "output": ["--output", "o/"],
        "val": ["--val", "v"],
        "val_fraction": ["--val-fraction", "20%"],
        "shards": [],  # which exclude a shard size
    },
    "show": {
        "inputs": ["a"],
        "count": ["-n", "7"],
        "line": ["--line", "8"],
        "reason": ["--reason", "kept"],
        "rows": ["--rows"],
        "full": ["--full"],
    },
    "check": {"files": ["a"]},
    "verify": {"output": ["a"]},
    "report": {"output": ["a"], "page": ["--output", "p"], "open_page": ["--open"]},
    "publish": {"output": ["a"]},
    "nemo-rl": {
        "train": ["a"],
        "val": ["--val", "v", "--val", "w"],
        "output": ["--output", "y"],
        "checkout": ["--nemo-rl", "n"],
        "wandb": ["--no-wandb"],
        "reward_model": ["--reward-model"],
        **{name: words_of(f"--{name.replace('_', '-')}", word) for name, (word, _) in TRAINING.items()},
    },
}
WORK = {
    "index": "fastsft.pipeline.index.write_index",
    "stats": "fastsft.pipeline.statistics.stats_of",
    "tasks": "fastsft.api.writing.run",
    "show": "fastsft.views.preview.shown",
    "check": "fastsft.checks.run.check_rows",
    "report": "fastsft.views.html.write.write_page",
    "verify": "fastsft.outputs.verify.verify_output",
    "publish": "fastsft.pipeline.parts.publish_parts",
    "nemo-rl": "fastsft.configs.nemo_rl.write_config",
}
# How the command says what was found, of which the tests of its output tell, and `test_show.py`.
PRINTED = {"json", "plot", "quiet", "random", "report"}


PLACEMENT = ("jobs", "backend", "address", "retries", "stall_seconds")


def call_of(command: str, settings: list[str]) -> Any:
    """The call that all the words of a command ask for."""
    values = {name: {**WORDS, **ELSEWHERE}[name][1] for name in settings}
    keywords = {keyword_of(name): value for name, value in values.items()}
    match command:
        case "index":
            return mock.call(["a"], "i", Options(**values), on_progress=mock.ANY)
        case "stats":
            return mock.call(["a"], Options(**values), on_progress=mock.ANY)
        case "tasks":
            options = Options(makes="tasks", **values)
            return mock.call(["a"], "o/", options, splits=[Split("v", 0.2)], index=None, on_progress=mock.ANY)
        case "show":
            columns = shutil.get_terminal_size().columns
            search = Search(count=7, first=8, reason="kept", where=values.pop("where"))
            view = View(full=True, rows=True, template=values["template"], columns=columns)
            return mock.call(["a"], search, view, Options(**values), [], on_progress=mock.ANY)
        case "check":
            placement = Options(**{name: values.pop(name) for name in PLACEMENT}).placement
            del values["log"]  # which `on_progress` stands for
            keywords = {keyword_of(name): value for name, value in values.items()}
            return mock.call(["a"], on_progress=mock.ANY, placement=placement, **keywords)
        case "report":
            return mock.call("a", "p", **keywords)
        case "verify" | "publish":
            return mock.call("a", **keywords)
        case "nemo-rl":
            training = Training(wandb=False, **{name: value for name, (_, value) in TRAINING.items()})
            keywords |= {"reward_model": True, "checkout": "n"}
            return mock.call(["a"], ["v", "w"], "y", training, on_progress=mock.ANY, **keywords)


@pytest.mark.parametrize("command", OWN)
def test_every_word_of_the_other_commands_reaches_what_does_their_work(command, monkeypatch):
    known = (*WORDS, *ELSEWHERE)
    settings = [name for name in known if command in declared()[name].commands and name not in OWN[command]]
    words = [word for several in OWN[command].values() for word in several]
    words += [word for name in settings for word in words_of(flag_of(name), {**WORDS, **ELSEWHERE}[name][0])]
    work = mock.Mock(side_effect=UsageError("seen"))
    monkeypatch.setattr(WORK[command], work)
    monkeypatch.setattr("sys.argv", ["fastsft", command, *words])

    with pytest.raises(UsageError, match="seen"):
        app.run()

    assert work.mock_calls == [call_of(command, settings)]
    assert callable(work.call_args.kwargs.get("on_progress", print))
    parameters = set(inspect.signature(app.COMMANDS[command]).parameters)
    assert {*OWN[command], *map(keyword_of, settings)} == parameters - PRINTED


WITHOUT_PROGRESS = ("show", "report", "verify", "publish", "slurm", "docs")
WITH_PROGRESS = [command for command in app.COMMANDS if command not in WITHOUT_PROGRESS]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        *((command, words) for command in WITH_PROGRESS for words in (["--quiet"], ["-q"], [])),
        ("stats", ["--json"]),
        ("check", ["--json"]),
    ],
)
def test_quiet_hides_the_progress_of_every_command_that_has_some(command, words, monkeypatch):
    seen = mock.Mock(side_effect=UsageError("seen"))
    monkeypatch.setattr(f"fastsft.cli.{command.replace('-', '_')}.ProgressLine", seen)
    output = ["--output", "o"] if command in ("convert", "pairs", "index", "tasks") else []
    monkeypatch.setattr("sys.argv", ["fastsft", command, "a", *output, *words])

    with pytest.raises(UsageError, match="seen"):
        app.run()

    assert seen.mock_calls == [mock.call(hidden=bool(words))]


ALL_WELL = {
    "pairs": "in.jsonl --output p.jsonl --allow-empty",
    "convert": "in.jsonl -o o.jsonl",
    "index": "in.jsonl -o i.index",
    "stats": "in.jsonl",
    "check": "o.jsonl",
    "nemo-rl": "o.jsonl -o config.yaml",
    "publish": "parts.jsonl",
    "tasks": "in.jsonl -o tasks.jsonl --pass-rate 0:1",
    "report": "o.jsonl",
    "verify": "o.jsonl",
}


def test_quiet_commands_print_nothing_where_all_is_well(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("in.jsonl").write_bytes(lines(rollout("?", said("4"))))
    fastsft.convert("in.jsonl", "parts.jsonl", part="1/1")
    assert set(ALL_WELL) == {name for name, one in app.COMMANDS.items() if "quiet" in inspect.signature(one).parameters}

    for words in map(" ".join, ALL_WELL.items()):
        if words == "verify o.jsonl":  # what it finishes is a note
            Path(".o.fastsft").mkdir()
            Path(".o.fastsft/publish.json").write_text('{"renames":[],"away":[],"reports":[]}')
        monkeypatch.setattr("sys.argv", ["fastsft", *words.split(), "--quiet"])
        assert app.run() == 0

    assert capsys.readouterr() == ("", "")


def test_quiet_commands_print_what_is_wrong_and_json_that_was_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("in.jsonl").write_bytes(lines(rollout("?", said("4"))))
    fastsft.convert("in.jsonl", "o.jsonl")
    Path("o.jsonl").write_text("[1]\n")

    for words, code, printed in (
        ("check o.jsonl", 1, "not_a_row: 1 row"),
        ("verify o.jsonl", 1, "Differs: "),
        ("stats in.jsonl --json", 0, '"rollouts":'),
    ):
        monkeypatch.setattr("sys.argv", ["fastsft", *words.split(), "--quiet"])
        assert (app.run(), printed in capsys.readouterr().out) == (code, True)


@pytest.mark.parametrize("command", ["convert", "tasks --pass-rate 0:1"])
def test_quiet_runs_name_the_files_whose_rows_are_missing(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("in.jsonl").write_bytes(lines(rollout("?", said("4"))))
    Path("torn.jsonl.gz").write_bytes(gzip.compress(lines(rollout("?", said("5"))))[:-9])
    monkeypatch.setattr("sys.argv", f"fastsft {command} in.jsonl torn.jsonl.gz --output o.jsonl --quiet".split())

    assert app.run() == 0

    printed, problem = capsys.readouterr()
    assert (printed, problem.count("\n"), problem.startswith("Skipped file: torn.jsonl.gz is damaged")) == ("", 1, True)
