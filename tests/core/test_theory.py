"""Theorems 2 and 3 and the toy example of Sec. 4.3. Axes: K operations, N rounds."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from ddpnas_ray.core.space import FloatArray
from ddpnas_ray.core.theory import (
    confusion,
    confusion_as_printed,
    error_bound,
    error_bound_in_epochs,
    least_probabilities,
    p_best_pruned,
    p_worst_kept,
    pair_bound,
    toy_experiment,
)

LAW = settings(derandomize=True, deadline=None, max_examples=40)
ROUNDS = 10_000
means = st.floats(-1.0, 1.0)
sigmas = st.floats(1e-3, 1.0)
gaps = st.floats(0.01, 5.0)
many = st.integers(2, 9)
SPACINGS = (0.1, 0.41, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)


@st.composite
def gaussians(draw: st.DrawFn) -> tuple[FloatArray, FloatArray]:
    """Means and standard deviations of one to eight operations."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    operations = draw(st.integers(1, 8))
    return rng.uniform(-1, 1, operations), 10 ** rng.uniform(-2, 0.5, operations)


# --- Theorem 2 ------------------------------------------------------------------------------------------------------


@LAW
@given(mu_0=means, mu_1=means, sigma=sigmas)
def test_one_of_two_operations_is_the_lower(mu_0: float, mu_1: float, sigma: float) -> None:
    assert confusion(mu_0, mu_1, sigma) + confusion(mu_1, mu_0, sigma) == pytest.approx(1.0, abs=1e-15)
    assert confusion(mu_0, mu_0, sigma) == 0.5


@LAW
@given(gap=gaps, more=st.floats(0.01, 1.0), sigma=st.floats(0.2, 2.0))
def test_confusion_falls_with_the_gap_and_rises_with_the_noise(gap: float, more: float, sigma: float) -> None:
    assert confusion(0.0, gap + more, sigma) < confusion(0.0, gap, sigma) < confusion(0.0, gap, sigma + more) < 0.5


@LAW
@given(gap=gaps, sigma=sigmas, shift=means, scale=st.floats(1e-3, 1e3))
def test_confusion_does_not_depend_on_the_unit(gap: float, sigma: float, shift: float, scale: float) -> None:
    assert confusion(scale * shift, scale * (shift + gap), scale * sigma) == pytest.approx(
        confusion(0.0, gap, sigma), rel=1e-6, abs=1e-12
    )


def test_confusion_is_what_two_draws_do() -> None:
    xi_2N = np.array([[0.5], [0.52]]) + 0.03 * np.random.default_rng(0).standard_normal((2, 200_000))
    assert (xi_2N[1] < xi_2N[0]).mean() == pytest.approx(confusion(0.5, 0.52, 0.03), abs=0.004)  # 3.6 errors


@LAW
@given(operations=many, spacing=gaps, sigma=sigmas)
def test_the_printed_gap_makes_theorem_2_cautious_on_equally_spaced_means(
    operations: int, spacing: float, sigma: float
) -> None:
    spread = spacing * (operations - 1)
    assert confusion_as_printed(spread, sigma, operations) >= confusion(0.0, spacing, sigma)


def test_the_printed_gap_makes_theorem_2_bold_where_the_two_worst_are_close() -> None:
    mu_K = np.array([0.0, 0.01, 0.5, 1.0])
    assert confusion_as_printed(spread=1.0, sigma=0.1, operations=4) < 0.04 < 0.47 < confusion(mu_K[0], mu_K[1], 0.1)


# --- Theorem 3 ------------------------------------------------------------------------------------------------------


def test_the_bounds_on_an_example_by_hand() -> None:
    # sigma = 0.001 * 5 + 0.005 = 0.01; delta = 0.4 / 8 = 0.05; (0.01 / 0.05)^2 = 0.04; 2 - 1/8 = 1.875
    assert pair_bound(0.05, 0.01) == pytest.approx(0.04)
    assert error_bound(0.05, 0.01, 8) == pytest.approx(0.075)
    assert error_bound_in_epochs(0.4, 8, beta=0.001, epochs_left=5, eta=0.005) == pytest.approx(0.08)


