"""A run imports what it needs: Polars takes each process 0.12 s and 50 MB, and is not needed by most."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from builders import in_a_new_process, lines, rollout, said, user

import fastsft

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
    ("by_polars", "text", "expected"),
    [
        (False, "\u4e28" * 1000, "True False"),
        (True, "plain" * 1000, "True False"),
        (True, "plain" * 10_000 + "\u4e28", "True False"),
        (True, "\u4e28" * 1000, "True True"),
    ],
)
def test_text_that_is_dense_beyond_ascii_is_checked_by_polars_where_the_caller_says_that_it_pays(
    by_polars, text, expected
):
    script = f"""
import sys
from fastsft.inputs import encoding
for _ in range(99):  # what a process has seen before decides nothing
    checked = encoding.is_utf8(({text!r} + "\\n").encode(), by_polars={by_polars})
print(checked, "polars" in sys.modules)
"""
    assert in_a_new_process(script) == expected


@pytest.mark.parametrize(
    ("by_polars", "text", "expected"),
    [
        (True, "words \u00a8" * 10, "True False"),
        (True, "\u0085" + "words \u00a8" * 1000, "True True"),
        (False, "\u4e28" * 5000, "True False"),
        (True, "\u4e28" * 5000, "True True"),
        (True, "\u4e28" * 5000 + "\u2028", "True True"),
    ],
)
def test_line_ends_are_searched_by_polars_where_their_last_bytes_are_many(by_polars, text, expected):
    script = f"""
import sys
from fastsft.inputs import encoding
text = {text!r}
escaped = text.replace("\\u2028", "\\\\u2028").replace("\\u2029", "\\\\u2029").replace("\\u0085", "\\\\u0085")
assert encoding.escape_line_separators(text.encode(), by_polars={by_polars}) == escaped.encode()
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
shards._MOST_SPAN_NBYTES = 100  # a span each
may_fork = forked.may_fork
def told():
    print(may_fork())
    return may_fork()
forked.may_fork = told
fastsft.cli.main.main()
"""
    words = ("convert", tmp_path, "--output", tmp_path / "rows" / "train.jsonl", "--jobs", 2, "--quiet")
    assert in_a_new_process(script, *words) == "True"


INTERRUPTED_WHILE_IT_IMPORTS = """
import os, signal, sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
from fastsft.cli.entry import begin
begin()
"""


@pytest.mark.parametrize("module", ["fastsft.cli.main", "msgspec", "typer"])
def test_an_interrupt_while_the_command_imports_ends_it_without_a_traceback(module):
    command = [sys.executable, "-c", INTERRUPTED_WHILE_IT_IMPORTS, module]
    done = subprocess.run(command, capture_output=True, text=True)

    assert done.returncode in (-signal.SIGINT, 128 + signal.SIGINT)  # the same to a shell
    assert "Traceback" not in done.stderr


def test_the_package_imports_its_parts_when_they_are_asked_for():
    script = "import sys, fastsft; print('msgspec' in sys.modules, fastsft.Options.__name__, 'convert' in dir(fastsft))"
    assert in_a_new_process(script) == "False Options True"
    with pytest.raises(AttributeError, match=r"module 'fastsft' has no attribute 'nothing'"):
        fastsft.nothing  # noqa: B018
