"""Trials on Ray Tune: reservations, reports, early stopping, and no hangs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from ddpnas_ray.core.errors import ResourceError
from ddpnas_ray.distributed import ray_tune
from ddpnas_ray.distributed.ray_tune import Placed, TuneTrial, _forget_lock, curve, fits, pool_size, request
from ddpnas_ray.execution.ray_members import PoolSize
from ddpnas_ray.experiment.config import SearchConfig, dump, load
from ddpnas_ray.experiment.experiment import Experiment
from ddpnas_ray.experiment.run import run_experiment
from ddpnas_ray.runs import checkpoint
from ddpnas_ray.runs.directory import create_run, read_result
from ddpnas_ray.storage.folder import Folder
from tests.conftest import TINY

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def trials_of(config: SearchConfig, seeds: int) -> list[TuneTrial]:
    return [TuneTrial(f"seed={seed}", {"seed": seed}, replace(config, seed=seed)) for seed in range(seeds)]


def run(trials: list[TuneTrial], out: Path, *, stop: str = "none", on_stopped: Callable[[str], None] = print) -> int:
    """Run them all; returns the number of reported evaluations."""
    evaluations: list[int] = []
    failed = ray_tune.run(
        Placed.of(trials, Folder.open(str(out))),
        Folder.open(str(out)),
        stop=stop,
        log=(),
        concurrent=None,
        on_evaluations=evaluations.append,
        on_stopped=on_stopped,
    )
    assert failed == {}
    return sum(evaluations)


def result(out: Path, trial: TuneTrial) -> dict[str, object]:
    return read_result(Folder.open(str(out / "trials" / trial.name)))


# --- what is reserved ---


def test_one_worker_is_the_trial_and_several_are_beside_it() -> None:
    pin = {"node:here": 0.001}
    assert request(PoolSize(1, 2.0, 0.5), pin).bundles == [{"CPU": 2.0, "GPU": 0.5, **pin}]
    assert request(PoolSize(3), pin).bundles == [pin, *[{"CPU": 1.0}] * 3]
    assert request(PoolSize(3), {}).bundles == [{"CPU": 1.0}] * 3


def test_a_trial_is_as_large_as_its_pool() -> None:
    config = load(None, TINY)
    assert pool_size(config) == PoolSize(1, 1.0, 0.0)
    assert pool_size(load(None, [*TINY, "execution.workers=3", "execution.cpus_per_worker=2"])) == PoolSize(3, 2.0)
    assert pool_size(load(None, [*TINY, "execution.workers=3", "execution.backend=local"])).workers == 1
    assert pool_size(load(None, ["evaluation={kind: table, table: x}", "execution.workers=3"])) == PoolSize(1)
    elastic = load(None, [*TINY, "execution.workers=9", "execution.elastic=true", "execution.gpus_per_worker=0"])
    assert pool_size(elastic) == PoolSize(9), "reserved as a whole, whoever brings the nodes"
    with pytest.raises(ResourceError, match="one worker needs 1 CPU and 1 GPU"):
        pool_size(load(None, [*TINY, "execution.gpus_per_worker=1"]))


def test_bundles_fit_on_single_nodes_only() -> None:
    assert fits([{"CPU": 2}, {"CPU": 2}], [{"CPU": 4}])
    assert not fits([{"CPU": 3}], [{"CPU": 2}, {"CPU": 2}])
    assert fits([{"node:a": 0.001}, {"CPU": 2}, {"CPU": 2}], [{"CPU": 2, "node:a": 1}, {"CPU": 2, "node:b": 1}])
    assert not fits([{"CPU": 1, "node:a": 0.001}], [{"CPU": 0, "node:a": 1}, {"CPU": 9, "node:b": 1}])


def test_only_an_elastic_cluster_may_be_too_small(tmp_path: Path) -> None:
    words = [*TINY, "execution.workers=5"]
    with pytest.raises(
        ResourceError, match=r"^trial seed=0: needs 5 worker.* the cluster's nodes have 4 CPU and 0 GPU"
    ):
        Placed.of(trials_of(load(None, words), 1), Folder.open(str(tmp_path)))
    elastic = load(None, [*words, "execution.elastic=true", "execution.gpus_per_worker=0"])
    assert Placed.of(trials_of(elastic, 1), Folder.open(str(tmp_path))).sizes["seed=0"].workers == 5


def test_no_new_node_helps_a_trial_that_must_run_where_its_directory_is(tmp_path: Path) -> None:
    words = [*TINY, "execution.cpus_per_worker=9", "execution.elastic=true", "execution.gpus_per_worker=0"]
    with pytest.raises(ResourceError, match=r"on this node, where the directory is, but it has 4 CPU and 0 GPU"):
        Placed.of(trials_of(load(None, words), 1), Folder.open(str(tmp_path)))
    store = Folder(fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "sweep", "store://bucket/sweep")
    assert Placed.of(trials_of(load(None, words), 1), store).sizes["seed=0"].cpus_per_worker == 9


def test_locks_that_dead_trials_left_on_an_object_store_are_forgotten_and_no_others(tmp_path: Path) -> None:
    store = Folder(fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "sweep", "store://bucket/sweep")
    elsewhere = {"host": "elsewhere", "pid": 1, "start": "then"}
    locks = {"ours": elsewhere | {"sweep": store.uri}, "anothers": elsewhere | {"sweep": "other"}, "search": elsewhere}
    for name, facts in locks.items():
        (store / "trials" / name).make()
        (store / "trials" / name).write("LOCK", json.dumps(facts).encode())
        _forget_lock(store, name)
    assert [name for name in locks if (store / "trials" / name).has("LOCK")] == ["anothers", "search"]


# --- what is reported ---


@pytest.mark.slow
def test_a_curve_has_a_row_an_epoch(tmp_path: Path) -> None:
    experiment = Experiment.prepare(load(None, [*TINY, "pruning.epochs_per_round=2", "execution.backend=local"]))
    folder = create_run(str(tmp_path / "run"), experiment.first_files(dump(experiment.config)))
    run_experiment(experiment, folder, experiment.executor(), experiment.progress())
    restored = checkpoint.restore(folder / "checkpoints")
    assert restored is not None
    state, space = restored[0], experiment.spec.space
    rows = curve(state, space)
    assert [row["epoch"] for row in rows] == list(range(1, 13))
    assert [row["architecture_epochs"] for row in rows] == np.cumsum([8, 8, 7, 7, 6, 6, 5, 5, 4, 4, 3, 3]).tolist()
    live = [int(space.exists_EK.sum()), *(int(record.live_EK.sum()) for record in state.history)]
    assert [row["candidates_left"] for row in rows] == [live[(epoch + 1) // 2] for epoch in range(12)]
    assert rows[-1]["best"] == max(row.score for row in state.evaluations)
    assert rows[2]["mean"] == pytest.approx(np.mean([row.score for row in state.evaluations if row.epoch == 2]))


# --- whole trials ---


@pytest.mark.slow
def test_pools_of_two_share_four_cpus(tmp_path: Path) -> None:
    trials = trials_of(load(None, [*TINY, "execution.workers=2"]), 3)
    assert run(trials, tmp_path) == 3 * 33
    alone = trials_of(load(None, TINY), 3)
    run(alone, tmp_path / "alone")
    for pooled, single in zip(trials, alone, strict=True):
        there, here = result(tmp_path, pooled), result(tmp_path / "alone", single)
        assert there["fingerprint"] == here["fingerprint"]
        rows = pq.ParquetFile(tmp_path / "trials" / pooled.name / "evaluations.parquet").read(use_threads=False)
        names = {worker.partition("/")[0] for worker in rows["worker"].to_pylist()}
        assert names == {"ddpnas-worker-0", "ddpnas-worker-1"}


@pytest.mark.slow
@pytest.mark.parametrize("stop", ["asha", "median"])
def test_what_a_scheduler_stopped_stays_stopped(stop: str, tmp_path: Path) -> None:
    good, bad = load(None, TINY), load(None, [*TINY, "training.lr=1.0e-6"])
    trials = trials_of(good, 4)
    trials += [replace(trial, name=f"bad,{trial.name}") for trial in trials_of(bad, 3)]
    stopped: list[str] = []
    run(trials, tmp_path, stop=stop, on_stopped=stopped.append)
    finished = [trial for trial in trials if (tmp_path / "trials" / trial.name / "result.json").exists()]
    assert stopped and {trial.name for trial in finished} == {trial.name for trial in trials} - set(stopped)
    before = {path: path.read_bytes() for path in tmp_path.glob("trials/*/log.jsonl")}
    again: list[str] = []
    run([replace(t, stopped=t.name in stopped) for t in trials], tmp_path, stop=stop, on_stopped=again.append)
    assert again == []
    assert {path: path.read_bytes() for path in tmp_path.glob("trials/*/log.jsonl")} == before, "only replayed"
    assert all(len(data.splitlines()) >= 2 for data in before.values()), "no trial is stopped in the first third"
