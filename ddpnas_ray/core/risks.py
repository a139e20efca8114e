"""Pruning risks estimated from a run's own records: means and standard deviation of every round, and error rates.

The model is the paper's (Sec. 3.4, Fig. 3), applied per edge: the score of an architecture is the sum of a mean of the
operation used on the edge, a shift that all architectures of the epoch share (the weights learn between the epochs of a
round), and Gaussian noise of one standard deviation sigma_t. The noise includes the choices on *other* edges. Disjoint
sampling makes it slightly dependent within an epoch; that adds a common shift, which cancels between operations.

The inputs are the columns of ``evaluations.parquet`` in which ``split`` is "val".
Axes: N architectures, E edges, K candidates, R rounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ddpnas_ray.core.space import BoolArray, FloatArray, IntArray
from ddpnas_ray.core.theory import confusion, least_probabilities
from ddpnas_ray.core.utility import utility

NO_NOISE = 1e-12  # in scores; below it a standard deviation is a rounding error


@dataclass(frozen=True, slots=True)
class RoundEstimate:
    """Means and standard deviation of one round.

    Args:
        utility_EK: mu: the mean score of every operation (Eq. 3); NaN where it had no visit.
        visits_EK: Number of scores in that mean.
        sigma: sigma_t, the pooled residual standard deviation of one score; NaN where nothing is left to estimate it.
        tau: Standard deviation of the true means of an edge's operations, pooled over the edges: the variation of the
            estimated means beyond their standard errors; 0 where there is none, NaN where sigma is.
        freedom_E: Degrees of freedom of each edge's residuals. The edges share their scores, so pooling them steadies
            sigma without making these add up to independent observations.
    """

    utility_EK: FloatArray
    visits_EK: IntArray
    sigma: float
    tau: float
    freedom_E: IntArray


@dataclass(frozen=True, slots=True)
class RoundRisks:
    """Pruning risks of one round.

    Args:
        p_confused_E: Probability that the true order of the two worst prunable operations is the reverse (Theorem 2).
        p_best_pruned_E: Probability that the worst prunable operation is truly the best of the edge.
        stderr_EK: sigma / sqrt(visits), the standard error of the utility; NaN where not estimated.
        estimate: The estimate behind these risks.
    """

    p_confused_E: FloatArray
    p_best_pruned_E: FloatArray
    stderr_EK: FloatArray
    estimate: RoundEstimate


@dataclass(frozen=True, slots=True)
class DeviationFit:
    """sigma_t = beta (t* - t) + eta, fitted to a run (Corollary 1.1).

    Args:
        beta: Growth per epoch; negative where sigma_t rises towards the end, which contradicts the corollary.
        eta: Standard deviation at t*.
        converged_epoch: t*.
        epoch_R: t of every round: the mean of its epochs.
        sigma_R: Estimated sigma_t; NaN where it cannot be estimated.
        residual_R: sigma_R minus the fit. Two rounds always fit exactly.
        utility_REK: mu of every round and operation; NaN where it had no visit.
    """

    beta: float
    eta: float
    converged_epoch: float
    epoch_R: FloatArray
    sigma_R: FloatArray
    residual_R: FloatArray
    utility_REK: FloatArray

    def sigma_at(self, epoch: float) -> float:
        """Return the fitted sigma_t at an epoch; it may be negative outside the epochs of the fit."""
        return self.beta * (self.converged_epoch - epoch) + self.eta


def round_risks(
    alphas_NE: IntArray,
    scores_N: FloatArray,
    epoch_N: IntArray,
    live_EK: BoolArray,
    *,
    prunable_EK: BoolArray | None = None,
    active_NE: BoolArray | None = None,
    shrink: bool = True,
) -> RoundRisks:
    """Compute per edge, given a round's scores, the probabilities that pruning its worst operation was a mistake.

    "Worst" is by the utility of this round alone; theta also remembers earlier rounds (Eq. 4-5) and may have pruned
    another operation.

    Args:
        alphas_NE: The round's architectures, shape (N, E).
        scores_N: Their scores, fractions, shape (N,).
        epoch_N: The epoch of each, shape (N,).
        live_EK: Operations that were live in the round, shape (E, K).
        prunable_EK: Those that pruning could take (``core.pruning.prunable``), shape (E, K); None: all that were live.
        active_NE: Edges active in an architecture (``SearchSpace.active``), shape (N, E); None: all.
        shrink: True: an edge's true means are Gaussian with standard deviation tau, so estimates shrink towards each
            other. False: take the estimated means for the true ones, which Theorem 2 assumes known. That is far too
            confident where operations differ little, as noise alone spreads the estimates; shrunk, the risks are right
            or somewhat too high (benchmarks/theory.py), unless effects vary a lot across edges: then up to a third too
            low.

    Returns:
        The risks. Of n operations that the scores do not distinguish at all, the worst is the best with probability
        1/n. NaN where sigma cannot be estimated (one epoch per round leaves no degree of freedom to separate operations
        from noise; scores without noise leave no residual), where no visited operation was prunable, and for
        p_confused also where only one was.

    Raises:
        ValueError: A mean score outside [-1, 1].

    Example:
        >>> alphas_NE, epoch_N = np.array([[0], [1], [2], [0], [1], [2]]), np.array([0, 0, 0, 1, 1, 1])
        >>> scores_N = np.array([0.50, 0.53, 0.56, 0.61, 0.62, 0.69])
        >>> risks = round_risks(alphas_NE, scores_N, epoch_N, np.ones((1, 3), dtype=bool))
        >>> round(risks.estimate.sigma, 4), risks.p_confused_E.round(4), risks.p_best_pruned_E.round(4)
        (0.0141, array([0.0871]), array([0.]))
    """
    estimate = estimate_round(alphas_NE, scores_N, epoch_N, live_EK.shape, active_NE)
    stderr_EK = _standard_errors(estimate.sigma, estimate.visits_EK)
    prior = max(estimate.tau, 1e-6 * estimate.sigma) if shrink else math.inf  # the limit of tau -> 0, not 0 / 0
    weight_EK = 1.0 / (1.0 + (stderr_EK / prior) ** 2)
    error_EK = stderr_EK * np.sqrt(weight_EK)
    p_confused_E, p_best_pruned_E = np.full((2, len(live_EK)), np.nan)
    seen_EK = live_EK & (estimate.visits_EK > 0)
    taken_EK = seen_EK if prunable_EK is None else seen_EK & prunable_EK
    for e in np.flatnonzero(taken_EK.any(axis=1) & math.isfinite(estimate.sigma)):
        utility_K, seen, taken = estimate.utility_EK[e], np.flatnonzero(seen_EK[e]), np.flatnonzero(taken_EK[e])
        mu_K, error_K = weight_EK[e] * (utility_K - utility_K[seen].mean()), error_EK[e]
        order = taken[np.argsort(utility_K[taken], kind="stable")]
        p_best_K = least_probabilities(-mu_K[seen], error_K[seen])
        p_best_pruned_E[e] = p_best_K[seen == order[0]].item()
        if len(order) > 1:
            error = math.sqrt(np.mean(error_K[order[:2]] ** 2))
            p_confused_E[e] = confusion(mu_K[order[0]], mu_K[order[1]], error)
    return RoundRisks(p_confused_E, p_best_pruned_E, stderr_EK, estimate)


def fit_deviation(
    alphas_NE: IntArray,
    scores_N: FloatArray,
    round_N: IntArray,
    epoch_N: IntArray,
    *,
    operations: int | None = None,
    active_NE: BoolArray | None = None,
    converged_epoch: float | None = None,
) -> DeviationFit:
    """Fit the deviation function of Corollary 1.1, sigma_t = beta (t* - t) + eta, to the records of a run (Eq. 12).

    Assumed: the model at the head of this file; sigma_t constant within a round; and that a falling sigma_t is the
    convergence that the corollary means. Pruning lowers it too, as fewer choices on the other edges are less noise, and
    a run's records cannot tell the two apart. t* is given, not fitted: another t* moves eta along the same line.

    Args:
        alphas_NE: The run's architectures, shape (N, E).
        scores_N: Their scores, fractions, shape (N,).
        round_N: The round of each, shape (N,).
        epoch_N: The epoch of each, counted over the whole run, shape (N,).
        operations: K; None: the number that occurs.
        active_NE: Edges active in an architecture, shape (N, E); None: all.
        converged_epoch: t*; None: the last epoch recorded.

    Returns:
        The least-squares line with equal weight per round, and its residuals. beta and eta are NaN where fewer than two
        rounds have a sigma.

    Raises:
        ValueError: A mean score outside [-1, 1].
    """
    shape = (alphas_NE.shape[1], int(alphas_NE.max()) + 1 if operations is None else operations)
    end = float(epoch_N.max()) if converged_epoch is None else converged_epoch
    rounds = [np.flatnonzero(round_N == number) for number in np.unique(round_N)]
    estimates = [
        estimate_round(alphas_NE[n], scores_N[n], epoch_N[n], shape, None if active_NE is None else active_NE[n])
        for n in rounds
    ]
    epoch_R = np.array([epoch_N[n].mean() for n in rounds])
    sigma_R = np.array([estimate.sigma for estimate in estimates])
    known_R = np.isfinite(sigma_R)
    beta = eta = math.nan
    if known_R.sum() >= 2:
        design = np.column_stack([end - epoch_R, np.ones_like(epoch_R)])
        beta, eta = (float(x) for x in np.linalg.lstsq(design[known_R], sigma_R[known_R], rcond=None)[0])
    residual_R = sigma_R - (beta * (end - epoch_R) + eta)
    utility_REK = np.stack([estimate.utility_EK for estimate in estimates])
    return DeviationFit(beta, eta, end, epoch_R, sigma_R, residual_R, utility_REK)


def estimate_round(
    alphas_NE: IntArray,
    scores_N: FloatArray,
    epoch_N: IntArray,
    shape: tuple[int, ...],
    active_NE: BoolArray | None = None,
) -> RoundEstimate:
    """Estimate means, and the standard deviation left by main effects of epoch and operation, pooled over the edges.

    On an edge of K operations that each occur once in each of T epochs the residuals have (K - 1)(T - 1) degrees of
    freedom. sigma^2 is the sum of squares of all edges over the sum of their degrees of freedom.

    Args:
        alphas_NE: The round's architectures, shape (N, E).
        scores_N: Their scores, fractions, shape (N,).
        epoch_N: The epoch of each, shape (N,).
        shape: (E, K).
        active_NE: Edges active in an architecture, shape (N, E); None: all.

    Raises:
        ValueError: A mean score outside [-1, 1].
    """
    score_sum_EK, visits_EK = np.zeros(shape), np.zeros(shape, dtype=np.int64)
    freedom_E = np.zeros(shape[0], dtype=np.int64)
    squares = 0.0
    for e in range(shape[0]):
        used = np.arange(len(scores_N)) if active_NE is None else np.flatnonzero(active_NE[:, e])
        alpha_N, y_N = alphas_NE[used, e], scores_N[used]
        np.add.at(score_sum_EK[e], alpha_N, y_N)
        np.add.at(visits_EK[e], alpha_N, 1)
        effects = np.hstack([_indicators(alpha_N), _indicators(epoch_N[used])])
        coefficients, _, rank, _ = np.linalg.lstsq(effects, y_N, rcond=None)
        freedom_E[e] = len(used) - rank
        squares += float(((y_N - effects @ coefficients) ** 2).sum())
    sigma = math.sqrt(squares / freedom_E.sum()) if freedom_E.any() else math.nan
    sigma = sigma if sigma > NO_NOISE else math.nan
    utility_EK = utility(score_sum_EK, visits_EK)
    return RoundEstimate(utility_EK, visits_EK, sigma, _tau(utility_EK, _standard_errors(sigma, visits_EK)), freedom_E)


def _standard_errors(sigma: float, visits_EK: IntArray) -> FloatArray:
    """sigma / sqrt(visits); NaN without a visit."""
    return sigma / np.sqrt(np.where(visits_EK > 0, visits_EK, np.nan))


def _tau(utility_EK: FloatArray, stderr_EK: FloatArray) -> float:
    """Standard deviation of the true means, by moments: an edge's estimates vary by tau^2 plus mean squared error."""
    excess = []
    for utility_K, stderr_K in zip(utility_EK, stderr_EK, strict=True):
        seen_K = ~np.isnan(utility_K)
        if seen_K.sum() > 1:
            excess.append(utility_K[seen_K].var(ddof=1) - (stderr_K[seen_K] ** 2).mean())
    variance = float(np.mean(excess)) if excess else 0.0
    return math.nan if math.isnan(variance) else math.sqrt(max(0.0, variance))


def _indicators(value_N: IntArray) -> FloatArray:
    """One-hot encoding: one column per distinct value."""
    columns: FloatArray = (value_N[:, None] == np.unique(value_N)).astype(np.float64)
    return columns
