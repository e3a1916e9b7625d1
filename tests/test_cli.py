"""The command: its flags, what it prints, its exit codes."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from builders import call, line, lines, rollout, said, system, user

FASTSFT = Path(sys.executable).parent / "fastsft"


def fastsft(*words: object, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fastsft", *map(str, words)]
    environment = {**os.environ, "COLUMNS": "80"}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=60)


@pytest.fixture
def folder(tmp_path):
    good = [rollout(user("2+2?"), said("4"), reward=reward) for reward in (1.0, 0.9, 0.0)]
    (tmp_path / "rollouts.jsonl").write_bytes(lines(*good, [1], rollout(user("?"), said("5"), user("no"))) + b"\n")
    return tmp_path


def test_the_flags_of_the_reference_work_unchanged(folder):
    done = fastsft(
        "convert",
        *("--input", "rollouts.jsonl"),
        *("--output", "sft_data/train.jsonl"),
        *("--reward_threshold", "0.85"),
        *("--format", "simple"),
        folder=folder,
    )

    assert done.returncode == 0
    assert [json.loads(row) for row in (folder / "sft_data/train.jsonl").read_bytes().splitlines()] == [
        {"input": "2+2?", "output": "4"},
        {"input": "2+2?", "output": "4"},
        {"input": "?", "output": "5"},
    ]


def test_the_summary_names_every_fate_and_reason_and_shows_a_row(folder):
    done = fastsft("convert", "rollouts.jsonl", "--output", "train.jsonl", folder=folder)

    assert re.sub(r"in \d+\.\d s", "in 0.1 s", done.stdout).splitlines() == [
        "Wrote 2 rows, 163 B, in 0.1 s.",
        "  rows     train.jsonl",
        "  report   train.report.json",
        "  refused  train.refused (1 line)",
        "  next     fastsft check train.jsonl",
        "",
        "Lost on the way:",
        "  turns after the last assistant turn of 1 row",
        "",
        "Read 6 lines of 1 shard, 1.2 kB:",
        "  kept               2",
        "  dropped            2  below_threshold 2",
        "  refused            1  not_object 1",
        "  blank              1",
        "",
        "The first row:",
        "  user      2+2?",
        "  assistant 4",
    ]
    assert done.stderr == (
        "Warning: fewer than 100 rows. Consider lowering --reward-threshold\n"
        "(try 0.90 or 0.85), or collect more rollouts.\n"
    )


def test_the_summary_ends_without_an_example_where_none_is_wanted(folder):
    done = fastsft("convert", "rollouts.jsonl", "--output", "train.jsonl", "--no-example", folder=folder)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "  blank              1")


def test_what_comes_next_works_and_a_usual_summary_fits_a_screen(tmp_path):
    generate = [sys.executable, str(Path(__file__).parent.parent / "benchmarks/generate.py"), "rollouts"]
    subprocess.run(generate, check=True, cwd=tmp_path)
    words = ["convert", "rollouts/", "-o", "sft/train set.jsonl", "--val", "sft/val.jsonl", "--dedup", "--trainable"]
    drawn = on_a_terminal(words, tmp_path)
    summary = _STYLE.sub("", drawn.rpartition("\r\x1b[K")[2]).splitlines()

    assert len(summary) <= 23  # and the prompt
    assert max(map(len, summary)) <= 80
    steps = [line.split() for line in summary if line.startswith("  next ")]
    assert steps == [["next", "fastsft", "check", "'sft/train", "set.jsonl'", "sft/val.jsonl"]]
    script = f"alias fastsft='{sys.executable} -m fastsft'\n{' '.join(steps[0][1:])}"
    done = subprocess.run(["bash", "-O", "expand_aliases", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.startswith("2 files, "), done.stderr


def test_no_warning_from_100_rows_on(folder):
    (folder / "many.jsonl").write_bytes(lines(*[rollout(user("?"), said("4"))] * 100))
    assert fastsft("convert", "many.jsonl", "--output", "a.jsonl", folder=folder).stderr == ""


def test_quiet_prints_nothing_but_errors(folder):
    done = fastsft("convert", "rollouts.jsonl", "--output", "train.jsonl", "-q", folder=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = fastsft("convert", "nothing.jsonl", "--output", "train.jsonl", "-q", folder=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "fastsft: cannot read nothing.jsonl: No such file or directory\n"


def test_arguments_and_options_name_inputs_alike(folder):
    (folder / "more.jsonl").write_bytes(lines(rollout(user("?"), call("f", a=1))))
    done = fastsft("convert", "more.jsonl", "--input", "rollouts.jsonl", "--output", "o/", "--jobs", "2", folder=folder)
    assert done.returncode == 0
    report = json.loads((folder / "o/train.report.json").read_bytes())
    assert [shard["path"] for shard in report["inputs"]] == ["more.jsonl", "rollouts.jsonl"]


def test_allow_is_accepted(folder):
    for words in (["--allow", "all"], ["--allow", "masked,failed"], ["--allow", "masked", "--allow", "incomplete"]):
        assert fastsft("convert", "rollouts.jsonl", "--output", "o.jsonl", *words, folder=folder).returncode == 0


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        ("convert rollouts.jsonl", 2, "no output: name a file or a folder with --output"),
        ("convert --output o.jsonl", 2, "no input: name files, folders or globs of rollouts"),
        (
            "convert rollouts.jsonl --output o.jsonl --format nemo",
            2,
            "no format named 'nemo'; there are: openai, chat, simple",
        ),
        ("convert rollouts.jsonl --output o.jsonl --frobnicate", 2, "No such option: --frobnicate"),
        ("convert rollouts.jsonl --output o.jsonl --jobs many", 2, "Invalid value for '--jobs'"),
        (
            "convert rollouts.jsonl --output o/ --shard-size big",
            2,
            "not a size: 'big'; write it as 500MB, 1.5GB or 64MiB",
        ),
        ("convert rollouts.jsonl --output rollouts.jsonl", 2, "rollouts.jsonl is an input and would be overwritten"),
        ("frobnicate", 2, "No such command 'frobnicate'"),
        (
            "convert rollouts.jsonl --output o.jsonl --max-refused 0",
            3,
            "1 lines were refused, more than --max-refused 0",
        ),
        ("convert broken.jsonl --output o.jsonl", 1, "every line was refused; nothing was published"),
    ],
)
def test_exit_codes_and_the_sentence_that_comes_with_them(folder, words, code, problem):
    (folder / "broken.jsonl").write_text("<PLACEHOLDER ROW>\n")
    before = sorted(folder.iterdir())

    done = fastsft(*words.split(), folder=folder)

    assert done.returncode == code
    assert f"fastsft: {problem}" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(folder.iterdir()) == before


def test_help_fits_a_terminal_of_80_columns_and_names_every_command(folder):
    for words in (["--help"], ["convert", "--help"], ["convert", "-h"]):
        done = fastsft(*words, folder=folder)
        assert (done.returncode, done.stderr) == (0, "")
        assert max(map(len, done.stdout.splitlines())) <= 80
    assert fastsft(folder=folder).returncode == 2
    assert "convert" in fastsft(folder=folder).stdout


def test_the_script_and_the_module_are_the_same_command(folder):
    done = subprocess.run([FASTSFT, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == fastsft("--version", folder=folder).stdout
    assert done.stdout.startswith("fastsft ")


HOSTILE = "\x1b[31mred\x1b]0;title\x07 \u202egnp.exe \x9b2J [/x] \u2066"


def test_nothing_untrusted_reaches_the_terminal_raw(folder):
    name = f"{HOSTILE.replace('/', '-')}.jsonl"
    hostile = rollout(user(HOSTILE), said(HOSTILE), {"type": "function_call", "name": HOSTILE, "arguments": "{}"})
    refused = rollout(user("?"), {"type": HOSTILE})
    (folder / name).write_bytes(lines(hostile, refused) + HOSTILE.encode() + b"\n")

    for words in (
        ["convert", name, "--output", f"out-{name}"],
        ["convert", name, "--output", "o.jsonl", "--max-refused", "0"],
        ["convert", f"missing {HOSTILE}", "--output", "o.jsonl"],
        ["convert", name, "--output", "o.jsonl", "--format", HOSTILE],
        ["convert", name, f"--{HOSTILE}"],
    ):
        done = fastsft(*words, folder=folder)
        printed = done.stdout + done.stderr
        assert printed
        assert not {character for character in printed if not (character.isprintable() or character == "\n")}


# Begins when the terminal has its size.
_ON_A_TERMINAL = """
import os, sys
while not os.get_terminal_size(2).columns:
    pass
