"""Dynamic programming: the partial architectures it keeps, and its limits. Axes: E edges, K candidates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpnas_ray.core.errors import TooLargeError
from ddpnas_ray.core.generation import dynamic_programming
from ddpnas_ray.core.generation.budgets import Bound
from ddpnas_ray.core.generation.dynamic_programming import shares_a_pass
from ddpnas_ray.core.generation.problem import Problem
from ddpnas_ray.core.generation.solve import Method, solve
from ddpnas_ray.core.space import CostTable, LongestPath

from .brute_force import chain

SEEDS = st.integers(0, 2**32 - 1)


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


@given(seed=SEEDS, rows=st.integers(1, 60), columns=st.integers(1, 4), k=st.integers(1, 4), chunk=st.integers(1, 20))
def test_a_state_is_dropped_when_k_better_ones_are_at_most_as_large_in_all_columns(
    seed: int, rows: int, columns: int, k: int, chunk: int
) -> None:
    column_SD = np.random.default_rng(seed).integers(0, 6, size=(rows, columns))
    beaten_by = [sum((other <= row).all() for other in column_SD[:i]) for i, row in enumerate(column_SD)]
    kept = [count < k for count in beaten_by]
    assert dynamic_programming._skyline(column_SD, k, chunk).tolist() == kept


@given(seed=SEEDS, rows=st.integers(1, 60), groups=st.integers(1, 4), k=st.integers(1, 4))
def test_with_one_column_at_least_those_are_kept_and_of_each_k_layers(
    seed: int, rows: int, groups: int, k: int
) -> None:
    rng = np.random.default_rng(seed)
    column_S, group_S = rng.integers(0, 9, size=rows), np.sort(rng.integers(0, groups, size=rows))
    kept_S = dynamic_programming._staircase(column_S, group_S, k)
    for group in range(groups):
        column, kept = column_S[group_S == group], kept_S[group_S == group]
        layers: list[int] = []  # length of the chain of better ones that dominates each
        for i, value in enumerate(column):
            layers.append(max((layers[j] + 1 for j in range(i) if column[j] <= value), default=0))
        assert kept.tolist() == [layer < k for layer in layers]


def test_it_refuses_too_many_states(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_chain(3, 2, 4, "a")
    monkeypatch.setattr(dynamic_programming, "MAX_EXPANDED", 3)
    with pytest.raises(TooLargeError, match=r"^dynamic programming needs 4 states; at most 3 fit$"):
        solve(problem, {"a": Bound(None, 10**9)}, method="programme")


def test_it_refuses_too_many_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_chain(4, 6, 4, "a", "b")
    budget = {"a": Bound(None, 2_800_000), "b": Bound(None, 2_800_000)}
    assert solve(problem, budget, method="programme")
    monkeypatch.setattr(dynamic_programming, "MAX_COMPARED", 100)
    with pytest.raises(TooLargeError, match=r"^the front of dynamic programming has more than [0-9,]+ states$"):
        solve(problem, budget, method="programme")
    assert solve(problem, budget)[0].certificate.method == "mip"


def test_a_path_that_runs_against_the_blocks_is_left_to_the_mip() -> None:
    # Arcs 0 -> 1 -> 2 by edges 0 and 1, but the block of edge 1 comes first.
    space = replace(chain(2, 2), blocks=((1,), (0,)))
    counts_EK = np.array([[True, False], [True, False]])
    height = LongestPath(((0, 0, 1), (1, 1, 2)), counts_EK)
    problem = Problem(space, np.array([[0.9, 0.1], [0.8, 0.2]]), space.exists_EK, {"height": height})
    with pytest.raises(
        TooLargeError, match=r"dynamic programming follows the blocks, height does not: .*edge 0 enters node 1"
    ):
        solve(problem, {"height": Bound(None, 1)}, method="programme")
    methods: tuple[Method, ...] = ("auto", "mip", "enumeration")
    for method in methods:
        (solution,) = solve(problem, {"height": Bound(None, 1)}, method=method)
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
