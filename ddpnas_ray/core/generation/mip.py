"""Generation as a mixed-integer program (MIP), solved by HiGHS to a gap of 0 and checked in integers.

One binary per edge and operation. An edge that is inactive in some modes chooses as many operations as the gate's edge
chooses modes in which it is active: one or none.

HiGHS satisfies rows to 1e-6, so a solution may violate a bound by that much: it is then cut off and the MIP solved
again. For the k best, each solution found is cut off in turn.

Axes: E edges, K candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ddpnas_ray.core.errors import TooLargeError
from ddpnas_ray.core.generation.blocks import left_out
from ddpnas_ray.core.generation.budgets import Bound, Budget
from ddpnas_ray.core.generation.problem import Objective, Problem
from ddpnas_ray.core.space import CostFunction, IntArray, LongestPath, SearchSpace

MAX_CUTS = 200  # solutions that violate a bound
MAX_NODES = 100_000  # about a minute; two bounds that are 3e-5 apart take up to 2,000
OBJECTIVE_SCALE = 1e6  # HiGHS stops at an absolute gap of 1e-6
Row = tuple[dict[int, float], float, float]  # weights by variable, least and largest sum


@dataclass(slots=True)
class _Variables:
    """Columns of the MIP: a binary for each choosable operation, then the variables of path bounds."""

    of_edge: list[dict[int, int]]  # operation -> column
    limits: list[tuple[float, float]] = field(default_factory=list)

    def add(self, low: float, high: float) -> int:
        """Add an integer column between two limits and return its index."""
        self.limits.append((low, high))
        return len(self.limits) - 1


def solve_mip(problem: Problem, objective: Objective, budget: Budget, k: int) -> tuple[list[tuple[int, ...]], int]:
    """Return the k best alphas within a budget, ties in any order, and the number of nodes HiGHS visited.

    Args:
        problem: The generation problem.
        objective: What to maximise.
        budget: Bounds by cost.
        k: Number of alphas.

    Raises:
        TooLargeError: HiGHS failed, visited too many nodes, or found too many solutions that violate a bound.
    """
    space, edges = problem.space, range(len(problem.space.edges))
    variables = _Variables([{} for _ in edges])
    for e, op in np.argwhere(problem.choosable_EK):
        variables.of_edge[e][int(op)] = variables.add(0.0, 1.0)
    if not variables.limits or any(_is_negative(problem.costs[name], bound) for name, bound in budget.items()):
        return [], 0
    choices = [(e, op, column) for e in edges for op, column in variables.of_edge[e].items()]
    absent = [left_out(space, e) if space.inputs is not None else -1 for e in edges]
    if space.gate is not None:
        absent = space.generable_EK.argmax(axis=1).tolist()  # of inactive edges

    def unused(entries_EK: IntArray) -> list[int]:
        """Return what each edge costs that chooses no operation: left out, or (nothing) inactive."""
        if space.inputs is None:
            return [0 for _ in edges]
        return [int(entries_EK[e, absent[e]]) for e in edges]

    rows: list[Row] = []
    for block in space.blocks:
        if space.inputs is None:
            rows += [_edge_row(space, variables, e) for e in block]
        else:
            rows += [(dict.fromkeys(variables.of_edge[e].values(), 1.0), 0.0, 1.0) for e in block]
            columns = [column for e in block for column in variables.of_edge[e].values()]
            rows.append((dict.fromkeys(columns, 1.0), space.inputs, space.inputs))
    for name, bound in budget.items():
        cost = problem.costs[name]
        if isinstance(cost, LongestPath):
            rows += _path_rows(cost, bound, variables)
            continue
        scale = float(max(abs(bound.upper or 0), abs(bound.lower or 0), 1))
        none_E = unused(cost.entries_EK)
        weights = {column: (int(cost.entries_EK[e, op]) - none_E[e]) / scale for e, op, column in choices}
        rows.append((weights, *_interval(bound, cost.base + sum(none_E), scale)))
    weight = np.zeros(len(variables.limits))
    value_EK = objective.value_EK
    none_E = unused(value_EK) if space.gate is None else objective.inactive_E.tolist()
    largest = float(max(1, np.abs(value_EK).max()))
    for e, op, column in choices:
        weight[column] = -OBJECTIVE_SCALE * (int(value_EK[e, op]) - none_E[e]) / largest

    found: list[tuple[int, ...]] = []
    nodes = 0
    for _ in range(MAX_CUTS + k):
        solution, visited = _optimum(weight, variables.limits, rows)
        nodes += visited
        if solution is None:
            return found, nodes
        chosen = [(e, op, column) for e, op, column in choices if solution[column] > 0.5]
        alpha = dict(enumerate(absent)) | {e: op for e, op, _ in chosen}
        alpha_E = tuple(alpha[e] for e in edges)
        if all(bound.allows(problem.costs[name](np.array(alpha_E))) for name, bound in budget.items()):
            found.append(alpha_E)
            if len(found) == k:
                return found, nodes
        rows.append((dict.fromkeys((column for *_, column in chosen), 1.0), -np.inf, len(chosen) - 1.0))
    raise TooLargeError(f"the MIP solver found {MAX_CUTS} solutions that violate a bound by less than 1e-6")


def _edge_row(space: SearchSpace, variables: _Variables, edge: int) -> Row:
    """Return the row by which an edge chooses one operation, or none where it is inactive."""
    weights, gate = dict.fromkeys(variables.of_edge[edge].values(), 1.0), space.gate
    if gate is None or not any(edge in edges for edges in gate.inactive):
        return weights, 1.0, 1.0
    active = {column: -1.0 for k, column in variables.of_edge[gate.edge].items() if edge not in gate.inactive[k]}
    return weights | active, 0.0, 0.0


def _is_negative(cost: CostFunction, bound: Bound) -> bool:
    """Return whether a bound asks for a negative height, which the rows of a longest path do not cover."""
    return isinstance(cost, LongestPath) and bound.upper is not None and bound.upper < 0


def _interval(bound: Bound, fixed: int, scale: float) -> tuple[float, float]:
    low = -np.inf if bound.lower is None else (bound.lower - fixed) / scale
    return low, np.inf if bound.upper is None else (bound.upper - fixed) / scale


def _optimum(
    objective: np.ndarray[tuple[int], np.dtype[np.float64]],
    limits: Sequence[tuple[float, float]],
    rows: Sequence[Row],
) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]] | None, int]:
    """Return the best point, None if infeasible, and the number of nodes visited."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    entries = [(r, column, weight) for r, (weights, *_) in enumerate(rows) for column, weight in weights.items()]
    at = ([r for r, *_ in entries], [column for _, column, _ in entries])
    matrix = csr_array(([weight for *_, weight in entries], at), shape=(len(rows), len(objective)))
    outcome = milp(
        objective,
        integrality=np.ones(len(objective)),
        bounds=Bounds(*np.array(limits).T),
        constraints=LinearConstraint(matrix, [low for _, low, _ in rows], [high for *_, high in rows]),
        options={"mip_rel_gap": 0.0, "node_limit": MAX_NODES},
    )
    if "limit reached" in outcome.message:
        raise TooLargeError(f"the MIP has no solution after {MAX_NODES:,} nodes; bounds farther apart are easier")
    if outcome.status not in (0, 2):  # solved; infeasible
        raise TooLargeError(f"the MIP solver failed: {outcome.message}")
    return outcome.x, int(outcome.mip_node_count or 0)


