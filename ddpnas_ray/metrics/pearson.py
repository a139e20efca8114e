"""Pearson's correlation of predicted with true numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def score(outputs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return the correlation, in [-1, 1]; 0 if either side is constant.

    Args:
        outputs: Per batch, the predictions, shape (B, 1), and the numbers, shape (B,).

    Raises:
        ValueError: There are no batches.
    """
    return correlation(*sides(outputs))


def correlation(a_N: np.ndarray, b_N: np.ndarray) -> float:
    """Return the correlation of two arrays, 0 if one is constant."""
    if np.ptp(a_N) == 0 or np.ptp(b_N) == 0:
        return 0.0
    a_N, b_N = a_N - a_N.mean(), b_N - b_N.mean()
    a_N, b_N = a_N / np.linalg.norm(a_N), b_N / np.linalg.norm(b_N)
    return float(np.clip(a_N @ b_N, -1, 1))


def sides(outputs: Iterable[tuple[Tensor, Tensor]]) -> tuple[np.ndarray, np.ndarray]:
    """Return all predictions and all true numbers, each of shape (N,); arguments and errors as of ``score``."""
    pairs = [(found[:, 0].double().cpu().numpy(), true.double().cpu().numpy()) for found, true in outputs]
    if not pairs:
        raise ValueError("a correlation needs at least one batch")
    found_N, true_N = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return found_N, true_N
