"""Skeleton and exact costs of the networks of NAS-Bench-201, without torch.

Axes: E edges of the cell, K candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ddpnas_ray.core.space import CostTable
from ddpnas_ray.costs.convnet import Cost, Kind, Size, batch_norm, conv, linear, relu, relu_conv_bn, strided

KERNELS = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}
OPERATIONS = ("none", "skip_connect", *KERNELS, "avg_pool_3x3")  # the benchmark's order
NODES = 4  # node 0 is the cell's input, node 3 its output
EDGES = tuple((source, node) for node in range(1, NODES) for source in range(node))  # the benchmark's order


@dataclass(frozen=True, slots=True, kw_only=True)
class Skeleton:
    """Shape of a network, all but the operations of its cell.

    Args:
        cells: N, cells of each of the three stages.
        channels: C of the first stage; the second has twice and the third four times as many.
        image_size: Size in pixels.
        input_channels: Colour channels.
        classes: Number of classes.
    """

    cells: int
    channels: int
    image_size: Size
    input_channels: int
    classes: int

    def stages(self) -> list[tuple[int, Size]]:
        """Return channels and size of each stage; reductions double channels and halve the side, rounded up."""
        half = strided(self.image_size, 2)
        return [(self.channels, self.image_size), (2 * self.channels, half), (4 * self.channels, strided(half, 2))]


def cost_table(kind: Kind, skeleton: Skeleton) -> CostTable:
    """Compute the cost of every choice in a network.

    Args:
        kind: The cost to count.
        skeleton: The network.

    Returns:
        The table; entries have shape (6, 5). All edges cost the same.
    """
    *halved, (width, side) = stages = skeleton.stages()
    base = conv(skeleton.input_channels, skeleton.channels, kernel=3, size=skeleton.image_size)
    base += batch_norm(skeleton.channels, size=skeleton.image_size)
    for channels, size in halved:
        base += reduction(channels, size=size)
    base += batch_norm(width, size=side) + relu(width, size=side) + linear(width, skeleton.classes)
    entries_EK = np.zeros((len(EDGES), len(OPERATIONS)), dtype=np.int64)
    for channels, size in stages:
        entries_EK += [getattr(op_cost(name, channels, size=size) * skeleton.cells, kind) for name in OPERATIONS]
    return CostTable(getattr(base, kind), entries_EK)


def reduction(channels: int, *, size: Size) -> Cost:
    """Cost of the residual block between two stages; ``channels`` and ``size`` are those of its input."""
    out = strided(size, 2)
    return (
        relu_conv_bn(channels, 2 * channels, size=size, kernel=3, stride=2)
        + relu_conv_bn(2 * channels, 2 * channels, size=out, kernel=3)
        + conv(channels, 2 * channels, kernel=1, size=out)
    )


def op_cost(name: str, channels: int, *, size: Size) -> Cost:
    """Cost of one operation of a cell."""
    return relu_conv_bn(channels, channels, size=size, kernel=KERNELS[name]) if name in KERNELS else Cost()
