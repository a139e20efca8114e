"""What is retrained, on which data and with which recipe, from a run, a configuration and options."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ddpnas_ray.core.errors import ConfigError, GenotypeError, RunDirError
from ddpnas_ray.experiment.config import dump, load
from ddpnas_ray.retraining.choice import Chosen, of_file
from ddpnas_ray.retraining.prepare import Wish, label_of, make
from ddpnas_ray.retraining.retraining import Retraining, Teacher, deploy_network
from ddpnas_ray.spaces.target import Target
from ddpnas_ray.storage.folder import Folder
from tests.conftest import TINY
from tests.retraining.finished import searched


def small(**wish: object) -> Retraining:
    return make(Wish(**{"network": "darts_v2", "overrides": TINY[3:], **wish}))  # type: ignore[arg-type]


def test_a_runs_configuration_is_the_default_and_options_change_it() -> None:
    retraining = make(Wish(run=str(searched()), overrides=["retraining.lr=0.5"]))
    assert retraining.config.retraining.lr == 0.5
    assert retraining.config.space.options["channels"] == 4
    assert retraining.chosen.label == "result"


def test_another_configuration_keeps_the_runs_space(tmp_path: Path) -> None:
    """Cells found on one data set, trained on another."""
    other = tmp_path / "other.yaml"
    other.write_text(dump(load(None, ["target.cells=4", "target.channels=8", "retraining.epochs=7", "seed=3"])))
    retraining = make(Wish(run=str(searched()), config=str(other)))
    assert retraining.config.space.options["channels"] == 4, "the search's"
    assert (retraining.chosen.target.cells, retraining.chosen.target.channels) == (4, 8)
    assert retraining.config.retraining.epochs == 7 and retraining.seeds == [3]
    own = make(Wish(run=str(searched())))
    assert own.chosen.genotype == retraining.chosen.genotype
    assert own.chosen.costs["params"] < retraining.chosen.costs["params"]


def test_other_data_than_the_searchs_are_refused_where_they_should_be_the_same(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(searched(), run)
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps(environment | {"data_digest": "0" * 64}))
    with pytest.raises(RunDirError, match="the data differ from those of the run"):
        make(Wish(run=str(run)))
    make(Wish(run=str(run), overrides=["data.train_limit=40"]))  # on purpose


def test_labels_need_no_data() -> None:
    gone = ["data.name=folder", "data.path=nowhere", "data.image_size=32"]
    assert label_of(Wish(network="darts_v2", overrides=gone)) == "darts_v2"
    assert label_of(Wish(run=str(searched()))) == "result"


def test_a_file_names_its_network(tmp_path: Path) -> None:
    genotype = json.loads((searched() / "result.json").read_text())["genotype"]
    target = Target(image_size=8, classes=10, input_channels=1, cells=3, channels=4, stem="cifar")
    space = {"name": "cell", "nodes": 2}
    for name, content in (("mine.json", genotype), ("macs=1M/genotype.json", {"genotype": genotype, "budget": "x"})):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
        chosen = of_file(str(tmp_path / name), space, target)
        assert chosen.label == ("mine" if name == "mine.json" else "macs=1M")
        assert chosen.genotype == genotype
    for content, reason in (
        ("[1]", "expected a JSON object"),
        ("{", "line 1"),
        ('{"normal": []}', "the space is cell"),
    ):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(GenotypeError, match=reason):
            of_file(str(tmp_path / "bad.json"), space, target)


def test_the_architecture_survives_its_file(tmp_path: Path) -> None:
    chosen = small().chosen
    folder = Folder.open(str(tmp_path))
    folder.write("network.json", json.dumps(chosen.json()).encode())
    again = Chosen.read(folder)
    assert again.json() == chosen.json() and again.target == chosen.target
    folder.write("network.json", b'{"schema_version": 2}')
    with pytest.raises(RunDirError, match=r"network.json cannot be read"):
        Chosen.read(folder)


def test_initial_weights_depend_on_the_seed_alone() -> None:
    retraining = small()
    states = [retraining.network(seed).state_dict() for seed in (1, 1, 2)]
    assert all((states[0][name] == states[1][name]).all() for name in states[0])
    assert any((states[0][name] != states[2][name]).any() for name in states[0])


def test_inherited_weights_are_those_of_the_supernet() -> None:
    from safetensors.numpy import load_file

    retraining = make(Wish(run=str(searched()), overrides=["retraining.init=inherited"]))
    supernet = load_file(searched() / "weights.safetensors")
    assert 0.1 < retraining.inherited_share < 1
    network = dict(retraining.network(0).named_parameters())
    for name, values in retraining.inherited.items():
        np.testing.assert_array_equal(network[name].detach().numpy(), values)
        assert any(other.shape == values.shape and np.array_equal(other, values) for other in supernet.values())


def test_teachers_are_functions_or_retrained_networks() -> None:
    with pytest.raises(ConfigError, match="returned dict, not a Module"):
        small(overrides=[*TINY[3:], "retraining.teacher=builtins:dict"])
    taught = small(overrides=[*TINY[3:], "retraining.teacher=tests.retraining.test_prepare:a_teacher"])
    assert taught.teacher is not None and not taught.teacher.module().training
    chosen = small().chosen
    tensors = {name: value.numpy() for name, value in deploy_network(chosen).state_dict().items()}
    module = Teacher(chosen, tensors).module()
    assert not module.training and not any(p.requires_grad for p in module.parameters())


def a_teacher() -> object:
    return deploy_network(small().chosen)
