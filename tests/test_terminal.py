"""What a person sees."""

from __future__ import annotations

import io
import re
import sys
import time

import pytest
from builders import lines, turn

import fastsft
from fastsft.escape import escaped, excerpt
from fastsft.report import Fates, InputShard, OutputShard, Progress, Report, SplitRows
from fastsft.views.example import example_of
from fastsft.views.progress import Pace, ProgressLine, ProgressLog, drawn
from fastsft.views.summary import few_rows_warning, summary_of
from fastsft.views.terminal import cut, size_of


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, naïve 数据 🙂", "plain, naïve 数据 🙂"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\x00\x7f\x9b\u0085", "a\\x00\\x7f\\x9b\\x85"),
        ("\u202e\u2066\u200f\u200b\ufeff", "\\u202e\\u2066\\u200f\\u200b\\ufeff"),
        ("\u2028\u2029\ud800\ue000", "\\u2028\\u2029\\ud800\\ue000"),
        ("tab\tfeed\nreturn\r", "tab\\tfeed\\nreturn\\r"),
    ],
)
def test_what_could_steer_a_terminal_is_escaped(text, shown):
    assert escaped(text) == shown


def test_what_is_kept_is_kept():
    assert escaped("a\n\x1b", keep="\n") == "a\n\\x1b"


def test_an_excerpt_is_one_short_line():
    assert excerpt(b"") == "nothing"
    assert excerpt(b"a\n\xff\x1b") == "`a\\n\ufffd\\x1b`"
    assert excerpt(b"x" * 60) == f"`{'x' * 60}`"
    assert excerpt(b"x" * 61) == f"`{'x' * 60}…`"


def test_sizes_have_units():
    assert [size_of(n) for n in (0, 999, 1000, 1.5e6, 2e9, 3e12, 4e15)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "1.5 MB",
        "2.0 GB",
        "3.0 TB",
        "4000.0 TB",
    ]


def example(tmp_path, row):
    (tmp_path / "rows.jsonl").write_bytes(lines(row))
    return example_of(tmp_path / "rows.jsonl").splitlines()


def test_the_example_has_a_line_for_each_of_its_first_turns_and_its_last(tmp_path):
    calls = [{"name": "f", "arguments": {"a": 1}}, {"function": {"name": "g", "arguments": "{}"}}]
    more = [turn("user", f"{number}?") for number in range(12)]
    row = {"messages": [turn("user", "a\n\nb " + "x" * 80), {**turn("assistant", ""), "tool_calls": calls}, *more]}

    assert example(tmp_path, row) == [
        "The first row:",
        "  user      a b " + "x" * 63 + "…",
        '  assistant calls f({"a": 1}) calls g({})',
        "  user      0?",
        "  … 10 more turns",
        "  user      11?",
    ]
    assert max(map(len, example(tmp_path, row))) <= 80


def test_an_example_of_a_pair_and_of_what_is_strange(tmp_path):
    assert example(tmp_path, {"input": "2+2?", "output": "4"}) == [
        "The first row:",
        "  input     2+2?",
        "  output    4",
    ]
    parts = [{"type": "text", "text": "\x1b[31m"}]
    assert example(tmp_path, {"messages": [turn("\u202erole", parts), turn("user", None)]}) == [
        "The first row:",
        '  \\u202ero… [{"type": "text", "text": "\\u001b[31m"}]',
        "  user",
    ]


@pytest.mark.parametrize(
    ("text", "columns", "line"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("数据", 4, "数据"),
        ("数据!", 4, "数…"),
        ("e\u0301e\u0301", 2, "e\u0301e\u0301"),
        ("a\x1bb", 9, "a\\x1bb"),
        ("x" * 1000, 4, "xxx…"),
    ],
)
def test_a_text_is_cut_by_the_columns_that_it_takes(text, columns, line):
    assert cut(text, columns) == line


