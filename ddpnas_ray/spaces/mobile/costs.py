"""Geometry and exact costs of MobileNet-like chains of inverted residual blocks (ProxylessNAS), without torch.

Axes: E edges (the searched blocks, in order), K candidates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ddpnas_ray.core.space import CostTable
from ddpnas_ray.costs.convnet import Cost, Kind, Size, batch_norm, conv, linear, relu, strided
from ddpnas_ray.costs.heads import head_cost
from ddpnas_ray.spaces.target import Head

MBCONVS = {f"mbconv_k{kernel}_e{expand}": (kernel, expand) for kernel in (3, 5, 7) for expand in (3, 6)}
ZERO = "zero"  # the block is left out


@dataclass(frozen=True, slots=True)
class Block:
    """Position of an inverted residual block.

    Args:
        in_channels: Channels of its input.
        out_channels: Channels of its output.
        stride: 1, or 2: the side is halved, rounded up.
        dilation: Of its depthwise convolution.
        keeps_size: A stride of 2 is left out, so that the network stays at its output stride.
    """

    in_channels: int
    out_channels: int
    stride: int
    dilation: int = 1
    keeps_size: bool = False

    @property
    def step(self) -> int:
        """The stride of its depthwise convolution."""
        return 1 if self.keeps_size else self.stride

    @property
    def keeps_shape(self) -> bool:
        """Whether it has a residual connection and can be omitted: stride 1, and as many channels out as in.

        It has none where only ``keeps_size`` makes the shapes equal, so that the choices are those of every size.
        """
        return self.stride == 1 and self.in_channels == self.out_channels


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """Shape of a network, all but the operations of its searched blocks, its images and its classes.

    Args:
        widths: Channels of the stem, of the first block, of every stage and of the last convolution.
        depths: Blocks of every stage.
        strides: Stride of every stage's first block, which also changes the width; the others keep the shape.
        stem_stride: Stride of the stem.
        first_kernel: Kernel of the first block, which has expansion 1 and stride 1.
        fixed_last: Operation of every block of the last stage; None: they are searched like the others.
        output_stride: Blocks of stride 2 that would exceed it keep the size; after each of them, depthwise convolutions
            are dilated by twice as much. None: no limit.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    strides: tuple[int, ...]
    stem_stride: int
    first_kernel: int
    fixed_last: str | None = None
    output_stride: int | None = None

    @property
    def first(self) -> Block:
        """The block between the stem and the first stage."""
        return Block(self.widths[0], self.widths[1], 1)

    @property
    def searched(self) -> int:
        """E, the number of searched blocks; the fixed ones come after them."""
        return sum(self.depths) - (self.depths[-1] if self.fixed_last else 0)

    def blocks(self) -> list[Block]:
        """Return the blocks of all stages, in order."""
        blocks, before, total, dilation = [], self.widths[1], self.stem_stride, 1
        for width, depth, stride in zip(self.widths[2:-1], self.depths, self.strides, strict=True):
            kept = self.output_stride is not None and total * stride > self.output_stride
            first = Block(before, width, stride, dilation, kept)
            total, dilation = (total, dilation * stride) if kept else (total * stride, dilation)
            blocks += [first, *[Block(width, width, 1, dilation)] * (depth - 1)]
            before = width
        return blocks

    def candidates(self) -> list[tuple[str, ...]]:
        """Return each block's candidates: ``zero`` only where the shape is kept, one operation where it is fixed."""
        names = [(*MBCONVS, ZERO) if block.keeps_shape else tuple(MBCONVS) for block in self.blocks()]
        if self.fixed_last:
            names[self.searched :] = [(self.fixed_last,)] * self.depths[-1]
        return names

    def sizes(self, image_size: Size) -> list[Size]:
        """Return sizes in pixels: of the input of every block of the stages, then of the output of the last one."""
        sizes = [strided(image_size, self.stem_stride)]
        for block in self.blocks():
            sizes.append(strided(sizes[-1], block.step))
        return sizes

    def totals(self) -> list[int]:
        """Return pixels of the image per pixel of what ``sizes`` lists."""
        totals = [self.stem_stride]
        for block in self.blocks():
            totals.append(totals[-1] * block.step)
        return totals

    def features(self, image_size: Size) -> dict[int, tuple[int, Size]]:
        """Return stride -> channels and size of the last feature map of that stride, in order."""
        channels = [self.widths[1], *(block.out_channels for block in self.blocks())]
        return dict(zip(self.totals(), zip(channels, self.sizes(image_size), strict=True), strict=True))


