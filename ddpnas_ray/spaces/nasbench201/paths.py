"""Paths through the cell: what a network computes, whichever edges compute it.

After the path encoding of White et al., "BANANAS", 2021.

Axes: N architectures, E edges, F features.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from ddpnas_ray.core.space import FloatArray, IntArray
from ddpnas_ray.spaces.nasbench201.costs import EDGES, NODES, OPERATIONS

PATHS = tuple(  # from the cell's input to its output, as edges
    tuple(EDGES.index(edge) for edge in zip((0, *via), (*via, NODES - 1), strict=True))
    for count in range(NODES - 1)
    for via in combinations(range(1, NODES - 1), count)
)
COMPUTES = np.array([name not in ("none", "skip_connect") for name in OPERATIONS])
LETTERS = COMPUTES * COMPUTES.cumsum()  # of a word; 0: none
BASE = int(LETTERS.max()) + 1


def embed(alphas_NE: IntArray) -> FloatArray:
    """Which sequences of operations the paths of a cell apply, whichever and however many they are.

    A ``skip_connect`` applies nothing, and a path with ``none`` does not exist. A sequence that one of two networks
    lacks counts as two edges that differ; see ``SearchSpace.embedding``.

    Returns:
        Shape (N, F): sqrt(2) where a path applies the sequence, else 0.

    Example:
        >>> skips, fewer, conv = np.full(6, 1), np.array([1, 1, 0, 0, 1, 1]), np.array([1, 1, 1, 2, 1, 1])
        >>> first, *others = embed(np.array([skips, fewer, conv]))
        >>> [round(float(np.square(first - other).sum())) for other in others]
        [0, 2]
    """
    found_NF = np.zeros((len(alphas_NE), BASE ** max(map(len, PATHS))))
    rows = np.arange(len(alphas_NE))
    for path in PATHS:
        word_N = np.zeros(len(alphas_NE), dtype=np.int64)
        for edge in path:
            letter_N = LETTERS[alphas_NE[:, edge]]
            word_N = np.where(letter_N > 0, word_N * BASE + letter_N, word_N)
        exists_N = (alphas_NE[:, path] != OPERATIONS.index("none")).all(axis=1)
        found_NF[rows, word_N] = np.maximum(found_NF[rows, word_N], exists_N)
    return np.sqrt(2.0) * found_NF