def report_of(**fields):
    fates = Fates(10, 4, 0, {"below_threshold": 5}, {"bad_json": 1}, trimmed=2)
    shards = [InputShard(f"{number}.jsonl.gz", 5, Fates(), f"{number} is damaged") for number in range(7)]
    outputs = [OutputShard("rows.jsonl", 4, 1000, "")]
    given = {"fates": fates, "inputs": shards, "outputs": outputs, "folder": "/out", "file": "rows.report.json"}
    return Report(version="", options={}, seconds=1.25, **{**given, **fields})


def test_the_summary_says_first_what_is_where_then_what_was_lost_then_the_fates():
    left_out = {"reasoning": 3, "calls": 2, "images": 1}
    report = report_of(left_out=left_out, notes=["a \x1b note", "word " * 20], refused_lines="rows.refused")

    assert summary_of(report).splitlines() == [
        "Wrote 4 rows, 1.0 kB, in 1.2 s.",
        "  rows     /out/rows.jsonl",
        "  report   /out/rows.report.json",
        "  refused  /out/rows.refused (1 line)",
        "  next     fastsft check /out/rows.jsonl",
        "",
        "Lost on the way:",
        "  the reasoning of 3 rows: --format chat keeps it",
        "  the calls of 2 rows: --format openai and chat keep them",
        "  the images of 1 row: they lie in the metadata, or in turns that are left out",
        "  turns after the last assistant turn of 2 rows",
        *(f"  Skipped file: {number} is damaged" for number in range(5)),
        "  … and 2 more files, in the report",
        "",
        "Read 10 lines of 7 shards, 35 B:",
        "  kept               4",
        "  dropped            5  below_threshold 5",
        "  refused            1  bad_json 1",
        "  blank              0",
        "a \\x1b note",
        ("word " * 16).strip(),
        "  word word word word",
    ]


