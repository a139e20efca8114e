"""The space of NAS-Bench-201 (Dong and Yang, 2020): one cell of four nodes, repeated in three stages.

The cell has six edges; their ``none`` is selectable, since the benchmark's networks have it. Accuracies of all 15,625
architectures are known.

Axes: E edges, K candidates.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Ge, Le

from ddpnas_ray.core.errors import GenotypeError, did_you_mean
from ddpnas_ray.core.space import CostTable, Edge, IntArray, LongestPath, Op, SearchSpace, each_edge_alone
from ddpnas_ray.costs.convnet import KINDS, Kind, Size, height_and_width
from ddpnas_ray.spaces.base import Genotype, Part, SpaceSpec, Supernet, module_of
from ddpnas_ray.spaces.nasbench201.costs import EDGES, KERNELS, NODES, OPERATIONS, Skeleton, cost_table
from ddpnas_ray.spaces.nasbench201.paths import embed
from ddpnas_ray.spaces.nasbench201.plain import network_source
from ddpnas_ray.spaces.target import Example, Inputs, Target, TargetDefaults

if TYPE_CHECKING:
    from ddpnas_ray.spaces.nasbench201.network import NasBench201Network

OPS = tuple(Op(name, "parameter" if name in KERNELS else "non_parameter") for name in OPERATIONS)


def make(*, cells: Annotated[int, Ge(1), Le(100)] = 5, channels: Annotated[int, Ge(1)] = 16) -> SpaceSpec:
    """Create the space of NAS-Bench-201.

    Args:
        cells: N of the search network: cells of each of the three stages.
        channels: C of the search network: channels of the first stage.
    """
    edges = tuple(Edge(f"{source}-{node}", OPS) for source, node in EDGES)
    search = {"cells": cells, "channels": channels}
    return SpaceSpec(
        space=SearchSpace("nasbench201", edges, each_edge_alone(edges), embedding=embed),
        supernet=partial(_supernet, search),
        build=partial(_build, search),
        deploy=_deploy,
        encode=encode,
        decode=decode,
        costs={
            **{kind: partial(_cost, kind) for kind in KINDS},
            "flops": _flops,
            "nonparametric": _nonparametric,
            "height": _height,
        },
        target=TargetDefaults(cells=5, channels=16),
        parts=_parts,
        effort=partial(_effort, search),
        inherit=partial(_inherit, search),
        source=_source,
    )


def encode(genotype: Genotype) -> IntArray:
    """Genotype ``{"arch_str": "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|..."}`` -> alpha_E.

    Raises:
        GenotypeError: No such key, or see ``from_string``.
    """
    if not isinstance(genotype, dict) or "arch_str" not in genotype:
        raise GenotypeError("genotype: the key 'arch_str' with an architecture string of NAS-Bench-201 is missing")
    return from_string(genotype["arch_str"])


def decode(alpha_E: IntArray) -> Genotype:
    """alpha_E -> genotype with the architecture string."""
    return {"arch_str": to_string(alpha_E)}


def from_string(text: str) -> IntArray:
    """Architecture string of NAS-Bench-201 -> alpha_E.

    Args:
        text: Nodes 1 to 3, joined by ``+``; for each the operation on every edge into it, with the edge's source.

    Raises:
        GenotypeError: The text is not such a string.

    Example:
        >>> from_string("|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|")
        array([3, 0, 1, 4, 2, 0])
    """
    if not isinstance(text, str):
        raise GenotypeError(f"genotype: arch_str is {text!r}; a string is needed: {_form(1)}+{_form(2)}+{_form(3)}")
    nodes = text.split("+")
    if len(nodes) != NODES - 1:
        raise GenotypeError(
            f"genotype: arch_str has {len(nodes)} nodes; {NODES - 1} are needed: {_form(1)}+{_form(2)}+{_form(3)}"
        )
    alpha = []
    for node, written in enumerate(nodes, start=1):
        parts = written.split("|")
        if len(parts) != node + 2 or parts[0] or parts[-1]:
            raise GenotypeError(f"genotype: node {node} of arch_str is {written!r}; {_form(node)} is needed")
        for source, choice in enumerate(parts[1:-1]):
            name, _, given = choice.partition("~")
            if name not in OPERATIONS:
                hint = did_you_mean(name, OPERATIONS)
                raise GenotypeError(f"genotype: node {node} of arch_str: {name!r} is not an operation{hint}")
            if given != str(source):
                raise GenotypeError(f"genotype: node {node} of arch_str: {choice!r}; {name}~{source} is needed here")
            alpha.append(OPERATIONS.index(name))
    return np.array(alpha, dtype=np.int64)


def to_string(alpha_E: IntArray) -> str:
    """alpha_E -> architecture string of NAS-Bench-201.

    Example:
        >>> to_string(np.array([3, 0, 1, 4, 2, 0]))
        '|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|'
    """
    names = iter([OPERATIONS[k] for k in alpha_E])
    nodes = ["|".join(f"{next(names)}~{source}" for source in range(node)) for node in range(1, NODES)]
    return "+".join(f"|{node}|" for node in nodes)


def _form(node: int) -> str:
    return "|" + "".join(f"operation~{source}|" for source in range(node))


def _cost(kind: Kind, target: Target) -> CostTable:
    return cost_table(kind, _deploy_skeleton(target))


def _flops(target: Target) -> CostTable:
    """The benchmark's own count: macs, plus an addition for every element of the classifier's bias."""
    macs = _cost("macs", target)
    return CostTable(macs.base + target.classes, macs.entries_EK)


def _nonparametric(target: Target) -> CostTable:
    """N of Table 4: chosen operations of the non-parameter group."""
    return CostTable(0, np.tile(np.array([op.group == "non_parameter" for op in OPS], dtype=np.int64), (len(EDGES), 1)))


def _height(target: Target) -> LongestPath:
    """H of Table 4: the most operations in a row that a cell computes, whether or not its output depends on them."""
    arcs = tuple((e, source, node) for e, (source, node) in enumerate(EDGES))
    return LongestPath(arcs, np.tile(np.array(OPERATIONS) != "none", (len(EDGES), 1)))


def _parts(target: Target) -> list[Part]:
    """Return all timed parts of the deploy network. An edge costs an addition unless it is the first into its node."""
    skeleton = _deploy_skeleton(target)
    *halved, (width, side) = stages = skeleton.stages()
    colours, c, size, classes = skeleton.input_channels, skeleton.channels, skeleton.image_size, skeleton.classes
    parts = [
        _part(f"stem to {c}", (colours, size), "build_stem", colours, c),
        *(_part("reduction", (c, size), "Reduction", c) for c, size in halved),
        _part(f"head to {classes}", (width, side), "build_head", width, classes),
    ]
    for c, size in stages:
        shape = (c, size)
        for e, (source, _) in enumerate(EDGES):
            for k, name in enumerate(OPERATIONS[1:], start=1):
                own = [_part(name, shape, "build_op", name, c)] if name != "skip_connect" else []
                own += [_part("addition", shape, "Addition")] if source > 0 else []
                parts += [replace(part, edge=e, candidate=k) for part in own] * skeleton.cells
    return parts


def _part(key: str, of: tuple[int, Size], function: str, *arguments: Any) -> Part:
    """Return a part common to all networks, of channels and size, built by ``spaces.nasbench201.network``."""
    build = partial(module_of, "ddpnas_ray.spaces.nasbench201.network", function, *arguments)
    shape = (of[0], *height_and_width(of[1]))
    return Part(edge=None, key=f"{key} from {'x'.join(map(str, shape))}", example=Example(shape=shape), build=build)


def _effort(search: dict[str, int], alpha_E: IntArray, inputs: Inputs) -> float:
    return float(cost_table("macs", _search_skeleton(search, inputs))(alpha_E))


def _inherit(search: dict[str, int], name: str, target: Target, inputs: Inputs) -> str:
    """Return the search network's parameter in the stage of the same width, at the same relative position."""
    part, *rest = name.split(".")
    if part != "layers":
        return name
    deployed, searched = _deploy_skeleton(target), _search_skeleton(search, inputs)
    stage, position = divmod(int(rest[0]), deployed.cells + 1)
    widths = [channels for channels, _ in searched.stages()]
    width = deployed.stages()[stage][0]
    if width not in widths:
        return ""
    place = searched.cells if position == deployed.cells else position * searched.cells // deployed.cells
    return ".".join(["layers", str(widths.index(width) * (searched.cells + 1) + place), *rest[1:]])


