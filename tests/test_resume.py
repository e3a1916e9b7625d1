"""Interrupted runs go on from their receipts, and publishing happens at one point."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import generate
import msgspec
import pytest
from builders import line, rollout, said, user

import fastsft
from fastsft import FailedRun, Options, UsageError
from fastsft.options import Split
from fastsft.outputs import publication, staging
from fastsft.pipeline import drive, run

SPAN_NBYTES = 40_000
PLANS = {
    "one file": {},
    "shards by size": {"shard_nbytes": 100_000},
    "shards by number": {"shards": 3},
    "compressed": {"shards": 2, "compress": "gz"},
    "two passes": {"best_of": 1, "span_nbytes": 100_000},
    "Parquet shards with where rows come from": {
        "shards": 2,
        "trainer": "verl",
        "provenance": ("task", "line"),
        "span_nbytes": 100_000,
    },
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> list[Path]:
    paths = generate.write(tmp_path_factory.mktemp("in"), "mixed", count=120, nbytes=0, shards=3, seed=7)
    for path in paths:
        path.write_bytes(b"{torn\n" + path.read_bytes())
    return paths


def options(plan: str, **more: object) -> Options:
    return Options(**{"jobs": 1, "span_nbytes": SPAN_NBYTES, **PLANS[plan], **more})


def output_of(folder: Path, plan: str) -> str:
    return f"{folder}/out/" if "shard" in plan or plan == "compressed" else f"{folder}/out/train.jsonl"


def files_in(folder: Path) -> dict[str, bytes]:
    """What a run left: names and bytes; of reports, all but what the clock and an interruption change."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name in found:
        if name.endswith(".report.json"):
            report = json.loads(found[name])
            del report["seconds"], report["notes"]
            found[name] = json.dumps(report).encode()
    return found


def before(notes: list[str]) -> list[int]:
    """How many spans a run found done, of each pass."""
    return [int(note.split(": ")[1].split(" of ")[0]) for note in notes if note.startswith("goes on from")]


class Killed(BaseException):
    """As if the process were killed: nothing is put away."""


def die_after(monkeypatch: pytest.MonkeyPatch, receipts: int) -> None:
    """Interrupt the run as soon as so many receipts are written."""
    write, written = staging.write_receipt, []

    def interrupted(*arguments: object) -> object:
        written.append(write(*arguments))
        if len(written) == receipts:
            raise Killed
        return written[-1]

    monkeypatch.setattr("fastsft.pipeline.staged.write_receipt", interrupted)


@pytest.fixture
def several_spans(monkeypatch):
    """One process that makes one file writes one segment; here it does spans as several do."""
    monkeypatch.setattr(drive, "_writes_straight", lambda *_: False)


@pytest.mark.parametrize("plan", PLANS)
def test_a_run_that_was_killed_at_any_span_goes_on_and_gives_the_same(shards, tmp_path, several_spans, plan):
    golden = tmp_path / "golden"
    run(shards, output_of(golden, plan), options(plan))
    expected = files_in(golden / "out")
    interrupted = []
    for receipts in range(1, 100):
        folder = tmp_path / str(receipts)
        with pytest.MonkeyPatch.context() as patch:
            die_after(patch, receipts)
            try:
                run(shards, output_of(folder, plan), options(plan))
                break
            except Killed:
                interrupted.append(receipts)
        assert {path.name for path in (folder / "out").iterdir()} == {".train.fastsft"}
        report = run(shards, output_of(folder, plan), options(plan))
        assert sum(before(report.notes)) == receipts
        assert files_in(folder / "out") == expected
        shutil.rmtree(folder)
    assert len(interrupted) > 5


@pytest.mark.parametrize("jobs", [2, 3])
@pytest.mark.parametrize("plan", PLANS)
def test_the_bytes_do_not_depend_on_the_number_of_workers(shards, tmp_path, plan, jobs):
    run(shards, output_of(tmp_path / "a", plan), options(plan))
    run(shards, output_of(tmp_path / "b", plan), options(plan, jobs=jobs))
    assert files_in(tmp_path / "b/out") == files_in(tmp_path / "a/out")


