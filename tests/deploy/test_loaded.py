"""Model folders and single files are loaded and run without the search's files."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest

from ddpnas_ray.core.errors import ConfigError, ModelError, ResourceError
from ddpnas_ray.deploy import registry
from ddpnas_ray.deploy.loaded import load_model
from ddpnas_ray.deploy.verify import logits_of
from tests.deploy.making import AWKWARD, noise, tiny


@pytest.mark.parametrize(
    ("file", "form", "loaded"),
    [
        ("", None, "torch"),
        ("", "pt2", "pt2"),
        ("network.py", None, "torch"),
        ("model.safetensors", None, "torch"),
        ("model.pt2", None, "pt2"),
    ],
)
def test_folders_and_files_compute_the_logits(file: str, form: str | None, loaded: str, written: Path) -> None:
    network, model = tiny(), load_model(written / file, form)
    assert (model.form, model.classes, model.preprocessing) == (loaded, AWKWARD, network.preprocessing)
    images = noise(network, 3)
    assert np.array_equal(model.logits(images), logits_of(network.module(), images))
    assert model.logits(images[:0]).shape == (0, 10)
    assert [path.name for path in written.iterdir() if path.is_dir()] == []
    with pytest.raises(ValueError, match=r"images of shape \(3, 3, 9, 8\); \(N, 3, 8, 8\) is needed"):
        model.logits(np.zeros((3, 3, 9, 8), np.float32))


def test_a_file_alone_is_enough(written: Path, tmp_path: Path) -> None:
    shutil.copy(written / "model.pt2", tmp_path)
    assert load_model(tmp_path / "model.pt2").classes == AWKWARD


def test_what_cannot_be_loaded_is_one_line(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="nowhere: does not exist; give a model folder"):
        load_model(model / "nowhere")
    with pytest.raises(ModelError, match=r"README\.md: not a file of a model folder; allowed: config\.json, model\.on"):
        load_model(model / "README.md")
    with pytest.raises(ModelError, match="it has no form onnx; allowed: pt2, torch"):
        load_model(model, "onnx")
    with pytest.raises(ConfigError, match=r"'tourch' is not a built-in form .* did you mean torch"):
        load_model(model, "tourch")
    with pytest.raises(ConfigError, match=r"form: 'onnx', but model\.pt2 is of form pt2"):
        load_model(model / "model.pt2", "onnx")
    real = importlib.util.find_spec
    monkeypatch.setattr(
        registry.importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else real(name)
    )  # type: ignore[attr-defined]
    (model / "model.onnx").write_bytes(b"")
    with pytest.raises(ResourceError, match=r"^form onnx needs onnxruntime: pip install 'ddpnas-ray\[deploy\]'$"):
        load_model(model / "model.onnx", verify=False)


def test_edited_and_damaged_files_are_one_line(model: Path) -> None:
    text = (model / "network.py").read_text()
    (model / "network.py").write_text(text.replace("def forward(self, x: Tensor", "def forward(self"))
    loaded = load_model(model, verify=False)
    with pytest.raises(ModelError, match=r"form torch fails \(TypeError"):
        loaded.logits(noise(tiny()))
