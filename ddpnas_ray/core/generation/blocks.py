"""Choices of a space's blocks in network generation.

Axes: E edges, K candidates, B edges of a block, C choices of a block, N networks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from ddpnas_ray.core.errors import TooLargeError
from ddpnas_ray.core.space import BoolArray, IntArray, SearchSpace

MAX_CHOICES = 200_000  # of one block


def block_choices(space: SearchSpace, choosable_EK: BoolArray, block: Sequence[int]) -> IntArray:
    """Return all choices of a block, shape (C, B), in lexicographic order.

    Args:
        space: The space; if it has ``inputs``, every choice uses that many edges of the block and leaves out the rest.
        choosable_EK: Operations that a used edge may choose, shape (E, K).
        block: The block's edges.

    Raises:
        TooLargeError: There are more than ``MAX_CHOICES``.
    """
    options = [np.flatnonzero(choosable_EK[e]) for e in block]
    if space.inputs is None:
        used_sets = [tuple(range(len(block)))]
    else:
        used_sets = list(itertools.combinations(range(len(block)), space.inputs))
    absent = [left_out(space, e) for e in block]
    count = sum(math.prod(len(options[i]) for i in used) for used in used_sets)
    if count > MAX_CHOICES:
        raise TooLargeError(f"a block of space {space.name!r} has {count:,} choices; at most {MAX_CHOICES:,} are tried")
    rows = [
        [ks[used.index(i)] if i in used else absent[i] for i in range(len(block))]
        for used in used_sets
        for ks in itertools.product(*(options[i] for i in used))
    ]
    return np.array(sorted(rows), dtype=np.int64).reshape(-1, len(block))


def networks(space: SearchSpace, choices: Sequence[IntArray], numbers_N: IntArray) -> IntArray:
    """Return the networks with the given numbers, shape (N, E), counting with the first block slowest.

    Args:
        space: The space.
        choices: Choices of each block, each of shape (C, B).
        numbers_N: From 0 to the product of all C, exclusive.
    """
    alphas_NE = np.zeros((len(numbers_N), len(space.edges)), dtype=np.int64)
    chosen = np.unravel_index(numbers_N, [len(alphas_CB) for alphas_CB in choices])
    for block, alphas_CB, choice_N in zip(space.blocks, choices, chosen, strict=True):
        alphas_NE[:, list(block)] = alphas_CB[choice_N]
    return alphas_NE


def left_out(space: SearchSpace, edge: int) -> int:
    """Return the candidate that marks an edge as unused by a generated network; -1 where there is none."""
    return next((k for k, op in enumerate(space.edges[edge].candidates) if not op.generable), -1)
