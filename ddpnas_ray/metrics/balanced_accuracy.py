"""Balanced accuracy: the mean over classes of the share of their examples that are recognised (mean recall)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def score(outputs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Balanced accuracy over the classes that occur, in [0, 1]: a class counts once, however large it is.

    Args:
        outputs: Of every batch, the logits, shape (B, C), and the class numbers, shape (B,).

    Raises:
        ValueError: There is no batch.
    """
    hits, counts = [], []
    for logits, labels in outputs:
        classes = logits.shape[1]
        hits.append(labels[logits.argmax(dim=1) == labels].bincount(minlength=classes))
        counts.append(labels.bincount(minlength=classes))
    if not counts:
        raise ValueError("balanced accuracy needs at least one batch")
    hits_C, count_C = (sum(parts[1:], start=parts[0]).double() for parts in (hits, counts))
    there = count_C > 0
    return float((hits_C[there] / count_C[there]).mean())
