"""Momentum (Eq. 4) and theta (Eq. 5). Axes: E edges, K candidates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpnas_ray.core.space import BoolArray, Edge, FloatArray, Op, SearchSpace
from ddpnas_ray.core.state import initial_state
from ddpnas_ray.core.update import distribution, fill_unvisited, masked_softmax, momentum, update

LAW = settings(derandomize=True, deadline=None, max_examples=60)
NAN = float("nan")
gammas = st.floats(0.0, 0.99)


@dataclass(frozen=True, slots=True)
class Round:
    """Inputs of Eq. 4-5."""

    theta_EK: FloatArray
    momentum_EK: FloatArray
    utility_EK: FloatArray
    live_EK: BoolArray
    exists_EK: BoolArray


@st.composite
def rounds(draw: st.DrawFn) -> Round:
    """Ragged edges, some operations pruned, at least one live on each; live operations have a utility in [-1, 1]."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    edges, ops = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    exists_EK = np.arange(ops) < rng.integers(1, ops + 1, size=(edges, 1))
    live_EK = exists_EK & (rng.random((edges, ops)) < 0.7)
    live_EK[:, 0] = True
    theta_EK = np.where(exists_EK, rng.random((edges, ops)) + 1e-3, 0.0)
    return Round(
        theta_EK=theta_EK / theta_EK.sum(axis=1, keepdims=True),
        momentum_EK=np.where(exists_EK, 0.5 * rng.random((edges, ops)), 0.0),
        utility_EK=np.where(live_EK, rng.uniform(-1, 1, (edges, ops)), NAN),
        live_EK=live_EK,
        exists_EK=exists_EK,
    )


def everything(*shape: int) -> BoolArray:
    return np.ones(shape, dtype=bool)


def test_momentum_on_an_example_by_hand() -> None:
    # Utilities 0 and -ln 2: exp gives 1 and 1/2, shares 2/3 and 1/3.
    # V = 0.9 * 0.2 + 0.1 * 2/3 = 0.18 + 0.0666.. and 0.9 * 0.1 + 0.1 * 1/3 = 0.09 + 0.0333..
    after_EK = momentum(np.array([[0.2, 0.1]]), np.array([[0.0, -log(2)]]), everything(1, 2), gamma=0.9)
    np.testing.assert_allclose(after_EK, [[0.18 + 1 / 15, 0.09 + 1 / 30]], rtol=1e-14)


def test_theta_on_an_example_by_hand() -> None:
    # theta + V = 0.5 + ln 2 and 0.5: the softmax is 2/3 and 1/3.
    after_EK = distribution(np.array([[0.5, 0.5]]), np.array([[log(2), 0.0]]), everything(1, 2))
    np.testing.assert_allclose(after_EK, [[2 / 3, 1 / 3]], rtol=1e-14)


def test_theta_moves_by_the_new_momentum() -> None:
    # Utilities 0.9, 0.5 and 0.6: exp gives 2.459603, 1.648721 and 1.822119, together 5.930443;
    # shares 0.414742, 0.278010, 0.307248. V_0 = 0 and gamma = 0.9, so V_1 is a tenth of them.
    # theta_0 = 1/3 each and drops out of the softmax: exp(V_1) = 1.042346, 1.028191, 1.031202, together 3.101739;
    # theta_1 = 0.336052, 0.331489, 0.332460.
    a, b, c = (Op(name, "parameter") for name in "abc")
    space = SearchSpace("one", (Edge("e", (a, b, c)),), ((0,),))
    momentum_EK, theta_EK = update(initial_state(space, seed=0), np.array([[0.9, 0.5, 0.6]]), space, gamma=0.9)
    np.testing.assert_allclose(momentum_EK, [[0.0414742, 0.0278010, 0.0307248]], atol=1e-7)
    np.testing.assert_allclose(theta_EK, [[0.336052, 0.331489, 0.332460]], atol=1e-6)


