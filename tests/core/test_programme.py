"""The dynamic programme: which partial architectures it keeps, and where it gives up. Axes: E edges, K candidates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ddpnas_ray.core import programme
from ddpnas_ray.core.budgets import Bound
from ddpnas_ray.core.errors import TooLargeError
from ddpnas_ray.core.generation import Problem, solve
from ddpnas_ray.core.programme import shares_a_pass
from ddpnas_ray.core.types import CostTable, LongestPath

from .brute_force import assert_proved, best, chain, every_architecture


def random_chain(seed: int, edges: int, ops: int, *names: str) -> Problem:
    rng = np.random.default_rng(seed)
    space = chain(*[ops] * edges)
    costs = {name: CostTable(0, rng.integers(0, 10**6, size=space.shape)) for name in names}
    return Problem(space, rng.dirichlet(np.ones(ops), size=edges), space.exists_EK, costs)


def test_an_upper_bound_that_everything_meets_leaves_one_state() -> None:
    problem = random_chain(0, 8, 5, "a", "b")
    (solution,) = solve(problem, {"a": Bound(None, 10**9), "b": Bound(0, None)}, method="programme")
    assert (solution.certificate.work, solution.certificate.work_unit) == (1, "states in the largest front")


def test_only_bounded_directions_make_states_incomparable() -> None:
    # Under one upper bound the front is a staircase; with a lower bound too only equal totals can be compared.
    problem = random_chain(1, 7, 4, "a")
    middle = 3_000_000
    one_sided = solve(problem, {"a": Bound(None, middle)}, method="programme")[0].certificate.work
    two_sided = solve(problem, {"a": Bound(middle - 10**5, middle)}, method="programme")[0].certificate.work
    assert one_sided < 60
    assert two_sided > 10 * one_sided


@pytest.mark.parametrize("names", [("a",), ("a", "b"), ("a", "b", "c")])
def test_many_states_are_compared_in_parts_without_loss(
    names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two-sided bounds on several costs keep fronts of thousands, more than are compared at once.
    problem = random_chain(2, 6, 4, *names)
    pivot = every_architecture(problem)[1234].costs
    budget = {name: Bound(pivot[name] - 400_000, pivot[name] + 200_000) for name in names}
    for k in (1, 5):
        solutions = solve(problem, budget, k=k, method="programme")
        assert_proved(problem, budget, solutions, best(problem, every_architecture(problem), budget, k))


def test_it_refuses_too_many_states(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_chain(3, 2, 4, "a")
    monkeypatch.setattr(programme, "MAX_EXPANDED", 3)
    with pytest.raises(TooLargeError, match=r"^the programme needs 4 states; at most 3 are tried$"):
        solve(problem, {"a": Bound(None, 10**9)}, method="programme")


def test_it_refuses_too_many_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_chain(4, 6, 4, "a", "b")
    budget = {"a": Bound(None, 2_000_000), "b": Bound(None, 2_500_000)}
    assert solve(problem, budget, method="programme")
    monkeypatch.setattr(programme, "MAX_COMPARED", 100)
    with pytest.raises(TooLargeError, match=r"^the programme's front has more than [0-9,]+ states$"):
        solve(problem, budget, method="programme")
    assert solve(problem, budget)[0].certificate.method == "mip"


def test_a_path_that_runs_against_the_blocks_is_left_to_the_mixed_integer_programme() -> None:
    # Arcs 0 -> 1 -> 2 by edges 0 and 1, but the block of edge 1 comes first.
    space = replace(chain(2, 2), blocks=((1,), (0,)))
    counts_EK = np.array([[True, False], [True, False]])
    height = LongestPath(((0, 0, 1), (1, 1, 2)), counts_EK)
    problem = Problem(space, np.array([[0.9, 0.1], [0.8, 0.2]]), space.exists_EK, {"height": height})
    with pytest.raises(
        TooLargeError, match=r"goes block by block, which height does not allow: .*edge 0 enters node 1"
    ):
        solve(problem, {"height": Bound(None, 1)}, method="programme")
    for method in ("auto", "mip", "enumeration"):
        (solution,) = solve(problem, {"height": Bound(None, 1)}, method=method)  # type: ignore[arg-type]
        assert (solution.alpha_E, solution.costs) == ((0, 1), {"height": 1})


def test_only_upper_bounds_on_the_same_additive_costs_share_a_pass() -> None:
    problem = random_chain(5, 2, 2, "a", "b")
    problem = replace(problem, costs={**problem.costs, "height": LongestPath(((0, 0, 1),), problem.space.exists_EK)})
    a, b, both = {"a": Bound(None, 1)}, {"b": Bound(None, 1)}, {"a": Bound(None, 1), "b": Bound(None, 2)}
    assert shares_a_pass(problem, [a, {"a": Bound(None, 7)}])
    assert shares_a_pass(problem, [both, {"a": Bound(None, 5), "b": Bound(None, 0)}])
    assert not shares_a_pass(problem, [a, b])
    assert not shares_a_pass(problem, [a, both])
    assert not shares_a_pass(problem, [both, {"b": Bound(None, 2), "a": Bound(None, 1)}])  # b decides ties
    assert not shares_a_pass(problem, [a, {"a": Bound(0, 7)}])
    assert not shares_a_pass(problem, [a, {"a": Bound(None, None)}])
    assert not shares_a_pass(problem, [{"height": Bound(None, 1)}] * 2)
