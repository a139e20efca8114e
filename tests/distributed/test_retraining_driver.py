"""The driver of a retraining and the size of its worker group, without a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from ddpnas_ray.core.errors import ResourceError
from ddpnas_ray.distributed.ray_train import GroupSize, RetrainingDriver, group_size
from ddpnas_ray.retraining.files import checkpoints, first_files
from ddpnas_ray.retraining.prepare import Wish, make
from ddpnas_ray.retraining.progress import RetrainingProgress
from ddpnas_ray.retraining.retraining import Retraining
from ddpnas_ray.retraining.run import Keeper
from ddpnas_ray.runs.directory import create_run
from ddpnas_ray.runs.sealed import newest_epoch
from ddpnas_ray.training.snapshot import Snapshot


def retraining_of(*keys: str) -> Retraining:
    small = ["data.train_limit=200", "data.val_limit=100", "target.cells=3", "target.channels=8"]
    return make(Wish(network="darts_v2", overrides=[*small, "retraining.seeds=2", *keys]))


def snapshot(epoch: int) -> Snapshot:
    row = {"lr": 0.1, "loss": 1.0, "val": 0.5, "test": None, "workers": 2, "device": "cpu a", "examples_per_s": 1.0}
    return Snapshot(
        epoch, {"network/x": np.full(3, float(epoch))}, tuple({**row, "epoch": e + 1} for e in range(epoch))
    )


def test_what_a_given_up_group_still_sends_is_ignored(tmp_path: Path) -> None:
    retraining = retraining_of()
    folder = create_run(str(tmp_path / "run"), first_files(retraining))
    driver = RetrainingDriver(folder.path, "x", GroupSize(2, 2, 1.0, 0.0))
    driver._keeper = Keeper(retraining, folder, RetrainingProgress("x", retraining.seeds, 3))
    driver.begin(0, 2, 1, "node", "old")
    driver.save(snapshot(1), "old")
    driver.begin(0, 2, 2, "node", "new")
    driver.save(snapshot(2), "new")
    driver.save(snapshot(1), "old")
    assert newest_epoch(checkpoints(folder, 0)) == 2
    driver._keeper.seed = 1
    driver.begin(0, 2, 3, "node", "third")
    driver.save(snapshot(3), "new")
    assert newest_epoch(checkpoints(folder, 1)) == 0


def test_another_kind_of_device_is_refused_where_that_is_asked(tmp_path: Path) -> None:
    retraining = retraining_of("execution.mixed_devices=refuse")
    folder = create_run(str(tmp_path / "run"), first_files(retraining))
    keeper = Keeper(retraining, folder, RetrainingProgress("x", [0], 3))
    keeper.save(snapshot(1))
    two = snapshot(2)
    mixed = Snapshot(2, two.tensors, (two.history[0], {**two.history[1], "device": "cpu b"}))
    with pytest.raises(ResourceError, match="2 kinds of device"):
        keeper.save(mixed)
    assert newest_epoch(checkpoints(folder, 0)) == 1


@pytest.mark.parametrize(
    ("gpus", "keys", "size"),
    [
        (0, ["retraining.workers=2"], GroupSize(2, 2, 1.0, 0.0)),
        (0, ["retraining.workers=null"], GroupSize(1, 1, 1.0, 0.0)),
        (1, ["retraining.workers=2"], GroupSize(1, 1, 1.0, 1.0)),  # a worker a GPU, unless the GPUs are given
        (4, ["retraining.workers=null"], GroupSize(4, 4, 1.0, 1.0)),
        (4, ["retraining.workers=3"], GroupSize(3, 3, 1.0, 1.0)),
        (2, ["retraining.workers=2", "execution.gpus_per_worker=0.5"], GroupSize(2, 2, 1.0, 1.0)),
        (1, ["retraining.workers=2", "execution.gpus_per_worker=0"], GroupSize(2, 2, 1.0, 0.0)),
    ],
)
def test_a_worker_has_a_gpu_of_its_own(
    gpus: int, keys: list[str], size: GroupSize, monkeypatch: pytest.MonkeyPatch
) -> None:
    node: dict[str, Any] = {"Alive": True, "Resources": {"CPU": 8.0, **({"GPU": float(gpus)} if gpus else {})}}
    monkeypatch.setattr(ray, "nodes", lambda: [node])
    assert group_size(retraining_of(*keys)) == size


def test_workers_that_do_not_fit_are_refused_with_what_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 3.0}}])
    with pytest.raises(ResourceError, match=r"1 worker\(s\) of 4 CPU .* lower retraining.workers, retraining.threads"):
        group_size(retraining_of("retraining.workers=1", "retraining.threads=4"))
