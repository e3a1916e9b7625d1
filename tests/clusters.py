"""Runs on real clusters of this machine: three nodes of Ray, and a scheduler of Dask with three workers.

Not collected by itself: `tox -e distributed` runs it. The command is a process of its own, as a person starts it, and what
happens to a span is said by `faulty_spans.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import generate
import pytest

pytest.importorskip("ray", reason="tox -e distributed installs Ray")
pytest.importorskip("distributed", reason="tox -e distributed installs Dask")

PROJECT = Path(__file__).resolve().parent.parent
NODES = 3
SPAN_NBYTES = 100_000
SECONDS = 60.0  # the longest that anything is waited for
ENGINES = ["ray", "dask"]


@pytest.fixture(scope="session", autouse=True)
def _places() -> Iterator[None]:
    """What all processes of the tests find: this project, and `faulty_spans`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(PROJECT), str(PROJECT / "tests")]))
        patch.setenv("FASTSFT_SPAN_NBYTES", str(SPAN_NBYTES))
        yield


def wait_until(found: Callable[[], Any], what: str) -> Any:
    """Wait until there is something, and return it."""
    until = time.monotonic() + SECONDS
    while not (value := found()):
        assert time.monotonic() < until, f"waited in vain for {what}"
        time.sleep(0.02)
    return value


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


class RayCluster:
    """Three nodes, at 127.0.0.2 and up: Ray takes 127.0.0.1 for another address."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster()
        self._nodes: list[Any] = []
        self.make_whole()
        self.address: str = self._cluster.address

    def make_whole(self) -> None:
        """Start what was killed."""
        self._nodes = [node for node in self._nodes if node.any_processes_alive()]
        while len(self._nodes) < NODES:
            self.start_node()

    def start_node(self, **settings: Any) -> Any:
        head = {
            "include_dashboard": False,
            # A node that is gone is noticed in 3 seconds, not in 15 to 20.
            "_system_config": {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000,
                               "health_check_timeout_ms": 1000, "health_check_failure_threshold": 3},
        }  # fmt: skip
        used = {node.node_ip_address for node in self._nodes}
        address = next(host for host in (f"127.0.0.{last}" for last in range(2, 200)) if host not in used)
        node = self._cluster.add_node(
            node_ip_address=address, num_cpus=1, **(settings if self._nodes else {**head, **settings})
        )
        self._nodes.append(node)
        return node

    def end_node(self, node: Any) -> None:
        self._nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)

    def kill_machine_of(self, pid: int) -> None:
        """Kill the node that a task is on, and all that it has started."""
        raylet = parent_of(pid)
        (node,) = (one for one in self._nodes if one.all_processes["raylet"][0].process.pid == raylet)
        assert node is not self._nodes[0], "the driver is at the head"
        self.end_node(node)

    def end(self) -> None:
        self._cluster.shutdown()


class DaskCluster:
    """A scheduler and three workers with their nannies, each started as a person does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = (folder / "dask.log").open("ab")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{port}"
        self._workers: list[subprocess.Popen[bytes]] = []
        self._scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", str(port))
        self.make_whole()

    def _start(self, *words: str, **environment: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", *words, "--no-dashboard"]
        return subprocess.Popen(
            command, cwd=self._folder, stdout=self._log, stderr=self._log, env={**os.environ, **environment},
            start_new_session=True,
        )  # fmt: skip

    def start_node(self, **environment: str) -> subprocess.Popen[bytes]:
        words = ["--nthreads", "1", "--host", "127.0.0.1", "--local-directory", str(self._folder)]
        self._workers.append(self._start("worker", self.address, *words, **environment))
        return self._workers[-1]

    def end_node(self, node: subprocess.Popen[bytes]) -> None:
        self._workers.remove(node)
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()

    def make_whole(self) -> None:
        self._workers = [worker for worker in self._workers if worker.poll() is None]
        while len(self._workers) < NODES:
            self.start_node()
        self.wait_for_workers(NODES)

    def wait_for_workers(self, count: int) -> None:
        import distributed

        with distributed.Client(self.address, set_as_default=False) as client:
            wait_until(lambda: len(client.scheduler_info(n_workers=-1)["workers"]) == count, f"{count} workers")

    def kill_machine_of(self, pid: int) -> None:
        """Kill the worker that a task is on, and its nanny."""
        (worker,) = (one for one in self._workers if one.pid == parent_of(pid))
        self.end_node(worker)

    def end(self) -> None:
        for process in [*self._workers, self._scheduler]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._log.close()


AnyCluster = RayCluster | DaskCluster


@pytest.fixture(scope="session")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], AnyCluster]]:
    """The cluster of an engine, started when it is needed first."""
    started: dict[str, AnyCluster] = {}

    def cluster_of(engine: str) -> AnyCluster:
        if engine not in started:
            started[engine] = RayCluster() if engine == "ray" else DaskCluster(tmp_path_factory.mktemp("dask"))
        return started[engine]

    yield cluster_of
    for cluster in started.values():
        cluster.end()


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def cluster(clusters: Callable[[str], AnyCluster], engine: str) -> Iterator[AnyCluster]:
    """A cluster that is whole, before and after."""
    found = clusters(engine)
    yield found
    found.make_whole()


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("in")
    for path in generate.write(folder, "mixed", count=120, nbytes=0, shards=3, seed=7):
        path.write_bytes(b"{torn\n" + path.read_bytes())
    return folder


