"""Runs on real clusters of this machine: three nodes of Ray, and a scheduler of Dask with three workers.

Not collected by itself: `tox -e distributed` runs it. The command is a process of its own, as a person starts it, and
what happens to a span is said by `faulty_spans.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
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
SECONDS = 40.0  # the longest that anything is waited for
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


def children_of(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if parent_of(int(entry.name)) == parent:
                    found.append(int(entry.name))
    return found


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


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

    def kill_machine_of(self, pids: Sequence[int]) -> int:
        """Kill the node of one of the processes, with all that it started, but not the head, where the driver is."""
        nodes = {node.all_processes["raylet"][0].process.pid: node for node in self._nodes[1:]}
        pid = next(pid for pid in pids if parent_of(pid) in nodes)
        node = nodes[parent_of(pid)]
        for one in children_of(parent_of(pid)):  # else they live long enough to finish what they are at
            os.kill(one, signal.SIGKILL)
        self.end_node(node)
        return pid

    def kill_head(self) -> None:
        """Kill the node without which no task is handed out."""
        self._nodes[0].kill_all_processes(check_alive=False, allow_graceful=False)

    @contextlib.contextmanager
    def another(self, **environment: str) -> Iterator[int]:
        """Have one more node, with an environment of its own; the process that starts its workers."""
        node = self.start_node(env_vars=environment)
        try:
            yield node.all_processes["raylet"][0].process.pid
        finally:
            self.end_node(node)

    def wait_until_idle(self) -> None:
        """Wait until no worker of a driver's is left: Ray has some for each."""
        raylets = [node.all_processes["raylet"][0].process.pid for node in self._nodes]

        def at_work() -> list[int]:
            found = [pid for raylet in raylets for pid in children_of(raylet)]
            return [pid for pid in found if b"ray::fastsft" in command_of(pid)]

        wait_until(lambda: not at_work(), "idle workers")

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

    def kill_machine_of(self, pids: Sequence[int]) -> int:
        """Kill the worker of one of the processes, and its nanny."""
        (worker,) = (one for one in self._workers if one.pid == parent_of(pids[0]))
        self.end_node(worker)
        return pids[0]

    @contextlib.contextmanager
    def another(self, **environment: str) -> Iterator[int]:
        """Have one more worker, with an environment of its own; its process."""
        nanny = self.start_node(**environment)
        try:
            self.wait_for_workers(NODES + 1)
            yield next(pid for pid in children_of(nanny.pid) if b"spawn_main" in command_of(pid))
        finally:
            self.end_node(nanny)

    def wait_until_idle(self) -> None:
        """Wait until the scheduler knows of no task."""
        import distributed

        with distributed.Client(self.address, set_as_default=False) as client:
            wait_until(lambda: not client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)), "no task")

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


