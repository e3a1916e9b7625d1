"""Rollouts in a store: read as files are, from a real server of S3's protocol, through a proxy that gets in the way."""

from __future__ import annotations

import gzip
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import generate
import pytest
from backports import zstd

import fastsft
from fastsft import FailedRun, Options, UsageError
from fastsft.pipeline import run
from fastsft.storage import stores

boto3 = pytest.importorskip("boto3", reason="tox -e remote installs it")
SECRET = "a-secret-that-nobody-sees"
SPAN_NBYTES = 100_000


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Proxy(ThreadingHTTPServer):
    """Hands requests on to a server; `faults` says what happens to the next ones that read an object."""

    def __init__(self, server: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.server = server
        self.faults: list[str] = []
        self.always: str | None = None
        self.reads: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_: object) -> None:
        """A client that went away is no error."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.hand_on("GET")

    def do_HEAD(self) -> None:
        self.hand_on("HEAD")

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def hand_on(self, method: str) -> None:
        proxy = self.server
        reads = method == "GET" and "Range" in self.headers
        fault = proxy.always if reads else None
        if reads:
            proxy.reads.append(self.headers["Range"])
            fault = proxy.faults.pop(0) if proxy.faults else fault
        if fault == "503":
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        there = http.client.HTTPConnection("127.0.0.1", proxy.server_port_of_store)
        there.request(method, self.path, headers=dict(self.headers))
        answer = there.getresponse()
        body = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "server", "date"):
                self.send_header(name, value)
        self.send_header("Content-Length", answer.getheader("Content-Length") or str(len(body)))
        self.end_headers()
        if fault == "drop":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.wfile.write(body)


@pytest.fixture(scope="session")
def moto() -> Iterator[int]:
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; from moto.server import main; main(sys.argv[1:])", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert server.poll() is None
        yield port
        server.send_signal(signal.SIGKILL)


@pytest.fixture(scope="session")
def rollouts(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("in")
    generate.write(folder, "mixed", count=300, nbytes=0, shards=3, seed=7)
    one, two, _ = sorted(folder.glob("*.jsonl"))
    (folder / "packed.jsonl.gz").write_bytes(gzip.compress(one.read_bytes()))
    (folder / "packed.jsonl.zst").write_bytes(zstd.compress(two.read_bytes()))
    return folder


@pytest.fixture(scope="session")
def proxy(moto) -> Iterator[Proxy]:
    """One for all tests, as joblib's workers go on from test to test."""
    one = Proxy(moto)
    one.server_port_of_store = moto
    yield one
    one.shutdown()
    one.server_close()


