"""The command: which network, where to, and one line for whatever is wrong. Forms are tested in tests/deploy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ddpnas_ray.core.errors import ModelError
from ddpnas_ray.deploy.loaded import load_model
from ddpnas_ray.export import main
from ddpnas_ray.launch.exporting import find_retrained, is_exported, load_trained, model_folder_of
from ddpnas_ray.retraining.files import read_trained
from ddpnas_ray.retraining.retraining import deploy_network
from ddpnas_ray.storage.folder import Folder
from tests.commands import Said, contents, options, run
from tests.retraining.finished import searched, trained


def export(*words: str | Path) -> Said:
    return run(main, *words)


def refused(*words: str | Path) -> str:
    said = export(*words)
    assert said.code == 2, said.err
    return said.err.splitlines()[-1]


@pytest.fixture
def a_run(tmp_path: Path) -> Path:
    """A search with one retrained network."""
    shutil.copytree(searched(), tmp_path / "run")
    shutil.copytree(trained(), tmp_path / "run" / "retrained" / "result")
    return tmp_path / "run"


def test_the_only_network_of_a_run_is_exported_beside_it(a_run: Path) -> None:
    said = export(a_run, "--forms", "torch")
    assert said.code == 0, said.err
    assert said.out.splitlines()[-1] == f"model {a_run / 'model'}"
    model = load_model(a_run / "model")
    assert model.classes == tuple("0123456789")
    assert "network.py" in said.out and "200/200" not in said.out and "64/64" in said.out
    card = (a_run / "model" / "README.md").read_text()
    result = json.loads((trained() / "result.json").read_text())
    for score in result["scores"]:
        assert f"{100 * score['value']:.2f} %" in card
    assert json.loads((searched() / "result.json").read_text())["fingerprint"] in card


def test_it_computes_what_was_trained(a_run: Path) -> None:
    import torch

    assert export(a_run, "--forms", "torch", "--json").code == 0
    folder = Folder.open(str(a_run / "retrained" / "result"))
    chosen, tensors, _ = read_trained(folder)
    _, task = load_trained(folder)
    batch = next(iter(task.validation_batches(32)))
    with torch.no_grad():
        expected = deploy_network(chosen, tensors).eval()(batch.inputs).numpy()
    assert abs(load_model(a_run / "model").logits(batch.inputs.numpy()) - expected).max() < 1e-5


def test_json_has_the_comparison(a_run: Path) -> None:
    said = export(a_run, "--forms", "torch", "--json")
    values = json.loads(said.out)
    (row,) = values["forms"]
    assert row["form"] == "torch" and row["labels_agree"] == row["images"] and row["largest_difference"] < 1e-4
    assert "a fresh process compares each form" in said.err


def test_of_several_networks_one_is_named(a_run: Path) -> None:
    shutil.copytree(a_run / "retrained" / "result", a_run / "retrained" / "macs=1M")
    assert "several networks were retrained; give --network, one of macs=1M, result" in refused(a_run)
    assert "no retrained network macs=2M; did you mean macs=1M?" in refused(a_run, "--network", "macs=2M")
    assert export(a_run, "--network", "macs=1M", "--forms", "torch").code == 0
    assert (a_run / "model-macs=1M" / "MANIFEST.json").is_file()


def test_a_network_stays_where_it_is_when_others_are_retrained(a_run: Path) -> None:
    assert export(a_run, "--forms", "torch").code == 0
    for name in ("stray", "unfinished"):
        (a_run / "retrained" / name).mkdir()
    (a_run / "retrained" / "note.txt").write_text("mine")
    (a_run / "retrained" / "unfinished" / "config.yaml").write_text("")
    result = Folder.open(str(a_run / "retrained" / "result"))
    assert model_folder_of(result) == str(a_run / "model")
    other = a_run / "retrained" / "macs=1M"
    shutil.copytree(result.path, other)
    content = json.loads((other / "result.json").read_text())
    (other / "result.json").write_text(json.dumps(content | {"fingerprint": "another"}))
    assert model_folder_of(result) == str(a_run / "model")
    assert model_folder_of(Folder.open(str(other))) == str(a_run / "model-macs=1M")
    assert "the retraining of result, not of b; omit --network" in refused(result.path, "--network", "b")


def test_it_is_exported_in_every_form_that_is_possible_here(a_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result, model = Folder.open(str(a_run / "retrained" / "result")), a_run / "model"
    assert not is_exported(result, str(model))
    assert export(a_run, "--forms", "torch").code == 0
    monkeypatch.setattr("ddpnas_ray.deploy.registry.writable", lambda spec: (["torch"], []))
    assert is_exported(result, str(model))
    monkeypatch.setattr("ddpnas_ray.deploy.registry.writable", lambda spec: (["torch", "onnx"], []))
    assert not is_exported(result, str(model))
    (model / "README.md").write_text("mine")
    with pytest.raises(ModelError, match=r"README.md was edited .* would be lost; move it, or choose another --out"):
        is_exported(result, str(model))


def test_the_score_is_that_of_the_exported_seed(a_run: Path) -> None:
    folder = a_run / "retrained" / "result"
    content = json.loads((folder / "result.json").read_text())
    (score, *_), own = content["scores"], content["trainings"][0]
    content["trainings"].append({**own, "seed": own["seed"] + 1, score["split"]: 0.0})
    score.update(value=own[score["split"]] / 2, std=0.5, seeds=2)
    (folder / "result.json").write_text(json.dumps(content))
    network, _ = load_trained(Folder.open(str(folder)))
    (found, *_) = network.facts["scores"]
    assert (found["value"], found["mean"], found["std"]) == (own[score["split"]], score["value"], 0.5)


def test_default_folders() -> None:
    assert model_folder_of(Folder.open("runs/darts")) == "runs/darts/model"
    assert model_folder_of(Folder.open("runs/x/retrained/result")) == "runs/x/model"
    assert model_folder_of(Folder.open("file:///runs/x/retrained/macs%3D1M")) == "/runs/x/model"


def test_file_uris_are_local(a_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    assert export(a_run.as_uri(), "--forms", "torch").code == 0
    assert export(a_run.as_uri(), "--out", (tmp_path / "there").as_uri(), "--forms", "torch").code == 0
    assert (a_run / "model" / "MANIFEST.json").is_file()
    assert set(tmp_path.iterdir()) == before | {tmp_path / "there"}


def test_bad_input(a_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no network was retrained yet; first: python -m ddpnas_ray.retrain" in refused(searched())
    assert "is not a run directory" in refused(tmp_path)
    unfinished = a_run / "retrained" / "result" / "result.json"
    kept = unfinished.read_bytes()
    unfinished.unlink()
    assert "no network was retrained yet; unfinished: result (--resume continues)" in refused(a_run)
    assert "the retraining has not finished" in refused(a_run / "retrained" / "result")
    unfinished.write_bytes(kept)
    assert "--forms: 'torchscript' is not a built-in form" in refused(a_run, "--forms", "torchscript")
    assert "only data.path, data.val_path and data.test_path may change" in refused(a_run, *options("seed=3"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    assert "not empty, and not a model folder; choose another --out" in refused(a_run, "--out", tmp_path / "full")
    before = contents(a_run)
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None if name == "onnx" else find(name, *more))
    line = refused(a_run, "--forms", "onnx")
    assert "form onnx needs onnx: pip install 'ddpnas-ray[deploy]', or leave onnx out" in line
    assert contents(a_run) == before


def test_other_data_than_the_searchs_are_refused(a_run: Path) -> None:
    environment = a_run / "retrained" / "result" / "environment.json"
    values = json.loads(environment.read_text())
    environment.write_text(json.dumps(values | {"data_digest": "0" * 64}))
    assert "the data differ from those of the run" in refused(a_run)


def test_a_folder_edited_by_hand_is_not_overwritten(a_run: Path) -> None:
    assert export(a_run, "--forms", "torch").code == 0
    assert export(a_run, "--forms", "torch").code == 0, "as it was written, it is replaced"
    (a_run / "model" / "network.py").write_text("print('mine')")
    before = contents(a_run)
    assert "network.py was edited since it was written, and would be lost" in refused(a_run)
    assert contents(a_run) == before


def test_a_folder_of_a_retraining_is_found() -> None:
    assert find_retrained(str(trained())).uri == str(trained())
