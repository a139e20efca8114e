"""Random search. Axes: N architectures, E edges."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from ddpnas_ray.core.requests import EvalResult
from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.core.state import initial_state
from ddpnas_ray.spaces.cell.space import make as cell
from ddpnas_ray.strategies.base import Strategy, best_seen, equal_epochs, may_be_generated
from ddpnas_ray.strategies.random import Random, new_alphas
from ddpnas_ray.testing import StrategyContract, counted_space
from ddpnas_ray.testing.strategy_contract import Make, search

SMALL = counted_space("small", (2, 2, 0), (2, 2, 1), (3, 1, 0), (2, 0, 0))
NETWORKS = set(product(range(4), range(4), range(4), range(2)))


class TestRandom(StrategyContract):
    @pytest.fixture(params=[1, 4])
    def make(self, request: pytest.FixtureRequest) -> Make:
        def strategy(evaluations: int) -> Strategy:
            return Random(evaluations=evaluations, batch=request.param)

        return strategy


@pytest.mark.parametrize("batch", [1, 7])
def test_no_architecture_is_drawn_twice(batch: int) -> None:
    for seed in range(5):
        state = search(Random(evaluations=90, batch=batch), SMALL, seed).states[-1]
        drawn = {row.alpha_E for row in state.evaluations}
        assert len(drawn) == 90
        assert drawn <= NETWORKS


def test_where_nothing_new_is_left_some_are_repeated() -> None:
    space = counted_space("four", (2, 0, 0), (1, 1, 0))
    state = search(Random(evaluations=11, batch=2), space, 0).states[-1]
    assert len(state.evaluations) == 11
    assert {row.alpha_E for row in state.evaluations} == set(product(range(2), repeat=2))


def test_every_network_is_equally_probable() -> None:
    drawn = [new_alphas(initial_state(SMALL, 0), SMALL, 1, rng_for(seed)) for seed in range(2000)]
    alphas_NE = np.concatenate(drawn)
    assert {tuple(alpha) for alpha in alphas_NE.tolist()} == NETWORKS
    for e, choices in enumerate((4, 4, 4, 2)):
        shares = np.bincount(alphas_NE[:, e], minlength=choices) / len(alphas_NE)
        np.testing.assert_allclose(shares, 1 / choices, atol=5 * np.sqrt(0.25 / 2000))


def test_it_draws_networks_as_they_are_generated_where_sampling_uses_all_edges() -> None:
    space = cell(nodes=2).space
    state = search(Random(evaluations=20, batch=5), space, 0).states[-1]
    assert all(may_be_generated(row.alpha_E, space) for row in state.evaluations)


def test_the_result_is_the_first_of_the_best() -> None:
    strategy = Random(evaluations=30, batch=3)
    state = search(strategy, SMALL, 0).states[-1]
    best = max(state.evaluations, key=lambda row: row.score)
    assert strategy.answer(state, SMALL).tolist() == list(best.alpha_E)  # type: ignore[union-attr]
    constant = search(strategy, SMALL, 0, lambda request: EvalResult(0.5, 1.0)).states[-1]
    assert best_seen(constant, SMALL).tolist() == list(constant.evaluations[0].alpha_E)  # type: ignore[union-attr]


def test_nothing_was_seen_before_the_search() -> None:
    assert best_seen(initial_state(SMALL, 0), SMALL) is None


@pytest.mark.parametrize("evaluations", [1, 2, 3, 4, 12, 13])
@pytest.mark.parametrize("batch", [1, 3, 4, 20])
def test_equal_epochs_add_up(evaluations: int, batch: int) -> None:
    *full, last = equal_epochs(evaluations, batch)
    assert sum(full) + last == evaluations
    assert set(full) <= {batch}
    assert 1 <= last <= batch
