"""Small trained networks of every space, with weights that no two layers share."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import nn

from ddpnas_ray.core.space import IntArray
from ddpnas_ray.costs.convnet import Size
from ddpnas_ray.deploy.folder import write_model
from ddpnas_ray.deploy.interface import Interface
from ddpnas_ray.deploy.trained import Preprocessing, TrainedNetwork
from ddpnas_ray.spaces.base import SpaceSpec, find_space
from ddpnas_ray.spaces.target import Target

AWKWARD = ("it's", 'a "quote"', "two\nlines", "Häher | 鳥", "back\\slash", "{{ braces }}", "'''", '"""', "tab\t", "")
FACTS = {
    "name": "tiny",
    "space": "cell",
    "costs": {"params": 12345, "macs": 678900},
    "scores": [
        {"split": "val", "metric": "accuracy", "value": 0.5, "weights": "trained from scratch", "seeds": 1},
        {"split": "test", "metric": "accuracy", "value": 0.25, "weights": "trained from scratch", "seeds": 1},
    ],
    "search": {"strategy": "pruning", "architecture_epochs": 33, "fingerprint": "ab12", "score": 0.4},
    "data": "cifar10",
    "recipe": {"epochs": 3, "lr": 0.025},
}
BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] == 'ddpnas_ray':
            raise ImportError('blocked')
sys.meta_path.insert(0, Blocked())
"""
MOBILE = {"widths": (8, 4, 8, 12, 16), "depths": (2, 2), "strides": (1, 2), "stem_stride": 1}


def trained(
    spec: SpaceSpec,
    alpha_E: IntArray | None = None,
    *,
    seed: int = 0,
    classes: tuple[str, ...] = AWKWARD,
    facts: Mapping[str, Any] = FACTS,
    size: Size = 8,
    colours: int = 3,
    preprocessing: Interface | None = None,
    **target: Any,
) -> TrainedNetwork:
    """A network with random weights and BatchNorm statistics; a random architecture if none is given."""
    rng = np.random.default_rng(seed)
    if alpha_E is None:
        alpha_E = np.array([rng.integers(len(edge.candidates)) for edge in spec.space.edges], dtype=np.int64)
    full = Target(image_size=size, classes=len(classes), input_channels=colours, **target)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = spec.deploy(alpha_E, full)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor, (low, high) in (
                    (module.running_mean, (-0.5, 0.5)),
                    (module.running_var, (0.5, 1.5)),
                    (module.weight.data, (0.5, 1.5)),
                    (module.bias.data, (-0.5, 0.5)),
                ):
                    assert tensor is not None
                    tensor.uniform_(low, high)
    return TrainedNetwork(
        spec=spec,
        alpha_E=alpha_E,
        target=full,
        tensors={name: tensor.numpy() for name, tensor in network.state_dict().items()},
        preprocessing=preprocessing or images_of(classes, colours, size),
        facts=facts,
    )


def images_of(classes: tuple[str, ...], colours: int, size: Size) -> Preprocessing:
    """The preprocessing of square images."""
    assert isinstance(size, int)
    return Preprocessing(
        classes=classes, channels=colours, image_size=size, mean=(0.5, 0.4, 0.3)[:colours], std=(0.25,) * colours
    )


def tiny(**options: Any) -> TrainedNetwork:
    """A network of three small cells."""
    return trained(find_space("cell")(nodes=2), **{"cells": 3, "channels": 4, "stem": "cifar", **options})


@cache
def one() -> TrainedNetwork:
    """A tiny network, traced once."""
    return tiny()


@cache
def written() -> Path:
    """Its model folder with the forms that need no optional package; not to be changed."""
    network, path = one(), Path(mkdtemp(prefix="ddpnas-test-")) / "new" / "model"
    done = write_model(network, path, examples=noise(network), forms=["torch", "pt2"])
    assert [(row.form, row.largest_difference, row.labels_agree) for row in done.rows] == [
        ("torch", 0.0, 5),
        ("pt2", 0.0, 5),
    ]
    assert (done.folder, list(done.seconds), done.notes) == (path, ["torch", "pt2"], ())
    return path


def noise(network: TrainedNetwork, count: int = 5) -> np.ndarray:
    """Random input images."""
    return np.random.default_rng(1).normal(size=(count, *network.input_shape)).astype(np.float32)


def real_images(data: Path, network: TrainedNetwork, count: int = 100) -> np.ndarray:
    """Images of CIFAR-10's test split, prepared for a network."""
    table = pq.read_table(data / "cifar10-small" / "test-00000-of-00001.parquet").slice(0, count)
    pictures = [Image.open(io.BytesIO(row["bytes"])) for row in table["image"].to_pylist()]
    return np.stack([network.preprocessing.prepare(picture) for picture in pictures])


def elsewhere(script: str, folder: Path, cwd: Path) -> str:
    """Run a script in another folder, offline, where ddpnas_ray cannot be imported; returns what it prints.

    It finds the model folder in ``sys.argv[1]``.
    """
    cwd.mkdir(exist_ok=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(cwd / "hf"), "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(
        [sys.executable, "-I", "-B", "-c", BLOCKED + script, str(folder.resolve())],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout
