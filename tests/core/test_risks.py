"""Pruning risks estimated from records. Axes: N architectures, E edges, K candidates, R rounds, T epochs."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpnas_ray.core.risks import estimate_round, fit_deviation, round_risks
from ddpnas_ray.core.sampling import disjoint_sample
from ddpnas_ray.core.space import BoolArray, FloatArray, IntArray
from ddpnas_ray.core.theory import confusion, least_probabilities

LAW = settings(derandomize=True, deadline=None, max_examples=25)
seeds = st.integers(0, 2**32 - 1)


@dataclass(frozen=True, slots=True)
class Round:
    """One round's records."""

    alphas_NE: IntArray
    scores_N: FloatArray
    epoch_N: IntArray
    live_EK: BoolArray


def sampled_round(
    effect_EK: FloatArray, sigma: float, rng: np.random.Generator, epochs: int = 3, drift: float = 0.01
) -> Round:
    """Disjointly sampled architectures whose scores add an effect per edge, one per epoch, and noise."""
    live_EK = np.ones(effect_EK.shape, dtype=bool)
    theta_EK = live_EK / effect_EK.shape[1]
    alphas_NE = np.concatenate([disjoint_sample(theta_EK, live_EK, rng) for _ in range(epochs)])
    epoch_N = np.repeat(np.arange(epochs), effect_EK.shape[1])
    effects_N = effect_EK[np.arange(len(effect_EK)), alphas_NE].sum(axis=1)
    scores_N = 0.1 + drift * epoch_N + effects_N + sigma * rng.standard_normal(len(epoch_N))
    return Round(alphas_NE, scores_N, epoch_N, live_EK)


def by_hand() -> Round:
    # Means 0.555, 0.575, 0.625 of the operations, 0.53 and 0.64 of the epochs, 0.585 of all. Residuals 0, 0.01, -0.01
    # and 0, -0.01, 0.01: squares 4e-4, (3 - 1)(2 - 1) = 2 degrees of freedom, sigma^2 = 2e-4, standard error 0.01.
    # The means vary by 0.0013, of which 1e-4 is error: tau^2 = 0.0012.
    return Round(
        np.array([[0], [1], [2], [0], [1], [2]]),
        np.array([0.50, 0.53, 0.56, 0.61, 0.62, 0.69]),
        np.array([0, 0, 0, 1, 1, 1]),
        np.ones((1, 3), dtype=bool),
    )


def test_estimates_on_an_example_by_hand() -> None:
    case = by_hand()
    estimate = estimate_round(case.alphas_NE, case.scores_N, case.epoch_N, (1, 3))
    np.testing.assert_allclose(estimate.utility_EK, [[0.555, 0.575, 0.625]])
    assert estimate.visits_EK.tolist() == [[2, 2, 2]]
    assert estimate.freedom_E.tolist() == [2]
    assert estimate.sigma == pytest.approx(sqrt(2e-4))
    assert estimate.tau == pytest.approx(sqrt(0.0012))


def test_risks_on_an_example_by_hand() -> None:
    case = by_hand()
    mu_K = np.array([0.555, 0.575, 0.625])
    plain = round_risks(case.alphas_NE, case.scores_N, case.epoch_N, case.live_EK, shrink=False)
    np.testing.assert_allclose(plain.stderr_EK, 0.01)
    assert plain.p_confused_E[0] == pytest.approx(confusion(0.555, 0.575, 0.01))
    # Given the records the truth scatters about the means; that the worst is the best mirrors that the best is pruned.
    assert plain.p_best_pruned_E[0] == pytest.approx(least_probabilities(-mu_K, 0.01)[0])
    weight = 0.0012 / 0.0013
    shrunk = round_risks(case.alphas_NE, case.scores_N, case.epoch_N, case.live_EK)
    assert shrunk.p_confused_E[0] == pytest.approx(confusion(0.0, weight * 0.02, 0.01 * sqrt(weight)))
    expected_K = least_probabilities(-weight * mu_K, 0.01 * sqrt(weight))
    assert shrunk.p_best_pruned_E[0] == pytest.approx(expected_K[0])


