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
    batch_norm,
    cell_op,
    conv,
    factorized_reduce,
    linear,
    relu,
    relu_conv_bn,
    strided,
)


@dataclass(frozen=True, slots=True)
class CellGeometry:
    """Widths and sizes of one cell.

    Args:
        reduction: Whether it halves the resolution.
        reduction_before: Whether the cell before it did (its first input is then twice as large).
        channels_before_previous: Channels of its first input.
        channels_previous: Channels of its second input.
        channels: C of its nodes.
        size_before: Side of its first input in pixels.
        size_in: Side of its second input.
        size_out: Side of its output.
    """

    reduction: bool
    reduction_before: bool
    channels_before_previous: int
    channels_previous: int
    channels: int
    size_before: int
    size_in: int
    size_out: int


def geometry(
    *, cells: int, nodes: int, channels: int, image_size: int, stem: str, reductions: Sequence[int]
) -> list[CellGeometry]:
    """Compute widths and sizes of all cells: reductions double the width and halve the side (rounded up).

    The ``imagenet`` stem outputs a quarter and an eighth of the side, so the first cell follows a reduction.
    """
    size = size_before = image_size
    if stem == "imagenet":
        size_before = strided(strided(size, 2), 2)
        size = strided(size_before, 2)
    before, previous = (channels, channels) if stem == "imagenet" else (3 * channels, 3 * channels)
    out, reduction_before, c = [], stem == "imagenet", channels
    for cell in range(cells):
        reduction = cell in reductions
        c = 2 * c if reduction else c
        size_out = strided(size, 2) if reduction else size
        out.append(CellGeometry(reduction, reduction_before, before, previous, c, size_before, size, size_out))
        before, previous, reduction_before = previous, nodes * c, reduction
        size_before, size = size, size_out
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class CellNetShape:
    """Shape of a network of cells, all but its operations.

    Args:
        cells: L.
        nodes: M, intermediate nodes per cell.
        channels: Initial channels.
        image_size: Side in pixels.
        input_channels: Colour channels.
        classes: Number of classes.
        stem: ``cifar`` or ``imagenet``.
        reductions: Indices of the reduction cells, from 0.
        deploy: BatchNorm affine and none after pooling.
    """

    cells: int
    nodes: int
    channels: int
    image_size: int
    input_channels: int
    classes: int
    stem: str
    reductions: tuple[int, ...]
    deploy: bool

    def geometry(self) -> list[CellGeometry]:
        """Widths and sizes of every cell."""
        return geometry(
            cells=self.cells,
            nodes=self.nodes,
            channels=self.channels,
            image_size=self.image_size,
            stem=self.stem,
            reductions=self.reductions,
        )


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
    base += linear(shape.nodes * cells[-1].channels, shape.classes)
    entries_EK = np.zeros((2 * len(inputs), len(candidates)), dtype=np.int64)
    for g in cells:
        reduce_first = factorized_reduce if g.reduction_before else relu_conv_bn
        base += reduce_first(g.channels_before_previous, g.channels, size=g.size_before)
        base += relu_conv_bn(g.channels_previous, g.channels, size=g.size_in)
        for edge, source in enumerate(inputs, start=len(inputs) if g.reduction else 0):
            stride, size = (2, g.size_in) if g.reduction and source < 2 else (1, g.size_out)
            for k, name in enumerate(candidates):
                entries_EK[edge, k] += getattr(cell_op(name, g.channels, stride=stride, size=size), kind)
    return CostTable(getattr(base, kind), entries_EK)


def _stem(stem: str, input_channels: int, channels: int, image_size: int) -> Cost:
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
