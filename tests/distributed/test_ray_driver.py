"""A whole search on Ray: the driver actor, its status, and its survival."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from ddpnas_ray.experiment.config import dump, load
from ddpnas_ray.experiment.experiment import Experiment
from ddpnas_ray.experiment.run import run_experiment
from ddpnas_ray.runs.checkpoint import newest_epoch
from ddpnas_ray.runs.directory import create_run
from ddpnas_ray.runs.fingerprint import verify_fingerprint
from ddpnas_ray.storage.folder import Folder
from tests.conftest import TINY

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def make_job(*overrides: str) -> Experiment:
    return Experiment.prepare(load(None, [*TINY, "execution.workers=2", *overrides]))


def new_run(job: Experiment, out: Path) -> Folder:
    return create_run(str(out), job.first_files(dump(job.config)))


def run_locally(job: Experiment, out: Path) -> dict[str, Any]:
    result = run_experiment(job, new_run(job, out), job.executor(), job.progress())
    assert result is not None
    return result


def run_on_ray(job: Experiment, folder: Folder, **options: Any) -> dict[str, Any] | None:
    from ddpnas_ray.distributed import ray_driver

    return ray_driver.start(job, folder, **options).outcome()


@pytest.fixture(scope="module")
def local_fingerprint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(run_locally(make_job(), tmp_path_factory.mktemp("local") / "run")["fingerprint"])


def test_a_search_on_ray_has_the_fingerprint_of_the_local_one(local_fingerprint: str, tmp_path: Path) -> None:
    folder = new_run(job := make_job(), tmp_path / "run")
    result = run_on_ray(job, folder)
    assert result is not None and result["fingerprint"] == local_fingerprint
    assert result["architecture_epochs"] == 33 and result["workers"] == 2
    found = verify_fingerprint(folder)
    assert found.agrees and found.recomputed == local_fingerprint


@pytest.mark.slow
def test_another_seed_has_another_fingerprint(local_fingerprint: str, tmp_path: Path) -> None:
    assert run_locally(make_job("seed=1"), tmp_path / "run")["fingerprint"] != local_fingerprint


@pytest.mark.slow
def test_stopped_by_its_time_limit_and_resumed_equals_never_stopped(local_fingerprint: str, tmp_path: Path) -> None:
    folder = new_run(job := make_job(), tmp_path / "run")
    assert run_on_ray(job, folder, until_s=0.0) is None
    assert newest_epoch(folder / "checkpoints") == 1, "at least one epoch is run"
    result = run_on_ray(job, folder)
    assert result is not None and result["fingerprint"] == local_fingerprint


def test_the_driver_answers_while_it_searches_and_survives_its_own_death(
    local_fingerprint: str, tmp_path: Path
) -> None:
    from ddpnas_ray.distributed import ray_driver

    job = make_job()
    folder = new_run(job, tmp_path / "run")
    search = ray_driver.start(job, folder)
    deadline = time.monotonic() + 180
    while (now := search.status()) is None or now["phase"] != "searching" or now["epoch"] < 2:
        assert time.monotonic() < deadline and not search.wait(0.05), now
    assert now["candidates"] == 80 and now["workers"] == 2 and now["rounds"] == 6
    os.kill(now["driver_pid"], signal.SIGKILL)
    result = search.outcome()
    assert result is not None and result["fingerprint"] == local_fingerprint
    starts = [line for line in folder.read("log.jsonl").decode().splitlines() if '"event": "start"' in line]
    assert len(starts) >= 2, "the driver went on from its checkpoint"


@pytest.mark.slow
def test_an_error_of_the_search_reaches_the_command(tmp_path: Path) -> None:
    from ddpnas_ray.core.errors import DivergedError

    job = make_job("training.lr=1.0e+30", "training.grad_clip=0")
    with pytest.raises(DivergedError, match=r"lower training\.lr"):
        run_on_ray(job, new_run(job, tmp_path / "run"))
