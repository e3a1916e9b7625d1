"""URLs of objects, and what fsspec serves; `tests/remote.py` has S3, on a server of its own."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from builders import in_a_new_process, lines, rollout, said, user
from fsspec.implementations.memory import MemoryFileSystem

import fastsft
from fastsft import FailedRun, UsageError
from fastsft.inputs.shards import find_shards
from fastsft.storage import read_ahead, stores
from fastsft.storage.attempts import why
from fastsft.storage.urls import Entry


class Hub(MemoryFileSystem):
    """What stands for the hub: files in memory, each with a version."""

    protocol = "hf"
    store: dict = {}  # noqa: RUF012 - as fsspec has it
    pseudo_dirs = [""]  # noqa: RUF012

    def info(self, path: str, **more: object) -> dict:
        return self._tagged(super().info(path, **more))

    def ls(self, path: str, detail: bool = True, **more: object) -> list:
        found = [self._tagged(one) for one in super().ls(path, detail=True, **more)]
        return found if detail else [one["name"] for one in found]

    def _tagged(self, one: dict) -> dict:
        kept = self.store.get(one["name"])
        return {**one, "etag": hashlib.sha256(kept.getvalue()).hexdigest()} if kept else one


@pytest.fixture
def hub() -> Iterator[Hub]:
    fsspec.register_implementation("hf", Hub, clobber=True)
    stores._stores.clear()
    Hub.store.clear()
    files = fsspec.filesystem("hf", skip_instance_cache=True)
    files.pipe_file("datasets/me/run/a.jsonl", lines(*[rollout(user(f"{n}?"), said("4")) for n in range(9)]))
    files.pipe_file("datasets/me/run/notes.txt", b"no rollouts")
    yield files
    stores._stores.clear()


@pytest.mark.parametrize(
    "url", ["hf://datasets/me/run/", "hf://datasets/me/run/a.jsonl", "hf://datasets/me/**/*.jsonl"]
)
def test_rollouts_of_the_hub_are_read(hub, tmp_path, url):
    report = fastsft.convert(url, tmp_path / "rows.jsonl", jobs=1)

    assert (report.rows, [shard.path for shard in report.inputs]) == (9, ["hf://datasets/me/run/a.jsonl"])


FORKED = """
import sys, fsspec
from fastsft import Options
from fastsft.execution import forked
from fastsft.pipeline import run
files = fsspec.filesystem("memory")
files.put_file(sys.argv[1], "/in/a.jsonl")
started = []
start = forked.ForkedPool.__init__
forked.ForkedPool.__init__ = lambda *arguments, **more: (started.append(1), start(*arguments, **more))[1]
options = Options(jobs=2, span_nbytes=300)
print(run(["memory://in/"], sys.argv[2], options).rows, bool(started))
"""


def test_workers_that_are_forked_read_what_fsspec_serves(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines(*[rollout(user(f"{n}?"), said("4")) for n in range(9)]))

    assert in_a_new_process(FORKED, tmp_path / "a.jsonl", tmp_path / "rows.jsonl") == "9 True"


def test_rows_go_to_the_hub_and_are_verified_there(hub, tmp_path):
    report = fastsft.convert("hf://datasets/me/run/", "hf://datasets/me/sft/", jobs=1, work=tmp_path)

    found = sorted(hub.find("datasets/me/sft"))
    assert (report.rows, report.folder) == (9, "hf://datasets/me/sft/")
    assert found == [f"/datasets/me/sft/train{end}" for end in ("-00000-of-00001.jsonl", ".report.json")]
    assert fastsft.verify("hf://datasets/me/sft/", jobs=1).differences == []
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_the_hub_that_changes_stops_the_run(hub, tmp_path, monkeypatch):
    from fastsft.pipeline import drive

    def changed(*arguments: object) -> object:
        hub.pipe_file("datasets/me/run/a.jsonl", lines(rollout(user("?"), said("5"))))
        stores._stores.clear()
        return spans_of(*arguments)

    spans_of = drive.spans_of
    monkeypatch.setattr(drive, "spans_of", changed)
    with pytest.raises(FailedRun, match=r"hf://datasets/me/run/a.jsonl changed while it was read"):
        fastsft.convert("hf://datasets/me/run/a.jsonl", tmp_path / "rows.jsonl", jobs=1)


def test_where_nothing_is_that_is_said(hub, tmp_path):
    with pytest.raises(UsageError, match=r"cannot read hf://datasets/me/other\.jsonl: there is no such object"):
        fastsft.convert("hf://datasets/me/other.jsonl", tmp_path / "rows.jsonl")


def test_addresses_that_are_not_read_are_paths_that_are_not_there(tmp_path):
    with pytest.raises((UsageError, FailedRun), match=r"cannot read ftp://host/a\.jsonl"):
        fastsft.convert("ftp://host/a.jsonl", tmp_path / "rows.jsonl")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError("status code: 403 Forbidden: <Code>AccessDenied</Code>"), "403 Forbidden (AccessDenied); check the"),
        (OSError("HTTP error: operation timed out, retry_timeout: 9s"), "the store did not answer in 60 s"),
        (OSError("GET http://169.254.169.254/latest: error sending request"), "no credentials were found"),
        (OSError("error sending request, retry_timeout: 9s"), "the connection broke off"),
        (OSError("Azure: https://host/a?sig=SIGNATURE is odd"), "https://host/a?… is odd"),
        (OSError("no luck with a-long-secret"), "no luck with …"),
    ],
)
def test_what_failed_is_told_without_keys(error, told, monkeypatch):
    monkeypatch.setenv("SOME_SECRET_KEY", "a-long-secret")
    assert told in why(error)
    assert "SIGNATURE" not in why(error)


# Reading ahead.


@pytest.mark.parametrize(("waits", "works", "is_ahead"), [(0.02, 0.05, False), (0.05, 0.02, True)])
def test_objects_are_read_ahead_where_the_store_is_slower_than_the_worker(monkeypatch, waits, works, is_ahead):
    now = [0.0]

    class Slow:
        def read(self, key: str, start: int, stop: int, etag: str) -> memoryview:
            now[0] += waits
            return memoryview(data)[start:stop]

    data = bytes(range(256)) * 4
    monkeypatch.setattr(read_ahead, "open_store", lambda url: (Slow(), "key"))
    monkeypatch.setattr(read_ahead, "WINDOW_NBYTES", 100)
    monkeypatch.setattr(read_ahead.time, "perf_counter", lambda: now[0])
    read = b""
    with read_ahead.ReadAhead(Entry("s3://bucket/key", len(data), ""), read_ahead.windows_of(0, len(data))) as ahead:
        for start in range(0, len(data), 30):
            read += ahead.read(start, min(start + 30, len(data)))
            now[0] += works * 30 / 100

        assert (read, ahead._threads is not None) == (data, is_ahead)


# URLs, where no store is asked.


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (
            "s3://key:secret@bucket/in/",
            "a URL holds no credentials: s3://BUCKET/PATH, and they come from the environment",
        ),
        ("gs:///in/", "gs:///in/ names no bucket: gs://BUCKET/PATH"),
    ],
)
def test_a_url_names_a_bucket_and_no_credentials(url, problem):
    with pytest.raises(UsageError) as caught:
        find_shards([url])
    assert str(caught.value) == problem


@pytest.mark.parametrize(("url", "library"), [("s3://bucket/in/", "obstore"), ("memory://in/", "fsspec")])
def test_a_url_whose_library_is_missing_says_what_to_install(url, library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UsageError, match=r"needs a library: pip install 'fastsft\[remote\]'"):
        find_shards([url])


def test_a_url_that_was_made_a_path_is_told(tmp_path):
    with pytest.raises(UsageError, match="s3:/bucket/in was a URL, and a Path takes a slash away; name it as text"):
        fastsft.convert(Path("s3://bucket/in"), tmp_path / "rows.jsonl")
    with pytest.raises(UsageError, match="s3:/bucket/out was a URL"):
        fastsft.convert(tmp_path, Path("s3://bucket/out"))


def test_a_work_folder_is_for_a_store(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(b"{}\n")
    with pytest.raises(UsageError, match="--work is for rows that go to a store"):
        fastsft.convert(tmp_path, tmp_path / "rows.jsonl", work=tmp_path)
    with pytest.raises(UsageError, match="all outputs of a run lie in one bucket, or none"):
        fastsft.convert(tmp_path, tmp_path / "rows.jsonl", splits={"s3://bucket/val.jsonl": 0.1})


def test_paths_ask_for_no_library_of_stores(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(b"{}\n")
    script = """
import sys
from fastsft.inputs.shards import find_rollouts
find_rollouts([sys.argv[1]])
print([name for name in sys.modules if name.rpartition(".")[2] in ("obstore", "fsspec", "stores", "read_ahead")])
"""
    assert in_a_new_process(script, tmp_path) == "[]"
