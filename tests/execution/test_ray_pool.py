"""The Ray pool: the same answers as the local executor, whatever the workers do."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from ddpnas_ray.config import check, load
from ddpnas_ray.core.errors import DataError, ResourceError, WorkerLostError
from ddpnas_ray.core.types import EvalRequest, Plan, initial_state
from ddpnas_ray.execution.base import ExecutionConfig
from ddpnas_ray.execution.local import LocalExecutor
from ddpnas_ray.execution.trainer import Trainer
from ddpnas_ray.job import Job
from tests.conftest import TINY

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture(scope="module")
def job() -> Job:
    return Job.prepare(load(None, TINY))


@pytest.fixture(scope="module")
def trainer(job: Job) -> Trainer:
    return Trainer(spec=job.spec, data=job.data, config=job.config.training, seed=0)


@pytest.fixture
def make_pool(trainer: Trainer) -> Iterator[Callable[..., object]]:
    from ddpnas_ray.execution.ray_pool import PoolSize, RayPool

    pools = []

    def make(workers: int = 2, trainer: Trainer = trainer, **config: object) -> RayPool:
        pools.append(RayPool(trainer, ExecutionConfig(**config), PoolSize(workers)))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


@pytest.fixture(scope="module")
def two_workers(trainer: Trainer, ray_cluster: None) -> Iterator[object]:
    from ddpnas_ray.execution.ray_pool import PoolSize, RayPool

    pool = RayPool(trainer, ExecutionConfig(), PoolSize(2))
    yield pool
    pool.close()


def first_plan(job: Job) -> Plan:
    plan = job.strategy().ask(initial_state(job.spec.space, 0), job.spec.space)
    assert plan is not None
    return plan


def scores_and_weights(executor: object, plan: Plan) -> tuple[list[tuple[float, float]], bytes]:
    results = executor.evaluate(plan.requests)
    weights = executor.weights()
    return [(r.score, r.loss) for r in results], b"".join(weights[name].tobytes() for name in sorted(weights))


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_gives_the_bits_of_the_local_executor(
    job: Job, trainer: Trainer, make_pool: Callable[..., object], workers: int
) -> None:
    plan = first_plan(job)
    assert scores_and_weights(make_pool(workers), plan) == scores_and_weights(LocalExecutor(trainer), plan)


def test_every_worker_takes_part(job: Job, two_workers: object) -> None:
    results = two_workers.evaluate(first_plan(job).requests)
    assert {result.worker.split("/")[0] for result in results} == {"ddpnas-worker-0", "ddpnas-worker-1"}


def test_a_killed_worker_is_replaced_and_its_architecture_evaluated_again(
    job: Job, trainer: Trainer, make_pool: Callable[..., object]
) -> None:
    plan, pool = first_plan(job), make_pool(2)
    victim = pool.worker_pids()["ddpnas-worker-1"]
    killer = threading.Timer(0.05, os.kill, (victim, signal.SIGKILL))
    killer.start()
    killed = scores_and_weights(pool, plan)
    killer.join()
    again = pool.evaluate(plan.requests)  # a dead process may be noticed only at the next call
    assert pool.retries >= 1
    assert killed == scores_and_weights(LocalExecutor(trainer), plan)
    assert str(victim) not in {result.worker.split("/")[1] for result in again}
    deadline = time.monotonic() + 30
    while pool.worker_pids().get("ddpnas-worker-1") in (None, victim):
        assert time.monotonic() < deadline, "the worker did not come back"
        pool.evaluate(plan.requests[:2])


def test_an_architecture_that_keeps_killing_its_worker_ends_the_search_with_its_alpha(
    job: Job, trainer: Trainer, make_pool: Callable[..., object]
) -> None:
    from dataclasses import replace

    deadly = replace(trainer, spec=replace(trainer.spec, build=die))
    pool = make_pool(1, deadly, max_crashes=2)
    request = first_plan(job).requests[0]
    with pytest.raises(WorkerLostError, match=r"died 2 times on living nodes") as error:
        pool.evaluate([request])
    assert str([int(k) for k in request.alpha_E]) in str(error.value)
    assert "MiB" in str(error.value)


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_bytes_that_move_are_counted(job: Job, two_workers: object) -> None:
    pool, plan = two_workers, first_plan(job)
    moved = pool.bytes_moved
    pool.evaluate(plan.requests)
    supernet_bytes = sum(tensor.nbytes for tensor in pool.weights().values())
    assert 2 * 0.5 * supernet_bytes < pool.bytes_moved - moved < 5 * supernet_bytes


def test_objects_are_freed_after_an_epoch(job: Job, two_workers: object) -> None:
    import ray

    pool, plan = two_workers, first_plan(job)
    store = "object_store_memory"

    def used() -> float:
        time.sleep(1.5)  # available_resources follows with a delay
        return ray.cluster_resources()[store] - ray.available_resources()[store]

    pool.evaluate(plan.requests)
    before = used()
    for _ in range(5):
        pool.evaluate(plan.requests)
    assert used() <= before + 2**20


def test_scoring_alone_leaves_the_weights(job: Job, two_workers: object) -> None:
    pool = two_workers
    before = {name: tensor.copy() for name, tensor in pool.weights().items()}
    request = first_plan(job).requests[0]
    (result,) = pool.evaluate([EvalRequest(0, 0, 0, request.alpha_E, 0.025, train=False)])
    assert result.ok and 0.0 <= result.score <= 1.0
    assert all(np.array_equal(before[name], tensor) for name, tensor in pool.weights().items())


def test_gpus_that_are_not_there_are_refused() -> None:
    from ddpnas_ray.execution.ray_pool import fitting_workers

    with pytest.raises(ResourceError, match=r"1 GPU; the cluster has 4 CPU, 0 GPU"):
        fitting_workers(ExecutionConfig(gpus_per_worker=1.0), threads=1)


def test_as_many_workers_as_fit_are_started() -> None:
    from ddpnas_ray.execution.ray_pool import PoolSize, fitting_workers

    assert fitting_workers(ExecutionConfig(), threads=1) == PoolSize(4, 1.0, 0.0)
    assert fitting_workers(ExecutionConfig(), threads=2) == PoolSize(2, 2.0, 0.0)
    assert fitting_workers(ExecutionConfig(cpus_per_worker=0.5), threads=1) == PoolSize(8, 0.5, 0.0)
    assert fitting_workers(ExecutionConfig(workers=3), threads=1) == PoolSize(3, 1.0, 0.0)


def test_an_error_of_ours_leaves_the_worker_as_itself(
    job: Job, trainer: Trainer, make_pool: Callable[..., object]
) -> None:
    from dataclasses import replace

    pool = make_pool(1, replace(trainer, spec=replace(trainer.spec, build=refuse)))
    with pytest.raises(DataError, match=r"^photo\.jpg is damaged$"):
        pool.evaluate(first_plan(job).requests[:1])


def refuse(*_: object) -> None:
    raise DataError("photo.jpg is damaged")


def test_sequential_merging_is_refused_on_ray() -> None:
    from ddpnas_ray.core.errors import ConfigError

    with pytest.raises(ConfigError, match="backend=local"):
        check({"training": {"merge": "sequential"}}, "test")
