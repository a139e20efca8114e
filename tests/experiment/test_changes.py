"""Differences of configurations: which keys, and which of them only say where something is."""

from __future__ import annotations

from typing import Annotated

from ddpnas_ray.core.plugins import Place
from ddpnas_ray.experiment.changes import PLACES, changed_keys, differing_keys, fixed_keys, places, source_name
from ddpnas_ray.experiment.config import load
from ddpnas_ray.spaces.base import SpaceSpec
from ddpnas_ray.spaces.cell.space import make
from tests.experiment.configs import read


def own_space(*, depth: int = 1, model: Annotated[str | None, Place()] = None) -> SpaceSpec:
    """A space that reads a file."""
    return make(cells=depth)


OWN = f"{__name__}:own_space"


def test_differing_keys_are_named_with_their_section() -> None:
    old, new = read(""), read("seed: 1\ntraining: {lr: 0.1}\nspace: {cells: 2}\ndata: {mean: [0.1]}")
    assert differing_keys(old, new) == ["data.mean", "seed", "space.cells", "training.lr"]
    other = read(f"space: {{name: '{OWN}', depth: 3}}")
    assert "space.depth" in differing_keys(old, other)
    assert "space.cells" in differing_keys(old, other)


def test_a_resume_may_find_its_data_elsewhere() -> None:
    keys = ["data.path=a", "data.val_path=b", "data.test_path=c", "data.cache=d", "evaluation.table=e"]
    elsewhere = load(None, keys)
    assert fixed_keys(load(None), elsewhere) == []
    assert fixed_keys(load(None), load(None, ["data.crop=1"])) == ["data.crop"]
    assert places(elsewhere) == PLACES


def test_spaces_and_tasks_declare_their_own_places() -> None:
    old = read(f"space: {{name: '{OWN}', model: a}}")
    moved = read(f"space: {{name: '{OWN}', model: b, depth: 2}}")
    assert places(old) == (*PLACES, "space.model")
    assert places(read("task: {name: text}")) == (*PLACES, "task.tokenizer")
    assert differing_keys(old, moved) == ["space.depth", "space.model"]
    assert changed_keys(old, moved) == fixed_keys(old, moved) == ["space.depth"]
    assert changed_keys(old, moved, ("space.",)) == []


def test_a_place_of_a_space_is_not_moved_by_setting_it_to_null() -> None:
    old, without = read(f"space: {{name: '{OWN}', model: a}}"), read(f"space: {{name: '{OWN}'}}")
    assert fixed_keys(old, without) == fixed_keys(without, old) == ["space.model"]


def test_a_source_is_named_by_what_can_change_a_result() -> None:
    overrides = [f"space.name={OWN}", "space.model=a", "data.path=b", "execution.workers=2", "seed=3"]
    config = load(None, overrides)
    assert source_name(None, overrides, config) == f"digits quick start with space.name={OWN}, seed=3"
    assert source_name("configs/a.yaml", ["data.cache=c"], config) == "a.yaml"
