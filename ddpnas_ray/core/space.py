"""A search space: operations, edges, blocks, and the costs and expectation of an architecture.

Axes: E edges, K candidates of the widest edge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True)
class Gate:
    """The edge whose choice (the mode: a network's depth) decides which other edges are active.

    Args:
        edge: Index of that edge.
        inactive: For each of its candidates, the edges that are inactive in networks that choose it.

    Example:
        >>> depth = Gate(0, inactive=((2, 3), (3,), ()))  # one, two or three layers: edges 1, 2, 3
        >>> depth.active(np.array([1, 0, 0, 0]))
        array([ True,  True,  True, False])
    """

    edge: int
    inactive: tuple[tuple[int, ...], ...]

    def active(self, alphas_NE: IntArray) -> BoolArray:
        """Return the mask of active edges, shape (E,) of one architecture, (N, E) of several."""
        active_NE = np.ones(alphas_NE.shape, dtype=bool)
        for k, edges in enumerate(self.inactive):
            active_NE[..., list(edges)] &= alphas_NE[..., self.edge, None] != k
        return active_NE


@dataclass(frozen=True)
class SearchSpace:
    """The choices of a search space; how networks compute is defined elsewhere.

    Args:
        name: The space's name.
        edges: The E edges; edges may have different numbers of candidates ("ragged").
        blocks: Sets of edge indices that are chosen together when a network is generated (a layer; a cell's node with
            its inputs). Every edge is in exactly one block.
        gate: Makes edges conditional. An inactive edge records no visit, costs nothing, and adds the mean theta of its
            live operations to E[alpha]. None: all edges are active in every architecture.
        inputs: Edges of each block that a generated network uses; the others get the one candidate that is not
            selectable (``none``). None: all edges.
        embedding: Maps alphas_NE to features, shape (N, F), by which architectures that compute alike are close, whose
            edges need not be: their squared distance is in units of edges that differ. None: edges say it all.

    Raises:
        ValueError: An edge without selectable candidates, duplicate names, blocks that do not partition the edges, an
            edge that may be left out without exactly one candidate for that, or a gate that fits neither the edges nor
            ``inputs``.

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
    gate: Gate | None = None
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
        if self.gate is not None:
            self._check_gate(self.gate)

    def _check_inputs(self, inputs: int) -> None:
        if not 1 <= inputs <= min(len(block) for block in self.blocks):
            raise ValueError(f"space {self.name!r}: inputs is {inputs}; every block needs at least that many edges")
        for edge in self.edges:
            if sum(not op.generable for op in edge.candidates) != 1:
                raise ValueError(
                    f"space {self.name!r}: edge {edge.name!r} may be left out, so it needs exactly one candidate "
                    "that is not selectable (generable=False)"
                )

    def _check_gate(self, gate: Gate) -> None:
        others = set(range(len(self.edges))) - {gate.edge}
        if self.inputs is not None:
            raise ValueError(f"space {self.name!r}: a gate and inputs exclude each other; give one of them")
        if not 0 <= gate.edge < len(self.edges) or not others.issuperset(e for off in gate.inactive for e in off):
            raise ValueError(
                f"space {self.name!r}: gate {gate} names edges that do not exist, or makes its own edge inactive; "
                f"edges are 0 to {len(self.edges) - 1}"
            )
        if len(gate.inactive) != (count := len(self.edges[gate.edge].candidates)):
            raise ValueError(
                f"space {self.name!r}: edge {self.edges[gate.edge].name!r} of the gate has {count} candidates, so it "
                f"needs as many tuples of inactive edges, got {len(gate.inactive)}"
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

    def active(self, alphas_NE: IntArray) -> BoolArray:
        """Return the mask of active edges, shape (E,) of one architecture, (N, E) of several."""
        return np.ones(alphas_NE.shape, dtype=bool) if self.gate is None else self.gate.active(alphas_NE)

    def canonical(self, alphas_NE: IntArray) -> IntArray:
        """Return the one alpha of each network: its inactive edges have their first selectable candidate.

        Args:
            alphas_NE: One architecture, shape (E,), or several, (N, E).
        """
        if self.gate is None:
            return alphas_NE
        return np.where(self.gate.active(alphas_NE), alphas_NE, self.generable_EK.argmax(axis=1))

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
        gate: That of the space: inactive edges cost nothing. ``SpaceSpec`` sets it.
    """

    base: int
    entries_EK: IntArray
    gate: Gate | None = None

    def __call__(self, alpha_E: IntArray) -> int:
        """Return the exact cost of one architecture."""
        entries_E = self.entries_EK[np.arange(len(alpha_E)), alpha_E]
        return self.base + int((entries_E if self.gate is None else entries_E[self.gate.active(alpha_E)]).sum())

    def in_mode(self, active_E: BoolArray) -> CostTable:
        """Return the cost of the architectures with these active edges, as a cost without a gate."""
        return replace(self, entries_EK=np.where(active_E[:, None], self.entries_EK, 0), gate=None)


@dataclass(frozen=True)
class LongestPath:
    """A non-additive cost: the number of operations on the longest path from an input to a node (H of Table 4).

    Args:
        arcs: (edge, source node, node), such that all arcs into a node come before those out of it. Nodes without
            arcs into them are inputs.
        counts_EK: Choices that count as an operation: all but those that leave the edge out, shape (E, K).
        gate: That of the space: no path leads through inactive edges. ``SpaceSpec`` sets it.

    Raises:
        ValueError: No arcs, or arcs in another order.
    """

    arcs: tuple[tuple[int, int, int], ...]
    counts_EK: BoolArray
    gate: Gate | None = None

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
        if self.gate is not None:
            return self.in_mode(self.gate.active(alpha_E))(alpha_E)
        height = dict.fromkeys(self.sources, 0)
        for edge, source, node in self.arcs:
            if source in height and self.counts_EK[edge, alpha_E[edge]]:
                height[node] = max(height.get(node, 0), height[source] + 1)
        return max(height.values(), default=0)

    def in_mode(self, active_E: BoolArray) -> LongestPath:
        """Return the height of the architectures with these active edges, as a cost without a gate."""
        return replace(self, counts_EK=self.counts_EK & active_E[:, None], gate=None)


CostFunction: TypeAlias = CostTable | LongestPath


def expectation(alpha_E: IntArray, theta_EK: FloatArray, space: SearchSpace, live_EK: BoolArray) -> float:
    """Compute E[alpha] of Eq. 9: the mean over edges of theta at the chosen operation, summed exactly in edge order.

    An edge whose chosen operation is not selectable (``none`` of the cell space: the edge is left out) adds 0. An
    inactive edge adds the mean theta of its live selectable operations, as if it had drawn one of them.

    Args:
        alpha_E: The architecture, shape (E,).
        theta_EK: The distribution, shape (E, K).
        space: Defines selectable operations and active edges.
        live_EK: Operations not pruned, shape (E, K).
    """
    chosen = [float(theta_EK[e, k]) if space.op(e, int(k)).generable else 0.0 for e, k in enumerate(alpha_E)]
    inactive = () if space.gate is None else np.flatnonzero(~space.gate.active(alpha_E))
    for e in inactive:
        live_K = theta_EK[e, live_EK[e] & space.generable_EK[e]]
        chosen[e] = math.fsum(live_K) / max(1, len(live_K))
    return math.fsum(chosen) / len(chosen)


def inactive_theta(theta_XEK: FloatArray, space: SearchSpace, live_EK: BoolArray) -> FloatArray:
    """Return what each edge adds to E[alpha] when it is inactive (see ``expectation``), shape (..., E)."""
    counted_EK = live_EK & space.generable_EK
    mean_XE: FloatArray = np.where(counted_EK, theta_XEK, 0.0).sum(axis=-1) / np.maximum(1, counted_EK.sum(axis=-1))
    return mean_XE
