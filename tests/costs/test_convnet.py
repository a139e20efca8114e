"""Counts by arithmetic equal those of the torch modules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ddpnas_ray.costs.convnet import (
    CELL_OPS,
    Cost,
    batch_norm,
    cell_op,
    conv,
    factorized_reduce,
    linear,
    relu,
    relu_conv_bn,
)
from ddpnas_ray.nn.ops import FactorizedReduce, ReLUConvBN, build_op
from ddpnas_ray.testing import count_bn_relu, count_macs


def counted(module: nn.Module, channels: int, size: int) -> Cost:
    """Costs of a module on a square image."""
    x = torch.zeros(1, channels, size, size)
    macs, elementwise = count_macs(module.eval(), x), count_bn_relu(module, x)
    return Cost(sum(p.numel() for p in module.parameters()), macs, elementwise)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize(("kernel", "groups"), [(1, 1), (3, 1), (3, 2), (5, 4)])
def test_convolutions(kernel: int, groups: int, size: int, stride: int) -> None:
    module = nn.Conv2d(4, 8, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    assert counted(module, 4, size) == conv(4, 8, kernel=kernel, size=-(-size // stride), groups=groups)


def test_batch_norm_counts_twice_and_relu_once_and_only_in_the_other_figure() -> None:
    assert counted(nn.BatchNorm2d(6), 6, 4) == batch_norm(6, size=4) == Cost(params=12, macs=0, elementwise=192)
    assert counted(nn.ReLU(), 6, 4) == counted(nn.ReLU6(), 6, 4) == relu(6, size=4) == Cost(elementwise=96)


def test_linear_layers_have_a_bias_that_is_free() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(32, 10))
    assert counted(module, 2, 4) == linear(32, 10) == Cost(params=330, macs=320)


@pytest.mark.parametrize("size", [7, 8])
def test_preprocessing_of_a_cell(size: int) -> None:
    assert counted(ReLUConvBN(3, 8, affine=True), 3, size) == relu_conv_bn(3, 8, size=size)


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("width", [4, 5])
def test_factorized_reduce(width: int, size: int) -> None:
    assert counted(FactorizedReduce(3, width, affine=True), 3, size) == factorized_reduce(3, width, size=size)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("name", [name for name in CELL_OPS if name != "none"])
def test_operations_of_the_cell(name: str, size: int, stride: int) -> None:
    module = build_op(name, 4, stride, affine=True)
    assert counted(module, 4, size) == cell_op(name, 4, stride=stride, size=size)


def test_none_costs_nothing() -> None:
    assert cell_op("none", 16, stride=1, size=8) == cell_op("none", 16, stride=2, size=8) == Cost()


def test_costs_of_parts_add_up() -> None:
    assert Cost(1, 20, 300) + Cost(3, 400, 7) == Cost(params=4, macs=420, elementwise=307)
    assert Cost(1, 20, 300) * 2 == Cost(params=2, macs=40, elementwise=600)
    assert Cost(1, 20, 300).macs_bn_relu == 320


def test_operations_come_in_the_order_of_darts() -> None:
    assert CELL_OPS == (
        "none",
        "max_pool_3x3",
        "avg_pool_3x3",
        "skip_connect",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "dil_conv_3x3",
        "dil_conv_5x5",
    )
