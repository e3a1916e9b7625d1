"""README and the pages tell the truth: commands run and print that, and every option, reason, format is named."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from builders import assistant, lines, row_of, turn

from fastsft import FORMATS, FailedRun, TooManyRefused, UsageError
from fastsft.checks.kinds import KINDS
from fastsft.cli.app import COMMANDS as COMMANDS_OF_CLI
from fastsft.cli.docs import TOPICS
from fastsft.cli.pairs import HELPS
from fastsft.cli.settings import options_table
from fastsft.formats.pairs import PAIR_FORMATS
from fastsft.options import GATES
from fastsft.selection.entries import PAIR_REASONS
from fastsft.views.page import page_of

PROJECT = Path(__file__).parent.parent
README = (PROJECT / "README.md").read_text()
PAGES = {path.stem: path.read_text() for path in (PROJECT / "fastsft/docs").glob("*.md")}
COMMANDS = [
    line
    for page in (README, *(PAGES[name] for name in TOPICS))
    for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    for line in block.splitlines()
    if line
]


def test_ci_runs_the_command_that_users_are_told():
    pattern = re.search(r"grep -m 1 '(.*)' README.md", (PROJECT / ".ci/run").read_text())
    assert pattern
    assert [line for line in COMMANDS if re.search(pattern[1], line)] == [
        "python3 -m venv .venv && .venv/bin/pip install tox && .venv/bin/tox"
    ]


# Where a page tells of a command's options.
SECTIONS = {
    "pairs": ("pairs", "# Preference pairs", "ALL OF IT"),
    "convert": ("options", "# Options of `fastsft convert`", "\n# "),
    "stats": ("choosing", "## See it first", "```bash\n# the first two rollouts"),
    "show": ("choosing", "```bash\n# the first two rollouts", "\n## "),
    "tasks": ("tasks", "# Tasks for GRPO", "\n# "),
    "index": ("choosing", "## Choosing again", "\n## "),
    "check": ("trainers", "## Will it train?", "\n## "),
    "report": ("report", "# A page to look at", "\n## "),
    "verify": ("internals", "```bash\nfastsft verify", "\n| exit code"),
    "nemo-rl": ("trainers", "## NeMo RL", "\n## "),
    "publish": ("scale", "## In parts", "\n## "),
    "slurm": ("scale", "## In parts", "\n## "),
}


@pytest.mark.parametrize("command", [name for name in COMMANDS_OF_CLI if name != "docs"])
def test_a_page_tells_of_every_option_where_it_tells_of_the_command(command):
    done = subprocess.run(
        [sys.executable, "-m", "fastsft", command, "--help"], capture_output=True, text=True, check=True
    )
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*(?![\w-])", done.stdout.partition("\nExamples:")[0])) - {
        "--help"
    }
    page, begin, end = SECTIONS[command]
    section = PAGES[page].partition(begin)[2].partition(end)[0]

    assert options
    assert {option for option in options if not re.search(rf"[ `]{option}\b", begin + section)} == set()


def test_the_docs_command_shows_each_page_and_lists_them():
    def told(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "-m", "fastsft", "docs", *words], capture_output=True, text=True)

    listed = told().stdout.splitlines()

    assert listed[-2:] == ["", "fastsft docs TOPIC shows one."]
    listed = listed[:-2]
    assert [line.split()[0] for line in listed] == list(TOPICS) == sorted(PAGES, key=TOPICS.index)
    assert [line for line in listed if len(line) > 80 or not line.endswith(".")] == []
    assert {name: told(name).stdout.strip() for name in TOPICS} == {name: PAGES[name].strip() for name in TOPICS}
    assert (told("nothing").returncode, told("nothing").stderr.split(";")[0]) == (2, "fastsft: no page 'nothing'")


def test_a_page_on_a_terminal_is_wrapped_at_words_and_its_tables_are_entries():
    page = """# Title of `it`

