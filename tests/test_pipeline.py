"""Whole runs: fates, files, and the same bytes however the work is cut."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import itertools
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import generate
import msgspec
import pytest
from backports import zstd
from builders import assistant, line, lines, raw_call, rollout, said, thought, turn, user

import fastsft
from fastsft import FailedRun, Fates, Options, TooManyRefused, UsageError
from fastsft.errors import KeepsReceipts
from fastsft.execution.workers import jobs_for
from fastsft.inputs.shards import Shard, expanded_nbytes, find_rollouts, spans_of, whole_of
from fastsft.outputs import lock, outputs
from fastsft.outputs.target import target_of
from fastsft.pipeline import run, staged
from fastsft.pipeline.one_pass import Rows
from fastsft.storage.files import HashedFile

DATA = Path(__file__).parent / "data"


def good(answer: str = "4", **more: object) -> dict:
    return rollout(user("?"), said(answer), **more)


def messages(rows: list[bytes]) -> list:
    return [json.loads(row)["messages"] for row in rows]


def listed(path: Path) -> list[str]:
    return sorted(str(found.relative_to(path)) for found in path.rglob("*"))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> list[Path]:
    """Three shards of every shape that the generator knows, some broken lines among them."""
    folder = tmp_path_factory.mktemp("mixed")
    paths = generate.write(folder, "mixed", count=300, nbytes=0, shards=3, seed=5)
    broken = [b"<PLACEHOLDER ROW>\n", b"\n", b"\xff\xfe\n", b"  \r\n", b'{"torn": ', b"[1]\n"]
    for path, extra in zip(
        paths,
        itertools.batched(broken, 2) if sys.version_info >= (3, 12) else zip(*[iter(broken)] * 2, strict=True),
        strict=True,
    ):
        whole = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join([*whole[:40], *extra[:1], *whole[40:], *extra[1:]]))
    return paths


def test_every_line_has_its_one_fate(convert):
    data = (
        line(good())
        + b"\n"
        + line(good(reward=0.5))
        + b"<PLACEHOLDER ROW>\n"
        + b" \t\r\n"
        + line(good(reward=None))
        + line(good(reward="1.0"))
        + b'{"a": "\xff"}\n'
        + line([1])
        + line(rollout(user("?"), said("4"), raw_call("add", "[2, 2]")))
        + line(rollout(user("?")))
        + line(rollout(user("?"), said("5"), user("!")))[:-1]  # no line feed at the end
    )

    report, rows = convert(data, max_refused="60%")

    assert messages(rows) == [[turn("user", "?"), assistant("4")], [turn("user", "?"), assistant("5")]]
    assert report.fates == Fates(
        lines=12,
        kept=2,
        blank=2,
        dropped={"below_threshold": 1, "no_reward": 1},
        refused={
            "bad_arguments": 1,
            "bad_json": 1,
            "bad_utf8": 1,
            "not_object": 1,
            "no_assistant_turn": 1,
            "reward_type": 1,
        },
        trimmed=1,
    )
    assert [shard.fates for shard in report.inputs] == [report.fates]


def test_refused_lines_are_recorded_with_shard_line_offset_reason_and_sentence(convert, tmp_path):
    first = b"\n" + line(good())
    data = first + b"{\n" + line(good("5")) + line(good(reward=True))

    report, _ = convert(data)

    shard = str(tmp_path / "in.jsonl")
    recorded = [json.loads(entry) for entry in (tmp_path / "out/train.refused").read_bytes().splitlines()]
    assert report.refused_lines == "train.refused"
    assert recorded == [
        {
            "shard": shard,
            "line": 3,
            "offset": len(first),
            "reason": "bad_json",
            "problem": "not a JSON object: Input data was truncated",
        },
        {
            "shard": shard,
            "line": 5,
            "offset": len(first) + 2 + len(line(good("5"))),
            "reason": "reward_type",
            "problem": "reward is not a finite number, found `true`",
        },
    ]


def test_bytes_and_report_do_not_depend_on_jobs_or_spans(mixed, tmp_path, monkeypatch):
    results = []
    for index, (at_once_nbytes, options) in enumerate(
        [
            (10**6, Options(jobs=1)),
            (10**6, Options(jobs=1, span_nbytes=40_000)),
            (10**6, Options(jobs=1, span_nbytes=9_000)),
            (50_000, Options(jobs=1)),
            (10**6, Options(jobs=2, span_nbytes=100_000)),
            (20_000, Options(jobs=3, span_nbytes=700_000)),
        ]
    ):
        monkeypatch.setattr(staged, "_BLOCK_NBYTES", at_once_nbytes)
        output = tmp_path / str(index)
        run(mixed, output / "train.jsonl", options)
        report = json.loads((output / "train.report.json").read_bytes())
        assert report.pop("seconds") >= 0
        results.append((report, (output / "train.jsonl").read_bytes(), (output / "train.refused").read_bytes()))

    assert results[0][0]["fates"]["kept"] > 100
    assert len(results[0][0]["fates"]["refused"]) > 4
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize(
    ("names", "jobs", "expected"),
    [
        (["large.jsonl"], None, 4),
        (["small.jsonl"] * 3, None, 1),
        (["small.jsonl.gz"], None, 1),
        (["small.jsonl.gz"] * 2, None, 2),
        (["large.jsonl.gz"], 8, 1),  # a compressed shard is one range
        (["large.jsonl"], 3, 3),
        (["large.jsonl"], 1, 1),
        (["small.jsonl"], 8, 2),
        (["none.jsonl"], 8, 1),
    ],
)
def test_there_are_as_many_workers_as_asked_for_or_pay_and_no_more_than_spans(names, jobs, expected, monkeypatch):
    nbytes = {"large.jsonl": 200_000_000, "small.jsonl": 20_000_000, "none.jsonl": 0}
    nbytes |= {"large.jsonl.gz": 200_000_000, "small.jsonl.gz": 12_000_000}
    shards = [Shard(name, nbytes[name], 0, "gz" if name.endswith(".gz") else None) for name in names]
    monkeypatch.setattr("fastsft.execution.workers.cores", lambda: 4)

    assert jobs_for(jobs, nbytes=expanded_nbytes(shards), tasks=len(spans_of(shards))) == expected


@pytest.mark.parametrize("jobs", [1, 2])
def test_plain_and_compressed_shards_may_be_mixed(mixed, tmp_path, monkeypatch, jobs):
    monkeypatch.setattr(staged, "_BLOCK_NBYTES", 50_000)  # a plain shard comes in many parts, a compressed one as one
    (tmp_path / "packed").mkdir()
    packed = tmp_path / "packed" / f"{mixed[1].name}.gz"
    packed.write_bytes(gzip.compress(mixed[1].read_bytes()))
    outputs = [tmp_path / name / "train.jsonl" for name in ("plain", "some")]

    plain = run(mixed, outputs[0], Options(jobs=1))
    some = run([mixed[0], packed, mixed[2]], outputs[1], Options(jobs=jobs, span_nbytes=100_000))
    assert some.fates == plain.fates
    assert outputs[1].read_bytes() == outputs[0].read_bytes()


@pytest.mark.parametrize("backend", ["threading", "multiprocessing"])
def test_bytes_do_not_depend_on_the_backend(mixed, tmp_path, backend):
    script = f"""
