"""The MIP is exact although its solver works in doubles. Axes: E edges, K candidates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ddpnas_ray.core.errors import TooLargeError
from ddpnas_ray.core.generation import mip
from ddpnas_ray.core.generation.budgets import Bound
from ddpnas_ray.core.generation.problem import Problem
from ddpnas_ray.core.generation.solve import nearest, solve
from ddpnas_ray.core.space import CostTable, LongestPath

from .brute_force import assert_proved, best, cell, chain, every_architecture, nearest_values

LARGE = 10**9


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Results of the solver, one entry per call."""
    found: list[Any] = []

    def watched(*args: Any) -> Any:
        found.append(real(*args))
        return found[-1]

    real: Callable[..., Any] = mip._optimum
    monkeypatch.setattr(mip, "_optimum", watched)
    return found


def nearly_affordable(edges: int) -> Problem:
    """The more probable operation of every edge costs one more than the other, of 1e9."""
    space = chain(*[2] * edges)
    theta_EK = np.array([[0.4 - 0.01 * e, 0.6 + 0.01 * e] for e in range(edges)])
    entries_EK = np.array([[LARGE, LARGE + 1]] * edges)
    return Problem(space, theta_EK, space.exists_EK, {"a": CostTable(0, entries_EK)})


@pytest.mark.parametrize(
    "bound",
    [
        Bound(None, 4 * LARGE),
        Bound(None, 4 * LARGE + 2),
        Bound(4 * LARGE + 1, 4 * LARGE + 1),
        Bound(4 * LARGE + 2, 4 * LARGE + 3),
    ],
)
@pytest.mark.parametrize("k", [1, 3])
def test_a_solution_that_breaks_a_bound_by_less_than_the_solver_sees_is_cut_off(
    bound: Bound, k: int, solved: list[Any]
) -> None:
    problem, budget = nearly_affordable(edges=4), {"a": bound}
    solutions = solve(problem, budget, k=k, method="mip")
    assert_proved(problem, budget, solutions, best(problem, every_architecture(problem), budget, k))
    assert len(solved) > len(solutions)  # the most probable alphas violate the bound by 1e-9 of it, and came first


@pytest.mark.parametrize("bound", [Bound(None, 4 * LARGE - 1), Bound(4 * LARGE + 5, None), Bound(LARGE, 2 * LARGE)])
def test_what_is_infeasible_by_less_than_the_solver_sees_is_infeasible(bound: Bound) -> None:
    problem, budget = nearly_affordable(edges=4), {"a": bound}
    assert solve(problem, budget, method="mip") == []
    assert nearest(problem, budget) == nearest_values(every_architecture(problem), budget)


def test_it_gives_up_after_many_solutions_that_break_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = nearly_affordable(edges=5)
    monkeypatch.setattr(mip, "MAX_CUTS", 3)
    with pytest.raises(TooLargeError, match=r"found 3 solutions that violate a bound by less than 1e-6$"):
        solve(problem, {"a": Bound(None, 5 * LARGE)}, method="mip")


def test_expectations_that_differ_by_little_are_distinguished() -> None:
    # 1e-10 is far below the relative gap of 1e-4 at which HiGHS stops by default.
    space = chain(3, 3, 3, 3)
    theta_EK = np.array(0.3 + 1e-10 * np.random.default_rng(0).permutation(12).reshape(4, 3))
    costs = {"a": CostTable(0, np.random.default_rng(1).integers(0, 5, size=(4, 3)))}
    problem, budget = Problem(space, theta_EK, space.exists_EK, costs), {"a": Bound(None, 6)}
    expected = best(problem, every_architecture(problem), budget, k=5)
    assert_proved(problem, budget, solve(problem, budget, k=5, method="mip"), expected)


@pytest.mark.parametrize("bound", [Bound(None, -1), Bound(-5, -2), Bound(None, 0), Bound(-1, 0), Bound(4, 9)])
def test_a_height_that_no_cell_has_is_infeasible_at_once(bound: Bound, solved: list[Any]) -> None:
    # The solver's heights of nodes that no input reaches may be negative; a cell's height is not.
    space, height = cell(nodes=3, ops=3)
    problem = Problem(space, np.full(space.shape, 1 / 3), space.generable_EK, {"height": height})
    assert solve(problem, {"height": bound}, method="mip") == []
    assert len(solved) <= 1


def test_operations_that_do_not_count_reach_no_node() -> None:
    # Skips do not count and carry no path: with nothing but skips into node 2, node 3 starts from the inputs alone.
    space, height = cell(nodes=2, ops=3)
    counts_EK = space.generable_EK & (np.arange(3) != 2)
    costs = {"height": LongestPath(height.arcs, counts_EK)}
    theta_EK = np.tile([0.0, 0.1, 0.9], (5, 1))
    problem = Problem(space, theta_EK, space.generable_EK, costs)
    architectures = every_architecture(problem)
    for wanted in range(4):
        budget = {"height": Bound(wanted, wanted)}
        expected = best(problem, architectures, budget, k=4)
        assert_proved(problem, budget, solve(problem, budget, k=4, method="mip"), expected)
        assert bool(expected) is (wanted <= 2)


def test_it_gives_up_after_many_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    # Ten numbers of seven digits each, and a sum that must come out exactly: hardly better than enumeration.
    rng = np.random.default_rng(0)
    space = chain(*[4] * 10)
    costs = {"a": CostTable(0, rng.integers(10**6, 10**7, size=space.shape))}
    problem = Problem(space, rng.dirichlet(np.ones(4), size=10), space.exists_EK, costs)
    wanted = costs["a"](rng.integers(4, size=10))
    monkeypatch.setattr(mip, "MAX_NODES", 20)
    with pytest.raises(TooLargeError, match=r"^the MIP has no solution after 20 nodes; bounds farther apart"):
        solve(problem, {"a": Bound(wanted, wanted)}, method="mip")


def test_a_failure_of_the_solver_is_no_infeasibility(monkeypatch: pytest.MonkeyPatch) -> None:
    class Outcome:
        status, message, x, mip_node_count = 4, "Solve error", None, None

    monkeypatch.setattr("scipy.optimize.milp", lambda *_, **__: Outcome())
    with pytest.raises(TooLargeError, match="the MIP solver failed: Solve error"):
        solve(nearly_affordable(edges=2), {}, method="mip")