def test_shards_and_splits_have_a_line_each_and_strange_names_no_command(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    two = [OutputShard(f"t-0000{number}-of-00002.jsonl", 2, 9, "") for number in range(2)]
    splits = [SplitRows("rows.jsonl", 3, 2), SplitRows("../val", 1, 1)]
    fates = Fates(4, 4)

    def told(**fields):
        return summary_of(report_of(inputs=[], fates=fates, **fields)).partition("\n\n")[0].splitlines()[1:]

    assert told(outputs=two, folder=f"{tmp_path}/sft") == [
        "  rows     sft (2 files)",
        "  report   sft/rows.report.json",
        "  next     fastsft check sft",
    ]
    assert told(outputs=two, folder=str(tmp_path))[::2] == ["  rows     . (2 files)", "  next     fastsft check ."]
    assert told(splits=splits, folder=f"{tmp_path}/a b") == [
        "  rows     a b/rows.jsonl (3 rows of 2 tasks)",
        "  rows     val (1 row of 1 task)",
        "  report   a b/rows.report.json",
        "  next     fastsft check 'a b/rows.jsonl' val",
    ]
    assert told(folder="/\x1b[31m") == ["  rows     /\\x1b[31m/rows.jsonl", "  report   /\\x1b[31m/rows.report.json"]
    assert "next" not in told(folder="/out", tasks={"rows": 4})[-1]  # task rows are none that `check` knows
    assert told(folder="s3://bucket/sft/")[0] == "  rows     s3://bucket/sft/rows.jsonl"


def test_a_run_that_failed_has_the_fates_alone():
    report = report_of(outputs=[], inputs=[], fates=Fates(1, 0, 0, {}, {"bad_json": 1}))
    assert summary_of(report).splitlines() == [
        "Read 1 line when the run ended:",
        "  kept               0",
        "  dropped            0",
        "  refused            1  bad_json 1",
        "  blank              0",
    ]


@pytest.mark.parametrize(
    ("rows", "dropped", "warning"),
    [
        (100, {}, None),
        (
            99,
            {"below_threshold": 5, "where": 4},
            "Warning: fewer than 100 rows. Consider lowering --reward-threshold\n"
            "(try 0.90 or 0.85), or collect more rollouts.",
        ),
        (
            99,
            {"below_threshold": 4, "where": 1005},
            "Warning: fewer than 100 rows. Most were dropped as where (1,005). Consider collecting more rollouts.",
        ),
        (0, {}, "Warning: no rows. Consider collecting more rollouts."),
    ],
)
def test_few_rows_bring_the_advice_that_fits(rows, dropped, warning):
    report = fastsft.Report(version="", options={"reward_threshold": 0.95}, fates=fastsft.Fates(dropped=dropped))
    report.outputs = [OutputShard("train.jsonl", rows, 0, "")]

    assert few_rows_warning(report) == warning


# Progress, at a terminal and in a log; time passes as the tests say.

GB = 10**9


class Time:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def far(phase: str, done: int, total: int, rows: int = 0, phases: tuple[str, ...] = ("scan", "convert")) -> Progress:
    return Progress(done, total, rows).in_phase(phase, phases, done, total)


CONVERTED = far("convert", 52 * GB, 100 * GB, 1_234_567)


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (200, "convert 2/2  52% [############------------], 52.0 GB of 100.0 GB, 2.6 GB/s, 1,234,567 rows, 0:18 left"),
        (79, "convert 2/2  52% [###########------------], 2.6 GB/s, 1,234,567 rows, 0:18 left"),
        (60, "convert 2/2  52% [#######-------], 1,234,567 rows, 0:18 left"),
        (50, "convert 2/2  52%, 1,234,567 rows, 0:18 left"),
        (39, "convert 2/2  52% [####-----], 0:18 left"),
        (30, "convert 2/2  52%, 0:18 left"),
        (20, "convert 2/2  52%"),
        (9, "convert 2"),
    ],
)
def test_the_line_shrinks_with_the_terminal_and_keeps_what_matters_most(columns, line):
    clock = Time()
    pace = Pace(clock)
    pace.take(far("convert", 0, 100 * GB))
    clock.seconds = 20.0
    pace.take(CONVERTED)

    assert drawn(CONVERTED, pace, columns) == line
    assert len(line) <= columns


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (far("scan", 1, 4), "scan 1/2  25% [######------------------], 1 B of 4 B"),
        (far("scan", 1, 4, phases=("scan",)), "scan  25% [######------------------], 1 B of 4 B"),
        (far("choose", 0, 0), "choose"),
        (far("convert", 4, 4, 3), "convert 2/2 100% [########################], 4 B of 4 B, 3 rows"),
        (far("check", 0, 4, 0, ("check",)), "check   0% [------------------------], 0 B of 4 B, 0 rows"),
        (far("publish", 0, 0, 1234), "publish, 1,234 rows"),
    ],
)
def test_the_line_names_the_phase_and_counts_what_it_makes(progress, line):
    pace = Pace(Time())
    pace.take(progress)

    assert drawn(progress, pace, 120) == line


def test_the_time_left_is_that_of_the_last_half_minute():
    """What an interrupted run left is done in no time, and says nothing of the rest."""
    clock = Time()
    pace, left = Pace(clock), {}
    for seconds, done in ((0, 0), (0.5, 500), (10, 510), (20, 520), (30, 530), (40, 540), (50, 550)):
        clock.seconds = seconds
        progress = far("scan", done, 1000)
        pace.take(progress)
        left[seconds] = pace.seconds_left(progress)

    assert left == {0: None, 0.5: None, 10: 490 / 51, 20: 480 / 26, 30: 470 / (530 / 30), 40: 460.0, 50: 450.0}


