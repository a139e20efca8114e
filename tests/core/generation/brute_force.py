"""Generation by brute force, from the definitions: it shares only types with the package.

Axes: E edges, K candidates.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ddpnas_ray.core.generation.budgets import Bound, Budget
from ddpnas_ray.core.generation.problem import Problem
from ddpnas_ray.core.generation.solve import Solution
from ddpnas_ray.core.space import CostFunction, CostTable, Edge, Gate, LongestPath, Op, SearchSpace

NONE = Op("none", "non_parameter", generable=False)


@dataclass(frozen=True, slots=True)
class Architecture:
    """One architecture that can be generated."""

    alpha_E: tuple[int, ...]
    expectation: float
    costs: dict[str, int]


@dataclass(frozen=True, slots=True)
class Instance:
    """A small problem with its solutions, a budget, and the number of architectures to find."""

    problem: Problem
    architectures: list[Architecture]
    budget: Budget
    k: int


def every_architecture(problem: Problem) -> list[Architecture]:
    """All architectures that can be generated, at any cost."""
    space = problem.space
    of_blocks = [
        [
            dict(zip(block, ops, strict=True))
            for ops in itertools.product(*(range(len(space.edges[e].candidates)) for e in block))
            if _is_generated(problem, dict(zip(block, ops, strict=True)), block)
        ]
        for block in space.blocks
    ]
    architectures = []
    for chosen in itertools.product(*of_blocks):
        op_of = {e: op for of_block in chosen for e, op in of_block.items()}
        alpha_E = tuple(op_of[e] for e in range(len(space.edges)))
        architectures.append(Architecture(alpha_E, expectation_of(problem, alpha_E), costs_of(problem, alpha_E)))
    return architectures


def every_network(problem: Problem) -> list[Architecture]:
    """All networks of a conditional space, at any cost: inactive edges have their first selectable candidate."""
    space, found = problem.space, []
    for alpha_E in itertools.product(*(range(len(edge.candidates)) for edge in space.edges)):
        inactive = _inactive(problem, alpha_E)
        if all(problem.choosable_EK[e, op] for e, op in enumerate(alpha_E) if e not in inactive) and all(
            alpha_E[e] == next(k for k, op in enumerate(space.edges[e].candidates) if op.generable) for e in inactive
        ):
            found.append(Architecture(alpha_E, expectation_of(problem, alpha_E), costs_of(problem, alpha_E)))
    return found


def best(problem: Problem, architectures: Iterable[Architecture], budget: Budget, k: int) -> list[Architecture]:
    """Return the k best within a budget. Ties: the smaller first cost, then the smaller alpha, block by block."""
    order = [e for block in problem.space.blocks for e in block]

    def preference(a: Architecture) -> tuple[float, int, list[int]]:
        first = a.costs[next(iter(budget))] if budget else 0
        return -round(a.expectation, 12), first, [a.alpha_E[e] for e in order]

    return sorted(within(architectures, budget), key=preference)[:k]


def within(architectures: Iterable[Architecture], budget: Budget) -> list[Architecture]:
    """Return the architectures within the budget."""
    return [a for a in architectures if all(_allowed(a.costs[name], bound) for name, bound in budget.items())]


def nearest_values(architectures: Sequence[Architecture], budget: Budget) -> dict[str, tuple[int | None, int | None]]:
    """Return per bound the largest feasible value below it and the smallest above, the other bounds held."""
    found = {}
    for name, bound in budget.items():
        others = {other: b for other, b in budget.items() if other != name}
        values = [a.costs[name] for a in within(architectures, others)]
        below = [v for v in values if bound.lower is not None and v < bound.lower]
        above = [v for v in values if bound.upper is not None and v > bound.upper]
        found[name] = (max(below, default=None), min(above, default=None))
    return found


def expectation_of(problem: Problem, alpha_E: Sequence[int]) -> float:
    """Eq. 9, summed exactly in edge order; an inactive edge counts as the mean of what it may choose."""
    terms, inactive = [], _inactive(problem, alpha_E)
    for e, (edge, op, theta_K) in enumerate(zip(problem.space.edges, alpha_E, problem.theta_EK.tolist(), strict=True)):
        if e in inactive:
            may = [theta for theta, choosable in zip(theta_K, problem.choosable_EK[e], strict=True) if choosable]
            terms.append(math.fsum(may) / len(may) if may else 0.0)
        elif edge.candidates[op].generable:
            terms.append(theta_K[op])
    return math.fsum(terms) / len(alpha_E)


def costs_of(problem: Problem, alpha_E: Sequence[int]) -> dict[str, int]:
    """All costs, in Python's integers."""
    inactive = _inactive(problem, alpha_E)
    return {name: _cost_of(cost, alpha_E, inactive) for name, cost in problem.costs.items()}


