"""Configurations that are refused, each in one line that says where, what was given and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddpnas_ray import search
from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.experiment.config import (
    load,
    make_strategy,
)
from ddpnas_ray.experiment.yaml_text import packaged
from ddpnas_ray.spaces.base import find_space
from tests.commands import run
from tests.conftest import ROOT
from tests.experiment.configs import read, refused


def test_an_unknown_key_names_file_and_likely_meaning(tmp_path: Path) -> None:
    path = tmp_path / "cifar10_cell.yaml"
    path.write_text("pruning: {epoch_per_round: 3}")
    with pytest.raises(ConfigError) as error:
        load(str(path))
    assert str(error.value) == (f"{path}: pruning.epoch_per_round is not a key; did you mean pruning.epochs_per_round?")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prune: {}", "a.yaml: prune is not a key; did you mean pruning?"),
        (
            "zzz: 1",
            "a.yaml: zzz is not a key; allowed: data, evaluation, evolution, execution, finals, multinomial, ",
        ),
        ("target: {cell: 3}", "a.yaml: target.cell is not a key; did you mean target.cells?"),
        ("1: 2", "a.yaml: 1 is not a key"),
        ("space: {cels: 3}", "a.yaml: space.cels is not an option of space 'cell'; did you mean cells?"),
    ],
)
def test_unknown_keys(text: str, message: str) -> None:
    assert refused(text).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: {batch_size: 64.0}", "a.yaml: training.batch_size is 64.0; input should be a valid integer"),
        ("training: {batch_size: '64'}", "a.yaml: training.batch_size is '64'; input should be a valid integer"),
        ("training: {batch_size: true}", "a.yaml: training.batch_size is True; input should be a valid integer"),
        ("training: {lr: fast}", "a.yaml: training.lr is 'fast'; input should be a valid number"),
        ("training: {lr: null}", "a.yaml: training.lr is None; input should be a valid number"),
        ("training: {lr: {a: 1}}", "a.yaml: training.lr is {'a': 1}; input should be a valid number"),
        ("training: {channels_last: 1}", "a.yaml: training.channels_last is 1; input should be a valid boolean"),
        ("data: {path: 3}", "a.yaml: data.path is 3; input should be a valid string"),
        ("data: {mean: 0.5}", "a.yaml: data.mean is 0.5; input should be a valid tuple"),
        ("seed: null", "a.yaml: seed is None; input should be a valid integer"),
        ("pruning: 3", "a.yaml: pruning: expected a section with keys, got 3"),
        ("pruning: [gamma]", "a.yaml: pruning: expected a section with keys, got ['gamma']"),
        ("space: 3", "a.yaml: space: expected a section such as {name: cell}, got 3"),
        ("space: [cell]", "a.yaml: space: expected a section such as {name: cell}, got ['cell']"),
        ("space: {name: 3}", "a.yaml: space.name: expected a name, got 3"),
        ("space: {cells: 2.0}", "a.yaml: space.cells is 2.0; input should be a valid integer"),
    ],
)
def test_wrong_types(text: str, message: str) -> None:
    assert refused(text) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pruning: {gamma: 1.0}", "a.yaml: pruning.gamma is 1.0; input should be less than 1"),
        (
            "pruning: {epochs_per_round: 0}",
            "a.yaml: pruning.epochs_per_round is 0; input should be greater than or equal to 1",
        ),
        ("training: {lr: 0}", "a.yaml: training.lr is 0; input should be greater than 0"),
        ("training: {lr: .nan}", "a.yaml: training.lr is nan; input should be a finite number"),
        ("training: {batch_size: 1}", "a.yaml: training.batch_size is 1; input should be greater than or equal to 2"),
        (
            "training: {merge: average}",
            "a.yaml: training.merge is 'average'; input should be 'mean', 'sequential' or 'none'",
        ),
        (
            "data: {name: digit}",
            "a.yaml: data.name: 'digit' is not a built-in data set or module:function; did you mean digits?",
        ),
        ("data: {val_fraction: 1.0}", "a.yaml: data.val_fraction is 1.0; input should be less than 1"),
        ("data: {std: [0.5, 0.0]}", "a.yaml: data.std is [0.5, 0.0]; input should be greater than 0"),
        ("seed: -1", "a.yaml: seed is -1; input should be greater than or equal to 0"),
        ("seed: 4294967296", "a.yaml: seed is 4294967296; input should be less than 4294967296"),
        ("space: {cells: 0}", "a.yaml: space.cells is 0; input should be greater than or equal to 1"),
        ("space: {nodes: 9}", "a.yaml: space.nodes is 9; input should be less than or equal to 8"),
        ("execution: {retry_deadline_s: 0}", "a.yaml: execution.retry_deadline_s is 0; input should be greater than 0"),
        (
            "strategy: darts",
            "a.yaml: strategy: 'darts' is not a built-in strategy or module:function; allowed: evolution, "
            "multinomial, optuna, pruning, random, reinforce, surrogate",
        ),
    ],
)
def test_values_out_of_range(text: str, message: str) -> None:
    assert refused(text) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nseed: 2", "line 1: is not valid YAML: duplicate key 'seed'"),
        ("seed: 1\npruning: {gamma: 0.8, gamma: 0.9}", "line 2: is not valid YAML: duplicate key 'gamma'"),
        ("a: [", "a.yaml: line 1: is not valid YAML"),
        ("seed: 1\n  b: 2", "a.yaml: line 2: is not valid YAML"),
        ("- a", "a.yaml: expected sections such as 'training: {lr: 0.025}', got a list"),
        ("hello", "a.yaml: expected sections such as 'training: {lr: 0.025}', got a str"),
        ("a: 1\n---\nb: 2", "is not valid YAML"),
        ("seed: !!python/object:os.system {}", "is not valid YAML"),
        ("seed: 2024-13-45", "is not valid YAML"),
    ],
)
def test_what_is_no_configuration(text: str, message: str) -> None:
    assert message in refused(text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path, message in (
        (
            tmp_path / "absent.yaml",
            "cannot be read: No such file or directory; --config takes a YAML file, or the name of a packaged "
            f"one: {', '.join(packaged())}",
        ),
        (tmp_path, "cannot be read: Is a directory; --config takes a YAML file"),
        (binary, "is not UTF-8 text; --config takes a YAML file"),
    ):
        with pytest.raises(ConfigError) as error:
            load(str(path))
        assert str(error.value) == f"{path}: {message}"


@pytest.mark.parametrize("name", ["cifar10_cell", "cifar10_cell.yaml"])
def test_a_configuration_of_the_package_is_found_by_name_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(name) == load(str(ROOT / "configs" / "cifar10_cell.yaml"))
    (tmp_path / "cifar10_cell").mkdir()
    assert load(name).data.name == "cifar10", "a folder of that name is not a configuration"
    (tmp_path / "cifar10_cell.yaml").write_text("seed: 7")
    assert load("cifar10_cell.yaml").seed == 7, "a file of one's own wins"


def test_every_configuration_has_a_name_and_another_name_lists_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert list(packaged()) == ["digits", *sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))]
    assert load("digits") == load(None)
    for name in ("cifar10_cel", "configs/cifar10_cell.yaml", "digits.yaml.yaml"):
        with pytest.raises(ConfigError) as error:
            load(name)
        assert str(error.value).endswith(f"packaged one: {', '.join(packaged())}")


def test_a_file_is_read_by_its_uri(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("pruning: {gamma: 0.8}\n")
    assert load(file.as_uri()) == load(str(file))
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    for uri, fragment in (
        (f"{file.as_uri()}.absent", "No such file or directory; --config takes a YAML file"),
        (tmp_path.as_uri(), "is a directory; --config takes a YAML file"),
        (binary.as_uri(), "is not UTF-8 text; --config takes a YAML file"),
        ("gopher://my.yaml", "Unrecognized filesystem type"),
    ):
        said = run(search.main, "--config", uri, "--out", tmp_path / "run")
        assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
        assert uri in said.err and fragment in said.err


def test_sequential_merging_needs_the_local_backend() -> None:
    assert "sequential needs execution.backend=local" in refused("training: {merge: sequential}")
    assert read("training: {merge: sequential}\nexecution: {backend: local}").training.merge == "sequential"


def test_what_needs_shared_weights_is_refused_without_them() -> None:
    assert read("training: {merge: none}").shares_nothing
    assert "shares none: remove one of them" in refused(
        "training: {merge: none}\nevaluation: {probe: 5, table: x.parquet}"
    )
    config = read("training: {merge: none}\nevaluation: {budget: 100}")
    with pytest.raises(ConfigError, match="exceeds the 99 evaluations of Algorithm 1 is scored with inherited"):
        make_strategy(config, find_space("cell")().space)
    assert make_strategy(read("training: {merge: none}"), find_space("cell")().space).by_rounds


def test_predictions_need_scores_that_can_be_compared() -> None:
    text = refused("pruning: {result: predicted}")
    assert "a supernet's rise while it trains (training.merge=mean); set training.merge=none" in text
    assert read("pruning: {result: predicted}\ntraining: {merge: none}").pruning.noise == 3.0
    assert (
        read("pruning: {result: predicted}\nevaluation: {kind: table, table: x.parquet}\nstrategy: pruning").trains
        is False
    )
    assert read("pruning: {result: predicted}\nstrategy: evolution").strategy == "evolution"
