"""Runs from and to `gs://`, `az://` and `abfss://`, with what stands for these stores on loopback.

Google's is moto's S3 under the address of Google's XML interface, which has the same requests but for the condition of
a write; Azure's is `blob_store.py`. No emulator that pip installs serves the requests that obstore makes of them.

Not collected by itself: `tox -e remote` runs it.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import generate
import pytest
from blob_store import ACCOUNT, blob_service
from builders import line, rollout, said, user
from faulty_store import Fault, Proxy, moto

import fastsft
from fastsft import FailedRun, Options, UsageError
from fastsft.pipeline import run
from fastsft.pipeline.to_store import run_to_store
from fastsft.storage import attempts, stores

boto3 = pytest.importorskip("boto3", reason="tox -e remote installs boto3 and moto")
pytest.importorskip("obstore", reason="tox -e remote installs obstore")

PROJECT = Path(__file__).resolve().parent.parent
SECRETS = {"gs": "ya29.FAKEFAKEFAKEFAKE", "az": base64.b64encode(b"FAKE" * 8).decode()}


class Service:
    """A bucket or container of its own for each test, seen past the proxy."""

    def __init__(self, scheme: str, proxy: Proxy, objects: Callable[[str], dict[str, bytes]]) -> None:
        self.scheme, self.proxy, self._objects = scheme, proxy, objects
        self.new = lambda name: None
        self.put = lambda name, key, data: None
        self.count = 0

    def next(self) -> str:
        """Make a new bucket; its URL."""
        self.count += 1
        self.name = f"bucket{self.count}"  # without a dash, which obstore sends to Google as %2D, and moto leaves so
        self.new(self.name)
        at = "@account.dfs.core.windows.net" if self.scheme == "abfss" else ""
        return f"{self.scheme}://{self.name}{at}"

    def objects(self) -> dict[str, bytes]:
        return self._objects(self.name)


@pytest.fixture(scope="session")
def google() -> Iterator[Service]:
    with moto() as url, Proxy(url) as proxy:
        keys = {"aws_access_key_id": "fake", "aws_secret_access_key": "fake", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=url, **keys)

        def objects(name: str) -> dict[str, bytes]:
            found = client.list_objects_v2(Bucket=name).get("Contents", [])
            return {one["Key"]: client.get_object(Bucket=name, Key=one["Key"])["Body"].read() for one in found}

        service = Service("gs", proxy, objects)
        service.new = lambda name: client.create_bucket(Bucket=name)
        service.put = lambda name, key, data: client.put_object(Bucket=name, Key=key, Body=data)
        yield service


@pytest.fixture(scope="session")
def azure() -> Iterator[Service]:
    with blob_service() as (url, held), Proxy(url) as proxy:

        def objects(name: str) -> dict[str, bytes]:
            start = f"/{name}/"
            return {path.removeprefix(start): data for path, data in held.blobs.items() if path.startswith(start)}

        service = Service("az", proxy, objects)
        service.put = lambda name, key, data: held.blobs.__setitem__(f"/{name}/{key}", data)
        yield service


@pytest.fixture(params=["gs", "az", "abfss"])
def service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Service:
    found: Service = request.getfixturevalue("google" if request.param == "gs" else "azure")
    found.scheme = request.param
    found.proxy.faults, found.proxy.requests = [], []
    names = {"GOOGLE_BASE_URL": found.proxy.url, "GOOGLE_BEARER_TOKEN": SECRETS["gs"]}
    if request.param != "gs":
        names = {"AZURE_STORAGE_ENDPOINT": f"{found.proxy.url}/{ACCOUNT}", "AZURE_STORAGE_ACCOUNT_KEY": SECRETS["az"]}
        names["AZURE_STORAGE_ACCOUNT_NAME"] = ACCOUNT
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    stores._stores.clear()
    return found


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return generate.write(tmp_path_factory.mktemp("in"), "mixed", count=240, nbytes=0, shards=3, seed=7)


def rows_in(objects: dict[str, bytes]) -> dict[str, bytes]:
    """The files of rows that a run left; its report has the time in it, and refused lines the names of the inputs."""
    return {name: data for name, data in objects.items() if "jsonl" in name}


def rows_of(folder: Path) -> dict[str, bytes]:
    return rows_in({f"out/{path.name}": path.read_bytes() for path in folder.iterdir() if path.is_file()})


@pytest.mark.parametrize("more", [{"shards": 3}, {"best_of": 1, "dedup": True}], ids=str)
def test_rows_from_objects_to_objects_are_those_of_files(shards, service, tmp_path, more):
    url = service.next()
    for path in shards:
        service.put(service.name, f"in/{path.name}", path.read_bytes())
    options = Options(jobs=1, span_nbytes=400_000, reward_threshold=-100.0, format="chat", **more)

    for _ in range(2):  # the second replaces what the first wrote
        report = run_to_store([f"{url}/in/"], f"{url}/out/", options)
        run(shards, f"{tmp_path}/out/", options)
        found = {name: data for name, data in service.objects().items() if name.startswith("out/")}
        assert rows_in(found) == rows_of(tmp_path / "out")

    assert report.folder == f"{url}/out/"
    assert fastsft.verify(f"{url}/out/", jobs=1).differences == []
    assert found.keys() == {*rows_of(tmp_path / "out"), "out/train.refused", "out/train.report.json"}


def test_a_large_file_goes_up_in_parts(service, tmp_path, monkeypatch):
    monkeypatch.setattr("fastsft.outputs.upload._LEAST_PART_NBYTES", 5 * 1024 * 1024)
    url, shards = service.next(), [tmp_path / "long.jsonl"]
    shards[0].write_bytes(line(rollout(user("?"), said("4" * 12_000_000))))
    options = Options(jobs=1)
    service.proxy.faults = [Fault("busy", "PUT .*(partNumber=2|comp=block&)", times=2)]

    run_to_store(shards, f"{url}/out/", options)
    run(shards, f"{tmp_path}/out/", options)

    assert rows_in(service.objects()) == rows_of(tmp_path / "out")
    assert service.proxy.faults[0].met > 2
    assert len(service.proxy.matching("PUT .*(partNumber=|comp=block&)")) >= 5


def test_what_fails_for_good_is_told_without_keys_and_the_same_command_goes_on(shards, service, tmp_path, monkeypatch):
    for name, value in {"REQUEST_SECONDS": 1, "RETRIES": 1, "RETRY_SECONDS": 3}.items():
        monkeypatch.setattr(f"fastsft.storage.by_obstore.{name}", value)
    monkeypatch.setattr(attempts, "REQUEST_SECONDS", 1)
    url, options = service.next(), Options(jobs=1, shards=3, work=str(tmp_path))
    for kind, told in (("busy", "answered 503 Service Unavailable"), ("denied", "403 Forbidden .*check the cred")):
        service.proxy.faults = [Fault(kind, r"PUT .*/out(/|%2F)train(-|%2D)00001", times=10**9)]
        with pytest.raises(FailedRun, match=rf"cannot write .*/out/train-00001-of-00003.jsonl: .*{told}") as caught:
            run_to_store(shards, f"{url}/out/", options)
        left = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        for secret in SECRETS.values():
            assert secret not in str(caught.value)
            assert secret.encode() not in left
        assert "out/train.report.json" not in service.objects()
    service.proxy.faults, service.proxy.requests = [], []

    run_to_store(shards, f"{url}/out/", options)

    assert not service.proxy.matching(r"PUT .*train(-|%2D)00000")  # it was up
    assert fastsft.verify(f"{url}/out/", jobs=1).differences == []
    assert os.listdir(tmp_path) == []


def test_of_two_runs_to_one_url_the_second_is_told(shards, service, tmp_path, monkeypatch):
    from fastsft.pipeline import to_store

    url = service.next()

    def other_first(*arguments: object, **more: object) -> object:
        monkeypatch.setattr(to_store, "run", run)
        run_to_store(shards[:1], f"{url}/out/", Options(jobs=1, work=str(tmp_path / "other")))
        return run(*arguments, **more)

    monkeypatch.setattr(to_store, "run", other_first)
    with pytest.raises(FailedRun, match=rf"published meanwhile: {re.escape(url)}/out/train.report.json"):
        run_to_store(shards, f"{url}/out/", Options(jobs=1))


def test_an_object_is_created_only_where_none_is(service):
    store, _ = stores.open_store(service.next())

    assert [store.create("report", data) for data in (b"first", b"second")] == [True, False]
    assert service.objects() == {"report": b"first"}


def test_an_object_that_is_not_there_or_changes_is_told(shards, service, tmp_path, monkeypatch):
    from fastsft.pipeline import drive

    url, begin = service.next(), drive.spans_of
    service.put(service.name, "in.jsonl", shards[0].read_bytes())

    def changed(*arguments: object) -> object:
        service.put(service.name, "in.jsonl", shards[0].read_bytes().replace(b"a", b"b"))
        return begin(*arguments)

    with pytest.raises(UsageError, match=r"cannot read .*/none.jsonl: there is no such object"):
        fastsft.stats(f"{url}/none.jsonl")
    monkeypatch.setattr(drive, "spans_of", changed)
    with pytest.raises(FailedRun, match=r"/in.jsonl changed while it was read"):
        run([f"{url}/in.jsonl"], tmp_path / "rows.jsonl", Options(jobs=1))
