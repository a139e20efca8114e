"""Heads that make outputs for every pixel: their widths, the features they take, and exact costs, without torch.

``nn.heads`` builds them. ``features`` has the channels and the size of the last feature map of every stride, the number
of pixels of the image per pixel of the map.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import log2

from ddpnas_ray.costs.convnet import Cost, Size, batch_norm, conv, relu

RATES = {8: (12, 24, 36), 16: (6, 12, 18), 32: (3, 6, 9)}  # of ASPP's dilated convolutions, by stride
LOW = {"decoder": 4, "lraspp": 8}  # stride of the low-level features that a head takes beside the last ones


def rates(stride: int) -> tuple[int, ...]:
    """Return the dilations of ASPP on features of a stride; finer or coarser ones have those of the nearest known."""
    return RATES[min(RATES, key=lambda known: abs(log2(known / stride)))]


def inputs_of(name: str, strides: Iterable[int]) -> tuple[int, ...]:
    """Return the strides of the feature maps that a head takes: the deepest, then that of the low-level features.

    Low-level features are those nearest to stride 4 (decoder) or 8 (lraspp) among the maps before the deepest. A
    network without any has the deepest in their place.

    Example:
        >>> inputs_of("decoder", [4, 8, 16]), inputs_of("lraspp", [4, 8]), inputs_of("lraspp", [1, 2])
        ((16, 4), (8, 4), (2, 1))
    """
    *before, deepest = sorted(strides)
    if name not in LOW:
        return (deepest,)
    return deepest, min(before, key=lambda stride: abs(log2(stride / LOW[name])), default=deepest)


def low_width(width: int) -> int:
    """Return the channels to which the decoder reduces low-level features: 48 at a width of 256, as in DeepLabV3+."""
    return max(1, 3 * width // 16)


def head_cost(name: str, *, width: int, classes: int, features: Mapping[int, tuple[int, Size]]) -> Cost:
    """Cost of a head; resizing is free.

    Args:
        name: aspp, decoder or lraspp.
        width: Channels of its layers.
        classes: Outputs per pixel.
        features: Stride -> channels and size of a feature map.
    """
    taken = [features[stride] for stride in inputs_of(name, features)]
    channels, size = taken[0]
    if name == "lraspp":
        low_channels, low_size = taken[1]
        return (
            _conv_bn_relu(channels, width, size=size)
            + conv(channels, width, kernel=1, size=1)
            + conv(low_channels, classes, kernel=1, size=low_size, bias=True)
            + conv(width, classes, kernel=1, size=low_size, bias=True)
        )
    cost = _aspp(channels, width, size=size)
    if name == "aspp":
        cost += _conv_bn_relu(width, width, kernel=3, size=size)
        return cost + conv(width, classes, kernel=1, size=size, bias=True)
    low_channels, low_size = taken[1]
    return (
        cost
        + _conv_bn_relu(low_channels, low_width(width), size=low_size)
        + _conv_bn_relu(width + low_width(width), width, kernel=3, size=low_size)
        + _conv_bn_relu(width, width, kernel=3, size=low_size)
        + conv(width, classes, kernel=1, size=low_size, bias=True)
    )


def _aspp(channels: int, width: int, *, size: Size) -> Cost:
    """Cost of a 1x1 convolution, three dilated ones, one of the pooled features, and one of all of them."""
    cost = _conv_bn_relu(channels, width, size=size) + _conv_bn_relu(channels, width, size=1)
    cost += _conv_bn_relu(channels, width, kernel=3, size=size) * 3
    return cost + _conv_bn_relu(5 * width, width, size=size)


def _conv_bn_relu(in_channels: int, out_channels: int, *, kernel: int = 1, size: Size) -> Cost:
    return (
        conv(in_channels, out_channels, kernel=kernel, size=size)
        + batch_norm(out_channels, size=size)
        + relu(out_channels, size=size)
    )
