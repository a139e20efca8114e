"""``training.kernels: fast`` computes what ``reference`` computes, forward and backward, on any size."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ddpnas_ray.costs.convnet import CELL_OPS
from ddpnas_ray.nn.kernels.depthwise import DepthwiseConv2d
from ddpnas_ray.nn.kernels.fast import FastConcat, FastFactorizedReduce, accelerate
from ddpnas_ray.nn.ops import build_op
from ddpnas_ray.spaces.base import SpaceSpec, find_space
from ddpnas_ray.spaces.target import Head, Inputs
from tests.nn.kernels.same import assert_equal, nhwc, passed

NAMES = [name for name in CELL_OPS if name != "none"]


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("size", [4, 7, 8, 15])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_every_operation(name: str, stride: int, size: int, affine: bool) -> None:
    reference = nn.Sequential(build_op(name, 6, stride, affine=affine))
    fast = copy.deepcopy(reference)
    accelerate(fast)
    assert_equal(reference, fast, nhwc(5, 6, size, size + 1))


def gradients_of(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    network.zero_grad()
    nn.functional.cross_entropy(network(x), torch.arange(len(x)) % 10).backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("space", "size"), [("cell", 16), ("cell", 18), ("mobile", 32), ("nasbench201", 16)])
def test_whole_networks_keep_their_parameters_and_have_the_same_gradients(space: str, size: int) -> None:
    spec, inputs = find_space(space)(), Inputs(shape=(3, size, size), outputs=10)
    alpha_E = spec.argmax(spec.space.exists_EK / spec.space.exists_EK.sum(axis=1, keepdims=True), spec.space.exists_EK)
    reference = spec.build(alpha_E, inputs).to(memory_format=torch.channels_last).train()
    fast = copy.deepcopy(reference)
    accelerate(fast)
    assert [name for name, _ in fast.named_parameters()] == [name for name, _ in reference.named_parameters()]
    assert fast.state_dict().keys() == reference.state_dict().keys()
    wanted, found = gradients_of(reference, x := nhwc(8, 3, size, size)), gradients_of(fast, x)
    whole, other = (torch.cat([g.flatten() for g in grads.values()]) for grads in (wanted, found))
    assert (whole - other).norm() < 1e-3 * whole.norm()
    reference.eval(), fast.eval()
    torch.testing.assert_close(fast(x), reference(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("space", ["cell", "mobile"])
def test_dilated_networks_with_a_head_compute_the_same(space: str) -> None:
    options = {"cell": {"cells": 3, "nodes": 1, "channels": 4}, "mobile": {}}[space]
    spec, head = find_space(space)(**options), Head(name="decoder", width=4, output_stride=8)
    inputs = Inputs(shape=(3, 128, 140), outputs=3, head=head)  # dilations of 2 and 4
    alpha_E = np.array([edge.index("sep_conv_3x3" if space == "cell" else "mbconv_k3_e3") for edge in names_of(spec)])
    reference = spec.build(alpha_E, inputs).to(memory_format=torch.channels_last).eval()
    fast = copy.deepcopy(reference)
    accelerate(fast)
    assert any(isinstance(m, DepthwiseConv2d) and m.dilation == (2, 2) for m in fast.modules())
    x = nhwc(2, 3, 128, 140)
    (wanted, gradients), (found, others) = passed(reference, x), passed(fast, x)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)
    whole, other = (torch.cat([g.flatten() for g in every]) for every in (gradients, others))
    assert (whole - other).norm() < 1e-3 * whole.norm()


def names_of(spec: SpaceSpec) -> list[list[str]]:
    return [[op.name for op in edge.candidates] for edge in spec.space.edges]


def test_a_network_has_every_fast_form_once_and_other_modules_as_they_were() -> None:
    spec, inputs = find_space("cell")(cells=3), Inputs(shape=(3, 16, 16), outputs=10)
    alphas = [[k] * len(spec.space.edges) for k in range(spec.space.shape[1])]
    networks = [spec.build(alpha, inputs) for alpha in map(torch.tensor, alphas)]  # type: ignore[arg-type]
    for network in networks:
        before = [type(m) for m in network.modules()]
        accelerate(network)
        after = [type(m) for m in network.modules()]
        changed = {(old, new) for old, new in zip(before, after, strict=True) if old is not new}
        assert {new for _, new in changed} <= {DepthwiseConv2d, FastConcat, FastFactorizedReduce}
        assert not any(DepthwiseConv2d.fits(module) for module in network.modules())
    kinds = {type(m) for network in networks for m in network.modules()}
    assert kinds >= {DepthwiseConv2d, FastConcat, FastFactorizedReduce}


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_what_the_fast_forms_are_not_for_has_the_bits_of_the_reference(name: str, stride: int) -> None:
    """NCHW images, other numbers, and autocast."""
    reference = nn.Sequential(build_op(name, 4, stride, affine=False))
    fast = copy.deepcopy(reference)
    accelerate(fast)
    nchw = torch.randn(3, 4, 8, 8)
    for module, other, x in (
        (reference, fast, nchw),
        (copy.deepcopy(reference).double(), copy.deepcopy(fast).double(), nhwc(3, 4, 8, 8).double()),
    ):
        (out, gradients), (same, others) = passed(module, x), passed(other, x)
        assert torch.equal(out, same)
        assert all(torch.equal(a, b) for a, b in zip(gradients, others, strict=True))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(reference(nhwc(3, 4, 8, 8)), fast(nhwc(3, 4, 8, 8)))
