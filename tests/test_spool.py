"""What a worker hands over reaches the writer whole, however long its rows are."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fastsft import spool
from fastsft.spool import Held, Slots, share, spooled, take_spool


@pytest.mark.parametrize("lengths", [[], [1], [4095, 1, 4096], [100] * 300, [70_000, 3, 9_000, 120_000]])
def test_rows_taken_from_the_spool_are_those_handed_over(tmp_path, monkeypatch, lengths):
    monkeypatch.setattr(spool, "_COPY_NBYTES", 8192)
    rows = [bytes([97 + index % 26]) * (length - 1) + b"\n" for index, length in enumerate(lengths)]
    with spooled(tmp_path, 7, 1) as handover:
        for row in rows:
            handover.write(row)
    assert handover.held is None

    taken = [(bytes(some), count) for some, count in take_spool(tmp_path, 7, len(rows))]

    assert b"".join(some for some, _ in taken) == b"".join(rows)
    assert [some.count(b"\n") for some, _ in taken] == [count for _, count in taken]
    assert all(some.endswith(b"\n") for some, _ in taken)
    assert list(tmp_path.iterdir()) == []


def hand_over_and_fail(folder: Path, rows: bytes) -> None:
    with spooled(folder, 7, len(rows)) as handover:
        handover.write(rows)
        raise ZeroDivisionError


def test_what_a_failing_worker_wrote_is_not_handed_over(tmp_path):
    with pytest.raises(ZeroDivisionError):
        hand_over_and_fail(tmp_path, b"row\n")

    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def slots(monkeypatch):
    monkeypatch.setattr(spool, "_SLOT_NBYTES", 8192)
    monkeypatch.setattr(spool, "_SLOTS_EACH", 2)
    monkeypatch.setattr(spool, "_slots", None)
    share(Slots(1))
    return spool._slots


def hand_over(folder: Path, index: int, rows: list[bytes]) -> Held | None:
    with spooled(folder, index, sum(map(len, rows))) as handover:
        for row in rows:
            handover.write(row)
    return handover.held


def test_rows_that_fit_in_a_slot_are_handed_over_there_and_leave_it_to_the_next(slots, tmp_path):
    first = hand_over(tmp_path, 7, [b"a" * 8000 + b"\n", b"b" * 190 + b"\n"])
    second = hand_over(tmp_path, 8, [b"c\n"])

    assert (first, second) == (Held(0, 0, 8192), Held(1, 0, 2))
    with slots.taken(first) as rows:
        assert bytes(rows) == b"a" * 8000 + b"\n" + b"b" * 190 + b"\n"
        assert slots.room(1) == (1, 2)
    assert hand_over(tmp_path, 9, [b"d\n"]) == Held(0, 0, 2)
    assert list(tmp_path.iterdir()) == []


def test_small_ones_share_a_slot_until_all_of_them_are_taken(slots, tmp_path):
    held = [hand_over(tmp_path, index, [b"%d\n" % index]) for index in range(3)]
    taken = []
    for one in held[:2]:
        with slots.taken(one) as rows:
            taken.append(bytes(rows))

    assert held == [Held(0, 0, 2), Held(0, 2, 2), Held(0, 4, 2)]
    assert taken == [b"0\n", b"1\n"]
    assert hand_over(tmp_path, 3, [b"3\n"]) == Held(0, 6, 2)
    for one in (held[2], Held(0, 6, 2)):
        with slots.taken(one) as rows:
            assert bytes(rows) == b"%d\n" % (one.start // 2)
    assert hand_over(tmp_path, 4, [b"4\n"]) == Held(0, 0, 2)


@pytest.mark.parametrize("rows", [[], [b"a\n"]])
def test_no_more_lie_in_a_slot_than_a_byte_can_count(slots, tmp_path, rows):
    held = [hand_over(tmp_path, index, rows) for index in range(600)]

    assert [sum(one is not None and one.slot == slot for one in held) for slot in (0, 1)] == [255, 255]
    for one in held[:255]:
        with slots.taken(one) as taken:
            assert bytes(taken) == b"".join(rows)
    assert hand_over(tmp_path, 600, rows) == Held(0, 0, len(b"".join(rows)))


def test_each_worker_has_slots_of_its_own(monkeypatch):
    monkeypatch.setattr(spool, "_SLOT_NBYTES", 8192)
    monkeypatch.setattr(spool, "_SLOTS_EACH", 2)
    slots = Slots(2)
    for worker in range(2):
        slots.own()
        for slot in (0, 1):
            assert slots.room(9000) == (2 * worker + slot, 0)
            slots.give(Held(2 * worker + slot, 0, 8192))
        assert slots.room(1) is None


@pytest.mark.parametrize("rows", [[b"a" * 8192 + b"\n"], [b"a" * 8000 + b"\n", b"b" * 191 + b"\n", b"c\n"]])
def test_rows_that_do_not_fit_in_a_slot_are_handed_over_in_a_file(slots, tmp_path, rows):
    assert hand_over(tmp_path, 7, rows) is None

    assert [(bytes(some), count) for some, count in take_spool(tmp_path, 7, len(rows))] == [(b"".join(rows), len(rows))]
    assert hand_over(tmp_path, 8, [b"c\n"]) == Held(0, 0, 2)


def test_rows_that_find_no_free_slot_are_handed_over_in_a_file(slots, tmp_path):
    rows = b"a" * 8191 + b"\n"
    assert [hand_over(tmp_path, index, [rows]) for index in range(3)] == [Held(0, 0, 8192), Held(1, 0, 8192), None]

    assert [(bytes(some), count) for some, count in take_spool(tmp_path, 2, 1)] == [(rows, 1)]


@pytest.mark.parametrize("rows", [b"a\n", b"a" * 9000 + b"\n"])
def test_a_failing_worker_leaves_its_slot_to_others(slots, tmp_path, rows):
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            hand_over_and_fail(tmp_path, rows)

    assert hand_over(tmp_path, 8, [b"c\n"]) == Held(0, 0, 2)
    assert list(tmp_path.iterdir()) == []


def test_where_there_is_no_memory_for_slots_there_are_none(tmp_path, monkeypatch):
    monkeypatch.setattr(spool, "_SLOT_NBYTES", 1 << 60)
    monkeypatch.setattr(spool, "_slots", None)
    share(Slots(2))
    assert hand_over(tmp_path, 7, [b"row\n"]) is None


def test_rows_that_the_disk_takes_in_part_are_not_handed_over(tmp_path):
    script = (
        "import resource, signal, sys; from pathlib import Path; from fastsft.spool import spooled\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "with spooled(Path(sys.argv[1]), 7, 30_000) as handover: handover.write(b'x' * 29_999 + b'\\n')"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, timeout=60)

    assert re.search(r"FailedRun: cannot write .*: File too large; nothing was published", done.stderr)
    assert list(tmp_path.iterdir()) == []
