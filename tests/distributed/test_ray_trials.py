"""Many searches as Ray tasks give the results of one process, whatever happens to the tasks' processes."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ddpnas_ray.core.errors import DataError, WorkerLostError
from ddpnas_ray.distributed.ray_trials import Trial, run_trials, search_all
from ddpnas_ray.experiment.config import SearchConfig, load
from ddpnas_ray.experiment.experiment import Experiment
from tests.score_tables import write_table

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]
TINY_SUPERNET = [
    "space={name: nasbench201, cells: 1, channels: 4}",
    "data.train_limit=64",
    "data.val_limit=64",
    "pruning.epochs_per_round=1",
    "training.batch_size=32",
    "training.bn_images=32",
    "target={cells: 1, channels: 4}",
]


@pytest.fixture(scope="module")
def tabular(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    path = write_table(tmp_path_factory.mktemp("table") / "made.parquet")
    keys = ["space={name: nasbench201}", "strategy=pruning", "evaluation.kind=table", f"evaluation.table={path}"]
    return Experiment.prepare(load(None, [*keys, "target={cells: 5, channels: 16}"]))


def trials_of(config: SearchConfig, seeds: int, label: str = "made") -> list[Trial]:
    return [Trial(label, dataclasses.replace(config, seed=seed)) for seed in range(seeds)]


def without_seconds(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in result.items() if key != "seconds"} for result in results]


@pytest.mark.slow
def test_results_are_those_of_one_process_and_in_order(tabular: Experiment) -> None:
    trials = trials_of(tabular.config, 30)
    done: list[int] = []
    received: dict[int, dict[str, Any]] = {}
    found = run_trials(tabular, trials, on_done=done.append, on_result=received.__setitem__)
    assert without_seconds(found) == without_seconds(search_all(tabular, trials))
    assert [result["seed"] for result in found] == list(range(30))
    assert len({result["fingerprint"] for result in found}) > 20, "seeds differ"
    assert [received[i] for i in range(30)] == found
    assert sum(done) == 30
    assert len(done) > 4, "several tasks"


@pytest.mark.slow
def test_a_supernet_trains_in_its_task(tabular: Experiment) -> None:
    config = load(None, TINY_SUPERNET)
    trials = trials_of(config, 2)
    found = run_trials(Experiment.prepare(config), trials)
    assert without_seconds(found) == without_seconds(search_all(None, trials))
    assert found[0]["score_sheet"][0]["split"] == "val"


def test_nothing_to_search_is_no_task(tabular: Experiment) -> None:
    assert run_trials(tabular, []) == []


# --- what goes wrong ---


def _die_once(experiment: Experiment | None, trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """The body of a task whose process dies, unless another one has died before."""
    flag = Path(trials[0].label)
    if flag.exists():
        flag.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return search_all(experiment, trials)


def _die(experiment: Experiment | None, trials: Sequence[Trial]) -> list[dict[str, Any]]:
    os.kill(os.getpid(), signal.SIGKILL)
    return []


def test_what_a_killed_process_had_is_searched_again(
    tabular: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ddpnas_ray.distributed import ray_trials

    flag = tmp_path / "flag"
    flag.touch()
    trials = trials_of(tabular.config, 8, label=str(flag))
    monkeypatch.setattr(ray_trials, "_search", _die_once)
    found = run_trials(tabular, trials)
    assert not flag.exists(), "a process died"
    assert without_seconds(found) == without_seconds(search_all(tabular, trials))


@pytest.mark.slow
def test_a_process_that_keeps_dying_ends_the_trials(tabular: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    from ddpnas_ray.distributed import ray_trials

    monkeypatch.setattr(ray_trials, "_search", _die)
    with pytest.raises(WorkerLostError, match=r"^trials: a task's process kept dying; check its node's memory"):
        run_trials(tabular, trials_of(tabular.config, 1))


def test_an_error_of_a_trial_arrives_as_itself(tabular: Experiment) -> None:
    evaluation = dataclasses.replace(tabular.config.evaluation, training="random")
    broken = dataclasses.replace(tabular.config, evaluation=evaluation)
    with pytest.raises(DataError, match=r"^evaluation.training is random: .* has no single trainings of made_val_e12"):
        run_trials(tabular, [*trials_of(tabular.config, 3), *trials_of(broken, 1)])
