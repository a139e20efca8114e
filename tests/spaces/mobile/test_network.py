"""Dropped paths of mobile networks; ``test_space.py`` tests the rest."""

from __future__ import annotations

import numpy as np
import torch

from ddpnas_ray.spaces.mobile.costs import Block
from ddpnas_ray.spaces.mobile.network import MBConv
from ddpnas_ray.spaces.mobile.space import make
from ddpnas_ray.spaces.target import Target


def test_a_dropped_block_is_its_residual_connection() -> None:
    x = torch.randn(3, 4, 8, 8)
    assert torch.equal(MBConv(Block(4, 4, 1), kernel=3, expand=3)(x, 1.0), x)


def test_a_block_that_changes_the_shape_is_never_dropped() -> None:
    x = torch.randn(3, 4, 8, 8)
    for block in (Block(4, 4, 2), Block(4, 6, 1)):
        module = MBConv(block, kernel=3, expand=3)
        assert torch.equal(module(x, 1.0), module(x))


def test_a_network_drops_blocks_while_it_trains() -> None:
    spec = make(widths=(4, 4, 4, 4), depths=(3,), strides=(1,), stem_stride=1)
    network = spec.deploy(np.zeros(3, dtype=np.int64), Target(image_size=8, classes=2))
    network.drop_path = 1.0  # type: ignore[assignment]
    x = torch.randn(4, 3, 8, 8)
    before = network.last(network.stem(x)).mean(dim=(2, 3))  # type: ignore[operator]
    assert torch.equal(network(x), network.classifier(before))  # type: ignore[operator]