def assert_proved(
    problem: Problem, budget: Budget, solutions: Sequence[Solution], expected: list[Architecture]
) -> None:
    """Check that solutions are as good as expected, distinct, within the budget, and described correctly."""
    assert len(solutions) == len(expected)
    assert len({solution.alpha_E for solution in solutions}) == len(solutions)
    for solution, best_one in zip(solutions, expected, strict=True):
        assert abs(solution.expectation - best_one.expectation) <= 1e-12
        inactive = _inactive(problem, solution.alpha_E)
        active = [[e for e in block if e not in inactive] for block in problem.space.blocks]
        assert all(_is_generated(problem, solution.alpha_E, block) for block in active)
        assert solution.expectation == expectation_of(problem, solution.alpha_E)
        assert solution.costs == costs_of(problem, solution.alpha_E)
        assert all(_allowed(solution.costs[name], bound) for name, bound in budget.items())
        assert abs(solution.certificate.bound - best_one.expectation) <= 1e-12
        assert solution.certificate.gap == 0


def instance(seed: int) -> Instance:
    """A random small problem and budget: a chain or a cell, some operations pruned, additive costs and heights."""
    rng = np.random.default_rng(seed)
    space, arcs = _chain(rng) if rng.random() < 0.5 else _cell(rng)
    exists_EK, generable_EK = space.exists_EK, space.generable_EK
    theta_EK = rng.dirichlet(np.ones(space.shape[1]), size=space.shape[0]) * exists_EK
    if rng.random() < 0.5:
        theta_EK = np.round(theta_EK, int(rng.integers(1, 3)))  # ties
    if rng.random() < 0.2:
        theta_EK += 1e-10 * rng.integers(0, 9, space.shape) * exists_EK  # ... and what is nearly one
    costs: dict[str, CostFunction] = {
        name: CostTable(int(rng.integers(0, 5)), rng.integers(0, rng.choice([3, 20, 10**8]), space.shape) * exists_EK)
        for name in ("a", "b")
    }
    counts_EK = generable_EK & (rng.random(space.shape) < rng.choice([1.0, 0.7]))
    costs["height"] = LongestPath(arcs, counts_EK)
    live_EK = exists_EK & (rng.random(space.shape) < rng.choice([1.0, 0.9]))
    problem = Problem(space, theta_EK, live_EK & generable_EK, costs)
    architectures = every_architecture(problem)
    return Instance(problem, architectures, _budget(problem, architectures, rng), int(rng.integers(1, 6)))


def conditional_instance(seed: int) -> Instance:
    """A random small problem in which one edge decides which others are active: costs per mode, ties, pruning."""
    rng = np.random.default_rng(seed)
    space, arcs = _chain(rng)
    gate = int(rng.integers(len(space.edges)))
    others = [e for e in range(len(space.edges)) if e != gate]
    off = [tuple(e for e in others if rng.random() < 0.5) for _ in space.edges[gate].candidates]
    if rng.random() < 0.5:  # a depth: of ever more edges
        off = [tuple(others[k:]) for k in range(len(off))]
    edges = tuple(_with_unselectable(edge, rng) for edge in space.edges)
    space = SearchSpace("conditional", edges, space.blocks, Gate(gate, tuple(off)))
    theta_EK = rng.dirichlet(np.ones(space.shape[1]), size=space.shape[0]) * space.exists_EK
    if rng.random() < 0.6:
        theta_EK = np.round(theta_EK, 1)  # ties
    costs: dict[str, CostFunction] = {
        name: CostTable(
            int(rng.integers(0, 5)),
            rng.integers(0, rng.choice([3, 20, 10**8]), space.shape) * space.exists_EK,
            space.gate,
        )
        for name in ("a", "b")
    }
    costs["height"] = LongestPath(arcs, space.generable_EK & (rng.random(space.shape) < 0.8), space.gate)
    live_EK = space.exists_EK & (rng.random(space.shape) < rng.choice([1.0, 0.8]))
    problem = Problem(space, theta_EK, live_EK & space.generable_EK, costs)
    networks = every_network(problem)
    return Instance(problem, networks, _budget(problem, networks, rng), int(rng.integers(1, 8)))


def chain(*sizes: int) -> SearchSpace:
    """A space of edges with the given numbers of candidates, each chosen alone."""
    edges = tuple(Edge(f"e{e}", tuple(Op(f"o{k}", "parameter") for k in range(n))) for e, n in enumerate(sizes))
    return SearchSpace("chain", edges, tuple((e,) for e in range(len(edges))))


