"""Whatever operation fails, an output is absent, old or new, and the next run gives the same as if nothing had been.

A few of them, of three plans; `tox -e faults` takes more, of all plans, and every one where it is asked to.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from builders import lines, rollout, said, user
from conftest import PROJECT

import fastsft

LISTED = """
import sys
sys.path.insert(0, "tests")
from pathlib import Path
import faulty
from fastsft.inputs import shards
shards._MOST_SPAN_NBYTES = faulty.SPAN_NBYTES
for operation in faulty.Case(Path(sys.argv[2]), sys.argv[1], "older").operations():
    print(*operation)
"""


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


def operations_of(plan: str, folder: object) -> list[str]:
    """What a run does to files, in order, with ids and the folders of its own made short."""
    done = subprocess.run(
        [sys.executable, "-c", LISTED, plan, str(folder)], cwd=PROJECT, capture_output=True, text=True
    )
    assert done.stderr == ""
    short = re.sub(r"/[0-9a-f]{16}", "/RUN", re.sub(r"\.[0-9a-f]{8}\b", "", done.stdout))
    return short.replace("/out/.train.fastsft", "STAGING").replace("/out/.val.fastsft", "STAGING-VAL").splitlines()


@pytest.mark.parametrize(
    ("plan", "files"),
    [
        ("one-file", ["train.jsonl", "refused"]),
        ("one-file-2-jobs", ["train.jsonl", "refused"]),
        ("shards-by-number", [f"train-0000{number}-of-00003.jsonl" for number in range(3)]),
        ("gz", ["train.jsonl.gz", "refused"]),
        ("splits", ["train.jsonl", "refused"]),
    ],
)
def test_everything_is_on_the_disk_before_the_record_and_the_record_before_any_name(tmp_path, plan, files):
    operations = operations_of(plan, tmp_path)
    record = operations.index("replace STAGING/publish.json.part STAGING/publish.json")
    names = [operation for operation in operations if re.match(r"(rename|replace) STAGING\S* /out/", operation)]

    for file in [*(f"STAGING/RUN/{name}" for name in files), "STAGING/RUN/report.part", "STAGING/publish.json.part"]:
        assert f"fsync {file}" in operations[:record]
        flushed = record - operations[:record][::-1].index(f"fsync {file}")
        assert not any(operation.startswith(("write", "pwrite", "copy")) and operation.endswith(f" {file}")
                       for operation in operations[flushed:])  # fmt: skip
    assert "fsync STAGING/RUN" in operations[:record]
    assert operations[record + 1 :].index("open STAGING") < operations[record + 1 :].index("fsync STAGING")
    assert operations.index("fsync STAGING", record) < operations.index(names[0])
    assert names[-1].endswith("train.report.json")
    last = operations.index(names[-1])
    assert operations.index("fsync /out", last) < operations.index("unlink STAGING/publish.json", last)


def test_a_segment_that_becomes_a_shard_is_flushed_once_by_who_wrote_it(tmp_path):
    operations = operations_of("shards-by-size", tmp_path)
    renamed = [one.split()[1:] for one in operations if re.match(r"(rename|replace) \S+\.rows \S+\.jsonl$", one)]

    assert len(renamed) > 1
    for segment, shard in renamed:
        named = next(at for at, one in enumerate(operations) if one.endswith(f" {segment} {shard}"))
        written = max(at for at, one in enumerate(operations) if one == f"write {segment}")
        flushed = [at for at, one in enumerate(operations) if one in (f"fsync {segment}", f"fsync {shard}")]
        assert len(flushed) == 1
        assert written < flushed[0] < named


def test_the_names_of_folders_that_are_made_for_an_output_are_on_the_disk(tmp_path, monkeypatch):
    (tmp_path / "in.jsonl").write_bytes(lines(rollout(user("?"), said("4"))))
    flushed: list[str] = []
    monkeypatch.setattr("fastsft.outputs.lock.flush", lambda path: flushed.append(os.path.relpath(path, tmp_path)))

    fastsft.convert(tmp_path / "in.jsonl", tmp_path / "a/b/rows.jsonl")

    assert sorted(flushed) == [".", "a"]


@pytest.mark.parametrize(
    ("plan", "name"), [("index", "rollouts.index"), ("stats-plot", "stats.svg"), ("nemo-rl", "sft.yaml")]
)
def test_a_file_by_itself_is_on_the_disk_before_it_has_its_name(tmp_path, plan, name):
    operations = [operation.replace(" /out", " out") for operation in operations_of(plan, tmp_path)]
    named = operations.index(f"replace out/.{name}.part out/{name}")
    flushed = operations[:named].index(f"fsync out/.{name}.part")

    assert not any(operation.startswith(("write", "pwrite")) for operation in operations[flushed:named])
    assert "fsync out" in operations[named:]
