"""Budgets of a search: what fits by brute force, and searches that keep to them. Axes: N architectures, E edges."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ddpnas_ray.core.errors import BudgetError
from ddpnas_ray.core.generation.limits import Limits
from ddpnas_ray.core.generation.problem import Problem
from ddpnas_ray.core.generation.solve import largest_costs
from ddpnas_ray.core.requests import EvalRequest, EvalResult
from ddpnas_ray.spaces.cell.space import make as cell
from ddpnas_ray.spaces.nasbench201.space import make as nasbench201
from ddpnas_ray.spaces.target import Target
from ddpnas_ray.strategies.base import Strategy, may_be_generated
from ddpnas_ray.strategies.evolution import Evolution
from ddpnas_ray.strategies.random import Random
from ddpnas_ray.strategies.surrogate import Surrogate
from ddpnas_ray.testing import assert_same_state
from ddpnas_ray.testing.strategy_contract import search

from .brute_force import Instance, best, conditional_instance, instance, within

LAW = settings(derandomize=True, deadline=None, max_examples=60)
SEEDS = st.integers(0, 2**32 - 1)
BENCHMARK = nasbench201()
TARGET = Target(image_size=32, classes=10, cells=5, channels=16)
COSTS = {name: cost(TARGET) for name, cost in BENCHMARK.costs.items()}
PROBLEM = Problem(BENCHMARK.space, np.zeros(BENCHMARK.space.shape), BENCHMARK.space.generable_EK, COSTS)

MAKE: dict[str, Callable[[Limits, int], Strategy]] = {
    "random": lambda limits, n: Random(evaluations=n, limits=limits),
    "random, 4 a time": lambda limits, n: Random(evaluations=n, batch=4, limits=limits),
    "evolution": lambda limits, n: Evolution(evaluations=n, population=6, tournament=3, limits=limits),
    "surrogate": lambda limits, n: Surrogate(evaluations=n, initial=6, limits=limits),
    "surrogate, 4 a time": lambda limits, n: Surrogate(evaluations=n, batch=4, initial=6, limits=limits),
}


@LAW
@given(seed=SEEDS, of=st.sampled_from([instance, conditional_instance]))
def test_what_fits_and_what_is_best_is_that_of_brute_force(seed: int, of: Callable[[int], Instance]) -> None:
    drawn = of(seed)
    feasible = within(drawn.architectures, drawn.budget)
    assume(feasible)
    limits = Limits(drawn.problem, (drawn.budget, {}))
    alphas_NE = np.array([a.alpha_E for a in drawn.architectures])
    own_N, any_N = limits.fits(alphas_NE)
    assert {tuple(alpha) for alpha in alphas_NE[own_N].tolist()} == {a.alpha_E for a in feasible}
    assert any_N.all()
    found = limits.best(drawn.budget, drawn.problem.theta_EK, drawn.k)
    expected = best(drawn.problem, drawn.architectures, drawn.budget, drawn.k)
    known = {a.alpha_E: a.expectation for a in drawn.architectures}
    assert [known[alpha_E] for alpha_E in found] == pytest.approx([a.expectation for a in expected], abs=1e-12)


@LAW
@given(seed=SEEDS)
def test_in_conditional_spaces_each_network_is_drawn_once_and_fits(seed: int) -> None:
    drawn = conditional_instance(seed)
    feasible = {a.alpha_E for a in within(drawn.architectures, drawn.budget)}
    assume(feasible and drawn.problem.choosable_EK.any(axis=1).all())
    alphas = Limits(drawn.problem, (drawn.budget,)).draw(4, np.random.default_rng(seed))
    assert len(set(alphas)) == len(alphas)
    assert set(alphas) <= feasible


@LAW
@given(seed=SEEDS, n=st.integers(1, 30))
def test_draws_are_distinct_and_fit_and_every_budget_has_some(seed: int, n: int) -> None:
    drawn = instance(seed)
    tightest = min((a.costs for a in drawn.architectures), key=lambda costs: costs["a"], default=None)
    assume(tightest is not None and within(drawn.architectures, drawn.budget))
    limits = Limits.parse(drawn.problem, [f"a={tightest['a']}"])  # type: ignore[index]
    both = Limits(drawn.problem, (*limits.budgets, drawn.budget))
    found = both.draw(n, np.random.default_rng(seed))
    assert len(found) == len(set(found)) > 0
    fits_BN = both.fits(np.array(found))
    assert fits_BN.any(axis=0).all() and fits_BN.any(axis=1).all()
    assert found == both.draw(n, np.random.default_rng(seed))


@LAW
@given(seed=SEEDS)
def test_percentages_are_of_the_largest_cost(seed: int) -> None:
    drawn = instance(seed)
    assume(drawn.architectures)
    largest = {name: max(a.costs[name] for a in drawn.architectures) for name in drawn.problem.costs}
    assert largest_costs(drawn.problem) == largest
    assert Limits.parse(drawn.problem, ["a=100%"]).budgets[0]["a"].upper == largest["a"]


def test_a_budget_that_nothing_fits_is_refused_with_the_nearest_values() -> None:
    with pytest.raises(BudgetError, match=r"no architecture of space 'nasbench201' meets macs=1k; near.* 7,783,040"):
        Limits.parse(PROBLEM, ["macs=50%", "macs=1k"])


def by_macs(request: EvalRequest) -> EvalResult:
    """The more macs the better: budgets bind."""
    return EvalResult(score=COSTS["macs"](request.alpha_E) / 3e8, loss=1.0)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("texts", [["macs=4%"], ["macs=10%..90%:5"], ["params=0.4M,height=2..3"]])
def test_searches_keep_to_their_budgets_and_are_functions_of_the_seed(name: str, texts: list[str]) -> None:
    limits = Limits.parse(PROBLEM, texts)
    strategy = MAKE[name](limits, 30)
    searched = search(strategy, BENCHMARK.space, 7, by_macs)
    rows = searched.states[-1].evaluations
    fits_BN = limits.fits(np.array([row.alpha_E for row in rows]))
    assert len(rows) == 30 == sum(strategy.epochs(BENCHMARK.space))
    assert fits_BN.any(axis=0).all()
    assert fits_BN.any(axis=1).all(), "every budget has networks"
    middle = searched.states[len(searched.states) // 2]
    assert_same_state(search(strategy, BENCHMARK.space, middle, by_macs).states[-1], searched.states[-1])


@pytest.mark.parametrize("name", MAKE)
def test_in_a_space_too_large_to_list_too(name: str) -> None:
    spec = cell(nodes=2)
    target = Target(image_size=32, classes=10, cells=8, channels=16, stem="cifar")
    costs = {name: cost(target) for name, cost in spec.costs.items()}
    problem = Problem(spec.space, np.zeros(spec.space.shape), spec.space.generable_EK, costs)
    limits = Limits.parse(problem, ["macs=45%", "macs=60%,height=1..1"])

    def score(request: EvalRequest) -> EvalResult:
        return EvalResult(score=costs["params"](request.alpha_E) / 1e7, loss=1.0)

    strategy = MAKE[name](limits, 20)
    searched = search(strategy, spec.space, 3, score)
    rows = searched.states[-1].evaluations
    fits_BN = limits.fits(np.array([row.alpha_E for row in rows]))
    assert len(rows) == 20 and fits_BN.any(axis=0).all() and fits_BN.any(axis=1).all()
    assert all(may_be_generated(row.alpha_E, spec.space) for row in rows)
    assert len({row.alpha_E for row in rows}) >= 18, "what fits is not rare"
    assert_same_state(search(strategy, spec.space, 3, score).states[-1], searched.states[-1])


@pytest.mark.parametrize("text", ["macs=30%", "macs=20%..100%:5"])
def test_the_surrogate_ends_near_every_limit(text: str) -> None:
    limits = Limits.parse(PROBLEM, [text])
    rows = search(Surrogate(evaluations=60, limits=limits), BENCHMARK.space, 0, by_macs).states[-1].evaluations
    alphas_NE, scores_N = np.array([row.alpha_E for row in rows]), np.array([row.score for row in rows])
    for budget, fits_N in zip(limits.budgets, limits.fits(alphas_NE), strict=True):
        (highest,) = limits.best(budget, np.where(BENCHMARK.space.exists_EK, COSTS_EK, 0.0), 1)
        assert scores_N[fits_N].max() >= 0.9 * COSTS["macs"](np.array(highest)) / 3e8


COSTS_EK = COSTS["macs"].entries_EK / COSTS["macs"].entries_EK.max()  # type: ignore[union-attr]
