"""A worker and its peers: the weights of one process, whoever dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.core.requests import Plan
from ddpnas_ray.core.state import initial_state
from ddpnas_ray.execution.base import ExecutionConfig, Executor
from ddpnas_ray.execution.local import LocalExecutor
from ddpnas_ray.strategies.pruning import Pruning
from ddpnas_ray.testing import contract_trainer
from ddpnas_ray.training.trainer import Trainer

if TYPE_CHECKING:
    from ddpnas_ray.execution.ray_pool import RayPool

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    """Four shards of eight images."""
    return replace(contract_trainer(), config=replace(contract_trainer().config, shards=4))


@pytest.fixture
def make_pool(trainer: Trainer) -> Iterator[Callable[..., RayPool]]:
    from ddpnas_ray.execution.ray_members import PoolSize
    from ddpnas_ray.execution.ray_pool import RayPool

    pools = []

    def make(workers: int, group: int, trainer: Trainer = trainer) -> RayPool:
        pools.append(RayPool(trainer, ExecutionConfig(), PoolSize(workers, cpus_per_worker=group, group=group)))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def plan_of(trainer: Trainer) -> Plan:
    space = trainer.spec.space
    plan = Pruning().ask(initial_state(space, 0), space)
    assert plan is not None
    return plan


def found(executor: Executor, plan: Plan) -> tuple[list[tuple[float, float]], bytes]:
    results = executor.evaluate(plan.requests)
    weights = b"".join(tensor.tobytes() for tensor in executor.weights().values())
    return [(result.score, result.loss) for result in results], weights


def peer_pids(pool: RayPool) -> list[int]:
    import ray

    return [pid for member in pool._members.ready for pid in ray.get(member.actor.peer_pids.remote())]


@pytest.mark.parametrize(("workers", "group"), [(2, 1), (1, 2), (2, 2), (1, 4)])
def test_the_result_does_not_depend_on_workers_and_group(
    trainer: Trainer, make_pool: Callable[..., RayPool], workers: int, group: int
) -> None:
    plan, pool = plan_of(trainer), make_pool(workers, group)
    assert found(pool, plan) == found(LocalExecutor(trainer), plan)
    assert len(peer_pids(pool)) == workers * (group - 1)


@pytest.mark.parametrize("who", ["peer", "worker"])
def test_a_group_with_a_killed_member_repeats_the_architecture(
    trainer: Trainer, make_pool: Callable[..., RayPool], who: str
) -> None:
    plan, pool = plan_of(trainer), make_pool(1, 2)
    (peer,) = peer_pids(pool)
    (worker,) = pool.worker_pids().values()
    victim = peer if who == "peer" else worker
    killed: list[int] = []

    def kill(request: object, result: object) -> None:
        if not killed:  # the next architecture trains now, or will in a moment
            killed.append(victim)
            threading.Timer(0.05, os.kill, (victim, signal.SIGKILL)).start()

    results = pool.evaluate(plan.requests, kill)
    scores = [(result.score, result.loss) for result in results]
    weights = b"".join(tensor.tobytes() for tensor in pool.weights().values())
    assert (scores, weights) == found(LocalExecutor(trainer), plan)
    assert pool.work.retries >= 1
    assert peer not in peer_pids(pool), "nobody stays in a group that broke"
    assert gone(peer)


def test_peers_end_with_the_pool(make_pool: Callable[..., RayPool]) -> None:
    pool = make_pool(1, 2)
    (peer,) = peer_pids(pool)
    assert not gone(peer, timeout_s=0.0)
    pool.close()
    assert gone(peer)


def test_what_a_peer_cannot_read_ends_the_search_with_its_error(
    trainer: Trainer, make_pool: Callable[..., RayPool]
) -> None:
    class Damaged(type(trainer.task)):  # type: ignore[misc]
        def training_batches(self, epoch: int, seed: int, batch_size: int, rank: int = 0, world: int = 1) -> Any:
            if rank == 3:
                raise DataError("photo.jpg: cannot be read")
            return super().training_batches(epoch, seed, batch_size, rank, world)

    task = Damaged(trainer.task.data, trainer.task.metric)  # type: ignore[attr-defined]
    pool = make_pool(1, 2, replace(trainer, task=task))
    with pytest.raises(DataError, match=r"photo\.jpg: cannot be read"):
        pool.evaluate(plan_of(trainer).requests[:1])


def gone(pid: int, timeout_s: float = 30.0) -> bool:
    """Return whether a process ends; one that nobody has waited for is gone too."""
    deadline = time.monotonic() + timeout_s
    while True:
        status = Path(f"/proc/{pid}/status")
        try:
            if "State:\tZ" in status.read_text():
                return True
        except OSError:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.1)
