"""Every space through every form: parity on real images, without this package, from another folder."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpnas_ray.deploy.folder import read_model, write_model
from ddpnas_ray.deploy.loaded import load_model
from ddpnas_ray.deploy.registry import FORMS
from ddpnas_ray.deploy.trained import TrainedNetwork
from ddpnas_ray.deploy.verify import TOLERANCE, logits_of
from ddpnas_ray.spaces.base import find_space
from tests.deploy.making import MOBILE, elsewhere, real_images, tiny, trained

pytestmark = pytest.mark.slow

CELL = find_space("cell")
NETWORKS: dict[str, Callable[[], TrainedNetwork]] = {
    "cell": lambda: trained(CELL(), size=32, cells=5, channels=8, stem="cifar", seed=1),
    "cell, imagenet stem, odd size": lambda: trained(CELL(), size=65, cells=4, channels=6, stem="imagenet"),
    "cell, grey, odd size": lambda: trained(CELL(), size=15, colours=1, cells=4, channels=5, stem="cifar"),
    "mobile": lambda: trained(find_space("mobile")(**MOBILE), size=32),
    "mobile, zeros, two classes": lambda: trained(
        find_space("mobile")(**MOBILE), np.array([0, 6, 1, 6]), size=17, classes=("no", "yes")
    ),
    "nasbench201": lambda: trained(find_space("nasbench201")(), size=32, cells=2, channels=8),
    "nasbench201, nones, one class": lambda: trained(
        find_space("nasbench201")(), np.array([3, 0, 0, 1, 0, 4]), size=31, cells=1, channels=8, classes=("thing",)
    ),
}
FROM_ELSEWHERE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from PIL import Image
from network import CLASSES, load, preprocess
logits = load()(preprocess(Image.new("RGB", (50, 40), (200, 100, 0)))[None])
print(json.dumps({"classes": CLASSES, "logits": logits[0].tolist()}))
"""


@pytest.mark.parametrize("name", NETWORKS)
def test_all_forms_agree_on_real_images(name: str, tmp_path: Path, test_data: Path) -> None:
    from PIL import Image

    network = NETWORKS[name]()
    images = real_images(test_data, network)
    written = write_model(network, tmp_path / "model", examples=images)
    assert written.notes == ()
    assert read_model(written.folder).forms == FORMS.names()
    for row in written.rows:
        assert row.largest_difference <= TOLERANCE * row.largest_logit
        assert row.examples == len(images)
    expected = logits_of(network.module(), images)
    for form in FORMS.names():
        if form != "huggingface":  # it would import transformers here
            found = load_model(written.folder, form).logits(images)
            assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()
    told = json.loads(elsewhere(FROM_ELSEWHERE, written.folder, tmp_path / "elsewhere"))
    assert tuple(told["classes"]) == network.preprocessing.classes
    one = network.preprocessing.prepare(Image.new("RGB", (50, 40), (200, 100, 0)))
    np.testing.assert_allclose(told["logits"], logits_of(network.module(), one[None])[0], atol=1e-4)


def test_a_space_without_source_has_the_other_forms(tmp_path: Path, test_data: Path) -> None:
    network = tiny()
    own: Any = dataclasses.replace(network, spec=dataclasses.replace(network.spec, source=None))
    written = write_model(own, tmp_path / "model", examples=real_images(test_data, own))
    assert [row.form for row in written.rows] == ["onnx", "pt2"]
    assert written.notes[1] == "no form torch: space 'cell' has no source (SpaceSpec.source)"
    assert sorted(path.name for path in written.folder.iterdir()) == [
        "MANIFEST.json",
        "README.md",
        "genotype.json",
        "model.onnx",
        "model.pt2",
        "model.safetensors",
    ]
    assert load_model(written.folder).form == "pt2"


@pytest.mark.skipif(importlib.util.find_spec("executorch") is None, reason="not installed: pip install executorch")
def test_the_program_can_be_lowered_for_executorch(tmp_path: Path, test_data: Path) -> None:
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    network = tiny()
    write_model(network, tmp_path / "model", examples=real_images(test_data, network, 4), forms=["pt2"])
    program = torch.export.load(tmp_path / "model" / "model.pt2")
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
    (tmp_path / "model.pte").write_bytes(lowered.buffer)
    images = real_images(test_data, network, 2)
    method = Runtime.get().load_program(tmp_path / "model.pte").load_method("forward")
    found = method.execute([torch.from_numpy(images)])[0].numpy()
    np.testing.assert_allclose(found, logits_of(network.module(), images), atol=1e-4)
