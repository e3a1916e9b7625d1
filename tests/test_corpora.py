"""Hostile documents and texts, and files that are cut: each line has the fate that is written down for it."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
from backports import zstd
from builders import assistant, call, line, returned, rollout, said, tool, turn, user
from hostile import ANSWERS, NO_ANSWERS, PLACES, TEXT_PLACES, THOUGHTS, documents, placed, row_with, texts
from naive_reader import agree, decoded, decoded_row, form_of, is_blank, lines_of

import fastsft
from fastsft import Fates, Options, Report, UsageError
from fastsft.pipeline import run

DOCUMENTS = documents()
TEXTS = texts()
GOOD = line(rollout(user("?"), said("4")))  # first in each shard, so that it is surely one of rollouts
PLAIN = {"messages": [turn("user", "?"), assistant("4")]}


class Outcome(NamedTuple):
    """What became of the lines of a shard: a fate for each, the rows of the kept ones, the list of the refused ones."""

    report: Report
    fates: list[str]
    rows: dict[int, bytes]
    refused: list[dict[str, Any]]


def converted(data: bytes, folder: Path, **options: Any) -> Outcome:
    folder.mkdir(exist_ok=True)
    (folder / "in.jsonl").write_bytes(data)
    report = run([folder / "in.jsonl"], folder / "out/train.jsonl", Options(**options))
    rows = (folder / "out/train.jsonl").read_bytes().splitlines(keepends=True)
    listed = folder / "out/train.refused"
    refused = [json.loads(entry) for entry in listed.read_bytes().splitlines()] if listed.exists() else []
    reasons = {entry["line"] - 1: entry["reason"] for entry in refused}
    lines = lines_of(data)
    fates = [reasons.get(number, "blank" if is_blank(one) else "kept") for number, one in enumerate(lines)]
    kept = [number for number, fate in enumerate(fates) if fate == "kept"]
    return Outcome(report, fates, dict(zip(kept, rows, strict=True)), refused)


def fates_of(fates: list[str]) -> Fates:
    """Add up fates as a report does."""
    counts = Counter(fates)
    refused = {reason: counts[reason] for reason in sorted(counts) if reason not in ("kept", "blank")}
    return Fates(lines=len(fates), kept=counts["kept"], blank=counts["blank"], refused=refused)


# Documents.


@pytest.fixture(scope="module", params=PLACES)
def place(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def at_the_place(place, tmp_path_factory) -> dict[str, tuple[str, list[bytes]]]:
    """By the name of a document, what became of its line, or lines, and their rows."""
    parts = [placed(document.data, place) for document in DOCUMENTS]
    outcome = converted(GOOD + b"".join(parts), tmp_path_factory.mktemp("documents"), jobs=1)
    found, number = {}, 1
    for document, part in zip(DOCUMENTS, parts, strict=True):
        numbers = range(number, number + part.count(b"\n"))
        rows = [outcome.rows[one] for one in numbers if one in outcome.rows]
        found[document.name] = ("+".join(outcome.fates[one] for one in numbers), rows)
        number += len(numbers)
    assert number == len(outcome.fates)
    return found


def test_a_document_has_the_fate_that_is_written_down_for_its_place(place, at_the_place):
    assert {name: fate for name, (fate, _) in at_the_place.items()} == {
        document.name: document.fate(place) for document in DOCUMENTS
    }


def test_the_row_of_a_document_holds_what_a_plain_reader_decodes_numbers_as_they_are_written(place, at_the_place):
    rows = {name: [decoded_row(row) for row in rows] for name, (_, rows) in at_the_place.items()}

    assert rows == {
        document.name: [_row_of(document.data, place)] if document.fate(place) == "kept" else []
        for document in DOCUMENTS
    }


def _row_of(document: bytes, place: str) -> Any:
    return row_with(None if place.startswith("unknown") else decoded(document), place)


def test_what_is_written_down_is_what_the_grammar_says(place):
    """The table against a naive reader, without fastsft."""
    for document in DOCUMENTS:
        forms = list(map(form_of, lines_of(placed(document.data, place))))
        fates = document.fate(place).split("+")
        assert (document.name, list(map(agree, fates, forms))) == (document.name, [True] * len(forms))


# Texts.


@pytest.fixture(scope="module", params=[False, True], ids=["as it is", "escaped"])
def outcomes_of_texts(request, tmp_path_factory) -> dict[tuple[str, str], tuple[str, bytes]]:
    """By place and name of a text, the fate and the row of the line that has it there."""
    made = {(where, name): lines.rollout(text) for where, lines in TEXT_PLACES.items() for name, text in TEXTS.items()}
    data = [json.dumps(value, ensure_ascii=request.param).encode() + b"\n" for value in made.values()]
    outcome = converted(GOOD + b"".join(data), tmp_path_factory.mktemp("texts"), jobs=1)
    return {where: (outcome.fates[at], outcome.rows.get(at, b"")) for at, where in enumerate(made, 1)}


def test_a_text_is_kept_wherever_it_stands(outcomes_of_texts):
    assert {where: fate for where, (fate, _) in outcomes_of_texts.items() if fate != "kept"} == NO_ANSWERS


def test_a_text_comes_out_code_point_for_code_point_wherever_it_stands(outcomes_of_texts):
    wrong = {
        (where, name): row[:300]
        for (where, name), (fate, row) in outcomes_of_texts.items()
        if fate == "kept" and decoded_row(row) != TEXT_PLACES[where].row(_expected(where, name))
    }

    assert wrong == {}


def _expected(where: str, name: str) -> str:
    return THOUGHTS.get(name, TEXTS[name]) if where in ANSWERS else TEXTS[name]


@pytest.fixture(scope="module")
def file_of_texts(tmp_path_factory) -> Path:
    """A file of rows with all texts as what is asked, answered and returned."""
    folder = tmp_path_factory.mktemp("file")
    values = [rollout(user(text), call("f", a=text), returned(text), said("4")) for text in TEXTS.values()]
    converted(b"".join(map(line, values)), folder, jobs=1)
    return folder / "out/train.jsonl"


def read_by_polars(path: Path) -> list[Any]:
    return pl.read_ndjson(path).to_dicts()


def read_by_pyarrow(path: Path) -> list[Any]:
    json_reader = pytest.importorskip("pyarrow.json")
    options = json_reader.ReadOptions(block_size=1 << 24)
    return json_reader.read_json(path, read_options=options).to_pylist()


def read_by_duckdb(path: Path) -> list[Any]:
    table = pytest.importorskip("duckdb").sql(f"SELECT * FROM read_json('{path}', format='newline_delimited')")
    return [dict(zip(table.columns, row, strict=True)) for row in table.fetchall()]


@pytest.mark.parametrize("reader", [read_by_polars, read_by_pyarrow, read_by_duckdb])
def test_other_readers_of_rows_read_the_same_texts(file_of_texts, reader: Callable[[Path], list[Any]]):
    said = [
        [
            row["messages"][0]["content"],
            row["messages"][1]["tool_calls"][0]["arguments"]["a"],
            row["messages"][2]["content"],
        ]
        for row in reader(file_of_texts)
    ]

    assert said == [[text] * 3 for text in TEXTS.values()]


def test_polars_reads_the_same_texts_as_keys(outcomes_of_texts):
    """A row at a time, as it gives all rows of a file all keys."""
    rows = {name: outcomes_of_texts["key of an argument", name][1] for name in TEXTS}
    read = {name: pl.read_ndjson(io.BytesIO(row)).to_dicts() for name, row in rows.items()}

    assert {name: row["messages"][1]["tool_calls"][0]["arguments"] for name, (row,) in read.items()} == {
        name: {text: text} for name, text in TEXTS.items()
    }


# All of it in one shard.


class Everything(NamedTuple):
    """The lines of all documents and texts at all places, and the fate of each: written down, and its form."""

    data: bytes
    fates: list[str]
    forms: list[str]


@pytest.fixture(scope="module")
def everything() -> Everything:
    parts, fates = [GOOD], ["kept"]
    for where in PLACES:
        for document in DOCUMENTS:
            parts.append(placed(document.data, where))
            fates += document.fate(where).split("+")
    for where, made in TEXT_PLACES.items():
        parts += [line(made.rollout(text)) for text in TEXTS.values()]
        fates += [NO_ANSWERS.get((where, name), "kept") for name in TEXTS]
    data = b"".join(parts)
    return Everything(data, fates, list(map(form_of, lines_of(data))))


@pytest.fixture(scope="module")
def in_one_span(everything, tmp_path_factory) -> Outcome:
    return converted(everything.data, tmp_path_factory.mktemp("everything"), jobs=1)


def test_the_ledger_is_that_of_a_naive_reader(everything, in_one_span):
    offsets = [0]
    for one in lines_of(everything.data):
        offsets.append(offsets[-1] + len(one) + 1)

    assert in_one_span.fates == everything.fates
    assert all(map(agree, in_one_span.fates, everything.forms))
    assert in_one_span.report.fates == fates_of(everything.fates)
    assert [(entry["line"], entry["offset"], entry["reason"]) for entry in in_one_span.refused] == [
        (number, offset, fate)
        for number, (offset, fate) in enumerate(zip(offsets, everything.fates, strict=False), 1)
        if fate not in ("kept", "blank")
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"jobs": 1, "span_nbytes": 40_000},
        {"jobs": 2, "span_nbytes": 300_000},
        {"jobs": 1, "best_of": 10**9},  # two passes
    ],
)
def test_spans_jobs_and_passes_change_nothing_of_it(everything, in_one_span, options, tmp_path):
    outcome = converted(everything.data, tmp_path, **options)

    assert outcome.fates == in_one_span.fates
    assert outcome.report.fates == in_one_span.report.fates
    assert outcome.rows == in_one_span.rows
    assert sorted(map(without_shard, outcome.refused)) == list(map(without_shard, in_one_span.refused))


def without_shard(refused: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(refused[name] for name in ("line", "offset", "reason", "problem"))


def test_a_byte_order_mark_is_passed_over_where_a_file_begins_and_nowhere_else(tmp_path):
    mark = b"\xef\xbb\xbf"

    outcome = converted(mark + GOOD + mark + GOOD + mark + b"\n" + GOOD, tmp_path, jobs=1)

    assert outcome.fates == ["kept", "bad_json", "bad_json", "kept"]


# Files that are cut.

ROLLOUTS = [
    rollout(user("?"), said("4")),
    rollout(user("é\u2028数"), call("f", **{"ä\n": "\\😀"}), returned('"ü"\t'), said("✓ \u00e9")),
    rollout(user("😀"), said("数")),
]
# The second as it is, the third in escapes, pairs among them.
LINES = [line(ROLLOUTS[0]), line(ROLLOUTS[1]), json.dumps(ROLLOUTS[2]).encode() + b"\n"]
ROWS = [
    PLAIN,
    {
        "messages": [
            turn("user", "é\u2028数"),
            assistant(calls=[("f", {"ä\n": "\\😀"})]),
            tool('"ü"\t'),
            assistant("✓ \u00e9"),
        ]
    },
    {"messages": [turn("user", "😀"), assistant("数")]},
]


def cut_files(data: bytes, first: int, folder: Path) -> dict[str, bytes]:
    """Write the file cut at each byte from `first` on, in a folder; return what each holds, by its path."""
    folder.mkdir()
    cuts = {str(folder / f"{position:05}.jsonl"): data[:position] for position in range(first, len(data) + 1)}
    for path, left in cuts.items():
        Path(path).write_bytes(left)
    return cuts


def naive_fates(data: bytes) -> list[str]:
    """Name the fate of each line of a beginning of `LINES`: that of its form, and kept where it is whole."""
    return ["kept" if form == "object" else form for form in map(form_of, lines_of(data))]


@pytest.fixture(scope="module")
def cuts(tmp_path_factory) -> dict[str, bytes]:
    """The file cut at each byte of its last two lines, and behind them."""
    cuts = cut_files(b"".join(LINES), len(LINES[0]), tmp_path_factory.mktemp("cuts") / "in")
    assert len(cuts) == len(LINES[1]) + len(LINES[2]) + 1
    return cuts


@pytest.mark.parametrize("options", [{"jobs": 1}, {"jobs": 1, "span_nbytes": 300}, {"jobs": 2, "span_nbytes": 20_000}])
def test_a_file_cut_at_any_byte_of_its_last_two_lines_loses_the_cut_line_alone(cuts, tmp_path, options):
    report = run(list(cuts), tmp_path / "train.jsonl", Options(**options))

    assert {shard.path: shard.fates for shard in report.inputs} == {
        path: fates_of(naive_fates(left)) for path, left in cuts.items()
    }
    rows = (tmp_path / "train.jsonl").read_bytes().splitlines(keepends=True)
    whole = [naive_fates(left).count("kept") for left in cuts.values()]
    assert list(map(decoded_row, rows)) == [row for count in whole for row in ROWS[:count]]


def test_a_cut_line_is_bad_json_or_bad_utf8_where_a_character_is_cut():
    """The naive reader, held to what a cut does."""
    data = b"".join(LINES)
    for position in range(len(LINES[0]), len(data) + 1):
        left, rest = data[:position], data[position:]
        is_whole = left.endswith(b"\n") or rest.startswith(b"\n")
        cuts_a_character = bool(rest) and rest[0] & 0xC0 == 0x80
        expected = "kept" if is_whole else "bad_utf8" if cuts_a_character else "bad_json"
        assert naive_fates(left) == [*["kept"] * (left.removesuffix(b"\n").count(b"\n")), expected]


@pytest.fixture(params=["isal", "no isal"])
def _gzip_reader(request, monkeypatch):
    """Read gzip with isal, and with Python's own where isal is not installed."""
    if request.param == "no isal":
        monkeypatch.setitem(sys.modules, "isal.igzip", None)


