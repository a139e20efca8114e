"""``model.pt2`` holds weights and metadata, and neither images nor paths of the machine that wrote it."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import torch

from ddpnas_ray.deploy.forms import pt2 as form
from ddpnas_ray.deploy.trained import TrainedNetwork
from tests.deploy.making import AWKWARD


def test_the_file_holds_no_images_and_no_paths(network: TrainedNetwork, written: Path) -> None:
    with zipfile.ZipFile(written / "model.pt2") as archive:
        content = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    examples = torch.load(io.BytesIO(content["data/sample_inputs/model.pt"]), weights_only=True)
    (images,), keywords = examples
    assert images.shape == (2, 3, 8, 8)
    assert images.untyped_storage().nbytes() == 4 * images.numel()
    assert not images.any()
    assert keywords == {}
    weights = sum(len(data) for name, data in content.items() if "/weights/weight_" in name)
    assert weights == sum(tensor.nbytes for tensor in network.tensors.values())
    assert not [name for name in content if "/constants/" in name and not name.endswith("config.json")]
    here = str(Path(__file__).parents[3]).encode()
    assert not [name for name, data in content.items() if here in data or b"ddpnas_ray" in data]
    assert json.loads(form.metadata(written)["classes"]) == list(AWKWARD)
