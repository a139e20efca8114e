"""Momentum and theta (Eq. 4-5).

Axes: E edges, K candidates. Arrays may have leading axes, such as one for the replays of a search.
"""

from __future__ import annotations

import numpy as np

from ddpnas_ray.core.space import BoolArray, FloatArray, SearchSpace
from ddpnas_ray.core.state import SearchState


def update(
    state: SearchState, utility_EK: FloatArray, space: SearchSpace, gamma: float
) -> tuple[FloatArray, FloatArray]:
    """Return one round's new momentum and distribution, each of shape (E, K) (Eq. 4, then Eq. 5)."""
    momentum_EK = momentum(state.momentum_EK, utility_EK, state.live_EK, gamma)
    return momentum_EK, distribution(state.theta_EK, momentum_EK, space.exists_EK)


def masked_softmax(x_EK: FloatArray, mask_EK: BoolArray) -> FloatArray:
    """Compute the softmax of every row over masked-in entries; 0 elsewhere, and in rows whose mask is empty.

    Example:
        >>> masked_softmax(np.array([[0.0, 0.0, 9.0]]), np.array([[True, True, False]]))
        array([[0.5, 0.5, 0. ]])
    """
    filled_EK = np.where(mask_EK, x_EK, -np.inf)
    top_E1 = np.max(filled_EK, axis=-1, keepdims=True)
    exp_EK = np.exp(filled_EK - np.where(np.isfinite(top_E1), top_E1, 0.0))
    total_E1 = exp_EK.sum(axis=-1, keepdims=True)
    share_EK: FloatArray = np.divide(exp_EK, total_E1, out=np.zeros_like(exp_EK), where=total_E1 > 0)
    return share_EK


def fill_unvisited(utility_EK: FloatArray, live_EK: BoolArray) -> FloatArray:
    """Assign the edge's mean utility to live operations that no architecture visited this round.

    An edge without any visit gets 0 everywhere, which Eq. 4 turns into equal shares.
    """
    seen_EK = live_EK & ~np.isnan(utility_EK)
    count_E1 = seen_EK.sum(axis=-1, keepdims=True)
    total_E1 = np.where(seen_EK, utility_EK, 0.0).sum(axis=-1, keepdims=True)
    mean_E1 = np.divide(total_E1, count_E1, out=np.zeros_like(total_E1), where=count_E1 > 0)
    return np.where(seen_EK, utility_EK, mean_E1)


def momentum(momentum_EK: FloatArray, utility_EK: FloatArray, live_EK: BoolArray, gamma: float) -> FloatArray:
    """V <- gamma V + (1 - gamma) softmax(utility), the softmax over the edge's live operations (Eq. 4).

    In print the denominator sums over j but shows k; the sum over the operations is meant. A pruned operation's softmax
    is 0, so its momentum becomes gamma V.

    Args:
        momentum_EK: V_l, shape (E, K).
        utility_EK: P-bar of the round, shape (E, K); NaN where a live operation had no visit.
        live_EK: Operations not pruned yet, shape (E, K).
        gamma: Momentum in [0, 1).

    Returns:
        V_{l+1}, shape (E, K).

    Example:
        >>> momentum(np.array([[0.2, 0.0]]), np.array([[0.7, 0.7]]), np.array([[True, True]]), gamma=0.5)
        array([[0.35, 0.25]])
    """
    return gamma * momentum_EK + (1.0 - gamma) * masked_softmax(fill_unvisited(utility_EK, live_EK), live_EK)


def distribution(theta_EK: FloatArray, momentum_EK: FloatArray, exists_EK: BoolArray) -> FloatArray:
    """theta <- softmax(theta + V) over all operations that exist on the edge, pruned ones included (Eq. 5, Fig. 4).

    Args:
        theta_EK: theta_l, shape (E, K).
        momentum_EK: V_{l+1}, shape (E, K).
        exists_EK: Real candidates, shape (E, K); padding gets 0.

    Returns:
        theta_{l+1}, shape (E, K); rows sum to 1.
    """
    return masked_softmax(theta_EK + momentum_EK, exists_EK)
