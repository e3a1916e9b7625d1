"""Worker processes: how many, and which kind."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from builders import in_a_new_process, lines, rollout, said, user

import fastsft
from fastsft.errors import KeepsReceipts
from fastsft.execution import engines, workers


@pytest.mark.parametrize(
    ("limit", "expected"), [("max 100000", 8), ("250000 100000", 3), ("10000 100000", 1), ("9900000 100000", 8)]
)
def test_a_container_limits_the_cores(tmp_path, monkeypatch, limit, expected):
    (tmp_path / "cpu.max").write_text(f"{limit}\n")
    monkeypatch.setattr(workers, "_CGROUP_LIMIT", str(tmp_path / "cpu.max"))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))

    assert workers.cores() == expected


def test_no_container_no_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_CGROUP_LIMIT", str(tmp_path / "cpu.max"))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 3, 5})

    assert workers.cores() == 3


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("", "True"),
        ("import polars", "False"),
        ("import sys; sys.modules['joblib'] = sys", "False"),
        ("import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()", "False"),
    ],
)
def test_only_a_process_with_one_thread_and_no_choice_of_a_backend_is_forked(before, expected):
    assert in_a_new_process(f"{before}\nfrom fastsft.execution.forked import may_fork\nprint(may_fork())") == expected


SMALL_SPANS = "import fastsft.inputs.shards; fastsft.inputs.shards._MOST_SPAN_NBYTES = 100"  # so that a file is one


def rollouts_in(folder):
    for name in ("a.jsonl", "b.jsonl"):
        (folder / name).write_bytes(lines(rollout(user("?"), said("4"))))
    return folder


def test_a_worker_of_a_pool_which_may_have_no_processes_of_its_own_converts_alone(tmp_path):
    script = f"""
{SMALL_SPANS}
import multiprocessing, sys, fastsft
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(pool.apply_async(fastsft.convert, sys.argv[1:], {{"jobs": 2}}).get(timeout=50).rows)
"""
    assert in_a_new_process(script, rollouts_in(tmp_path), tmp_path / "rows/train.jsonl") == "2"


def test_processes_that_the_system_does_not_start_are_told(tmp_path):
    script = f"""
{SMALL_SPANS}
import errno, os, sys, fastsft
def refused():
    raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
os.fork = refused
try:
    fastsft.convert(*sys.argv[1:], jobs=2)
except fastsft.FailedRun as failed:
    print(failed)
"""
    assert in_a_new_process(script, rollouts_in(tmp_path), tmp_path / "rows/train.jsonl") == (
        "cannot start 2 worker processes: Resource temporarily unavailable (fewer --jobs need less); "
        "nothing was published"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl"]


def test_processes_that_are_gone_before_anyone_looks_are_waited_for_by_nobody():
    """A signal to the whole group may end them as soon as they begin."""
    script = """
import os
from concurrent.futures import BrokenExecutor
from fastsft.execution.forked import ForkedPool
pool = ForkedPool(2, lambda parent: os._exit(1))
try:
    pool.wait_for(pool.submit("it", os.getpid))
except BrokenExecutor:
    print("told")
pool.end()
"""
    assert in_a_new_process(script) == "told"


def test_where_polars_is_at_work_joblibs_multiprocessing_backend_gives_way_to_loky(tmp_path):
    script = f"""
{SMALL_SPANS}
import sys, fastsft, joblib
if __name__ == "__main__":
    with joblib.parallel_config(backend="multiprocessing"):
        print(fastsft.convert(*sys.argv[1:], jobs=2, where="calls = 0").rows)
"""
    assert in_a_new_process(script, rollouts_in(tmp_path), tmp_path / "rows/train.jsonl") == "2"


def test_what_was_forked_while_polars_was_at_work_converts_without_it_and_says_what_it_cannot(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines(*[rollout(user("數\u2028" * 9), said("é" * 99)) for _ in range(99)]))
    script = f"""
