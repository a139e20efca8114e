"""The search state: theta, momentum, live operations, and every record so far.

Axes: E edges, K candidates of the widest edge, R rounds so far.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from ddpnas_ray.core.space import BoolArray, FloatArray, IntArray, SearchSpace


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A recorded request with its result; ``score`` is the value that entered P (Eq. 2)."""

    round: int
    epoch: int
    architecture: int
    alpha_E: tuple[int, ...]
    split: str
    score: float
    loss: float
    trained: bool
    ok: bool
    seconds: float
    worker: str
    node: str
    start_s: float | None = None  # records of earlier versions lack these four
    train_s: float = 0.0
    validate_s: float = 0.0
    device: str = ""


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """Outcome of one round; one row per edge and operation in ``theta.parquet``. All arrays have shape (E, K)."""

    round: int
    theta_EK: FloatArray
    utility_EK: FloatArray
    momentum_EK: FloatArray
    live_EK: BoolArray
    pruned_at_EK: IntArray


@dataclass(frozen=True, slots=True)
class SearchState:
    """Everything the strategy knows between two epochs. A checkpoint is this value and the weights.

    Args:
        seed: Keys every draw of the search.
        round: l: rounds finished.
        epoch: t: epochs finished, over the whole search.
        theta_EK: The distribution; rows sum to 1 over existing candidates, padding is 0.
        momentum_EK: V of Eq. 4.
        live_EK: Candidates not pruned yet.
        pruned_at_EK: The round that pruned a candidate, -1 if not pruned.
        score_sum_EK: P of Eq. 2, summed over the running round.
        visits_EK: Number of scores in that sum.
        evaluations: Every recorded evaluation, in order.
        history: One record per finished round.
    """

    seed: int
    round: int
    epoch: int
    theta_EK: FloatArray
    momentum_EK: FloatArray
    live_EK: BoolArray
    pruned_at_EK: IntArray
    score_sum_EK: FloatArray
    visits_EK: IntArray
    evaluations: tuple[Evaluation, ...] = field(default=(), repr=False)
    history: tuple[RoundRecord, ...] = field(default=(), repr=False)

    def round_is_full(self, epochs_per_round: int) -> bool:
        """Return whether the running round has had its T epochs (Alg. 1, line 2)."""
        return self.epoch >= (self.round + 1) * epochs_per_round


def initial_state(space: SearchSpace, seed: int) -> SearchState:
    """Return the first state: theta uniform over each edge's candidates, V_0 zero (Sec. 3.2), nothing pruned."""
    exists_EK = space.exists_EK
    return SearchState(
        seed=seed,
        round=0,
        epoch=0,
        theta_EK=exists_EK / exists_EK.sum(axis=1, keepdims=True),
        momentum_EK=np.zeros(space.shape),
        live_EK=exists_EK.copy(),
        pruned_at_EK=np.full(space.shape, -1, dtype=np.int64),
        score_sum_EK=np.zeros(space.shape),
        visits_EK=np.zeros(space.shape, dtype=np.int64),
    )


def entropy(theta_EK: FloatArray, kept_EK: BoolArray, exists_EK: BoolArray) -> float:
    """Average over edges the entropy of theta on kept operations, relative to a uniform choice among all.

    Args:
        theta_EK: The distribution of each edge.
        kept_EK: Operations to include: all, or the live ones.
        exists_EK: Real candidates; edges with a single one are skipped.

    Example:
        >>> exists_EK = np.ones((1, 4), dtype=bool)
        >>> entropy(np.full((1, 4), 0.25), np.array([[True, True, False, False]]), exists_EK)
        0.5
    """
    shares = []
    for theta_K, kept_K, exists_K in zip(theta_EK, kept_EK, exists_EK, strict=True):
        if (count := int(exists_K.sum())) < 2:
            continue
        p = theta_K[kept_K & (theta_K > 0)]
        p = p / p.sum() if len(p) else p
        shares.append(float(-(p * np.log(p)).sum()) / math.log(count))
    return math.fsum(shares) / len(shares) if shares else 0.0
