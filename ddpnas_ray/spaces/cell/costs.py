"""Geometry and exact costs of networks of DARTS cells, without torch.

Axes: E edges (normal cell, then reduction cell), K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ddpnas_ray.core.space import CostTable
from ddpnas_ray.costs.convnet import (
    Cost,
    Kind,
    Size,
    batch_norm,
    cell_op,
    conv,
    factorized_reduce,
    linear,
    relu,
    relu_conv_bn,
    strided,
)
from ddpnas_ray.costs.heads import head_cost
from ddpnas_ray.spaces.target import Head


@dataclass(frozen=True, slots=True)
class CellGeometry:
    """Widths and sizes of one cell.

    Args:
        reduction: Whether it is a reduction cell, which halves the resolution unless the network keeps it.
        reduction_before: Whether the cell before it is one.
        channels_before_previous: Channels of its first input.
        channels_previous: Channels of its second input.
        channels: C of its nodes.
        size_before: Size of its first input in pixels.
        size_in: Size of its second input.
        size_out: Size of its output.
        lowers: Whether it halves the resolution.
        lowered_before: Whether the cell before it does (its first input is then twice as large).
        dilation: Of its convolutions, beside their own; see ``nn.ops.build_op``.
        stride: Pixels of the image per pixel of its output.
    """

    reduction: bool
    reduction_before: bool
    channels_before_previous: int
    channels_previous: int
    channels: int
    size_before: Size
    size_in: Size
    size_out: Size
    lowers: bool
    lowered_before: bool
    dilation: int
    stride: int


def geometry(
    *,
    cells: int,
    nodes: int,
    channels: int,
    image_size: Size,
    stem: str,
    reductions: Sequence[int],
    output_stride: int | None = None,
) -> list[CellGeometry]:
    """Compute widths and sizes of all cells: reductions double the width and halve the side (rounded up).

    The ``imagenet`` stem outputs a quarter and an eighth of the side, so the first cell follows a reduction. Reductions
    that would exceed ``output_stride`` keep the size; after each of them, convolutions are dilated by twice as much.
    """
    imagenet = stem == "imagenet"
    size_before, size = stem_sizes(stem, image_size)
    before, previous = (channels, channels) if imagenet else (3 * channels, 3 * channels)
    out, c, stride, dilation = [], channels, 8 if imagenet else 1, 1
    reduction_before = lowered_before = imagenet
    for cell in range(cells):
        reduction = cell in reductions
        lowers = reduction and (output_stride is None or 2 * stride <= output_stride)
        c = 2 * c if reduction else c
        stride = 2 * stride if lowers else stride
        dilation = 2 * dilation if reduction and not lowers else dilation
        size_out = strided(size, 2) if lowers else size
        widths, sizes = (before, previous, c), (size_before, size, size_out)
        out.append(CellGeometry(reduction, reduction_before, *widths, *sizes, lowers, lowered_before, dilation, stride))
        before, previous, reduction_before, lowered_before = previous, nodes * c, reduction, lowers
        size_before, size = size, size_out
    return out


def stem_sizes(stem: str, image_size: Size) -> tuple[Size, Size]:
    """Return the sizes of the two outputs of a stem."""
    if stem == "cifar":
        return image_size, image_size
    quarter = strided(strided(image_size, 2), 2)
    return quarter, strided(quarter, 2)


def first_layer(g: CellGeometry) -> str:
    """Return the name of the layer that brings a cell's first input to its width and size."""
    if not g.reduction_before:
        return "ReLUConvBN"
    return "FactorizedReduce" if g.lowered_before else "FactorizedConv"


@dataclass(frozen=True, slots=True, kw_only=True)
class CellNetShape:
    """Shape of a network of cells, all but its operations.

    Args:
        cells: L.
        nodes: M, intermediate nodes per cell.
        channels: Initial channels.
        image_size: Size in pixels.
        input_channels: Colour channels.
        classes: Number of classes.
        stem: ``cifar`` or ``imagenet``.
        reductions: Indices of the reduction cells, from 0.
        deploy: BatchNorm affine and none after pooling.
        head: In place of the classifier.
    """

    cells: int
    nodes: int
    channels: int
    image_size: Size
    input_channels: int
    classes: int
    stem: str
    reductions: tuple[int, ...]
    deploy: bool
    head: Head | None = None

    def geometry(self) -> list[CellGeometry]:
        """Widths and sizes of every cell."""
        return geometry(
            cells=self.cells,
            nodes=self.nodes,
            channels=self.channels,
            image_size=self.image_size,
            stem=self.stem,
            reductions=self.reductions,
            output_stride=None if self.head is None else self.head.output_stride,
        )

    def features(self) -> dict[int, tuple[int, Size]]:
        """Return stride -> channels and size of the last feature map of that stride, in order."""
        size_before, size = stem_sizes(self.stem, self.image_size)
        cells = {g.stride: (self.nodes * g.channels, g.size_out) for g in self.geometry()}
        if self.stem == "cifar":
            return {1: (3 * self.channels, size)} | cells
        return {4: (self.channels, size_before), 8: (self.channels, size)} | cells


def cost_table(kind: Kind, shape: CellNetShape, candidates: Sequence[str]) -> CostTable:
    """Compute the cost of every choice in a network: additive, as a cell's output always concatenates all its nodes.

    Args:
        kind: The cost to count.
        shape: The network.
        candidates: Operation names of every edge.

    Returns:
        The table; entries have shape (2 M (M + 3) / 2, K).
    """
    cells, channels = shape.geometry(), shape.channels
    inputs = [i for node in range(shape.nodes) for i in range(2 + node)]
    base = _stem(shape.stem, shape.input_channels, channels, shape.image_size)
    if (head := shape.head) is not None:
        base += head_cost(head.name, width=head.width, classes=shape.classes, features=shape.features())
    else:
        base += linear(shape.nodes * cells[-1].channels, shape.classes)
    entries_EK = np.zeros((2 * len(inputs), len(candidates)), dtype=np.int64)
    for g in cells:
        if g.reduction_before:
            stride = 2 if g.lowered_before else 1
            base += factorized_reduce(g.channels_before_previous, g.channels, size=g.size_before, stride=stride)
        else:
            base += relu_conv_bn(g.channels_before_previous, g.channels, size=g.size_before)
        base += relu_conv_bn(g.channels_previous, g.channels, size=g.size_in)
        for edge, source in enumerate(inputs, start=len(inputs) if g.reduction else 0):
            stride, size = (2, g.size_in) if g.reduction and source < 2 else (1, g.size_out)
            for k, name in enumerate(candidates):
                cost = cell_op(name, g.channels, stride=stride, size=size, keeps_size=not g.lowers)
                entries_EK[edge, k] += getattr(cost, kind)
    return CostTable(getattr(base, kind), entries_EK)


def _stem(stem: str, input_channels: int, channels: int, image_size: Size) -> Cost:
    if stem == "cifar":
        return conv(input_channels, 3 * channels, kernel=3, size=image_size) + batch_norm(3 * channels, size=image_size)
    half = strided(image_size, 2)
    quarter = strided(half, 2)
    eighth = strided(quarter, 2)
    return (
        conv(input_channels, channels // 2, kernel=3, size=half)
        + batch_norm(channels // 2, size=half)
        + relu(channels // 2, size=half)
        + conv(channels // 2, channels, kernel=3, size=quarter)
        + batch_norm(channels, size=quarter)
        + relu(channels, size=quarter)
        + conv(channels, channels, kernel=3, size=eighth)
        + batch_norm(channels, size=eighth)
    )
