"""Addresses of objects, and reading Hugging Face's; `tests/stores.py` has S3's, on a server of its own."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator

import fsspec
import pytest
from builders import in_a_new_process, lines, rollout, said, user
from fsspec.implementations.memory import MemoryFileSystem

import fastsft
from fastsft import FailedRun, UsageError
from fastsft.storage import stores


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
    stores._store.cache_clear()
    Hub.store.clear()
    files = fsspec.filesystem("hf", skip_instance_cache=True)
    files.pipe_file("datasets/me/run/a.jsonl", lines(*[rollout(user(f"{n}?"), said("4")) for n in range(9)]))
    files.pipe_file("datasets/me/run/notes.txt", b"no rollouts")
    yield files
    stores._store.cache_clear()


@pytest.mark.parametrize(
    "url", ["hf://datasets/me/run/", "hf://datasets/me/run/a.jsonl", "hf://datasets/me/**/*.jsonl"]
)
def test_rollouts_of_the_hub_are_read(hub, tmp_path, url):
    report = fastsft.convert(url, tmp_path / "rows.jsonl", jobs=1)

    assert (report.rows, [shard.path for shard in report.inputs]) == (9, ["hf://datasets/me/run/a.jsonl"])


def test_a_file_of_the_hub_that_changes_stops_the_run(hub):
    (one,) = stores.objects_at("hf://datasets/me/run/a.jsonl", (".jsonl",))
    file = stores.open_object(*one)
    hub.pipe_file("datasets/me/run/a.jsonl", b"x" * one.nbytes)

    with pytest.raises(OSError, match="it changed while it was read"):
        file.pread(5, 0)


def test_where_nothing_is_that_is_said(hub, tmp_path):
    with pytest.raises(UsageError, match=r"no object of rollouts is at hf://datasets/me/other\.jsonl"):
        fastsft.convert("hf://datasets/me/other.jsonl", tmp_path / "rows.jsonl")


def test_an_address_with_a_key_is_refused_without_it(tmp_path):
    with pytest.raises(UsageError, match=r"an address holds no key: s3://bucket/a\.jsonl") as refused:
        fastsft.convert("s3://name:secret@bucket/a.jsonl", tmp_path / "rows.jsonl")
    assert "secret" not in str(refused.value)


def test_a_missing_library_is_told_with_its_pip_line(tmp_path, monkeypatch):
    stores._store.cache_clear()
    monkeypatch.setitem(sys.modules, "obstore", None)

    with pytest.raises(UsageError, match=r"reading from a store needs obstore: pip install 'fastsft\[remote\]'"):
        fastsft.convert("s3://bucket/a.jsonl", tmp_path / "rows.jsonl")


def test_addresses_that_are_not_read_are_paths_that_are_not_there(tmp_path):
    with pytest.raises((UsageError, FailedRun), match=r"cannot read ftp://host/a\.jsonl"):
        fastsft.convert("ftp://host/a.jsonl", tmp_path / "rows.jsonl")


def test_files_of_this_machine_need_none_of_it(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines(rollout(user("?"), said("4"))))
    script = "import sys, fastsft; fastsft.convert(*sys.argv[1:]); print({'obstore', 'fsspec'} & set(sys.modules))"

    assert in_a_new_process(script, tmp_path / "a.jsonl", tmp_path / "b.jsonl") == "set()"
