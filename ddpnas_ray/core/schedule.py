"""Planned cost of a search: Algorithm 1 as we run it, and Eq. 19 as printed.

The two differ on purpose. Algorithm 1 with one operation of each group kept ends with two live operations per edge and
does not train them again (the paper's "less than 100 epochs"); Eq. 19 sums down to k = 2.
"""

from __future__ import annotations

import numpy as np

from ddpnas_ray.core.space import GROUPS, SearchSpace


def architectures_by_round(space: SearchSpace, keep_per_group: int) -> list[int]:
    """Return N of every round: the most live operations on any edge, until nothing is prunable.

    theta decides which operations are pruned, but not how many: of an edge's group of g selectable operations
    min(g, keep_per_group) stay, and all others are pruned, one per round, if every edge is visited in every round.

    Example:
        >>> from ddpnas_ray.core.space import Edge, Op
        >>> groups = 4 * ["parameter"] + 4 * ["non_parameter"]
        >>> ops = tuple(Op(f"op{i}", group) for i, group in enumerate(groups))
        >>> architectures_by_round(SearchSpace("cell", (Edge("e", ops),), ((0,),)), keep_per_group=1)
        [8, 7, 6, 5, 4, 3]
    """
    live_E = space.exists_EK.sum(axis=1)
    kept_E = np.zeros_like(live_E)
    for group in GROUPS:
        kept_E += np.minimum((space.generable_EK & space.group_EK(group)).sum(axis=1), keep_per_group)
    rounds = []
    while (live_E > kept_E).any():
        rounds.append(int(live_E.max()))
        live_E = np.where(live_E > kept_E, live_E - 1, live_E)
    return rounds


def planned_epochs(space: SearchSpace, keep_per_group: int, epochs_per_round: int) -> int:
    """Return the epochs t of a whole search, the length of the cosine schedule."""
    return len(architectures_by_round(space, keep_per_group)) * epochs_per_round


def planned_architecture_epochs(space: SearchSpace, keep_per_group: int, epochs_per_round: int) -> int:
    """Return the architecture-epochs of a whole search: 99 in the cell space with T = 3."""
    return sum(architectures_by_round(space, keep_per_group)) * epochs_per_round


def complexity(operations: int, epochs_per_round: int) -> int:
    """Evaluate Eq. 19 literally: T * sum_{k=2}^{K} k = T (K + 2)(K - 1) / 2.

    Args:
        operations: K.
        epochs_per_round: T.

    Example:
        >>> complexity(operations=8, epochs_per_round=3)
        105
    """
    return epochs_per_round * (operations + 2) * (operations - 1) // 2