import joblib, sys
from fastsft import Options
from fastsft.pipeline import run
if __name__ == "__main__":
    with joblib.parallel_config(backend={backend!r}):
        run({[str(path) for path in mixed]!r}, sys.argv[1], Options(jobs=2, span_nbytes=300_000))
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.jsonl")], check=True, timeout=120)
    run(mixed, tmp_path / "b.jsonl", Options(jobs=1))

    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_rows_come_in_the_order_of_the_input(tmp_path):
    for name, answers in (("b", "34"), ("a", "12")):
        (tmp_path / f"{name}.jsonl").write_bytes(lines(*map(good, answers)))

    fastsft.convert([tmp_path / "b.jsonl", f"{tmp_path}/*.jsonl"], tmp_path / "out/rows.jsonl")

    said_in_order = [
        json.loads(row)["messages"][1]["content"] for row in (tmp_path / "out/rows.jsonl").read_bytes().splitlines()
    ]
    assert said_in_order == ["3", "4", "1", "2"]


def test_the_report_says_what_was_read_decided_and_written(convert, tmp_path):
    _, rows = convert(lines(good(), good(reward=0)), reward_threshold=0.5)

    shard = tmp_path / "in.jsonl"
    report = json.loads((tmp_path / "out/train.report.json").read_bytes())
    fates = {"lines": 2, "kept": 1, "blank": 0, "dropped": {"below_threshold": 1}, "refused": {}, "trimmed": 0}
    assert report.pop("seconds") >= 0
    assert report == {
        "version": fastsft.__version__,
        "options": {
            "format": "openai",
            "arguments": None,
            "reasoning": None,
            "loss": None,
            "tools": "list",
            "trainer": None,
            "provenance": [],
            "file": "jsonl",
            "reward_threshold": 0.5,
            "max_reward": None,
            "allow": [],
            "where": None,
            "max_tokens": None,
            "template": None,
            "trainable": False,
            "pass_rate": None,
            "dedup": False,
            "best_of": None,
            "per_task": None,
            "per_agent": None,
            "sample": None,
            "seed": 0,
            "splits": {},
            "allow_empty": False,
            "max_refused": None,
            "max_refused_recorded": 1_000_000,
            "shards": None,
            "shard_nbytes": None,
            "name": "train",
            "compress": None,
            "card": False,
            "max_line_nbytes": 256_000_000,
        },
        "fates": fates,
        "inputs": [
            {
                "path": str(shard),
                "nbytes": shard.stat().st_size,
                "fates": fates,
                "problem": None,
            }
        ],
        "notes": [],
        "splits": [],
        "left_out": {},
        "outputs": [
            {"name": "train.jsonl", "rows": 1, "nbytes": len(rows[0]), "sha256": hashlib.sha256(rows[0]).hexdigest()}
        ],
        "refused_lines": None,
    }
    assert listed(tmp_path / "out") == ["train.jsonl", "train.report.json"]


def test_nothing_beside_the_rows_is_found_by_a_glob_for_them(convert, tmp_path):
    convert(line(good()) + b"{\n")
    assert listed(tmp_path / "out") == ["train.jsonl", "train.refused", "train.report.json"]
    assert [path.name for path in (tmp_path / "out").glob("*.jsonl*")] == ["train.jsonl"]


@pytest.mark.parametrize(
    ("data", "options", "why"),
    [
        (b"", {}, "the input holds no rollout"),
        (b"\n\n", {}, "the input holds no rollout"),
        (
            lines(good(reward=0), good(reward=0.5), {**good(), "mask_sample": True}),
            {},
            "2 rollouts are below --reward-threshold 0.95: the highest reward is 1 (the others: masked 1)",
        ),
        (
            lines(good(reward=0), good(reward=0.5)),
            {"best_of": 1},
            "2 rollouts are below --reward-threshold 0.95: the highest reward is 0.5",
        ),
        (
            line(good(reward=2)),
            {"max_reward": 1},
            "1 rollout is above --max-reward 1: the lowest reward is 2",
        ),
        (
            line({**good(), "agent_ref": {"name": "math"}}),
            {"where": "agent = 'nosuch'"},
            "--where is true of none of 1 rollouts: no agent is called 'nosuch'; there are: math",
        ),
        (
            line({**good(), "agent_ref": {"name": "math"}}),
            {"where": "agent = 'math' AND calls > 0"},
            "--where is true of none of 1 rollouts; agents there are: math",
        ),
        (
            line({**good(), "mask_sample": True}),
            {},
            "1 rollout is dropped as masked (mask_sample is true); --allow masked keeps them",
        ),
        (line(good(reward=None)), {}, "1 rollout has no reward (it is null)"),
        (lines(good(reward=None), good(reward=None)), {}, "2 rollouts have no reward (it is null)"),
    ],
)
def test_a_run_that_keeps_nothing_fails_and_says_why_in_terms_of_the_data(convert, tmp_path, data, options, why):
    convert(line(good("before")))
    before = (tmp_path / "out/train.jsonl").read_bytes()

    with pytest.raises(FailedRun) as caught:
        convert(data, **options)

    assert str(caught.value).startswith(f"nothing was kept, and nothing was published: {why}.\n")
    assert (tmp_path / "out/train.jsonl").read_bytes() == before
    report, rows = convert(data, allow_empty=True, **options)
    assert (rows, report.outputs[0].rows, report.outputs[0].nbytes) == ([], 0, 0)