PACKED = {
    "gz": gzip.compress(b"".join(LINES), mtime=0),
    "two gz": gzip.compress(LINES[0], mtime=0) + gzip.compress(b"".join(LINES[1:]), mtime=0),
    "zst": zstd.compress(b"".join(LINES)),
    "two zst": zstd.compress(LINES[0]) + zstd.compress(b"".join(LINES[1:])),
}


@pytest.mark.usefixtures("_gzip_reader")
@pytest.mark.parametrize("packed", PACKED.values(), ids=PACKED)
def test_a_compressed_file_cut_at_any_byte_is_refused_whole_but_between_two_streams(tmp_path, packed):
    """A cut between two streams is none to any reader. Of fewer bytes than tell that it is compressed, it is a line."""
    cuts = cut_files(packed, 0, tmp_path / "in")

    # So few bytes are read at once that rows were written before the damage is met.
    report = run([tmp_path / "in"], tmp_path / "train.jsonl", Options(jobs=1, span_nbytes=100))

    expected = {path: _fates_of_compressed(left) for path, left in cuts.items()}
    assert {shard.path: None if shard.problem else shard.fates for shard in report.inputs} == expected
    assert all((shard.problem or shard.path).startswith(shard.path) for shard in report.inputs)
    assert list(expected.values()).count(None) > 0.9 * len(cuts)
    assert report.fates.kept == sum(fates.kept for fates in expected.values() if fates is not None)
    rows = (tmp_path / "train.jsonl").read_bytes().splitlines(keepends=True)
    whole = [fates.kept for fates in expected.values() if fates is not None]
    assert list(map(decoded_row, rows)) == [row for count in whole for row in ROWS[:count]]


