"""Multinomial distribution learning. Axes: N architectures, E edges, K candidates."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpnas_ray.core.requests import EvalRequest, EvalResult
from ddpnas_ray.core.space import FloatArray, SearchSpace
from ddpnas_ray.core.state import Evaluation, initial_state
from ddpnas_ray.strategies.base import Strategy
from ddpnas_ray.strategies.multinomial import Multinomial, MultinomialConfig, comparisons
from ddpnas_ray.strategies.rounds import Rounds
from ddpnas_ray.testing import StrategyContract, counted_space
from ddpnas_ray.testing.strategy_contract import SPACES, Make, search

LAW = settings(derandomize=True, deadline=None, max_examples=30)


class TestMultinomial(StrategyContract):
    @pytest.fixture(params=[False, True], ids=["plain", "pruned"])
    def make(self, request: pytest.FixtureRequest) -> Make:
        def strategy(evaluations: int) -> Strategy:
            return Multinomial(rounds=Rounds(evaluations=evaluations, prune=request.param, epochs_per_round=1))

        return strategy


# --- comparisons (Eq. 6 of MdeNAS) ---


def recorded(alphas: list[tuple[int, ...]], scores: list[float]) -> list[Evaluation]:
    return [
        Evaluation(0, n, 0, alpha, "val", score, 1.0, True, True, 0.0, "", "")
        for n, (alpha, score) in enumerate(zip(alphas, scores, strict=True))
    ]


def slow_comparisons(evaluations: list[Evaluation], new: int, space: SearchSpace) -> FloatArray:
    """Straight from the definition: after each of the new evaluations, every pair of an edge's operations."""
    net_EK = np.zeros(space.shape)
    trained: dict[tuple[int, int], int] = {}
    last: dict[tuple[int, int], float] = {}
    for n, row in enumerate(evaluations):
        active_E = space.active(np.array(row.alpha_E))
        for e, k in enumerate(row.alpha_E):
            if active_E[e]:
                trained[e, k] = trained.get((e, k), 0) + 1
                last[e, k] = row.score
        if n < len(evaluations) - new:
            continue
        for e, edge in enumerate(space.edges):
            for a in range(len(edge.candidates)):
                for b in range(len(edge.candidates)):
                    more_epochs = trained.get((e, a), 0) - trained.get((e, b), 0)
                    more_score = last.get((e, a), 0.0) - last.get((e, b), 0.0)
                    if more_epochs < 0 and more_score > 0:
                        net_EK[e, a] += 1
                    if more_epochs > 0 and more_score < 0:
                        net_EK[e, a] -= 1
    return net_EK


def test_comparisons_by_hand() -> None:
    # a scores 0.5, b scores 0.7, a again 0.6: b, trained once, beats a, trained twice; c was never trained. It loses to
    # neither, as it was trained less, and beats none, as it scored nothing.
    space = counted_space("one", (3, 0, 0))
    rows = recorded([(0,), (1,), (0,)], [0.5, 0.7, 0.6])
    np.testing.assert_array_equal(comparisons(rows, 1, space), [[-1, 1, 0]])
    # After the first two a and b were trained equally often: no comparison.
    np.testing.assert_array_equal(comparisons(rows[:2], 2, space), [[0, 0, 0]])
    np.testing.assert_array_equal(comparisons(rows, 3, space), [[-1, 1, 0]])


@LAW
@given(data=st.data(), name=st.sampled_from(sorted(SPACES)))
def test_comparisons_are_those_of_the_definition(data: st.DataObject, name: str) -> None:
    space = SPACES[name]
    alpha = st.tuples(*(st.integers(0, len(edge.candidates) - 1) for edge in space.edges))
    alphas = data.draw(st.lists(alpha, min_size=1, max_size=8))
    scores = data.draw(st.lists(st.sampled_from([0.1, 0.3, 0.3001, 0.7]), min_size=len(alphas), max_size=len(alphas)))
    new = data.draw(st.integers(1, len(alphas)))
    rows = recorded(alphas, scores)
    np.testing.assert_array_equal(comparisons(rows, new, space), slow_comparisons(rows, new, space))


def test_what_one_wins_another_loses() -> None:
    state = search(Multinomial(rounds=Rounds(evaluations=40)), SPACES["ragged"], 0).states[-1]
    np.testing.assert_array_equal(comparisons(state.evaluations, 40, SPACES["ragged"]).sum(axis=1), 0)


def test_a_won_comparison_multiplies_the_odds_by_e_to_the_step() -> None:
    space = counted_space("one", (3, 0, 0))
    strategy, state = Multinomial(rounds=Rounds(evaluations=99), step=0.25), initial_state(space, 0)
    while not comparisons(state.evaluations, 3, space).any():
        plan = strategy.ask(state, space)
        assert plan is not None
        scores = [0.2 + 0.3 * int(request.alpha_E[0]) + request.epoch / 100 for request in plan.requests]
        before = state
        state = strategy.tell(state, space, plan, [EvalResult(score, 1.0) for score in scores])
    won_K = comparisons(state.evaluations, 3, space)[0]
    expected_K = before.theta_EK[0] * np.exp(0.25 * won_K)
    np.testing.assert_allclose(state.theta_EK[0], expected_K / expected_K.sum(), rtol=1e-12)


def test_it_learns_which_operation_is_best() -> None:
    """On one edge an operation's score is its own."""

    def script(request: EvalRequest) -> EvalResult:
        return EvalResult(score=0.2 + 0.15 * int(request.alpha_E[0]), loss=1.0)

    space = counted_space("one", (4, 0, 0))
    for seed in range(5):
        strategy = Multinomial(rounds=Rounds(evaluations=60))
        state = search(strategy, space, seed, script).states[-1]
        assert int(state.theta_EK[0].argmax()) == 3
        assert strategy.answer(state, space) is None, "Eq. 10 takes the most probable"


# --- sampling ---


def test_the_config_and_the_strategy_have_the_same_defaults() -> None:
    assert MultinomialConfig().step == next(f.default for f in fields(Multinomial) if f.name == "step")
    assert MultinomialConfig().prune == next(f.default for f in fields(Rounds) if f.name == "prune")
