"""Heads compute what torchvision's do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.lraspp import LRASPPHead

from ddpnas_ray.nn.heads import HeadAlone, build_head
from ddpnas_ray.spaces.base import find_space
from ddpnas_ray.spaces.target import Head, Inputs

CHANNELS = {4: 6, 8: 8, 16: 10}
SIZE = (97, 129)


def features(n: int = 2) -> dict[int, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {stride: (n, channels, -(-97 // stride), -(-129 // stride)) for stride, channels in CHANNELS.items()}
    return {stride: torch.randn(shape, generator=generator) for stride, shape in shapes.items()}


def test_aspp_of_256_channels_is_the_head_of_torchvision() -> None:
    ours, theirs = build_head("aspp", CHANNELS, 256, 5).eval(), DeepLabHead(10, 5, atrous_rates=(6, 12, 18)).eval()
    mine = list(ours.state_dict().values())
    assert [tuple(value.shape) for value in mine] == [tuple(value.shape) for value in theirs.state_dict().values()]
    theirs.load_state_dict(dict(zip(theirs.state_dict(), mine, strict=True)))
    maps = features()
    with torch.no_grad():
        wanted = F.interpolate(theirs(maps[16]), size=SIZE, mode="bilinear", align_corners=False)
        assert torch.equal(ours(maps, SIZE), wanted)


def test_lraspp_is_the_head_of_torchvision() -> None:
    ours, theirs = build_head("lraspp", CHANNELS, 128, 5).eval(), LRASPPHead(8, 10, 5, 128).eval()
    theirs.load_state_dict(ours.lraspp.state_dict())  # type: ignore[union-attr]
    maps = features()
    with torch.no_grad():
        wanted = theirs({"low": maps[8], "high": maps[16]})
        assert torch.equal(ours(maps, SIZE), F.interpolate(wanted, size=SIZE, mode="bilinear", align_corners=False))


def test_the_decoder_reads_low_level_features_of_stride_4_and_the_deepest() -> None:
    head, maps = build_head("decoder", CHANNELS, 8, 5).eval(), features()
    with torch.no_grad():
        before = head(maps, SIZE)
        assert before.shape == (2, 5, *SIZE)
        for stride, read in ((4, True), (8, False), (16, True)):
            changed = head(maps | {stride: maps[stride] + 1}, SIZE)
            assert torch.equal(changed, before) is not read


@pytest.mark.parametrize("name", ["aspp", "decoder", "lraspp"])
def test_weights_come_from_the_generator_of_torch(name: str) -> None:
    with torch.random.fork_rng():
        first, again, other = (torch.manual_seed(seed) and build_head(name, CHANNELS, 8, 5) for seed in (1, 1, 2))
    for (key, a), b in zip(first.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


@pytest.mark.parametrize(("space", "options"), [("cell", {"cells": 3, "nodes": 1, "channels": 2}), ("mobile", {})])
def test_networks_with_a_head_can_be_exported_for_images_of_any_size(space: str, options: dict[str, int]) -> None:
    spec, head = find_space(space)(**options), Head(name="decoder", width=4, output_stride=32)
    inputs = Inputs(shape=(3, 128, 160), outputs=5, head=head)
    alpha_E = np.array([1 if space == "mobile" else 3] * len(spec.space.edges))  # skips: FactorizedReduce
    network = spec.build(alpha_E, inputs).eval()
    sides = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    exported = torch.export.export(network, (inputs.random(2),), dynamic_shapes=(sides,)).module()
    for size in ((97, 133), (192, 130)):
        x = replace(inputs, shape=(3, *size)).random(1)
        with torch.no_grad():
            torch.testing.assert_close(exported(x), network(x))


@pytest.mark.parametrize("name", ["aspp", "decoder", "lraspp"])
def test_a_head_alone_takes_the_deepest_features(name: str) -> None:
    maps = features()
    sizes = {stride: (x.shape[1], tuple(x.shape[2:])) for stride, x in maps.items()}
    head = HeadAlone(name, sizes, 8, 5, SIZE).eval()  # type: ignore[arg-type]
    zeros = {stride: torch.zeros_like(x) for stride, x in maps.items()}
    with torch.no_grad():
        assert torch.equal(head(maps[16]), head.head(zeros | {16: maps[16]}, SIZE))
