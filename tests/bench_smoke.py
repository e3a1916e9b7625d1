"""Every benchmark runs at toy size; run by tox's bench-smoke, not with the tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
BENCHMARKS = sorted(FOLDER.glob("bench_*.py"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_runs(path):
    command = [sys.executable, str(path), "--size", "300kB", "--pairs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "CPython" in done.stdout or done.stdout.startswith("not measured: pip install ")


def test_the_simulation_runs():
    command = [sys.executable, str(FOLDER / "simulate.py"), "--workers", "2", "50", "--bytes", "1GB", "--span", "8MB"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
