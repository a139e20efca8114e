"""Spearman's rank correlation of predicted with true numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ddpnas_ray.metrics.pearson import correlation, sides

if TYPE_CHECKING:
    from torch import Tensor


def score(outputs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return the correlation of the ranks, in [-1, 1], equal numbers having their mean rank; 0 if a side is constant.

    Args:
        outputs: Per batch, the predictions, shape (B, 1), and the numbers, shape (B,).

    Raises:
        ValueError: There are no batches.
    """
    from scipy.stats import rankdata

    return correlation(*map(rankdata, sides(outputs)))
