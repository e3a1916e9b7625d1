"""Whatever operation fails, an output is absent, old or new, and the next run gives the same as if nothing had been.

A few of them, of three plans; `tox -e faults` takes more, of all plans, and every one where it is asked to.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import PROJECT


@pytest.mark.parametrize(
    ("plan", "before", "faults"),
    [
        ("one-file", "older", ["once-EIO", "killed"]),
        ("shards-by-size", "left", ["always-ENOSPC"]),
        ("splits", "older", ["killed-after"]),
    ],
)
def test_what_is_left_by_operations_that_fail(plan, before, faults):
    command = [sys.executable, "tests/faulty.py", plan, "--before", before, "--every", "31", "--faults", *faults]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)

    assert done.stderr == ""
    *wrong, last = done.stdout.splitlines()
    assert wrong == []
    assert int(last.split()[0]) > 4