from fastsft.cli.entry import begin
sys.argv[0] = "fastsft"
begin()
"""
_STYLE = re.compile(r"\x1b\[[0-9;]*m")


def on_a_terminal(words: list[str], folder: Path, *, columns: int = 80, **environment: str) -> str:
    """Run the command on a terminal of its own, and give all that it drew."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
        words = [sys.executable, "-c", _ON_A_TERMINAL, *words]
        os.execve(sys.executable, words, {**kept, "TERM": "xterm", **environment})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    drawn = b""
    while True:
        try:
            read = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not read:
            break
        drawn += read
    os.waitpid(pid, 0)
    os.close(terminal)
    return drawn.decode()


def test_help_has_colour_on_a_terminal_that_shows_it(folder):
    plain = fastsft("convert", "--help", folder=folder).stdout
    drawn = on_a_terminal(["convert", "--help"], folder).replace("\r\n", "\n")

    assert "\x1b[1mInput:\x1b[0m\n  \x1b[36mINPUT...\x1b[0m" in drawn
    assert _STYLE.sub("", drawn) == plain
    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert on_a_terminal(["convert", "--help"], folder, **environment).replace("\r\n", "\n") == plain


def test_an_error_has_colour_and_what_is_untrusted_in_it_is_escaped(folder):
    drawn = on_a_terminal(["convert", f"missing {HOSTILE}", "--output", "o.jsonl"], folder)

    assert drawn.startswith("\x1b[1;31mfastsft:\x1b[0m no file matches missing \\x1b[31mred")
    assert "\x1b" not in _STYLE.sub("", drawn)
    assert not {
        character for character in _STYLE.sub("", drawn) if not (character.isprintable() or character in "\r\n")
    }