def chosen(candidates: Sequence[tuple[str, ...]], alpha_E: Iterable[int]) -> list[str]:
    """Return the operation of every block; those after the last edge have one candidate.

    Example:
        >>> chosen([("mbconv_k3_e3", "zero"), ("mbconv_k5_e6",)], [1])
        ['zero', 'mbconv_k5_e6']
    """
    alpha = [int(k) for k in alpha_E]
    alpha += [0] * (len(candidates) - len(alpha))
    return [names[k] for names, k in zip(candidates, alpha, strict=True)]


def conv_bn_relu(in_channels: int, out_channels: int, *, kernel: int, size: Size, groups: int = 1) -> Cost:
    """Cost of a convolution, BatchNorm and ReLU6 whose *output* has the given size."""
    return (
        conv(in_channels, out_channels, kernel=kernel, size=size, groups=groups)
        + batch_norm(out_channels, size=size)
        + relu(out_channels, size=size)
    )


def mbconv(block: Block, *, kernel: int, expand: int, size: Size) -> Cost:
    """Cost of expansion (none at 1), depthwise convolution and projection; ``size`` is that of the input."""
    hidden, out = block.in_channels * expand, strided(size, block.step)
    expansion = Cost() if expand == 1 else conv_bn_relu(block.in_channels, hidden, kernel=1, size=size)
    return (
        expansion
        + conv_bn_relu(hidden, hidden, kernel=kernel, size=out, groups=hidden)
        + conv(hidden, block.out_channels, kernel=1, size=out)
        + batch_norm(block.out_channels, size=out)
    )


def cost_table(
    kind: Kind, backbone: Backbone, *, image_size: Size, input_channels: int, classes: int, head: Head | None = None
) -> CostTable:
    """Compute the cost of every choice in a network.

    Args:
        kind: The cost to count.
        backbone: The network.
        image_size: Size in pixels.
        input_channels: Colour channels.
        classes: Number of classes.
        head: In place of the last convolution and the classifier; None: those.

    Returns:
        The table; entries have shape (E, K).
    """
    widths, candidates, sizes = backbone.widths, backbone.candidates(), backbone.sizes(image_size)
    base = conv_bn_relu(input_channels, widths[0], kernel=3, size=sizes[0])
    base += mbconv(backbone.first, kernel=backbone.first_kernel, expand=1, size=sizes[0])
    if head is not None:
        base += head_cost(head.name, width=head.width, classes=classes, features=backbone.features(image_size))
    else:
        base += conv_bn_relu(widths[-2], widths[-1], kernel=1, size=sizes[-1]) + linear(widths[-1], classes)
    entries_EK = np.zeros((backbone.searched, max(map(len, candidates))), dtype=np.int64)
    for e, (block, names, size) in enumerate(zip(backbone.blocks(), candidates, sizes, strict=False)):
        for k, name in enumerate(names):
            cost = _block_cost(name, block, size=size)
            if e < backbone.searched:
                entries_EK[e, k] = getattr(cost, kind)
            else:
                base += cost
    return CostTable(getattr(base, kind), entries_EK)


def _block_cost(name: str, block: Block, *, size: Size) -> Cost:
    """Cost of one candidate of a block; ``size`` is that of its input."""
    if name == ZERO:
        return Cost()
    kernel, expand = MBCONVS[name]
    return mbconv(block, kernel=kernel, expand=expand, size=size)
