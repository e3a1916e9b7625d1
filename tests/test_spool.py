"""What a worker hands over reaches the writer whole, however long its rows are."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from fastsft import spool
from fastsft.spool import spooled, take_spool


@pytest.mark.parametrize("lengths", [[], [1], [4095, 1, 4096], [100] * 300, [70_000, 3, 9_000, 120_000]])
def test_rows_taken_from_the_spool_are_those_handed_over(tmp_path, monkeypatch, lengths):
    monkeypatch.setattr(spool, "_COPY_NBYTES", 8192)
    rows = [bytes([97 + index % 26]) * (length - 1) + b"\n" for index, length in enumerate(lengths)]
    with spooled(tmp_path, 7) as hand_over:
        for row in rows:
            hand_over(row)

    taken = [(bytes(some), count) for some, count in take_spool(tmp_path, 7, len(rows))]

    assert b"".join(some for some, _ in taken) == b"".join(rows)
    assert [some.count(b"\n") for some, _ in taken] == [count for _, count in taken]
    assert all(some.endswith(b"\n") for some, _ in taken)
    assert list(tmp_path.iterdir()) == []


def test_what_a_failing_worker_wrote_is_not_handed_over(tmp_path):
    def fail() -> None:
        with spooled(tmp_path, 7) as hand_over:
            hand_over(b"row\n")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert list(tmp_path.iterdir()) == []


def test_rows_that_the_disk_takes_in_part_are_not_handed_over(tmp_path):
    script = (
        "import resource, signal, sys; from pathlib import Path; from fastsft.spool import spooled\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "with spooled(Path(sys.argv[1]), 7) as hand_over: hand_over(b'x' * 29_999 + b'\\n')"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, timeout=60)

    assert re.search(r"FailedRun: cannot write .*: File too large; nothing was published", done.stderr)
    assert list(tmp_path.iterdir()) == []