@LAW
@given(seed=seeds, scale=st.floats(0.1, 3.0), shift=st.floats(-0.1, 0.1), drift=st.floats(-0.05, 0.05))
def test_neither_unit_nor_the_progress_of_training_matters(seed: int, scale: float, shift: float, drift: float) -> None:
    rng = np.random.default_rng(seed)
    case = sampled_round(rng.normal(0, 0.01, (3, 5)), 0.01, rng)
    moved_N = scale * case.scores_N + shift + drift * case.epoch_N
    before = round_risks(case.alphas_NE, case.scores_N, case.epoch_N, case.live_EK)
    after = round_risks(case.alphas_NE, moved_N, case.epoch_N, case.live_EK)
    assert after.estimate.sigma == pytest.approx(scale * before.estimate.sigma)
    np.testing.assert_allclose(after.p_confused_E, before.p_confused_E, atol=1e-6)
    np.testing.assert_allclose(after.p_best_pruned_E, before.p_best_pruned_E, atol=1e-6)


@LAW
@given(seed=seeds)
def test_renaming_operations_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    case = sampled_round(rng.normal(0, 0.02, (4, 5)), 0.01, rng)
    names_K = rng.permutation(5)
    before = round_risks(case.alphas_NE, case.scores_N, case.epoch_N, case.live_EK)
    after = round_risks(names_K[case.alphas_NE], case.scores_N, case.epoch_N, case.live_EK)
    np.testing.assert_allclose(after.p_confused_E, before.p_confused_E, atol=1e-9)
    np.testing.assert_allclose(after.p_best_pruned_E, before.p_best_pruned_E, atol=1e-9)


@LAW
@given(seed=seeds, noise=st.floats(0.001, 0.1), shrink=st.booleans())
def test_risks_are_those_of_an_order_that_was_observed(seed: int, noise: float, shrink: bool) -> None:
    rng = np.random.default_rng(seed)
    case = sampled_round(rng.normal(0, 0.02, (4, 5)), noise, rng)
    risks = round_risks(case.alphas_NE, case.scores_N, case.epoch_N, case.live_EK, shrink=shrink)
    assert ((risks.p_confused_E >= 0) & (risks.p_confused_E <= 0.5 + 1e-12)).all()
    assert ((risks.p_best_pruned_E >= 0) & (risks.p_best_pruned_E <= 0.2 + 1e-6)).all()


def test_sigma_is_what_the_scores_were_drawn_with() -> None:
    rng = np.random.default_rng(0)
    variances, taus = [], []
    for _ in range(200):
        effect_EK = rng.normal(0, 0.02, (1, 6))
        case = sampled_round(effect_EK, 0.01, rng)
        estimate = estimate_round(case.alphas_NE, case.scores_N, case.epoch_N, (1, 6))
        assert estimate.freedom_E.tolist() == [(6 - 1) * (3 - 1)]
        variances.append(estimate.sigma**2)
        taus.append(estimate.tau**2)
    assert np.mean(variances) == pytest.approx(0.01**2, rel=0.1)  # 3 errors of 1e-4 sqrt(2 / 2000)
    assert np.mean(taus) == pytest.approx(0.02**2, rel=0.15)


def test_the_ledger_tells_how_often_rounds_prune_the_wrong_operation() -> None:
    rng = np.random.default_rng(0)
    said, sure, confused, best = [], [], [], []
    edges = np.arange(10)
    for _ in range(60):
        effect_EK = rng.normal(0, 0.01, (10, 6))
        case = sampled_round(effect_EK, 0.02, rng)
        for risks, shrink in ((said, True), (sure, False)):
            ledger = round_risks(case.alphas_NE, case.scores_N, case.epoch_N, case.live_EK, shrink=shrink)
            risks.append([ledger.p_confused_E.mean(), ledger.p_best_pruned_E.mean()])
        order_EK = ledger.estimate.utility_EK.argsort(axis=1)
        confused.append((effect_EK[edges, order_EK[:, 1]] < effect_EK[edges, order_EK[:, 0]]).mean())
        best.append((effect_EK.argmax(axis=1) == order_EK[:, 0]).mean())
    p_confused, p_best = np.mean(said, axis=0)
    assert p_confused == pytest.approx(np.mean(confused), abs=0.06)  # 3 errors of 0.5 / sqrt(600)
    assert p_best == pytest.approx(np.mean(best), abs=0.035)
    assert np.mean(sure, axis=0)[1] < p_best / 3


