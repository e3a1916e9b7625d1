"""What a person sees."""

from __future__ import annotations

import io
import re
import sys
import time

import pytest

import fastsft
from fastsft.escape import escaped, excerpt
from fastsft.report import OutputShard, Progress
from fastsft.views.example import example_of
from fastsft.views.progress import Pace, ProgressLine, ProgressLog, drawn
from fastsft.views.summary import few_rows_warning
from fastsft.views.terminal import size_of


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


def test_the_example_cuts_long_texts_and_lists(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"input": "' + "x" * 205 + '", "list": [1, 2, 3, 4, 5, 6, 7, 8]}\n{}\n')

    assert example_of(path).splitlines() == [
        "",
        "An example, the first row, long texts and lists cut:",
        "{",
        '  "input": "' + "x" * 200 + '… (5 more characters)",',
        '  "list": [',
        *[f"    {number}," for number in range(1, 7)],
        '    "… (2 more)"',
        "  ]",
        "}",
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
