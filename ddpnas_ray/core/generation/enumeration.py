"""Enumeration of every architecture: the simplest of the three exact methods, for small spaces.

Axes: E edges, K candidates, N architectures, C choices of a block.
"""

from __future__ import annotations

import math

import numpy as np

from ddpnas_ray.core.errors import TooLargeError
from ddpnas_ray.core.generation.blocks import block_choices, networks
from ddpnas_ray.core.generation.budgets import Budget
from ddpnas_ray.core.generation.problem import Problem
from ddpnas_ray.core.space import CostFunction, CostTable, IntArray, LongestPath

MAX_ENUMERATED = 4_000_000
UNREACHED = -1


def enumerate_all(problem: Problem, value_EK: IntArray, budget: Budget, k: int) -> tuple[list[tuple[int, ...]], int]:
    """Return the k best alphas within a budget, and the number of architectures enumerated.

    Args:
        problem: The generation problem.
        value_EK: Objective of each choice, shape (E, K).
        budget: Bounds by cost.
        k: Number of alphas.

    Raises:
        TooLargeError: There are more than ``MAX_ENUMERATED``.
    """
    space = problem.space
    blocks = [block_choices(space, problem.choosable_EK, block) for block in space.blocks]
    count = math.prod(len(alphas_CB) for alphas_CB in blocks)
    if count > MAX_ENUMERATED:
        raise TooLargeError(f"there are {count:,} architectures; at most {MAX_ENUMERATED:,} are enumerated")
    edges = np.arange(len(space.edges))
    in_block_order = [e for block in space.blocks for e in block]
    first = problem.costs[next(iter(budget))] if budget else None
    best: list[tuple[int, int, tuple[int, ...], tuple[int, ...]]] = []
    for start in range(0, count, 100_000):
        alphas_NE = networks(space, blocks, np.arange(start, min(start + 100_000, count)))
        for name, bound in budget.items():
            cost_N = costs_of(problem.costs[name], alphas_NE)
            alphas_NE = alphas_NE[bound.allows_each(cost_N)]
        value_N = value_EK[edges, alphas_NE].sum(axis=1)
        if len(value_N) > k:
            good_N = value_N >= np.partition(value_N, -k)[-k]
            alphas_NE, value_N = alphas_NE[good_N], value_N[good_N]
        best += [
            (-int(value), first(alpha_E) if first else 0, _tuple(alpha_E[in_block_order]), _tuple(alpha_E))
            for value, alpha_E in zip(value_N, alphas_NE, strict=True)
        ]
        best = sorted(best)[:k]
    return [alpha_E for *_, alpha_E in best], count


def costs_of(cost: CostFunction, alphas_NE: IntArray) -> IntArray:
    """Return the cost of every architecture, shape (N,)."""
    return _heights(cost, alphas_NE) if isinstance(cost, LongestPath) else _totals(cost, alphas_NE)


def _tuple(alpha_E: IntArray) -> tuple[int, ...]:
    return tuple(int(op) for op in alpha_E)


def _totals(table: CostTable, alphas_NE: IntArray) -> IntArray:
    entries_NE = table.entries_EK[np.arange(alphas_NE.shape[1]), alphas_NE]
    if table.gate is not None:
        entries_NE = np.where(table.gate.active(alphas_NE), entries_NE, 0)
    totals: IntArray = table.base + entries_NE.sum(axis=1)
    return totals


def _heights(path: LongestPath, alphas_NE: IntArray) -> IntArray:
    height = {v: np.zeros(len(alphas_NE), dtype=np.int64) for v in path.sources}
    unreached = np.full(len(alphas_NE), UNREACHED)
    active_NE = np.ones(alphas_NE.shape, dtype=bool) if path.gate is None else path.gate.active(alphas_NE)
    for edge, source, node in path.arcs:
        from_N, to_N = height.get(source, unreached), height.get(node, unreached)
        through_N = path.counts_EK[edge, alphas_NE[:, edge]] & active_NE[:, edge] & (from_N != UNREACHED)
        height[node] = np.where(through_N, np.maximum(to_N, from_N + 1), to_N)
    highest: IntArray = np.max(list(height.values()), axis=0)
    return highest