def test_inputs_are_not_touched(convert, tmp_path):
    shard = tmp_path / "in.jsonl"
    convert(lines(good(), [1]))
    before = shard.stat()
    shard.chmod(0o400)
    fastsft.convert(shard, tmp_path / "rows.jsonl")
    after = shard.stat()
    assert (before.st_mtime_ns, before.st_size, before.st_ino) == (after.st_mtime_ns, after.st_size, after.st_ino)


# Failing runs publish nothing.


def test_a_run_of_which_no_shard_is_whole_fails(tmp_path):
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(lines(good()))[:-9])
    with pytest.raises(FailedRun, match=r"^no file could be read; nothing was published\.\n  .*is damaged: "):
        fastsft.convert(tmp_path, tmp_path / "out/rows.jsonl")


def test_a_run_in_which_every_line_was_refused_fails(convert, tmp_path):
    with pytest.raises(FailedRun) as caught:
        convert(b"\n<PLACEHOLDER ROW>\n[1]\n")

    assert str(caught.value) == (
        "every line was refused; nothing was published.\n"
        f"  The first: {tmp_path}/in.jsonl:2: bad_json: "
        "not a JSON object: JSON is malformed: invalid character (byte 0)."
    )
    assert caught.value.report.fates.refused == {"bad_json": 1, "not_object": 1}
    assert listed(tmp_path / "out") == []


@pytest.mark.parametrize("limit", [0, "1", "10%"])
def test_more_refused_lines_than_allowed_fail_the_run_and_leave_what_was_there(convert, tmp_path, limit):
    convert(lines(good("old")))
    before = {name: (tmp_path / "out" / name).read_bytes() for name in listed(tmp_path / "out")}

    with pytest.raises(TooManyRefused):
        convert(lines(good("new")) + b"{\n[\n", max_refused=limit)

    assert {name: (tmp_path / "out" / name).read_bytes() for name in listed(tmp_path / "out")} == before


def test_a_later_run_replaces_all_that_an_earlier_one_wrote(convert, tmp_path):
    convert(lines(good("old")) + b"{\n")
    convert(lines(good("new")))

    assert listed(tmp_path / "out") == ["train.jsonl", "train.report.json"]
    assert b"new" in (tmp_path / "out/train.jsonl").read_bytes()


def test_an_output_that_is_an_input_is_refused_before_any_work(tmp_path):
    shard = tmp_path / "train.jsonl"
    shard.write_bytes(lines(good()))
    (tmp_path / "link.jsonl").symlink_to("train.jsonl")
    for output in (shard, tmp_path / "link.jsonl", f"{tmp_path}/../{tmp_path.name}/train.jsonl"):
        with pytest.raises(UsageError, match="is an input and would be overwritten"):
            fastsft.convert(shard, output)
    os.rename(shard, tmp_path / "train.refused")
    with pytest.raises(UsageError, match="is an input and would be overwritten"):
        fastsft.convert(tmp_path / "train.refused", tmp_path / "train.jsonl")


def test_an_output_that_is_no_file_is_refused(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines(good()))
    os.mkfifo(tmp_path / "pipe")
    for output, options, problem in (
        (tmp_path / "pipe", {}, "not a regular file"),
        ("", {}, "path is empty"),
        (tmp_path / "rows.jsonl", {"shards": 2}, "shards go to a folder"),
        (f"{tmp_path}/in.jsonl/", {}, "it is a file"),
    ):
        with pytest.raises(UsageError, match=problem):
            fastsft.convert(tmp_path / "in.jsonl", output, **options)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (".train.fastsft/old.jsonl", "is an input and lies in .*, which is a run's own"),
        (".train.fastsft/0123456789abcdef/convert-000000.rows", "is an input and lies in .*, which is a run's own"),
        (".train.lock", "is in the way: it is no lock of fastsft's"),
        ("train.report.json", "is an input and would be overwritten"),
    ],
)
def test_no_input_is_removed_as_the_leftover_of_an_earlier_run(tmp_path, name, problem):
    shard = tmp_path / "out" / name
    shard.parent.mkdir(parents=True)
    shard.write_bytes(lines(good()))
    with pytest.raises(UsageError, match=problem):
        fastsft.convert(shard, tmp_path / "out/train.jsonl")
    assert shard.read_bytes() == lines(good())
    assert [path for path in listed(tmp_path / "out") if path != name and not name.startswith(path)] == []


@pytest.mark.parametrize("record", [b"", b"{}", b'{"run_id": "../../precious", "fingerprint": "", "made_from": {}}'])
def test_a_folder_of_somebody_elses_that_is_named_as_the_staging_folder_is_left_alone(ten, tmp_path, record):
    folder = tmp_path / "out/.train.fastsft"
    (folder / "0123456789abcdef").mkdir(parents=True)
    (folder / "0123456789abcdef/data").write_bytes(b"precious")
    (folder / "run.json").write_bytes(record)
    with pytest.raises(UsageError, match="is in the way: it is no folder of fastsft's"):
        fastsft.convert(ten, tmp_path / "out/train.jsonl")
    assert (folder / "0123456789abcdef/data").read_bytes() == b"precious"


