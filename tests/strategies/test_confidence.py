"""The confidence that a search reports, from whole searches with scripted scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ddpnas_ray.core.generation.solve import most_likely
from ddpnas_ray.core.requests import EvalRequest, EvalResult
from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.core.space import BoolArray, FloatArray, IntArray, SearchSpace, expectation
from ddpnas_ray.core.state import SearchState
from ddpnas_ray.spaces.cell import space as cell
from ddpnas_ray.strategies.base import Strategy
from ddpnas_ray.strategies.confidence import confidence
from ddpnas_ray.strategies.evolution import Evolution
from ddpnas_ray.strategies.multinomial import Multinomial
from ddpnas_ray.strategies.pruning import Pruning
from ddpnas_ray.strategies.random import Random
from ddpnas_ray.strategies.reinforce import Reinforce
from ddpnas_ray.strategies.rounds import Rounds
from ddpnas_ray.strategies.surrogate import Surrogate
from ddpnas_ray.testing import counted_space
from ddpnas_ray.testing.strategy_contract import SPACES, Script, search

CELL = cell.make(nodes=2).space


def noise(request: EvalRequest) -> EvalResult:
    """Nothing but noise."""
    return EvalResult(float(rng_for(1, request.epoch, request.architecture).normal(0.5, 0.05)), 1.0)


def clear(request: EvalRequest) -> EvalResult:
    """Operations of the first edge far apart, in a little noise."""
    return EvalResult(0.2 * int(request.alpha_E[0]) + noise(request).score / 10, 1.0)


def found(strategy: Strategy, space: SearchSpace, script: Script) -> tuple[dict[str, Any], SearchState]:
    state = search(strategy, space, 0, script).states[-1]
    answer_E = strategy.answer(state, space)

    def argmax(theta_EK: FloatArray, live_EK: BoolArray) -> IntArray:
        return most_likely(space, theta_EK, live_EK)

    alpha_E = argmax(state.theta_EK, state.live_EK) if answer_E is None else answer_E
    said = confidence(strategy, state, space, alpha_E, argmax, by_expectation=answer_E is None)
    assert json.loads(json.dumps(said, allow_nan=False)) == said, "plain JSON"
    return said, state


def test_a_search_on_noise_says_that_its_result_is_one_among_equals() -> None:
    said, state = found(Pruning(), CELL, noise)
    assert said["stands_out"] is False
    assert said["lead"]["networks"][0]["standard_errors"] < 2
    assert said["resampling"]["same_network"] < 0.2
    assert np.mean([edge["stays"] for edge in said["resampling"]["edges"]]) < 0.8
    assert said["prunings"]["count"] == (state.pruned_at_EK >= 0).sum() == said["prunings"]["known"]
    assert said["prunings"]["expected_mistakes"] > 1


def test_a_search_on_what_is_clear_says_so() -> None:
    said, _ = found(Pruning(), counted_space("clear", (3, 1, 0), (1, 0, 0)), clear)
    assert said["stands_out"] is True
    assert [network["standard_errors"] > 2 for network in said["lead"]["networks"]] == [True]
    assert said["resampling"]["same_network"] > 0.9
    assert said["resampling"]["median_distance"] == 0
    assert said["prunings"]["expected_mistakes"] < 0.1


def test_next_networks_are_in_order_of_their_lead() -> None:
    said, _ = found(Pruning(), CELL, noise)
    leads = [network["lead"] for network in said["lead"]["networks"]]
    assert len(leads) == 9
    assert leads == sorted(leads) and leads[0] >= 0


def test_edges_that_the_result_leaves_out_are_counted_and_named() -> None:
    said, _ = found(Pruning(), CELL, noise)
    assert (said["edges"], said["left_out"]) == (10, 2)
    rows = said["resampling"]["edges"]
    assert [row["edge"] for row in rows] == [edge.name for edge in CELL.edges]
    assert sum(row["operation"] is None for row in rows) == 2


def test_one_epoch_a_round_cannot_tell() -> None:
    said, _ = found(Pruning(epochs_per_round=1), CELL, noise)
    assert "one epoch" in said["not_told"]
    assert said.keys().isdisjoint({"lead", "resampling", "stands_out"})


def test_a_verified_result_was_not_chosen_by_its_expectation() -> None:
    said, state = found(Pruning(epochs_per_round=2, evaluations=120), SPACES["benchmark"], noise)
    assert not state.evaluations[-1].trained
    assert "verified" in said["not_told"]
    assert "lead" not in said and said["prunings"]["count"] > 0


@pytest.mark.parametrize("plug_in", [False, True])
@pytest.mark.parametrize("make", [lambda rounds: Multinomial(rounds=rounds), lambda rounds: Reinforce(rounds=rounds)])
def test_strategies_that_move_theta_otherwise_say_that_it_does_not_apply(
    make: Callable[[Rounds], Strategy], plug_in: bool
) -> None:
    said, _ = found(make(Rounds(evaluations=60, prune=plug_in)), SPACES["benchmark"], noise)
    assert "not by rounds" in said["not_told"]
    assert ("prunings" in said) == plug_in
    assert said.keys().isdisjoint({"lead", "resampling"})


@pytest.mark.parametrize(
    "strategy",
    [Random(evaluations=30, batch=5), Evolution(evaluations=30, batch=5), Surrogate(evaluations=30, batch=5)],
    ids=lambda strategy: type(strategy).__name__,
)
def test_strategies_without_a_theta_say_nothing(strategy: Strategy) -> None:
    said, _ = found(strategy, SPACES["benchmark"], noise)
    assert said == {"edges": 4, "left_out": 0}


def test_in_conditional_spaces_the_lead_is_over_other_networks() -> None:
    space = SPACES["conditional"]
    unpruned = Pruning(prune=False, evaluations=30)  # three deep networks and a shallow one
    said, state = found(unpruned, space, noise)
    leads = [network["lead"] for network in said["lead"]["networks"]]
    networks = [(0, 0), (0, 1), (0, 2), (1, 0)]
    values = sorted(expectation(np.array(alpha), state.theta_EK, space, state.live_EK) for alpha in networks)
    assert leads == pytest.approx([values[-1] - value for value in values[-2::-1]])
    assert len(said["resampling"]["edges"]) == 2