def test_a_pruned_op_fades_and_stays_in_the_normalisation_of_theta() -> None:
    # Operation 2 is pruned, gamma = 1/2. Utilities 0 and -ln 3 of the live ones: shares 3/4 and 1/4.
    # V = (0.1 + 3/8, 0.1 + 1/8, 0.3) = (0.475, 0.225, 0.3).
    # theta + V = (0.2 + 0.475, 0.45 + 0.225, 0.35 + 0.3) = (0.675, 0.675, 0.65): relative to the last, exp(0.025) =
    # 1.025315 twice and 1, together 3.050630; theta = 0.336100, 0.336100, 0.327801.
    a, b, c = (Op(name, "parameter") for name in "abc")
    space = SearchSpace("one", (Edge("e", (a, b, c)),), ((0,),))
    state = replace(
        initial_state(space, seed=0),
        theta_EK=np.array([[0.2, 0.45, 0.35]]),
        momentum_EK=np.array([[0.2, 0.2, 0.6]]),
        live_EK=np.array([[True, True, False]]),
    )
    momentum_EK, theta_EK = update(state, np.array([[0.0, -log(3), NAN]]), space, gamma=0.5)
    np.testing.assert_allclose(momentum_EK, [[0.475, 0.225, 0.3]], rtol=1e-14)
    np.testing.assert_allclose(theta_EK, [[0.336100, 0.336100, 0.327801]], atol=1e-6)


@LAW
@given(now=rounds(), gamma=gammas)
def test_rows_of_theta_sum_to_one_and_padding_is_zero(now: Round, gamma: float) -> None:
    momentum_EK = momentum(now.momentum_EK, now.utility_EK, now.live_EK, gamma)
    theta_EK = distribution(now.theta_EK, momentum_EK, now.exists_EK)
    np.testing.assert_allclose(theta_EK.sum(axis=1), 1.0, rtol=1e-12)
    assert (theta_EK[~now.exists_EK] == 0.0).all()
    assert (momentum_EK[~now.exists_EK] == 0.0).all()
    assert (theta_EK[now.exists_EK] > 0.0).all()


@LAW
@given(now=rounds(), gamma=gammas)
def test_momentum_of_a_pruned_op_becomes_gamma_times_itself(now: Round, gamma: float) -> None:
    after_EK = momentum(now.momentum_EK, now.utility_EK, now.live_EK, gamma)
    gone_EK = ~now.live_EK
    np.testing.assert_array_equal(after_EK[gone_EK], gamma * now.momentum_EK[gone_EK])


@LAW
@given(now=rounds(), gamma=gammas)
def test_momentum_gains_one_minus_gamma_an_edge(now: Round, gamma: float) -> None:
    after_EK = momentum(now.momentum_EK, now.utility_EK, now.live_EK, gamma)
    np.testing.assert_allclose(after_EK.sum(axis=1), gamma * now.momentum_EK.sum(axis=1) + 1.0 - gamma, rtol=1e-12)


@LAW
@given(now=rounds(), gamma=gammas, seed=st.integers(0, 2**32 - 1))
def test_renaming_operations_renames_the_result(now: Round, gamma: float, seed: int) -> None:
    order_K = np.random.default_rng(seed).permutation(now.theta_EK.shape[1])
    momentum_EK = momentum(now.momentum_EK, now.utility_EK, now.live_EK, gamma)
    renamed_EK = momentum(now.momentum_EK[:, order_K], now.utility_EK[:, order_K], now.live_EK[:, order_K], gamma)
    np.testing.assert_allclose(renamed_EK, momentum_EK[:, order_K], rtol=1e-12)
    theta_EK = distribution(now.theta_EK, momentum_EK, now.exists_EK)
    renamed_theta_EK = distribution(now.theta_EK[:, order_K], renamed_EK, now.exists_EK[:, order_K])
    np.testing.assert_allclose(renamed_theta_EK, theta_EK[:, order_K], rtol=1e-12)