def terminal(monkeypatch):
    """What is drawn on it."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("fastsft.views.progress.columns_of", lambda _: 50)
    return sys.stderr


def test_the_line_is_drawn_ten_times_a_second_and_where_a_phase_begins_or_ends(monkeypatch):
    drawn_on = terminal(monkeypatch)
    clock = Time()
    with ProgressLine(hidden=False, clock=clock) as line:
        for seconds, progress in (
            (0.0, far("scan", 1, 100)),
            (0.05, far("scan", 2, 100)),
            (0.1, far("scan", 3, 100)),
            (0.15, far("scan", 100, 100)),
            (0.16, far("convert", 1, 100, 1)),
            (0.17, far("publish", 0, 0, 9)),
        ):
            clock.seconds = seconds
            line.show(progress)

    lines = [re.sub(r" \[.*", "", text) for text in drawn_on.getvalue().split("\r\x1b[K")]
    assert lines == ["", "scan 1/2   1%", "scan 1/2   3%", "scan 1/2 100%", "convert 2/2   1%", "publish, 9 rows", ""]


def test_other_files_have_a_line_of_their_own(monkeypatch):
    drawn_on = terminal(monkeypatch)
    with ProgressLine(hidden=False, clock=Time()) as line:
        for done, total in ((5, 5), (1, 3), (3, 3)):
            line.show(far("check", done, total, 0, ("check",)))

    assert re.findall(r"(\d+)%", drawn_on.getvalue()) == ["100", "33", "100"]


@pytest.mark.parametrize("how", ["hidden", "dumb", "no terminal", "closed"])
def test_no_line_where_nobody_would_see_one(how, monkeypatch):
    drawn_on = terminal(monkeypatch)
    monkeypatch.setenv("TERM", "dumb" if how == "dumb" else "xterm")
    if how == "no terminal":
        monkeypatch.setattr(drawn_on, "isatty", lambda: False, raising=False)
    if how == "closed":
        monkeypatch.setattr("sys.stderr", None)
    with ProgressLine(hidden=how == "hidden", clock=Time()) as line:
        line.show(far("scan", 1, 2))

    assert drawn_on.getvalue() == ""


def test_a_terminal_that_is_gone_fails_no_run(monkeypatch):
    def gone(_: str) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(terminal(monkeypatch), "write", gone)
    for watcher in (ProgressLine(hidden=False, clock=Time()), ProgressLog(clock=Time())):
        with watcher:
            watcher.show(far("scan", 1, 2))


def test_the_log_has_a_line_for_each_phase_each_minute_and_the_end(capsys, monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    clock = Time()
    with ProgressLog(clock=clock, wall_clock=clock) as log:
        for seconds, progress in (
            (0, far("scan", 0, 100 * GB)),
            (30, far("scan", 30 * GB, 100 * GB)),
            (60, far("scan", 60 * GB, 100 * GB)),
            (110, far("scan", 99 * GB, 100 * GB)),
            (111, far("choose", 0, 0)),
            (112, far("convert", 0, 10 * GB)),
            (180, far("convert", 6 * GB, 10 * GB, 600)),
            (199, far("convert", 10 * GB, 10 * GB, 1000)),
            (200, far("publish", 0, 0, 1000)),
        ):
            clock.seconds = seconds
            log.show(progress)
        clock.seconds = 3723

    assert capsys.readouterr() == (
        "",
        "1970-01-01 00:00:00 fastsft: scan 1/2   0%, 0 B of 100.0 GB\n"
        "1970-01-01 00:01:00 fastsft: scan 1/2  60%, 60.0 GB of 100.0 GB, 1.0 GB/s, 0:40 left\n"
        "1970-01-01 00:01:51 fastsft: choose\n"
        "1970-01-01 00:01:52 fastsft: convert 2/2   0%, 0 B of 10.0 GB, 0 rows\n"
        "1970-01-01 00:03:00 fastsft: convert 2/2  60%, 6.0 GB of 10.0 GB, 88.2 MB/s, 600 rows, 0:45 left\n"
        "1970-01-01 00:03:20 fastsft: publish, 1,000 rows\n"
        "1970-01-01 01:02:03 fastsft: done in 1:02:03, 1,000 rows\n",
    )


def test_the_log_of_a_run_that_fails_says_when_it_stopped(capsys):
    clock = Time()
    log = ProgressLog(clock=clock)
    log.show(far("convert", 1, 2, 1))
    clock.seconds = 59.9
    with pytest.raises(ZeroDivisionError), log:
        raise ZeroDivisionError

    assert capsys.readouterr().err.splitlines()[-1].endswith(" fastsft: stopped after 1:00")
