"""Policy gradient on theta. Axes: E edges, K candidates."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from ddpnas_ray.core.requests import EvalRequest, EvalResult
from ddpnas_ray.core.state import SearchState, initial_state
from ddpnas_ray.strategies.base import Strategy
from ddpnas_ray.strategies.reinforce import Reinforce, ReinforceConfig
from ddpnas_ray.strategies.rounds import Rounds
from ddpnas_ray.testing import StrategyContract, counted_space
from ddpnas_ray.testing.strategy_contract import SPACES, Make, by_architecture, search

ONE = counted_space("one", (4, 0, 0))


class TestReinforce(StrategyContract):
    @pytest.fixture(params=[False, True], ids=["plain", "pruned"])
    def make(self, request: pytest.FixtureRequest) -> Make:
        def strategy(evaluations: int) -> Strategy:
            return Reinforce(rounds=Rounds(evaluations=evaluations, prune=request.param, epochs_per_round=1))

        return strategy


def tell_one_by_one(state: SearchState, strategy: Reinforce, script: dict[int, float]) -> SearchState:
    """An epoch of the four operations of ``ONE``."""
    plan = strategy.ask(state, ONE)
    assert plan is not None
    return strategy.tell(state, ONE, plan, [EvalResult(script[int(r.alpha_E[0])], 1.0) for r in plan.requests])


@pytest.mark.parametrize("better", [True, False])
def test_operations_of_architectures_above_the_baseline_become_more_probable(better: bool) -> None:
    """One architecture per epoch: the second scores above or below the first, which is the baseline."""
    space = counted_space("narrow", *[(3, 0, 0)] * 4)
    strategy = Reinforce(rounds=Rounds(evaluations=99))
    for seed in range(5):
        state = initial_state(space, seed)
        plan = strategy.ask(state, space)
        assert plan is not None
        first = strategy.tell(state, space, plan, [EvalResult(0.5, 1.0)] * 3)
        np.testing.assert_allclose(first.theta_EK, state.theta_EK, rtol=1e-12, err_msg="nothing is above itself")
        plan = strategy.ask(first, space)
        assert plan is not None
        alpha_E = plan.requests[0].alpha_E
        second = strategy.tell(
            first, space, plan, [EvalResult(0.6 if better else 0.4, 1.0), *[EvalResult(0.5, 1.0)] * 2]
        )
        edges = np.arange(4)
        moved_EK = second.theta_EK - first.theta_EK
        sign = 1 if better else -1
        once_E = [[int(r.alpha_E[e]) for r in plan.requests].count(int(alpha_E[e])) == 1 for e in edges]
        assert (sign * moved_EK[edges, alpha_E][once_E] > 0).all()
        np.testing.assert_allclose(moved_EK.sum(axis=1), 0, atol=1e-12)


def test_a_step_by_hand() -> None:
    """The gradient of log softmax is one at the chosen operation, minus the probabilities."""
    space = counted_space("one", (2, 0, 0))
    strategy, state = Reinforce(rounds=Rounds(evaluations=99), step=0.5, baseline=0.9), initial_state(space, 0)
    plan = strategy.ask(state, space)
    assert plan is not None
    state = strategy.tell(state, space, plan, [EvalResult(0.5, 1.0)] * 2)
    plan = strategy.ask(state, space)
    assert plan is not None
    # The first is 0.1 above the mean 0.5, in a first standard deviation of 0.1: one. Mean and variance move to 0.51
    # and 0.001: the second is 0.01 below, in standard deviations of sqrt(0.001).
    advantages = [1.0, -0.01 / np.sqrt(0.001)]
    expected_K = np.log([0.5, 0.5])
    for request, advantage in zip(plan.requests, advantages, strict=True):
        chosen = int(request.alpha_E[0])
        expected_K = expected_K + 0.5 * advantage / 2 * (np.eye(2)[chosen] - 0.5)
    state = strategy.tell(state, space, plan, [EvalResult(0.6, 1.0), EvalResult(0.5, 1.0)])
    np.testing.assert_allclose(state.theta_EK[0], np.exp(expected_K) / np.exp(expected_K).sum(), rtol=1e-12)


def test_neither_unit_nor_offset_of_the_scores_matters() -> None:
    def moved(request: EvalRequest) -> EvalResult:
        return EvalResult(score=0.3 + 0.25 * by_architecture(request).score, loss=1.0)

    for name in ("benchmark", "ragged"):
        space = SPACES[name]
        thetas = [
            search(Reinforce(rounds=Rounds(evaluations=25)), space, 0, script).states[-1].theta_EK
            for script in (by_architecture, moved)
        ]
        np.testing.assert_allclose(*thetas, rtol=1e-9)


def test_an_inactive_edge_learns_nothing() -> None:
    space, strategy = SPACES["conditional"], Reinforce(rounds=Rounds(evaluations=30))
    state = initial_state(space, 0)
    while (plan := strategy.ask(state, space)) is not None:
        after = strategy.tell(state, space, plan, [by_architecture(request) for request in plan.requests])
        if all(request.alpha_E[0] == 1 for request in plan.requests):
            np.testing.assert_allclose(after.theta_EK[1], state.theta_EK[1], rtol=1e-12)
        state = after


def test_it_learns_which_operation_is_best() -> None:
    scores = {0: 0.2, 1: 0.4, 2: 0.9, 3: 0.3}
    for seed in range(5):
        strategy, state = Reinforce(rounds=Rounds(evaluations=200)), initial_state(ONE, seed)
        while strategy.ask(state, ONE) is not None:
            state = tell_one_by_one(state, strategy, scores)
        assert state.theta_EK[0, 2] > 0.5
        assert strategy.answer(state, ONE).tolist() == [2]  # type: ignore[union-attr]


def test_the_config_and_the_strategy_have_the_same_defaults() -> None:
    defaults = {f.name: f.default for f in fields(Reinforce)}
    assert {"step": ReinforceConfig().step, "baseline": ReinforceConfig().baseline} == {
        name: defaults[name] for name in ("step", "baseline")
    }
