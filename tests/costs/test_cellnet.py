"""Geometry of networks of cells, against the tensors that flow through them. Axes: E edges, K candidates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ddpnas_ray.costs.convnet import CELL_OPS, Cost, Kind
from ddpnas_ray.spaces.cell.costs import CellNetShape, cost_table, geometry
from ddpnas_ray.spaces.cell.network import CellNetwork
from ddpnas_ray.testing import count_bn_relu, count_macs

SHAPES: list[dict[str, Any]] = [
    {"cells": 1, "nodes": 1, "channels": 2, "image_size": 8, "stem": "cifar", "reductions": ()},
    {"cells": 1, "nodes": 2, "channels": 4, "image_size": 7, "stem": "cifar", "reductions": (0,)},
    {"cells": 4, "nodes": 2, "channels": 3, "image_size": 15, "stem": "cifar", "reductions": (1, 2)},
    {"cells": 6, "nodes": 1, "channels": 4, "image_size": 32, "stem": "cifar", "reductions": (2, 4)},
    {"cells": 3, "nodes": 2, "channels": 4, "image_size": 130, "stem": "imagenet", "reductions": (1, 2)},
    {"cells": 3, "nodes": 1, "channels": 5, "image_size": 33, "stem": "imagenet", "reductions": (0,)},
]


def full(shape: dict[str, Any]) -> CellNetShape:
    return CellNetShape(**shape, input_channels=3, classes=10, deploy=True)


def net(shape: dict[str, Any], alpha_E: np.ndarray) -> CellNetwork:
    return CellNetwork(full(shape), [(CELL_OPS[k],) for k in alpha_E]).eval()


def edges(shape: dict[str, Any]) -> int:
    return int(shape["nodes"] * (shape["nodes"] + 3))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_widths_and_sizes_are_those_of_the_tensors(shape: dict[str, Any]) -> None:
    network = net(shape, np.full(edges(shape), CELL_OPS.index("skip_connect")))
    seen: list[tuple[torch.Size, torch.Size, torch.Size]] = []
    for cell in network.cells:
        cell.register_forward_hook(lambda m, inputs, out: seen.append((inputs[0].shape, inputs[1].shape, out.shape)))
    with torch.no_grad():
        network(torch.zeros(1, 3, shape["image_size"], shape["image_size"]))
    for g, (before, previous, out) in zip(geometry(**shape), seen, strict=True):
        assert before[1:] == (g.channels_before_previous, g.size_before, g.size_before)
        assert previous[1:] == (g.channels_previous, g.size_in, g.size_in)
        assert out[1:] == (shape["nodes"] * g.channels, g.size_out, g.size_out)
        assert g.reduction_before == (before[2] != previous[2])


def test_reductions_double_the_width_and_halve_the_size_rounded_up() -> None:
    cells = geometry(cells=4, nodes=4, channels=16, image_size=15, stem="cifar", reductions=(1, 2))
    assert [g.channels for g in cells] == [16, 32, 64, 64]
    assert [g.size_out for g in cells] == [15, 8, 4, 4]
    assert [g.reduction for g in cells] == [False, True, True, False]
    assert [g.reduction_before for g in cells] == [False, False, True, True]


@pytest.mark.parametrize("kind", ["params", "macs", "macs_bn_relu"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_one_choice_costs_what_the_network_gains_by_it(shape: dict[str, Any], kind: Kind) -> None:
    table = cost_table(kind, full(shape), CELL_OPS)
    x = torch.zeros(1, 3, shape["image_size"], shape["image_size"])

    def cost(alpha_E: np.ndarray) -> int:
        network = net(shape, alpha_E)
        counted = Cost(sum(p.numel() for p in network.parameters()), count_macs(network, x), count_bn_relu(network, x))
        return int(getattr(counted, kind))

    nothing_E = np.zeros(edges(shape), dtype=np.int64)
    assert table(nothing_E) == table.base == cost(nothing_E)
    for e in (0, edges(shape) // 2, edges(shape) - 1):
        for k in range(1, len(CELL_OPS)):
            alpha_E = nothing_E.copy()
            alpha_E[e] = k
            assert table(alpha_E) - table.base == cost(alpha_E) - table.base == int(table.entries_EK[e, k])
