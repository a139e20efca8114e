"""Spearman's rank correlation of predicted with true numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from ddpnas_ray.metrics.pearson import correlation

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

    pairs = [(found[:, 0].double().cpu().numpy(), true.double().cpu().numpy()) for found, true in outputs]
    if not pairs:
        raise ValueError("a correlation needs at least one batch")
    return correlation(*(rankdata(np.concatenate(side)) for side in zip(*pairs, strict=True)))