PHASES = re.compile(r"\r\x1b\[K(\w+(?: \d/\d)?)")


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_progress_on_a_terminal_is_one_line_that_fits_and_is_gone_at_the_end(folder, columns):
    words = ["convert", "rollouts.jsonl", "--output", "o.jsonl", "--best-of", "1", "--jobs", "1"]
    drawn = on_a_terminal(words, folder, columns=columns)
    lines = [_STYLE.sub("", line) for line in drawn.split("\r\x1b[K")[1:]]

    assert list(dict.fromkeys(PHASES.findall(drawn))) == ["scan 1/2", "choose", "convert 2/2", "publish"]
    assert max(map(len, lines[:-1])) < columns
    assert "rows" not in "".join(line for line in lines if line.startswith("scan"))
    assert any(re.match(r"convert 2/2 100% \[#+\].* rows", line) for line in lines)
    assert not lines[-1].startswith("publish")


def test_progress_is_drawn_on_a_terminal_alone_and_not_where_it_is_logged(folder):
    words = ["convert", "rollouts.jsonl", "--output", "o.jsonl"]
    assert not PHASES.search(on_a_terminal([*words, "--quiet"], folder))
    assert not PHASES.search(on_a_terminal(words, folder, TERM="dumb"))
    assert not PHASES.search(on_a_terminal([*words, "--log"], folder))
    assert "convert" not in fastsft(*words, folder=folder).stderr


