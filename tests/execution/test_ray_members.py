"""How many workers fit, and workers with an unusable GPU."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import pytest
import torch

from ddpnas_ray.core.errors import ConfigError, DeviceError, ResourceError
from ddpnas_ray.execution.base import ExecutionConfig
from ddpnas_ray.execution.ray_members import PoolSize, fitting_workers
from ddpnas_ray.experiment.config import check
from ddpnas_ray.testing import contract_trainer
from tests.commands import ENVIRONMENT

pytestmark = pytest.mark.ray

ONE_GPU, TWO_GPUS, NO_GPU = {"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0}


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Fake the node resources of a cluster."""
    resources: list[dict[str, Any]] = []
    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": node} for node in resources])
    return resources


@pytest.mark.parametrize(
    ("size", "free", "workers"),
    [
        (PoolSize(1, gpus_per_worker=0.6), [ONE_GPU, ONE_GPU], 2),
        (PoolSize(1, gpus_per_worker=0.6), [TWO_GPUS], 2),
        (PoolSize(1, gpus_per_worker=0.5), [TWO_GPUS, ONE_GPU], 6),
        (PoolSize(1, gpus_per_worker=0.1), [{"CPU": 99.0, "GPU": 1.0}], 10),
        (PoolSize(1, gpus_per_worker=2), [ONE_GPU, ONE_GPU], 0),
        (PoolSize(1, gpus_per_worker=2), [TWO_GPUS, {"CPU": 8.0, "GPU": 3.0}], 2),
        (PoolSize(1, gpus_per_worker=0.4), [{"CPU": 1.0, "GPU": 0.4}], 1),  # the rest of a GPU
        (PoolSize(1, cpus_per_worker=3, gpus_per_worker=0.25), [ONE_GPU], 2),
        (PoolSize(1, cpus_per_worker=3), [{"CPU": 4.0}, {"CPU": 5.0}], 2),
        (PoolSize(1, cpus_per_worker=0.1), [{"CPU": 0.3}], 3),
        (PoolSize(1, gpus_per_worker=1), [NO_GPU, ONE_GPU, {"memory": 1.0}], 1),
        (PoolSize(1), [], 0),
    ],
)
def test_workers_are_counted_by_node_and_gpu(size: PoolSize, free: list[dict[str, float]], workers: int) -> None:
    assert size.fitting(free) == workers


def test_no_more_workers_are_started_than_fit_on_their_nodes(nodes: list[dict[str, Any]]) -> None:
    nodes += [ONE_GPU, ONE_GPU]
    assert fitting_workers(ExecutionConfig(gpus_per_worker=0.6), threads=1) == PoolSize(2, 1.0, 0.6)
    assert fitting_workers(ExecutionConfig(gpus_per_worker=0.6, workers=3), threads=1).workers == 2


@pytest.mark.parametrize("asked", [{"gpus_per_worker": 2.0}, {"cpus_per_worker": 9.0}])
def test_a_worker_that_fits_on_no_node_is_refused(asked: dict[str, float], nodes: list[dict[str, Any]]) -> None:
    nodes += [ONE_GPU, ONE_GPU]
    with pytest.raises(ResourceError, match=r"of one node; the cluster has 16 CPU, 2 GPU on 2 node\(s\)"):
        fitting_workers(ExecutionConfig(**asked), threads=1)


@pytest.mark.parametrize(
    ("asked", "workers", "gpus"),
    [({}, 2, 1.0), ({"gpus_per_worker": 0.5}, 4, 0.5), ({"gpus_per_worker": 0.0}, 8, 0.0), ({"workers": 1}, 1, 1.0)],
)
def test_gpus_bound_the_pool_and_may_be_shared(
    asked: dict[str, Any], workers: int, gpus: float, nodes: list[dict[str, Any]]
) -> None:
    nodes.append(TWO_GPUS)
    assert fitting_workers(ExecutionConfig(**asked), threads=1) == PoolSize(workers, 1.0, gpus)


@pytest.mark.usefixtures("ray_cluster")
def test_as_many_workers_as_fit_are_started() -> None:
    assert fitting_workers(ExecutionConfig(), threads=1) == PoolSize(4, 1.0, 0.0)
    assert fitting_workers(ExecutionConfig(), threads=2) == PoolSize(2, 2.0, 0.0)
    assert fitting_workers(ExecutionConfig(cpus_per_worker=0.5), threads=1) == PoolSize(8, 0.5, 0.0)
    assert fitting_workers(ExecutionConfig(workers=3), threads=1) == PoolSize(3, 1.0, 0.0)