def interrupted_at(folder: Path, shards: list[Path], plan: str = "one file", receipts: int = 3) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        die_after(patch, receipts)
        with pytest.raises(Killed):
            run(shards, output_of(folder, plan), options(plan))
    (path,) = (folder / "out/.train.fastsft").glob("[0-9a-f]*/")
    return path


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"reward_threshold": 0.5}, "it had other options"),
        ({"fresh": True}, "--fresh"),
    ],
)
def test_receipts_of_another_run_are_not_used(shards, tmp_path, several_spans, change, told):
    interrupted_at(tmp_path, shards)
    changed = options("one file", **change)
    report = run(shards, output_of(tmp_path, "one file"), changed)
    run(shards, output_of(tmp_path / "new", "one file"), changed)

    assert [note for note in report.notes if "interrupted" in note] == [
        f"what an interrupted run left is not used: {told}"
    ]
    assert files_in(tmp_path / "out") == files_in(tmp_path / "new/out")


def test_an_input_that_was_written_to_since_is_read_again(shards, tmp_path, several_spans):
    copies = [Path(shutil.copy(path, tmp_path)) for path in shards]
    interrupted_at(tmp_path, copies)
    copies[0].write_bytes(copies[0].read_bytes().replace(b"{torn\n", b"[1]\n\n\n"))

    report = run(copies, output_of(tmp_path, "one file"), options("one file"))

    assert "what an interrupted run left is not used: it had other inputs" in report.notes
    assert report.fates.refused["not_object"] == 1


def test_with_verify_inputs_other_bytes_of_the_same_size_and_time_are_read_again(shards, tmp_path, several_spans):
    copies = [Path(shutil.copy(path, tmp_path)) for path in shards]
    verifying = options("one file", verify_inputs=True)
    with pytest.MonkeyPatch.context() as patch:
        die_after(patch, 3)
        with pytest.raises(Killed):
            run(copies, output_of(tmp_path, "one file"), verifying)
    found = copies[0].stat()
    copies[0].write_bytes(copies[0].read_bytes().replace(b"{torn\n", b"[111]\n"))
    os.utime(copies[0], ns=(found.st_atime_ns, found.st_mtime_ns))

    report = run(copies, output_of(tmp_path, "one file"), verifying)

    assert "1 of its spans are converted again: their files or inputs differ" in report.notes
    assert report.fates.refused["not_object"] == 1


@pytest.mark.parametrize("spoil", ["cut", "flip", "remove", "receipt"])
def test_a_segment_that_is_not_what_its_receipt_says_is_made_again(shards, tmp_path, several_spans, spoil):
    folder = interrupted_at(tmp_path, shards)
    segment = min(folder.glob("*.rows"))
    match spoil:
        case "cut":
            os.truncate(segment, segment.stat().st_size - 1)
        case "flip":
            segment.write_bytes(segment.read_bytes()[:-2] + b"]\n")
        case "remove":
            segment.unlink()
        case "receipt":
            min(folder.glob("*.receipt")).write_bytes(b'{"span": ')
    report = run(shards, output_of(tmp_path, "one file"), options("one file"))
    run(shards, output_of(tmp_path / "new", "one file"), options("one file"))

    assert before(report.notes) == [2]
    assert files_in(tmp_path / "out") == files_in(tmp_path / "new/out")


# One point at which a run is published.


def test_publishing_that_was_killed_at_any_operation_is_finished_by_the_next_run(shards, tmp_path):
    """Old and new outputs have other shards and another report; a split is published with them."""
    splits = [Split(f"{tmp_path}/out/val.jsonl", 0.2)]
    old, new = options("one file", reward_threshold=0.5), options("one file")
    outcomes = []
    for operation in range(40):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        run(shards, f"{tmp_path}/out/", msgspec.structs.replace(old, shards=3), splits=splits)
        before = files_in(tmp_path / "out")
        with pytest.MonkeyPatch.context() as patch:
            done = die_at(patch, operation)
            try:
                run(shards, f"{tmp_path}/out/", msgspec.structs.replace(new, shards=2), splits=splits)
            except Killed:
                assert len(done) == operation + 1
            else:
                break
        is_recorded = publication.is_pending(tmp_path / "out/.train.fastsft")
        found = fastsft.verify(tmp_path / "out")
        after = {name: data for name, data in files_in(tmp_path / "out").items() if ".fastsft/" not in name}
        outcomes.append((is_recorded, found.differences == [], after == before, sorted(os.listdir(tmp_path / "out"))))
    names = ["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"]
    names += ["train.refused", "train.report.json", "val.jsonl", "val.report.json"]

    assert [whole for _, whole, _, _ in outcomes] == [True] * len(outcomes)
    pending = [
        (is_old, [name for name in found if name != ".val.fastsft"])
        for recorded, _, is_old, found in outcomes
        if recorded
    ]
    assert pending == [(False, names)] * len(pending)
    assert len(pending) > 8
    assert all(is_old or not any(name.startswith(".train") for name in found) for _, _, is_old, found in outcomes)


