"""Completion at the prompt: commands, options, and the choices that there are."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fastsft.cli.app import COMMANDS
from fastsft.cli.docs import TOPICS
from fastsft.options import declared, flag_of


def completed(*words: str) -> list[str]:
    """What bash is told of the last word."""
    environment = {
        **os.environ,
        "COMP_WORDS": "\n".join(["fastsft", *words]),
        "COMP_CWORD": str(len(words)),
        "_FASTSFT_COMPLETE": "complete_bash",
    }
    command = [sys.executable, "-m", "fastsft"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()


def test_commands_and_options_are_completed():
    assert completed("") == list(COMMANDS)
    assert completed("ver") == ["verify"]
    assert completed("convert", "--max-r") == ["--max-reward", "--max-refused", "--max-refused-recorded"]


CHOSEN = [
    (command, flag_of(name), list(one.choices))
    for name, one in declared().items()
    for command in one.commands[:1]
    if one.choices
]


@pytest.mark.parametrize(("command", "flag", "choices"), CHOSEN)
def test_the_choices_of_an_option_are_listed(command, flag, choices):
    assert completed(command, flag, "") == choices
    assert completed(command, flag, choices[-1][:2]) == [one for one in choices if one.startswith(choices[-1][:2])]


def test_of_a_list_the_last_word_is_completed():
    assert completed("convert", "--allow", "masked,f") == ["masked,failed"]


def test_pages_are_completed_and_files_are_left_to_the_shell():
    assert completed("docs", "") == list(TOPICS)
    assert completed("convert", "roll") == completed("convert", "--template", "roll") == []


def test_the_shell_gets_its_script_and_keeps_it(tmp_path):
    environment = {**os.environ, "HOME": str(tmp_path)}

    def told(option: str) -> str:
        script = f"{sys.executable} -m fastsft {option}; exit $?"  # not exec: the shell is to be found
        command = ["bash", "-c", script]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    script = told("--show-completion")
    assert "_FASTSFT_COMPLETE=complete_bash" in script
    assert f"bash completion installed in {tmp_path}" in told("--install-completion")
    assert (tmp_path / ".bash_completions/fastsft.sh").read_text().strip() == script.strip()
    assert str(tmp_path / ".bash_completions/fastsft.sh") in (tmp_path / ".bashrc").read_text()