def test_scores_that_tell_nothing_apart_leave_every_operation_equally_probable() -> None:
    # The same two scores for each operation, in either order: the means agree, the residuals do not vanish.
    alphas_NE, epoch_N = np.array([[0], [1], [2], [3]] * 2), np.repeat([0, 1], 4)
    scores_N = np.array([0.4, 0.6, 0.4, 0.6, 0.6, 0.4, 0.6, 0.4])
    risks = round_risks(alphas_NE, scores_N, epoch_N, np.ones((1, 4), dtype=bool))
    assert risks.estimate.tau == 0
    assert risks.p_confused_E[0] == pytest.approx(0.5, abs=1e-5)
    assert risks.p_best_pruned_E[0] == pytest.approx(0.25, abs=1e-5)


def test_only_prunable_operations_are_pruned_but_reserved_ones_may_be_the_best() -> None:
    case = by_hand()
    prunable_EK = np.array([[False, True, True]])
    risks = round_risks(
        case.alphas_NE, case.scores_N, case.epoch_N, case.live_EK, prunable_EK=prunable_EK, shrink=False
    )
    assert risks.p_confused_E[0] == pytest.approx(confusion(0.575, 0.625, 0.01))
    assert risks.p_best_pruned_E[0] == pytest.approx(least_probabilities(-np.array([0.555, 0.575, 0.625]), 0.01)[1])


@pytest.mark.parametrize(
    ("prunable", "confused", "best"), [((0, 0, 0), False, False), ((1, 0, 0), False, True), ((1, 1, 0), True, True)]
)
def test_nan_where_nothing_was_decided(prunable: tuple[int, ...], confused: bool, best: bool) -> None:
    case, prunable_EK = by_hand(), np.array([prunable], dtype=bool)
    risks = round_risks(case.alphas_NE, case.scores_N, case.epoch_N, case.live_EK, prunable_EK=prunable_EK)
    assert bool(np.isfinite(risks.p_confused_E[0])) is confused
    assert bool(np.isfinite(risks.p_best_pruned_E[0])) is best


def test_nan_where_one_epoch_cannot_tell_operations_from_noise() -> None:
    case = sampled_round(np.zeros((3, 5)), 0.01, np.random.default_rng(0), epochs=1)
    risks = round_risks(case.alphas_NE, case.scores_N, case.epoch_N, case.live_EK)
    assert risks.estimate.freedom_E.tolist() == [0, 0, 0]
    assert isnan(risks.estimate.sigma) and isnan(risks.estimate.tau)
    assert np.isnan([risks.p_confused_E, risks.p_best_pruned_E]).all() and np.isnan(risks.stderr_EK).all()


def test_nan_where_scores_have_no_noise() -> None:
    case = sampled_round(np.random.default_rng(0).normal(0, 0.01, (1, 5)), 0.0, np.random.default_rng(0))
    risks = round_risks(case.alphas_NE, case.scores_N, case.epoch_N, case.live_EK)
    assert isnan(risks.estimate.sigma) and np.isnan(risks.p_best_pruned_E).all()


def test_unvisited_operations_and_ragged_edges_are_ignored() -> None:
    rng = np.random.default_rng(0)
    case = sampled_round(rng.normal(0, 0.01, (2, 5)), 0.01, rng)
    wider_EK = np.hstack([case.live_EK, [[True], [False]]])  # live on one edge, padding on the other; no visit
    before = round_risks(case.alphas_NE, case.scores_N, case.epoch_N, case.live_EK)
    after = round_risks(case.alphas_NE, case.scores_N, case.epoch_N, wider_EK)
    np.testing.assert_array_equal(after.p_confused_E, before.p_confused_E)
    np.testing.assert_array_equal(after.p_best_pruned_E, before.p_best_pruned_E)
    assert np.isnan(after.stderr_EK[:, 5]).all()


