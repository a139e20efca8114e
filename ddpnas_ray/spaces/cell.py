"""The cell space of DARTS (Sec. 3.1): a normal and a reduction cell, each a fully connected graph of M nodes.

Edge order: the normal cell's edges, node by node and input by input, then the reduction cell's. A generated cell gives
every node two inputs: its alpha has ``none`` on the others (design row 11).

Axes: E edges, K candidates.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Le

from ddpnas_ray.core.errors import GenotypeError, did_you_mean
from ddpnas_ray.core.types import BoolArray, CostTable, Edge, FloatArray, IntArray, Op, SearchSpace
from ddpnas_ray.costs.cellnet import cost_table
from ddpnas_ray.costs.convnet import CELL_OPS, CONVOLUTIONS
from ddpnas_ray.spaces.base import Genotype, Inputs, SpaceSpec, Supernet, Target, resolve_stem

if TYPE_CHECKING:
    from ddpnas_ray.nn.cellnet import CellNetShape, CellNetwork

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
    """The cell space.

    Args:
        cells: L of the search network; its second and third cells are reductions (Sec. 4).
        nodes: M, intermediate nodes a cell.
        channels: Initial channels of the search network.
    """
    per_cell = nodes * (nodes + 3) // 2
    edges = tuple(Edge(f"{kind}.{e}", OPS) for kind in KINDS for e in range(per_cell))
    node_edges = [_edges_of(node) for node in range(nodes)]
    blocks = tuple(tuple(per_cell * half + e for e in block) for half in range(2) for block in node_edges)
    search = {"cells": cells, "nodes": nodes, "channels": channels}
    return SpaceSpec(
        space=SearchSpace("cell", edges, blocks),
        supernet=partial(_supernet, search),
        build=partial(_build, search),
        deploy=partial(_deploy, nodes),
        encode=partial(encode, nodes=nodes),
        decode=partial(decode, nodes=nodes),
        costs={"params": partial(_cost, "params", nodes), "macs": partial(_cost, "macs", nodes)},
        most_likely=partial(most_likely, blocks=blocks),
        effort=partial(_effort, search),
    )


def encode(genotype: Genotype, *, nodes: int | None = None) -> IntArray:
    """A DARTS genotype -> alpha_E with ``none`` on the edges that it leaves out.

    Args:
        genotype: ``{"normal": [[operation, input], ...], "normal_concat": [...], "reduce": ..., ...}``,
            two pairs a node, in node order; inputs 0 and 1 are the cell's, 2 is the first node.
        nodes: M; None takes it from the genotype.

    Raises:
        GenotypeError: A key, operation, input or count that does not fit.
    """
    nodes = nodes or max(1, len(_section(genotype, "normal")) // 2)
    alphas = []
    for kind in KINDS:
        pairs = _section(genotype, kind)
        if len(pairs) != 2 * nodes:
            raise GenotypeError(f"genotype: {kind} has {len(pairs)} pairs, {nodes} nodes need {2 * nodes}: two a node")
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
                raise GenotypeError(f"genotype: {kind}[{i}]: {name!r} is no operation of a network{hint}")
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
    """alpha_E -> a DARTS genotype: every chosen operation but ``none``, node by node."""
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


def most_likely(theta_EK: FloatArray, live_EK: BoolArray, *, blocks: tuple[tuple[int, ...], ...]) -> IntArray:
    """The generated architecture with the largest expectation: each node's two best edges with their best operations.

    Left-out edges add 0 to E[alpha], so the two largest thetas of a node are the optimum of Eq. 10 without a budget.

    Args:
        theta_EK: The distribution, shape (E, K).
        live_EK: What is not pruned, shape (E, K).
        blocks: The edges of every node.

    Returns:
        alpha_E; ties go to the lexicographically smallest.
    """
    generable = np.array([op.generable for op in OPS])
    value_EK = np.where(live_EK & generable, theta_EK, -np.inf)
    best_E = value_EK.argmax(axis=1)
    alpha_E = np.full(len(best_E), NONE, dtype=np.int64)
    for block in blocks:
        # `none` has the smallest index, so among equals the later edges make alpha lexicographically smaller.
        for edge in sorted(block, key=lambda e: (-value_EK[e, best_E[e]], -e))[:2]:
            alpha_E[edge] = best_E[edge]
    return alpha_E


def _section(genotype: Genotype, kind: str) -> list[Any]:
    if not isinstance(genotype, dict) or not isinstance(genotype.get(kind), (list, tuple)):
        raise GenotypeError(f"genotype: the key {kind!r} with a list of [operation, input] pairs is missing")
    for i, pair in enumerate(genotype[kind]):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise GenotypeError(f"genotype: {kind}[{i}] is {pair!r}; a pair [operation, input] is needed")
    return list(genotype[kind])


def _edges_of(node: int) -> range:
    """The edges into a node, one an input, within its cell."""
    first = node * (node + 3) // 2
    return range(first, first + node + 2)


def _cost(kind: Literal["params", "macs"], nodes: int, target: Target) -> CostTable:
    return cost_table(
        kind,
        cells=target.cells,
        nodes=nodes,
        channels=target.channels,
        image_size=target.image_size,
        input_channels=target.input_channels,
        classes=target.classes,
        stem=target.stem,
        reductions=_deploy_reductions(target.cells),
        candidates=CELL_OPS,
    )


def _effort(search: dict[str, int], alpha_E: IntArray, inputs: Inputs) -> float:
    table = cost_table(
        "macs",
        **search,
        image_size=inputs.image_size,
        input_channels=inputs.channels,
        classes=inputs.classes,
        stem=resolve_stem("auto", inputs.image_size),
        reductions=_search_reductions(search["cells"]),
        candidates=CELL_OPS,
    )
    return float(table(alpha_E))


def _search_reductions(cells: int) -> tuple[int, ...]:
    return tuple(cell for cell in (1, 2) if cell < cells)


def _deploy_reductions(cells: int) -> tuple[int, ...]:
    return (cells // 3, 2 * cells // 3)


def _shape(search: dict[str, int], inputs: Inputs) -> CellNetShape:
    from ddpnas_ray.nn.cellnet import CellNetShape

    return CellNetShape(
        **search,
        image_size=inputs.image_size,
        input_channels=inputs.channels,
        classes=inputs.classes,
        stem=resolve_stem("auto", inputs.image_size),
        reductions=_search_reductions(search["cells"]),
        deploy=False,
    )


def _supernet(search: dict[str, int], inputs: Inputs) -> Supernet:
    from ddpnas_ray.nn.cellnet import CellNetwork

    edges = search["nodes"] * (search["nodes"] + 3)
    return CellNetwork(_shape(search, inputs), [CELL_OPS] * edges)


def _build(search: dict[str, int], alpha_E: IntArray, inputs: Inputs) -> CellNetwork:
    from ddpnas_ray.nn.cellnet import CellNetwork

    return CellNetwork(_shape(search, inputs), [(CELL_OPS[k],) for k in alpha_E])


def _deploy(nodes: int, alpha_E: IntArray, target: Target) -> CellNetwork:
    from ddpnas_ray.nn.cellnet import CellNetShape, CellNetwork

    shape = CellNetShape(
        cells=target.cells,
        nodes=nodes,
        channels=target.channels,
        image_size=target.image_size,
        input_channels=target.input_channels,
        classes=target.classes,
        stem=target.stem,
        reductions=_deploy_reductions(target.cells),
        deploy=True,
    )
    return CellNetwork(shape, [(CELL_OPS[k],) for k in alpha_E])
