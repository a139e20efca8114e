"""Skeleton of NAS-Bench-201, against the tensors that flow through it. Axes: E edges, K candidates."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from ddpnas_ray.costs.convnet import KINDS, Cost
from ddpnas_ray.spaces.nasbench201.costs import OPERATIONS, Skeleton, cost_table, op_cost, reduction
from ddpnas_ray.spaces.nasbench201.network import Cell, NasBench201Network, Reduction, build_op
from ddpnas_ray.testing import count_bn_relu, count_macs
from ddpnas_ray.training.epoch import fixed_threads

SKIP = OPERATIONS.index("skip_connect")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread: for these small layers synchronisation costs more than it saves."""
    with fixed_threads(1):
        yield


def skeleton(image_size: int) -> Skeleton:
    return Skeleton(cells=2, channels=3, image_size=image_size, input_channels=3, classes=10)


def net(image_size: int, alpha_E: np.ndarray) -> NasBench201Network:
    return NasBench201Network(skeleton(image_size), [(OPERATIONS[k],) for k in alpha_E], affine=True).eval()


def counted(module: nn.Module, x: torch.Tensor) -> Cost:
    return Cost(sum(p.numel() for p in module.parameters()), count_macs(module, x), count_bn_relu(module, x))


@pytest.mark.parametrize("size", [1, 2, 7, 16, 33])
def test_widths_and_sizes_are_those_of_the_tensors(size: int) -> None:
    network = net(size, np.full(6, SKIP))
    seen: list[torch.Size] = []
    for layer in network.layers:
        if isinstance(layer, Cell):
            layer.register_forward_hook(lambda m, inputs, out: seen.append(out.shape))
    with torch.no_grad():
        network(torch.zeros(1, 3, size, size))
    stages = skeleton(size).stages()
    assert [shape[1:] for shape in seen] == [(c, side, side) for c, side in stages for _ in range(2)]


def test_a_reduction_doubles_the_width_and_halves_the_size_rounded_up() -> None:
    assert skeleton(33).stages() == [(3, 33), (6, 17), (12, 9)]
    assert skeleton(8).stages() == [(3, 8), (6, 4), (12, 2)]


@pytest.mark.parametrize("size", [8, 15])
def test_one_choice_costs_what_the_network_gains_by_it(size: int) -> None:
    tables = [cost_table(kind, skeleton(size)) for kind in KINDS]
    x = torch.zeros(1, 3, size, size)
    for e in range(6):
        for k, name in enumerate(OPERATIONS):
            alpha_E = np.full(6, SKIP)
            alpha_E[e] = k
            network = counted(net(size, alpha_E), x)
            assert [table(alpha_E) for table in tables] == [getattr(network, kind) for kind in KINDS], f"{e}: {name}"


@pytest.mark.parametrize("size", [1, 7, 8])
def test_the_cost_of_a_reduction_is_that_of_its_module(size: int) -> None:
    assert counted(Reduction(4, affine=True).eval(), torch.zeros(1, 4, size, size)) == reduction(4, size=size)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "none"])
def test_the_cost_of_an_operation_is_that_of_its_module(name: str) -> None:
    assert counted(build_op(name, 4, affine=True).eval(), torch.zeros(1, 4, 7, 7)) == op_cost(name, 4, size=7)


def test_odd_images_are_averaged_to_the_edge() -> None:
    """The last row and column stand alone in the shortcut: their mean is that of what there is."""
    shortcut = Reduction(1, affine=True).shortcut[0]
    x = torch.arange(9.0).view(1, 1, 3, 3)
    assert shortcut(x)[0, 0].tolist() == [[2.0, 3.5], [6.5, 8.0]]