@LAW
@given(operations=many, spread=gaps, beta=st.floats(0, 0.1), left=st.integers(0, 50), eta=sigmas)
def test_equation_15_is_equation_17_with_two_for_two_less_one_over_k(
    operations: int, spread: float, beta: float, left: int, eta: float
) -> None:
    loose = error_bound_in_epochs(spread, operations, beta=beta, epochs_left=left, eta=eta)
    tight = error_bound(spread / operations, beta * left + eta, operations)
    assert loose > tight
    assert loose * (2 - 1 / operations) == pytest.approx(2 * tight)


@LAW
@given(gap=gaps, sigma=sigmas)
def test_equation_16_bounds_theorem_2(gap: float, sigma: float) -> None:
    assert confusion(0.0, gap, sigma) <= pair_bound(gap, sigma)


@pytest.mark.parametrize("operations", [2, 3, 5, 8])
def test_theorem_3_bounds_the_error_rate_of_simulated_rounds(operations: int) -> None:
    bounds = []
    for spacing in SPACINGS:
        toy = toy_experiment(operations=operations, spacing=spacing, samples=ROUNDS)
        delta = spacing * (operations - 1) / operations  # zeta / K, as printed
        bounds.append(error_bound(delta, 1.0, operations))
        assert toy.p_worst_kept_exact < bounds[-1]
        assert toy.p_worst_kept < bounds[-1] or bounds[-1] >= 1
        assert toy.p_worst_kept < error_bound(spacing, 1.0, operations) or error_bound(spacing, 1.0, operations) >= 1
    assert min(bounds) < 0.5 < 1 < max(bounds)


@LAW
@given(operations=many, spacing=st.floats(0.05, 8.0))
def test_theorem_3_bounds_the_exact_error_rate(operations: int, spacing: float) -> None:
    mu_K = spacing * np.arange(operations)
    assert p_worst_kept(mu_K, 1.0) <= error_bound(spacing, 1.0, operations)


def test_theorem_3_bounds_nothing_where_the_two_worst_are_closer_than_the_average() -> None:
    mu_K = np.array([0.0, 0.0, 4.0, 8.0, 12.0])
    assert error_bound(delta=12.0 / 5, sigma=0.1, operations=5) < 0.01
    assert p_worst_kept(mu_K, 0.1) == pytest.approx(0.5)


# --- the least of K ------------------------------------------------------------------------------------------------


@LAW
@given(gaussians())
def test_exactly_one_operation_is_pruned(case: tuple[FloatArray, FloatArray]) -> None:
    least_K = least_probabilities(*case)
    assert (least_K >= 0).all()
    assert least_K.sum() == pytest.approx(1.0, abs=1e-12)


@LAW
@given(case=gaussians(), shift=means, scale=st.floats(1e-3, 1e3), seed=st.integers(0, 99))
def test_probabilities_do_not_depend_on_unit_and_order(
    case: tuple[FloatArray, FloatArray], shift: float, scale: float, seed: int
) -> None:
    mu_K, sigma_K = case
    order_K = np.random.default_rng(seed).permutation(len(mu_K))
    moved_K = least_probabilities(scale * (mu_K + shift)[order_K], scale * sigma_K[order_K])
    np.testing.assert_allclose(moved_K, least_probabilities(mu_K, sigma_K)[order_K], atol=1e-12)


@settings(LAW, max_examples=10)
@given(gaussians())
def test_quadrature_is_what_simulated_rounds_do(case: tuple[FloatArray, FloatArray]) -> None:
    mu_K, sigma_K = case
    scores_NK = mu_K + sigma_K * np.random.default_rng(1).standard_normal((40_000, len(mu_K)))
    share_K = np.bincount(scores_NK.argmin(axis=1), minlength=len(mu_K)) / len(scores_NK)
    np.testing.assert_allclose(share_K, least_probabilities(mu_K, sigma_K), atol=0.012)  # 4.8 errors


