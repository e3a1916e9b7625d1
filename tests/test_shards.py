"""Files, folders and globs -> shards; shards -> spans."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

import fastsft
from fastsft.errors import FailedRun, UsageError
from fastsft.inputs.lines import BOM, LineBlock, lines_in
from fastsft.inputs.shards import ByteRange, Shard, find_rollouts, find_shards, spans_of


@pytest.fixture
def folder(tmp_path):
    for name in ("b.jsonl", "a.jsonl", "deep/c.jsonl", "notes.txt", ".hidden.jsonl"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}\n")
    return tmp_path / "in"


def names(found: tuple[list[Shard], list[str]], folder) -> list[str]:
    return [os.path.relpath(shard.path, folder) for shard in found[0]]


@pytest.mark.parametrize("wrong", [b"rollouts", [b"rollouts"], None, 5, [None]])
def test_inputs_of_another_type_are_told(wrong, tmp_path):
    with pytest.raises(UsageError, match=r"an input is a path, as text or a pathlib.Path, not "):
        fastsft.convert(wrong, tmp_path / "rows.jsonl")


def test_there_are_no_pipes(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"a file of that name is \./-"):
        fastsft.convert("-", "rows.jsonl")
    with pytest.raises(UsageError, match=r"a file of that name is \./-"):
        fastsft.convert(folder, "-")


def test_a_folder_means_its_own_rollout_files_in_order(folder):
    assert names(find_shards([folder]), folder) == ["a.jsonl", "b.jsonl"]


def test_a_glob_with_two_stars_goes_deeper(folder):
    assert names(find_shards([f"{folder}/**/*.jsonl"]), folder) == ["a.jsonl", "b.jsonl", "deep/c.jsonl"]


def test_arguments_keep_their_order_and_are_sorted_within(folder):
    found = find_shards([folder / "deep", f"{folder}/[ab].jsonl", folder / "notes.txt"])
    assert names(found, folder) == ["deep/c.jsonl", "a.jsonl", "b.jsonl", "notes.txt"]


def test_a_name_with_magic_characters_that_exists_is_that_file(folder):
    (folder / "[x].jsonl").write_text("{}")
    assert names(find_shards([folder / "[x].jsonl"]), folder) == ["[x].jsonl"]


def test_a_file_counts_once_by_whatever_name(folder):
    (folder / "link.jsonl").symlink_to("a.jsonl")
    found = find_shards([folder / "a.jsonl", folder])
    assert names(found, folder) == ["a.jsonl", "b.jsonl"]
    assert found[1] == [
        f"{folder}/a.jsonl counts once",
        f"{folder}/link.jsonl is {folder}/a.jsonl again, and counts once",
    ]


def test_what_nemo_gym_writes_beside_rollouts_is_left_out_unless_named(folder):
    beside = [
        "x.capture.jsonl",
        "x.tokens.jsonl",
        "x_aggregate_metrics.jsonl",
        "x_failures.jsonl",
        "x_materialized_inputs.jsonl",
        "x_reward_profiling.jsonl",
    ]
    for name in beside:
        (folder / name).write_text("{}")

    by_folder, by_glob = find_shards([folder]), find_shards([f"{folder}/*.jsonl"])

    assert names(by_folder, folder) == names(by_glob, folder) == ["a.jsonl", "b.jsonl"]
    assert by_folder[1] == [f"{folder}/{name} is left out: NeMo Gym writes it beside rollouts" for name in beside]
    assert names(find_shards([folder / beside[1]]), folder) == [beside[1]]
    for number in range(9):
        (folder / f"{number}.capture.jsonl").write_text("{}")
    (note,) = find_shards([folder])[1]
    assert note.startswith("15 files are left out, which NeMo Gym writes beside rollouts, as ")


def test_what_nemo_gym_collects_from_is_left_out_unless_named(folder):
    deeper = folder / "run" / "preprocessed_datasets"
    deeper.mkdir(parents=True)
    (deeper / "train.jsonl").write_text("{}")

    shards, notes = find_shards([f"{folder}/**/*.jsonl"])

    assert [shard.path for shard in shards] == [f"{folder}/a.jsonl", f"{folder}/b.jsonl", f"{folder}/deep/c.jsonl"]
    assert notes == [f"{deeper}/train.jsonl is left out: NeMo Gym writes it beside rollouts"]
    assert [shard.path for shard in find_shards([deeper])[0]] == [f"{deeper}/train.jsonl"]


def test_what_names_nothing_readable_is_said(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for argument, problem in (
        (tmp_path / "none.jsonl", "cannot read .*none.jsonl: No such file"),
        (tmp_path / "empty", "the folder .*empty has no file named"),
        (f"{tmp_path}/*.nothing", "no file matches"),
        (tmp_path / "pipe", "not a regular file"),
    ):
        with pytest.raises(UsageError, match=problem):
            find_shards([argument])


def read(path, span_nbytes: int, nbytes: int = 10**9, max_line: int = 10**9) -> list[LineBlock]:
    return [
        lines
        for span in spans_of(find_shards([path])[0], span_nbytes)
        for one in span.ranges
        for lines in lines_in(one, nbytes=nbytes, max_line=max_line)
    ]


PIECES = st.sampled_from([b"\n", b"a", b"bb\n", b"c" * 9, b"\r\n", b"\xe2\x80\xa8\n"])
DATA = st.lists(PIECES, max_size=30).map(b"".join)
SHORT = DATA.filter(lambda data: max(map(len, data.split(b"\n"))) < 40)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd.compress], ids=["plain", "gz", "zst"])
@given(data=DATA, span_nbytes=st.integers(1, 40), nbytes=st.integers(1, 40))
def test_every_line_is_read_once_whatever_the_span_size(tmp_path_factory, pack, data, span_nbytes, nbytes):
    path = tmp_path_factory.mktemp("spans") / "in.jsonl"
    path.write_bytes(pack(data))

    pieces = read(path, span_nbytes, nbytes)

    assert b"".join(piece.data for piece in pieces) == data
    whole = [piece for piece in pieces if piece.data]
    assert all(piece.data.endswith(b"\n") for piece in whole[:-1])
    for piece in whole:
        assert data[piece.offset : piece.offset + len(piece.data)] == piece.data
        assert piece.too_long_nbytes is None


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd.compress], ids=["plain", "gz", "zst"])
@given(data=SHORT, span_nbytes=st.integers(1, 40), nbytes=st.integers(1, 40), max_line=st.integers(40, 60))
def test_lines_that_are_too_long_are_passed_over(tmp_path_factory, pack, data, span_nbytes, nbytes, max_line):
    long = b"x" * (max_line + 80)
    path = tmp_path_factory.mktemp("long") / "in.jsonl"
    data = data.rstrip(b"ac")
    path.write_bytes(pack(data + long + b"\n" + data + long))

    pieces = read(path, span_nbytes, nbytes, max_line)

    assert b"".join(piece.data for piece in pieces) == data + data
    found = [(piece.offset + len(piece.data), piece.too_long_nbytes) for piece in pieces if piece.too_long_nbytes]
    assert found == [(len(data), len(long)), (2 * len(data) + len(long) + 1, len(long))]


def test_a_byte_order_mark_at_the_start_is_no_part_of_the_line(tmp_path):
    path = tmp_path / "in.jsonl"
    for pack in (bytes, gzip.compress):
        path.write_bytes(pack(b"\xef\xbb\xbf{}\n\xef\xbb\xbf{}\n"))
        assert [lines for lines in read(path, 100) if lines.data] == [LineBlock(b"{}\n\xef\xbb\xbf{}\n", 3)]


def test_a_file_that_changes_stops_the_run(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"{}\n")
    one = ByteRange(find_shards([path])[0][0], 0, 3)
    path.write_bytes(b"{}\n{}\n")
    with pytest.raises(FailedRun, match=r"in\.jsonl changed while it was read"):
        next(lines_in(one, nbytes=9, max_line=9))
    path.unlink()
    with pytest.raises(FailedRun, match=r"cannot read .*in\.jsonl: No such file"):
        next(lines_in(one, nbytes=9, max_line=9))


# Files that are no files of rollouts.

GOOD = {"responses_create_params": {"input": "?"}, "output": [], "reward": 1.0}
ROW = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "4"}]}
TABLE = "name,reward\na,1\nb,0\n"


def parquet(path: Path) -> None:
    pl.DataFrame({"a": [1]}).write_parquet(path)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        (
            "a.jsonl",
            json.dumps([GOOD, GOOD]),
            "one JSON array and not JSON lines; write one element a line: jq -c",
        ),
        ("a.json", json.dumps([GOOD] * 3, indent=1), "one JSON array and not JSON lines"),
        ("a.json", json.dumps(GOOD, indent=2), "pretty-printed JSON and not JSON lines; .* jq -c . a.json"),
        ("a.csv", TABLE, r"a table of text \(CSV\)"),
        ("a.jsonl", TABLE.replace(",", "\t"), r"a table of text \(CSV\)"),
        (
            "a.parquet",
            parquet,
            r"is Parquet and not JSON lines; convert it first: python -c .*read_parquet\(\"a.parquet\"\)",
        ),
        ("a.jsonl", json.dumps(ROW) + "\n" + json.dumps(ROW), "holds rows and not rollouts; .* fastsft check a.jsonl"),
        ("a.jsonl", '{"input": "a", "output": "b"}\n', "holds rows and not rollouts"),
        ("a.jsonl.gz", gzip.compress(json.dumps(ROW).encode(), mtime=0), "holds rows and not rollouts"),
        ("a.jsonl.bz2", bz2.compress(b"x"), "is bzip2 and not JSON lines; convert it first: bunzip2 a.jsonl.bz2"),
    ],
)
def test_what_is_no_file_of_rollouts_is_told_once_with_the_way_out(tmp_path, name, content, problem):
    path = tmp_path / name
    if callable(content):
        content(path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for run in (
        lambda: fastsft.convert(path, tmp_path / "rows.jsonl"),
        lambda: fastsft.stats(path),
        lambda: fastsft.index(path, tmp_path / "i.parquet"),
    ):
        with pytest.raises(FailedRun, match=problem):
            run()
    assert os.listdir(tmp_path) == [name]

    (tmp_path / "good.jsonl").write_text(json.dumps({**GOOD, "output": [ROW["messages"][1]]}) + "\n")
    report = fastsft.convert([path, tmp_path / "good.jsonl"], tmp_path / "out" / "rows.jsonl")

    assert (report.rows, report.fates.lines) == (1, 1)
    assert [bool(re.search(problem, shard.problem or "")) for shard in report.inputs] == [True, False]
    assert [bool(re.search(problem, note)) for note in fastsft.stats([path, tmp_path / "good.jsonl"]).notes] == [True]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps([1]) + "\n" + json.dumps(GOOD),
        "{\n" + json.dumps(GOOD),
        json.dumps(ROW) + "\n" + json.dumps(GOOD),
        "a,b\n" + json.dumps(GOOD),
        '[{"a":\n' + json.dumps(GOOD),
        '{"messages": "none"}\n',
        "hello\n",
        "",
    ],
)
def test_a_file_in_which_there_may_be_rollouts_is_read_line_by_line(tmp_path, content):
    (tmp_path / "a.jsonl").write_text(content)
    assert find_rollouts([tmp_path / "a.jsonl"])[0][0].problem is None


def test_a_folder_whose_files_lie_deeper_is_told_with_the_glob(tmp_path):
    (tmp_path / "run/deep").mkdir(parents=True)
    (tmp_path / "run/deep/a.jsonl").write_text("{}")
    with pytest.raises(UsageError, match=r"has no file .*; there are some deeper: '.*/run/\*\*/\*.jsonl' finds them"):
        find_shards([tmp_path / "run"])


@pytest.mark.parametrize("mark", [b"", BOM])
def test_a_byte_order_mark_is_no_part_of_a_long_line(tmp_path, mark):
    (tmp_path / "in.jsonl").write_bytes(mark + b"x" * 60 + b"\ny\n")

    assert [lines.too_long_nbytes for lines in read(tmp_path / "in.jsonl", 1000, nbytes=20, max_line=60)] == [None] * 2
    assert read(tmp_path / "in.jsonl", 1000, nbytes=20, max_line=59)[0].too_long_nbytes == 60


def test_a_file_that_holds_less_than_it_says_is_named(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"x\n")
    at = path.stat()
    shard = Shard(str(path), 100, at.st_mtime_ns)
    with pytest.MonkeyPatch.context() as patch:
        said = SimpleNamespace(st_size=100, st_mtime_ns=at.st_mtime_ns, st_mode=at.st_mode)
        patch.setattr("fastsft.inputs.lines.os.fstat", lambda _: said)
        with pytest.raises(
            FailedRun, match=rf"cannot read {re.escape(str(path))}: it became shorter while it was read"
        ):
            list(lines_in(ByteRange(shard, 0, 100), nbytes=9, max_line=99))
