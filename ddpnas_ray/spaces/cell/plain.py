"""Source of a deploy network of DARTS cells in plain PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ddpnas_ray.core.space import IntArray
from ddpnas_ray.costs.convnet import CELL_OPS, CONVOLUTIONS
from ddpnas_ray.spaces.cell.costs import CellNetShape
from ddpnas_ray.spaces.plain import fine_stride, head_source, operations_of, render

TEMPLATE = Path(__file__).with_name("plain.py.j2")


def network_source(shape: CellNetShape, alpha_E: IntArray) -> str:
    """Write the network as Python source; its weights are those of the deploy network, in the same order.

    Args:
        shape: The deploy network's shape.
        alpha_E: The chosen operation of every edge: the normal cell's, then the reduction cell's.
    """
    edges = [(source, node) for node in range(shape.nodes) for source in range(2 + node)]
    normal, reduce = (operations_of(CELL_OPS, half, edges) for half in np.split(np.asarray(alpha_E), 2))
    cells, head = shape.geometry(), shape.head
    channels = {stride: width for stride, (width, _) in shape.features().items()}
    fine = fine_stride(head, channels)
    used = [(reduce if cell.reduction else normal, cell.reduction) for cell in cells]
    names = {name for nodes, _ in used for node in nodes for name, _ in node}
    skips_down = any(["skip_connect", s] in node for nodes, down in used if down for node in nodes for s in (0, 1))
    return render(
        TEMPLATE,
        normal=normal,
        reduction=reduce,
        shape=shape,
        reductions=tuple(sorted(set(shape.reductions))),
        names=names,
        separable=sorted(names & {name for name in CONVOLUTIONS if name.startswith("sep")}),
        dilated=sorted(names & {name for name in CONVOLUTIONS if name.startswith("dil")}),
        convolutions=CONVOLUTIONS,
        skips_down=skips_down,
        halves=skips_down or any(cell.reduction_before for cell in cells),
        dilates=any(cell.reduction and not cell.lowers for cell in cells),
        head=head_source(head, channels, shape.classes),
        fine=fine,
        fine_cell=max((i for i, cell in enumerate(cells) if cell.stride == fine), default=None),
        empty=any(not node for nodes, _ in used for node in nodes),
    )