What it is **for**, told in [another page](other.md#part) and on [a site](https://example.org).

- first, `**/*.jsonl`
  goes on
- second

| option | meaning | default |
|---|---|---|
| `--kind a\\|b` | Write one of two kinds of file. | `a` |
| `--switch` | Turn it on. |  |

| case | the script | fastsft |
|---|---|---|
| empty | crash | refused |

```bash
a command --that-is-not wrapped, however long it may be

the next
```
"""
    assert page_of(page, 40, lambda text, style: f"<{style}>{text}" if style == "bold" else text).splitlines() == [
        "<bold>Title of it",
        "",
        "What it is for, told in another page",
        "(fastsft docs other) and on a site",
        "(https://example.org).",
        "",
        "- first, `**/*.jsonl` goes on",
        "- second",
        "",
        "  --kind a|b",
        "      Write one of two kinds of file.",
        "      default: `a`",
        "  --switch",
        "      Turn it on.",
        "",
        "  empty",
        "      the script: crash",
        "      fastsft: refused",
        "",
        "    a command --that-is-not wrapped, however long it may be",
        "    ",
        "    the next",
    ]


@pytest.mark.parametrize("name", TOPICS)
def test_a_terminal_of_80_columns_shows_every_page_with_no_line_cut_but_of_code(name):
    code = {line for block in re.findall(r"```\w*\n(.*?)```", PAGES[name], re.DOTALL) for line in block.splitlines()}
    shown = page_of(PAGES[name], 80, lambda text, style: text).splitlines()

    assert {line for line in shown if len(line) > 80 and line[4:] not in code} == set()
    assert {line for line in shown if re.search(r"\]\(|^\||(?<!`)\*\*\w", line) and line[4:] not in code} == set()


def test_the_docs_command_wraps_on_a_terminal():
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    environment = {**os.environ, "NO_COLOR": "1"}
    command = [sys.executable, "-m", "fastsft", "docs", "reasons"]
    with subprocess.Popen(command, stdout=terminal, env=environment) as process:
        os.close(terminal)
        printed = b""
        with contextlib.suppress(OSError):  # Linux says so when the other end is closed
            while piece := os.read(main, 65536):
                printed += piece
        os.close(main)

    assert process.returncode == 0
    assert printed.decode().replace("\r\n", "\n").rstrip() == page_of(PAGES["reasons"], 60, lambda text, style: text)


@pytest.mark.parametrize("name", ["README.md", *(f"fastsft/docs/{name}.md" for name in TOPICS)])
def test_every_link_leads_somewhere(name):
    page = PROJECT / name
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text()):
        there = page.parent / target if target else page
        assert there.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in anchors, (target, anchor)


def test_readme_is_read_in_five_minutes():
    assert len(README.splitlines()) <= 170


def test_the_page_names_every_reason_and_no_other():
    source = "".join(path.read_text() for path in (PROJECT / "fastsft").rglob("*.py"))
    refused = set(re.findall(r'Refused\(\s*"([a-z0-9_]+)"', source))
    dropped = {*GATES, *re.findall(r'(?:Criterion|ValueCriterion)\(\s*"([a-z_]+)"', source)}
    assert len(refused) > 10
    assert len(dropped) == 18
    dropped |= set(PAIR_REASONS)
    table = PAGES["reasons"]
    named = {name for cell in re.findall(r"^\|([^|]+)\|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)}
    assert named == refused | dropped


def test_the_page_of_pairs_has_the_table_of_the_declaration_and_every_format():
    assert options_table("pairs", HELPS) in PAGES["pairs"]
    assert {name for name in PAIR_FORMATS if f"| `{name}` |" not in PAGES["pairs"]} == set()


def test_the_page_names_every_finding():
    table = PAGES["trainers"].partition("## Will it train?")[2].partition("\n## ")[0]
    assert {kind for kind in KINDS if f"`{kind}`" not in table} == set()


def test_the_pages_name_every_format_and_exit_code():
    assert {name for name in FORMATS if f"`{name}`" not in PAGES["formats"]} == set()
    for code in (0, UsageError.exit_code, FailedRun.exit_code, TooManyRefused.exit_code):
        assert f"\n| {code} |" in PAGES["internals"]


def test_the_example_is_what_comes_out():
    before, after = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    rollout = re.sub(r", …", "", before)
    assert row_of(json.loads(rollout)) == json.loads(after)


def test_the_five_minute_way_prints_what_readme_shows(tmp_path):
    """The commands of the section, one after another; of what they print, README leaves lines out, and the clock."""
    section = README.partition("## Five minutes")[2].partition("\n## ")[0]
    (tmp_path / "benchmarks").symlink_to(PROJECT / "benchmarks")
    shown = 0
    for commands, expected in re.findall(r"```bash\n(.*?)```(?:\n\n```text\n(.*?)```)?", section, re.DOTALL):
        printed = ""
        for command in commands.splitlines():
            words = shlex.split(command)
            words[:1] = [sys.executable] if words[0] == "python" else [sys.executable, "-m", "fastsft"]
            done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120)
            printed += done.stdout
        printed = re.sub(r"in \d+\.\d s", "in 0.6 s", printed.replace(f"{tmp_path}/", ""))
        for lines_shown in filter(None, expected.split("…\n")):
            assert lines_shown in printed
            shown += lines_shown.count("\n")
    assert shown > 15


ELSEWHERE = re.compile("--backend|://")  # which `tests/clusters.py` and `tests/remote.py` have


@pytest.mark.parametrize(
    "command",
    list(dict.fromkeys(line for line in COMMANDS if line.startswith("fastsft ") and not ELSEWHERE.search(line))),
)
def test_the_other_commands_run(command, tmp_path):
    shape = "attempts" if command.startswith("fastsft pairs") else "mixed"
    generate = [str(PROJECT / "benchmarks/generate.py"), "run1", "--lines", "80", "--shape", shape]
    subprocess.run([sys.executable, *generate], check=True, cwd=tmp_path)
    (tmp_path / "run2/deep").mkdir(parents=True)
    (tmp_path / "rollouts").symlink_to(tmp_path / "run1")
    for index, name in enumerate(["rollouts.jsonl", "extra.jsonl", "run2/deep/a.jsonl"]):
        (tmp_path / name).write_bytes((tmp_path / f"run1/{shape}-0000{index}.jsonl").read_bytes())
    (tmp_path / "sft_data").mkdir()
    for name in ("train", "val"):
        rows = [{"messages": [turn("user", f"{name} {number}?"), assistant("!")]} for number in range(9)]
        (tmp_path / f"sft_data/{name}.jsonl").write_bytes(lines(*rows))
    words = [sys.executable, "-m", "fastsft", *shlex.split(command, comments=True)[1:]]
    (tmp_path / "MODEL").mkdir()
    (tmp_path / "MODEL/chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    if words[3] in ("verify", "report") or "--report" in words:
        output = words[words.index("--report") + 1] if "--report" in words else words[4]
        convert = [*words[:3], "convert", "run1", "--output", output]
        subprocess.run(convert, check=True, cwd=tmp_path, capture_output=True, timeout=60)

    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert (done.returncode, bool(done.stdout)) == (0, True), done.stderr


def test_the_python_examples_run(tmp_path, tokenizer, monkeypatch):
    (first,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (second,) = re.findall(r"```python\n(.*?)```", PAGES["trainers"], re.DOTALL)
    monkeypatch.chdir(tmp_path)
    for name in ("run1", "run2"):
        subprocess.run([sys.executable, str(PROJECT / "benchmarks/generate.py"), name, "--lines", "8"], check=True)
    tokenizer.rename(tmp_path / "Qwen3-4B")
    subprocess.run([sys.executable, "-c", f"{first}\n{second}"], check=True, timeout=60)
