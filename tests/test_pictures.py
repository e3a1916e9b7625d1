"""The pictures of benchmarks: what is drawn is named in plain words, valued beside its bar, and the missing is told."""

from __future__ import annotations

import re

import plot
import pytest
from matplotlib import pyplot

RESULTS = [
    ("short", 1000.0, {"fastsft": 3.0, "orjson-pool": 7.0, "duckdb": 1.5}),
    ("real", 2000.0, {"fastsft": 3.0}),
]


@pytest.fixture
def texts(tmp_path, monkeypatch):
    """What a picture says, in the order in which it is drawn."""
    monkeypatch.setitem(pyplot.rcParams, "svg.fonttype", "none")  # text as text

    def texts_of(draw, *results):
        draw(*results, tmp_path / "a.svg")
        return re.findall(r"<text[^>]*>([^<]*)</text>", (tmp_path / "a.svg").read_text())

    return texts_of


def test_each_bar_has_its_name_and_its_value_and_what_is_missing_says_why(texts):
    drawn = texts(plot.plot_throughput, RESULTS)

    values = [text for text in drawn if text.endswith(" s") or text in ("not run", "cannot do this")]
    assert sorted(values) == sorted(["1.50 s", "not run", "cannot do this", "3.00 s", "7.00 s", "1.50 s"])
    assert drawn.count("fastsft") == drawn.count("DuckDB") == drawn.count("Python and orjson, all cores") == 2
    assert {"Real rollouts of many environments", "Short questions and answers"} <= set(drawn)


def test_growth_has_its_values_at_its_points(texts):
    drawn = texts(plot.plot_growth, [("real", 500.0, {"fastsft": 1.0}), ("real", 4000.0, {"fastsft": 6.0})])
    assert [text for text in drawn if text.endswith((" s", " GB"))] == ["0.5 GB", "4 GB", "2.00 s", "1.50 s"]


def test_the_same_results_give_the_same_bytes(tmp_path, monkeypatch):
    for name, value in plot._SAME_BYTES.items():
        monkeypatch.setitem(pyplot.rcParams, name, value)
    for name in ("a", "b"):
        plot.plot_throughput(RESULTS, tmp_path / f"{name}.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