@pytest.mark.usefixtures("ray_cluster")
def test_gpus_that_are_not_there_are_refused() -> None:
    with pytest.raises(ResourceError, match=r"1 GPU of one node; the cluster has 4 CPU, 0 GPU on 1 node"):
        fitting_workers(ExecutionConfig(gpus_per_worker=1.0), threads=1)


def test_an_elastic_cluster_is_asked_for_what_it_has_not_got_yet(nodes: list[dict[str, Any]]) -> None:
    config = ExecutionConfig(elastic=True, gpus_per_worker=1.0)
    assert fitting_workers(config, threads=1, architectures=8) == PoolSize(8, 1.0, 1.0, elastic=True)
    assert fitting_workers(replace(config, workers=3), threads=1, architectures=8).workers == 3
    with pytest.raises(ConfigError, match=r"execution\.elastic=true needs execution\.gpus_per_worker"):
        check({"execution": {"elastic": True}}, "test")


FAKE_GPUS = """
import json, ray
from ray.cluster_utils import Cluster
from ddpnas_ray.execution.base import ExecutionConfig
from ddpnas_ray.execution.ray_members import fitting_workers

class Holder:
    def ready(self):
        return ray.get_runtime_context().get_node_id()

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "num_gpus": 2, "include_dashboard": False})
cluster.add_node(num_cpus=4, num_gpus=1)
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
size = fitting_workers(ExecutionConfig(gpus_per_worker=0.6), threads=1)
holder = ray.remote(Holder).options(num_cpus=1, num_gpus=0.6, scheduling_strategy="SPREAD")
holders = [holder.remote() for _ in range(size.workers + 1)]
answers = [one.ready.remote() for one in holders]
started, _ = ray.wait(answers, num_returns=size.workers, timeout=60)
_, pending = ray.wait(answers, num_returns=size.workers + 1, timeout=5)
print(json.dumps([size.workers, len(started), len(pending)]))
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
def test_ray_starts_as_many_workers_on_shared_gpus_as_were_counted() -> None:
    words = [sys.executable, "-c", FAKE_GPUS]
    done = subprocess.run(words, env=ENVIRONMENT, check=True, capture_output=True, text=True, timeout=200)
    assert json.loads(done.stdout.splitlines()[-1]) == [3, 3, 1]


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU; CUDA_VISIBLE_DEVICES= hides it")
@pytest.mark.usefixtures("ray_cluster")
def test_a_worker_that_cannot_use_its_gpu_ends_the_start_with_one_line() -> None:
    from ddpnas_ray.execution.ray_pool import RayPool

    with pytest.raises(DeviceError, match=r"^the GPU cannot be used by PyTorch .*gpus_per_worker=0$") as error:
        RayPool(replace(contract_trainer(), device="cuda"), ExecutionConfig(), PoolSize(1))
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_gpu_that_is_lost_later_leaves_the_search_to_the_other_workers() -> None:
    import ray

    from ddpnas_ray.execution.ray_pool import RayPool

    pool = RayPool(contract_trainer(), ExecutionConfig(), PoolSize(2))
    try:
        first, _ = pool._members
        first.ready, first.probe = False, ray.remote(lost_gpu).remote()
        pool._members.probed(first)
        assert pool.worker_names == ("ddpnas-worker-1",)
        assert not first.ready and first.left == (first.node, first.pid), "its process ends"
    finally:
        pool.close()


def lost_gpu() -> None:
    raise DeviceError("the GPU has fallen off the bus")


def test_all_results_that_are_there_are_taken_at_once_and_an_empty_wait_is_no_spin(ray_cluster: None) -> None:
    import ray

    from ddpnas_ray.execution.ray_members import finished

    @ray.remote(num_cpus=0)
    def sleep(seconds: float) -> None:
        time.sleep(seconds)

    there, late = [ray.put(i) for i in range(5)], sleep.remote(30)
    assert set(finished([late, *there], timeout_s=60)) == set(there)
    assert finished([late], timeout_s=0.01) == []
    assert finished([sleep.remote(0.1), late], timeout_s=60) != []
    start_s = time.monotonic()
    assert finished([], timeout_s=60) == []
    assert 0.04 < time.monotonic() - start_s < 30
    ray.cancel(late, force=True)
