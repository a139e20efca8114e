"""Model folders: whole or absent, replaced only as they were written, and edits are recognised."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpnas_ray.core.errors import ConfigError, ExportError, ModelError
from ddpnas_ray.deploy import folder as folders
from ddpnas_ray.deploy.folder import MANIFEST, check_replaceable, read_model, sha256, write_model
from ddpnas_ray.deploy.forms import torch as plain
from ddpnas_ray.deploy.trained import TrainedNetwork
from tests.deploy.making import noise, one, tiny


def test_a_folder_has_its_files_and_their_digests(written: Path) -> None:
    names = ["MANIFEST.json", "README.md", "genotype.json", "model.pt2", "model.safetensors", "network.py"]
    assert sorted(path.name for path in written.iterdir()) == names
    assert [path.name for path in written.parent.iterdir()] == ["model"]
    found = read_model(written)
    assert found.forms == ("torch", "pt2")
    assert found.files == {name: sha256(written / name) for name in names[1:]}
    assert json.loads((written / "genotype.json").read_text()) == tiny().genotype


@pytest.mark.parametrize("name", ["network.py", "README.md", "model.safetensors"])
def test_an_edited_file_is_named(name: str, model: Path) -> None:
    with open(model / name, "ab") as file:
        file.write(b"#")
    with pytest.raises(ModelError, match=f"{name} was edited since it was written; export the network again, or"):
        read_model(model)
    assert read_model(model, verify=False).forms == ("torch", "pt2")
    with pytest.raises(ModelError, match=f"{name} was edited since it was written, and would be lost"):
        check_replaceable(model)


def test_added_and_removed_files_are_named(model: Path) -> None:
    (model / "__pycache__").mkdir()
    read_model(model)
    (model / "notes.txt").write_text("mine")
    with pytest.raises(ModelError, match=r"notes\.txt was added"):
        read_model(model)
    (model / "notes.txt").unlink()
    (model / "genotype.json").unlink()
    with pytest.raises(ModelError, match=r"genotype\.json was removed"):
        read_model(model)


def test_hidden_files_are_no_edit_but_are_not_lost(model: Path) -> None:
    for name in ("__pycache__", ".ipynb_checkpoints", ".DS_Store"):
        (model / name).mkdir()
    check_replaceable(model)
    (model / ".git").mkdir()
    read_model(model)
    with pytest.raises(ModelError, match=r"\.git was added since it was written, and would be lost"):
        check_replaceable(model)


def test_other_folders_are_not_model_folders(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a folder; give a model folder"):
        read_model(model / "README.md")
    with pytest.raises(ModelError, match=r"not a model folder: it has no MANIFEST\.json"):
        read_model(tmp_path)
    listed = json.dumps(json.loads((model / MANIFEST).read_text()) | {"forms": [1]})
    other, short = '{"format": "other", "files": {}, "forms": []}', '{"format": "ddpnas model folder"}'
    for damaged in (listed, other, short, "{", "[]"):
        (model / MANIFEST).write_text(damaged)
        with pytest.raises(ModelError, match=r"MANIFEST\.json: damaged"):
            read_model(model)


def test_only_new_empty_and_model_folders_are_written_to(model: Path, tmp_path: Path) -> None:
    check_replaceable(tmp_path / "new")
    check_replaceable(model)
    (tmp_path / "empty").mkdir()
    check_replaceable(tmp_path / "empty")
    (tmp_path / "link").symlink_to(model)
    for path, reason in (
        (tmp_path, "not empty, and not a model folder; choose another --out"),
        (model / "README.md", "exists and is not a folder"),
        (tmp_path / "link", "exists and is not a folder"),
        ("s3://bucket/model", "model folders are written to local disks"),
        ("hf://me/model", "model folders are written to local disks"),
        (tmp_path / ("x" * 300), "cannot be written: File name too long"),
    ):
        with pytest.raises(ModelError, match=reason):
            check_replaceable(path)


FILES = plain.FILES
metadata = plain.metadata


def write(network: TrainedNetwork, folder: Path) -> None:
    plain.write(network, folder)


def load(folder: str) -> Callable[[Any], Any]:
    return lambda images: images.reshape(len(images), -1)[:, :10]


def test_a_form_that_differs_leaves_the_old_folder_as_it_was(model: Path) -> None:
    before, network = read_model(model), tiny(seed=1)
    with pytest.raises(
        ExportError, match=r"form tests.deploy.test_folder:write does not compute what the network does"
    ):
        write_model(network, model, examples=noise(network), forms=["tests.deploy.test_folder:write"])
    assert read_model(model) == before
    assert [path.name for path in model.parent.iterdir()] == ["model"]


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forms are written without a check: another test checks."""

    class Unchecked:
        def check(self, *given: Any) -> list[Any]:
            return []

    monkeypatch.setattr(folders, "fresh_process", lambda forms: nullcontext(Unchecked()))


@pytest.mark.usefixtures("unchecked")
def test_what_killed_exports_left_is_undone(model: Path, tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    for name in (f"model-writing-{ended.pid}", f"other-writing-{ended.pid}", "model-writing-1", "model-2"):
        (tmp_path / name).mkdir()
    model.rename(tmp_path / f"model-replaced-{ended.pid}")
    with pytest.raises(ExportError), folders._beside(model):
        raise ExportError("the new one is not written")
    assert read_model(model).forms == ("torch", "pt2"), "the old one is back"
    write_model(tiny(), model, examples=noise(tiny()), forms=["torch"])
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["model", "model-2", "model-writing-1", f"other-writing-{ended.pid}"], "of others and of a process"


@pytest.mark.usefixtures("unchecked")
def test_the_current_folder_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_model(tiny(), ".", examples=noise(tiny()), forms=["torch"])
    monkeypatch.chdir(tmp_path)
    assert read_model("here").forms == ("torch",)
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


@pytest.mark.usefixtures("unchecked")
def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ModelError, match="cannot be written: No space left on device; choose another"):
        write_model(one(), tmp_path / "model", examples=noise(one()), forms=["pt2"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("unchecked")
def test_a_model_folder_is_replaced_whole(model: Path) -> None:
    before, network = read_model(model), tiny(seed=1)
    write_model(network, model, examples=noise(network), forms=["torch"])
    after = read_model(model)
    assert after.forms == ("torch",)
    assert after.files["network.py"] != before.files["network.py"]
    assert not (model / "model.pt2").exists()
    assert [path.name for path in model.parent.iterdir()] == ["model"]


def test_bad_images_and_unwritable_folders_are_one_line(tmp_path: Path) -> None:
    network = tiny()
    for images in (noise(network)[:0], noise(network)[:, :1], np.zeros((3, 8, 8), np.float32)):
        with pytest.raises(ConfigError, match=r"images of shape .* the network takes \(N, 3, 8, 8\), one or more"):
            write_model(network, tmp_path / "model", examples=images, forms=["torch"])
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=r"cannot be written: .*; choose another --out"), folders._errors(tmp_path):
        (tmp_path / "file" / "model").mkdir()
