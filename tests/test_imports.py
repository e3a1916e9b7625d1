"""A run imports what it needs: Polars takes each process 0.12 s and 50 MB, and is not needed by most."""

from __future__ import annotations

import pytest
from builders import in_a_new_process, lines, rollout, said, user

WITHOUT_POLARS = """
import sys
class Polars:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "polars":
            raise ImportError("Polars is not to be imported")
sys.meta_path.insert(0, Polars())
from fastsft.options import Options
from fastsft.pipeline import run
rollouts, rows, jobs = sys.argv[1:]
options = Options(jobs=int(jobs), span_nbytes=4096, reward_threshold=0.5, max_reward=1.0, allow=("masked",))
report = run([rollouts], rows, options)
print(report.fates.kept)
"""


@pytest.mark.parametrize("jobs", [1, 2])
def test_lines_are_judged_by_gates_and_reward_and_converted_without_polars(tmp_path, jobs):
    told = [rollout(user("né?"), said("数" * number), reward=number % 2) for number in range(100)]
    (tmp_path / "rollouts.jsonl").write_bytes(lines(*told))

    assert in_a_new_process(WITHOUT_POLARS, tmp_path / "rollouts.jsonl", tmp_path / f"{jobs}.jsonl", jobs) == "50"


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [
        ("plain", 100_000, "True False"),
        ("plain \u00a0" + "x" * 500, 30, "True False"),
        ("plain \u00a0" + "x" * 500, 100, "True True"),
        ("\u2014", 30, "True False"),
        ("\u2014", 400, "True True"),
    ],
)
def test_bytes_are_checked_by_polars_once_there_were_many_to_decode(text, count, expected):
    script = f"""
import sys
from fastsft.inputs import encoding
encoding._CHECKED_NBYTES, encoding._to_decode_nbytes = 10_000, 300_000
print(encoding.is_utf8(({text!r} * 10 + "\\n").encode() * {count}), "polars" in sys.modules)
"""
    assert in_a_new_process(script) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("words \u00a8" * 1000, "True False"),
        ("words \u00a8" * 1000 + "\u2028", "True False"),
        ("words \u00a8" * 1000 + "\u2029", "True False"),
        ("\u0085" + "words \u00a8" * 1000, "True False"),
        ("\u4e28" * 1000, "True False"),
        ("\u4e28" * 5000, "True True"),
        ("\u4e28" * 5000 + "\u2028", "True True"),
    ],
)
def test_line_ends_are_searched_by_polars_once_much_was_not_ascii(text, expected):
    """The last byte of what is no line end here is that of one."""
    script = f"""
import sys
from fastsft.inputs import encoding
encoding._to_decode_nbytes = 500_000
text = {text!r}
escaped = text.replace("\\u2028", "\\\\u2028").replace("\\u2029", "\\\\u2029").replace("\\u0085", "\\\\u0085")
for _ in range(2):
    assert encoding.escape_line_separators(text.encode()) == escaped.encode()
print(True, "polars" in sys.modules)
"""
    assert in_a_new_process(script) == expected


def test_the_workers_of_the_command_are_forked(tmp_path):
    """What stands in the way is a thread, or joblib: nothing that reads words may have either."""
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes(lines(rollout(user("?"), said("4"))))
    script = """
import fastsft.cli.main
from fastsft.execution import forked
from fastsft.inputs import shards
shards._LEAST_SPAN_NBYTES = 100  # a span each
may_fork = forked.may_fork
def told():
    print(may_fork())
    return may_fork()
forked.may_fork = told
fastsft.cli.main.main()
"""
    words = ("convert", tmp_path, "--output", tmp_path / "rows" / "train.jsonl", "--jobs", 2, "--quiet")
    assert in_a_new_process(script, *words) == "True"
