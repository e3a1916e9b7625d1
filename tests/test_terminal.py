"""What a person sees."""

from __future__ import annotations

import io
import re
import sys

import pytest

import fastsft
from fastsft.escape import escaped, excerpt
from fastsft.report import OutputShard, Progress
from fastsft.views.example import example_of
from fastsft.views.progress import ProgressBar
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


def terminal(monkeypatch):
    """What is drawn on it."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stderr", Terminal())
    return sys.stderr


def test_the_bar_ends_with_the_last_that_it_was_shown(monkeypatch):
    drawn = terminal(monkeypatch)
    with ProgressBar(hidden=False) as bar:
        for rows in (1, 9):
            bar.show(Progress(5, 5, rows))

    assert re.findall(r"(\d+) rows", drawn.getvalue())[-1] == "9"


def test_other_files_have_a_bar_of_their_own(monkeypatch):
    drawn = terminal(monkeypatch)
    with ProgressBar(hidden=False) as bar:
        for done, total in ((5, 5), (1, 3), (3, 3)):
            bar.show(Progress(done, total, 0))

    assert re.findall(r"(\d+)%", drawn.getvalue()) == ["100", "33", "100"]
