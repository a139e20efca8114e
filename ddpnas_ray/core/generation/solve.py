"""Efficient network generation: the architectures with the largest E[alpha] within a budget, exactly (Eq. 9-10).

Three methods that agree: dynamic programming over the space's blocks, a mixed-integer program (MIP), and enumeration.
All maximise a sum of integers: theta in units of 1e-13, so that sums are exact and do not depend on their order, and no
expectation is off by more than 5e-14. Ties in these units: dynamic programming and enumeration take the smaller first
cost of the budget, then the lexicographically smallest alpha (block by block).

In a space with conditional edges the first two solve for each choice on the gate's edge and merge the results; the MIP
has rows for the gate. Solutions are canonical alphas, so no network is listed twice.

Axes: E edges, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ddpnas_ray.core.errors import TooLargeError
from ddpnas_ray.core.generation.blocks import block_choices
from ddpnas_ray.core.generation.budgets import Bound, Budget
from ddpnas_ray.core.generation.dynamic_programming import run_dynamic_programming, shares_a_pass
from ddpnas_ray.core.generation.enumeration import enumerate_all
from ddpnas_ray.core.generation.mip import solve_mip
from ddpnas_ray.core.generation.problem import Objective, Problem, evaluate, modes
from ddpnas_ray.core.space import BoolArray, FloatArray, IntArray, LongestPath, SearchSpace, inactive_theta

Method = Literal["auto", "programme", "mip", "enumeration"]
GRID = 1e13  # E is compared in units of 1e-13, so that equal decimals have equal sums


@dataclass(frozen=True, slots=True)
class Certificate:
    """Evidence that a solution is optimal.

    Args:
        method: ``programme`` (dynamic programming), ``mip`` or ``enumeration``.
        bound: No feasible architecture (other than the better ones of the k best) has a larger expectation.
        gap: ``bound`` minus the solution's expectation: 0.
        work: States in the largest front, nodes of the MIP, or architectures enumerated.
        work_unit: Which of these ``work`` counts.
    """

    method: str
    bound: float
    gap: float
    work: int
    work_unit: str


@dataclass(frozen=True, slots=True)
class Solution:
    """One generated architecture.

    Args:
        alpha_E: The choice of every edge.
        expectation: E[alpha] (Eq. 9).
        costs: All costs of the problem, exact.
        certificate: Evidence that none is better.
    """

    alpha_E: tuple[int, ...]
    expectation: float
    costs: dict[str, int]
    certificate: Certificate


def most_likely(space: SearchSpace, theta_EK: FloatArray, live_EK: BoolArray) -> IntArray:
    """Return the alpha with the largest expectation without a budget: each block's best choice, in the best mode.

    Args:
        space: The space.
        theta_EK: The distribution, shape (E, K).
        live_EK: Operations not pruned, shape (E, K).

    Returns:
        alpha_E; ties go to the lexicographically smallest.
    """
    problem = Problem(space, theta_EK, live_EK & space.generable_EK)
    objective, found = _objective(problem), []
    for mode, value_EK in modes(problem, objective):
        alpha_E = np.zeros(len(space.edges), dtype=np.int64)
        for block in space.blocks:
            alphas_CB = block_choices(mode.space, mode.choosable_EK, block)
            value_C = value_EK[np.array(block)[None, :], alphas_CB].sum(axis=1)
            alpha_E[list(block)] = alphas_CB[value_C.argmax()]
        found.append(tuple(alpha_E.tolist()))
    return np.array(_best(problem, objective, {}, found, 1)[0], dtype=np.int64)


def groups_that_share(problem: Problem, budgets: Sequence[Budget]) -> list[list[Budget]]:
    """Group the budgets, in order, that one pass of dynamic programming can solve together."""
    groups: list[list[Budget]] = []
    for budget in budgets:
        if groups and shares_a_pass(problem, [groups[-1][0], budget]):
            groups[-1].append(budget)
        else:
            groups.append([budget])
    return groups


def solve(problem: Problem, budget: Budget, *, k: int = 1, method: Method = "auto") -> list[Solution]:
    """Return the k best architectures within a budget (Eq. 10), the best first.

    Args:
        problem: The generation problem.
        budget: Bounds by cost; the first one breaks ties.
        k: Number of architectures; fewer if fewer are feasible, none if the budget is infeasible.
        method: ``auto`` is dynamic programming, or the MIP where that has too many states.

    Raises:
        TooLargeError: The problem exceeds the method's limits.
    """
    return solve_many(problem, [budget], k=k, method=method)[0]


def solve_many(
    problem: Problem, budgets: Sequence[Budget], *, k: int = 1, method: Method = "auto"
) -> list[list[Solution]]:
    """Solve for many budgets; upper bounds on the same additive costs share one pass of dynamic programming."""
    objective = _objective(problem)
    groups = groups_that_share(problem, budgets)
    return [solutions for group in groups for solutions in _solve(problem, objective, group, k, method)]


def nearest(problem: Problem, budget: Budget) -> dict[str, tuple[int | None, int | None]]:
    """Return for each bound of an infeasible budget the nearest values that are feasible with the other bounds held.

    Returns:
        Cost -> (largest feasible value below the bound, smallest above it); None where there is none.

    Raises:
        TooLargeError: Too many states are needed.
    """
    found = {}
    for name, bound in budget.items():
        below = None if bound.lower is None else _extreme(problem, budget, name, Bound(None, bound.lower - 1), 1)
        above = None if bound.upper is None else _extreme(problem, budget, name, Bound(bound.upper + 1, None), -1)
        found[name] = (below, above)
    return found


def largest_costs(problem: Problem) -> dict[str, int]:
    """Return the largest value of every cost over all architectures of a problem.

    Raises:
        TooLargeError: Too many states are needed.
    """
    found = {}
    for name in problem.costs:
        largest = _extreme(problem, {}, name, Bound(), 1)
        assert largest is not None  # without bounds everything is feasible
        found[name] = largest
    return found


def _objective(problem: Problem) -> Objective:
    """Round theta to the grid; an edge that is left out adds nothing, an inactive one its mean (``expectation``)."""
    valued_EK = np.where(problem.space.generable_EK, problem.theta_EK, 0.0)
    inactive_E = inactive_theta(problem.theta_EK, problem.space, problem.choosable_EK)
    return Objective(*(np.rint(values * GRID).astype(np.int64) for values in (valued_EK, inactive_E)))


def _best(
    problem: Problem, objective: Objective, budget: Budget, alphas: Sequence[tuple[int, ...]], k: int
) -> list[tuple[int, ...]]:
    """Return the k best of the modes' k best; ties as everywhere (see the module)."""
    if problem.space.gate is None:
        return list(alphas)
    first = problem.costs[next(iter(budget))] if budget else None
    in_block_order = [e for block in problem.space.blocks for e in block]

    def preference(alpha_E: tuple[int, ...]) -> tuple[int, int, list[int]]:
        cost = first(np.array(alpha_E)) if first else 0
        return -objective(alpha_E, problem.space), cost, [alpha_E[e] for e in in_block_order]

    return sorted(alphas, key=preference)[:k]


