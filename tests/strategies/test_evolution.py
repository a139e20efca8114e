"""Regularised evolution. Axes: E edges."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields

import numpy as np
import pytest

from ddpnas_ray.core.requests import EvalRequest, EvalResult
from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.core.space import SearchSpace
from ddpnas_ray.spaces.cell.space import make as cell
from ddpnas_ray.strategies.base import Strategy, may_be_generated
from ddpnas_ray.strategies.evolution import Evolution, EvolutionConfig, mutated
from ddpnas_ray.testing import StrategyContract, counted_space
from ddpnas_ray.testing.strategy_contract import SPACES, Make, search

WIDE = counted_space("wide", *[(3, 2, 1)] * 8)
CELL = cell(nodes=2).space


class TestEvolution(StrategyContract):
    @pytest.fixture(params=[(1, 6), (4, 10)])  # the population of ten takes epochs of four, four and two
    def make(self, request: pytest.FixtureRequest) -> Make:
        batch, population = request.param

        def strategy(evaluations: int) -> Strategy:
            return Evolution(evaluations=evaluations, batch=batch, population=population, tournament=3)

        return strategy


def blocks_that_differ(space: SearchSpace, one: tuple[int, ...], other: tuple[int, ...]) -> int:
    return sum(any(one[e] != other[e] for e in block) for block in space.blocks)


def test_in_a_conditional_space_a_child_is_another_network() -> None:
    space, found = SPACES["conditional"], set()
    for parent in ((0, 0), (0, 1), (0, 2), (1, 0)):  # the last one has no layer, so no operation of it
        children = {tuple(mutated(np.array(parent), space, rng_for(seed)).tolist()) for seed in range(50)}
        assert parent not in children
        found |= children
    assert found == {(0, 0), (0, 1), (0, 2), (1, 0)}


@pytest.mark.parametrize("space", [WIDE, CELL], ids=["wide", "cell"])
def test_a_child_differs_from_its_parent_in_one_block(space: SearchSpace) -> None:
    parent_E = np.array(search(Evolution(evaluations=1), space, 0).states[-1].evaluations[0].alpha_E)
    before = parent_E.copy()
    children = [tuple(mutated(parent_E, space, rng_for(seed)).tolist()) for seed in range(100)]
    np.testing.assert_array_equal(parent_E, before)
    assert {blocks_that_differ(space, tuple(parent_E), child) for child in children} == {1}
    assert all(may_be_generated(child, space) for child in children)
    assert len(set(children)) > 10


def test_every_alternative_is_equally_probable() -> None:
    space = counted_space("small", (3, 0, 0), (1, 0, 0), (2, 0, 0))  # the edge in the middle has no alternative
    children = Counter(tuple(mutated(np.array([0, 0, 0]), space, rng_for(seed)).tolist()) for seed in range(2000))
    assert set(children) == {(1, 0, 0), (2, 0, 0), (0, 0, 1)}
    for child, share in {(1, 0, 0): 0.25, (2, 0, 0): 0.25, (0, 0, 1): 0.5}.items():
        assert children[child] / 2000 == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_population_is_random_first_and_then_children_of_the_living(batch: int) -> None:
    strategy = Evolution(evaluations=40, batch=batch, population=8, tournament=2)
    searched = search(strategy, WIDE, 0)
    rows = searched.states[-1].evaluations
    random = [row.alpha_E for row in rows[:8]]
    assert len(set(random)) == 8
    apart = [blocks_that_differ(WIDE, a, b) for i, a in enumerate(random) for b in random[:i]]
    assert np.mean(apart) > 5, "of eight edges, random ones differ in 6.4"
    for state, plan in zip(searched.states, searched.plans, strict=False):
        if len(state.evaluations) < 8:
            continue
        alive = [row.alpha_E for row in state.evaluations[-8:]]
        for request in plan.requests:
            assert 1 in {blocks_that_differ(WIDE, tuple(request.alpha_E.tolist()), parent) for parent in alive}


def by_age(request: EvalRequest) -> EvalResult:
    """The older, the better."""
    return EvalResult(score=1.0 - request.epoch / 100, loss=1.0)


def test_the_oldest_is_dropped_however_good_it_is() -> None:
    """When all compete, the best of the living has every child; by age that is always the oldest of them."""
    strategy = Evolution(evaluations=30, batch=1, population=5, tournament=5)
    rows = search(strategy, WIDE, 0, by_age).states[-1].evaluations
    for i in range(5, 30):
        assert blocks_that_differ(WIDE, rows[i].alpha_E, rows[i - 5].alpha_E) == 1
    assert strategy.answer(search(strategy, WIDE, 0, by_age).states[-1], WIDE).tolist() == list(rows[0].alpha_E)  # type: ignore[union-attr]


def test_a_tournament_of_one_is_no_selection() -> None:
    """Scores then do not influence the next architectures."""
    strategy = Evolution(evaluations=25, population=5, tournament=1)
    asked = [[row.alpha_E for row in search(strategy, WIDE, 0, script).states[-1].evaluations] for script in SCRIPTS]
    assert asked[0] == asked[1]
    strategy = Evolution(evaluations=25, population=5, tournament=4)
    asked = [[row.alpha_E for row in search(strategy, WIDE, 0, script).states[-1].evaluations] for script in SCRIPTS]
    assert asked[0] != asked[1]
    assert asked[0][:5] == asked[1][:5]


SCRIPTS = (by_age, lambda request: EvalResult(score=request.epoch / 100, loss=1.0))


def test_it_climbs() -> None:
    """On an additive score it improves on the random architectures it started with."""

    def script(request: EvalRequest) -> EvalResult:
        return EvalResult(score=float((request.alpha_E == 1).mean()), loss=1.0)

    rows = search(Evolution(evaluations=150, population=20, tournament=8), WIDE, 0, script).states[-1].evaluations
    assert max(row.score for row in rows[-20:]) >= max(row.score for row in rows[:20]) + 0.25


def test_the_config_and_the_strategy_have_the_same_defaults() -> None:
    defaults = {f.name: f.default for f in fields(Evolution)}
    assert {f.name: f.default for f in fields(EvolutionConfig)} == {
        f.name: defaults[f.name] for f in fields(EvolutionConfig)
    }
