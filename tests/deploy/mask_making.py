"""A small network that labels pixels, its model folder, and images with masks."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ddpnas_ray.deploy.folder import write_model
from ddpnas_ray.deploy.kinds.masks import MaskInterface
from ddpnas_ray.deploy.trained import TrainedNetwork
from ddpnas_ray.spaces.base import SpaceSpec, find_space
from ddpnas_ray.spaces.target import Head, Target
from tests.deploy.making import trained

CLASSES = ("sky", "ro|ad", "it's")
PALETTE = ((0, 0, 255), (128, 64, 128), (255, 200, 0))
VALUES: dict[str, Any] = {
    "kind": "masks",
    "classes": list(CLASSES),
    "channels": 3,
    "height": 24,
    "width": 32,
    "mean": [0.5, 0.4, 0.3],
    "std": [0.25, 0.25, 0.5],
    "void": 255,
    "palette": [list(colour) for colour in PALETTE],
    "hub_task": "image-segmentation",
    "ids": [0, 1, 2],
    "void_ids": [255],
}
SOURCE = '''
class Network(nn.Module):
    """Two convolutions, the first of stride 2, and the image's size again."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.last = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W), preprocessed -> logits (B, 3, H, W)."""
        return F.interpolate(self.last(self.first(x)), size=x.shape[2:], mode="bilinear", align_corners=False)
'''


class Small(nn.Module):
    """That of ``SOURCE``, under other names."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.head = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.head(self.stem(x)), size=x.shape[2:], mode="bilinear", align_corners=False)


def headed(
    spec: SpaceSpec,
    name: Any,
    output_stride: Any,
    alpha_E: np.ndarray | None = None,
    *,
    size: tuple[int, int] = (24, 32),
    width: int = 6,
    **options: Any,
) -> TrainedNetwork:
    """A network of a space with a head, random weights and a random architecture if none is given."""
    head = Head(name=name, width=width, output_stride=output_stride)
    data = interface(height=size[0], width=size[1])
    return trained(spec, alpha_E, classes=CLASSES, size=size, head=head, preprocessing=data, **options)


def interface(**changes: Any) -> MaskInterface:
    """The interface of ``VALUES``."""
    from ddpnas_ray.deploy.interface import interface_of

    found = interface_of(VALUES | changes, "test")
    assert isinstance(found, MaskInterface)
    return found


@cache
def small() -> TrainedNetwork:
    """A network of two convolutions with random weights."""
    spec = dataclasses.replace(
        find_space("cell")(nodes=2), deploy=lambda alpha_E, target: Small(), source=lambda alpha_E, target: SOURCE
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Small()
        for tensor in network.stem[1].buffers():
            if tensor.ndim:
                tensor.uniform_(0.5, 1.5)
    return TrainedNetwork(
        spec=spec,
        alpha_E=np.zeros(len(spec.space.edges), dtype=np.int64),
        target=Target(image_size=(24, 32), classes=3, cells=3, channels=4, stem="cifar"),
        tensors={name: tensor.numpy() for name, tensor in network.state_dict().items()},
        preprocessing=interface(),
        facts={"name": "small"},
    )


@cache
def small_folder() -> Path:
    """Its model folder with the forms that need no optional package; not to be changed."""
    folder = Path(mkdtemp(prefix="ddpnas-test-")) / "model"
    write_model(small(), folder, examples=prepared(3), forms=["torch", "pt2"])
    return folder


def prepared(count: int) -> np.ndarray:
    """Prepared images that are not noise."""
    return np.stack([small().preprocessing.prepare(picture(i)) for i in range(count)])  # type: ignore[attr-defined]


def picture(seed: int, size: tuple[int, int] = (40, 20)) -> Image.Image:
    """A smooth image of a (width, height)."""
    few = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(few).resize(size, Image.Resampling.BICUBIC)


def labels_of(network: TrainedNetwork, image: Image.Image) -> np.ndarray:
    """The labels of an image at its own size, by the network itself."""
    given = torch.from_numpy(network.preprocessing.prepare(image))[None]  # type: ignore[attr-defined]
    with torch.inference_mode():
        small_HW = network.module()(given)[0].argmax(0).numpy().astype(np.uint8)
    return np.asarray(Image.fromarray(small_HW).resize(image.size, Image.Resampling.NEAREST))
