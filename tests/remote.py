"""Runs from and to a store: a moto server on loopback, and before it a proxy that fails as networks do.

Not collected by itself: `tox -e remote` runs it.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import generate
import pytest
from builders import line, rollout, said, user
from faulty_store import Fault, Proxy, moto

import fastsft
from fastsft import FailedRun, Options, UsageError
from fastsft.options import Split
from fastsft.outputs import upload
from fastsft.pipeline import run
from fastsft.pipeline.finding import find_lines
from fastsft.pipeline.search import Search
from fastsft.pipeline.to_store import run_to_store
from fastsft.storage import attempts, stores

boto3 = pytest.importorskip("boto3", reason="tox -e remote installs boto3 and moto")
pytest.importorskip("obstore", reason="tox -e remote installs obstore")
zstd = pytest.importorskip("backports.zstd")

PROJECT = Path(__file__).resolve().parent.parent
KEY, SECRET = "AKIAFAKEFAKEFAKEFAKE", "wJalrFAKEFAKEFAKEFAKEFAKEFAKEFAKEFAKEKEY"
SPAN_NBYTES = 400_000


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    with moto() as url:
        yield url


@pytest.fixture(scope="session")
def one_proxy(server: str) -> Iterator[Proxy]:
    """What fastsft takes for the store, in all tests, as joblib's workers live for more than one."""
    with Proxy(server) as proxy, pytest.MonkeyPatch.context() as patch:
        names = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
        places = os.pathsep.join([str(PROJECT), str(PROJECT / "tests")])
        for name, value in {**names, "AWS_ENDPOINT_URL": proxy.url, "PYTHONPATH": places}.items():
            patch.setenv(name, value)
        yield proxy


@pytest.fixture
def proxy(one_proxy: Proxy) -> Proxy:
    """The same; faults come with `proxy.faults`."""
    one_proxy.faults, one_proxy.requests = [], []
    stores._stores.clear()
    return one_proxy


class Bucket:
    """A bucket of its own for a test, by boto3, past the proxy."""

    def __init__(self, server: str, name: str) -> None:
        keys = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
        self.name, self.url = name, f"s3://{name}"
        self.client = boto3.client("s3", endpoint_url=server, **keys)
        self.client.create_bucket(Bucket=name)

    def put(self, key: str, data: bytes) -> str:
        self.client.put_object(Bucket=self.name, Key=key, Body=data)
        return f"{self.url}/{key}"

    def get(self, key: str) -> bytes:
        return self.client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def objects(self) -> dict[str, bytes]:
        found = self.client.list_objects_v2(Bucket=self.name).get("Contents", [])
        return {one["Key"]: self.get(one["Key"]) for one in found}


@pytest.fixture
def bucket(server: str, proxy: Proxy) -> Bucket:
    Bucket.count = getattr(Bucket, "count", 0) + 1
    return Bucket(server, f"bucket-{Bucket.count}")


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return generate.write(tmp_path_factory.mktemp("in"), "mixed", count=240, nbytes=0, shards=3, seed=7)


PACKS = {"jsonl": bytes, "jsonl.gz": gzip.compress, "jsonl.zst": zstd.compress}


def files_in(folder: Path) -> dict[str, bytes]:
    """Names and bytes of what a run left; of reports, all but what the clock and the inputs' names change."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: _plain(name, data) for name, data in found.items()}


def _plain(name: str, data: bytes) -> bytes:
    if name.endswith(".report.json"):
        report = json.loads(data)
        del report["seconds"], report["notes"]
        for shard in report["inputs"]:
            shard["path"] = shard["path"].rpartition("/")[2]
        return json.dumps(report).encode()
    if name.endswith(".refused"):
        lines = [json.loads(one) for one in data.splitlines()]
        return json.dumps([{**one, "shard": one["shard"].rpartition("/")[2]} for one in lines]).encode()
    return data


# Reading.


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("suffix", PACKS)
@pytest.mark.parametrize("more", [{}, {"best_of": 1, "dedup": True}, {"verify_inputs": True}], ids=str)
def test_objects_give_the_same_as_files(shards, bucket, tmp_path, suffix, jobs, more):
    (tmp_path / "in").mkdir()
    for path in shards:
        data = PACKS[suffix](b"{torn\n" + path.read_bytes())
        name = f"{path.stem}.{suffix}"
        (tmp_path / "in" / name).write_bytes(data)
        bucket.put(f"run 1/{name}", data)
    options = Options(jobs=jobs, span_nbytes=SPAN_NBYTES, **more)

    run([tmp_path / "in"], f"{tmp_path}/local/", options)
    run([f"{bucket.url}/run 1"], f"{tmp_path}/remote/", options)

    assert files_in(tmp_path / "remote") == files_in(tmp_path / "local")
    assert len(files_in(tmp_path / "remote")) == 3


@pytest.mark.parametrize("window_nbytes", [30_000, 8_000_000])
def test_one_big_object_is_cut_into_spans_and_lines_lie_across_all_edges(
    shards, bucket, proxy, tmp_path, monkeypatch, window_nbytes
):
    long = line(rollout(user("?"), said("4" * 900_000)))
    data = b"".join(path.read_bytes() + long for path in shards)
    (tmp_path / "big.jsonl").write_bytes(data)
    bucket.put("big.jsonl", data)
    monkeypatch.setattr("fastsft.storage.read_ahead.WINDOW_NBYTES", window_nbytes)
    for jobs in (1, 2):
        options = Options(jobs=jobs, span_nbytes=SPAN_NBYTES, reward_threshold=0.5)
        run([tmp_path / "big.jsonl"], tmp_path / "local/rows.jsonl", options)
        run([f"{bucket.url}/big.jsonl"], tmp_path / "remote/rows.jsonl", options)
        assert files_in(tmp_path / "remote") == files_in(tmp_path / "local")
    assert len(proxy.requests) > len(data) / SPAN_NBYTES


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["in/a.jsonl"], ["in/a.jsonl"]),
        (["in/"], ["in/a.jsonl", "in/b.jsonl.gz"]),
        (["in"], ["in/a.jsonl", "in/b.jsonl.gz"]),
        (["in/b*", "in/a.jsonl"], ["in/b.jsonl.gz", "in/a.jsonl"]),
        (["**/*.jsonl"], ["in/a.jsonl", "in/deep/c.jsonl", "odd [x] #é.jsonl"]),
        (["in/*/?.jsonl"], ["in/deep/c.jsonl"]),
        (["in/a.jsonl", "in"], ["in/a.jsonl", "in/b.jsonl.gz"]),
        (["odd [x] #é.jsonl"], ["odd [x] #é.jsonl"]),
        (["in/notes.txt"], ["in/notes.txt"]),
    ],
)
def test_urls_name_objects_as_paths_name_files(bucket, words, found):
    for key in ("in/b.jsonl.gz", "in/a.jsonl", "in/deep/c.jsonl", "in/notes.txt", "in/.hidden.jsonl", "inner.txt"):
        bucket.put(key, line(rollout(user("?"), said("4"))))
    bucket.put("in/x_failures.jsonl", b"{}\n")
    bucket.put("odd [x] #é.jsonl", b"{}\n")
    from fastsft.inputs.shards import find_shards

    shards, notes = find_shards([f"{bucket.url}/{word}" for word in words])

    assert [shard.path.removeprefix(f"{bucket.url}/") for shard in shards] == found
    assert all("left out" in note or "counts once" in note for note in notes)


def test_what_names_no_object_is_said(bucket):
    bucket.put("deep/down/a.jsonl", b"{}\n")
    for url, problem in (
        (f"{bucket.url}/none.jsonl", "there is no such object"),
        (f"{bucket.url}/*.none", "no object matches"),
        (f"{bucket.url}/deep", r"has no object named \*.jsonl.*; there are some deeper: 's3://.*/deep/\*\*/\*.jsonl'"),
    ):
        with pytest.raises(UsageError, match=problem):
            fastsft.stats(url)
    with pytest.raises(FailedRun, match=r"404 Not Found \(NoSuchBucket\)"):
        fastsft.stats("s3://no-such-bucket/in/")


def test_an_object_that_changes_between_scan_and_convert_stops_the_run(shards, bucket, tmp_path, monkeypatch):
    url = bucket.put("in.jsonl", shards[0].read_bytes())
    from fastsft.pipeline import drive

    begin = drive.spans_of

    def changed(*arguments: Any) -> Any:
        bucket.put("in.jsonl", shards[0].read_bytes().replace(b"a", b"b"))
        return begin(*arguments)

    monkeypatch.setattr(drive, "spans_of", changed)
    for more in ({}, {"best_of": 1}):
        bucket.put("in.jsonl", shards[0].read_bytes())
        with pytest.raises(FailedRun, match=r"s3://bucket-\d+/in.jsonl changed while it was read"):
            run([url], tmp_path / "rows.jsonl", Options(jobs=1, **more))
    assert os.listdir(tmp_path) == ["work"]


@pytest.mark.parametrize(
    ("search", "options"),
    [
        ({"reason": "kept"}, {}),
        ({"reason": "below_threshold"}, {"best_of": 1}),
        ({"reason": "not_best"}, {"best_of": 1}),
        ({"at_random": True}, {}),
    ],
)
def test_lines_are_found_in_objects_as_in_files(shards, bucket, monkeypatch, search, options):
    url = bucket.put("in.jsonl", shards[0].read_bytes())
    for whole in (10**9, 0):  # read whole, and in few places
        monkeypatch.setattr("fastsft.pipeline.finding._READ_WHOLE_NBYTES", whole)
        found = [
            [one.line for one in find_lines([str(path)], Search(count=9, **search), Options(**options), [])]
            for path in (shards[0], url)
        ]
        assert found[0] == found[1] != []


def test_other_commands_read_objects_too(shards, bucket, tmp_path, monkeypatch):
    url = bucket.put("in.jsonl", shards[0].read_bytes())
    rows = fastsft.convert(url, tmp_path / "rows.jsonl", index=None)
    bucket.put("rows.jsonl", (tmp_path / "rows.jsonl").read_bytes())

    fastsft.index(url, tmp_path / "i.index")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # an index is of URLs, wherever it is used
    report = fastsft.convert(url, tmp_path / "best.jsonl", best_of=1, index=tmp_path / "i.index")
    shown, reported = (
        subprocess.run([sys.executable, "-m", "fastsft", "show", *words, "-n", "1"], capture_output=True, text=True)
        for words in ([url], ["--report", tmp_path / "rows.jsonl", "--reason", "kept"])
    )

    assert fastsft.stats(url).fates.lines == rows.fates.lines == report.fates.lines
    assert fastsft.check(f"{bucket.url}/rows.jsonl").findings == fastsft.check(tmp_path / "rows.jsonl").findings
    assert len(list(fastsft.rows(url))) == rows.rows
    assert (shown.returncode, f"{url}:1" in shown.stdout) == (0, True)
    assert (reported.returncode, f"{url}:" in reported.stdout, "kept;" in reported.stdout) == (0, True, True)
    bucket.put("in.jsonl", shards[0].read_bytes().replace(b"a", b"b"))
    with pytest.raises(UsageError, match=r"is older than s3://.*/in.jsonl, which has changed"):
        fastsft.convert(url, tmp_path / "best.jsonl", best_of=1, index=tmp_path / "i.index")


# Faults.

GETS = r"GET /bucket-\d+/in"


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(
    "fault",
    [
        Fault("busy", GETS, times=3),
        Fault("busy", GETS, times=2, after=5),
        Fault("cut", GETS, times=2, after=2),
        Fault("slow", GETS, times=4),
        Fault("busy", "list-type=2", times=2),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.match[:4]}-{fault.times}-{fault.after}",
)
def test_reading_goes_on_behind_what_passes(shards, bucket, proxy, tmp_path, fault, jobs):
    for path in shards:
        bucket.put(f"in/{path.name}", path.read_bytes())
    proxy.faults = [Fault(fault.kind, fault.match, fault.times, fault.after)]
    options = Options(jobs=jobs, span_nbytes=SPAN_NBYTES)

    run([f"{bucket.url}/in/"], tmp_path / "remote/rows.jsonl", options)
    run(shards, tmp_path / "local/rows.jsonl", options)

    assert proxy.faults[0].met > fault.after
    assert files_in(tmp_path / "remote") == files_in(tmp_path / "local")


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault("busy", GETS, times=10**9, after=8), r"the store answered 503 Service Unavailable \(SlowDown\)"),
        (Fault("denied", GETS, times=10**9, after=8), r"403 Forbidden \(AccessDenied\); check the credentials"),
        (Fault("cut", GETS, times=10**9, after=8), "broke off"),
        (Fault("stall", GETS, times=10**9, after=8), r"did not answer in \d s"),
    ],
    ids=lambda one: one.kind if isinstance(one, Fault) else "",
)
def test_reading_in_vain_ends_with_a_sentence_and_the_same_command_goes_on(
    shards, bucket, proxy, tmp_path, monkeypatch, fault, told
):
    for path in shards:
        bucket.put(f"in/{path.name}", path.read_bytes())
    for name, value in {"REQUEST_SECONDS": 1, "RETRIES": 2, "RETRY_SECONDS": 4}.items():
        monkeypatch.setattr(f"fastsft.storage.by_obstore.{name}", value)
    monkeypatch.setattr(attempts, "REQUEST_SECONDS", 1)
    proxy.faults = [fault]
    options, started = Options(jobs=1, span_nbytes=SPAN_NBYTES, shards=2), time.monotonic()

    with pytest.raises(FailedRun, match=rf"cannot read s3://bucket-\d+/in/mixed-0000\d.jsonl: .*{told}") as caught:
        run([f"{bucket.url}/in/"], f"{tmp_path}/remote/", options)

    assert time.monotonic() - started < 40
    assert KEY not in str(caught.value)
    assert SECRET not in str(caught.value)
    proxy.faults = []
    report = run([f"{bucket.url}/in/"], f"{tmp_path}/remote/", options)
    run(shards, f"{tmp_path}/local/", options)
    assert files_in(tmp_path / "remote") == files_in(tmp_path / "local")
    assert [note for note in report.notes if "goes on" in note]


# Writing.

PLANS: dict[str, dict[str, Any]] = {
    "train.jsonl": {},
    "train.jsonl.gz": {},
    "": {"shard_nbytes": 100_000},
    "deep/er/": {"shards": 3, "compress": "zst"},
    "carded/": {"shards": 2, "card": True},
    "best.jsonl": {"best_of": 1, "dedup": True},
}


def same_in_bucket(bucket: Bucket, folder: Path) -> bool:
    """Whether the bucket holds under `out/` what a local run left in a folder."""
    found = {key.removeprefix("out/"): data for key, data in bucket.objects().items() if key.startswith("out/")}
    return {name: _plain(name, data) for name, data in found.items()} == files_in(folder)


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where rows are made first; nothing is left there by a run that ends well."""
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "work"))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path / "work"


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("splits", [[], ["val.jsonl"], ["val/"]], ids=str)
@pytest.mark.parametrize("plan", PLANS)
def test_outputs_in_a_store_are_those_of_a_folder(shards, bucket, tmp_path, work, plan, splits, jobs):
    options = Options(jobs=jobs, span_nbytes=SPAN_NBYTES, **PLANS[plan])

    def several(root: str) -> list[Split]:
        return [Split(f"{root}/out/{one}", 0.2) for one in splits]

    run(shards, f"{tmp_path}/out/{plan}", options, splits=several(str(tmp_path)))
    for _ in range(2):  # the second replaces what the first wrote
        report = run_to_store(shards, f"{bucket.url}/out/{plan}", options, splits=several(bucket.url))
        assert same_in_bucket(bucket, tmp_path / "out")

    assert report.folder == f"{bucket.url}/out/{plan.rpartition('/')[0]}".rstrip("/") + "/"
    found = fastsft.verify(f"{bucket.url}/out/{plan}")
    assert (found.differences, found.rows) == ([], report.fates.kept)
    assert os.listdir(work) == []


def test_files_of_an_older_run_go_and_others_stay(shards, bucket, tmp_path):
    bucket.put("out/notes.txt", b"mine")
    for options in (Options(jobs=1, shards=4), Options(jobs=1, shards=2), Options(jobs=1, shards=3)):
        run_to_store(shards, f"{bucket.url}/out/", options)
        run(shards, f"{tmp_path}/out/", options)
        assert bucket.objects()["out/notes.txt"] == b"mine"
        bucket.client.delete_object(Bucket=bucket.name, Key="out/notes.txt")
        assert same_in_bucket(bucket, tmp_path / "out")
        bucket.put("out/notes.txt", b"mine")


def test_a_card_that_is_not_ours_stands_in_the_way_and_stays_without_card(shards, bucket, tmp_path):
    options, url = Options(jobs=1, card=True), f"{bucket.url}/out/"
    run_to_store(shards, url, options)
    run(shards, f"{tmp_path}/out/", options)
    assert same_in_bucket(bucket, tmp_path / "out")
    bucket.put("out/README.md", b"mine")
    before = bucket.objects()

    with pytest.raises(UsageError, match=r"README\.md is there, and not as an earlier run wrote it"):
        run_to_store(shards, url, options)
    assert bucket.objects() == before

    run_to_store(shards, url, Options(jobs=1))
    assert bucket.objects()["out/README.md"] == b"mine"


def test_a_card_goes_with_a_run_that_writes_none(shards, bucket, tmp_path):
    run_to_store(shards, f"{bucket.url}/out/", Options(jobs=1, card=True))
    run_to_store(shards, f"{bucket.url}/out/", Options(jobs=1))
    run(shards, f"{tmp_path}/out/", Options(jobs=1))

    assert same_in_bucket(bucket, tmp_path / "out")


def test_what_stands_in_the_way_is_told_before_any_work(shards, bucket, work):
    bucket.put("in/a.jsonl", shards[0].read_bytes())
    bucket.put("mixed/train-00000-of-00001.jsonl", b"{}\n")
    url = bucket.url
    for inputs, output, problem in (
        (f"{url}/in", f"{url}/in/", "is an input folder"),
        (f"{url}/in/a.jsonl", f"{url}/in/a.jsonl", "an input that would be overwritten"),
        (f"{url}/**/*.jsonl", f"{url}/in/rows.jsonl", "an input that would be overwritten"),
        (f"{url}/in", f"{url}/mixed/", "holds train-00000-of-00001.jsonl, which no report there names"),
        (f"{url}/in", f"{url}/rows.parquet", ".parquet promises another kind of file"),
        (f"{url}/in", f"{url}/../rows.jsonl", "no dots alone"),
        (f"{url}/none/", f"{url}/rows.jsonl", "there is no such object"),
    ):
        with pytest.raises(UsageError, match=problem):
            fastsft.convert(inputs, output)
    with pytest.raises(UsageError, match="all outputs of a run lie in one bucket, or none"):
        fastsft.convert(f"{url}/in", f"{url}/out/", splits={"val.jsonl": 0.1})
    with pytest.raises(UsageError, match="--part is for a folder that all parts see"):
        fastsft.convert(f"{url}/in", f"{url}/out/", part="1/2")
    assert os.listdir(work) == []
    assert sorted(bucket.objects()) == ["in/a.jsonl", "mixed/train-00000-of-00001.jsonl"]


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(
    "fault",
    [
        Fault("busy", r"PUT .*partNumber=2", times=2),
        Fault("cut", r"PUT .*partNumber=1", times=2),
        Fault("busy", r"POST .*\?uploads", times=2),
        Fault("busy", r"PUT .*/out/train.refused", times=3),
        Fault("cut", r"PUT .*report.json", times=1),
        Fault("busy", r"PUT .*report.json", times=2),
        Fault("slow", "HEAD|PUT|POST", times=4),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.match[:20]}",
)
def test_writing_goes_on_behind_what_passes(shards, bucket, proxy, tmp_path, monkeypatch, fault, jobs):
    monkeypatch.setattr("fastsft.outputs.upload._LEAST_PART_NBYTES", 5 * 1024 * 1024)
    options = Options(jobs=jobs, reward_threshold=-100.0, format="chat", shards=1)
    several = [*shards, *_copies(shards, tmp_path)]
    run(several, f"{tmp_path}/out/", options)
    proxy.faults = [Fault(fault.kind, fault.match, fault.times)]

    run_to_store(several, f"{bucket.url}/out/", options)

    assert proxy.faults[0].met > fault.times
    assert same_in_bucket(bucket, tmp_path / "out")


