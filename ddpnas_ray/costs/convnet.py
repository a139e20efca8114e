"""Exact parameters and multiply-adds of convolutional building blocks, by arithmetic: nothing here imports torch.

``macs`` counts convolutions and linear layers for one image; BatchNorm, pooling and activations are free there, and
``macs_bn_relu`` is the other figure in use. All counts are of the deploy form: BatchNorm affine, none after pooling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Size = int | tuple[int, int]
"""Side of a square image in pixels, or height and width of any."""

CONVOLUTIONS = {  # name: (kernel, dilation, repeats of the depthwise-pointwise pair)
    "sep_conv_3x3": (3, 1, 2),
    "sep_conv_5x5": (5, 1, 2),
    "dil_conv_3x3": (3, 2, 1),
    "dil_conv_5x5": (5, 2, 1),
}
CELL_OPS = ("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", *CONVOLUTIONS)  # DARTS's order


@dataclass(frozen=True, slots=True)
class Cost:
    """Parameters and work for one image; costs of parts add up.

    Args:
        params: Weights.
        macs: Multiply-adds of convolutions and linear layers.
        elementwise: 2 per element that BatchNorm writes, 1 per element that ReLU writes.

    Example:
        >>> conv(3, 48, kernel=3, size=32) + batch_norm(48, size=32)
        Cost(params=1392, macs=1327104, elementwise=98304)
    """

    params: int = 0
    macs: int = 0
    elementwise: int = 0

    @property
    def macs_bn_relu(self) -> int:
        """conv + fc + 2 BN + ReLU: the figure that some papers call FLOPs."""
        return self.macs + self.elementwise

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.params + other.params, self.macs + other.macs, self.elementwise + other.elementwise)

    def __mul__(self, times: int) -> Cost:
        return Cost(self.params * times, self.macs * times, self.elementwise * times)


Kind = Literal["params", "macs", "macs_bn_relu"]
KINDS: tuple[Kind, ...] = ("params", "macs", "macs_bn_relu")


def height_and_width(size: Size) -> tuple[int, int]:
    """Return the height and the width of an image."""
    return size if isinstance(size, tuple) else (size, size)


def pixels(size: Size) -> int:
    """Return the number of an image's pixels."""
    height, width = height_and_width(size)
    return height * width


def strided(size: Size, stride: int) -> Size:
    """Return the size of an image after a padded convolution, every side rounded up."""
    if isinstance(size, tuple):
        return -(-size[0] // stride), -(-size[1] // stride)
    return -(-size // stride)


def conv(in_channels: int, out_channels: int, *, kernel: int, size: Size, groups: int = 1, bias: bool = False) -> Cost:
    """Cost of a convolution whose *output* has the given size; a bias counts as parameters alone."""
    weights = in_channels // groups * out_channels * kernel * kernel
    return Cost(weights + out_channels * bias, weights * pixels(size))


def batch_norm(channels: int, *, size: Size) -> Cost:
    """Cost of an affine BatchNorm."""
    return Cost(2 * channels, 0, 2 * channels * pixels(size))


def relu(channels: int, *, size: Size) -> Cost:
    """Cost of a ReLU, or ReLU6."""
    return Cost(0, 0, channels * pixels(size))


def linear(in_features: int, out_features: int) -> Cost:
    """Cost of a linear layer with bias."""
    return Cost(in_features * out_features + out_features, in_features * out_features)


def relu_conv_bn(in_channels: int, out_channels: int, *, size: Size, kernel: int = 1, stride: int = 1) -> Cost:
    """Cost of ReLU, convolution and BatchNorm; ``size`` is that of the input."""
    out = strided(size, stride)
    return (
        relu(in_channels, size=size)
        + conv(in_channels, out_channels, kernel=kernel, size=out)
        + batch_norm(out_channels, size=out)
    )


def factorized_reduce(in_channels: int, out_channels: int, *, size: Size, stride: int = 2) -> Cost:
    """Cost of ReLU, two 1x1 convolutions of half the channels each, BatchNorm; ``size`` is the input's."""
    half, out = out_channels // 2, strided(size, stride)
    return (
        relu(in_channels, size=size)
        + conv(in_channels, half, kernel=1, size=out)
        + conv(in_channels, out_channels - half, kernel=1, size=out)
        + batch_norm(out_channels, size=out)
    )


def cell_op(name: str, channels: int, *, stride: int, size: Size, keeps_size: bool = False) -> Cost:
    """Cost of one DARTS operation; ``size`` is that of its input.

    With ``keeps_size`` an operation of stride 2 leaves the size as it is: see ``nn.ops.build_op``.
    """
    step = 1 if keeps_size else stride
    if name == "skip_connect" and stride == 2:
        return factorized_reduce(channels, channels, size=size, stride=step)
    if name not in CONVOLUTIONS:
        return Cost()
    kernel, _, repeats = CONVOLUTIONS[name]
    out = strided(size, step)
    pair = (
        conv(channels, channels, kernel=kernel, size=out, groups=channels)
        + conv(channels, channels, kernel=1, size=out)
        + batch_norm(channels, size=out)
    )
    return pair * repeats + relu(channels, size=size) + relu(channels, size=out) * (repeats - 1)
