"""Generation returns the best architectures within a budget, by every method (Eq. 9-10).

Axes: E edges, K candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpnas_ray.core.errors import TooLargeError
from ddpnas_ray.core.generation import dynamic_programming, enumeration
from ddpnas_ray.core.generation.budgets import Bound, Budget
from ddpnas_ray.core.generation.enumeration import costs_of
from ddpnas_ray.core.generation.problem import Problem, count_networks, evaluate, random_alphas
from ddpnas_ray.core.generation.solve import (
    Method,
    groups_that_share,
    largest_costs,
    most_likely,
    nearest,
    solve,
    solve_many,
)
from ddpnas_ray.core.space import CostFunction, CostTable, Gate, LongestPath

from .brute_force import (
    Instance,
    assert_proved,
    best,
    cell,
    chain,
    conditional_instance,
    every_architecture,
    instance,
    nearest_values,
    within,
)

METHODS: tuple[Method, ...] = ("programme", "mip", "enumeration")
IN_ORDER: tuple[Method, ...] = ("programme", "enumeration")  # methods that break ties
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def budgets_from_above(draw: st.DrawFn) -> tuple[Instance, list[Budget]]:
    """A problem, and up to six budgets that bound the same additive costs from above."""
    seed = draw(SEEDS)
    drawn, rng = instance(seed), np.random.default_rng(seed)
    names = [str(name) for name in rng.permutation(["a", "b"])[: rng.integers(1, 3)]]
    costs = [a.costs for a in drawn.architectures] or [{"a": 0, "b": 0}]

    def bound(name: str) -> Bound:
        return Bound(None, costs[rng.integers(len(costs))][name] - int(rng.integers(2)))

    return drawn, [{name: bound(name) for name in names} for _ in range(draw(st.integers(1, 6)))]


def two_edges(theta: list[list[float]], **entries: list[list[int]]) -> Problem:
    """Edges of a chain with additive costs."""
    space = chain(*map(len, theta))
    return Problem(space, np.array(theta), space.exists_EK, {n: CostTable(0, np.array(c)) for n, c in entries.items()})


# --- against brute force ---


@settings(max_examples=500)
@given(SEEDS)
def test_all_methods_find_what_brute_force_finds(seed: int) -> None:
    drawn = instance(seed)
    expected = best(drawn.problem, drawn.architectures, drawn.budget, drawn.k)
    for method in METHODS:
        solutions = solve(drawn.problem, drawn.budget, k=drawn.k, method=method)
        assert_proved(drawn.problem, drawn.budget, solutions, expected)
        assert {solution.certificate.method for solution in solutions} <= {method}
        if method in IN_ORDER:
            assert [solution.alpha_E for solution in solutions] == [a.alpha_E for a in expected]


def test_the_instances_of_the_law_are_of_all_kinds() -> None:
    drawn = [instance(seed) for seed in range(150)]
    bounds = [bound for i in drawn for bound in i.budget.values()]
    assert sum(i.problem.space.inputs == 2 for i in drawn) >= 50
    assert max(len(i.architectures) for i in drawn) >= 1000
    assert sum(not within(i.architectures, i.budget) for i in drawn) >= 10  # infeasible
    assert sum(len(i.budget) == 3 for i in drawn) >= 30
    assert sum(next(iter(i.budget)) == "height" for i in drawn) >= 30
    assert sum(bound.lower is None for bound in bounds) >= 60
    assert sum(bound.upper is None for bound in bounds) >= 40
    assert sum(bound.lower == bound.upper for bound in bounds) >= 30
    with_ties = [len({round(a.expectation, 12) for a in i.architectures}) < len(i.architectures) for i in drawn]
    assert 30 <= sum(with_ties) <= 120


@pytest.mark.parametrize("make", [instance, conditional_instance])
@given(seed=SEEDS)
def test_an_infeasible_budget_has_the_nearest_feasible_values_of_brute_force(
    make: Callable[[int], Instance], seed: int
) -> None:
    drawn = make(seed)
    if within(drawn.architectures, drawn.budget):
        drawn = replace(drawn, budget={**drawn.budget, "a": Bound(10**10, None)})
    assert solve(drawn.problem, drawn.budget) == []
    assert nearest(drawn.problem, drawn.budget) == nearest_values(drawn.architectures, drawn.budget)


@given(SEEDS)
def test_evaluation_is_what_the_definitions_say(seed: int) -> None:
    drawn = instance(seed)
    for a in drawn.architectures[:20]:
        assert evaluate(drawn.problem, a.alpha_E) == (a.expectation, a.costs)


@given(SEEDS)
def test_without_a_budget_the_best_one_is_the_most_probable(seed: int) -> None:
    drawn = instance(seed)
    problem = drawn.problem
    if not drawn.architectures:
        return
    alpha_E = most_likely(problem.space, problem.theta_EK, problem.choosable_EK)
    (expected,) = best(problem, drawn.architectures, {}, k=1)
    assert tuple(alpha_E) == expected.alpha_E
    for method in METHODS:
        (solution,) = solve(problem, {}, method=method)
        assert solution.expectation == pytest.approx(expected.expectation, rel=0, abs=1e-12)
        assert method == "mip" or solution.alpha_E == expected.alpha_E


# --- many budgets ---


@settings(max_examples=200)
@given(drawn=budgets_from_above(), k=st.integers(1, 4))
def test_one_pass_for_many_budgets_solves_each_as_if_alone(drawn: tuple[Instance, list[Budget]], k: int) -> None:
    of, budgets = drawn
    assert groups_that_share(of.problem, budgets) == [budgets]
    for budget, together in zip(budgets, solve_many(of.problem, budgets, k=k), strict=True):
        expected = best(of.problem, of.architectures, budget, k)
        assert_proved(of.problem, budget, together, expected)
        assert [solution.alpha_E for solution in together] == [a.alpha_E for a in expected]
        assert [s.alpha_E for s in solve(of.problem, budget, k=k)] == [a.alpha_E for a in expected]


@pytest.mark.parametrize("method", METHODS)
def test_budgets_of_all_kinds_are_solved_in_order(method: Method) -> None:
    problem = two_edges([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]], a=[[1, 2, 9], [4, 5, 6]], b=[[7, 7, 1], [1, 2, 3]])
    above, other = [{"a": Bound(None, v)} for v in (4, 6, 20)], {"b": Bound(8, 8), "a": Bound(None, 9)}
    budgets: list[Budget] = [above[0], above[1], other, {}, above[2], {"a": Bound(14, None)}]
    assert groups_that_share(problem, budgets) == [budgets[:2], [other], [{}], [above[2]], [budgets[5]]]
    found = solve_many(problem, budgets, method=method)
    assert [[s.alpha_E for s in solutions] for solutions in found] == [
        [],
        [(1, 0)],
        [(1, 0)],
        [(2, 0)],
        [(2, 0)],
        [(2, 1)],
    ]


def test_no_budgets_have_no_solutions() -> None:
    assert solve_many(two_edges([[0.4, 0.6]]), []) == []


# --- what may be chosen ---


@pytest.mark.parametrize("method", METHODS)
def test_a_pruned_candidate_is_never_chosen_however_probable(method: Method) -> None:
    problem = two_edges([[0.9, 0.1], [0.2, 0.8]], a=[[1, 1], [1, 1]])
    pruned = replace(problem, choosable_EK=np.array([[False, True], [True, True]]))
    assert [s.alpha_E for s in solve(pruned, {}, k=9, method=method)] == [(1, 1), (1, 0)]
    assert [s.alpha_E for s in solve(pruned, {"a": Bound(2, 2)}, k=9, method=method)] == [(1, 1), (1, 0)]


@pytest.mark.parametrize("method", METHODS)
def test_where_everything_of_an_edge_is_pruned_there_is_nothing(method: Method) -> None:
    problem = two_edges([[0.9, 0.1], [0.2, 0.8]], a=[[1, 1], [1, 1]])
    for gone in (replace(problem, choosable_EK=np.array([[False, False], [True, True]])), _nothing_choosable(problem)):
        assert solve(gone, {}, method=method) == []
        assert solve(gone, {"a": Bound(None, 5)}, method=method) == []
        assert solve_many(gone, [{"a": Bound(None, 5)}, {"a": Bound(None, 9)}], method=method) == [[], []]
        assert nearest(gone, {"a": Bound(0, 5)}) == {"a": (None, None)}


@pytest.mark.parametrize("method", METHODS)
def test_edges_that_are_left_out_add_nothing_to_the_expectation_but_their_cost_to_the_costs(method: Method) -> None:
    # Two of three inputs: leaving out edge 1 costs 50, edge 0 or 2 nothing. none is the most probable and counts 0.
    space, _ = cell(nodes=2, ops=2)
    theta_EK = np.array([[0.5, 0.5]] * 2 + [[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]])
    entries_EK = np.zeros((5, 2), dtype=np.int64)
    entries_EK[3] = [50, 3]
    problem = Problem(space, theta_EK, space.generable_EK, {"a": CostTable(1, entries_EK)})
    solutions = solve(problem, {}, k=9, method=method)
    assert [(s.alpha_E, s.costs["a"]) for s in solutions] == [
        ((1, 1, 0, 1, 1), 4),
        ((1, 1, 1, 0, 1), 51),
        ((1, 1, 1, 1, 0), 4),
    ]
    assert solutions[0].expectation == pytest.approx((0.5 + 0.5 + 0.2 + 0.4) / 5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("alpha_E", "height"), [((0, 0, 0), 0), ((1, 0, 0), 3), ((0, 0, 1), 0), ((1, 1, 0), 1)])
def test_what_no_input_reaches_has_no_height(method: Method, alpha_E: tuple[int, int, int], height: int) -> None:
    # A chain 0-1-2-3. On the first edge the second operation counts, on the others the first one: where the path from
    # the input is broken at once, two operations in a row are no path.
    space = chain(2, 2, 2)
    counts_EK = np.array([[False, True], [True, False], [True, False]])
    path = LongestPath(((0, 0, 1), (1, 1, 2), (2, 2, 3)), counts_EK)
    choosable_EK = np.arange(2)[None, :] == np.array(alpha_E)[:, None]
    problem = Problem(space, np.full((3, 2), 0.5), choosable_EK, {"height": path})
    assert path(np.array(alpha_E)) == height
    for wanted in range(4):
        found = solve(problem, {"height": Bound(wanted, wanted)}, method=method)
        assert [solution.alpha_E for solution in found] == ([alpha_E] if wanted == height else [])


def test_a_random_architecture_is_one_that_can_be_generated() -> None:
    space, _ = cell(nodes=2, ops=3)
    problem = Problem(space, np.full(space.shape, 1 / 3), space.generable_EK)
    can_be = {a.alpha_E for a in every_architecture(problem)}
    drawn = set(random_alphas(problem, 400, np.random.default_rng(0)))
    assert drawn <= can_be
    assert len(can_be) == 4 * 12
    assert len(drawn) > 40


# --- conditional spaces ---


@settings(max_examples=500)
@given(SEEDS)
def test_in_conditional_spaces_all_methods_find_what_brute_force_finds(seed: int) -> None:
    drawn = conditional_instance(seed)
    expected = best(drawn.problem, drawn.architectures, drawn.budget, drawn.k)
    for method in METHODS:
        solutions = solve(drawn.problem, drawn.budget, k=drawn.k, method=method)
        assert_proved(drawn.problem, drawn.budget, solutions, expected)
        assert {solution.certificate.method for solution in solutions} <= {method}
        if method in IN_ORDER:
            assert [solution.alpha_E for solution in solutions] == [a.alpha_E for a in expected]


@given(SEEDS)
def test_in_conditional_spaces_everything_else_is_as_the_list_of_networks_says(seed: int) -> None:
    drawn = conditional_instance(seed)
    problem, networks = drawn.problem, {a.alpha_E: a for a in drawn.architectures}
    assert count_networks(problem) == len(networks)
    if not networks:
        return
    assert largest_costs(problem) == {name: max(a.costs[name] for a in networks.values()) for name in problem.costs}
    if problem.choosable_EK.any(axis=1).all():  # as in a search
        (expected,) = best(problem, drawn.architectures, {}, k=1)
        assert tuple(most_likely(problem.space, problem.theta_EK, problem.choosable_EK)) == expected.alpha_E
        assert set(random_alphas(problem, 50, np.random.default_rng(seed))) <= networks.keys()
    alphas_NE = np.array(list(networks))
    for name, cost in problem.costs.items():
        assert costs_of(cost, alphas_NE).tolist() == [a.costs[name] for a in networks.values()]


@settings(max_examples=200)
@given(SEEDS)
def test_in_conditional_spaces_one_pass_solves_many_budgets(seed: int) -> None:
    drawn = conditional_instance(seed)
    limits = sorted({a.costs["a"] for a in drawn.architectures})[-5:]
    budgets: list[Budget] = [{"a": Bound(None, limit)} for limit in limits]
    for budget, found in zip(budgets, solve_many(drawn.problem, budgets, k=drawn.k), strict=True):
        expected = best(drawn.problem, drawn.architectures, budget, drawn.k)
        assert [solution.alpha_E for solution in found] == [a.alpha_E for a in expected]


def test_the_conditional_instances_of_the_laws_are_of_all_kinds() -> None:
    drawn = [conditional_instance(seed) for seed in range(200)]
    bounds = [bound for i in drawn for bound in i.budget.values()]
    assert sum(i.problem.space.generable_EK.argmax(axis=1).any() for i in drawn) >= 20
    assert sum(len({bool(a) for a in i.problem.space.gate.inactive}) == 2 for i in drawn if i.problem.space.gate) >= 80
    assert sum(not within(i.architectures, i.budget) for i in drawn) >= 10  # infeasible
    assert sum(len(i.budget) == 3 for i in drawn) >= 30
    assert sum(None not in (bound.lower, bound.upper) for bound in bounds) >= 60
    with_ties = [len({round(a.expectation, 12) for a in i.architectures}) < len(i.architectures) for i in drawn]
    assert 40 <= sum(with_ties) <= 160


def deep_or_shallow() -> Problem:
    """One layer, or with "deep" a second one of three operations; the first operation of it is pruned."""
    space = replace(chain(2, 2, 3), gate=Gate(0, inactive=((), (2,))))
    theta_EK = np.array([[0.6, 0.4, 0.0], [0.3, 0.7, 0.0], [0.2, 0.5, 0.3]])
    choosable_EK = space.exists_EK.copy()
    choosable_EK[2, 0] = False
    cost = CostTable(100, np.array([[10, 20, 0], [1, 2, 0], [0, 4, 8]]), space.gate)
    return Problem(space, theta_EK, choosable_EK, {"a": cost})


@pytest.mark.parametrize("method", METHODS)
def test_an_inactive_edge_costs_nothing_adds_its_mean_and_has_one_alpha(method: Method) -> None:
    solutions = solve(deep_or_shallow(), {}, k=9, method=method)
    assert [(s.alpha_E, s.costs["a"], pytest.approx(3 * s.expectation)) for s in solutions] == [
        ((0, 1, 1), 116, 0.6 + 0.7 + 0.5),
        ((0, 1, 2), 120, 0.6 + 0.7 + 0.3),
        ((1, 1, 0), 122, 0.4 + 0.7 + (0.5 + 0.3) / 2),
        ((0, 0, 1), 115, 0.6 + 0.3 + 0.5),
        ((0, 0, 2), 119, 0.6 + 0.3 + 0.3),
        ((1, 0, 0), 121, 0.4 + 0.3 + (0.5 + 0.3) / 2),
    ]
    assert [s.alpha_E for s in solve(deep_or_shallow(), {"a": Bound(121, 121)}, k=9, method=method)] == [(1, 0, 0)]
    assert nearest(deep_or_shallow(), {"a": Bound(117, 118)}) == {"a": (116, 119)}


@pytest.mark.parametrize("method", METHODS)
def test_a_mode_that_was_pruned_is_not_chosen(method: Method) -> None:
    problem = deep_or_shallow()
    choosable_EK = problem.choosable_EK.copy()
    choosable_EK[0] = [False, True, False]
    found = solve(replace(problem, choosable_EK=choosable_EK), {}, k=9, method=method)
    assert [s.alpha_E for s in found] == [(1, 1, 0), (1, 0, 0)]


def test_a_cost_with_another_gate_than_the_space_is_refused() -> None:
    problem = deep_or_shallow()
    with pytest.raises(ValueError, match="cost 'a' has gate None, space 'chain' Gate"):
        replace(problem, costs={"a": CostTable(0, problem.costs["a"].entries_EK)})  # type: ignore[union-attr]


# --- ties ---


@pytest.mark.parametrize("method", IN_ORDER)
def test_equals_are_ordered_by_the_first_cost_of_the_budget_then_by_alpha(method: Method) -> None:
    problem = two_edges([[0.5, 0.5], [0.5, 0.5]], a=[[1, 0], [2, 2]], b=[[0, 1], [1, 0]])
    anything = Bound(None, 99)
    by_a = [s.alpha_E for s in solve(problem, {"a": anything, "b": anything}, k=4, method=method)]
    by_b = [s.alpha_E for s in solve(problem, {"b": anything, "a": anything}, k=4, method=method)]
    by_alpha = [s.alpha_E for s in solve(problem, {}, k=4, method=method)]
    assert by_a == [(1, 0), (1, 1), (0, 0), (0, 1)]
    assert by_b == [(0, 1), (0, 0), (1, 1), (1, 0)]
    assert by_alpha == [(0, 0), (0, 1), (1, 0), (1, 1)]


@pytest.mark.parametrize("method", IN_ORDER)
def test_decimals_whose_sums_are_equal_are_ties(method: Method) -> None:
    # In floating point 0.1 + 0.2 > 0.3 + 0.0; as numbers they are equal, and the cheaper one wins.
    problem = two_edges([[0.1, 0.3], [0.2, 0.0]], a=[[2, 1], [1, 1]])
    assert 0.1 + 0.2 != 0.3 + 0.0
    solutions = solve(problem, {"a": Bound(None, 3)}, k=4, method=method)
    assert [s.alpha_E for s in solutions] == [(1, 0), (1, 1), (0, 0), (0, 1)]


@pytest.mark.parametrize("method", IN_ORDER)
def test_alphas_are_compared_block_by_block(method: Method) -> None:
    space = replace(chain(2, 2), blocks=((1,), (0,)))
    problem = Problem(space, np.full((2, 2), 0.5), space.exists_EK)
    assert [s.alpha_E for s in solve(problem, {}, k=4, method=method)] == [(0, 0), (1, 0), (0, 1), (1, 1)]


@pytest.mark.parametrize("method", IN_ORDER)
@pytest.mark.parametrize("name", ["height", "other"])
def test_equals_are_ordered_by_the_first_cost_when_it_is_a_height(method: Method, name: str) -> None:
    # Node 3 takes two of inputs 0 and 1 and node 2: every theta is 0.5, so all pairs are ties.
    space, height = cell(nodes=2, ops=2)
    order = np.array([[0, e] for e in (0, 0, 2, 1, 0)])
    costs: dict[str, CostFunction] = {"height": height, "other": CostTable(0, order)}
    problem = Problem(space, np.full(space.shape, 0.5), space.generable_EK, costs)
    budget = {name: Bound(None, 9), **{other: Bound(None, 9) for other in costs if other != name}}
    solutions = solve(problem, budget, k=3, method=method)
    expected = best(problem, every_architecture(problem), budget, k=3)
    assert [(s.costs[name], s.alpha_E) for s in solutions] == [(a.costs[name], a.alpha_E) for a in expected]
    assert [s.costs["height"] for s in solutions] == ([1, 2, 2] if name == "height" else [2, 2, 1])


# --- too large ---


def test_enumeration_refuses_what_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = two_edges([[0.4, 0.6], [0.4, 0.6]])
    monkeypatch.setattr(enumeration, "MAX_ENUMERATED", 4)
    assert len(solve(problem, {}, k=4, method="enumeration")) == 4
    monkeypatch.setattr(enumeration, "MAX_ENUMERATED", 3)
    with pytest.raises(TooLargeError, match=r"^there are 4 architectures; at most 3 are enumerated$"):
        solve(problem, {}, method="enumeration")


def test_auto_takes_the_mip_where_dynamic_programming_is_too_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = two_edges([[0.4, 0.6], [0.4, 0.6]], a=[[1, 2], [1, 2]])
    budgets: list[Budget] = [{"a": Bound(None, 3)}, {"a": Bound(None, 2)}, {"a": Bound(3, 3)}]
    by_dynamic_programming = solve_many(problem, budgets)
    monkeypatch.setattr(dynamic_programming, "MAX_EXPANDED", 1)
    methods: tuple[Method, ...] = ("auto", "mip")
    for method in methods:
        found = solve_many(problem, budgets, method=method)
        assert [s.certificate.method for solutions in found for s in solutions] == ["mip"] * 3
        assert [[s.expectation for s in solutions] for solutions in found] == [
            [s.expectation for s in solutions] for solutions in by_dynamic_programming
        ]
    with pytest.raises(TooLargeError):
        solve_many(problem, budgets, method="programme")


def test_where_a_pass_for_many_budgets_is_too_large_each_is_solved_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    # One pass must keep the best for either budget; under the loose one alone everything is affordable.
    rng = np.random.default_rng(0)
    space = chain(*[4] * 8)
    problem = Problem(
        space,
        rng.dirichlet(np.ones(4), size=8),
        space.exists_EK,
        {"a": CostTable(0, rng.integers(0, 1000, size=(8, 4)))},
    )
    budgets: list[Budget] = [{"a": Bound(None, upper)} for upper in (2000, 9000)]
    alone = [solve(problem, budget)[0] for budget in budgets]
    together = [found[0] for found in solve_many(problem, budgets)]
    assert [s.alpha_E for s in together] == [s.alpha_E for s in alone]
    largest = max(s.certificate.work for s in alone)
    assert largest < together[0].certificate.work == together[1].certificate.work
    monkeypatch.setattr(dynamic_programming, "MAX_EXPANDED", 4 * largest)
    assert [found[0] for found in solve_many(problem, budgets, method="programme")] == alone


def test_a_solution_that_violates_a_bound_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = two_edges([[0.4, 0.6]], a=[[1, 2]])
    broken = "ddpnas_ray.core.generation.solve.run_dynamic_programming"
    monkeypatch.setattr(broken, lambda *_: ([[(1,)]], 1))
    with pytest.raises(RuntimeError, match=r"programme returned \(1,\), which breaks the bound on a"):
        solve(problem, {"a": Bound(None, 1)})


def _nothing_choosable(problem: Problem) -> Problem:
    return replace(problem, choosable_EK=np.zeros_like(problem.choosable_EK))