def _copies(shards: list[Path], folder: Path) -> list[Path]:
    """More of the same under other names, so that outputs have parts."""
    copies = []
    for number in range(4):
        for path in shards:
            copies.append(folder / f"{number}-{path.name}")
            copies[-1].write_bytes(b"{torn\n" + path.read_bytes())
    return copies


@pytest.mark.parametrize(
    ("kind", "match", "told"),
    [
        ("busy", r"PUT .*/out/train-00001", r"out/train-00001-of-00003.jsonl: the store answered 503"),
        ("denied", r"PUT .*/out/train-00002", r"out/train-00002-of-00003.jsonl: .*403 Forbidden \(AccessDenied\)"),
        ("cut", r"PUT .*/out/train.refused", r"out/train.refused: .*broke off"),
        ("stall", r"PUT .*/out/train.refused", r"out/train.refused: .*did not answer in 1 s"),
        ("busy", r"PUT .*/out/train.report.json", r"out/train.report.json: the store answered 503"),
        ("busy", r"POST .*\?delete", r"out/train.report.json: the store answered 503"),
    ],
)
@pytest.mark.parametrize("before", ["nothing", "older"])
def test_writing_in_vain_ends_with_a_sentence_and_the_same_command_goes_on(
    shards, bucket, proxy, tmp_path, monkeypatch, work, kind, match, told, before
):
    several = [*shards, *_copies(shards, tmp_path)]
    asked = Options(jobs=1, shards=3)
    if before == "older":
        run_to_store(several, f"{bucket.url}/out/", Options(jobs=1, shards=4))
    elif "delete" in match:
        return
    for name, value in {"REQUEST_SECONDS": 1, "RETRIES": 1, "RETRY_SECONDS": 3}.items():
        monkeypatch.setattr(f"fastsft.storage.by_obstore.{name}", value)
    monkeypatch.setattr(attempts, "REQUEST_SECONDS", 1)
    stores._stores.clear()
    proxy.faults, proxy.requests = [Fault(kind, match, times=10**9)], []

    with pytest.raises(FailedRun, match=told) as caught:
        run_to_store(several, f"{bucket.url}/out/", asked)

    assert KEY not in str(caught.value)
    assert SECRET not in str(caught.value)
    assert ("out/train.report.json" in bucket.objects()) == ("delete" in match)
    up = {request for request in proxy.requests if re.match(r"PUT .*jsonl", request)} - set(proxy.matching(match))
    proxy.faults, proxy.requests = [], []
    stores._stores.clear()
    report = run_to_store(several, f"{bucket.url}/out/", asked)
    run(several, f"{tmp_path}/out/", asked)
    assert same_in_bucket(bucket, tmp_path / "out")
    assert report.fates.lines > 0
    assert not up & set(proxy.requests), "what was up is uploaded again"
    assert not [request for request in proxy.requests if re.match("GET .*/in", request)]
    assert os.listdir(work) == []


