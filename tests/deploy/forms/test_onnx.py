"""``model.onnx``: opset, free batch, metadata, one file, nothing of the machine that wrote it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ddpnas_ray.core.errors import ModelError
from ddpnas_ray.deploy.forms import onnx as form
from ddpnas_ray.deploy.loaded import load_model
from ddpnas_ray.deploy.verify import compare, logits_of
from ddpnas_ray.spaces.base import find_space
from tests.deploy.making import AWKWARD, noise, tiny, trained

MISSING = "ONNX is not installed; pip install -e '.[deploy]' has onnx, onnxscript and onnxruntime"
onnx = pytest.importorskip("onnx", reason=MISSING)
pytest.importorskip("onnxscript", reason=MISSING)
pytest.importorskip("onnxruntime", reason=MISSING)


@pytest.mark.slow
def test_the_file_is_as_documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny()
    form.write(network, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model)
    assert [(entry.domain, entry.version) for entry in model.opset_import if entry.domain == ""] == [("", 20)]
    (images,), (logits,) = model.graph.input, model.graph.output
    assert (images.name, logits.name) == ("images", "logits")
    sides = [side.dim_param or side.dim_value for side in images.type.tensor_type.shape.dim]
    assert sides == ["batch", 3, 8, 8]
    assert [side.dim_param or side.dim_value for side in logits.type.tensor_type.shape.dim] == ["batch", 10]
    metadata = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert metadata["classes"] == list(AWKWARD)
    assert (metadata["mean"], metadata["image_size"]) == ([0.5, 0.4, 0.3], 8)
    assert metadata["genotype"] == network.genotype
    stored = (tmp_path / "model.onnx").read_bytes()
    assert str(Path(__file__).parents[3]).encode() not in stored
    assert b"ddpnas_ray" not in stored
    monkeypatch.chdir(tmp_path)
    exec(form.USAGE, usage := {})
    assert usage["logits"].shape == (2, 10)
    loaded = load_model(tmp_path / "model.onnx")
    for count in (1, 5):
        compare("onnx", loaded.logits(noise(network, count)), logits_of(network.module(), noise(network, count)))


@pytest.mark.slow
def test_a_network_without_operations_is_exported_too(tmp_path: Path) -> None:
    network = trained(find_space("nasbench201")(), np.zeros(6, int), cells=1, channels=4, size=7)
    form.write(network, tmp_path)
    compare("onnx", form.load(str(tmp_path))(noise(network)), logits_of(network.module(), noise(network)))


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(ModelError, match=r"model\.onnx: ONNX Runtime cannot open it") as error:
        load_model(tmp_path / "model.onnx")
    assert "\n" not in str(error.value)