@pytest.mark.parametrize(
    ("words", "phases"),
    [
        ("convert rollouts.jsonl -o o.jsonl", ["convert", "publish", "done"]),
        ("convert rollouts.jsonl -o o/ --best-of 1 --jobs 2", ["scan 1/2", "choose", "convert 2/2", "publish", "done"]),
        ("convert rollouts.jsonl -o o.jsonl --part 1/1", ["convert", "done"]),
        ("index rollouts.jsonl -o o.index", ["scan", "done"]),
        ("stats rollouts.jsonl", ["scan", "done"]),
        ("check rows.jsonl", ["check", "done"]),
    ],
)
def test_the_log_goes_to_stderr_and_names_the_phases(folder, words, phases):
    (folder / "rows.jsonl").write_bytes(lines({"input": "2+2?", "output": "4"}))
    done = fastsft(*words.split(), "--log", "--quiet", folder=folder)

    told = re.findall(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d fastsft: (\w+(?: \d/\d)?)\b.*\n", done.stderr, re.MULTILINE)
    assert (done.returncode, told, done.stdout) == (0, phases, "")
    assert len(done.stderr.splitlines()) == len(phases)


@pytest.mark.parametrize("where", [">&-", "2>&-", ">/dev/full", ">&- 2>&-"])
def test_what_cannot_be_printed_does_not_make_a_published_run_fail(folder, where):
    command = f"{sys.executable} -m fastsft convert rollouts.jsonl --output o.jsonl {where}"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert (folder / "o.report.json").exists()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ("stats rollouts.jsonl", 0, ""),
        ("show rollouts.jsonl", 0, ""),
        ("check rows.jsonl", 0, ""),
        ("show rollouts.jsonl --line 99", 2, "fastsft: rollouts.jsonl has no line 99\n"),
    ],
)
def test_a_closed_stdout_changes_no_exit_code(folder, words, code, told):
    (folder / "rows.jsonl").write_bytes(lines({"input": "2+2?", "output": "4"}))
    command = f"{sys.executable} -m fastsft {words} >&-"
    done = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (code, told)


def test_no_alarm_and_no_handler_outlives_the_command():
    script = """
import os, signal, fastsft.cli.main, fastsft.cli.app
def run():
    signal.setitimer(signal.ITIMER_REAL, 60)  # as for a signal that came in a callback
    return 0
def told(code):
    names = [signal.getsignal(number).name for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    os.write(1, f"{code} {signal.getitimer(signal.ITIMER_REAL)} {names}".encode())
    end(code)
end, os._exit = os._exit, told
fastsft.cli.app.run = run
fastsft.cli.main.main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "0 (0.0, 0.0) ['SIG_DFL', 'SIG_DFL', 'SIG_DFL']"


def test_another_encoding_shows_escapes(folder):
    (folder / "wide.jsonl").write_bytes(lines(rollout(user("é"), said("数"))))
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "fastsft", "convert", "wide.jsonl", "--output", "o.jsonl"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "\\u6570" in done.stdout


def test_a_run_under_nohup_goes_on_when_the_terminal_closes(folder):
    script = "import os, signal, fastsft.cli.main; os.kill(os.getpid(), signal.SIGHUP); fastsft.cli.main.main()"
    command = ["nohup", sys.executable, "-c", script, "convert", "rollouts.jsonl", "--output", "o.jsonl"]
    assert subprocess.run(command, cwd=folder, capture_output=True, timeout=60).returncode == 0


def test_a_run_that_began_where_an_interrupt_is_ignored_goes_on(folder):
    """As a script's `&` begins it."""
    script = "import os, signal, fastsft.cli.main; os.kill(os.getpid(), signal.SIGINT); fastsft.cli.main.main()"
    words = [sys.executable, "-c", script, "convert", "rollouts.jsonl", "--output", "o.jsonl", "--quiet"]
    done = subprocess.run(["sh", "-c", 'trap "" INT; exec "$@"', "sh", *words], cwd=folder, timeout=60)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("name", "code", "told"),
    [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "stopped by SIGTERM"), ("SIGHUP", 129, "stopped by SIGHUP")],
)
def test_a_signal_that_comes_while_a_callback_runs_is_not_lost(name, code, told):
    script = f"""
import os, signal, weakref, fastsft.cli.main, fastsft.cli.app
class Gone:
    pass
def run():
    gone = Gone()
    reference = weakref.ref(gone, lambda _: os.kill(os.getpid(), signal.{name}))
    del gone
    while True:
        signal.pause()
fastsft.cli.app.run = run
fastsft.cli.main.main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (code, f"fastsft: {told}; nothing was published\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_a_run_is_put_away_comes_too_late(folder, number):
    script = f"""