@pytest.mark.parametrize("at", ["convert", "upload"])
def test_a_run_that_is_killed_goes_on(shards, bucket, proxy, tmp_path, work, at):
    """In the midst of reading, or of writing: the command is a process of its own, and its requests are stalled."""
    for path in shards:
        bucket.put(f"in/{path.name}", path.read_bytes())
    match = r"GET .*/in/mixed-00002" if at == "convert" else r"PUT .*/out/train-00002"
    proxy.faults = [Fault("stall", match, times=10**9, after=3 if at == "convert" else 0)]
    command = [sys.executable, "-c", "import faulty_spans; faulty_spans.main()"]
    words = ["convert", f"{bucket.url}/in/", "--output", f"{bucket.url}/out/", "--shards", "3", "--jobs", "1"]
    env = {**os.environ, "FASTSFT_SPAN_NBYTES": str(SPAN_NBYTES)}
    killed = subprocess.Popen([*command, *words], env=env)
    until = time.monotonic() + 60
    while not proxy.faults[0].met > proxy.faults[0].after:
        assert time.monotonic() < until
        assert killed.poll() is None
        time.sleep(0.05)
    time.sleep(0.3)
    killed.kill()
    killed.wait()
    assert "out/train.report.json" not in bucket.objects()
    proxy.faults, proxy.requests = [], []

    done = subprocess.run([*command, *words], env=env, capture_output=True, text=True)

    run([f"{bucket.url}/in/"], f"{tmp_path}/out/", Options(jobs=1, span_nbytes=SPAN_NBYTES, shards=3))
    assert done.returncode == 0, done.stderr
    assert ("goes on from an interrupted run" in done.stdout) == (at == "convert")
    assert same_in_bucket(bucket, tmp_path / "out")
    assert os.listdir(work) == []