def _search_skeleton(search: dict[str, int], inputs: Inputs) -> Skeleton:
    return Skeleton(**search, image_size=inputs.image_size, input_channels=inputs.channels, classes=inputs.outputs)


def _deploy_skeleton(target: Target) -> Skeleton:
    assert target.cells is not None and target.channels is not None
    return Skeleton(
        cells=target.cells,
        channels=target.channels,
        image_size=target.inputs.image_size,
        input_channels=target.inputs.channels,
        classes=target.classes,
    )


def _supernet(search: dict[str, int], inputs: Inputs) -> Supernet:
    return _network(_search_skeleton(search, inputs), [OPERATIONS] * len(EDGES), affine=False)


def _build(search: dict[str, int], alpha_E: IntArray, inputs: Inputs) -> NasBench201Network:
    return _network(_search_skeleton(search, inputs), [(OPERATIONS[k],) for k in alpha_E], affine=False)


def _deploy(alpha_E: IntArray, target: Target) -> NasBench201Network:
    return _network(_deploy_skeleton(target), [(OPERATIONS[k],) for k in alpha_E], affine=True)


def _network(skeleton: Skeleton, candidates: list[tuple[str, ...]], *, affine: bool) -> NasBench201Network:
    from ddpnas_ray.spaces.nasbench201.network import NasBench201Network

    return NasBench201Network(skeleton, candidates, affine=affine)


def _source(alpha_E: IntArray, target: Target) -> str:
    return network_source(_deploy_skeleton(target), alpha_E)