def cell(nodes: int, ops: int) -> tuple[SearchSpace, LongestPath]:
    """A cell whose nodes take two inputs each, with ``none`` first of the candidates; and its height."""
    candidates = (NONE, *(Op(f"o{k}", "parameter") for k in range(1, ops)))
    arcs = [(source, 2 + node) for node in range(nodes) for source in range(2 + node)]
    edges = tuple(Edge(f"{source}-{node}", candidates) for source, node in arcs)
    blocks = tuple(tuple(e for e, (_, to) in enumerate(arcs) if to == 2 + node) for node in range(nodes))
    space = SearchSpace("cell", edges, blocks, inputs=2)
    return space, LongestPath(tuple((e, *ends) for e, ends in enumerate(arcs)), space.generable_EK)


def _chain(rng: np.random.Generator) -> tuple[SearchSpace, tuple[tuple[int, int, int], ...]]:
    """Two to four edges in random blocks; a graph in which every block's edges lead to a node of its own."""
    space = chain(*(int(n) for n in rng.integers(1, 5, size=rng.integers(2, 5))))
    shuffled = [int(e) for e in rng.permutation(len(space.edges))]
    cuts = sorted({0, len(shuffled), *(int(c) for c in rng.integers(1, len(shuffled), size=2))})
    blocks = tuple(tuple(shuffled[i:j]) for i, j in itertools.pairwise(cuts))
    arcs = tuple((e, int(rng.integers(b + 1)), b + 1) for b, block in enumerate(blocks) for e in block)
    return SearchSpace("blocks", space.edges, blocks), arcs


def _with_unselectable(edge: Edge, rng: np.random.Generator) -> Edge:
    """Now and then, put a candidate that is not selectable first; the gate's number of candidates stays."""
    if len(edge.candidates) == 1 or rng.random() < 0.8:
        return edge
    return Edge(edge.name, (NONE, *edge.candidates[1:]))


def _cell(rng: np.random.Generator) -> tuple[SearchSpace, tuple[tuple[int, int, int], ...]]:
    space, height = cell(nodes=int(rng.integers(1, 4)), ops=int(rng.choice([2, 3, 3])))
    return space, height.arcs


def _budget(problem: Problem, architectures: list[Architecture], rng: np.random.Generator) -> Budget:
    """One to three costs, bounded on one side or both, or exactly; most by the cost of one architecture."""
    pivot = architectures[rng.integers(len(architectures))].costs if architectures else dict.fromkeys(problem.costs, 0)
    budget = {}
    for name in rng.permutation(list(problem.costs))[: rng.integers(1, 4)]:
        value, other = pivot[name], int(rng.choice([a.costs[name] for a in architectures] or [0]))
        if rng.random() < 0.1:
            value += int(rng.integers(-3, 4))
        low, high = min(value, other), max(value, other)
        kinds = [Bound(None, value), Bound(value, None), Bound(low, high), Bound(value, value)]
        budget[str(name)] = kinds[int(rng.choice(4, p=[0.35, 0.2, 0.3, 0.15]))]
    return budget


def _is_generated(problem: Problem, alpha_E: Sequence[int] | Mapping[int, int], block: Sequence[int]) -> bool:
    """Return whether a block uses the required number of edges, with choosable operations, and leaves out the rest."""
    space = problem.space
    used = [e for e in block if space.edges[e].candidates[alpha_E[e]].generable]
    needed = len(block) if space.inputs is None else space.inputs
    return len(used) == needed and all(problem.choosable_EK[e, alpha_E[e]] for e in used)


def _inactive(problem: Problem, alpha_E: Sequence[int]) -> tuple[int, ...]:
    gate = problem.space.gate
    return () if gate is None else gate.inactive[alpha_E[gate.edge]]


def _cost_of(cost: CostFunction, alpha_E: Sequence[int], inactive: Sequence[int]) -> int:
    if isinstance(cost, CostTable):
        return cost.base + sum(int(cost.entries_EK[e, op]) for e, op in enumerate(alpha_E) if e not in inactive)
    return _longest_path(cost, alpha_E, inactive)


def _longest_path(path: LongestPath, alpha_E: Sequence[int], inactive: Sequence[int]) -> int:
    inputs = {source for _, source, _ in path.arcs} - {node for _, _, node in path.arcs}

    def longest_to(node: int) -> float:
        if node in inputs:
            return 0
        into = ((e, source) for e, source, to in path.arcs if to == node and e not in inactive)
        return max((longest_to(source) + 1 for e, source in into if path.counts_EK[e, alpha_E[e]]), default=-math.inf)

    return int(max(0, *(longest_to(node) for _, _, node in path.arcs)))


def _allowed(value: int, bound: Bound) -> bool:
    return (bound.lower is None or bound.lower <= value) and (bound.upper is None or value <= bound.upper)
