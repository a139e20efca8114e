"""The cell space of DARTS (Sec. 3.1): a normal and a reduction cell, each a fully connected graph of M nodes.

Edge order: the normal cell's edges, node by node and input by input, then the reduction cell's. Every node of a
generated cell has two inputs: its alpha has ``none`` on the other edges.

Axes: E edges, K candidates.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Ge, Le

from ddpnas_ray.core.errors import GenotypeError, did_you_mean
from ddpnas_ray.core.space import CostTable, Edge, IntArray, LongestPath, Op, SearchSpace
from ddpnas_ray.costs.convnet import CELL_OPS, CONVOLUTIONS, Kind, Size, height_and_width
from ddpnas_ray.costs.convnet import KINDS as COST_KINDS
from ddpnas_ray.spaces.base import Genotype, Part, SpaceSpec, Supernet, head_part, module_of
from ddpnas_ray.spaces.cell.costs import CellGeometry, CellNetShape, cost_table, first_layer
from ddpnas_ray.spaces.cell.plain import network_source
from ddpnas_ray.spaces.target import Example, Inputs, Target, TargetDefaults, resolve_stem

if TYPE_CHECKING:
    from ddpnas_ray.spaces.cell.network import CellNetwork

OPS = tuple(
    Op(name, "parameter" if name in CONVOLUTIONS else "non_parameter", generable=name != "none") for name in CELL_OPS
)
NONE = CELL_OPS.index("none")
KINDS = ("normal", "reduce")


def make(
    *,
    cells: Annotated[int, Ge(1), Le(100)] = 6,
    nodes: Annotated[int, Ge(1), Le(8)] = 4,
    channels: Annotated[int, Ge(2)] = 16,
) -> SpaceSpec:
    """Create the cell space.

    Args:
        cells: L of the search network; its second and third cells are reductions (Sec. 4).
        nodes: M, intermediate nodes per cell.
        channels: Initial channels of the search network.
    """
    per_cell = nodes * (nodes + 3) // 2
    edges = tuple(Edge(f"{kind}.{e}", OPS) for kind in KINDS for e in range(per_cell))
    node_edges = [_edges_of(node) for node in range(nodes)]
    blocks = tuple(tuple(per_cell * half + e for e in block) for half in range(2) for block in node_edges)
    search = {"cells": cells, "nodes": nodes, "channels": channels}
    return SpaceSpec(
        space=SearchSpace("cell", edges, blocks, inputs=2),
        supernet=partial(_supernet, search),
        build=partial(_build, search),
        deploy=partial(_deploy, nodes),
        encode=partial(encode, nodes=nodes),
        decode=partial(decode, nodes=nodes),
        costs={
            **{kind: partial(_cost, kind, nodes) for kind in COST_KINDS},
            **{f"nonparametric.{kind}": partial(_nonparametric, half, nodes) for half, kind in enumerate(KINDS)},
            **{f"height.{kind}": partial(_height, half, nodes) for half, kind in enumerate(KINDS)},
        },
        target=TargetDefaults(cells=20, channels=36, stem=True, head=True),
        parts=partial(_parts, nodes),
        effort=partial(_effort, search),
        inherit=partial(_inherit, search),
        source=partial(_source, nodes),
    )


def encode(genotype: Genotype, *, nodes: int | None = None) -> IntArray:
    """DARTS genotype -> alpha_E with ``none`` on the edges that it leaves out.

    Args:
        genotype: ``{"normal": [[operation, input], ...], "normal_concat": [...], "reduce": ..., ...}``,
            two pairs per node, in node order; inputs 0 and 1 are the cell's, 2 is the first node.
        nodes: M; None takes it from the genotype.

    Raises:
        GenotypeError: A key, operation, input or count that does not fit.
    """
    nodes = nodes or max(1, len(_section(genotype, "normal")) // 2)
    alphas = []
    for kind in KINDS:
        pairs = _section(genotype, kind)
        if len(pairs) != 2 * nodes:
            raise GenotypeError(f"genotype: {kind} has {len(pairs)} pairs, {nodes} nodes need {2 * nodes}, two each")
        concat = genotype.get(f"{kind}_concat", list(range(2, 2 + nodes)))
        if not isinstance(concat, (list, tuple)) or list(concat) != list(range(2, 2 + nodes)):
            raise GenotypeError(
                f"genotype: {kind}_concat is {concat}; cells of this space concatenate all nodes: "
                f"{list(range(2, 2 + nodes))}"
            )
        alpha_E = np.full(nodes * (nodes + 3) // 2, NONE, dtype=np.int64)
        for i, (name, source) in enumerate(pairs):
            edges = _edges_of(i // 2)
            if name not in CELL_OPS or name == "none":
                hint = did_you_mean(str(name), CELL_OPS[1:])
                raise GenotypeError(f"genotype: {kind}[{i}]: {name!r} is not an operation of a network{hint}")
            if type(source) is not int or not 0 <= source < len(edges):
                raise GenotypeError(
                    f"genotype: {kind}[{i}]: input {source!r}; node {i // 2} has inputs 0..{len(edges) - 1}"
                )
            if alpha_E[edges[source]] != NONE:
                raise GenotypeError(f"genotype: {kind}[{i}]: node {i // 2} takes input {source} twice")
            alpha_E[edges[source]] = CELL_OPS.index(name)
        alphas.append(alpha_E)
    return np.concatenate(alphas)


def decode(alpha_E: IntArray, *, nodes: int) -> Genotype:
    """alpha_E -> DARTS genotype: every chosen operation but ``none``, node by node."""
    genotype: dict[str, Any] = {}
    for kind, cell_E in zip(KINDS, np.split(np.asarray(alpha_E), 2), strict=True):
        genotype[kind] = [
            [CELL_OPS[cell_E[edge]], source]
            for node in range(nodes)
            for source, edge in enumerate(_edges_of(node))
            if cell_E[edge] != NONE
        ]
        genotype[f"{kind}_concat"] = list(range(2, 2 + nodes))
    return genotype


def _section(genotype: Genotype, kind: str) -> list[Any]:
    if not isinstance(genotype, dict) or not isinstance(genotype.get(kind), (list, tuple)):
        raise GenotypeError(f"genotype: the key {kind!r} with a list of [operation, input] pairs is missing")
    for i, pair in enumerate(genotype[kind]):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise GenotypeError(f"genotype: {kind}[{i}] is {pair!r}; a pair [operation, input] is needed")
    return list(genotype[kind])


def _edges_of(node: int) -> range:
    """Return the edges into a node, one per input, within its cell."""
    first = node * (node + 3) // 2
    return range(first, first + node + 2)


def _cost(kind: Kind, nodes: int, target: Target) -> CostTable:
    return cost_table(kind, _deploy_shape(nodes, target), CELL_OPS)


def _parts(nodes: int, target: Target) -> list[Part]:
    """Return all timed parts of the deploy network; additions, concatenations and stride-1 skips are not timed."""
    shape = _deploy_shape(nodes, target)
    stem = (shape.stem, shape.input_channels, shape.channels)
    parts = [_part("stem", (shape.input_channels, shape.image_size), "build_stem", *stem)]
    inputs = [i for node in range(nodes) for i in range(2 + node)]
    for g in shape.geometry():
        before, previous = g.channels_before_previous, g.channels_previous
        first = first_layer(g)
        parts.append(_part(first, (before, g.size_before), "preprocess", first, before, g.channels))
        parts.append(_part("ReLUConvBN", (previous, g.size_in), "preprocess", "ReLUConvBN", previous, g.channels))
        for edge, source in enumerate(inputs, start=len(inputs) if g.reduction else 0):
            stride, size = (2, g.size_in) if g.reduction and source < 2 else (1, g.size_out)
            form = (g.dilation, stride == 2 and not g.lowers) if g.dilation > 1 else ()
            for k, name in enumerate(CELL_OPS):
                if name == "none" or (name == "skip_connect" and stride == 1):
                    continue
                part = _part(
                    f"{name} stride {stride}", (g.channels, size), "deploy_op", name, g.channels, stride, *form
                )
                parts.append(replace(part, edge=edge, candidate=k))
    if shape.head is not None:
        return [*parts, head_part(shape.head, shape.features(), shape.classes, shape.image_size)]
    last = shape.geometry()[-1]
    width = nodes * last.channels
    return [*parts, _part("classifier", (width, last.size_out), "classifier", width, shape.classes)]


def _part(name: str, of: tuple[int, Size], function: str, *arguments: Any) -> Part:
    """Return a part common to all networks, of channels and size, built by a function of ``spaces.cell.network``."""
    shape = (of[0], *height_and_width(of[1]))
    key = f"{name} {'x'.join(map(str, shape))} ({', '.join(map(str, arguments))})"
    return Part(
        edge=None,
        key=key,
        example=Example(shape=shape),
        build=partial(module_of, "ddpnas_ray.spaces.cell.network", function, *arguments),
    )


def _nonparametric(half: int, nodes: int, target: Target) -> CostTable:
    """N of Table 4 for one of the two cells: chosen operations of the non-parameter group."""
    entries_EK = np.zeros((2, nodes * (nodes + 3) // 2, len(OPS)), dtype=np.int64)
    entries_EK[half] = [op.group == "non_parameter" and op.generable for op in OPS]
    return CostTable(0, entries_EK.reshape(-1, len(OPS)))


def _height(half: int, nodes: int, target: Target) -> LongestPath:
    """H of Table 4 for one of the two cells. Nodes 0 and 1 are the cell's inputs."""
    per_cell = nodes * (nodes + 3) // 2
    arcs = tuple(
        (half * per_cell + edge, source, 2 + node)
        for node in range(nodes)
        for source, edge in enumerate(_edges_of(node))
    )
    return LongestPath(arcs, np.tile(np.array([op.generable for op in OPS]), (2 * per_cell, 1)))