@LAW
@given(now=rounds(), gamma=gammas, constant=st.floats(-1, 1))
def test_adding_a_constant_to_all_utilities_of_an_edge_changes_nothing(
    now: Round, gamma: float, constant: float
) -> None:
    raised_EK = now.utility_EK.copy()
    raised_EK[0] += constant
    np.testing.assert_allclose(
        momentum(now.momentum_EK, raised_EK, now.live_EK, gamma),
        momentum(now.momentum_EK, now.utility_EK, now.live_EK, gamma),
        rtol=1e-12,
    )


@LAW
@given(now=rounds(), gamma=gammas)
def test_of_two_ops_with_equal_past_the_better_one_ends_more_probable(now: Round, gamma: float) -> None:
    even_EK = now.exists_EK / now.exists_EK.sum(axis=1, keepdims=True)
    momentum_EK = momentum(np.zeros_like(even_EK), now.utility_EK, now.live_EK, gamma)
    theta_EK = distribution(even_EK, momentum_EK, now.exists_EK)
    for theta, utility, live in zip(theta_EK, now.utility_EK, now.live_EK, strict=True):
        best_first = np.argsort(-utility[live])
        assert (np.diff(theta[live][best_first]) <= 0).all()
        assert theta[live][best_first[0]] == theta[live].max()


@LAW
@given(now=rounds())
def test_without_momentum_the_past_is_forgotten(now: Round) -> None:
    past_EK = momentum(now.momentum_EK, now.utility_EK, now.live_EK, gamma=0.0)
    np.testing.assert_array_equal(past_EK, momentum(0 * now.momentum_EK, now.utility_EK, now.live_EK, gamma=0.0))


def test_an_unvisited_op_gets_the_mean_utility_of_its_edge() -> None:
    # Visited live operations have 0.2 and 0.6: mean 0.4. The pruned one (0.9) does not count.
    utility_EK = np.array([[0.2, NAN, 0.6, 0.9]])
    live_EK = np.array([[True, True, True, False]])
    np.testing.assert_allclose(fill_unvisited(utility_EK, live_EK)[live_EK], [0.2, 0.4, 0.6])


def test_an_unvisited_op_enters_the_softmax_with_the_mean() -> None:
    # Utilities -ln 2 and ln 2, mean 0: exp gives 1/2, 2 and 1, shares 1/7, 4/7 and 2/7.
    after_EK = momentum(np.zeros((1, 3)), np.array([[-log(2), log(2), NAN]]), everything(1, 3), gamma=0.0)
    np.testing.assert_allclose(after_EK, [[1 / 7, 4 / 7, 2 / 7]], rtol=1e-14)


def test_an_edge_without_any_visit_gives_equal_shares_to_its_live_ops() -> None:
    live_EK = np.array([[True, True, False], [True, True, True]])
    after_EK = momentum(np.zeros((2, 3)), np.array([[NAN] * 3, [0.5] * 3]), live_EK, gamma=0.5)
    np.testing.assert_allclose(after_EK, [[1 / 4, 1 / 4, 0], [1 / 6, 1 / 6, 1 / 6]], rtol=1e-14)


def test_softmax_is_over_the_mask_only() -> None:
    shares_EK = masked_softmax(np.array([[log(3), 99.0, 0.0]]), np.array([[True, False, True]]))
    np.testing.assert_allclose(shares_EK, [[0.75, 0.0, 0.25]], rtol=1e-14)


def test_softmax_of_a_row_with_an_empty_mask_is_zero() -> None:
    shares_EK = masked_softmax(np.array([[1.0, 2.0], [3.0, 3.0]]), np.array([[False, False], [True, True]]))
    np.testing.assert_array_equal(shares_EK, [[0.0, 0.0], [0.5, 0.5]])


@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_softmax_neither_overflows_nor_underflows(shift: float) -> None:
    shares_EK = masked_softmax(np.array([[shift, shift + log(3)]]), everything(1, 2))
    np.testing.assert_allclose(shares_EK, [[0.25, 0.75]], rtol=1e-9)
