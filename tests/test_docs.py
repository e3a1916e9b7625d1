"""README tells the truth: its commands run, and it names every option, reason, format and exit code."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from builders import assistant, lines, row_of, turn

from fastsft import FORMATS, FailedRun, TooManyRefused, UsageError
from fastsft.checks.kinds import KINDS
from fastsft.cli.app import COMMANDS as COMMANDS_OF_CLI
from fastsft.options import GATES

PROJECT = Path(__file__).parent.parent
README = (PROJECT / "README.md").read_text()
COMMANDS = [
    line for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL) for line in block.splitlines() if line
]


def test_ci_runs_the_command_that_users_are_told():
    pattern = re.search(r"grep -m 1 '(.*)' README.md", (PROJECT / ".ci/run").read_text())
    assert pattern
    assert [line for line in COMMANDS if re.search(pattern[1], line)] == [
        "python3 -m venv .venv && .venv/bin/pip install tox && .venv/bin/tox"
    ]


# Where README tells of a command's options.
SECTIONS = {
    "convert": ("## Options of `fastsft convert`", "\n## "),
    "stats": ("### See it first", "```bash\nfastsft show"),
    "show": ("```bash\nfastsft show", "\n### "),
    "index": ("### Choosing again", "\n### "),
    "check": ("## Will it train?", "\n## "),
    "verify": ("```bash\nfastsft verify", "\n| exit code"),
    "nemo-rl": ("## NeMo RL", "\n### "),
    "publish": ("## In parts", "\n## "),
    "slurm": ("## In parts", "\n## "),
}


@pytest.mark.parametrize("command", COMMANDS_OF_CLI)
def test_readme_tells_of_every_option_where_it_tells_of_the_command(command):
    done = subprocess.run(
        [sys.executable, "-m", "fastsft", command, "--help"], capture_output=True, text=True, check=True
    )
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*(?![\w-])", done.stdout.partition("Options:")[2])) - {"--help"}
    begin, end = SECTIONS[command]
    section = README.partition(begin)[2].partition(end)[0]

    assert options
    assert {option for option in options if not re.search(rf"[ `]{option}\b", begin + section)} == set()


def test_readme_names_every_reason_and_no_other():
    source = "".join(path.read_text() for path in (PROJECT / "fastsft").rglob("*.py"))
    refused = set(re.findall(r'Refused\(\s*"([a-z0-9_]+)"', source))
    dropped = {*GATES, *re.findall(r'(?:Criterion|ValueCriterion)\(\s*"([a-z_]+)"', source)}
    assert len(refused) > 10
    assert len(dropped) == 17
    table = README.partition("## Every line has one fate")[2].partition("\n## ")[0]
    named = {
        name
        for cell in re.findall(r"^\|[^|]*\|([^|]+)\|", table, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", cell)
    }
    assert named == refused | dropped


def test_readme_names_every_finding():
    table = README.partition("## Will it train?")[2].partition("\n## ")[0]
    assert {kind for kind in KINDS if f"`{kind}`" not in table} == set()


def test_readme_names_every_format_and_exit_code():
    assert {name for name in FORMATS if f"`{name}`" not in README} == set()
    for code in (0, UsageError.exit_code, FailedRun.exit_code, TooManyRefused.exit_code):
        assert f"\n| {code} |" in README


def test_the_example_is_what_comes_out():
    before, after = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    rollout = re.sub(r", …", "", before)
    assert row_of(json.loads(rollout)) == json.loads(after)


def test_the_first_command_runs_the_main_job(tmp_path):
    """All but the installing, which tox has done."""
    install, _, run = COMMANDS[0].partition(".venv/bin/pip install . && ")
    assert install == "python3 -m venv .venv && "
    command = run.replace(".venv/bin/python ", f"{shlex.quote(sys.executable)} ")
    command = command.replace(".venv/bin/fastsft ", f"{shlex.quote(sys.executable)} -m fastsft ")
    (tmp_path / "benchmarks").symlink_to(PROJECT / "benchmarks")

    subprocess.run(command, shell=True, check=True, cwd=tmp_path, capture_output=True, timeout=120)

    report = json.loads((tmp_path / "sft_data/train.report.json").read_bytes())
    assert report["fates"]["lines"] == 2000
    assert report["outputs"][0]["rows"] > 500


ON_A_CLUSTER = "--backend"  # which `tests/distributed.py` has


@pytest.mark.parametrize(
    "command", [line for line in COMMANDS if line.startswith("fastsft ") and ON_A_CLUSTER not in line]
)
def test_the_other_commands_run(command, tmp_path):
    subprocess.run(
        [sys.executable, str(PROJECT / "benchmarks/generate.py"), "run1", "--lines", "80"], check=True, cwd=tmp_path
    )
    (tmp_path / "run2/deep").mkdir(parents=True)
    (tmp_path / "rollouts").symlink_to(tmp_path / "run1")
    for index, name in enumerate(["rollouts.jsonl", "extra.jsonl", "run2/deep/a.jsonl"]):
        (tmp_path / name).write_bytes((tmp_path / f"run1/mixed-0000{index}.jsonl").read_bytes())
    (tmp_path / "sft_data").mkdir()
    for name in ("train", "val"):
        rows = [{"messages": [turn("user", f"{name} {number}?"), assistant("!")]} for number in range(9)]
        (tmp_path / f"sft_data/{name}.jsonl").write_bytes(lines(*rows))
    words = [sys.executable, "-m", "fastsft", *shlex.split(command)[1:]]
    if words[3] == "verify":
        convert = [*words[:3], "convert", "run1", "--output", words[4]]
        subprocess.run(convert, check=True, cwd=tmp_path, capture_output=True, timeout=60)

    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert (done.returncode, bool(done.stdout)) == (0, True), done.stderr


def test_the_python_examples_run(tmp_path, tokenizer, monkeypatch):
    first, second = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    for name in ("run1", "run2"):
        subprocess.run([sys.executable, str(PROJECT / "benchmarks/generate.py"), name, "--lines", "8"], check=True)
    tokenizer.rename(tmp_path / "Qwen3-4B")
    subprocess.run([sys.executable, "-c", f"{first}\n{second}"], check=True, timeout=60)
