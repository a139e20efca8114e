"""A task is a folder of ``tasks/`` or ``module:function``; the configuration checks its name and options."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddpnas_ray import search, tasks
from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.experiment.config import TaskConfig, check, dump, load
from ddpnas_ray.experiment.yaml_text import parse
from ddpnas_ray.tasks.base import TASKS, own_data_sets
from tests.commands import LOCAL, options, run

HALVES = '''
"""Classification of the upper and the lower half of the classes."""

from dataclasses import dataclass

from ddpnas_ray.data.images import load_data
from ddpnas_ray.tasks.base import find_metric
from ddpnas_ray.tasks.classification.task import ClassificationTask


def make(data, seed, *, metric: str = "accuracy", weight: float = 1.0):
    return ClassificationTask(load_data(data, seed), find_metric(metric))


def needy(data, seed, *, weight: float):
    return make(data, seed, weight=weight)
'''


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folder on PYTHONPATH, with a module and a folder as in ``tasks/``."""
    folder = tmp_path / "lab"
    (folder / "halves").mkdir(parents=True)
    (folder / "halves" / "__init__.py").touch()
    (folder / "halves" / "task.py").write_text(HALVES)
    (folder / "own_halves.py").write_text(HALVES)
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in ("halves", "own_halves", "ddpnas_ray.tasks.halves", "ddpnas_ray.tasks.halves.task"):
        sys.modules.pop(name, None)


def test_the_built_in_tasks_are_the_folders_that_define_make() -> None:
    assert TASKS.names() == ("classification", "segmentation", "text")


def test_a_new_folder_is_a_new_task_and_nothing_else_changes(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(lab)])
    said = run(search.main, *LOCAL, *options("task=halves", "task.weight=2.0"), "--out", tmp_path / "run")
    assert said.code == 2, "a name is no section to set keys in"
    said = run(search.main, *LOCAL, *options("task.name=halves", "task.weight=2.0"), "--out", tmp_path / "run")
    assert said.code == 0, said.err


def test_a_task_of_ones_own_may_be_given_by_its_name_alone(lab: Path) -> None:
    config = check(parse("task: own_halves:make", "here"), "here")
    assert config.task == TaskConfig(name="own_halves:make", options={"metric": "accuracy", "weight": 1.0})
    assert config.searched_on == "own_halves", "what its run directories are named after"
    assert check(parse(dump(config), "again"), "again") == config


def test_another_task_leaves_the_options_of_the_files_own_behind(lab: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("task: {name: 'own_halves:make', weight: 3.0}\n")
    assert load(str(file), ["task.name=classification"]).task.options == {"metric": "accuracy"}
    assert load(str(file), ["task.weight=4.0"]).task.options["weight"] == 4.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: clasification", "task.name: 'clasification' is not a built-in task.*did you mean classification"),
        ("task: {name: 3}", "task.name: expected a name, got 3"),
        ("task: [a]", "task: expected a section such as {name: classification}"),
        ("task: {metrc: accuracy}", "task.metrc is not an option of task 'classification'.*did you mean"),
        ("task: {metric: 3}", "task.metric is 3; input should be a valid string"),
        ("task: own_halves:needy", "task.weight is missing; task 'own_halves:needy' needs it"),
        ("task: {data: x}", "task.data is not an option of task 'classification'"),
    ],
)
def test_what_is_wrong_with_the_section_takes_one_line(lab: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        check(parse(text, "here"), "here")
    assert "\n" not in str(error.value)


def test_a_tasks_module_names_the_data_sets_that_it_reads_itself(lab: Path) -> None:
    with (lab / "own_halves.py").open("a") as file:
        file.write("\nDATA_SETS = ('moons',)\n")
    assert own_data_sets("own_halves:make") == ("moons",)
    assert check(parse("{task: own_halves:make, data: {name: moons}}", "here"), "here").data.name == "moons"
    assert own_data_sets("classification") == ()
    with pytest.raises(ConfigError, match=r"data.name: 'moons' is not a built-in data set"):
        check(parse("data: {name: moons}", "here"), "here")
