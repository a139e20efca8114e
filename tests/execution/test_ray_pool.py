"""The Ray pool: the same results as the local executor, whatever happens to workers."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ddpnas_ray.core.errors import ConfigError, DataError, ResourceError, WorkerLostError
from ddpnas_ray.core.requests import EvalResult, Plan
from ddpnas_ray.core.state import initial_state
from ddpnas_ray.execution.base import ExecutionConfig, Executor
from ddpnas_ray.execution.local import LocalExecutor
from ddpnas_ray.experiment.config import check
from ddpnas_ray.strategies.pruning import Pruning
from ddpnas_ray.testing import ExecutorContract, contract_trainer
from ddpnas_ray.training.trainer import Trainer

if TYPE_CHECKING:
    from ddpnas_ray.execution.ray_pool import RayPool

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    return contract_trainer()


@pytest.fixture(scope="module")
def executor(trainer: Trainer, ray_cluster: None) -> Iterator[RayPool]:
    """Two workers for all tests that do not kill them."""
    from ddpnas_ray.execution.ray_members import PoolSize
    from ddpnas_ray.execution.ray_pool import RayPool

    pool = RayPool(trainer, ExecutionConfig(), PoolSize(2))
    yield pool
    pool.close()


@pytest.fixture
def make_pool(trainer: Trainer) -> Iterator[Callable[..., RayPool]]:
    from ddpnas_ray.execution.ray_members import PoolSize
    from ddpnas_ray.execution.ray_pool import RayPool

    pools = []

    def make(workers: int, trainer: Trainer = trainer, elastic: bool = False, **config: Any) -> RayPool:
        pools.append(RayPool(trainer, ExecutionConfig(**config), PoolSize(workers, elastic=elastic)))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


@pytest.fixture
def taken_cpus(ray_cluster: None) -> Iterator[Callable[[int], None]]:
    """Reserve this many of the four CPUs for other work, from now on."""
    import ray

    holders: list[Any] = []

    def take(cpus: int) -> None:
        while len(holders) > cpus:
            ray.kill(holders.pop())
        while len(holders) < cpus:
            holders.append(ray.remote(Holder).options(num_cpus=1).remote())
        ray.get([holder.ready.remote() for holder in holders], timeout=60)

    yield take
    take(0)


class Holder:
    def ready(self) -> None:
        pass


def free_cpus() -> float:
    import ray

    return float(ray.available_resources().get("CPU", 0.0))


def wait_until(condition: Callable[[], bool], timeout_s: float = 30.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not (true := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return true


def first_plan(trainer: Trainer) -> Plan:
    space = trainer.spec.space
    plan = Pruning().ask(initial_state(space, 0), space)
    assert plan is not None
    return plan


def scores_and_weights(executor: Executor, plan: Plan) -> tuple[list[tuple[float, float]], bytes]:
    results = executor.evaluate(plan.requests)
    return [(r.score, r.loss) for r in results], weights_of(executor)


def weights_of(executor: Executor) -> bytes:
    weights = executor.weights()
    return b"".join(weights[name].tobytes() for name in sorted(weights))


class TestRayPool(ExecutorContract):
    pass


def test_any_number_of_workers_gives_the_bits_of_the_local_executor(
    trainer: Trainer, executor: RayPool, make_pool: Callable[..., RayPool]
) -> None:
    plan = first_plan(trainer)
    local = scores_and_weights(LocalExecutor(trainer), plan)
    executor.load_weights(trainer.supernet()[0])
    assert scores_and_weights(executor, plan) == local
    assert scores_and_weights(make_pool(1), plan) == local


def test_without_sharing_the_weights_stay_as_on_the_local_executor(
    trainer: Trainer, make_pool: Callable[..., RayPool]
) -> None:
    alone, plan = replace(trainer, config=replace(trainer.config, merge="none")), first_plan(trainer)
    pool = make_pool(2, alone)
    before = weights_of(pool)
    found = scores_and_weights(pool, plan)
    assert found == scores_and_weights(LocalExecutor(alone), plan)
    assert found[1] == before


def test_every_worker_takes_part(trainer: Trainer, executor: RayPool) -> None:
    results = executor.evaluate(first_plan(trainer).requests)
    assert {result.worker.split("/")[0] for result in results} == {"ddpnas-worker-0", "ddpnas-worker-1"}


def test_a_killed_worker_is_replaced_and_its_architecture_evaluated_again(
    trainer: Trainer, make_pool: Callable[..., RayPool]
) -> None:
    plan, pool = first_plan(trainer), make_pool(2)
    victim = pool.worker_pids()["ddpnas-worker-1"]
    killer = threading.Timer(0.05, os.kill, (victim, signal.SIGKILL))
    killer.start()
    killed = scores_and_weights(pool, plan)
    killer.join()
    again = pool.evaluate(plan.requests)  # a dead process may go unnoticed until the next call
    assert pool.work.retries >= 1
    assert killed == scores_and_weights(LocalExecutor(trainer), plan)
    assert str(victim) not in {result.worker.split("/")[1] for result in again}
    deadline = time.monotonic() + 30
    while pool.worker_pids().get("ddpnas-worker-1") in (None, victim):
        assert time.monotonic() < deadline, "the worker did not come back"
        pool.evaluate(plan.requests[:2])


@pytest.mark.slow
def test_an_architecture_that_keeps_killing_its_worker_ends_the_search_with_its_alpha(
    trainer: Trainer, make_pool: Callable[..., RayPool]
) -> None:
    deadly = replace(trainer, spec=replace(trainer.spec, build=die))
    pool = make_pool(1, deadly, max_crashes=2)
    request = first_plan(trainer).requests[0]
    with pytest.raises(WorkerLostError, match=r"died 2 times on living nodes") as error:
        pool.evaluate([request])
    assert str([int(k) for k in request.alpha_E]) in str(error.value)
    assert "MiB" in str(error.value)


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_workers_that_do_not_fit_do_not_hold_up_the_others(
    trainer: Trainer, executor: RayPool, make_pool: Callable[..., RayPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddpnas_ray.execution.ray_members.LATE_S", 0.5)
    pool = make_pool(3)  # the shared pool has two of the four CPUs
    assert 1 <= len(pool.worker_names) <= 2
    assert all(result.ok for result in pool.evaluate(first_plan(trainer).requests))


@pytest.mark.slow
def test_an_elastic_pool_grows_in_the_middle_of_an_epoch(
    trainer: Trainer, executor: RayPool, make_pool: Callable[..., RayPool], taken_cpus: Callable[[int], None]
) -> None:
    import ray

    taken_cpus(1)  # the shared pool has two of the four CPUs
    pool = make_pool(2, elastic=True)
    assert len(pool.worker_names) == 1, "it waits for the first worker alone"
    names: set[str] = set()

    def make_room(request: object, result: EvalResult) -> None:
        if not names:
            taken_cpus(0)
            ray.wait([member.probe for member in pool._members if member.probe is not None], timeout=60)
        names.add(result.worker.split("/")[0])

    requests = [*first_plan(trainer).requests] * 2
    results = pool.evaluate(requests, on_result=make_room)
    assert len(names) == 2
    expected = LocalExecutor(trainer)
    assert [(r.score, r.loss) for r in results] == [(r.score, r.loss) for r in expected.evaluate(requests)]
    assert weights_of(pool) == weights_of(expected)


@pytest.mark.slow
def test_an_elastic_pool_lets_workers_go_that_have_no_work_and_asks_for_them_again(
    trainer: Trainer, make_pool: Callable[..., RayPool]
) -> None:
    plan, pool = first_plan(trainer), make_pool(2, elastic=True)
    pool.evaluate(plan.requests)
    before = free_cpus()
    pool.evaluate(plan.requests[:1])
    assert len(pool.worker_names) == 1
    assert wait_until(lambda: free_cpus() == before + 1), "a node without a worker is idle, and ends"
    pool.load_weights(trainer.supernet()[0])
    assert scores_and_weights(pool, plan) == scores_and_weights(LocalExecutor(trainer), plan)
    assert wait_until(lambda: free_cpus() == before)


@pytest.mark.slow
def test_a_worker_leaves_a_node_that_is_being_drained(
    trainer: Trainer, make_pool: Callable[..., RayPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ddpnas_ray.execution import ray_internals

    plan, pool = first_plan(trainer), make_pool(1)
    pid, node = pool.worker_pids()["ddpnas-worker-0"], pool.evaluate(plan.requests[:1])[0].node
    pool.load_weights(trainer.supernet()[0])
    answers = iter([{node: 0}])  # gone at the second call
    monkeypatch.setattr(ray_internals, "draining_nodes", lambda: next(answers, {}))
    room = {"another": {"CPU": 1.0}}
    monkeypatch.setattr(ray_internals, "free_by_node", lambda: room)
    assert scores_and_weights(pool, plan) == scores_and_weights(LocalExecutor(trainer), plan)
    assert pool.worker_pids()["ddpnas-worker-0"] != pid
    assert pool.work.retries == 0, "nothing was lost"


@pytest.mark.slow
def test_the_last_worker_of_a_fixed_cluster_stays_on_a_node_that_is_being_drained(
    trainer: Trainer, make_pool: Callable[..., RayPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ddpnas_ray.execution import ray_internals

    plan, pool = first_plan(trainer), make_pool(1)
    pid, node = pool.worker_pids()["ddpnas-worker-0"], pool.evaluate(plan.requests[:1])[0].node
    monkeypatch.setattr(ray_internals, "draining_nodes", lambda: {node: 0})
    room = {node: {"CPU": 4.0}, "too small": {"CPU": 0.5}}
    monkeypatch.setattr(ray_internals, "free_by_node", lambda: room)
    assert all(result.ok for result in pool.evaluate(plan.requests))
    assert pool.worker_pids()["ddpnas-worker-0"] == pid


def test_an_elastic_pool_waits_for_a_node_as_long_as_one_takes(
    trainer: Trainer, executor: RayPool, make_pool: Callable[..., RayPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddpnas_ray.execution.ray_members.READY_DEADLINE_S", 0.0)
    assert make_pool(1, elastic=True).worker_names
    monkeypatch.setattr("ddpnas_ray.execution.ray_members.NODE_DEADLINE_S", 0.0)
    with pytest.raises(ResourceError, match=r"none of up to 1 worker\(s\) of 1 CPU and 0 GPU started within 0 s"):
        make_pool(1, elastic=True)


def test_the_bytes_that_move_are_counted(trainer: Trainer, executor: RayPool) -> None:
    pool, plan = executor, first_plan(trainer)
    moved = pool.work.bytes_moved
    pool.evaluate(plan.requests)
    supernet_bytes = sum(tensor.nbytes for tensor in pool.weights().values())
    assert 2 * 0.5 * supernet_bytes < pool.work.bytes_moved - moved < 5 * supernet_bytes


def test_objects_are_freed_after_an_epoch(trainer: Trainer, executor: RayPool) -> None:
    import ray

    pool, plan = executor, first_plan(trainer)
    store = "object_store_memory"

    def used() -> float:
        time.sleep(1.5)  # available_resources lags behind
        return ray.cluster_resources()[store] - ray.available_resources()[store]

    pool.evaluate(plan.requests)
    before = used()
    for _ in range(5):
        pool.evaluate(plan.requests)
    assert used() <= before + 2**20


def test_an_error_of_ours_leaves_the_worker_as_itself(trainer: Trainer, make_pool: Callable[..., RayPool]) -> None:
    pool = make_pool(1, replace(trainer, spec=replace(trainer.spec, build=refuse)))
    with pytest.raises(DataError, match=r"^photo\.jpg is damaged$"):
        pool.evaluate(first_plan(trainer).requests[:1])


def refuse(*_: object) -> None:
    raise DataError("photo.jpg is damaged")


POISONED = False


def poison(marker: Path, build: Callable[..., Any], *args: Any) -> Any:
    """A GPU fails once under an architecture; then nothing works in that process."""
    global POISONED
    if not marker.exists():
        marker.touch()
        POISONED = True
    if POISONED:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with ...")
    return build(*args)


@pytest.mark.slow
def test_a_process_whose_gpu_failed_ends_and_its_architecture_is_evaluated_elsewhere(
    trainer: Trainer, make_pool: Callable[..., RayPool], tmp_path: Path
) -> None:
    build = partial(poison, tmp_path / "failed", trainer.spec.build)
    plan, pool = first_plan(trainer), make_pool(1, replace(trainer, spec=replace(trainer.spec, build=build)))
    pids = pool.worker_pids()
    assert scores_and_weights(pool, plan) == scores_and_weights(LocalExecutor(trainer), plan)
    assert pool.work.retries == 1
    assert pool.worker_pids() != pids


def broken(*_: object) -> None:
    raise RuntimeError("CUDA error: uncorrectable ECC error encountered")


@pytest.mark.slow
def test_an_architecture_under_which_gpus_keep_failing_ends_the_search_with_the_reason(
    trainer: Trainer, make_pool: Callable[..., RayPool]
) -> None:
    pool = make_pool(1, replace(trainer, spec=replace(trainer.spec, build=broken)), max_crashes=2)
    with pytest.raises(WorkerLostError, match=r"died 2 times on living nodes.*uncorrectable ECC error") as error:
        pool.evaluate(first_plan(trainer).requests[:1])
    assert "\n" not in str(error.value)


def test_sequential_merging_is_refused_on_ray() -> None:
    with pytest.raises(ConfigError, match="backend=local"):
        check({"training": {"merge": "sequential"}}, "test")