@pytest.fixture
def store(moto, proxy, rollouts, monkeypatch) -> Proxy:
    """A bucket with the rollouts, behind the proxy."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{moto}", region_name="us-east-1")
    client.create_bucket(Bucket="rollouts")
    for path in rollouts.iterdir():
        client.put_object(Bucket="rollouts", Key=f"run 1/{path.name}", Body=path.read_bytes())
    client.put_object(Bucket="rollouts", Key="run 1/deep/more.jsonl", Body=b"{torn\n")
    client.put_object(Bucket="rollouts", Key="run 1/a_failures.jsonl", Body=b"{torn\n")
    proxy.client, proxy.faults, proxy.always, proxy.reads = client, [], None, []
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.server_address[1]}")
    stores._store.cache_clear()
    return proxy


def convert(inputs: object, output: Path, **options: object) -> bytes:
    inputs = inputs if isinstance(inputs, list) else [inputs]
    run(inputs, output, Options(span_nbytes=SPAN_NBYTES, allow=("all",), reward_threshold=-9.0, **options))
    return output.read_bytes()


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("more", [{}, {"best_of": 1}, {"verify_inputs": True}])
def test_rows_are_those_of_the_same_files(store, rollouts, tmp_path, jobs, more):
    local = convert(rollouts, tmp_path / "local.jsonl", jobs=jobs, **more)

    assert convert("s3://rollouts/run 1/", tmp_path / "stored.jsonl", jobs=jobs, **more) == local
    assert len(store.reads) > 5
    assert all(SECRET.encode() not in path.read_bytes() for path in tmp_path.iterdir() if path.is_file())


def test_objects_are_found_as_files_are(store, rollouts, tmp_path):
    def names(*inputs: str) -> tuple[list[str], list[str]]:
        report = fastsft.convert(inputs, tmp_path / "rows.jsonl", allow_empty=True, jobs=1)
        return [shard.path.rpartition("/")[2] for shard in report.inputs], report.notes

    all_of_it = sorted(path.name for path in rollouts.iterdir())
    left_out = "s3://rollouts/run 1/a_failures.jsonl is left out: NeMo Gym writes it beside rollouts"

    assert names("s3://rollouts/run 1") == (all_of_it, [left_out])
    assert names("s3://rollouts/run 1/*.zst") == (["packed.jsonl.zst"], [])
    one = "s3://rollouts/run 1/mixed-00001.jsonl"
    assert names(one, one) == (["mixed-00001.jsonl"], [f"{one} counts once"])
    assert names("s3://rollouts/**/m*.jsonl")[0] == ["more.jsonl", *(name for name in all_of_it if name[0] == "m")]


def test_an_index_of_objects_is_used_until_one_is_written_over(store, tmp_path, monkeypatch):
    url = "s3://rollouts/run 1/mixed-00000.jsonl"
    fastsft.index(url, tmp_path / "a.index", jobs=1)
    monkeypatch.chdir(tmp_path.parent)  # an index of objects serves from any folder
    first = fastsft.convert(url, tmp_path / "a.jsonl", index=tmp_path / "a.index", best_of=1, jobs=1)
    body = store.client.get_object(Bucket="rollouts", Key="run 1/mixed-00000.jsonl")["Body"].read()

    store.client.put_object(Bucket="rollouts", Key="run 1/mixed-00000.jsonl", Body=body.replace(b"1.0", b"0.0"))

    assert first.rows > 10
    with pytest.raises(UsageError, match=r"a\.index"):
        fastsft.convert(url, tmp_path / "a.jsonl", index=tmp_path / "a.index", best_of=1, jobs=1)


@pytest.mark.parametrize("url", ["s3://rollouts/none/", "s3://rollouts/none.jsonl", "s3://rollouts/*.csv"])
def test_where_no_object_is_that_is_said(store, tmp_path, url):
    with pytest.raises(UsageError, match="no object of rollouts is at s3://rollouts/"):
        fastsft.convert(url, tmp_path / "rows.jsonl")


@pytest.mark.parametrize("fault", ["503", "drop"])
def test_what_fails_now_and_then_is_asked_for_again(store, rollouts, tmp_path, fault):
    local = convert(rollouts / "mixed-00000.jsonl", tmp_path / "local.jsonl", jobs=1)
    store.faults = [fault, fault, "-", fault]

    assert convert("s3://rollouts/run 1/mixed-00000.jsonl", tmp_path / "stored.jsonl", jobs=1) == local
    assert not store.faults


def test_what_fails_for_good_fails_the_run_by_name_and_the_run_goes_on_later(store, rollouts, tmp_path, monkeypatch):
    url, options = "s3://rollouts/run 1/mixed-00000.jsonl", Options(span_nbytes=SPAN_NBYTES, jobs=1)
    run([rollouts / "mixed-00000.jsonl"], f"{tmp_path}/local/", options)
    with monkeypatch.context() as patch:
        patch.setattr(stores, "_RETRY_SECONDS", 1)
        patch.setattr(stores, "_MOST_TRIES", 1)
        stores._store.cache_clear()
        store.faults = ["-"] * 9  # it is found, and told to be rollouts; some spans are read
        store.always = "503"

        with pytest.raises(FailedRun, match=r"cannot read s3://rollouts/run 1/mixed-00000.jsonl: the store failed 2"):
            run([url], f"{tmp_path}/stored/", options)
    store.always = None
    stores._store.cache_clear()
    report = run([url], f"{tmp_path}/stored/", options)

    assert report.notes[0].startswith("goes on from an interrupted run: ")
    (row_file,) = (tmp_path / "local").glob("*.jsonl")
    assert (tmp_path / "stored" / row_file.name).read_bytes() == row_file.read_bytes()


def test_an_object_that_changes_stops_the_run(store, tmp_path):
    (shard,) = stores.objects_at("s3://rollouts/run 1/mixed-00000.jsonl", (".jsonl",))
    file = stores.open_object(*shard)
    assert len(file.pread(5, 0)) == 5

    store.client.put_object(Bucket="rollouts", Key="run 1/mixed-00000.jsonl", Body=b"x" * shard.nbytes)

    with pytest.raises(OSError, match="it changed while it was read"):
        stores.open_object(*shard).pread(5, 0)


def test_a_missing_bucket_is_a_sentence_without_secrets(store, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "fastsft", "convert", "s3://nothing-here/a/", "--output", str(tmp_path / "r.jsonl")],
        env=os.environ,
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("fastsft: ")
    assert "s3://nothing-here/a/" in done.stderr
    assert SECRET not in done.stderr
    assert done.stderr.count("\n") == 1