def test_of_the_staging_folder_goes_what_a_killed_run_left_and_nothing_else(ten, tmp_path):
    folder = tmp_path / "out/.train.fastsft"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text('{"run_id": "0123456789abcdef", "fingerprint": "", "made_from": {}}')
    for name in ("run.json.0123abcd.part", "publish.json.0123abcd.part", "notes.txt"):
        (folder / name).write_text("")

    report = fastsft.convert(ten, tmp_path / "out/train.jsonl")

    assert report.notes == [f"{folder} could not be removed; the next run does it"]
    assert listed(folder) == ["notes.txt"]


def test_a_link_in_the_place_of_a_file_of_ours_is_not_followed(ten, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "data").write_bytes(b"precious")
    for name, target in ((".train.fastsft", other), (".train.lock", other / "data")):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / name).symlink_to(target)
        with pytest.raises(UsageError, match="is in the way"):
            fastsft.convert(ten, tmp_path / "out/train.jsonl")
        (tmp_path / "out" / name).unlink()
    assert listed(other) == ["data"]
    assert (other / "data").read_bytes() == b"precious"


def test_outputs_of_another_shape_are_not_replaced(ten, tmp_path):
    fastsft.convert(ten, f"{tmp_path}/out/")
    before = listed(tmp_path / "out")
    with pytest.raises(UsageError, match=r"report\.json belongs to train-00000-of-00001\.jsonl"):
        fastsft.convert(ten, tmp_path / "out/train.jsonl")
    assert listed(tmp_path / "out") == before


def test_what_is_in_the_way_is_said_before_any_work(ten, tmp_path):
    (tmp_path / "train.refused").mkdir()
    with pytest.raises(UsageError, match=r"train\.refused is in the way: it is not a regular file"):
        fastsft.convert(ten, tmp_path / "train.jsonl")
    with pytest.raises(UsageError, match=r"cannot write to .*in\.jsonl/sub: Not a directory"):
        fastsft.convert(ten, f"{ten}/sub/")
    with pytest.raises(UsageError, match="not valid UTF-8"):
        fastsft.convert(ten, os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jsonl"))


def test_more_shards_than_a_process_may_hold_open(ten, tmp_path):
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40)); import sys, fastsft; "
        "fastsft.convert(sys.argv[1], sys.argv[2] + '/a/', shard_size=1); "
        "fastsft.convert(sys.argv[1], sys.argv[2] + '/b/', shards=100)"
    )
    many = tmp_path / "many.jsonl"
    many.write_bytes(ten.read_bytes() * 10)
    subprocess.run([sys.executable, "-c", script, str(many), str(tmp_path)], check=True, timeout=60)
    assert [len(shards_written(tmp_path / name)) for name in "ab"] == [100, 100]


def test_a_signal_while_files_get_their_names_comes_too_late(ten, tmp_path):
    script = (
        "import os, signal, sys, fastsft; replace = os.replace\n"
        "def slow(*paths):\n"
        "    if os.path.exists(sys.argv[2] + '.train.fastsft/publish.json'):\n"
        "        os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGINT)\n"
        "    replace(*paths)\n"
        "os.replace = slow; fastsft.convert(sys.argv[1], sys.argv[2], shards=3)"
    )
    subprocess.run([sys.executable, "-c", script, str(ten), f"{tmp_path}/out/"], check=True, timeout=60)
    assert len(listed(tmp_path / "out")) == 4


@pytest.mark.parametrize("problem", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_run_that_ends_while_it_puts_shards_together_leaves_nothing(ten, tmp_path, monkeypatch, problem):
    close = HashedFile.close

    def end(file: HashedFile, **flush: bool) -> None:
        if file.path.name == "train-00001-of-00003.jsonl":
            raise problem
        close(file, **flush)

    monkeypatch.setattr(HashedFile, "close", end)

    with pytest.raises((OSError, FailedRun, KeyboardInterrupt)):
        fastsft.convert(ten, f"{tmp_path}/new/out/", shards=3)
    monkeypatch.undo()
    if isinstance(problem, KeyboardInterrupt):
        assert {path.split("/")[0] for path in listed(tmp_path / "new/out")} == {".train.fastsft"}
        notes = fastsft.convert(ten, f"{tmp_path}/new/out/", shards=3).notes
        assert notes == ["goes on from an interrupted run: 1 of 1 spans were converted before"]
        assert listed(tmp_path / "new/out") == [*shards_written(tmp_path / "new/out"), "train.report.json"]
    else:
        assert not (tmp_path / "new").exists()


def test_a_signal_waits_until_the_output_is_locked(ten, tmp_path, monkeypatch):
    flock = lock.flock

    def interrupted(file: int, *, shared: bool) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return flock(file, shared=shared)

    monkeypatch.setattr(lock, "flock", interrupted)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fastsft.convert(ten, f"{tmp_path}/new/out/")
    assert not (tmp_path / "new").exists()
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_full_disk_publishes_nothing(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines(*[good("x" * 1000)] * 100))
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
    ignored = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    paths = f"{str(tmp_path / 'in.jsonl')!r}, {str(tmp_path / 'out/rows.jsonl')!r}"
    script = f"{limited}{ignored}import fastsft; fastsft.convert({paths})"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)

    assert re.search(
        r"FailedRun: cannot write .*convert-000000.*\.rows: File too large; nothing was published", done.stderr
    )
    assert listed(tmp_path / "out") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("workers", ["forked", "loky"])
def test_a_signal_ends_the_run_and_its_workers_and_publishes_nothing(large, tmp_path, number, workers):
    command = command_of(large, tmp_path, workers)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        wait_for_workers(run, tmp_path)
        os.killpg(run.pid, number)
        _, said_last = run.communicate(timeout=30)

    assert run.returncode == 128 + number
    if workers == "forked":  # a process of loky's that is only just starting prints its traceback, too
        assert said_last.startswith("fastsft: ")
    assert re.search(
        r"(^|\n)fastsft: .*nothing was published; the same command goes on from what was done\n", said_last
    )
    assert left_in_session(run.pid) == []
    assert {path.split("/")[0] for path in listed(tmp_path / "out")} == {".train.fastsft"}


