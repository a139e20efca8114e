"""Retraining on Ray Train: one worker is the local training, and a kill of anything changes no bit."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ddpnas_ray.core.errors import DivergedError, ResourceError, WorkerLostError
from ddpnas_ray.retraining.files import checkpoints, first_files, read_trained
from ddpnas_ray.retraining.prepare import Wish, make
from ddpnas_ray.retraining.progress import RetrainingProgress
from ddpnas_ray.retraining.retraining import Retraining
from ddpnas_ray.retraining.run import retrain_here
from ddpnas_ray.runs.directory import create_run
from ddpnas_ray.runs.log import read_log
from ddpnas_ray.runs.sealed import newest_epoch
from ddpnas_ray.storage.folder import Folder
from tests.commands import ENVIRONMENT, options
from tests.retraining.showing import TASK

pytestmark = [pytest.mark.ray, pytest.mark.slow]

KEYS = [
    "retraining.workers=1",
    "data.train_limit=200",
    "data.val_limit=100",
    "target.cells=3",
    "target.channels=8",
    "retraining.train_on=train",
    "retraining.threads=1",
    "retraining.epochs=12",
    "retraining.batch_size=32",
    "retraining.drop_path=0.2",
    "retraining.ema=0.9",
]


KILLED = {
    "worker 0": lambda now: now["worker_pids"][0],
    "worker 1": lambda now: now["worker_pids"][1],
    "driver": lambda now: now["driver_pid"],
}


def make_retraining(*keys: str) -> Retraining:
    return make(Wish(network="darts_v2", overrides=[*KEYS, *keys]))


def new_folder(retraining: Retraining, out: Path) -> Folder:
    return create_run(str(out), first_files(retraining))


def locally(retraining: Retraining, out: Path) -> dict[str, Any]:
    progress = RetrainingProgress("x", retraining.seeds, retraining.config.retraining.epochs)
    return retrain_here(retraining, new_folder(retraining, out), progress, "cpu")


def on_ray(retraining: Retraining, folder: Folder, kills: Mapping[int, str] | None = None) -> dict[str, Any]:
    """Retrain on Ray; ``kills``: number of saved epochs -> who is killed then."""
    from ddpnas_ray.distributed import ray_train

    running = ray_train.start(retraining, folder, ray_train.group_size(retraining))
    deadline, left = time.monotonic() + 240, dict(kills or {})
    while left:
        now = running.status()
        assert time.monotonic() < deadline and not running.wait(0.05), now
        if now is not None and now["phase"] == "retraining" and now["epochs_done"] >= min(left):
            os.kill(KILLED[left.pop(min(left))](now), signal.SIGKILL)
    return running.outcome()


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> str:
    """Fingerprint of an undisturbed training on two workers."""
    retraining = make_retraining("retraining.workers=2")
    return str(on_ray(retraining, new_folder(retraining, tmp_path_factory.mktemp("two") / "run"))["fingerprint"])


@pytest.mark.usefixtures("ray_cluster")
def test_one_worker_trains_as_this_process_does(tmp_path: Path) -> None:
    retraining = make_retraining("retraining.seeds=2", "retraining.epochs=3")
    here = locally(retraining, tmp_path / "here")
    there = on_ray(retraining, folder := new_folder(retraining, tmp_path / "there"))
    for result in (here, there):
        assert [row["seed"] for row in result["trainings"]] == [0, 1]
        assert {score["split"]: score["seeds"] for score in result["scores"]} == {"val": 2, "test": 2}
    assert [row["fingerprint"] for row in here["trainings"]] == [row["fingerprint"] for row in there["trainings"]]
    assert here["scores"] == there["scores"]
    assert read_trained(folder)[2] == there
    tested = [event for event in read_log(folder.read("log.jsonl")) if event["event"] == "test"]
    assert len(tested) == 1, "the test images are read once"


@pytest.mark.usefixtures("ray_cluster")
def test_whoever_is_killed_the_weights_are_the_same(two_workers: str, tmp_path: Path) -> None:
    retraining = make_retraining("retraining.workers=2")
    folder = new_folder(retraining, tmp_path / "run")
    result = on_ray(retraining, folder, {2: "worker 0", 5: "worker 1", 8: "driver"})
    assert result["fingerprint"] == two_workers
    log = read_log(folder.read("log.jsonl"))
    starts = [event for event in log if event["event"] == "worker" and event["rank"] == 0]
    assert len(starts) == 4, "another group goes on after each"
    assert 12 <= len([event for event in log if event["event"] == "epoch"]) <= 18, "from the last checkpoint"


def test_a_killed_command_resumes_to_the_same_weights(two_workers: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["--network", "darts_v2", "--out", str(out), *options(*KEYS, "retraining.workers=2")]
    command = [sys.executable, "-m", "ddpnas_ray.retrain", *words]
    environment = {key: value for key, value in ENVIRONMENT.items() if key != "RAY_ADDRESS"}
    with open(tmp_path / "said", "w") as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said, start_new_session=True)
    deadline = time.monotonic() + 240
    while newest_epoch(checkpoints(Folder.open(str(out)), 0)) < 3:
        assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "said").read_text()
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    again = subprocess.run([*command, "--resume"], env=environment, capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stderr
    assert f"fingerprint {two_workers}" in again.stdout
    assert re.search(r"test accuracy 0\.\d{4} \(trained from scratch, 1 seed\)", again.stdout)
    done = subprocess.run([*command, "--resume"], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-3:] == again.stdout.splitlines()[-3:], "a finished one is read, not trained again"


def shown(folder: Folder) -> dict[str, bytes]:
    own = folder / "seed-0" / "illustrations"
    return {name: own.read(name) for name in own.names()}


@pytest.mark.usefixtures("ray_cluster")
def test_what_the_task_shows_is_what_it_shows_here_whoever_is_killed(tmp_path: Path) -> None:
    retraining = make_retraining(TASK, "retraining.epochs=6")
    locally(retraining, tmp_path / "here")
    folder = new_folder(retraining, tmp_path / "there")
    on_ray(retraining, folder, {2: "worker 0", 4: "driver"})
    assert shown(folder) == shown(Folder.open(str(tmp_path / "here")))
    assert sorted(shown(folder)) == ["illustrations.json", "picture-1.png", "picture-2.png"]


@pytest.mark.usefixtures("ray_cluster")
def test_workers_show_the_outputs_of_all(tmp_path: Path) -> None:
    retraining = make_retraining(TASK, "retraining.epochs=1", "retraining.workers=2")
    result = on_ray(retraining, folder := new_folder(retraining, tmp_path / "run"))
    confusion = json.loads(shown(folder)["illustrations.json"])["confusion"]
    right = sum(row[i] for i, row in enumerate(confusion))
    assert right / sum(map(sum, confusion)) == result["trainings"][0]["test"]


@pytest.mark.usefixtures("ray_cluster")
def test_an_own_error_ends_it_without_retries(tmp_path: Path) -> None:
    retraining = make_retraining("retraining.lr=1.0e+30", "retraining.grad_clip=0", "retraining.workers=2")
    folder = new_folder(retraining, tmp_path / "run")
    with pytest.raises(DivergedError, match=r"lower retraining\.lr"):
        on_ray(retraining, folder)
    assert newest_epoch(checkpoints(folder, 0)) == 0


@pytest.mark.usefixtures("ray_cluster")
def test_workers_that_keep_dying_end_it(tmp_path: Path) -> None:
    retraining = make_retraining("retraining.max_failures=0", "retraining.workers=2")
    with pytest.raises(WorkerLostError, match=r"more than retraining.max_failures=0 times .*then --resume"):
        on_ray(retraining, new_folder(retraining, tmp_path / "run"), {3: "worker 1"})


@pytest.mark.usefixtures("ray_cluster")
def test_workers_that_do_not_fit_are_refused() -> None:
    from ddpnas_ray.distributed.ray_train import group_size

    with pytest.raises(ResourceError, match=r"40 worker\(s\) of 1 CPU and 0 GPU are needed, 4 fit"):
        group_size(make_retraining("retraining.workers=40"))
    assert str(group_size(make_retraining("retraining.workers=40", "retraining.min_workers=2"))).startswith("2 to 40")
