"""What a span leaves, and how files are put together from it."""

from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from fastsft import FailedRun
from fastsft.outputs import assembly
from fastsft.outputs.assembly import FilePlan, Piece, files_by_count, files_by_size
from fastsft.outputs.receipts import RangeFates, Receipt, Segment
from fastsft.outputs.segments import SegmentWriter
from fastsft.outputs.staging import write_receipt
from fastsft.report import Fates, RefusedLine
from fastsft.storage.files import make_sparse


def written(folder: Path, blocks: list[bytes], *, most_nbytes: int | None = None, name: str = "span") -> list[Segment]:
    with SegmentWriter(folder, name, most_nbytes=most_nbytes) as writer:
        for block in blocks:
            writer.write_rows(block, block.count(b"\n"))
        return writer.finish()[0]


def test_rows_are_cut_at_whole_rows_where_a_segment_is_full(tmp_path):
    segments = written(tmp_path, [b"1\n22\n333\n4444444\n5\n", b"6\n7\n"], most_nbytes=6)

    contents = [(tmp_path / segment.name).read_bytes() for segment in segments]
    assert contents == [b"1\n22\n", b"333\n", b"4444444\n", b"5\n6\n7\n"]
    assert [(segment.rows, segment.nbytes, segment.sha256) for segment in segments] == [
        (content.count(b"\n"), len(content), hashlib.sha256(content).hexdigest()) for content in contents
    ]


def test_what_was_written_of_a_damaged_shard_is_forgotten(tmp_path):
    refused = RefusedLine("a.jsonl", 1, 0, "bad_json", "torn")
    with SegmentWriter(tmp_path, "span", most_nbytes=8) as writer:
        writer.write_rows(b"good\n", 1)
        mark = writer.mark()
        writer.write_rows(b"bad\nbad\nbad\n", 3)
        writer.write_refused([refused])
        writer.go_back(mark)
        writer.write_rows(b"ok\n", 1)
        segments, listed = writer.finish()

    assert [(tmp_path / segment.name).read_bytes() for segment in segments] == [b"good\nok\n"]
    assert [segment.sha256 for segment in segments] == [hashlib.sha256(b"good\nok\n").hexdigest()]
    assert (listed, len(list(tmp_path.iterdir()))) == (None, 1)


def test_a_span_that_is_done_holds_no_file_open(tmp_path):
    """As a worker does thousands."""
    before = os.listdir("/proc/self/fd")
    with SegmentWriter(tmp_path, "span", most_nbytes=4) as writer:
        writer.write_rows(b"1\n2\n3\n4\n5\n", 5)
        writer.write_refused([RefusedLine("a.jsonl", 1, 0, "bad_json", "torn")])
        segments, refused = writer.finish()

    assert ([segment.rows for segment in segments], refused.rows) == ([2, 2, 1], 1)
    assert os.listdir("/proc/self/fd") == before


def fail(folder: Path) -> None:
    with SegmentWriter(folder, "span") as writer:
        writer.write_rows(b"2\n", 1)
        raise ZeroDivisionError


def test_a_span_that_fails_leaves_nothing_and_two_attempts_never_share_a_file(tmp_path):
    first = written(tmp_path, [b"1\n"])
    second = written(tmp_path, [b"1\n"])
    with pytest.raises(ZeroDivisionError):
        fail(tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([first[0].name, second[0].name])
    assert first[0].name != second[0].name


def test_a_late_span_of_a_run_that_was_killed_reaches_no_other_run(tmp_path):
    receipt = Receipt(0, [RangeFates(0, Fates())])
    with pytest.raises(FailedRun, match="is gone: the run was ended or another has begun"):
        write_receipt(tmp_path / "0123456789abcdef", "convert", receipt)


SIZES = st.lists(st.integers(0, 5), max_size=9)


def segments_of(sizes: list[int]) -> list[Segment]:
    """Segments of so many rows, of 10 bytes each."""
    return [Segment(str(index), rows, 10 * rows, "") for index, rows in enumerate(sizes)]


@given(sizes=SIZES, nbytes=st.integers(1, 120))
def test_files_by_size_hold_whole_segments_in_order_and_none_fits_more(sizes, nbytes):
    segments = segments_of(sizes)
    files = files_by_size(segments, nbytes)

    assert [piece.segment for pieces in files for piece in pieces] == [one for one in segments if one.rows]
    assert all(piece.is_whole for pieces in files for piece in pieces)
    for pieces, following in zip(files, [*files[1:], []], strict=True):
        filled = sum(piece.segment.nbytes for piece in pieces)
        assert filled <= nbytes or len(pieces) == 1
        assert not following or filled + following[0].segment.nbytes > nbytes


@given(sizes=SIZES, count=st.integers(1, 9))
def test_files_by_count_have_equal_rows_in_order(sizes, count):
    files = files_by_count(segments_of(sizes), count)
    rows = [sum(piece.rows for piece in pieces) for pieces in files]

    assert sum(rows) == sum(sizes)
    assert max(rows) - min(rows) <= 1
    assert len(rows) == max(1, min(count, sum(sizes)))
    taken = [(p.segment.name, row) for pieces in files for p in pieces for row in range(p.first, p.last or p.rows)]
    assert taken == [(str(index), row) for index, size in enumerate(sizes) for row in range(size)]


@pytest.mark.parametrize("compression", [None, "gz", "zst"])
def test_a_file_is_its_pieces_end_to_end(tmp_path, compression):
    unpack = {None: bytes, "gz": gzip.decompress, "zst": zstd.decompress}[compression]
    first, second = (written(tmp_path, [rows])[0] for rows in (b"1\n2\n3\n", b"4\n5\n6\n"))
    plan = FilePlan("rows.jsonl", [Piece(first, 1), Piece(second, 0, 2)])

    built = assembly.build_file(plan, tmp_path / "rows.jsonl", tmp_path, compression, threads=2)

    data = (tmp_path / "rows.jsonl").read_bytes()
    assert unpack(data) == b"2\n3\n4\n5\n"
    assert (built.rows, built.nbytes, built.sha256) == (4, len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("has_kernel", [True, False])
@pytest.mark.parametrize("jobs", [1, 2, 7])
def test_segments_are_copied_to_their_places_by_any_number_of_workers(tmp_path, monkeypatch, jobs, has_kernel):
    if not has_kernel:
        monkeypatch.delattr("os.copy_file_range", raising=False)
    blocks = [bytes([97 + index]) * (1000 * index) + b"\n" for index in range(9)]
    segments = [written(tmp_path, [block])[0] for block in blocks]
    plan = FilePlan("rows.jsonl", [Piece(segment) for segment in segments])
    make_sparse(tmp_path / "rows.jsonl", sum(map(len, blocks)))

    for task in reversed(assembly.copies_of(plan, str(tmp_path / "rows.jsonl"), jobs)):
        assembly.copy_segments(task, tmp_path)

    assert (tmp_path / "rows.jsonl").read_bytes() == b"".join(blocks)
    assert assembly.digest_of([s.name for s in segments], tmp_path) == hashlib.sha256(b"".join(blocks)).hexdigest()