@LAW
@given(mu_1=means, sigma_0=st.floats(1e-3, 1e3), sigma_1=st.floats(1e-3, 1e3))
def test_two_operations_have_a_closed_form(mu_1: float, sigma_0: float, sigma_1: float) -> None:
    least_K = least_probabilities(np.array([0.0, mu_1]), np.array([sigma_0, sigma_1]))
    assert least_K[1] == pytest.approx(ndtr(-mu_1 / np.hypot(sigma_0, sigma_1)), abs=1e-12)


@LAW
@given(operations=many, spacing=gaps, more=st.floats(0.05, 1.0))
def test_both_mistakes_get_rarer_with_the_spacing(operations: int, spacing: float, more: float) -> None:
    assume(spacing + more < 5)
    near_K, far_K = spacing * np.arange(operations), (spacing + more) * np.arange(operations)
    assert p_best_pruned(far_K, 1.0) <= p_best_pruned(near_K, 1.0) < 1 / operations
    assert p_worst_kept(far_K, 1.0) < p_worst_kept(near_K, 1.0) < 1 - 1 / operations
    assert p_best_pruned(near_K, 1.0) <= p_worst_kept(near_K, 1.0) + 1e-15


@pytest.mark.parametrize("operations", [1, 2, 5, 8])
def test_of_equal_operations_each_goes_as_often(operations: int) -> None:
    np.testing.assert_allclose(least_probabilities(np.full(operations, 0.3), 0.01), 1 / operations, atol=1e-13)


# --- toy example ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("operations", "spacing", "visits"), [(8, 0.41, 1), (8, 0.41, 3), (5, 0.6, 1), (2, 0.1, 1)])
def test_the_toy_experiment_agrees_with_its_exact_values(operations: int, spacing: float, visits: int) -> None:
    toy = toy_experiment(operations=operations, spacing=spacing, visits=visits, samples=ROUNDS)
    assert toy.kendall_tau == pytest.approx(toy.kendall_tau_exact, abs=0.03)
    assert toy.p_best_pruned == pytest.approx(toy.p_best_pruned_exact, abs=0.02)
    assert toy.p_worst_kept == pytest.approx(toy.p_worst_kept_exact, abs=0.02)


def test_the_papers_toy_example() -> None:
    toy = toy_experiment(samples=ROUNDS)
    assert 0.55 < toy.kendall_tau < 0.57
    assert toy.kendall_tau_exact == pytest.approx(0.5596, abs=1e-4)  # 0.57 in print
    assert toy_experiment(spacing=0.424, samples=1).kendall_tau_exact == pytest.approx(0.5722, abs=1e-3)
    assert 1 - toy.p_best_pruned > 0.99
    assert 1 - toy.p_best_pruned_exact == pytest.approx(0.99797, abs=1e-5)
    assert toy.p_best_kept_as_printed == pytest.approx(0.99948, abs=1e-5)


def test_more_epochs_rank_better() -> None:
    one, three = toy_experiment(visits=1, samples=1), toy_experiment(visits=3, samples=1)
    assert three.kendall_tau_exact > one.kendall_tau_exact
    assert three.p_best_pruned_exact < one.p_best_pruned_exact
    wider = toy_experiment(spacing=0.41 * sqrt(3), samples=1)
    assert three.kendall_tau_exact == pytest.approx(wider.kendall_tau_exact)


@pytest.mark.parametrize(
    "call",
    [
        lambda: confusion(0.0, 1.0, sigma=0.0),
        lambda: confusion(0.0, 1.0, sigma=float("nan")),
        lambda: confusion_as_printed(0.0, 1.0, 8),
        lambda: pair_bound(-0.1, 1.0),
        lambda: error_bound(0.1, 0.0, 8),
        lambda: error_bound_in_epochs(1.0, 8, beta=-0.1, epochs_left=5, eta=0.1),
        lambda: least_probabilities(np.array([]), 1.0),
        lambda: least_probabilities(np.array([0.0, np.nan]), 1.0),
        lambda: least_probabilities(np.array([0.0, 1.0]), np.array([1.0, 0.0])),
        lambda: toy_experiment(operations=1),
        lambda: toy_experiment(spacing=0.0),
    ],
)
def test_what_makes_no_sense_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"positive|at least"):
        call()
