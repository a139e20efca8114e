"""Geometry and exact costs of networks of DARTS cells, without torch.

Axes: E edges (normal cell, then reduction cell), K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ddpnas_ray.core.types import CostTable
from ddpnas_ray.costs.convnet import (
    Cost,
    batch_norm,
    cell_op,
    conv,
    factorized_reduce,
    linear,
    relu_conv_bn,
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
        size_in: Side of its second input in pixels.
        size_out: Side of its output.
    """

    reduction: bool
    reduction_before: bool
    channels_before_previous: int
    channels_previous: int
    channels: int
    size_in: int
    size_out: int


def geometry(
    *, cells: int, nodes: int, channels: int, image_size: int, stem: str, reductions: Sequence[int]
) -> list[CellGeometry]:
    """Walk through the cells: reductions double the width and halve the side (rounded up).

    The ``imagenet`` stem gives its two outputs at a quarter and an eighth of the side, so that the first cell sees a
    reduction before it.
    """
    size, halvings = image_size, 3 if stem == "imagenet" else 0
    for _ in range(halvings):
        size = -(-size // 2)
    before, previous = (channels, channels) if stem == "imagenet" else (3 * channels, 3 * channels)
    out, reduction_before, c = [], stem == "imagenet", channels
    for cell in range(cells):
        reduction = cell in reductions
        c = 2 * c if reduction else c
        size_out = -(-size // 2) if reduction else size
        out.append(CellGeometry(reduction, reduction_before, before, previous, c, size, size_out))
        before, previous, size, reduction_before = previous, nodes * c, size_out, reduction
    return out


def cost_table(
    kind: Literal["params", "macs"],
    *,
    cells: int,
    nodes: int,
    channels: int,
    image_size: int,
    input_channels: int,
    classes: int,
    stem: str,
    reductions: Sequence[int],
    candidates: Sequence[str],
) -> CostTable:
    """The cost of every choice in a deploy network: additive, since a cell's output always concatenates all its nodes.

    Args:
        kind: What to count.
        cells: L.
        nodes: M.
        channels: Initial channels.
        image_size: Side in pixels.
        input_channels: Colour channels.
        classes: Number of classes.
        stem: ``cifar`` or ``imagenet``.
        reductions: Indices of the reduction cells, from 0.
        candidates: Operation names of every edge.

    Returns:
        The table; entries have shape (2 M (M + 3) / 2, K).
    """
    cells_of = geometry(
        cells=cells, nodes=nodes, channels=channels, image_size=image_size, stem=stem, reductions=reductions
    )
    inputs = [i for node in range(nodes) for i in range(2 + node)]
    base = _stem(stem, input_channels, channels, image_size) + linear(nodes * cells_of[-1].channels, classes)
    entries_EK = np.zeros((2 * len(inputs), len(candidates)), dtype=np.int64)
    for g in cells_of:
        reduce_first = factorized_reduce if g.reduction_before else relu_conv_bn
        base += reduce_first(g.channels_before_previous, g.channels, size=g.size_in)
        base += relu_conv_bn(g.channels_previous, g.channels, size=g.size_in)
        for edge, source in enumerate(inputs, start=len(inputs) if g.reduction else 0):
            stride = 2 if g.reduction and source < 2 else 1
            for k, name in enumerate(candidates):
                entries_EK[edge, k] += getattr(cell_op(name, g.channels, stride=stride, size=g.size_out), kind)
    return CostTable(getattr(base, kind), entries_EK)


def _stem(stem: str, input_channels: int, channels: int, image_size: int) -> Cost:
    if stem == "cifar":
        return conv(input_channels, 3 * channels, kernel=3, size=image_size) + batch_norm(3 * channels)
    half, quarter = -(-image_size // 2), -(-image_size // 4)
    return (
        conv(input_channels, channels // 2, kernel=3, size=half)
        + batch_norm(channels // 2)
        + conv(channels // 2, channels, kernel=3, size=quarter)
        + batch_norm(channels)
        + conv(channels, channels, kernel=3, size=-(-quarter // 2))
        + batch_norm(channels)
    )