def test_of_two_runs_to_one_url_the_second_is_told(shards, bucket, proxy, tmp_path, monkeypatch):
    """On two machines, which share no work folder: the other publishes while this one converts."""
    from fastsft.pipeline import to_store

    def other_first(*arguments: Any, **more: Any) -> Any:
        monkeypatch.setattr(to_store, "run", run)
        run_to_store(shards[:1], f"{bucket.url}/out/", Options(jobs=1, work=str(tmp_path / "other")))
        return run(*arguments, **more)

    monkeypatch.setattr(to_store, "run", other_first)
    with pytest.raises(FailedRun, match=r"another run has published meanwhile: s3://.*/out/train.report.json is there"):
        run_to_store(shards, f"{bucket.url}/out/", Options(jobs=1))
    assert fastsft.verify(f"{bucket.url}/out/").differences == []

    run_to_store(shards, f"{bucket.url}/out/", Options(jobs=1))
    run(shards, f"{tmp_path}/out/", Options(jobs=1))
    assert same_in_bucket(bucket, tmp_path / "out")


def test_a_report_that_comes_while_files_go_up_stays(shards, bucket, tmp_path, monkeypatch):
    upload_file = upload._upload

    def report_first(*arguments: Any, **more: Any) -> None:
        store, key = stores.open_store(f"{bucket.url}/out/train.report.json")
        store.put(key, b"another's")
        upload_file(*arguments, **more)

    monkeypatch.setattr(upload, "_upload", report_first)
    with pytest.raises(FailedRun, match=r"another run has published meanwhile: s3://.*/out/train.report.json is there"):
        run_to_store(shards, f"{bucket.url}/out/", Options(jobs=1))
    assert bucket.objects()["out/train.report.json"] == b"another's"


def test_an_object_is_created_only_where_none_is(bucket):
    store, _ = stores.open_store(bucket.url)

    assert [store.create("report", data) for data in (b"first", b"second")] == [True, False]
    assert bucket.objects() == {"report": b"first"}


