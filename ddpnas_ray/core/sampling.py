"""Disjoint sampling (Sec. 3.2, Alg. 1 line 3), independent sampling, and the search's keyed random generators.

Axes: N architectures, E edges, K candidates.
"""

from __future__ import annotations

import numpy as np

from ddpnas_ray.core.space import BoolArray, FloatArray, IntArray


def rng_for(*key: int) -> np.random.Generator:
    """Return a generator that depends only on its key, so that order, restarts and number of workers cannot matter.

    Example:
        >>> bool(rng_for(0, 3, 1).random() == rng_for(0, 3, 1).random())
        True
    """
    return np.random.default_rng(np.random.SeedSequence(key[0], spawn_key=key[1:]))


def disjoint_sample(
    theta_EK: FloatArray, live_EK: BoolArray, rng: np.random.Generator, *, n: int | None = None
) -> IntArray:
    """Draw architectures so that each edge uses its live operations equally often (Sec. 3.2; deviations, rows 2 and 3).

    Each edge draws an order of its live operations without replacement with probabilities theta (Gumbel top-k), and as
    many further orders as it needs for n entries, so that its counts differ by at most one. Then each edge's entries
    are shuffled, and architecture i takes the i-th entry of every edge. Without the shuffle probable operations would
    meet probable ones, and an operation's score would depend on its partners.

    Args:
        theta_EK: Probabilities, shape (E, K).
        live_EK: Operations to draw from, shape (E, K); every edge has at least one.
        rng: Generator for draws and shuffle.
        n: Number of architectures; None: N, the most live operations on any edge.

    Returns:
        The architectures, shape (n, E).

    Example:
        >>> theta_EK = np.full((2, 3), 1 / 3)
        >>> alphas_NE = disjoint_sample(theta_EK, np.ones((2, 3), dtype=bool), np.random.default_rng(0))
        >>> np.sort(alphas_NE, axis=0)
        array([[0, 0],
               [1, 1],
               [2, 2]])
    """
    live_E = live_EK.sum(axis=1)
    if not live_E.all():
        raise ValueError(f"edge {int(live_E.argmin())} has no live operation to draw")
    n = int(live_E.max()) if n is None else n
    # A live operation whose theta underflowed to 0 is drawn last rather than never.
    log_theta_EK = np.log(np.maximum(theta_EK, np.finfo(np.float64).tiny))
    log_theta_EK[~live_EK] = -np.inf
    orders = []
    for _ in range(-(-n // int(live_E.min()))):
        orders.append(np.argsort(-(log_theta_EK + rng.gumbel(size=theta_EK.shape)), axis=1, kind="stable"))
    alphas_NE = np.empty((n, len(live_E)), dtype=np.int64)
    for e, live in enumerate(live_E):
        alphas_NE[:, e] = np.concatenate([order[e, :live] for order in orders])[:n]
    return rng.permuted(alphas_NE, axis=0)


def independent_sample(theta_EK: FloatArray, live_EK: BoolArray, n: int, rng: np.random.Generator) -> IntArray:
    """Draw architectures with independent edges, as policy-based strategies do.

    Args:
        theta_EK: Probabilities, shape (E, K); normalised over live operations.
        live_EK: Operations to draw from, shape (E, K); every edge has at least one.
        n: Number of architectures.
        rng: Generator for the draws.

    Returns:
        The architectures, shape (n, E).
    """
    weights_EK = np.where(live_EK, np.maximum(theta_EK, np.finfo(np.float64).tiny), 0.0)
    bounds_EK = np.cumsum(weights_EK, axis=1)
    drawn_NE1 = rng.random((n, len(theta_EK), 1)) * bounds_EK[:, -1:]
    drawn_NE: IntArray = (drawn_NE1 >= bounds_EK).sum(axis=2)
    return drawn_NE