import os, fastsft.cli.main
from fastsft.execution.workers import Workers
end = Workers.end
def interrupted(self):
    if os.path.exists("o.jsonl"):
        os.kill(os.getpid(), {number})
        print("killed")
    end(self)
Workers.end = interrupted
fastsft.cli.main.main()
"""
    command = [sys.executable, "-c", script, "convert", "rollouts.jsonl", "--output", "o.jsonl", "--quiet"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr, done.stdout[:7]) == (0, "", "killed\n")
    assert len((folder / "o.jsonl").read_bytes().splitlines()) == 2


@pytest.mark.parametrize("closed", ["1", "2", "both"])
def test_a_pipe_that_nobody_reads_is_no_error(folder, closed):
    reading, writing = os.pipe()
    os.close(reading)  # before the command begins, so that every write fails
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    streams |= {name: writing for name, number in (("stdout", "1"), ("stderr", "2")) if closed in (number, "both")}
    command = [sys.executable, "-m", "fastsft", "convert", "rollouts.jsonl", "--output", "o.jsonl"]
    assert subprocess.run(command, cwd=folder, timeout=60, **streams).returncode == 0
    assert (folder / "o.report.json").exists()
    assert subprocess.run([*command[:3], "--help"], cwd=folder, timeout=60, **streams).returncode == 0
    os.close(writing)


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ("rows.parquet", ".parquet promises another kind of file; rows are written as .jsonl, .jsonl.gz or .jsonl.zst"),
        ("rows.csv", ".csv promises"),
        ("rows.JSON", ".json promises"),
        ("rows.json.gz", ".json promises"),
        ("rows.jsonl.bz2", ".bz2 promises"),
        ("https://host/rows.jsonl", "it is an address, and files are written"),
        ("ftp://host/folder/", "it is an address, and files are written"),
    ],
)
def test_an_output_that_promises_what_is_not_written_is_refused(tmp_path, output, problem):
    (tmp_path / "in.jsonl").write_bytes(line(rollout(user("?"), said("4"))))
    for words in (["--output", output], ["--output", "rows.jsonl", "--val", output]):
        command = [sys.executable, "-m", "fastsft", "convert", "in.jsonl", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert (done.returncode, problem in done.stderr) == (2, True), done.stderr
    assert os.listdir(tmp_path) == ["in.jsonl"]


@pytest.mark.parametrize("more", [[], ["--val", "val.jsonl"], ["--dedup"]])
def test_untrainable_rows_are_left_out_and_counted_by_what_check_finds(tmp_path, more):
    made = [
        rollout(user("2+2?"), said("4")),
        rollout([user("?"), user("!")], said("4")),
        rollout(user("3+3?"), said("")),
        rollout([system("s"), user("?")], said("4")),
    ]
    (tmp_path / "in.jsonl").write_bytes(lines(*made))
    template = Path(__file__).parent / "data/templates/qwen3_5.jinja"
    words = ["in.jsonl", "--output", "rows.jsonl", "--format", "chat", "--trainable", "--template", template, *more]

    done = subprocess.run(
        [sys.executable, "-m", "fastsft", "convert", *map(str, words)],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "rows.report.json").read_bytes())
    dropped = {"untrainable:alternation": 1, "untrainable:empty_turn": 1, "untrainable:template_stops": 1}
    assert (report["fates"]["kept"], report["fates"]["dropped"]) == (1, dropped)
    assert "untrainable:template_stops" in done.stdout


def test_readmes_own_way_ends_well_three_times_on_real_rollouts(real_rollouts, tmp_path):
    (tmp_path / "rollouts").mkdir()
    for path in real_rollouts:
        (tmp_path / "rollouts" / path.name).symlink_to(path)
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    section = readme.partition("## Five minutes")[2].partition("\n## ")[0]
    way = [line for line in section.splitlines() if line.startswith("fastsft ") and " show " not in line]
    assert [command.split()[1] for command in way] == ["stats", "convert", "check", "nemo-rl"]
    for command in way:
        words = [sys.executable, "-m", "fastsft", *command.split()[1:]]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