import fastsft, os, signal, sys
import polars
if sys.argv[1] == "at-work":
    fastsft.stats({str(tmp_path)!r})
if os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
signal.alarm(50)  # it would wait for ever
print(fastsft.convert({str(tmp_path)!r}, {str(tmp_path / "out/rows.jsonl")!r}, jobs=1).rows)
for call in (fastsft.stats, fastsft.check, lambda path: fastsft.convert(path, path + "/o/r.jsonl", best_of=1).rows):
    try:
        print(type(call({str(tmp_path)!r})).__name__)
    except fastsft.FailedRun as failed:
        print(str(failed)[:30])
"""
    told = ["this process was forked from o"]
    assert in_a_new_process(script, "imported").splitlines() == ["99", "Stats", "CheckReport", "int"]
    assert in_a_new_process(script, "at-work").splitlines() == ["99", *told * 3]


def test_importing_the_package_does_not_stand_in_the_way_of_forking():
    script = (
        "import fastsft, fastsft.execution.workers\nfrom fastsft.execution.forked import may_fork\nprint(may_fork())"
    )
    assert in_a_new_process(script) == "True"


def test_forked_workers_give_results_in_the_order_of_the_tasks():
    script = """
from fastsft.execution import workers
def product(index, item):
    return index * item
with workers.Workers(workers.Placement(jobs=3), nbytes=0, tasks=99) as three:
    print([list(three.in_order(product, range(50))) for _ in range(2)])
"""
    assert in_a_new_process(script) == str([[index * index for index in range(50)]] * 2)


def test_the_workers_are_the_threads_that_polars_has():
    script = """
from fastsft.execution import workers
def threads(index, item):
    import polars
    return polars.thread_pool_size()
with workers.Workers(workers.Placement(jobs=2), nbytes=0, tasks=99) as two:
    print(list(two.in_order(threads, range(4))))
"""
    assert in_a_new_process(script) == "[1, 1, 1, 1]"


def test_what_is_done_alone_has_a_process_and_all_threads_to_itself():
    script = """
import os, sys
from fastsft.execution import workers
def pid_and_threads():
    import polars
    return os.getpid(), polars.thread_pool_size()
with workers.Workers(workers.Placement(jobs=2), nbytes=0, tasks=99, selects=True) as two:
    pid, threads = two.run_alone(pid_and_threads)
    print(pid != os.getpid(), threads == len(os.sched_getaffinity(0)), "polars" in sys.modules)
with workers.Workers(workers.Placement(jobs=1), nbytes=0, tasks=99, selects=True) as one:
    print(one.run_alone(os.getpid) == os.getpid())
"""
    assert in_a_new_process(script) == "True True False\nTrue"


def test_where_the_process_for_what_is_done_alone_does_not_start_the_others_end():
    script = """
import errno, multiprocessing, os
from fastsft import FailedRun
from fastsft.execution import workers
forks, fork = [], os.fork
def refused():
    forks.append(None)
    if len(forks) == 3:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
    return fork()
os.fork = refused
try:
    workers.Workers(workers.Placement(jobs=2), nbytes=0, tasks=99, selects=True)
except FailedRun as failed:
    print(str(failed)[:29], multiprocessing.active_children())
"""
    assert in_a_new_process(script) == "cannot start 1 worker process []"


def test_where_what_is_done_alone_is_killed_the_run_keeps_its_receipts():
    script = """
import multiprocessing, os
from fastsft.errors import KeepsReceipts
from fastsft.execution import workers
try:
    with workers.Workers(workers.Placement(jobs=2), nbytes=0, tasks=99, selects=True) as two:
        two.run_alone(os.abort)
except KeepsReceipts as error:
    print(str(error)[:27], multiprocessing.active_children())
"""
    assert in_a_new_process(script) == "a worker process was killed []"


def test_what_a_forked_worker_raises_is_raised_here_and_ends_them_all():
    script = """
