"""Help: what is in it, how it wraps, and that its examples run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from builders import assistant, lines, turn

from fastsft.cli.app import COMMANDS, app_of
from fastsft.cli.examples import EXAMPLES
from fastsft.options import PANELS, declared, keyword_of

PROJECT = Path(__file__).parent.parent
GROUP = typer.main.get_command(app_of(list(COMMANDS)))


def help_of(*words: str, columns: int = 80) -> str:
    command = [sys.executable, "-m", "fastsft", *words, "--help"]
    environment = {**os.environ, "COLUMNS": str(columns)}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def panels_of(text: str) -> dict[str, list[str]]:
    """The flags in each panel, by its title."""
    panels: dict[str, list[str]] = {}
    for line in text.partition("\nExamples:")[0].splitlines():
        if re.fullmatch(r"\S.*:", line) and not line.startswith("Usage"):
            panels[line[:-1]] = title = []
        elif match := re.match(r"  (-[\w-]+(?:(?:, | / )-[\w-]+)*)", line):
            title += re.split(", | / ", match[1])
    return panels


@pytest.mark.parametrize("name", COMMANDS)
def test_panels_have_every_option_of_a_command_once_and_stand_in_their_order(name):
    panels = panels_of(help_of(name))
    shown = [flag for flags in panels.values() for flag in flags]
    flags = {flag for one in GROUP.commands[name].params for flag in [*one.opts, *one.secondary_opts] if flag[0] == "-"}

    assert sorted(shown) == sorted({flag.replace("_", "-") for flag in flags} | {"-h", "--help"})
    assert list(panels) == [title for title in PANELS.values() if title in panels]


def test_a_setting_stands_in_the_panel_that_it_declares():
    panels = panels_of(help_of("convert"))
    names = {keyword_of(name): name for name in declared()}
    for one in GROUP.commands["convert"].params:
        if one.name in names:
            assert one.opts[0].replace("_", "-") in panels[PANELS[declared()[names[one.name]].panel]]


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_lines_are_as_long_as_the_terminal_and_100_columns_at_most(name, columns):
    text = help_of(*filter(None, [name]), columns=columns).partition("\nExamples:")[0]
    longest = max(map(len, text.splitlines()))

    assert longest <= min(columns, 100)
    assert longest > min(columns, 100) - 5 or name != "convert"


def test_the_list_of_commands_has_their_first_lines_whole():
    text = help_of()
    for name, function in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(function.__doc__.splitlines()[0])}$", text, re.MULTILINE)


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_names_values_as_a_person_does_and_ends_with_two_examples(name):
    text = help_of(*filter(None, [name]))
    examples = text.partition("\nExamples:\n")[2].splitlines()

    assert not re.search(r"<[a-z]|\.\.\.\]\.\.\.|\[default: (None|\[\])", text)
    assert [words.strip() for words in examples[1::2]] == [words for _, words in EXAMPLES[name]]
    assert all(line.startswith("  # ") for line in examples[::2])
    assert max(map(len, examples)) <= 80


def test_narrow_help_has_words_below_their_option():
    assert "\n  --dedup\n      Keep the first of rows with the\n      same content.\n" in help_of("convert", columns=40)
    assert re.search(r"\n  --dedup +Keep the first of rows with the same content.\n", help_of("convert"))


@pytest.fixture
def folder(tmp_path, tokenizer):
    """What the examples name: rollouts, rows, a tokenizer, parts that are done."""
    generate = [sys.executable, str(PROJECT / "benchmarks/generate.py"), "rollouts", "--lines", "80"]
    subprocess.run(generate, check=True, cwd=tmp_path)
    tokenizer.rename(tmp_path / "Qwen3-4B")
    for path in ("train.jsonl", "sft/train.jsonl", "sft/val.jsonl"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(
            lines(*({"messages": [turn("user", f"{path} {number}?"), assistant("!")]} for number in range(9)))
        )
    return tmp_path


BEFORE = {
    "verify": ["convert rollouts/ -o train.jsonl -q", "convert rollouts/ -o sft/ -q"],
    "report": ["convert rollouts/ -o train.jsonl -q", "convert rollouts/ -o sft/ -q"],
    "publish": ["convert rollouts/ -o sft/ --part 1/2", "convert rollouts/ -o sft/ --part 2/2"],
}


@pytest.mark.parametrize(("name", "example"), [(name, words) for name, both in EXAMPLES.items() for _, words in both])
def test_the_examples_run(name, example, folder):
    if name == "pairs":
        generate = [sys.executable, str(PROJECT / "benchmarks/generate.py"), "rollouts", "--lines", "80"]
        subprocess.run([*generate, "--shape", "attempts"], check=True, cwd=folder)
    for words in [*BEFORE.get(name, []), re.split(" [|>] ", example.removeprefix("fastsft "))[0]]:
        command = [sys.executable, "-m", "fastsft", *shlex.split(words)]
        browser = {**os.environ, "BROWSER": "true"}  # for `--open`
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, env=browser)
        assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize(
    "words", ["convert rollouts/ -o made", "index rollouts/ -o made", "nemo-rl train.jsonl -o made"]
)
def test_the_output_has_a_short_name_in_every_command_that_has_one(words, folder):
    done = subprocess.run([sys.executable, "-m", "fastsft", *words.split()], cwd=folder, capture_output=True, text=True)

    assert (done.returncode, (folder / "made").exists()) == (0, True), done.stderr
