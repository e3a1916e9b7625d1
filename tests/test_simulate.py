"""The simulated schedule of `benchmarks/simulate.py` keeps what a real one does."""

from __future__ import annotations

import msgspec
import pytest
from simulate import MEASURED, WORKS, Plan, simulate, sizes_of

MIB = 1024**2


def plan(**fields):
    return Plan(**{"workers": 10, "spans": [100 * MIB] * 95 + [7 * MIB], **fields})


@pytest.mark.parametrize("backend", MEASURED.dispatch)
@pytest.mark.parametrize("work", WORKS)
def test_each_span_is_taken_once_in_every_pass(backend, work):
    rough = {"slow_share": 0.2, "spread": 0.3, "failures_per_hour": 0.0 if backend == "forked" else 60.0}
    outcome = simulate(plan(backend=backend, work=work, retries=9, **rough))

    assert outcome.problem == ""
    assert outcome.spans_done == 96 * len(WORKS[work])


def test_lost_spans_are_done_again_and_what_was_done_in_vain_is_counted():
    calm, rough = simulate(plan()), simulate(plan(failures_per_hour=600, retries=9, restart_seconds=1))

    assert (calm.redone, calm.wasted_seconds) == (0, 0.0)
    assert rough.redone > 0
    assert rough.worker_seconds - rough.wasted_seconds == pytest.approx(calm.worker_seconds)
    assert rough.seconds > calm.seconds


@pytest.mark.parametrize("backend", ["ray", "forked"])
def test_a_seed_tells_all(backend):
    rough = plan(backend=backend, spread=0.3, slow_share=0.2, failures_per_hour=20, retries=9, seed=7)

    assert simulate(rough) == simulate(rough)
    assert simulate(rough) != simulate(msgspec.structs.replace(rough, seed=8))


@pytest.mark.parametrize("backend", ["ray", "forked"])
@pytest.mark.parametrize("output", ["shards", "file"])
def test_more_workers_of_one_pace_are_never_slower(backend, output):
    seconds = [simulate(plan(workers=workers, backend=backend, output=output)).seconds for workers in (1, 2, 5, 10, 60)]

    assert seconds == sorted(seconds, reverse=True)


def test_a_run_takes_no_less_than_its_workers_and_its_driver_need():
    outcome = simulate(plan(spread=0.2))

    assert outcome.seconds > outcome.worker_seconds / 10
    assert outcome.seconds > outcome.driver_seconds
    assert sum(outcome.phases.values()) == pytest.approx(outcome.seconds)


def test_a_span_that_fails_too_often_ends_the_run():
    assert "were lost" in simulate(plan(failures_per_hour=1e6)).problem
    assert simulate(plan(backend="forked", failures_per_hour=1e6, retries=99)).problem == "no worker is left"


def test_a_span_that_takes_longer_than_the_limit_is_done_again_and_then_ends_the_run():
    huge = [100 * MIB] * 50 + [10_000 * MIB]

    assert "were lost" in simulate(plan(backend="forked", spans=huge, stall_seconds=5)).problem
    assert "were lost" in simulate(plan(workers=1, spans=[100 * MIB], stall_seconds=0.01)).problem


def test_one_slow_worker_of_forked_ones_is_waited_for_but_keeps_nobody_else():
    even, uneven = (simulate(plan(backend="forked", slow_share=share, slow_factor=20, seed=3)) for share in (0.0, 0.1))

    assert even.seconds < uneven.seconds < 20 * even.seconds


def test_choosing_and_the_store_limit_what_workers_cannot():
    two = simulate(plan(workers=1000, work="best-of", line_nbytes=1000))
    store = simulate(plan(workers=90, bandwidth=1e9))

    assert two.full == "choosing"
    assert two.choosing_nbytes == pytest.approx(sum(plan().spans) / 1000 * MEASURED.choosing_nbytes)
    assert simulate(plan(work="best-of", line_nbytes=100)).choosing_nbytes == 2e6 * MEASURED.choosing_nbytes
    assert store.full == "store"
    assert store.seconds > sum(plan().spans) / 1e9


def test_spans_are_those_that_a_run_would_have():
    assert sizes_of(10**9, None) == [16 * MIB] * 59 + [10**9 - 59 * 16 * MIB]
    assert len(sizes_of(10**13, None)) == 10_000
    assert sizes_of(4 * MIB, 3 * MIB, files=2) == [2 * MIB, 2 * MIB]
