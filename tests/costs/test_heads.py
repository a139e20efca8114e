"""Which features a head takes, and its costs against its modules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ddpnas_ray.costs.convnet import Cost, Size
from ddpnas_ray.costs.heads import head_cost, inputs_of, low_width, rates
from ddpnas_ray.nn.heads import HeadAlone
from ddpnas_ray.testing import count_bn_relu, count_macs

FEATURES: dict[int, tuple[int, Size]] = {2: (3, (49, 65)), 4: (5, (25, 33)), 8: (6, (13, 17)), 16: (7, (7, 9))}


@pytest.mark.parametrize(
    ("name", "strides", "taken"),
    [
        ("aspp", [4, 8, 16], (16,)),
        ("decoder", [2, 4, 8, 16], (16, 4)),
        ("decoder", [8, 16], (16, 8)),
        ("decoder", [1, 2], (2, 1)),
        ("lraspp", [2, 4, 8, 16], (16, 8)),
        ("lraspp", [4, 8], (8, 4)),
        ("lraspp", [16, 32], (32, 16)),
        ("lraspp", [1], (1, 1)),
    ],
)
def test_heads_take_the_deepest_features_and_the_low_ones_nearest_to_their_stride(
    name: str, strides: list[int], taken: tuple[int, ...]
) -> None:
    assert inputs_of(name, strides) == taken
    assert inputs_of(name, reversed(strides)) == taken


def test_rates_are_those_of_the_nearest_stride() -> None:
    assert [rates(stride) for stride in (8, 16, 32)] == [(12, 24, 36), (6, 12, 18), (3, 6, 9)]
    assert (rates(1), rates(4), rates(64)) == (rates(8), rates(8), rates(32))


def test_the_decoder_reduces_low_level_features_as_deeplab_does() -> None:
    assert [low_width(width) for width in (256, 64, 1)] == [48, 12, 1]


def cost_of(head: nn.Module, x: torch.Tensor) -> Cost:
    head.eval()
    return Cost(sum(p.numel() for p in head.parameters()), count_macs(head, x), count_bn_relu(head, x))


@pytest.mark.parametrize("strides", [(2, 4, 8, 16), (4, 8), (16,)], ids=str)
@pytest.mark.parametrize("name", ["aspp", "decoder", "lraspp"])
def test_the_cost_of_a_head_is_that_of_its_module(name: str, strides: tuple[int, ...]) -> None:
    features = {stride: FEATURES[stride] for stride in strides}
    channels, size = features[strides[-1]]
    with torch.device("meta"):
        head = HeadAlone(name, features, 16, 5, (97, 129))
        counted = cost_of(head, torch.empty(1, channels, *size))  # type: ignore[misc]
    assert head_cost(name, width=16, classes=5, features=features) == counted