import multiprocessing, signal
from fastsft.execution import workers
def fails(index, item):
    if index == 5:
        raise ValueError(index)
    if index > 5:
        signal.pause()  # what it has begun, nobody waits for
try:
    with workers.Workers(workers.Placement(jobs=2), nbytes=0, tasks=99) as two:
        list(two.in_order(fails, range(50)))
except ValueError as error:
    print(repr(error), multiprocessing.active_children())
"""
    assert in_a_new_process(script) == "ValueError(5) []"


def test_long_tasks_and_long_results_keep_nobody_waiting():
    """A pipe holds 64 KiB or so: two processes that write to each other through it would wait for ever."""
    script = """
from fastsft.execution import workers
def twice(index, item):
    return item + item
with workers.Workers(workers.Placement(jobs=2), nbytes=0, tasks=99) as two:
    items = [bytes([index]) * 1_000_000 for index in range(40)]
    print(list(two.in_order(twice, items)) == [item + item for item in items])
"""
    assert in_a_new_process(script) == "True"


def test_what_cannot_be_pickled_is_told_in_words():
    script = """
from fastsft.execution import workers
def fails(index, item):
    error = ValueError("no")
    error.file = open("/dev/null")
    raise error
try:
    with workers.Workers(workers.Placement(jobs=2), nbytes=0, tasks=99) as two:
        list(two.in_order(fails, range(9)))
except RuntimeError as error:
    print(error)
"""
    assert in_a_new_process(script) == "ValueError: no"


def test_a_worker_that_is_killed_while_it_hands_its_result_over_ends_the_run():
    script = """