# The command.


def begin(*words: object, deeds: Path | None = None, **environment: str) -> subprocess.Popen[str]:
    """Start the command in a session of its own, which all that it starts belongs to."""
    if deeds is not None:
        environment["FASTSFT_DEEDS"] = str(deeds)
    return subprocess.Popen(
        [sys.executable, "-c", "import faulty_spans; faulty_spans.main()", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, **environment},
    )  # fmt: skip


def ended(run: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the end of a run; its exit code, and what it said on standard error."""
    _, said = run.communicate(timeout=SECONDS)
    return run.returncode, said


def on(cluster: AnyCluster, engine: str) -> list[str]:
    return ["--backend", engine, "--address", cluster.address]


def files_in(folder: Path) -> dict[str, bytes]:
    """Names and bytes of all files; of reports, all but what the clock and lost workers change."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name in found:
        if name.endswith(".report.json"):
            report = json.loads(found[name])
            del report["seconds"], report["notes"]
            found[name] = json.dumps(report).encode()
    return found


def notes_of(folder: Path) -> list[str]:
    notes: list[str] = json.loads((folder / "train.report.json").read_bytes())["notes"]
    return notes


def pid_at(deeds: Path, span: int) -> int:
    """Wait until a span does its deed, and return the process that it is in."""
    (found, *_) = wait_until(lambda: [path for path in deeds.glob(f"{span}.[0-9]*")], f"somebody at span {span}")
    return int(found.suffix[1:])


@pytest.fixture
def deeds(tmp_path: Path) -> Path:
    folder = tmp_path / "deeds"
    folder.mkdir()
    return folder


# The same bytes.

PLANS: dict[str, list[str]] = {
    "one file": ["convert", "IN", "--output", "OUT/train.jsonl"],
    "shards by size": ["convert", "IN", "--output", "OUT/", "--shard-size", "100kB"],
    "shards by number": ["convert", "IN", "--output", "OUT/", "--shards", "3", "--compress", "gz"],
    "best of": ["convert", "IN", "--output", "OUT/train.jsonl", "--best-of", "1"],
    "splits": ["convert", "IN", "--output", "OUT/train.jsonl", "--split", "OUT/val.jsonl=0.2"],
    "template": ["convert", "IN", "--output", "OUT/train.jsonl", "--format", "chat", "--template", "TEMPLATE", "--trainable"],
    "check": ["check", "ROWS", "--json"],
    "stats": ["stats", "IN", "--json"],
    "index": ["index", "IN", "--output", "OUT/"],
}


@pytest.fixture(scope="session")
def done(
    clusters: Callable[[str], AnyCluster], shards: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """What the plans leave, each in its folder, with a backend; `loky` is what the others are compared with."""
    folder = tmp_path_factory.mktemp("done")
    template = folder / "template.jinja"
    template.write_text("{% for message in messages %}{{ message.content }}{% endfor %}")

    def done_by(backend: str) -> Path:
        out = folder / backend
        if out.exists():
            return out
        if backend != "loky":
            done_by("loky")
        out.mkdir()
        where = ["--backend", backend]
        where += ["--jobs", "2"] if backend == "loky" else ["--address", clusters(backend).address]
        commands = []
        for plan, words in PLANS.items():
            (out / plan).mkdir()
            rows = folder / "loky" / "one file" / "train.jsonl"
            places = {"IN": str(shards), "TEMPLATE": str(template), "ROWS": str(rows)}
            named = [places.get(word, word.replace("OUT", str(out / plan))) for word in words]
            commands.append([*named, *where, "--quiet"] if plan != "check" else [*named, *where])
        script = "import sys, faulty_spans; faulty_spans.run_each(*sys.argv[1:])"
        if backend == "ray":  # joined once, which the command does in the other tests
            script = f"import ray; ray.init({clusters(backend).address!r}, log_to_driver=False); {script}"
        subprocess.run([sys.executable, "-c", script, json.dumps(commands), out], check=True, timeout=4 * SECONDS)
        for number, plan in enumerate(PLANS):
            (out / f"{number}.out").rename(out / plan / "told")
        return out

    return done_by


@pytest.mark.parametrize("plan", PLANS)
def test_a_cluster_gives_the_bytes_that_loky_gives(done, engine, plan):
    assert files_in(done(engine) / plan) == files_in(done("loky") / plan)


# What becomes of a run whose workers are lost.


@pytest.fixture
def expected(done: Callable[[str], Path]) -> dict[str, bytes]:
    """What a run of one file leaves."""
    found = files_in(done("loky") / "one file")
    del found["told"]
    return found


def test_a_run_goes_on_where_a_machine_is_killed_and_says_so(cluster, engine, shards, tmp_path, deeds, expected):
    (deeds / "7").write_text("wait")
    run = begin("convert", shards, "--output", tmp_path / "out/train.jsonl", "-q", *on(cluster, engine), deeds=deeds)
    pid = pid_at(deeds, 7)
    cluster.kill_machine_of(pid)

    assert ended(run) == (0, "")
    assert files_in(tmp_path / "out") == expected
    (note,) = [note for note in notes_of(tmp_path / "out") if "span 7" in note]
    assert re.fullmatch(rf"a worker of {engine.title()} was lost \(.*\); it was at span 7, which was done once more", note)


def test_a_span_that_kills_every_worker_fails_by_name_and_the_same_command_goes_on(
    cluster, engine, shards, tmp_path, deeds, expected
):
    (deeds / "7").write_text("kill always")
    words = ["convert", shards, "--output", tmp_path / "out/train.jsonl", "-q", "--retries", "1", *on(cluster, engine)]
    code, said = ended(begin(*words, deeds=deeds))

    assert code == 1
    assert re.fullmatch(
        rf"fastsft: a worker of {engine.title()} was lost \(.*\); it was at span 7, which 2 attempts did not finish "
        r"\(--retries\); nothing was published, and the same command goes on from what was done\n",
        said,
    )
    assert len(list(deeds.glob("7.[0-9]*"))) == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".train.fastsft"]

    assert ended(begin(*words)) == (0, "")
    assert files_in(tmp_path / "out") == expected
    (note,) = [note for note in notes_of(tmp_path / "out") if note.startswith("goes on")]
    assert int(re.findall(r"\d+", note)[0]) >= 1


def test_what_a_stopped_worker_does_not_do_is_done_elsewhere(cluster, engine, shards, tmp_path, deeds, expected):
    (deeds / "7").write_text("stop")
    words = ["convert", shards, "--output", tmp_path / "out/train.jsonl", "-q", "--stall-seconds", "3"]
    run = begin(*words, *on(cluster, engine), deeds=deeds)
    pid = pid_at(deeds, 7)
    try:
        assert ended(run) == (0, "")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    assert files_in(tmp_path / "out") == expected
    (note,) = notes_of(tmp_path / "out")
    what = rf"a worker of {engine.title()} took more than 3 s (--stall-seconds)"
    assert note == f"{what}; it was at span 7, which was done once more"
