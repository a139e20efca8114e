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
from ddpnas_ray.retraining.files import first_files
from ddpnas_ray.retraining.prepare import Wish, config_of, label_of, make, refuse_changed
from ddpnas_ray.retraining.retraining import Retraining
from ddpnas_ray.runs.directory import create_run
from ddpnas_ray.spaces.target import Target
from ddpnas_ray.storage.folder import Folder
from tests.conftest import TINY
from tests.retraining.finished import searched, trained


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


# --- resumes ---


def started(wish: Wish, out: Path) -> Folder:
    return create_run(str(out), first_files(make(wish)))


def other_config(folder: Path) -> str:
    file = folder / "other.yaml"
    file.write_text(dump(load(None, ["space.cells=5", "target.cells=4", "target.channels=8", "seed=3"])))
    return str(file)


def test_the_same_words_resume(tmp_path: Path) -> None:
    """Another configuration keeps the space of the run, and so on a resume, which need not name the run again."""
    wish = Wish(run=str(searched()), config=other_config(tmp_path))
    saved = started(wish, tmp_path / "x")
    for again in (wish, Wish(config=wish.config), Wish(run=wish.run), Wish()):
        assert make(again, saved).config == make(wish).config
    genotype = tmp_path / "mine.json"
    genotype.write_text(json.dumps({"genotype": dict(make(Wish(run=wish.run)).chosen.genotype)}))
    own = Wish(run=wish.run, config=wish.config, genotype=str(genotype), overrides=["space.nodes=2"])
    saved = started(own, tmp_path / "y")
    assert make(own, saved).config.space.options["cells"] == 5


def test_a_warm_start_resumes_without_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    shutil.copytree(searched(), run)
    monkeypatch.chdir(tmp_path)
    saved = started(Wish(run="run", overrides=["retraining.init=inherited"]), tmp_path / "x")
    monkeypatch.chdir("/")
    assert make(Wish(), saved).inherited_share > 0.1
    shutil.move(run, tmp_path / "moved")
    with pytest.raises(RunDirError, match=f"x: needs its run {run}, which is not there; give RUN, where it is now"):
        make(Wish(), saved)
    assert make(Wish(run=str(tmp_path / "moved")), saved).inherited_share > 0.1
    result = json.loads((tmp_path / "moved" / "result.json").read_text())
    (tmp_path / "moved" / "result.json").write_text(json.dumps(result | {"fingerprint": "0" * 64}))
    with pytest.raises(RunDirError, match=r"was started from another search than .*moved"):
        make(Wish(run=str(tmp_path / "moved")), saved)


def test_data_may_have_moved() -> None:
    saved = Folder.open(str(trained()))
    moved = ["data.path=a", "data.val_path=b", "data.test_path=c", "retraining.budgets=[macs=1M]"]
    assert config_of(Wish(overrides=moved), saved).data.val_path == "b"
    refuse_changed(Wish(overrides=moved), saved)


def test_another_training_than_that_of_the_folder_is_refused(tmp_path: Path) -> None:
    saved, run = Folder.open(str(trained())), str(searched())
    chosen = Chosen.read(saved)
    mine, own = tmp_path / "mine.json", dict(chosen.genotype)
    mine.write_text(json.dumps(own))
    for same in (Wish(), Wish(run=run), Wish(run=run, genotype=str(mine)), Wish(run=run, chosen=chosen)):
        refuse_changed(same, saved)
    refuse_changed(Wish(run=run, budget="macs=100%"), saved)
    mine.write_text(json.dumps(own | {"normal": [["skip_connect", edge] for _, edge in own["normal"]]}))
    for other, label in (
        (Wish(network="darts_v2"), "darts_v2"),
        (Wish(run=run, genotype=str(mine)), "mine"),
        (Wish(run=run, budget="macs=90%"), "macs="),
    ):
        with pytest.raises(RunDirError, match=f"is the training of another network, result, than {label}"):
            refuse_changed(other, saved)
    with pytest.raises(RunDirError, match=r"checkpoints are of another recipe: retraining.epochs differ"):
        refuse_changed(Wish(run=run, overrides=["retraining.epochs=50"]), saved)


# --- spaces ---


def test_a_file_of_another_space_takes_its_name(tmp_path: Path) -> None:
    known = make(Wish(network="mobilenet_v2", overrides=[*TINY[3:], "target={}"])).chosen
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps(dict(known.genotype)))
    wish = Wish(run=str(searched()), genotype=str(mine), overrides=["space.name=mobile"])
    found = make(wish)
    assert found.chosen.genotype == known.genotype and found.config.space.name == "mobile"
    assert make(wish, started(wish, tmp_path / "x")).config == found.config
    with pytest.raises(ConfigError, match="the network of the run is of space cell; give another with --genotype FILE"):
        make(Wish(run=str(searched()), overrides=["space.name=mobile"]))


def test_an_architecture_needs_no_run_and_no_name() -> None:
    chosen = make(Wish(run=str(searched()))).chosen
    found = make(Wish(chosen=chosen, overrides=TINY[3:]))
    assert found.chosen.genotype == chosen.genotype and found.chosen.search == chosen.search
    known = small().chosen
    in_run = make(Wish(run=str(searched()), chosen=known))
    assert in_run.chosen == make(Wish(run=str(searched()), network="darts_v2")).chosen
