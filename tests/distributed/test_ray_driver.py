"""A whole search on Ray: the driver actor, its status, and its restarts."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ddpnas_ray.core.errors import WorkerLostError
from ddpnas_ray.experiment.config import dump, load
from ddpnas_ray.experiment.experiment import Experiment
from ddpnas_ray.experiment.run import run_experiment
from ddpnas_ray.runs.directory import create_run
from ddpnas_ray.runs.fingerprint import verify_fingerprint
from ddpnas_ray.runs.log import failure_logged, read_log
from ddpnas_ray.runs.sealed import newest_epoch
from ddpnas_ray.storage.folder import Folder
from tests.conftest import TINY

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def make_experiment(*overrides: str) -> Experiment:
    return Experiment.prepare(load(None, [*TINY, "execution.workers=2", *overrides]))


def new_run(experiment: Experiment, out: Path) -> Folder:
    return create_run(str(out), experiment.first_files(dump(experiment.config)))


def run_locally(experiment: Experiment, out: Path) -> dict[str, Any]:
    result = run_experiment(experiment, new_run(experiment, out), experiment.executor(), experiment.progress())
    assert result is not None
    return result


def run_on_ray(experiment: Experiment, folder: Folder, **options: Any) -> dict[str, Any] | None:
    from ddpnas_ray.distributed import ray_driver

    return ray_driver.start(experiment, folder, **options).outcome()


@pytest.fixture(scope="module")
def local_fingerprint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(run_locally(make_experiment(), tmp_path_factory.mktemp("local") / "run")["fingerprint"])


def test_a_search_on_ray_has_the_fingerprint_of_the_local_one(local_fingerprint: str, tmp_path: Path) -> None:
    folder = new_run(experiment := make_experiment(), tmp_path / "run")
    result = run_on_ray(experiment, folder)
    assert result is not None and result["fingerprint"] == local_fingerprint
    assert result["architecture_epochs"] == 33 and result["workers"] == 2
    found = verify_fingerprint(folder)
    assert found.agrees and found.recomputed == local_fingerprint


@pytest.mark.slow
def test_another_seed_has_another_fingerprint(local_fingerprint: str, tmp_path: Path) -> None:
    assert run_locally(make_experiment("seed=1"), tmp_path / "run")["fingerprint"] != local_fingerprint


@pytest.mark.slow
def test_stopped_by_its_time_limit_and_resumed_equals_never_stopped(local_fingerprint: str, tmp_path: Path) -> None:
    folder = new_run(experiment := make_experiment(), tmp_path / "run")
    assert run_on_ray(experiment, folder, until_s=0.0) is None
    assert newest_epoch(folder / "checkpoints") == 1, "at least one epoch is run"
    result = run_on_ray(experiment, folder)
    assert result is not None and result["fingerprint"] == local_fingerprint


@pytest.mark.slow
def test_the_driver_responds_while_it_searches_and_survives_its_own_death(
    local_fingerprint: str, tmp_path: Path
) -> None:
    from ddpnas_ray.distributed import ray_driver

    experiment = make_experiment()
    folder = new_run(experiment, tmp_path / "run")
    search = ray_driver.start(experiment, folder)
    deadline = time.monotonic() + 180
    while (now := search.status()) is None or now["phase"] != "searching" or now["epoch"] < 2:
        assert time.monotonic() < deadline and not search.wait(0.05), now
    assert now["candidates"] == 80 and now["workers"] == 2 and now["rounds"] == 6
    os.kill(now["driver_pid"], signal.SIGKILL)
    result = search.outcome()
    assert result is not None and result["fingerprint"] == local_fingerprint
    starts = [line for line in folder.read("log.jsonl").decode().splitlines() if '"event": "start"' in line]
    assert len(starts) >= 2, "the driver resumed from its checkpoint"


def deadly(checkpoints: str, once: bool, effort: Any, *args: Any) -> Any:
    """Kill the driver in its second epoch every time, or once in each of the first three."""
    folder = Folder.open(checkpoints)
    epoch = newest_epoch(folder)
    if epoch == 1 if not once else epoch < 3 and not (died := Path(checkpoints).parent / f"died-{epoch}").exists():
        if once:
            died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return effort(*args)


def deadly_experiment(folder: Path, *, once: bool) -> Experiment:
    experiment = make_experiment(f"execution.max_crashes={3 if once else 2}")
    effort = partial(deadly, str(folder / "run" / "checkpoints"), once, experiment.spec.effort)
    return dataclasses.replace(experiment, spec=dataclasses.replace(experiment.spec, effort=effort))


def driver_events(folder: Folder) -> list[tuple[int, int]]:
    """Epoch of every driver start, and earlier deaths in it."""
    events = read_log(folder.read("log.jsonl"))
    return [(event["epoch"], event["deaths"]) for event in events if event["event"] == "driver"]


@pytest.mark.slow
def test_a_driver_that_keeps_dying_in_one_epoch_ends_the_search_and_a_resume_counts_from_zero(
    local_fingerprint: str, tmp_path: Path
) -> None:
    folder = new_run(experiment := deadly_experiment(tmp_path, once=False), tmp_path / "run")
    with (
        pytest.raises(WorkerLostError, match=r"driver died 2 times in epoch 1 .*max_crashes is 2"),
        failure_logged(folder),
    ):
        run_on_ray(experiment, folder)
    assert driver_events(folder) == [(0, 0), (1, 1), (1, 2)]
    last = read_log(folder.read("log.jsonl"))[-1]
    assert last["event"] == "failed" and "died 2 times in epoch 1" in last["error"]
    result = run_on_ray(make_experiment("execution.max_crashes=2"), folder)
    assert result is not None and result["fingerprint"] == local_fingerprint
    assert driver_events(folder)[3:] == [(1, 0)]


@pytest.mark.slow
def test_a_driver_that_makes_progress_between_deaths_is_restarted_without_limit(
    local_fingerprint: str, tmp_path: Path
) -> None:
    folder = new_run(experiment := deadly_experiment(tmp_path, once=True), tmp_path / "run")
    result = run_on_ray(experiment, folder)
    assert result is not None and result["fingerprint"] == local_fingerprint
    found = driver_events(folder)  # Ray may restart a driver once more than it dies
    assert len(found) >= 4 and {(0, 0), (0, 1), (1, 1), (2, 1)} <= set(found), "more deaths than one epoch may have"


@pytest.mark.slow
def test_an_error_of_the_search_reaches_the_command(tmp_path: Path) -> None:
    from ddpnas_ray.core.errors import DivergedError

    experiment = make_experiment("training.lr=1.0e+30", "training.grad_clip=0")
    with pytest.raises(DivergedError, match=r"lower training\.lr"):
        run_on_ray(experiment, new_run(experiment, tmp_path / "run"))