def _solve(
    problem: Problem, objective: Objective, budgets: Sequence[Budget], k: int, method: Method
) -> list[list[Solution]]:
    """Solve all budgets in one pass, or one by one with another method."""
    if method in ("auto", "programme"):
        try:
            by_mode = [run_dynamic_programming(*mode, budgets, k) for mode in modes(problem, objective)]
            front, solutions = max((front for _, front in by_mode), default=0), []
            for b, budget in enumerate(budgets):
                found = _best(problem, objective, budget, [alpha for alphas, _ in by_mode for alpha in alphas[b]], k)
                solutions.append(_solutions(problem, budget, found, "programme", front, "states in the largest front"))
            return solutions
        except TooLargeError:
            if len(budgets) > 1:  # the front of one budget is smaller
                return [found for budget in budgets for found in _solve(problem, objective, [budget], k, method)]
            if method == "programme":
                raise
    solutions = []
    for budget in budgets:
        if method == "enumeration":
            enumerated = [enumerate_all(*mode, budget, k) for mode in modes(problem, objective)]
            found = _best(problem, objective, budget, [alpha for alphas, _ in enumerated for alpha in alphas], k)
            count = sum(count for _, count in enumerated)
            solutions.append(_solutions(problem, budget, found, "enumeration", count, "architectures"))
        else:
            found, count = solve_mip(problem, objective, budget, k)
            solutions.append(_solutions(problem, budget, found, "mip", count, "nodes"))
    return solutions


def _solutions(
    problem: Problem, budget: Budget, alphas: Sequence[tuple[int, ...]], method: str, work: int, unit: str
) -> list[Solution]:
    """Evaluate a method's alphas again, from the definitions."""
    solutions = []
    for alpha_E in alphas:
        value, costs = evaluate(problem, alpha_E)
        broken = [name for name, bound in budget.items() if not bound.allows(costs[name])]
        if broken:
            raise RuntimeError(f"{method} returned {alpha_E}, which breaks the bound on {', '.join(broken)}")
        solutions.append(Solution(alpha_E, value, costs, Certificate(method, value, 0.0, work, unit)))
    return solutions


def _extreme(problem: Problem, budget: Budget, name: str, bound: Bound, sign: int) -> int | None:
    """Return the largest (sign 1) or smallest (-1) value of a cost within all bounds; None if there is none."""
    cost, others = problem.costs[name], {other: b for other, b in budget.items() if other != name}
    if isinstance(cost, LongestPath):
        low, high = (
            max(bound.lower or 0, 0),
            len(cost.arcs) if bound.upper is None else min(bound.upper, len(cost.arcs)),
        )
        values = sorted(range(low, high + 1), reverse=sign > 0)
        feasible = (v for v in values if solve(problem, {**others, name: Bound(v, v)}))
        return next(feasible, None)
    objective = Objective(sign * cost.entries_EK, np.zeros(len(cost.entries_EK), dtype=np.int64))
    # Without the bound first: its optimum nearly always meets the bound, and fronts stay small.
    for budget_tried in (others, {name: bound, **others}):
        solutions = _solve(problem, objective, [budget_tried], 1, "auto")[0]
        if not solutions or bound.allows(solutions[0].costs[name]):
            return solutions[0].costs[name] if solutions else None
    return None
