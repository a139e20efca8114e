"""A search space: operations, edges, blocks, and the costs and expectation of an architecture.

Axes: E edges, K candidates of the widest edge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

Group = Literal["parameter", "non_parameter"]
GROUPS: tuple[Group, ...] = ("parameter", "non_parameter")


@dataclass(frozen=True, slots=True)
class Op:
    """A candidate operation (the paper's o).

    Args:
        name: The field's name for it, such as ``sep_conv_3x3``.
        group: O_p or O_n of Sec. 3.2; pruning keeps ``keep_per_group`` operations of each.
        generable: Whether it is selectable for a final network. ``none`` of the cell space is sampled and scored like
            the rest but never kept.
    """

    name: str
    group: Group
    generable: bool = True


@dataclass(frozen=True, slots=True)
class Edge:
    """A place where one operation is chosen: (i, j) in the paper's cells, a layer in chain-structured spaces."""

    name: str
    candidates: tuple[Op, ...]


def every_edge_active(alpha_E: IntArray) -> BoolArray:
    """Gate of spaces without conditional edges."""
    return np.ones(len(alpha_E), dtype=bool)


@dataclass(frozen=True)
class SearchSpace:
    """The choices of a search space; how networks compute is defined elsewhere.

    Args:
        name: The space's name.
        edges: The E edges; edges may have different numbers of candidates ("ragged").
        blocks: Sets of edge indices that are chosen together when a network is generated (a layer; a cell's node with
            its inputs). Every edge is in exactly one block.
        gate: Maps alpha_E to a mask of the edges that are active in that architecture. An inactive edge records no
            visit.
        inputs: Edges of each block that a generated network uses; the others get the one candidate that is not
            selectable (``none``). None: all edges.
        embedding: Maps alphas_NE to features, shape (N, F), by which architectures that compute alike are close, whose
            edges need not be: their squared distance is in units of edges that differ. None: edges say it all.

    Raises:
        ValueError: An edge without selectable candidates, duplicate names, blocks that do not partition the edges, or
            an edge that may be left out without exactly one candidate for that.

    Example:
        >>> conv, skip = Op("conv", "parameter"), Op("skip", "non_parameter")
        >>> space = SearchSpace("tiny", (Edge("a", (conv, skip)), Edge("b", (conv,))), ((0,), (1,)))
        >>> space.exists_EK
        array([[ True,  True],
               [ True, False]])
    """

    name: str
    edges: tuple[Edge, ...]
    blocks: tuple[tuple[int, ...], ...]
    gate: Callable[[IntArray], BoolArray] = every_edge_active
    inputs: int | None = None
    embedding: Callable[[IntArray], FloatArray] | None = None

    def __post_init__(self) -> None:
        names = [edge.name for edge in self.edges]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"space {self.name!r}: needs at least one edge, and unique edge names, got {names}")
        for edge in self.edges:
            ops = [op.name for op in edge.candidates]
            if not ops or len(set(ops)) != len(ops):
                raise ValueError(f"space {self.name!r}: edge {edge.name!r} needs unique candidates, got {ops}")
            if not any(op.generable for op in edge.candidates):
                raise ValueError(f"space {self.name!r}: edge {edge.name!r} needs at least one selectable candidate")
        if sorted(e for block in self.blocks for e in block) != list(range(len(self.edges))):
            raise ValueError(f"space {self.name!r}: blocks must name each of the {len(self.edges)} edges exactly once")
        if self.inputs is not None:
            self._check_inputs(self.inputs)

    def _check_inputs(self, inputs: int) -> None:
        if not 1 <= inputs <= min(len(block) for block in self.blocks):
            raise ValueError(f"space {self.name!r}: inputs is {inputs}; every block needs at least that many edges")
        for edge in self.edges:
            if sum(not op.generable for op in edge.candidates) != 1:
                raise ValueError(
                    f"space {self.name!r}: edge {edge.name!r} may be left out, so it needs exactly one candidate "
                    "that is not selectable (generable=False)"
                )

    @property
    def shape(self) -> tuple[int, int]:
        """(E, K)."""
        return len(self.edges), max(len(edge.candidates) for edge in self.edges)

    @cached_property
    def exists_EK(self) -> BoolArray:
        """Mask of real candidates, shape (E, K); the rest is padding."""
        return self._mask(lambda op: True)

    @cached_property
    def generable_EK(self) -> BoolArray:
        """Mask of candidates that a generated network may select, shape (E, K)."""
        return self._mask(lambda op: op.generable)

    def group_EK(self, group: Group) -> BoolArray:
        """Return the mask of candidates in ``group``, shape (E, K)."""
        return self._mask(lambda op: op.group == group)

    def active(self, alpha_E: IntArray) -> BoolArray:
        """Return the mask of edges active in an architecture, shape (E,)."""
        return self.gate(alpha_E)

    @property
    def conditional(self) -> bool:
        """Whether the choices on some edges decide if others are active."""
        return self.gate is not every_edge_active

    def op(self, edge: int, index: int) -> Op:
        """Return the candidate that ``alpha_E[edge] == index`` selects."""
        return self.edges[edge].candidates[index]

    def _mask(self, condition: Callable[[Op], bool]) -> BoolArray:
        mask = np.zeros(self.shape, dtype=bool)
        for e, edge in enumerate(self.edges):
            mask[e, : len(edge.candidates)] = [condition(op) for op in edge.candidates]
        mask.setflags(write=False)
        return mask