def begin(
    *words: object, deeds: Path | None = None, folder: Path | None = None, **environment: str
) -> subprocess.Popen[str]:
    """Start the command in a session of its own, which all that it starts belongs to."""
    if deeds is not None:
        environment["FASTSFT_DEEDS"] = str(deeds)
    run = subprocess.Popen(
        [sys.executable, "-c", "import faulty_spans; faulty_spans.main()", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=folder,
        env={**os.environ, **environment},
    )  # fmt: skip
    _begun.append(run)
    return run


_begun: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """End the runs of a test that failed."""
    yield
    while _begun:
        run = _begun.pop()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        run.communicate()


def ended(run: subprocess.Popen[str], seconds: float = SECONDS) -> tuple[int, str]:
    """Wait for the end of a run; its exit code, and what it said on standard error."""
    _, said = run.communicate(timeout=seconds)
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
    (found, *_) = wait_until(lambda: list(deeds.glob(f"{span}.[0-9]*")), f"somebody at span {span}")
    return int(found.suffix[1:])


@pytest.fixture
def deeds(tmp_path: Path) -> Path:
    folder = tmp_path / "deeds"
    folder.mkdir()
    return folder


# The same bytes.

TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
PLANS: dict[str, list[str]] = {
    "one file": ["convert", "IN", "--output", "OUT/train.jsonl"],
    "shards by size": ["convert", "IN", "--output", "OUT/", "--shard-size", "100kB"],
    "shards by number": ["convert", "IN", "--output", "OUT/", "--shards", "3", "--compress", "gz"],
    "best of": ["convert", "IN", "--output", "OUT/train.jsonl", "--best-of", "1"],
    "splits": ["convert", "IN", "--output", "OUT/train.jsonl", "--split", "OUT/val.jsonl=0.2"],
    "template": ["convert", "IN", "--output", "OUT/train.jsonl", "--template", "TEMPLATE", "--trainable"],
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
    template.write_text(TEMPLATE)

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
    spans = [7, 8, 9]  # one on each machine
    for span in spans:
        (deeds / str(span)).write_text("wait")
    run = begin("convert", shards, "--output", tmp_path / "out/train.jsonl", "-q", *on(cluster, engine), deeds=deeds)
    at = {pid_at(deeds, span): span for span in spans}
    killed = cluster.kill_machine_of(list(at))
    (deeds / "go").touch()

    assert ended(run) == (0, "")
    assert files_in(tmp_path / "out") == expected
    loss = rf"a worker of {engine.title()} was lost \(.*\); it was at span %s, which was done once more"
    notes = notes_of(tmp_path / "out")
    assert [note for note in notes if re.fullmatch(loss % at[killed], note)]
    assert [note for note in notes if not re.fullmatch(loss % r"\d+", note)] == []


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
    # Dask begins with it again by itself, before it hears that it need not.
    assert 2 <= len(list(deeds.glob("7.[0-9]*"))) <= (2 if engine == "ray" else 4)
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
    notes = notes_of(tmp_path / "out")
    what = f"a worker of {engine.title()} took more than 3 s (--stall-seconds)"
    assert f"{what}; it was at span 7, which was done once more" in notes
    longer = re.escape(what).replace("3", r"3(\.\d)?")  # for files, by their bytes
    assert all(re.match(longer, note) for note in notes)  # what waited behind it, too


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for_end_of(pid: int, deeds: Path) -> None:
    """Wait until a span that did its deed has ended, or the process that it was in."""
    wait_until(lambda: (deeds / f"ended.{pid}").exists() or not is_alive(pid), "the end of a late attempt")


def names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_where_the_driver_is_killed_the_same_command_goes_on_and_what_ends_late_reaches_nothing(
    cluster, engine, shards, tmp_path, deeds, expected
):
    (deeds / "7").write_text("wait")
    words = ["convert", shards, "--output", tmp_path / "out/train.jsonl", "-q", "--stall-seconds", "3"]
    run = begin(*words, *on(cluster, engine), deeds=deeds)
    pid = pid_at(deeds, 7)
    wait_until(lambda: list((tmp_path / "out/.train.fastsft").glob("*/*.receipt")), "a receipt")
    run.kill()
    ended(run)

    assert ended(begin(*words, *on(cluster, engine))) == (0, "")
    assert files_in(tmp_path / "out") == expected
    assert [note for note in notes_of(tmp_path / "out") if note.startswith("goes on from an interrupted run")]

    (deeds / "go").touch()
    wait_for_end_of(pid, deeds)
    assert names_in(tmp_path / "out") == set(expected)


def test_where_the_head_of_ray_is_killed_the_same_command_goes_on_with_another_cluster(
    clusters, shards, tmp_path, deeds, expected
):
    """Ray itself ends the process that has joined after 60 s, without a word of the run."""
    (deeds / "7").write_text("wait")
    words = ["convert", shards, "--output", tmp_path / "out/train.jsonl", "-q"]
    other = RayCluster()
    try:
        run = begin(*words, *on(other, "ray"), deeds=deeds)
        pid_at(deeds, 7)
        wait_until(lambda: list((tmp_path / "out/.train.fastsft").glob("*/*.receipt")), "a receipt")
        other.kill_head()
        code, told = ended(run, 3 * SECONDS)
    finally:
        (deeds / "go").touch()
        other.end()

    assert (code, told.splitlines()[-1]) == (
        1,
        f"fastsft: the head of Ray at {other.address} has not answered for 30 s; nothing was published, and the same "
        "command goes on",
    )
    assert ended(begin(*words, *on(clusters("ray"), "ray"))) == (0, "")
    assert files_in(tmp_path / "out") == expected
    assert [note for note in notes_of(tmp_path / "out") if note.startswith("goes on from an interrupted run")]


def test_of_two_attempts_at_once_one_is_taken_and_nothing_is_left(cluster, engine, shards, tmp_path, deeds, expected):
    (deeds / "7").write_text("wait always")
    words = ["convert", shards, "--output", tmp_path / "out/train.jsonl", "-q", "--stall-seconds", "2"]
    run = begin(*words, "--retries", "9", *on(cluster, engine), deeds=deeds)
    at = wait_until(lambda: [path for path in deeds.glob("7.*") if len(list(deeds.glob("7.*"))) > 1], "two attempts")
    (deeds / "go").touch()

    assert ended(run) == (0, "")
    for path in at:
        wait_for_end_of(int(path.suffix[1:]), deeds)
    assert files_in(tmp_path / "out") == expected
    assert names_in(tmp_path / "out") == set(expected)


def test_an_interrupted_run_says_so_and_leaves_nothing_at_work(cluster, engine, shards, tmp_path, deeds, expected):
    (deeds / "7").write_text("wait")
    words = ["convert", shards, "--output", tmp_path / "out/train.jsonl", "-q"]
    run = begin(*words, *on(cluster, engine), deeds=deeds)
    pid = pid_at(deeds, 7)
    wait_until(lambda: list((tmp_path / "out/.train.fastsft").glob("*/*.receipt")), "a receipt")
    run.send_signal(signal.SIGINT)

    told = "fastsft: interrupted; nothing was published; the same command goes on from what was done\n"
    assert ended(run) == (130, told)
    assert names_in(tmp_path / "out") > {".train.fastsft"}
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".train.fastsft"]
    assert in_session(run.pid) == []
    (deeds / "go").touch()  # Dask cannot end what a thread is at
    wait_for_end_of(pid, deeds)
    cluster.wait_until_idle()

    assert ended(begin(*words, *on(cluster, engine))) == (0, "")
    assert files_in(tmp_path / "out") == expected


def in_session(session: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if os.getsid(int(entry.name)) == session:
                    found.append(int(entry.name))
    return found


# What is told before anything is done.

OTHER_PLACES = {  # what is in front of all else that a worker imports, and what is told of it
    "no fastsft": (
        {"fastsft/__init__.py": "raise ImportError('No module named fastsft')"},
        r"has fastsft none \(No module named fastsft\), and this is \S+; install the same on all machines",
    ),
    "another fastsft": (
        {"fastsft/__init__.py": "", "fastsft/version.py": "__version__ = '0.1'"},
        r"has fastsft 0\.1, and this is \S+; install the same on all machines",
    ),
    "another output": (
        {"sitecustomize.py": "HIDDEN = '/out/'"},
        r"cannot read \S+/out/\.train\.fastsft/run\.json: No such file or directory; all machines need the same files",
    ),
    "another input": (
        {"sitecustomize.py": "HIDDEN = '/in0/'"},
        r"cannot read \S+/in0/mixed-00000\.jsonl: No such file or directory; all machines need the same files",
    ),
}
HIDES = """
import builtins, os
opened = builtins.open
def open_here(path, *words, **settings):
    if HIDDEN in str(path):
        raise FileNotFoundError(2, "No such file or directory", path)
    return opened(path, *words, **settings)
builtins.open = open_here
"""


@pytest.mark.parametrize("place", OTHER_PLACES)
def test_a_worker_that_cannot_do_spans_is_told_before_anything_is_done(cluster, engine, shards, tmp_path, place):
    files, told = OTHER_PLACES[place]
    for name, text in files.items():
        (tmp_path / "in front" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in front" / name).write_text(text + (HIDES if name == "sitecustomize.py" else ""))
    with cluster.another(PYTHONPATH=os.pathsep.join([str(tmp_path / "in front"), os.environ["PYTHONPATH"]])):
        words = ["convert", shards, "--output", tmp_path / "out/train.jsonl", *on(cluster, engine)]
        code, said = ended(begin(*words, folder=tmp_path))  # where Ray's workers look for modules, too

    host = re.escape(socket.gethostname())
    version = "" if "cannot" in told else r" \(Python \S+\)"
    assert re.fullmatch(rf"fastsft: {engine.title()}: {host}{version} {told}\n", said), said
    assert code == 2
    assert not (tmp_path / "out").exists()


def test_a_worker_that_does_not_answer_is_told_before_anything_is_done(cluster, engine, shards, tmp_path):
    with cluster.another() as pid:
        os.kill(pid, signal.SIGSTOP)
        words = ["convert", shards, "--output", tmp_path / "out/train.jsonl", *on(cluster, engine)]
        code, said = ended(begin(*words, FASTSFT_PREFLIGHT_SECONDS="3"))

    assert re.fullmatch(rf"fastsft: {engine.title()}: \S+( \(\S+\))? did not answer within 3 s\n", said), said
    assert code == 2
    assert not (tmp_path / "out").exists()


def test_an_address_at_which_nobody_listens_is_told(engine, shards, tmp_path):
    words = ["--backend", engine, "--address", "127.0.0.1:9"]
    code, said = ended(begin("convert", shards, "--output", tmp_path / "out/train.jsonl", *words))

    assert said == f"fastsft: cannot join {engine.title()} at 127.0.0.1:9: Connection refused\n"
    assert code == 1
    assert not (tmp_path / "out").exists()


# From Python.


LIBRARY = """
import joblib, sys, threading
from fastsft import Options
from fastsft.pipeline import run
def convert(**options):
    print(run([sys.argv[1]], sys.argv[2], Options(span_nbytes=int(sys.argv[3]), **options)).rows)
if __name__ == "__main__":
"""


def python(tmp_path: Path, shards: Path, script: str) -> tuple[str, str]:
    """What a script says on standard output and standard error, where each line of it is in the main guard."""
    path = tmp_path / "script.py"  # a file, as Dask's new processes import it
    path.write_text(LIBRARY + "".join(f"    {line}\n" for line in script.strip().splitlines()))
    command = [sys.executable, path, shards, tmp_path / "out/train.jsonl", str(SPAN_NBYTES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * SECONDS, check=False)
    return done.stdout, done.stderr


def test_the_backend_of_joblib_is_used(cluster, engine, shards, tmp_path, expected):
    address = repr(cluster.address)
    join = {
        "ray": f"import ray, ray.util.joblib; ray.init({address}, log_to_driver=False, logging_level='error')\n"
        "ray.util.joblib.register_ray()",
        "dask": f"import distributed; client = distributed.Client({address})",
    }
    script = f"""
{join[engine]}
with joblib.parallel_config({engine!r}):
    convert()
"""
    said, complaint = python(tmp_path, shards, script)
    assert (said, complaint) == ("64\n", "")
    assert files_in(tmp_path / "out") == expected


LOCAL = """
import distributed
with distributed.LocalCluster(n_workers=2, threads_per_worker=2, processes={processes}, dashboard_address=":0") as here:
    with distributed.Client(here):
        def go():
            with joblib.parallel_config("dask"):
                convert()
        {how}
"""
HOW = {
    "main": "go()",
    "another": "thread = threading.Thread(target=go); thread.start(); thread.join()",
}


@pytest.mark.parametrize("thread", HOW)
@pytest.mark.parametrize("processes", [True, False])
def test_a_cluster_of_dasks_in_the_process_itself_is_one_too(shards, tmp_path, expected, processes, thread):
    said, complaint = python(tmp_path, shards, LOCAL.format(processes=processes, how=HOW[thread]))
    assert (said, complaint) == ("64\n", "")
    assert files_in(tmp_path / "out") == expected


def test_threads_of_one_process_share_a_chat_template(done, shards, tmp_path):
    (tmp_path / "template.jinja").write_text(TEMPLATE)
    script = f"""
import distributed
with distributed.LocalCluster(n_workers=1, threads_per_worker=4, processes=False, dashboard_address=":0") as here:
    with distributed.Client(here), joblib.parallel_config("dask"):
        convert(template={str(tmp_path / "template.jinja")!r}, trainable=True)
"""
    said, complaint = python(tmp_path, shards, script)
    assert (said, complaint) == ("54\n", "")
    rows = (tmp_path / "out/train.jsonl").read_bytes()
    assert rows == (done("loky") / "template" / "train.jsonl").read_bytes()
