"""Exact parameters and multiply-adds of convolutional building blocks, by arithmetic: nothing here imports torch.

``macs`` counts convolutions and linear layers for one image; BatchNorm, pooling and activations are free.
All counts are of the deploy form: BatchNorm affine, none after pooling.
"""

from __future__ import annotations

from dataclasses import dataclass

CONVOLUTIONS = {  # name: (kernel, dilation, how often the depthwise-pointwise pair is repeated)
    "sep_conv_3x3": (3, 1, 2),
    "sep_conv_5x5": (5, 1, 2),
    "dil_conv_3x3": (3, 2, 1),
    "dil_conv_5x5": (5, 2, 1),
}
CELL_OPS = ("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", *CONVOLUTIONS)  # DARTS's order


@dataclass(frozen=True, slots=True)
class Cost:
    """Parameters and multiply-adds; costs of parts add up.

    Example:
        >>> conv(3, 48, kernel=3, size=32) + batch_norm(48)
        Cost(params=1392, macs=1327104)
    """

    params: int = 0
    macs: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.params + other.params, self.macs + other.macs)


def conv(in_channels: int, out_channels: int, *, kernel: int, size: int, groups: int = 1) -> Cost:
    """A convolution without bias whose *output* has size x size pixels."""
    weights = in_channels // groups * out_channels * kernel * kernel
    return Cost(weights, weights * size * size)


def batch_norm(channels: int) -> Cost:
    """An affine BatchNorm."""
    return Cost(2 * channels)


def linear(in_features: int, out_features: int) -> Cost:
    """A linear layer with bias."""
    return Cost(in_features * out_features + out_features, in_features * out_features)


def relu_conv_bn(in_channels: int, out_channels: int, *, size: int) -> Cost:
    """ReLU, 1x1 convolution, BatchNorm."""
    return conv(in_channels, out_channels, kernel=1, size=size) + batch_norm(out_channels)


def factorized_reduce(in_channels: int, out_channels: int, *, size: int) -> Cost:
    """Two stride-2 1x1 convolutions, half of the channels each; ``size`` is that of the output."""
    half = out_channels // 2
    return (
        conv(in_channels, half, kernel=1, size=size)
        + conv(in_channels, out_channels - half, kernel=1, size=size)
        + batch_norm(out_channels)
    )


def cell_op(name: str, channels: int, *, stride: int, size: int) -> Cost:
    """One DARTS operation; ``size`` is that of its output."""
    if name == "skip_connect" and stride == 2:
        return factorized_reduce(channels, channels, size=size)
    if name not in CONVOLUTIONS:
        return Cost()
    kernel, _, repeats = CONVOLUTIONS[name]
    pair = (
        conv(channels, channels, kernel=kernel, size=size, groups=channels)
        + conv(channels, channels, kernel=1, size=size)
        + batch_norm(channels)
    )
    return Cost(repeats * pair.params, repeats * pair.macs)