def test_an_inactive_edge_leaves_no_trace() -> None:
    rng = np.random.default_rng(0)
    case = sampled_round(rng.normal(0, 0.01, (2, 5)), 0.01, rng)
    active_NE = np.tile([True, False], (len(case.scores_N), 1))
    both = round_risks(case.alphas_NE, case.scores_N, case.epoch_N, case.live_EK, active_NE=active_NE)
    alone = round_risks(case.alphas_NE[:, :1], case.scores_N, case.epoch_N, case.live_EK[:1])
    assert both.estimate.visits_EK[1].tolist() == [0] * 5
    assert both.p_confused_E[0] == alone.p_confused_E[0] and isnan(both.p_confused_E[1])


def test_percentages_are_refused() -> None:
    case = by_hand()
    with pytest.raises(ValueError, match="percentages"):
        round_risks(case.alphas_NE, 100 * case.scores_N, case.epoch_N, case.live_EK)


# --- Corollary 1.1 --------------------------------------------------------------------------------------------------


def records(sigma_R: FloatArray, epochs: int, edges: int = 2) -> tuple[IntArray, FloatArray, IntArray, IntArray]:
    """The columns of a run whose rounds have these standard deviations."""
    rng = np.random.default_rng(0)
    effect_EK = rng.normal(0, 0.01, (edges, 6))
    effect_EK[1:] = 0  # choices on other edges are noise to an edge; none here
    rounds = [sampled_round(effect_EK, sigma, rng, epochs, drift=0.001) for sigma in sigma_R]
    return (
        np.concatenate([case.alphas_NE for case in rounds]),
        np.concatenate([case.scores_N for case in rounds]),
        np.repeat(np.arange(len(rounds)), 6 * epochs),
        np.concatenate([case.epoch_N + epochs * r for r, case in enumerate(rounds)]),
    )


def test_the_fit_finds_the_line_that_the_scores_follow() -> None:
    epochs, beta, eta = 60, 5e-5, 0.01
    epoch_R = epochs * np.arange(5) + (epochs - 1) / 2
    end = 5 * epochs - 1
    columns = records(beta * (end - epoch_R) + eta, epochs, edges=1)
    fit = fit_deviation(*columns)
    np.testing.assert_allclose(fit.epoch_R, epoch_R)
    assert fit.converged_epoch == end
    # A sigma of 5 * 59 degrees of freedom has a relative error of 4 %.
    assert fit.beta == pytest.approx(beta, rel=0.2)
    assert fit.eta == pytest.approx(eta, rel=0.15)
    assert (np.abs(fit.residual_R) < 0.12 * fit.sigma_R).all()
    assert fit.residual_R.sum() == pytest.approx(0.0, abs=1e-12)
    assert fit.sigma_at(epoch_R[0]) + fit.residual_R[0] == pytest.approx(fit.sigma_R[0])
    assert fit.utility_REK.shape == (5, 1, 6)


def test_another_end_of_training_moves_along_the_line() -> None:
    columns = records(np.array([0.03, 0.02, 0.02, 0.01]), epochs=3)
    near, far = fit_deviation(*columns), fit_deviation(*columns, converged_epoch=20.0)
    assert far.beta == pytest.approx(near.beta)
    assert far.sigma_at(5) == pytest.approx(near.sigma_at(5))
    np.testing.assert_allclose(far.residual_R, near.residual_R, atol=1e-15)


def test_a_deviation_that_rises_has_a_negative_slope() -> None:
    assert fit_deviation(*records(np.array([0.001, 0.01, 0.1]), epochs=4)).beta < 0


def test_fits_of_few_rounds() -> None:
    two = fit_deviation(*records(np.array([0.03, 0.01]), epochs=3), operations=8)
    np.testing.assert_allclose(two.residual_R, 0, atol=1e-15)
    assert two.utility_REK.shape == (2, 2, 8) and np.isnan(two.utility_REK[:, :, 6:]).all()
    one = fit_deviation(*records(np.array([0.03]), epochs=3))
    assert isnan(one.beta) and isnan(one.eta) and np.isnan(one.residual_R).all() and np.isfinite(one.sigma_R).all()
    none = fit_deviation(*records(np.array([0.03, 0.02, 0.01]), epochs=1))
    assert isnan(none.beta) and np.isnan(none.sigma_R).all()
