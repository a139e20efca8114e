"""Pruning: the prunable operations, and the one that each round prunes per edge (Alg. 1, lines 11-14; Sec. 3.2).

Axes: E edges, K candidates. Arrays may have leading axes, such as one for the replays of a search.
"""

from __future__ import annotations

import numpy as np

from ddpnas_ray.core.space import GROUPS, BoolArray, FloatArray, SearchSpace


def prunable(theta_EK: FloatArray, live_EK: BoolArray, space: SearchSpace, keep_per_group: int) -> BoolArray:
    """Return the live operations that may be pruned.

    Alg. 1 stops at K = 1, Sec. 3.2 keeps one operation of each group. The reading taken (docs/deviations.md): the
    ``keep_per_group`` most probable *selectable* operations of each group are reserved, so ``none`` of the cell space
    is always pruned.

    Args:
        theta_EK: The distribution, shape (E, K).
        live_EK: Operations not pruned yet, shape (E, K).
        space: Defines groups and selectable operations.
        keep_per_group: Operations of each group to keep to the end.

    Returns:
        Mask of shape (E, K).
    """
    reserved_EK = np.zeros(theta_EK.shape, dtype=bool)
    for group in GROUPS:
        candidate_EK = live_EK & space.generable_EK & space.group_EK(group)
        order_EK = np.argsort(np.where(candidate_EK, -theta_EK, np.inf), axis=-1, kind="stable")
        rank_EK = np.argsort(order_EK, axis=-1, kind="stable")
        reserved_EK |= candidate_EK & (rank_EK < keep_per_group)
    return live_EK & ~reserved_EK


def prune(
    theta_EK: FloatArray, live_EK: BoolArray, visited_EK: BoolArray, space: SearchSpace, keep_per_group: int
) -> BoolArray:
    """Prune the least probable prunable operation of every edge that has one (Alg. 1, lines 11-14).

    Args:
        theta_EK: theta_{l+1}, shape (E, K).
        live_EK: Operations not pruned yet, shape (E, K).
        visited_EK: Operations that had a score this round, shape (E, K); others stay.
        space: Defines groups and selectable operations.
        keep_per_group: Operations of each group to keep to the end.

    Returns:
        Operations live afterwards, shape (E, K). Ties prune the smaller index.
    """
    candidate_EK = prunable(theta_EK, live_EK, space, keep_per_group) & visited_EK
    least_E1 = np.where(candidate_EK, theta_EK, np.inf).argmin(axis=-1, keepdims=True)
    after_EK: BoolArray = live_EK & ~(candidate_EK & (np.arange(theta_EK.shape[-1]) == least_E1))
    return after_EK