def _path_rows(path: LongestPath, bound: Bound, variables: _Variables) -> Iterator[Row]:
    """Yield the rows that bound a longest path, and add the variables they need.

    Upper bound: heights that grow by at least one along every used edge; those of nodes that no input reaches may be
    negative. Lower bound: a path of that many used edges, as a flow of one unit from an input to any node.
    """
    nodes = sorted({v for _, *ends in path.arcs for v in ends})
    used = {e: [c for op, c in variables.of_edge[e].items() if path.counts_EK[e, op]] for e, *_ in path.arcs}
    if bound.upper is not None:
        low = -float(len(nodes))
        height = {v: variables.add(*((0.0, 0.0) if v in path.sources else (low, bound.upper))) for v in nodes}
        slack = bound.upper + 1.0 - low
        for edge, source, node in path.arcs:  # height[node] >= height[source] + 1 where the edge is used
            weights = {height[node]: 1.0, height[source]: -1.0} | dict.fromkeys(used[edge], -slack)
            yield weights, 1.0 - slack, np.inf
    if bound.lower is not None:
        flow = {arc: variables.add(0.0, 1.0) for arc in path.arcs}
        for arc, column in flow.items():
            yield {column: 1.0} | dict.fromkeys(used[arc[0]], -1.0), -np.inf, 0.0
        yield {column: 1.0 for (_, source, _), column in flow.items() if source in path.sources}, -np.inf, 1.0
        for v in nodes:
            if v not in path.sources:
                leaving = {column: 1.0 for (_, source, _), column in flow.items() if source == v}
                yield leaving | {column: -1.0 for (*_, node), column in flow.items() if node == v}, -np.inf, 0.0
        yield dict.fromkeys(flow.values(), 1.0), float(bound.lower), np.inf