def _fates_of_compressed(data: bytes) -> Fates | None:
    """Return the fates of what Python's own readers unpack; None where they find damage."""
    gz, zst = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
    try:
        if data.startswith(gz):
            data = gzip.decompress(data)
        elif data.startswith(zst):
            data = zstd.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error, zstd.ZstdError):
        return None
    return fates_of(naive_fates(data))


# Files that say that they are empty.


def lying_files() -> list[str]:
    """Name files of this system that say that their size is 0, and have content."""
    some = ("/proc/cpuinfo", "/proc/version", "/proc/self/status", "/proc/self/cmdline")
    return [path for path in some if os.path.isfile(path) and not os.path.getsize(path) and Path(path).read_bytes()]


@pytest.fixture
def says_0(tmp_path, monkeypatch) -> Callable[[bytes], Path]:
    """Write a file that says that its size is 0, as some file systems have them."""
    stat = os.stat

    def say_0(path: Any, **more: Any) -> os.stat_result:
        found = stat(path, **more)
        is_lie = str(path).endswith("lie.jsonl")
        return os.stat_result((*found[:6], 0, *found[7:])) if is_lie else found

    def write(data: bytes) -> Path:
        (tmp_path / "lie.jsonl").write_bytes(data)
        monkeypatch.setattr(os, "stat", say_0)
        return tmp_path / "lie.jsonl"

    return write


