"""Geometry of mobile networks, against the tensors that flow through them. Axes: E edges, K candidates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddpnas_ray.costs.convnet import Cost, Kind
from ddpnas_ray.spaces.mobile.costs import Backbone, Block, chosen, cost_table, mbconv
from ddpnas_ray.spaces.mobile.network import MBConv, MobileNetwork
from ddpnas_ray.testing import count_bn_relu, count_macs

BACKBONES = [
    Backbone(widths=(4, 3, 5, 5, 6), depths=(1, 2), strides=(2, 1), stem_stride=2, first_kernel=3),
    Backbone(widths=(2, 2, 4, 4, 6, 8), depths=(3, 1, 2), strides=(1, 1, 2), stem_stride=1, first_kernel=5),
    Backbone(
        widths=(3, 4, 4, 6, 5),
        depths=(2, 2),
        strides=(2, 2),
        stem_stride=1,
        first_kernel=7,
        fixed_last="mbconv_k5_e3",
    ),
]
SIZES = [1, 2, 7, 16, 33]


def net(backbone: Backbone, alpha_E: np.ndarray) -> MobileNetwork:
    names = [(name,) for name in chosen(backbone.candidates(), alpha_E)]
    return MobileNetwork(backbone, names, input_channels=3, classes=10).eval()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("backbone", BACKBONES, ids=["imagenet-like", "stem of stride 1", "last stage fixed"])
def test_widths_and_sizes_are_those_of_the_tensors(backbone: Backbone, size: int) -> None:
    network = net(backbone, np.zeros(backbone.searched, dtype=np.int64))
    seen: list[tuple[torch.Size, torch.Size]] = []
    for block in network.blocks:
        (module,) = block.values()
        module.register_forward_hook(lambda m, inputs, out: seen.append((inputs[0].shape, out.shape)))
    with torch.no_grad():
        network(torch.zeros(1, 3, size, size))
    sizes = backbone.sizes(size)
    assert len(sizes) == len(seen) + 1 == sum(backbone.depths) + 1
    for block, before, after, (x, y) in zip(backbone.blocks(), sizes[:-1], sizes[1:], seen, strict=True):
        assert x[1:] == (block.in_channels, before, before)
        assert y[1:] == (block.out_channels, after, after)
        assert block.keeps_shape == (x == y) or size == 1


def test_a_stride_halves_the_size_rounded_up() -> None:
    assert BACKBONES[0].sizes(33) == [17, 9, 9, 9]
    assert BACKBONES[1].sizes(33) == [33, 33, 33, 33, 33, 17, 17]
    assert BACKBONES[2].sizes(7) == [7, 4, 4, 2, 2]


def test_the_last_stage_is_no_edge_where_it_is_fixed() -> None:
    assert [backbone.searched for backbone in BACKBONES] == [3, 6, 2]
    assert BACKBONES[2].candidates()[2:] == [("mbconv_k5_e3",)] * 2


@pytest.mark.parametrize("kind", ["params", "macs", "macs_bn_relu"])
@pytest.mark.parametrize("backbone", BACKBONES, ids=["imagenet-like", "stem of stride 1", "last stage fixed"])
def test_one_choice_costs_what_the_network_gains_by_it(backbone: Backbone, kind: Kind) -> None:
    table = cost_table(kind, backbone, image_size=15, input_channels=3, classes=10)
    x = torch.zeros(1, 3, 15, 15)

    def cost(alpha_E: np.ndarray) -> int:
        network = net(backbone, alpha_E)
        counted = Cost(sum(p.numel() for p in network.parameters()), count_macs(network, x), count_bn_relu(network, x))
        return int(getattr(counted, kind))

    first_E = np.zeros(backbone.searched, dtype=np.int64)
    assert table(first_E) == cost(first_E)
    for e, names in enumerate(backbone.candidates()[: backbone.searched]):
        for k in range(len(names)):
            alpha_E = first_E.copy()
            alpha_E[e] = k
            assert table(alpha_E) == cost(alpha_E), f"edge {e}: {names[k]}"


@pytest.mark.parametrize("block", [Block(4, 4, 1), Block(3, 5, 2), Block(4, 4, 2), Block(6, 2, 1)])
@pytest.mark.parametrize("expand", [1, 3, 6])
def test_the_cost_of_a_block_is_that_of_its_module(block: Block, expand: int) -> None:
    module, x = MBConv(block, kernel=5, expand=expand).eval(), torch.zeros(1, block.in_channels, 9, 9)
    counted = Cost(sum(p.numel() for p in module.parameters()), count_macs(module, x), count_bn_relu(module, x))
    assert mbconv(block, kernel=5, expand=expand, size=9) == counted
