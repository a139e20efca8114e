"""Configurations: reading, errors, and writing."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from annotated_types import Ge
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.core.schedule import planned_architecture_epochs
from ddpnas_ray.experiment.changes import differing_keys
from ddpnas_ray.experiment.config import (
    SearchConfig,
    check,
    describe,
    dump,
    load,
    to_dict,
)
from ddpnas_ray.spaces.base import SpaceSpec, find_space
from ddpnas_ray.spaces.cell.space import make as make_cell
from tests.conftest import ROOT
from tests.experiment.configs import read, refused

LAW = settings(derandomize=True, deadline=None, max_examples=60)
CELL = {"cells": 6, "nodes": 4, "channels": 16}


def refused_override(*overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        load(None, overrides)
    return str(error.value)


def own_space(*, depth: Annotated[int, Ge(1)], name_of_it: str = "x") -> SpaceSpec:
    """A space whose depth has no default."""
    return make_cell(cells=depth)


OWN = f"{__name__}:own_space"
INSTEAD_OF_A_FILE = {
    "nasbench201_table.yaml": ["evaluation.table=a.parquet"],
    "bert_glue.yaml": [f"space.{key}" for key in ("model=null", "hidden=768", "layers=12", "heads=12", "ffn=3072")],
}


# --- reading ---


def test_an_empty_file_is_all_defaults() -> None:
    config = read("")
    assert config == read("training: {}\npruning:\nspace:\n")
    assert config.training.batch_size == 512
    assert dict(config.space.options) == CELL


def test_without_a_file_it_is_the_digits_quick_start() -> None:
    config = load(None)
    assert (config.data.name, config.training.batch_size, config.target.cells, config.seed) == ("digits", 64, 8, 0)


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("space: {name: cell, cells: 3}\ndata: {mean: [0.5, 0.4, 0.3]}\nseed: 7\n", encoding="utf-8")
    config = load(str(path))
    assert config.seed == 7
    assert dict(config.space.options) == CELL | {"cells": 3}
    assert config.data.mean == (0.5, 0.4, 0.3)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_experiment_file_is_allowed_and_searches_what_the_paper_does(path: Path) -> None:
    config = load(str(path), INSTEAD_OF_A_FILE.get(path.name, ()))
    spec = find_space(config.space.name)(**config.space.options)
    planned = planned_architecture_epochs(
        spec.space, config.pruning.keep_per_group, epochs_per_round=config.pruning.epochs_per_round
    )
    assert planned == {"cell": 99, "mobile": 75, "nasbench201": 36, "bert": 21}[config.space.name]


@pytest.mark.parametrize("name", ["cifar10_cell", "imagenet_mobile"])
def test_searches_of_the_paper_s_size_have_its_search_values(name: str) -> None:
    """Sec. 4.2: "the same search hyper-parameters are utilized as on CIFAR10"; lr 0.4 is that of training."""
    config = load(str(ROOT / "configs" / f"{name}.yaml"))
    training = config.training
    assert (training.batch_size, training.lr, training.momentum, training.weight_decay) == (512, 0.025, 0.9, 3e-4)
    assert (config.pruning.epochs_per_round, config.data.mean, config.data.std) == (3, (0.5,), (0.5,))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("3.0e-4", 3e-4),
        ("3E-4", 3e-4),
        ("1e2", 100.0),
        ("+1e2", 100.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("1", 1.0),
        ("0.025", 0.025),
    ],
)
def test_numbers_are_those_of_yaml_1_2(text: str, value: float) -> None:
    config = read(f"training: {{weight_decay: {text}}}")
    assert config.training.weight_decay == value
    assert load(None, [f"training.weight_decay={text}"]).training.weight_decay == value


def test_integers_stay_integers_and_quoted_numbers_stay_text() -> None:
    assert read("training: {batch_size: 64}\nseed: 4294967295").seed == 2**32 - 1
    assert isinstance(read("seed: 3").seed, int)
    assert read("data: {name: folder, path: '1e5'}").data.path == "1e5"
    assert read("data: {name: folder, path: 2024-01-02x}").data.path == "2024-01-02x"


def test_null_is_none() -> None:
    config = read("data: {path: null, train_limit: ~}\nexecution: {workers: null}")
    assert (config.data.path, config.data.train_limit, config.execution.workers) == (None, None, None)


# --- overriding ---


@pytest.mark.parametrize(
    ("override", "get", "value"),
    [
        ("pruning.gamma=0.8", lambda c: c.pruning.gamma, 0.8),
        ("seed=5", lambda c: c.seed, 5),
        (" seed =5", lambda c: c.seed, 5),
        ("data.train_limit=100", lambda c: c.data.train_limit, 100),
        ("data.train_limit=null", lambda c: c.data.train_limit, None),
        ("data.mean=[0.5]", lambda c: c.data.mean, (0.5,)),
        ("training.channels_last=false", lambda c: c.training.channels_last, False),
        ("training={lr: 0.5}", lambda c: (c.training.lr, c.training.batch_size), (0.5, 512)),
        ("space.nodes=2", lambda c: dict(c.space.options), CELL | {"nodes": 2}),
        ("execution.backend=local", lambda c: c.execution.backend, "local"),
        ("data.path=runs/a=b", lambda c: c.data.path, "runs/a=b"),
    ],
)
def test_one_key_is_overridden(override: str, get: Callable[[SearchConfig], Any], value: Any) -> None:
    assert get(load(None, [override])) == value


def test_the_last_override_wins() -> None:
    assert load(None, ["seed=1", "seed=2"]).seed == 2


def test_another_space_leaves_options_and_target_of_the_first_behind(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("space: {name: cell, nodes: 2}\ntarget: {cells: 8}\ntraining: {lr: 0.5}\n")
    config = load(str(path), ["target.image_size=64", "space.name=mobile"])
    assert config.space.name == "mobile" and "nodes" not in config.space.options
    assert (config.target.cells, config.target.image_size, config.training.lr) == (None, 64, 0.5)
    same = load(str(path), ["space.name=cell"])
    assert same.space.options["nodes"] == 2 and same.target.cells == 8


def test_a_section_that_the_file_leaves_empty_can_be_overridden(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("training:\n")
    assert load(str(path), ["training.lr=0.1"]).training.lr == 0.1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pruning.gamma", "--set pruning.gamma: give section.key=value, such as --set pruning.gamma=0.8"),
        ("=3", "--set =3: give section.key=value"),
        ("seed.x=1", "--set seed.x=1: seed is a value, not a section"),
        ("pruning.gamma=[", "--set pruning.gamma=[: '[' is not a YAML value"),
        ("data.path=2024-13-45", "--set data.path=2024-13-45: '2024-13-45' is not a YAML value"),
        ("pruning.gama=1", "pruning.gama is not a key; did you mean pruning.gamma?"),
        ("prunning.gamma=1", "prunning is not a key; did you mean pruning?"),
        ("pruning.gamma.x=1", "--set pruning.gamma.x=1: gamma is a value, not a section"),
    ],
)
def test_what_is_wrong_with_an_override_is_said(override: str, message: str) -> None:
    assert message in refused_override(override)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.lr=fast"], "--set training.lr=fast: training.lr is 'fast'"),
        (["training.lr=1", " training.lr = 0"], "--set  training.lr = 0: training.lr is 0; input"),
        (["training={lr: fast}", "training.momentum=0.5"], "--set training={lr: fast}: training.lr is 'fast'"),
        (["pruning.gama=1", "pruning.gamma=0.5"], "--set pruning.gama=1: pruning.gama is not a key"),
        (["trainng.lr=1"], "--set trainng.lr=1: trainng is not a key"),
        (["pruning=3"], "--set pruning=3: pruning: expected a section with keys, got 3"),
        (["space.node=2"], "--set space.node=2: space.node is not an option of space 'cell'"),
        (["space.name=cel"], "--set space.name=cel: space.name: 'cel' is not a built-in space"),
        (["seed=1", "evaluation.kind=table"], "--set evaluation.kind=table: evaluation.table is missing"),
        (["evaluation.probe=4"], "--set evaluation.probe=4: evaluation.probe is 4"),
        (["training.merge=sequential"], "--set training.merge=sequential: training.merge=sequential needs"),
        (["execution.elastic=true"], "--set execution.elastic=true: execution.elastic=true needs"),
        (["execution.group=2"], "--set execution.group=2: execution.group=2 does not divide training.shards=1"),
        (["training.shards=4", "execution.group=3"], "--set execution.group=3: execution.group=3 does not divide"),
        (["training.shards=64"], "--set training.shards=64: training.shards=64 of training.batch_size=64 have fewer"),
        (["training.shards=2", "training.bn_images=0"], "--set training.bn_images=0: training.bn_images=0 scores with"),
        (["training.shards=3"], "--set training.shards=3: training.shards is 3"),
        (
            ["training.shards=2", "execution.group=2", "execution.gpus_per_worker=0.5"],
            "--set execution.gpus_per_worker=0.5: execution.group=2 needs a whole GPU for each process",
        ),
        (["training.lrr=1", "training.lr=0.1"], "--set training.lrr=1: training.lrr is not a key"),
        (["space={name: mobile}", "space.node=2"], "--set space.node=2: space.node is not an option"),
    ],
)
def test_an_error_of_an_override_names_the_override(overrides: list[str], message: str) -> None:
    assert refused_override(*overrides).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: {lr: fast}", "training.lr is 'fast'"),
        ("training: {lrr: 1}", "training.lrr is not a key"),
        ("space: {node: 2}", "space.node is not an option"),
        ("evaluation: {kind: table}", "evaluation.table is missing"),
        ("space: {name: cel}", "space.name: 'cel' is not a built-in space"),
    ],
)
def test_an_error_of_the_file_names_the_file_whatever_else_was_overridden(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load(str(path), ["training.momentum=0.5", "seed=1", "pruning.gamma=0.5"])
    assert str(error.value).startswith(f"{path}: {message}")


def test_an_override_that_a_later_one_replaces_is_not_blamed() -> None:
    assert load(None, ["training.lr=fast", "training.lr=0.1"]).training.lr == 0.1


# --- user-defined spaces ---


def test_options_of_ones_own_space_are_filled_in_and_checked() -> None:
    config = read(f"space: {{name: '{OWN}', depth: 3}}")
    assert dict(config.space.options) == {"depth": 3, "name_of_it": "x"}
    assert refused(f"space: {{name: '{OWN}'}}") == f"a.yaml: space.depth is missing; space {OWN!r} needs it"
    assert refused(f"space: {{name: '{OWN}', depth: 0}}").startswith(
        "a.yaml: space.depth is 0; input should be greater"
    )
    assert refused(f"space: {{name: '{OWN}', depth: 1, dept: 2}}").endswith("; did you mean depth?")


def test_a_space_that_cannot_be_found() -> None:
    assert "did you mean cell?" in refused("space: {name: cel}")
    assert "cannot be imported" in refused("space: {name: 'no_such_lab:make'}")


# --- writing back ---


@pytest.mark.parametrize(
    "text",
    [
        "",
        "training: {lr: 1e-5, weight_decay: 3e-4, grad_clip: 0}",
        "data: {name: folder, path: 'a b: c', mean: [0.1, 0.2, 0.3], std: [1.0]}",
        "data: {name: folder, path: 'null'}",
        "data: {name: folder, path: '007'}",
        "space: {cells: 3}\nseed: 4294967295",
        f"space: {{name: '{OWN}', depth: 3}}",
        "execution: {workers: 3, gpus_per_worker: 0.5}",
    ],
)
def test_the_resolved_configuration_reads_back_as_itself(text: str) -> None:
    config = read(text)
    again = read(dump(config))
    assert again == config
    assert differing_keys(config, again) == []


@LAW
@example(path="1e5")
@given(path=st.one_of(st.from_regex(r"[-+]?[0-9.]{1,3}([eE][-+]?[0-9]{1,2})?", fullmatch=True), st.text(max_size=8)))
def test_any_path_reads_back_as_itself(path: str) -> None:
    config = check({"data": {"name": "folder", "path": path}}, "a.yaml")
    assert read(dump(config)) == config


@LAW
@given(
    lr=st.floats(min_value=0.0, exclude_min=True, allow_nan=False, allow_infinity=False),
    gamma=st.floats(min_value=0.0, max_value=1.0, exclude_max=True),
)
def test_any_number_reads_back_bit_for_bit(lr: float, gamma: float) -> None:
    config = check({"training": {"lr": lr}, "pruning": {"gamma": gamma}}, "a.yaml")
    assert read(dump(config)) == config


def test_a_dump_names_every_key() -> None:
    values = to_dict(read(""))
    assert values["space"] == {"name": "cell", **CELL}
    assert values["task"] == {"name": "classification", "metric": "accuracy"}
    for field in dataclasses.fields(SearchConfig):
        if dataclasses.is_dataclass(field.default) and field.name not in ("space", "task"):
            assert set(values[field.name]) == {key.name for key in dataclasses.fields(field.default)}  # type: ignore[arg-type]


# --- help, and the value itself ---


def test_every_key_has_a_default_and_a_meaning() -> None:
    rows = {key: (default, meaning) for key, default, meaning in describe()}
    for section, values in to_dict(read("")).items():
        if section in ("space", "task"):
            continue
        keys = [f"{section}.{key}" for key in values] if isinstance(values, dict) else [section]
        for key in keys:
            assert key in rows, key
    for key, (default, meaning) in rows.items():
        assert default, key
        assert len(meaning) > 10, key
        assert "\n" not in meaning
    assert rows["pruning.gamma"][0] == "0.9"
    assert rows["data.path"][0] == "null"
    assert {"space.name", "task.name"} <= rows.keys()


def test_a_configuration_can_be_pickled() -> None:
    config = read(f"space: {{name: '{OWN}', depth: 3}}\ndata: {{mean: [0.1]}}")
    assert pickle.loads(pickle.dumps(config)) == config


def test_a_configuration_cannot_be_changed() -> None:
    config = read("")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.training.lr = 1.0  # type: ignore[misc]


def test_shards_need_two_examples_each() -> None:
    from ddpnas_ray.experiment.experiment import Experiment

    config = load(None, ["data.train_limit=15", "training.shards=8"])
    with pytest.raises(ConfigError, match=r"training\.shards is 8: 15 training examples give some shard fewer than 2"):
        Experiment.prepare(config)