def test_a_second_run_on_this_machine_is_busy(shards, bucket, monkeypatch):
    from fastsft.pipeline import to_store

    def second(*_: Any, **__: Any) -> Any:
        run_to_store(shards, f"{bucket.url}/out/", Options(jobs=1))

    monkeypatch.setattr(to_store, "run", second)
    with pytest.raises(UsageError, match=r"another run is writing to s3://bucket-\d+/out/, in "):
        run_to_store(shards, f"{bucket.url}/out/", Options(jobs=1))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        ("append", [r"bytes, and the report says", r"sha256 \w+…, and the report says"]),
        ("remove", ["it is missing"]),
        ("refused", ["0 lines, and 2 were refused"]),
        ("more", ["train-00007-of-00009.jsonl: the report does not name it"]),
    ],
)
def test_an_output_in_a_store_is_held_against_its_report(shards, bucket, tmp_path, spoil, told):
    (tmp_path / "torn.jsonl").write_bytes(b"{torn\n")
    run_to_store([*shards, tmp_path / "torn.jsonl"], f"{bucket.url}/out/", Options(jobs=1, shards=2))
    first = "out/train-00000-of-00002.jsonl"
    match spoil:
        case "append":
            bucket.put(first, bucket.get(first) + b" ")
        case "remove":
            bucket.client.delete_object(Bucket=bucket.name, Key=first)
        case "refused":
            bucket.put("out/train.refused", b"")
        case "more":
            bucket.put("out/train-00007-of-00009.jsonl", b"{}\n")

    differences = fastsft.verify(f"{bucket.url}/out/", jobs=2).differences

    assert len(differences) == len(told), differences
    for difference, pattern in zip(differences, told, strict=True):
        assert re.search(pattern, difference)


def test_credentials_are_nowhere(shards, bucket, proxy, tmp_path, work):
    """In what is printed, published or left in the work folder, whatever fails."""
    url = bucket.put("in/a.jsonl", shards[0].read_bytes())
    words = ["convert", url, "--output", f"{bucket.url}/out/"]
    printed = ""
    for fault in (None, "busy", "denied", "cut"):
        proxy.faults = [Fault(fault, "PUT .*/out/", times=10**9)] if fault else []
        done = subprocess.run([sys.executable, "-m", "fastsft", *words], capture_output=True, text=True)
        assert (done.returncode == 0) == (fault is None)
        printed += done.stdout + done.stderr
    left = b"".join(path.read_bytes() for path in work.rglob("*") if path.is_file())

    assert left
    for secret in (KEY, SECRET):
        assert secret not in printed
        assert secret.encode() not in left + b"".join(bucket.objects().values())


# What fsspec serves.


def test_the_memory_of_this_process_is_a_store(shards, tmp_path, work):
    import fsspec

    files = fsspec.filesystem("memory")
    for path in shards:
        files.pipe(f"/in/{path.name}", path.read_bytes())
    for more in ({"jobs": 1, "shards": 3}, {"jobs": 1, "best_of": 1}, {"jobs": 1}):
        options = Options(span_nbytes=SPAN_NBYTES, **more)
        run(shards, f"{tmp_path}/out/", options)
        run_to_store(["memory://in/"], "memory://out/", options)
        found = {name.removeprefix("/out/"): files.cat(name) for name in files.find("/out")}
        assert {name: _plain(name, data) for name, data in found.items()} == files_in(tmp_path / "out")
    assert fastsft.verify("memory://out/", jobs=1).differences == []
    assert os.listdir(work) == []


def test_the_hub_is_served_by_fsspec(shards, tmp_path, monkeypatch):
    """By a file system in memory that is registered under its name: its paths have no slash in front."""
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    class Hub(MemoryFileSystem):
        protocol = "hf"
        store: dict[str, Any] = {}  # noqa: RUF012
        pseudo_dirs = [""]  # noqa: RUF012

    fsspec.register_implementation("hf", Hub, clobber=True)
    files = fsspec.filesystem("hf")
    for path in shards:
        files.pipe(f"/datasets/me/rollouts@main/{path.name}", path.read_bytes())
    url = "hf://datasets/me/rollouts@main"
    run(shards, f"{tmp_path}/out/", Options(jobs=1))

    run_to_store([f"{url}/*.jsonl"], "hf://datasets/me/rows/out/", Options(jobs=1))

    assert fastsft.verify("hf://datasets/me/rows/out/", jobs=1).differences == []
    rows = files.cat("/datasets/me/rows/out/train-00000-of-00001.jsonl")
    assert rows == (tmp_path / "out/train-00000-of-00001.jsonl").read_bytes()