import multiprocessing, os, signal, threading
from multiprocessing.connection import Connection
from fastsft import FailedRun
from fastsft.execution import workers
def dies(index, item):
    def half(pipe, data, write=os.write):
        write(pipe.fileno(), data[:len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    if index == 5:
        Connection._send = half
    return bytes(100_000)
try:
    with workers.Workers(workers.Placement(jobs=2), nbytes=0, tasks=99) as two:
        list(two.in_order(dies, range(50)))
except FailedRun as error:
    print(str(error)[:27], multiprocessing.active_children(), threading.active_count())
"""
    assert in_a_new_process(script) == "a worker process was killed [] 1"


@pytest.mark.parametrize(
    ("deed", "told"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed, perhaps for lack of memory (fewer --jobs need less)"),
        ("os.kill(os.getpid(), signal.SIGSTOP)", "took more than 1 s (--stall-seconds)"),
    ],
)
@pytest.mark.parametrize("at", [0, 31])
def test_what_a_lost_worker_was_sent_is_done_by_another(tmp_path, deed, told, at):
    script = f"""
import multiprocessing, os, signal, sys
from fastsft.execution import workers
def work(index, item):
    if index == {at} and not os.path.exists(sys.argv[1]):
        open(sys.argv[1], "x").close()
        {deed}
    return index * item
with workers.Workers(workers.Placement(jobs=3, stall_seconds=1), nbytes=0, tasks=99) as three:
    print(list(three.in_order(work, range(50), what="span")) == [index * index for index in range(50)])
    print(three.losses, len(multiprocessing.active_children()))
"""
    losses = [f"a worker process {told}; it was at span {at}, which another did"]
    assert in_a_new_process(script, tmp_path / "done") == f"True\n{losses} 2"


LOKY = """
import os, signal, sys, joblib
from fastsft import FailedRun
from fastsft.execution import workers
def work(index, item):
    if index == 7 and (len(sys.argv) < 2 or not os.path.exists(item)):
        open(item, "x").close() if item else None
        os.kill(os.getpid(), signal.SIGDEED)
    return index
placement = workers.Placement(jobs=2, backend="loky", stall_seconds=6)
with workers.Workers(placement, nbytes=0, tasks=99) as two:
    try:
        print(list(two.in_order(work, [sys.argv[1] if sys.argv[1:] else ""] * 20, what="span")) == list(range(20)))
    except FailedRun as failed:
        print(str(failed).split("; ")[:2])
    print(two.losses)
"""
OF_LOKY = {
    "KILL": "a worker process was killed, perhaps for lack of memory (fewer --jobs need less)",
    "STOP": "a worker process took more than 6 s (--stall-seconds)",
}


@pytest.mark.parametrize("deed", OF_LOKY)
def test_what_a_lost_worker_of_joblibs_had_to_do_is_done_once_more(tmp_path, deed):
    done, losses = in_a_new_process(LOKY.replace("DEED", deed), tmp_path / "done").splitlines()

    assert done == "True"
    lost = re.escape(f"['{OF_LOKY[deed]}; it was at span ")
    assert re.fullmatch(rf"{lost}[0-7] or behind it, and what was not done was done once more'\]", losses)


@pytest.mark.parametrize("deed", ["KILL", "STOP"])
def test_what_two_workers_did_not_finish_fails_by_name(deed):
    script = f"""
import multiprocessing, os, signal
from fastsft import FailedRun
from fastsft.execution import workers
def work(index, item):
    if index == 7:
        os.kill(os.getpid(), signal.SIG{deed})
    return index
try:
    with workers.Workers(workers.Placement(jobs=4, stall_seconds=1), nbytes=0, tasks=99) as four:
        list(four.in_order(work, range(50), what="span"))
except FailedRun as failed:
    print(str(failed).split("; ")[1], multiprocessing.active_children())
"""
    assert in_a_new_process(script) == "it was at span 7, which 2 processes did not finish (--retries) []"


def test_a_run_goes_on_where_a_worker_is_killed_and_says_so(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines(*[rollout(user("?"), said("é" * 99)) for _ in range(99)]))
    script = """
import os, signal, sys, fastsft
from fastsft.pipeline import one_pass, run
make = one_pass.Rows.make
def killed_once(self, span, report_progress=None):
    if span.index == 3 and not os.path.exists(sys.argv[3]):
        open(sys.argv[3], "x").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return make(self, span, report_progress)
one_pass.Rows.make = killed_once
report = run([sys.argv[1]], sys.argv[2], fastsft.Options(jobs=2, span_nbytes=4000))
print(report.notes)
"""
    told = in_a_new_process(script, tmp_path / "in.jsonl", tmp_path / "a/rows.jsonl", tmp_path / "killed")
    fastsft.convert(tmp_path / "in.jsonl", tmp_path / "b/rows.jsonl", jobs=1)

    loss = "a worker process was killed, perhaps for lack of memory (fewer --jobs need less)"
    notes = [f"{loss}; it was at span 3, which another did"]
    assert told == str(notes)
    assert json.loads((tmp_path / "a/rows.report.json").read_bytes())["notes"] == notes
    assert (tmp_path / "a/rows.jsonl").read_bytes() == (tmp_path / "b/rows.jsonl").read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["rows.jsonl", "rows.report.json"]


def test_waiting_for_a_worker_can_be_interrupted_where_polars_is_imported():
    script = """
import os, signal
from fastsft.execution import workers
def interrupts(index, parent):
    while open(f"/proc/{parent}/stat").read().split()[2] != "S":
        pass
    os.kill(parent, signal.SIGINT)
    signal.pause()
try:
    with workers.Workers(workers.Placement(jobs=2), nbytes=0, tasks=99) as two:
        import joblib, polars
        list(two.in_order(interrupts, [os.getpid()]))
except KeyboardInterrupt:
    print("interrupted")
"""
    assert in_a_new_process(script) == "interrupted"


def test_a_worker_whose_parent_was_killed_before_its_first_task_ends(tmp_path):
    """By itself: the task waits for ever, and nothing is complained of, as it was when a TypeError ended it."""
    script = tmp_path / "parent.py"
    script.write_text(
        """
import multiprocessing, os, signal, threading
from fastsft.execution.workers import _in_worker

def wait():
    threading.Event().wait()

def work_late(parent):
    while os.getppid() == parent:
        os.sched_yield()
    print("works late", flush=True)
    _in_worker(parent, wait)

if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=work_late, args=(os.getpid(),)).start()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as parent:
        told, complaint = parent.communicate(timeout=60)  # its pipes are closed when the last process has ended

    assert (told, complaint) == ("works late\n", "")


FAILURES = {
    "raise MemoryError": "out of memory; nothing was published (fewer --jobs and a smaller --max-line need less)",
    "import no_such_library": "cannot load no_such_library: No module named 'no_such_library'; install fastsft anew, "
    "in a fresh environment",
    "raise panic": "Polars failed, please report this: called `Option::unwrap()`; nothing was published",
}


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("where", ["make", "row"])
def test_what_no_input_is_to_blame_for_fails_the_run_in_a_sentence(tmp_path, jobs, failure, where):
    script = f"""
{SMALL_SPANS}
import sys, fastsft
from fastsft.pipeline import judging, one_pass
panic = type("PanicException", (BaseException,), {{}})("called `Option::unwrap()`")  # as pyo3 makes it
def fails(*_, **__):
    {failure}
if {where!r} == "make":
    one_pass.Rows.make = fails
else:
    one_pass.row_maker = lambda options: fails
try:
    fastsft.convert(*sys.argv[1:], jobs={jobs})
except fastsft.FailedRun as failed:
    print(failed)
"""
    assert in_a_new_process(script, rollouts_in(tmp_path), tmp_path / "rows/train.jsonl") == FAILURES[failure]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl"]


@pytest.mark.parametrize(("backend", "module"), [("ray", "ray"), ("dask", "distributed")])
def test_a_backend_whose_extra_is_missing_is_told_with_the_line_that_installs_it(tmp_path, backend, module):
    script = f"""
import sys, fastsft
sys.modules[{module!r}] = None  # as if it were not installed
try:
    fastsft.convert(*sys.argv[1:], backend={backend!r})
except fastsft.UsageError as error:
    print(error)
"""
    assert in_a_new_process(script, rollouts_in(tmp_path), tmp_path / "rows/train.jsonl") == (
        f"--backend {backend} needs {module}: pip install 'fastsft[{backend}]'"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl"]


def unpickled(data: bytes) -> bytes:
    raise ModuleNotFoundError("No module named 'fastsft'")


class Threads:
    """An engine of threads.

    Attributes:
        most: How many tasks it had at once.
        takes: How many it takes until it is gone.
    """

    name = "Threads"
    errors = ()

    def __init__(self, slots: int, takes: int = 1000) -> None:
        self._slots = slots
        self._threads = ThreadPoolExecutor(slots)
        self._futures: list[Future[bytes]] = []
        self.most = 0
        self.takes = takes

    def slots(self) -> int:
        return self._slots

    def submit(self, run: Callable[[bytes], bytes], data: bytes, name: str) -> Future[bytes]:
        if len(self._futures) == self.takes:
            raise RuntimeError("it is gone")
        self._futures.append(self._threads.submit(run, data))
        self.most = max(self.most, sum(not future.done() for future in self._futures))
        return self._futures[-1]

    def close(self) -> None:
        self._threads.shutdown()


def twice(_: int, item: int) -> int:
    return 2 * item


@pytest.mark.parametrize(("jobs", "most"), [(1, 1), (2, 2), (None, 6)])
def test_a_cluster_does_no_more_at_once_than_jobs_says(monkeypatch, jobs, most):
    engine = Threads(slots=3)
    monkeypatch.setattr(workers, "_engine_for", lambda _: engine)
    with workers.Workers(workers.Placement(jobs=jobs), nbytes=0, tasks=99) as cluster:
        assert list(cluster.in_order(twice, range(99))) == [2 * item for item in range(99)]
    assert engine.most <= most


@pytest.mark.parametrize("takes", [0, 2, 50])
def test_a_cluster_that_is_gone_fails_the_run_by_name(monkeypatch, takes):
    monkeypatch.setattr(workers, "_engine_for", lambda _: Threads(slots=2, takes=takes))
    placement = workers.Placement(jobs=2, retries=1)
    with pytest.raises(KeepsReceipts) as failed, workers.Workers(placement, nbytes=0, tasks=99) as cluster:
        list(cluster.in_order(twice, range(99), what="span"))
    assert str(failed.value) == (
        f"a worker of Threads was lost (RuntimeError: it is gone); it was at span {takes}, which 2 attempts did not "
        "finish (--retries); nothing was published, and the same command goes on from what was done"
    )


def test_a_worker_that_cannot_begin_fails_the_run_by_name(monkeypatch):
    monkeypatch.setattr(workers, "_engine_for", lambda _: Threads(slots=2))
    monkeypatch.setattr(engines, "run_pickled", unpickled)
    placement = workers.Placement(jobs=2, retries=0)
    with pytest.raises(KeepsReceipts) as failed, workers.Workers(placement, nbytes=0, tasks=99) as cluster:
        list(cluster.in_order(twice, range(1), what="span"))
    assert str(failed.value) == (
        "a worker of Threads was lost (ModuleNotFoundError: No module named 'fastsft'); it was at span 0, which 1 "
        "attempts did not finish (--retries); nothing was published, and the same command goes on from what was done"
    )


@pytest.mark.parametrize("backend", [None, "loky"])
def test_a_file_may_take_longer_than_a_span_may(backend):
    """To hash one of a terabyte takes longer than any span."""
    script = f"""
import os, signal, threading
from fastsft.execution import workers
def work(index, item):
    threading.Event().wait(1.5 if index == 3 else 0)
    return index
with workers.Workers(workers.Placement(jobs=2, backend={backend!r}, stall_seconds=1), nbytes=0, tasks=9) as two:
    print(list(two.in_order(work, range(9), nbytes=50_000_000)), two.losses)  # 10 s more
"""
    assert in_a_new_process(script) == "[0, 1, 2, 3, 4, 5, 6, 7, 8] []"


class _Silent:
    """An engine that takes tasks, and whose head answers as often as it is told."""

    name, errors = "Silent", ()

    def __init__(self, answers: list[str | None]) -> None:
        self.answers = answers
        self.attempts: list[Future[bytes]] = []

    def slots(self) -> int:
        return 1

    def submit(self, run: Callable[[bytes], bytes], data: bytes, name: str) -> Future[bytes]:
        self.attempts.append(Future())
        self.data = data
        return self.attempts[-1]

    def absent(self) -> str | None:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer == "done":
            self.attempts[0].set_result(engines.answer_to(self.data))
            return None
        return answer

    def close(self) -> None:
        pass


@pytest.mark.parametrize("answers", [["its head"], [None, "its head", None, "its head"]], ids=str)
def test_a_run_ends_where_a_cluster_is_gone(monkeypatch, answers):
    monkeypatch.setattr(engines, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(engines, "_GONE_SECONDS", 0.02)
    pool = engines.EnginePool(_Silent(answers), None, retries=2)

    with pytest.raises(KeepsReceipts, match=r"its head has not answered for 0\.02 s; nothing was published"):
        pool.wait_for(pool.submit("a task", len, "four"))


def test_a_cluster_that_answers_again_is_waited_for(monkeypatch):
    monkeypatch.setattr(engines, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(engines, "_GONE_SECONDS", 60)
    pool = engines.EnginePool(_Silent(["its head", None, "its head", "done"]), None, retries=2)
    future = pool.submit("a task", len, "four")

    pool.wait_for(future)

    assert (future.result(), pool.losses) == (4, [])