def die_at(patch: pytest.MonkeyPatch, operation: int) -> list[str]:
    """Stop at an operation of publishing, and put nothing away, as a killed process does."""
    done: list[str] = []
    patch.setattr(staging.Staging, "close", lambda *_, **__: None)

    def counted(name: str, call: object) -> object:
        def counting(*arguments: object, **more: object) -> object:
            done.append(name)
            if len(done) == operation + 1:
                raise Killed
            return call(*arguments, **more)

        return counting

    for name in ("_rename", "_remove", "flush", "write_new"):
        patch.setattr(publication, name, counted(name, getattr(publication, name)))
    return done


def test_a_file_that_was_to_be_published_and_is_gone_is_said(shards, tmp_path):
    run(shards, f"{tmp_path}/out/", options("shards by number"))
    with pytest.MonkeyPatch.context() as patch:
        die_at(patch, 3)
        with pytest.raises(Killed):
            run(shards, f"{tmp_path}/out/", options("shards by number", shards=2))
    (staged,) = (tmp_path / "out/.train.fastsft").glob("*/train-00001-of-00002.jsonl")
    staged.unlink()

    for again in (
        lambda: run(shards, f"{tmp_path}/out/", options("one file")),
        lambda: fastsft.verify(tmp_path / "out"),
    ):
        with pytest.raises(FailedRun, match=r"train-00001-of-00002.jsonl is gone, and .* was to be made of it"):
            again()


# Verifying.


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (None, []),
        ("append", [r"\d+ bytes, and the report says", r"sha256 \w+…, and the report says"]),
        ("flip", [r"sha256 \w+…, and the report says"]),
        ("remove", ["it is missing"]),
        ("refused", ["2 lines, and 3 were refused"]),
    ],
)
def test_an_output_is_held_against_its_report(shards, tmp_path, plan, spoil, told):
    run(shards, output_of(tmp_path, plan), options(plan))
    assert fastsft.verify(output_of(tmp_path, plan)).differences == []
    first = min(path for path in (tmp_path / "out").glob("train*") if ".jsonl" in path.name or ".parquet" in path.name)
    data = first.read_bytes()
    match spoil:
        case "append":
            first.write_bytes(data + b" ")
        case "flip":
            first.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
        case "remove":
            first.unlink()
        case "refused":
            refused = tmp_path / "out/train.refused"
            refused.write_bytes(b"".join(refused.read_bytes().splitlines(keepends=True)[:-1]))

    found = fastsft.verify(tmp_path / "out", jobs=2)
    found.differences = [one for one in found.differences if " rows, and" not in one]  # of gzip that is damaged

    assert len(found.differences) == len(told), found.differences
    for difference, pattern in zip(found.differences, told, strict=True):
        assert re.search(pattern, difference)


def test_a_split_is_verified_with_its_run_and_a_shard_that_no_report_names_is_told(shards, tmp_path):
    splits = [Split(f"{tmp_path}/out/val/", 0.2)]
    run(shards, f"{tmp_path}/out/", options("one file"), splits=splits)
    assert fastsft.verify(tmp_path / "out").files == 2
    (tmp_path / "out/val/val-00000-of-00001.jsonl").unlink()
    (tmp_path / "out/train-00007-of-00009.jsonl").write_bytes(b"{}\n")

    assert [difference.rpartition("/")[2] for difference in fastsft.verify(tmp_path / "out").differences] == [
        "train-00007-of-00009.jsonl: the report does not name it",
        "val-00000-of-00001.jsonl: it is missing",
    ]
    (tmp_path / "out/val/val.report.json").unlink()
    assert any("val.report.json: it is missing" in one for one in fastsft.verify(tmp_path / "out").differences)