def _effort(search: dict[str, int], alpha_E: IntArray, inputs: Inputs) -> float:
    return float(cost_table("macs", _search_shape(search, inputs), CELL_OPS)(alpha_E))


def _inherit(search: dict[str, int], name: str, target: Target, inputs: Inputs) -> str:
    """Return the search network's parameter in a cell of the same kind and width, if possible with the same inputs.

    Of several such cells, the one at the same relative position.
    """
    part, *rest = name.split(".")
    if part != "cells":
        return name
    deployed = _deploy_shape(search["nodes"], target).geometry()
    searched = _search_shape(search, inputs).geometry()
    cell = int(rest[0])
    for key in (_kind_and_inputs, _kind):
        matches = [c for c, g in enumerate(searched) if key(g) == key(deployed[cell])]
        if matches:
            alike = [c for c, g in enumerate(deployed) if key(g) == key(deployed[cell])]
            found = matches[alike.index(cell) * len(matches) // len(alike)]
            return ".".join(["cells", str(found), *rest[1:]])
    return ""


def _kind(g: CellGeometry) -> tuple[int, ...]:
    return g.reduction, g.channels


def _kind_and_inputs(g: CellGeometry) -> tuple[int, ...]:
    return *_kind(g), g.reduction_before, g.channels_before_previous, g.channels_previous


def _search_reductions(cells: int) -> tuple[int, ...]:
    return tuple(cell for cell in (1, 2) if cell < cells)


def _deploy_reductions(cells: int) -> tuple[int, ...]:
    return (cells // 3, 2 * cells // 3)


def _search_shape(search: dict[str, int], inputs: Inputs) -> CellNetShape:
    return CellNetShape(
        **search,
        image_size=inputs.image_size,
        input_channels=inputs.channels,
        classes=inputs.outputs,
        stem=resolve_stem("auto", inputs.image_size),
        reductions=_search_reductions(search["cells"]),
        deploy=False,
        head=inputs.head,
    )


def _deploy_shape(nodes: int, target: Target) -> CellNetShape:
    assert target.cells is not None and target.channels is not None and target.stem is not None
    return CellNetShape(
        cells=target.cells,
        nodes=nodes,
        channels=target.channels,
        image_size=target.inputs.image_size,
        input_channels=target.inputs.channels,
        classes=target.classes,
        stem=target.stem,
        reductions=_deploy_reductions(target.cells),
        deploy=True,
        head=target.head,
    )


def _supernet(search: dict[str, int], inputs: Inputs) -> Supernet:
    from ddpnas_ray.spaces.cell.network import CellNetwork

    edges = search["nodes"] * (search["nodes"] + 3)
    return CellNetwork(_search_shape(search, inputs), [CELL_OPS] * edges)


def _build(search: dict[str, int], alpha_E: IntArray, inputs: Inputs) -> CellNetwork:
    from ddpnas_ray.spaces.cell.network import CellNetwork

    return CellNetwork(_search_shape(search, inputs), [(CELL_OPS[k],) for k in alpha_E])


def _deploy(nodes: int, alpha_E: IntArray, target: Target) -> CellNetwork:
    from ddpnas_ray.spaces.cell.network import CellNetwork

    return CellNetwork(_deploy_shape(nodes, target), [(CELL_OPS[k],) for k in alpha_E])


def _source(nodes: int, alpha_E: IntArray, target: Target) -> str:
    return network_source(_deploy_shape(nodes, target), alpha_E)
