"""Probability that a round prunes the wrong operation: Theorems 2 and 3 (Eq. 13-18), exactly and as printed.

Each operation of an edge draws its score from a Gaussian of its own mean; the standard deviation is shared, the draws
are independent, and the least draw is pruned. ``risks.py`` estimates means and sigma from the records of a run.

Where print and model differ, each function says which it follows:

- sigma_t is a variance in Eq. 11 and 12 ("a variance sigma_t") and a standard deviation in Eq. 13-18: the latter here.
- delta_t = zeta_t / K (Theorem 2) is called the average distance, but K means that span zeta_t have K - 1 gaps.
  Also, the two worst may be closer than the average, and then Theorem 3 does not bound their confusion.
- Eq. 17 sums over n = 1..K; the worst of K operations has K - 1 competitors. Its "<" is "=" at K = 1.
- Sec. 4.3 prints P(X < mu + K C sigma) as the probability to prune the best operation *incorrectly*; to keep it is
  meant. It compares one draw with a fixed threshold, and best and worst are only (K - 1) C sigma apart.

Axes: K operations of an edge, N simulated rounds, P pairs of operations, Q nodes of the quadrature.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.core.space import FloatArray

REACH = 9  # standard deviations; beyond lies 1e-19
NODES = 12  # per panel; panels are at most one standard deviation long wherever an integrand bends


def confusion(mu_0: float, mu_1: float, sigma: float) -> float:
    """Compute P(xi_1 < xi_0) for two independent Gaussians of equal variance (Theorem 2, Eq. 13-14), exactly.

    Args:
        mu_0: Mean score of the worst operation.
        mu_1: Mean score of the second worst; below ``mu_0`` it gives more than 1/2.
        sigma: Standard deviation of either, in the unit of the scores; of a mean of n scores it is sigma / sqrt(n).

    Returns:
        The normal distribution function at -(mu_1 - mu_0) / (sqrt(2) sigma).

    Raises:
        ValueError: ``sigma`` is not positive.

    Example:
        >>> round(confusion(mu_0=0.50, mu_1=0.52, sigma=0.01), 4)
        0.0786
    """
    _positive(sigma=sigma)
    return float(ndtr(-(mu_1 - mu_0) / (math.sqrt(2.0) * sigma)))


def confusion_as_printed(spread: float, sigma: float, operations: int) -> float:
    """Compute Theorem 2 as printed: the two worst are assumed delta_t = zeta_t / K apart, whatever their means are.

    Args:
        spread: zeta_t, the largest mean minus the smallest, in the unit of the scores.
        sigma: sigma_t, as a standard deviation, in the same unit.
        operations: K.

    Returns:
        More than ``confusion`` of equally spaced means, whose gap is zeta_t / (K - 1); less than it where the two worst
        are closer than zeta_t / K.

    Raises:
        ValueError: An argument is not positive.

    Example:
        >>> round(confusion_as_printed(spread=0.07, sigma=0.01, operations=8), 4)
        0.2681
        >>> round(confusion(0.0, 0.01, sigma=0.01), 4)  # the gap is 0.07 / 7
        0.2398
    """
    _positive(spread=spread, operations=operations)
    return confusion(0.0, spread / operations, sigma)


def pair_bound(delta: float, sigma: float) -> float:
    """Compute (sigma_t / delta_t)^2, Chebyshev's bound on ``confusion`` (Eq. 16).

    Half of Chebyshev's 2 sigma^2 / delta^2, since the difference of two Gaussians is symmetric.

    Args:
        delta: delta_t, the gap of the two means, in the unit of the scores.
        sigma: sigma_t, as a standard deviation, in the same unit.

    Returns:
        The raw value: vacuous from 1 on. (In fact from 1/2 on: no gap confuses more often.)

    Raises:
        ValueError: An argument is not positive.

    Example:
        >>> pair_bound(delta=0.02, sigma=0.01)
        0.25
    """
    _positive(delta=delta, sigma=sigma)
    return (sigma / delta) ** 2


def error_bound(delta: float, sigma: float, operations: int) -> float:
    """Compute (sigma_t / delta_t)^2 (2 - 1/K), the printed bound on a round's error rate (Eq. 17).

    An error prunes an operation other than the truly worst one. The bound sums Eq. 16 over the other operations, so it
    holds where the n-th worst mean lies at least n delta_t above the worst.

    Args:
        delta: delta_t; zeta_t / K in print.
        sigma: sigma_t, as a standard deviation, in the same unit.
        operations: K.

    Returns:
        The raw value: vacuous from 1 on.

    Raises:
        ValueError: An argument is not positive.

    Example:
        >>> error_bound(delta=0.04, sigma=0.01, operations=8)
        0.1171875
    """
    _positive(operations=operations)
    return pair_bound(delta, sigma) * (2.0 - 1.0 / operations)


def error_bound_in_epochs(spread: float, operations: int, *, beta: float, epochs_left: float, eta: float) -> float:
    """Compute 2 (K (beta Delta_t + eta) / zeta_t)^2, Theorem 3 as printed (Eq. 15 and 18).

    Eq. 17 with sigma_t = beta Delta_t + eta (Corollary 1.1), delta_t = zeta_t / K, and 2 for 2 - 1/K.

    Args:
        spread: zeta_t, the largest mean minus the smallest, in the unit of the scores.
        operations: K.
        beta: Growth of the standard deviation per epoch; a fit may be negative.
        epochs_left: Delta_t = t* - t.
        eta: Standard deviation at convergence.

    Returns:
        The raw value: vacuous from 1 on.

    Raises:
        ValueError: ``spread``, ``operations`` or beta Delta_t + eta is not positive.

    Example:
        >>> round(error_bound_in_epochs(spread=0.4, operations=8, beta=0.001, epochs_left=5, eta=0.005), 4)
        0.08
    """
    sigma = beta * epochs_left + eta
    _positive(spread=spread, operations=operations, sigma=sigma)
    return 2.0 * (operations * sigma / spread) ** 2


def least_probabilities(mu_K: FloatArray, sigma_K: FloatArray | float) -> FloatArray:
    """Compute for each of K independent Gaussians the probability that its draw is the least, and so pruned.

    P(k) is the integral of k's density times the probability that each other draw lies above, in Gauss-Legendre panels
    between all mu + m sigma, m = -9..9. The absolute error is below 1e-12, except for standard deviations below a
    thousandth of the means.

    Args:
        mu_K: Means, shape (K,).
        sigma_K: Standard deviations, shape (K,) or one for all; of a mean score, its standard error.

    Returns:
        Probabilities that sum to 1, shape (K,).

    Raises:
        ValueError: No operation, a mean that is not finite or a standard deviation that is not positive.

    Example:
        >>> least_probabilities(np.array([0.0, 0.41, 0.82]), 1.0).round(4)
        array([0.511 , 0.3111, 0.1779])
    """
    sigma_K = np.broadcast_to(np.asarray(sigma_K, dtype=np.float64), mu_K.shape)
    if mu_K.size == 0 or not (np.isfinite(mu_K).all() and np.isfinite(sigma_K).all() and (sigma_K > 0).all()):
        raise ValueError(f"means must be finite and sigmas positive, got {mu_K.tolist()} and {sigma_K.tolist()}")
    edges = np.unique(mu_K[:, None] + sigma_K[:, None] * np.arange(-REACH, REACH + 1))
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    middle, half = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
    x_Q, weight_Q = (middle[:, None] + half[:, None] * nodes).ravel(), (half[:, None] * weights).ravel()
    z_KQ = (x_Q - mu_K[:, None]) / sigma_K[:, None]
    density_KQ = np.exp(-0.5 * z_KQ**2) / (math.sqrt(2.0 * math.pi) * sigma_K[:, None])
    above_KQ = ndtr(-z_KQ)
    others_KQ = np.stack([np.delete(above_KQ, k, axis=0).prod(axis=0) for k in range(len(mu_K))])
    least_K: FloatArray = (density_KQ * others_KQ) @ weight_Q
    return least_K


def p_best_pruned(mu_K: FloatArray, sigma_K: FloatArray | float) -> float:
    """Compute the probability that the operation of the highest mean is pruned; see ``least_probabilities``.

    Example:
        >>> round(p_best_pruned(0.41 * np.arange(8), 1.0), 4)
        0.002
    """
    return float(least_probabilities(mu_K, sigma_K)[mu_K.argmax()])


def p_worst_kept(mu_K: FloatArray, sigma_K: FloatArray | float) -> float:
    """Compute the probability that the operation of the lowest mean is not pruned: the error that Theorem 3 bounds.

    Example:
        >>> round(p_worst_kept(0.41 * np.arange(8), 1.0), 4)
        0.5501
    """
    return float(np.delete(least_probabilities(mu_K, sigma_K), mu_K.argmin()).sum())


@dataclass(frozen=True, slots=True)
class Toy:
    """Outcome of ``toy_experiment``; fields ending in ``_exact`` are computed, their namesakes simulated.

    Args:
        kendall_tau: Mean of Kendall's tau between scores and true order.
        p_best_pruned: Probability that the best of the K operations is pruned.
        p_worst_kept: Probability that the worst is not pruned.
        p_best_kept_as_printed: P(X < mu + K C sigma), a normal distribution function at K C.
    """

    kendall_tau: float
    kendall_tau_exact: float
    p_best_pruned: float
    p_best_pruned_exact: float
    p_worst_kept: float
    p_worst_kept_exact: float
    p_best_kept_as_printed: float


def toy_experiment(
    *, operations: int = 8, spacing: float = 0.41, visits: int = 1, samples: int = 10_000, seed: int = 0
) -> Toy:
    """Run the toy example of Sec. 4.3: K Gaussians with means C sigma apart, ranked by one draw or a mean of several.

    Args:
        operations: K; 8 in print (K C = 3.28).
        spacing: C, in standard deviations of one score.
        visits: Scores averaged per operation (T epochs); 1 in print.
        samples: Rounds to simulate.
        seed: Keys the draws.

    Returns:
        Simulated figures beside exact ones.

    Raises:
        ValueError: Fewer than two operations, no visit or sample, or a spacing that is not positive.

    Example:
        >>> toy = toy_experiment()
        >>> round(toy.kendall_tau_exact, 4), round(1 - toy.p_best_pruned_exact, 4)
        (0.5596, 0.998)
    """
    if operations < 2 or visits < 1 or samples < 1:
        raise ValueError(f"at least 2 operations, 1 visit and 1 sample, got {operations}, {visits} and {samples}")
    _positive(spacing=spacing)
    mu_K: FloatArray = spacing * np.arange(operations, dtype=np.float64)
    stderr = 1.0 / math.sqrt(visits)
    scores_NK = mu_K + stderr * rng_for(seed).standard_normal((samples, operations))
    lower_P, upper_P = np.triu_indices(operations, 1)
    reversed_P = ndtr(-(mu_K[upper_P] - mu_K[lower_P]) / (math.sqrt(2.0) * stderr))
    pruned_N = scores_NK.argmin(axis=1)
    return Toy(
        kendall_tau=float(np.sign(scores_NK[:, upper_P] - scores_NK[:, lower_P]).mean()),
        kendall_tau_exact=float(1.0 - 2.0 * reversed_P.mean()),
        p_best_pruned=float((pruned_N == operations - 1).mean()),
        p_best_pruned_exact=p_best_pruned(mu_K, stderr),
        p_worst_kept=float((pruned_N != 0).mean()),
        p_worst_kept_exact=p_worst_kept(mu_K, stderr),
        p_best_kept_as_printed=float(ndtr(operations * spacing)),
    )


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value:g}")