def each_edge_alone(edges: Sequence[Edge]) -> tuple[tuple[int, ...], ...]:
    """Return the blocks of a space whose edges are chosen independently."""
    return tuple((e,) for e in range(len(edges)))


@dataclass(frozen=True)
class CostTable:
    """An additive cost: ``base`` and one entry per edge and candidate.

    Args:
        base: Cost common to all networks of the target (stem, preprocessing, classifier).
        entries_EK: Cost added by each choice, int64, shape (E, K); 0 in the padding.
    """

    base: int
    entries_EK: IntArray

    def __call__(self, alpha_E: IntArray) -> int:
        """Return the exact cost of one architecture."""
        return self.base + int(self.entries_EK[np.arange(len(alpha_E)), alpha_E].sum())


@dataclass(frozen=True)
class LongestPath:
    """A non-additive cost: the number of operations on the longest path from an input to a node (H of Table 4).

    Args:
        arcs: (edge, source node, node), such that all arcs into a node come before those out of it. Nodes without
            arcs into them are inputs.
        counts_EK: Choices that count as an operation: all but those that leave the edge out, shape (E, K).

    Raises:
        ValueError: No arcs, or arcs in another order.
    """

    arcs: tuple[tuple[int, int, int], ...]
    counts_EK: BoolArray

    def __post_init__(self) -> None:
        if not self.arcs:
            raise ValueError("longest path: at least one arc is needed")
        left: set[int] = set()
        for edge, source, node in self.arcs:
            left.add(source)
            if node in left:
                raise ValueError(f"longest path: the arc of edge {edge} enters node {node} after an arc has left it")

    @property
    def sources(self) -> frozenset[int]:
        """The input nodes."""
        return frozenset(source for _, source, _ in self.arcs) - frozenset(node for _, _, node in self.arcs)

    def __call__(self, alpha_E: IntArray) -> int:
        """Return the height of one architecture."""
        height = dict.fromkeys(self.sources, 0)
        for edge, source, node in self.arcs:
            if source in height and self.counts_EK[edge, alpha_E[edge]]:
                height[node] = max(height.get(node, 0), height[source] + 1)
        return max(height.values(), default=0)


CostFunction: TypeAlias = CostTable | LongestPath


def expectation(alpha_E: IntArray, theta_EK: FloatArray, space: SearchSpace) -> float:
    """Compute E[alpha] of Eq. 9: the mean over edges of theta at the chosen operation, summed exactly in edge order.

    An edge whose chosen operation is not selectable (``none`` of the cell space: the edge is left out) adds 0.
    """
    chosen = [float(theta_EK[e, k]) if space.op(e, int(k)).generable else 0.0 for e, k in enumerate(alpha_E)]
    return math.fsum(chosen) / len(chosen)