def test_without_a_report_there_is_nothing_to_verify(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b"{}\n")
    for path in (tmp_path, tmp_path / "rows.jsonl", tmp_path / "nosuch.jsonl"):
        with pytest.raises(UsageError, match="nothing to verify: there is no report"):
            fastsft.verify(path)


# The other work that is cut into spans.


@pytest.mark.parametrize("jobs", [1, 2])
def test_statistics_and_indexes_do_not_depend_on_spans_or_jobs(shards, tmp_path, monkeypatch, jobs):
    plain = fastsft.stats(shards, jobs=1).to_json()
    fastsft.index(shards, tmp_path / "plain.parquet", dedup=True, jobs=1)
    monkeypatch.setattr("fastsft.inputs.shards._MOST_SPAN_NBYTES", SPAN_NBYTES)
    cut = fastsft.stats(shards, jobs=jobs).to_json()
    fastsft.index(shards, tmp_path / "cut.parquet", dedup=True, jobs=jobs)

    assert cut == plain
    assert (tmp_path / "cut.parquet").read_bytes() == (tmp_path / "plain.parquet").read_bytes()


def said_line(text: str) -> bytes:
    return line(rollout(user("?"), said(text)))


def written(folder: Path) -> list[str]:
    (path,) = folder.glob("*.jsonl")
    return [json.loads(row)["messages"][-1]["content"] for row in path.read_bytes().splitlines()]


def change_unseen(path: Path, data: bytes) -> None:
    """Change a file so that neither its size nor its time says so."""
    at = path.stat()
    assert len(data) == at.st_size
    path.write_bytes(data)
    os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))


def test_verified_inputs_are_all_that_the_lines_of_a_span_depend_on(tmp_path, several_spans):
    """The second line begins in the first span and ends in the second."""
    data = b"".join(said_line(letter * 900 + "OLD") for letter in "abcd")
    (tmp_path / "in.jsonl").write_bytes(data)
    asked = Options(jobs=1, span_nbytes=len(data) * 3 // 8, verify_inputs=True)
    with pytest.MonkeyPatch.context() as patch:
        die_after(patch, 1)
        with pytest.raises(Killed):
            run([tmp_path / "in.jsonl"], tmp_path / "out/rows.jsonl", asked)

    change_unseen(tmp_path / "in.jsonl", data.replace(b"bOLD", b"bNEW"))
    run([tmp_path / "in.jsonl"], tmp_path / "out/rows.jsonl", asked)

    assert [text[-4:] for text in written(tmp_path / "out")] == ["aOLD", "bNEW", "cOLD", "dOLD"]


def test_a_part_of_the_table_that_is_not_what_its_receipt_says_is_made_again(shards, tmp_path, several_spans):
    folder = interrupted_at(tmp_path, shards, "two passes", receipts=2)
    part = min(folder.glob("scan-*.arrow"))
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)

    report = run(shards, output_of(tmp_path, "two passes"), options("two passes"))
    run(shards, output_of(tmp_path / "new", "two passes"), options("two passes"))

    assert "1 of its spans are scanned again: their files or inputs differ" in report.notes
    assert files_in(tmp_path / "out") == files_in(tmp_path / "new/out")


def test_rows_of_another_choice_are_made_again(tmp_path):
    """What is a duplicate in the second file follows from the first, which changes after all rows are written."""
    one, two = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    one.write_bytes(said_line("same") + said_line("of a"))
    two.write_bytes(said_line("of b") + said_line("same"))
    asked = Options(jobs=1, span_nbytes=one.stat().st_size, dedup=True, verify_inputs=True, shards=1)
    with pytest.MonkeyPatch.context() as patch:
        die_after(patch, 4)
        with pytest.raises(Killed):
            run([one, two], f"{tmp_path}/out/", asked)

    change_unseen(one, said_line("SAME") + said_line("of a"))
    run([one, two], f"{tmp_path}/out/", asked)

    assert written(tmp_path / "out") == ["SAME", "of a", "of b", "same"]
