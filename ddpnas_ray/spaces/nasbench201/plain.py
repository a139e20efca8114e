"""Source of a network of NAS-Bench-201 in plain PyTorch."""

from __future__ import annotations

from pathlib import Path

from ddpnas_ray.core.space import IntArray
from ddpnas_ray.spaces.nasbench201.costs import EDGES, KERNELS, OPERATIONS, Skeleton
from ddpnas_ray.spaces.plain import operations_of, render

TEMPLATE = Path(__file__).with_name("plain.py.j2")


def network_source(skeleton: Skeleton, alpha_E: IntArray) -> str:
    """Write the network as Python source; its weights are those of the deploy network, in the same order.

    Args:
        skeleton: The network's shape.
        alpha_E: The chosen operation of every edge.
    """
    nodes = operations_of(OPERATIONS, alpha_E, [(source, node - 1) for source, node in EDGES])
    names = {name for node in nodes for name, _ in node}
    convolutions = {name: KERNELS[name] for name in sorted(names & KERNELS.keys())}
    empty = any(not node for node in nodes)
    return render(TEMPLATE, nodes=nodes, skeleton=skeleton, names=names, convolutions=convolutions, empty=empty)
