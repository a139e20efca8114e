"""The DARTS operations: shapes, and the two forms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ddpnas_ray.costs.convnet import CELL_OPS, CONVOLUTIONS, cell_op
from ddpnas_ray.nn.ops import AuxiliaryHead, FactorizedReduce, ReLUConvBN, build_op, drop_path

NAMES = [name for name in CELL_OPS if name != "none"]
POOLS = ["max_pool_3x3", "avg_pool_3x3"]


def norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("size", [1, 2, 7, 8, 15])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_every_op_keeps_the_width_and_rounds_the_size_up(name: str, stride: int, size: int, affine: bool) -> None:
    out = build_op(name, 4, stride, affine=affine)(torch.randn(3, 4, size, size + 1))
    assert out.shape == (3, 4, -(-size // stride), -(-(size + 1) // stride))
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_the_search_form_has_no_affine_batch_norm_and_one_after_pooling(name: str, stride: int) -> None:
    op = build_op(name, 4, stride, affine=False)
    assert all(norm.weight is None and norm.bias is None for norm in norms(op))
    if name in POOLS:
        assert isinstance(list(op.modules())[-1], nn.BatchNorm2d)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_the_deploy_form_has_affine_batch_norm_and_none_after_pooling(name: str, stride: int) -> None:
    op = build_op(name, 4, stride, affine=True)
    assert all(norm.weight.shape == norm.bias.shape == (4,) for norm in norms(op))
    if name in POOLS:
        assert not norms(op)
    assert sum(p.numel() for p in op.parameters()) == cell_op(name, 4, stride=stride, size=8).params


def test_skip_at_stride_1_is_the_identity_and_has_weights_at_stride_2() -> None:
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(build_op("skip_connect", 4, 1, affine=False)(x), x)
    assert list(build_op("skip_connect", 4, 2, affine=False).parameters())


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_are_depthwise_and_pointwise_in_turn(name: str) -> None:
    kernel, dilation, repeats = CONVOLUTIONS[name]
    convolutions = [m for m in build_op(name, 4, 2, affine=False) if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 2 * repeats
    for i, (depthwise, pointwise) in enumerate(zip(convolutions[::2], convolutions[1::2], strict=True)):
        assert depthwise.kernel_size == (kernel, kernel)
        assert depthwise.dilation == (dilation, dilation)
        assert depthwise.groups == 4
        assert depthwise.stride == ((2, 2) if i == 0 else (1, 1))
        assert pointwise.kernel_size == (1, 1)
        assert pointwise.groups == 1
        assert depthwise.bias is None
        assert pointwise.bias is None


def test_average_pooling_does_not_count_the_padding() -> None:
    constant = torch.full((1, 2, 5, 5), 3.0)
    for stride in (1, 2):
        assert torch.allclose(build_op("avg_pool_3x3", 2, stride, affine=True)(constant), torch.tensor(3.0))


@pytest.mark.parametrize("size", [1, 7, 8])
@pytest.mark.parametrize(("in_channels", "out_channels"), [(3, 8), (4, 5), (2, 3)])
def test_factorized_reduce_halves_the_size_at_any_width(in_channels: int, out_channels: int, size: int) -> None:
    out = FactorizedReduce(in_channels, out_channels, affine=False)(torch.randn(2, in_channels, size, size + 1))
    assert out.shape == (2, out_channels, -(-size // 2), -(-(size + 1) // 2))


@pytest.mark.parametrize("size", [7, 8])
def test_factorized_reduce_sees_both_the_even_and_the_odd_pixels(size: int) -> None:
    reduce = FactorizedReduce(1, 2, affine=False)
    reduce.bn = nn.Identity()
    with torch.no_grad():
        reduce.conv_1.weight.fill_(1.0)
        reduce.conv_2.weight.fill_(1.0)
    x = torch.arange(1.0, size * size + 1).reshape(1, 1, size, size)
    out = reduce(x)
    assert torch.equal(out[0, 0], x[0, 0, ::2, ::2])
    odd = x[0, 0, 1::2, 1::2]
    assert torch.equal(out[0, 1, : len(odd), : len(odd)], odd)
    assert not out[0, 1, len(odd) :].any(), "beyond the border there is zero"


def test_relu_comes_before_the_convolution() -> None:
    negative = -torch.rand(2, 3, 4, 4)
    for module in (ReLUConvBN(3, 4, affine=False), FactorizedReduce(3, 4, affine=False)):
        module.eval()
        assert not module(negative).any()


def test_drop_path_zeroes_whole_samples_and_keeps_the_mean() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        out = drop_path(torch.ones(4000, 2, 3, 3), 0.25)
    values = out[:, 0, 0, 0]
    assert torch.equal(out, values[:, None, None, None].expand_as(out))
    assert set(values.tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert out.mean() == pytest.approx(1, abs=0.03)


def test_drop_path_by_nothing_draws_no_random_numbers() -> None:
    x, before = torch.randn(2, 3), torch.get_rng_state()
    assert drop_path(x, 0.0) is x
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("stride", "smallest"), [(2, 7), (3, 8)])
def test_the_auxiliary_head_takes_maps_from_its_smallest_size_on(stride: int, smallest: int) -> None:
    head = AuxiliaryHead(4, 10, stride=stride, last_norm=True)
    assert all(head(torch.randn(2, 4, size, size)).shape == (2, 10) for size in (smallest, smallest + 1, 16))
    with pytest.raises(RuntimeError, match="size"):
        head(torch.randn(2, 4, smallest - 1, smallest - 1))
