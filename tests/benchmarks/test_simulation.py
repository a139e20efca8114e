"""The simulated pool, by the laws of list scheduling and of Algorithm 1."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.simulation import Cluster, SimulatedPool
from ddpnas_ray.core.errors import WorkerLostError
from ddpnas_ray.core.requests import EvalRequest, EvalResult
from ddpnas_ray.core.scaling import Constants, Workload, architecture_seconds, between_seconds, predict
from ddpnas_ray.core.state import SearchState, initial_state
from ddpnas_ray.execution.base import ExecutionConfig
from ddpnas_ray.experiment.loop import run_search
from ddpnas_ray.spaces.cell import space as cell
from ddpnas_ray.strategies.pruning import Pruning
from ddpnas_ray.testing import assert_same_state

SPACE = cell.make(nodes=2).space
PATIENT = ExecutionConfig(retry_deadline_s=1e9, max_crashes=10**6)
TROUBLE = Cluster(
    workers=3,
    crashes_per_hour=20.0,
    restart_s=30.0,
    slow_share=0.5,
    slow_factor=2.0,
    preemptions_per_hour=10.0,
    replace_s=300.0,
)
seconds_lists = st.lists(st.floats(0.0, 100.0), min_size=1, max_size=12)
requests_of = [EvalRequest(0, 0, i, np.array([i]), 0.1) for i in range(12)]


def keyed(request: EvalRequest) -> EvalResult:
    """Score and seconds that depend on nothing but the request."""
    draw = np.random.default_rng([request.epoch, request.architecture])
    return EvalResult(score=float(draw.random()), loss=1.0, seconds=float(draw.uniform(50, 150)))


def pool_of(seconds: list[float], cluster: Cluster, *, between_s: float = 0.0) -> SimulatedPool:
    """A pool for one epoch, in which effort tells the order of the durations."""
    return SimulatedPool(
        cluster,
        lambda request: EvalResult(0.5, 1.0, seconds=seconds[request.architecture]),
        lambda alpha_E: seconds[int(alpha_E[0])],
        lambda n: between_s,
        PATIENT,
    )


def searched(pool: SimulatedPool) -> SearchState:
    return run_search(
        Pruning(epochs_per_round=1), pool, SPACE, initial_state(SPACE, 0), save=lambda state, tensors: None
    )


def pool_for_search(cluster: Cluster, seed: int = 0) -> SimulatedPool:
    return SimulatedPool(cluster, keyed, lambda alpha_E: 1.0, lambda n: 0.1 * n + 1, PATIENT, seed)


@given(seconds=seconds_lists)
def test_one_worker_takes_the_sum_of_all_durations(seconds: list[float]) -> None:
    pool = pool_of(seconds, Cluster(workers=1, start_s=7.0), between_s=3.0)
    pool.evaluate(requests_of[: len(seconds)])
    assert pool.now_s == pytest.approx(7 + sum(seconds) + 3)
    assert pool.busy_s == pytest.approx(sum(seconds))
    assert pool.held_s == pytest.approx(pool.now_s)


@given(seconds=seconds_lists, workers=st.integers(1, 14))
def test_more_workers_are_never_slower_and_none_is_faster_than_its_share(seconds: list[float], workers: int) -> None:
    def epoch_s(workers: int) -> float:
        pool = pool_of(seconds, Cluster(workers=workers))
        pool.evaluate(requests_of[: len(seconds)])
        return pool.now_s

    total, longest = sum(seconds), max(seconds)
    bound = max(longest, total / workers)
    assert bound - 1e-9 <= epoch_s(workers) <= total / workers + longest * (1 - 1 / workers) + 1e-9, "Graham's bound"
    assert epoch_s(workers + 1) <= epoch_s(workers) + 1e-9


@given(workers=st.integers(1, 12), each_s=st.floats(0.1, 1000))
def test_equal_architectures_take_what_the_cost_model_predicts(workers: int, each_s: float) -> None:
    names = list(Constants.__dataclass_fields__)
    constants = Constants(**dict.fromkeys(names, 1.0) | {"architecture_s": each_s, "start_s": 5.0})
    epochs = Pruning(epochs_per_round=1).epochs(SPACE)
    work = Workload(architectures=epochs, steps=2, validation_batches=3, shared_bytes=4, own_bytes=5)
    pool = SimulatedPool(
        Cluster(workers=workers, start_s=5.0),
        lambda request: replace(keyed(request), seconds=architecture_seconds(work, constants)),
        lambda alpha_E: 1.0,
        lambda n: between_seconds(work, constants, n),
    )
    searched(pool)
    assert pool.now_s == pytest.approx(predict(work, constants, workers).seconds)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_happens_to_workers_the_search_is_the_same_and_nothing_is_recorded_twice(seed: int) -> None:
    calm, rough = pool_for_search(Cluster(workers=3)), pool_for_search(TROUBLE, seed)
    expected, found = searched(calm), searched(rough)
    assert rough.work.retries > 0
    assert rough.preemptions > 0
    assert Counter((row.epoch, row.architecture) for row in found.evaluations).most_common(1)[0][1] == 1
    unplaced = [replace(row, worker="") for row in found.evaluations]
    assert unplaced == [replace(row, worker="") for row in expected.evaluations]
    assert_same_state(replace(found, evaluations=()), replace(expected, evaluations=()))


@pytest.mark.parametrize("seed", range(5))
def test_one_worker_that_fails_is_slower_by_what_is_lost_and_by_what_it_was_away(seed: int) -> None:
    calm = pool_for_search(Cluster(workers=1))
    rough = pool_for_search(replace(TROUBLE, workers=1, slow_share=0.0), seed)
    searched(calm), searched(rough)
    assert rough.now_s > calm.now_s
    assert rough.busy_s > calm.busy_s, "lost evaluations were begun"
    assert rough.held_s < rough.now_s, "nobody pays for a node that is gone"


def test_a_long_enough_notice_loses_nothing_and_a_short_one_does() -> None:
    spot = Cluster(workers=3, preemptions_per_hour=20.0, notice_s=150.0)
    noticed, unnoticed = pool_for_search(spot), pool_for_search(replace(spot, notice_s=0.0))
    searched(noticed), searched(unnoticed)
    assert noticed.preemptions > 0
    assert (noticed.work.retries, unnoticed.work.retries > 0) == (0, True)


def test_stragglers_take_longer_and_hold_up_their_epoch() -> None:
    pool = pool_for_search(Cluster(workers=8, slow_share=1.0, slow_factor=3.0))
    calm = pool_for_search(Cluster(workers=8))
    searched(pool), searched(calm)
    assert pool.busy_s == pytest.approx(3 * calm.busy_s)
    assert pool.now_s > 2 * calm.now_s


def test_the_retry_policy_is_that_of_the_pool() -> None:
    deadly = Cluster(workers=1, crashes_per_hour=3600.0, restart_s=1.0)
    pool = SimulatedPool(deadly, keyed, lambda alpha_E: 1.0, lambda n: 0.0, ExecutionConfig(max_crashes=3))
    with pytest.raises(WorkerLostError, match="lost 3 times"):
        searched(pool)
    assert pool.work.retries == 3
