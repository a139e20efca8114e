"""Depthwise convolutions in fast forms compute what PyTorch's compute, forward and backward, on any size."""

from __future__ import annotations

import copy

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ddpnas_ray.nn.kernels.depthwise import DepthwiseConv2d
from ddpnas_ray.nn.kernels.fast import accelerate
from tests.nn.kernels.same import CLOSE, assert_equal, nhwc


@settings(derandomize=True, deadline=None, max_examples=150)
@given(
    kernel=st.sampled_from([1, 3, 5, 7, 9]),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    channels=st.sampled_from([1, 2, 3, 8, 17]),
    images=st.integers(1, 3),
)
def test_every_depthwise_convolution(
    kernel: int, stride: int, dilation: int, height: int, width: int, channels: int, images: int
) -> None:
    padding = dilation * (kernel - 1) // 2
    reference = nn.Conv2d(channels, channels, kernel, stride, padding, dilation, channels, bias=False)
    assert DepthwiseConv2d.fits(reference)
    fast = copy.deepcopy(reference)
    accelerate(fast)
    assert isinstance(fast, DepthwiseConv2d)
    assert_equal(reference, fast, nhwc(images, channels, height, width))
    with torch.no_grad():
        x = nhwc(images, channels, height, width, seed=1)
        torch.testing.assert_close(fast(x), reference(x), **CLOSE)


def test_other_convolutions_are_left_alone() -> None:
    same = {"padding": 1, "groups": 4}
    for conv in (
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 4, 3, **same),  # with a bias
        nn.Conv2d(4, 8, 3, bias=False, **same),
        nn.Conv2d(4, 4, 3, bias=False, groups=4),
        nn.Conv2d(4, 4, 3, 3, bias=False, **same),
        nn.Conv2d(4, 4, (3, 1), bias=False, **same),
        nn.Conv2d(4, 4, 3, bias=False, padding_mode="reflect", **same),
    ):
        assert not DepthwiseConv2d.fits(conv), conv