@pytest.mark.parametrize("workers", ["forked", "loky"])
def test_workers_end_with_a_parent_that_was_killed(large, ten, tmp_path, workers):
    with subprocess.Popen(
        command_of(large, tmp_path, workers), start_new_session=True, stderr=subprocess.DEVNULL
    ) as run:
        wait_for_workers(run, tmp_path)
        run.kill()
    assert left_in_session(run.pid) == []
    assert "train.jsonl" not in listed(tmp_path / "out")

    fastsft.convert(ten, tmp_path / "out/train.jsonl")
    assert listed(tmp_path / "out") == ["train.jsonl", "train.report.json"]


@pytest.mark.parametrize("workers", ["forked", "loky"])
def test_a_killed_worker_fails_the_run_and_is_named(large, tmp_path, workers):
    command = [*command_of(large, tmp_path, workers), "--retries", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        for pid in wait_for_workers(run, tmp_path):
            with contextlib.suppress(ProcessLookupError):  # ended by the parent, which saw that the other was gone
                os.kill(pid, signal.SIGKILL)
        _, problem = run.communicate(timeout=30)

    assert run.returncode == 1
    assert problem.startswith("fastsft: a worker process was killed, perhaps for lack of memory")
    assert "the same command goes on from what was done" in problem
    assert {path.split("/")[0] for path in listed(tmp_path / "out")} == {".train.fastsft"}


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """A shard that takes a second or more: one line, repeated to 400 MB."""
    path = tmp_path_factory.mktemp("large") / "in.jsonl"
    block = line(good("x" * 2000)) * 4000
    with path.open("wb") as file:
        for _ in range(400_000_000 // len(block)):
            file.write(block)
    return path


# A process that has imported joblib may have chosen a backend and has threads of its own, so it is not forked.
STARTS = {"forked": ["-m", "fastsft"], "loky": ["-c", "import joblib; from fastsft.cli.main import main; main()"]}


def command_of(shard: Path, tmp_path: Path, workers: str) -> list[str]:
    output = str(tmp_path / "out/train.jsonl")
    return [sys.executable, *STARTS[workers], "convert", str(shard), "--output", output, "--jobs", "2"]


def wait_for_workers(run: subprocess.Popen, tmp_path: Path) -> list[int]:
    """Wait until both workers have been at work and there is a receipt; give their pids.

    A process of loky's that has no task yet does not know of its parent, and ends when it has waited for five minutes.
    """
    deadline = time.monotonic() + 60
    seen: set[int] = set()
    while time.monotonic() < deadline and run.poll() is None:
        seen |= {pid for pid in session_of(run.pid) if pid != run.pid and is_writing(pid)}
        if len(seen) == 2 and any((tmp_path / "out/.train.fastsft").glob("*/*.receipt")):
            return sorted(seen)
        os.sched_yield()
    raise AssertionError(f"no receipt came: {run.poll()}")


def is_writing(pid: int) -> bool:
    try:
        return any(os.readlink(file).endswith(".rows") for file in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def left_in_session(leader: int) -> list[int]:
    """The pids of the processes in a session that have not ended within 20 seconds."""
    deadline = time.monotonic() + 20
    while session_of(leader) and time.monotonic() < deadline:
        os.sched_yield()
    return session_of(leader)


def session_of(leader: int) -> list[int]:
    """The pids of all living processes in a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                threads = len(os.listdir(entry / "task"))
            except OSError:
                continue
            if int(fields[3]) == leader and (fields[0] != "Z" or threads > 1):  # not all of it has ended
                found.append(int(entry.name))
    return found


# Shards of output.


def shards_written(folder: Path) -> dict[str, list[str]]:
    return {
        path.name: [json.loads(row)["messages"][1]["content"] for row in path.read_bytes().splitlines()]
        for path in sorted(folder.glob("*.jsonl"))
    }


@pytest.fixture
def ten(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(lines(*map(good, "0123456789")))
    return path


@pytest.mark.parametrize("span_nbytes", [1, 500, 10**6])
def test_shards_by_count_differ_by_one_row_at_most(ten, tmp_path, span_nbytes):
    report = run([ten], f"{tmp_path}/out/", Options(shards=4, span_nbytes=span_nbytes, jobs=1))

    assert shards_written(tmp_path / "out") == {
        "train-00000-of-00004.jsonl": ["0", "1", "2"],
        "train-00001-of-00004.jsonl": ["3", "4", "5"],
        "train-00002-of-00004.jsonl": ["6", "7"],
        "train-00003-of-00004.jsonl": ["8", "9"],
    }
    assert [shard.rows for shard in report.outputs] == [3, 3, 2, 2]
    assert [shard.sha256 for shard in report.outputs] == [
        hashlib.sha256((tmp_path / "out" / shard.name).read_bytes()).hexdigest() for shard in report.outputs
    ]
    assert listed(tmp_path / "out") == [*shards_written(tmp_path / "out"), "train.report.json"]


def test_no_shard_is_empty_where_rows_are_few(ten, tmp_path):
    fastsft.convert(ten, f"{tmp_path}/out/", shards=40)
    assert list(shards_written(tmp_path / "out").values()) == [[digit] for digit in "0123456789"]


@pytest.mark.parametrize("span_nbytes", [40, 10**6])
@pytest.mark.parametrize("jobs", [1, 2])
def test_shards_by_size_are_as_full_as_rows_of_one_span_or_spans_of_one_row_allow(ten, tmp_path, span_nbytes, jobs):
    row = len(b'{"messages":[{"role":"user","content":"?"},{"role":"assistant","content":"0"}]}\n')

    for nbytes, sizes in ((3 * row, [3, 3, 3, 1]), (3 * row + 1, [3, 3, 3, 1]), (3 * row - 1, [2] * 5), (1, [1] * 10)):
        options = Options(shard_nbytes=nbytes, span_nbytes=span_nbytes, jobs=jobs)
        report = run([ten], f"{tmp_path}/{nbytes}/", options)
        assert [shard.rows for shard in report.outputs] == sizes
        assert "".join(itertools.chain(*shards_written(tmp_path / str(nbytes)).values())) == "0123456789"


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_shards_by_size_hold_whole_spans(ten, tmp_path, jobs):
    """Spans of four lines, four and two: two spans would be more than a shard may hold, so each is one of its own."""
    line = ten.stat().st_size // 10
    row = len(b'{"messages":[{"role":"user","content":"?"},{"role":"assistant","content":"0"}]}\n')
    report = run([ten], f"{tmp_path}/out/", Options(shard_nbytes=6 * row, span_nbytes=4 * line, jobs=jobs))

    assert [shard.rows for shard in report.outputs] == [4, 6]
    assert list(shards_written(tmp_path / "out").values()) == [list("0123"), list("456789")]


def test_a_folder_that_exists_takes_shards_of_a_gigabyte(ten, tmp_path):
    (tmp_path / "out").mkdir()
    report = fastsft.convert(ten, tmp_path / "out", name="math")
    assert [shard.name for shard in report.outputs] == ["math-00000-of-00001.jsonl"]
    assert listed(tmp_path / "out") == ["math-00000-of-00001.jsonl", "math.report.json"]


def test_shards_of_an_earlier_run_are_replaced_and_strange_ones_refused(ten, tmp_path):
    fastsft.convert(ten, f"{tmp_path}/out/", shards=5)
    fastsft.convert(ten, f"{tmp_path}/out/", shards=2)
    assert listed(tmp_path / "out") == ["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "train.report.json"]

    strange = tmp_path / "out/train-00007-of-00009.jsonl"
    strange.write_text("{}\n")
    with pytest.raises(UsageError, match=r"train-00007-of-00009\.jsonl, which no report there names"):
        fastsft.convert(ten, f"{tmp_path}/out/")
    assert strange.exists()


def test_two_runs_do_not_write_to_one_target_at_once(ten, tmp_path):
    def again(_: object) -> None:
        with pytest.raises(UsageError, match=r"another run is writing to .*out/train"):
            fastsft.convert(ten, tmp_path / "out/train.jsonl")

    report = fastsft.convert(ten, tmp_path / "out/train.jsonl", on_progress=again)

    assert report.rows == 10
    assert listed(tmp_path / "out") == ["train.jsonl", "train.report.json"]


def test_a_lock_whose_file_is_removed_while_it_is_taken_is_taken_again(tmp_path, monkeypatch):
    """Whoever held it removes the file last; a lock on a file that nobody finds any more keeps nobody away."""
    flock, target, taken = fcntl.flock, target_of(tmp_path / "train.jsonl", Options()), []

    def removed_before(file: int, how: int) -> None:
        if not taken:
            target.lock.unlink()
        taken.append(file)
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", removed_before)
    first, second = lock.Lock(target), lock.Lock(target)
    first.take([])
    with pytest.raises(UsageError, match=r"another run is writing to .*/train"):
        second.take([])

    assert first.release()
    assert len(taken) == 3
    assert listed(tmp_path) == []


def test_a_lock_is_as_open_to_others_as_any_file_and_released_where_closing_it_fails(tmp_path, monkeypatch):
    def refuse(file: int) -> None:
        close(file)
        raise OSError(5, "Input/output error")

    close, held = os.close, lock.Lock(target_of(tmp_path / "train.jsonl", Options()))
    umask = os.umask(0o002)
    try:
        held.take([])
    finally:
        os.umask(umask)

    assert stat.S_IMODE(held.target.lock.stat().st_mode) == 0o664
    with monkeypatch.context() as patch:
        patch.setattr(os, "close", refuse)
        assert held.release()
    assert listed(tmp_path) == []


def test_a_worker_that_is_lost_while_segments_are_removed_fails_no_run(ten, tmp_path, monkeypatch):
    def lost(*_: object, **__: object) -> None:
        raise KeepsReceipts("a worker process was killed")

    monkeypatch.setattr(outputs, "_remove_segments", lost)
    report = run([ten], f"{tmp_path}/out/", Options(shards=2, jobs=1))

    assert [shard.rows for shard in report.outputs] == [5, 5]
    assert listed(tmp_path / "out") == [*shards_written(tmp_path / "out"), "train.report.json"]


def test_progress_is_told_in_bytes_and_rows(ten, tmp_path):
    told: list[fastsft.Progress] = []
    run([ten], tmp_path / "rows.jsonl", Options(span_nbytes=ten.stat().st_size // 2, jobs=1), on_progress=told.append)

    assert [(step.nbytes, step.rows) for step in told][-1] == (ten.stat().st_size, 10)
    assert {step.total_nbytes for step in told} == {ten.stat().st_size}
    assert len(told) > 1


def test_progress_goes_on_through_all_shards_whatever_is_converted_at_once(ten, tmp_path, monkeypatch):
    monkeypatch.setattr(staged, "_BLOCK_NBYTES", 300)
    other = tmp_path / "other.jsonl"
    other.write_bytes(ten.read_bytes())
    told: list[int] = []
    nbytes = ten.stat().st_size
    run([ten, other], tmp_path / "rows.jsonl", Options(jobs=1), on_progress=lambda step: told.append(step.nbytes))

    assert told == sorted(told)
    assert {nbytes, 2 * nbytes} < set(told)


@pytest.mark.parametrize("span_nbytes", [500, 10**6])
def test_progress_of_two_passes_goes_on_from_the_first_to_the_second(ten, tmp_path, span_nbytes):
    told: list[fastsft.Progress] = []
    options = Options(jobs=1, span_nbytes=span_nbytes, sample="100%")
    run([ten], tmp_path / "rows.jsonl", options, on_progress=told.append)

    total = ten.stat().st_size
    assert {step.total_nbytes for step in told} == {total}
    assert [step.nbytes for step in told] == sorted(step.nbytes for step in told)
    assert max(step.nbytes for step in told if not step.rows) == total // 2
    assert (told[-1].nbytes, told[-1].rows) == (total, 10)


@pytest.mark.parametrize("jobs", [1, 2])
def test_progress_says_which_phase_and_how_far_that_is(ten, tmp_path, jobs):
    told: list[fastsft.Progress] = []
    total = ten.stat().st_size
    options = Options(jobs=jobs, span_nbytes=total // 2, sample=5)
    run([ten], tmp_path / "rows.jsonl", options, on_progress=told.append)

    steps = [(one.phase, one.phases, one.phase_nbytes, one.phase_total_nbytes, one.rows) for one in told]
    both = ("scan", "convert")
    assert steps[0] == ("scan", both, 0, total, 0)
    assert ("scan", both, total, total, 0) in steps
    assert ("choose", both, 0, 0, 0) in steps
    assert ("convert", both, 0, total, 0) in steps
    assert steps[-2:] == [("convert", both, total, total, 5), ("publish", both, 0, 0, 5)]
    assert list(dict.fromkeys(one.phase for one in told)) == ["scan", "choose", "convert", "publish"]
    assert {rows for phase, _, _, _, rows in steps if phase in ("scan", "choose")} == {0}


def test_progress_begins_at_nothing_where_an_index_stands_for_the_first_pass(ten, tmp_path):
    told: list[fastsft.Progress] = []
    fastsft.index(ten, tmp_path / "index.parquet")
    options = Options(jobs=1, span_nbytes=500)
    run([ten], tmp_path / "rows.jsonl", options, index=tmp_path / "index.parquet", on_progress=told.append)

    total = ten.stat().st_size
    begun = [(0, 0), (0, 0)]  # choosing, converting
    assert [(step.nbytes, step.rows) for step in told if step.rows < 5] == [
        *begun,
        (total // 5, 2),
        (2 * total // 5, 4),
    ]


def test_options_and_reports_cross_processes():
    options = Options(allow=("all",), max_refused="1%")
    assert msgspec.json.decode(msgspec.json.encode(options), type=Options) == options


# Compressed shards.

PACKED = {"gz": gzip.compress, "zst": zstd.compress}
UNPACKED = {"gz": gzip.decompress, "zst": zstd.decompress}


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("jobs", [1, 2])
def test_compressed_shards_give_the_same_rows_whatever_their_names(mixed, tmp_path, kind, jobs):
    packed = []
    for path in mixed:
        packed.append(tmp_path / f"{path.name}.bin")
        packed[-1].write_bytes(PACKED[kind](path.read_bytes()))
    options = Options(jobs=jobs, span_nbytes=200_000)

    plain = run(mixed, tmp_path / "plain.jsonl", Options(jobs=1))
    report = run([packed[0], mixed[1], packed[2]], tmp_path / "rows.jsonl", options)

    assert (tmp_path / "rows.jsonl").read_bytes() == (tmp_path / "plain.jsonl").read_bytes()
    assert report.fates == plain.fates
    refused = [(tmp_path / name).read_text().replace(".bin", "") for name in ("rows.refused", "plain.refused")]
    for path in mixed:
        refused = [text.replace(str(path), path.name).replace(str(tmp_path / path.name), path.name) for text in refused]
    assert refused[0] == refused[1]


def damaged(packed: bytes) -> dict[str, bytes]:
    return {"ends early": packed[: len(packed) // 2], "flipped": packed[:-30] + b"\xff" * 20 + packed[-10:]}


@pytest.mark.parametrize("more", [{}, {"best_of": 9}])
def test_nothing_of_a_damaged_shard_is_counted(tmp_path, more):
    thinks = line(rollout(user("?"), thought("hm"), said("4")))
    (tmp_path / "good.jsonl").write_bytes(thinks)
    torn = gzip.compress(b"{torn\n" + thinks * 2000, 1)
    (tmp_path / "cut.jsonl.gz").write_bytes(torn[:-20])

    report = fastsft.convert(tmp_path, tmp_path / "out/rows.jsonl", jobs=1, **more)

    assert (report.rows, report.left_out, report.fates.all_refused) == (1, {"reasoning": 1}, 0)
    assert len(report.damaged) == 1


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("fault", ["ends early", "flipped"])
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_damaged_shard_is_refused_whole_and_the_run_goes_on(ten, tmp_path, kind, fault, jobs):
    broken = tmp_path / "broken.jsonl"
    noise = lines(*(good(hashlib.sha256(b"%d" % number).hexdigest() * 20) for number in range(50)))
    broken.write_bytes(damaged(PACKED[kind](noise))[fault])

    report = run([ten, broken], tmp_path / "rows.jsonl", Options(jobs=jobs, span_nbytes=5000))

    assert report.rows == 10
    assert [(shard.fates.lines, shard.problem is None) for shard in report.inputs] == [(10, True), (0, False)]
    assert (report.inputs[1].problem or "").startswith(f"{broken} is damaged: ")
    for options, error in (({"max_refused": "50%"}, TooManyRefused), ({}, FailedRun)):
        with pytest.raises(error, match=r"broken\.jsonl is damaged"):
            fastsft.convert([ten, broken] if options else broken, tmp_path / "none.jsonl", **options)


@pytest.mark.parametrize("kind", PACKED)
def test_rows_are_compressed_into_a_file_whose_name_says_so(ten, tmp_path, kind):
    fastsft.convert(ten, tmp_path / "plain.jsonl")
    report = fastsft.convert(ten, tmp_path / f"rows.jsonl.{kind}")
    written = (tmp_path / f"rows.jsonl.{kind}").read_bytes()

    assert UNPACKED[kind](written) == (tmp_path / "plain.jsonl").read_bytes()
    assert (report.outputs[0].nbytes, report.outputs[0].sha256) == (len(written), hashlib.sha256(written).hexdigest())
    assert (tmp_path / "rows.report.json").exists()
    with pytest.raises(UsageError, match=f"a file that says so: .*rows.jsonl.{kind}"):
        fastsft.convert(ten, tmp_path / "rows.jsonl", compress=kind)


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("cut", [{"shards": 3}, {"shard_size": 170}])
def test_compressed_shards_are_cut_as_plain_ones(ten, tmp_path, kind, cut):
    fastsft.convert(ten, f"{tmp_path}/plain/", **cut)
    fastsft.convert(ten, f"{tmp_path}/packed/", compress=kind, **cut)
    fastsft.convert(ten, f"{tmp_path}/packed/", compress=kind, **cut)

    plain = {path.name: path.read_bytes() for path in (tmp_path / "plain").glob("*.jsonl")}
    packed = {path.name: UNPACKED[kind](path.read_bytes()) for path in (tmp_path / "packed").glob("*.jsonl.*")}
    assert packed == {f"{name}.{kind}": rows for name, rows in plain.items()}
    assert len(packed) == 3 if "shards" in cut else len(packed) > 3


@pytest.mark.parametrize("kind", [None, *PACKED])
@pytest.mark.parametrize("span_nbytes", [100, 10**6])
def test_a_line_that_is_too_long_is_refused_and_the_next_is_read(tmp_path, kind, span_nbytes):
    path = tmp_path / "in.jsonl"
    long = line(good("x" * 3000))
    data = line(good("1")) + long + line(good("2")) + long[:-1]
    path.write_bytes(PACKED[kind](data) if kind else data)

    report = run([path], tmp_path / "rows.jsonl", Options(max_line_nbytes=2000, span_nbytes=span_nbytes))

    assert report.fates == Fates(lines=4, kept=2, refused={"line_too_long": 2})
    recorded = [json.loads(entry) for entry in (tmp_path / "rows.refused").read_bytes().splitlines()]
    assert [(entry["line"], entry["offset"]) for entry in recorded] == [
        (2, data.index(long)),
        (4, data.rindex(long[:-1])),
    ]


def test_a_bomb_costs_time_and_not_memory(tmp_path):
    path = tmp_path / "bomb.zst"
    compressor = zstd.ZstdCompressor()
    with path.open("wb") as file:
        for _ in range(30):
            file.write(compressor.compress(b" " * 50_000_000))
        file.write(compressor.compress(b"\n" + line(good())) + compressor.flush())
    assert path.stat().st_size < 1_000_000
    limited = "import resource; resource.setrlimit(resource.RLIMIT_DATA, (1_200_000_000, 1_200_000_000)); "
    script = f"{limited}import sys, fastsft; print(fastsft.convert(sys.argv[1], sys.argv[2], max_line='64MB').fates)"
    command = [sys.executable, "-c", script, str(path), str(tmp_path / "rows.jsonl")]

    done = subprocess.run(command, capture_output=True, text=True, timeout=120)

    assert "kept=1" in done.stdout, done.stderr
    assert "'line_too_long': 1" in done.stdout


def test_a_span_is_made_in_any_working_directory(ten, tmp_path, monkeypatch):
    """As a worker on another machine has another."""
    monkeypatch.chdir(ten.parent)
    shards, _ = find_rollouts([ten.name])
    rows = Rows(options=Options(), folder=str(tmp_path.resolve()))
    monkeypatch.chdir("/")

    assert [segment.rows for segment in rows.make(whole_of(shards)).segments] == [10]


def test_very_short_lines_are_judged_few_at_once_and_numbered_as_they_stand(tmp_path, monkeypatch):
    shard = tmp_path / "short.jsonl"
    rollouts = lines(*(rollout(user("?"), said(str(number))) for number in range(4)))
    shard.write_bytes(b"x\n\ny\n" + rollouts + b"z")
    fastsft.convert(shard, tmp_path / "at-once.jsonl")
    monkeypatch.setattr("fastsft.pipeline.judging._MOST_LINES", 2)
    fastsft.convert(shard, tmp_path / "few.jsonl")

    assert (tmp_path / "few.jsonl").read_bytes() == (tmp_path / "at-once.jsonl").read_bytes()
    refused = [json.loads(line) for line in (tmp_path / "few.refused").read_bytes().splitlines()]
    assert [(line["line"], line["offset"]) for line in refused] == [(1, 0), (3, 3), (8, 5 + len(rollouts))]
    assert refused == [json.loads(line) for line in (tmp_path / "at-once.refused").read_bytes().splitlines()]


@pytest.mark.parametrize("most", [0, 1, 4, 5, 6, 11, 12, None])
@pytest.mark.parametrize("plan", [{"jobs": 1}, {"jobs": 2}, {"jobs": 1, "best_of": 1}])
def test_the_first_refused_lines_are_listed_and_all_are_counted(tmp_path, most, plan):
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_bytes(b"".join([line(good("x" * 900)), b"{torn\n"] * 6))
    output, everything = tmp_path / "out/train.jsonl", tmp_path / "all/train.jsonl"
    inputs = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    run(inputs, everything, Options(span_nbytes=3000, **plan))

    report = run(inputs, output, Options(span_nbytes=3000, max_refused_recorded=most, **plan))

    listed = (tmp_path / "all/train.refused").read_bytes().splitlines(keepends=True)
    assert len(listed) == 12
    assert report.fates.all_refused == 12
    refused = tmp_path / "out/train.refused"
    assert (refused.read_bytes() if refused.exists() else b"") == b"".join(listed[:most])
    told = [f"the first {most} of 12 refused lines are listed (--max-refused-recorded)"]
    assert report.notes == (told if most is not None and most < 12 else [])
    assert fastsft.verify(output).differences == []