SAYS_0 = "says that its size is 0 and has content; copy it first"


@pytest.mark.parametrize("path", lying_files())
@pytest.mark.parametrize("beside", [[], ["in.jsonl"]], ids=["alone", "beside another"])
def test_a_file_that_says_that_it_is_empty_and_is_not_is_refused_by_name(path, beside, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in.jsonl").write_bytes(GOOD)

    for read in (
        lambda: fastsft.convert([*beside, path], "out/train.jsonl", allow_empty=True),
        lambda: fastsft.convert([*beside, path], "out/train.jsonl", best_of=1),
        lambda: fastsft.check([*beside, path]),
        lambda: fastsft.stats([*beside, path]),
    ):
        with pytest.raises(UsageError, match=rf"^cannot read {path}: it {SAYS_0}$"):
            read()
    assert os.listdir() == ["in.jsonl"]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd.compress])
def test_so_is_one_on_a_file_system_that_says_so_of_its_files(says_0, tmp_path, pack):
    path = says_0(pack(GOOD))

    with pytest.raises(UsageError, match=rf"^cannot read {path}: it {SAYS_0}$"):
        fastsft.convert(path, tmp_path / "out/train.jsonl", allow_empty=True)
    assert os.listdir(tmp_path) == ["lie.jsonl"]


def test_an_empty_file_that_says_so_has_no_lines(tmp_path):
    (tmp_path / "empty.jsonl").write_bytes(b"")
    (tmp_path / "in.jsonl").write_bytes(GOOD)

    report = fastsft.convert([tmp_path / "empty.jsonl", tmp_path / "in.jsonl"], tmp_path / "train.jsonl")

    assert [(shard.nbytes, shard.problem, shard.fates) for shard in report.inputs] == [
        (0, None, Fates()),
        (len(GOOD), None, Fates(lines=1, kept=1)),
    ]
