"""Balanced accuracy: mean recall over classes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def score(outputs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return the mean recall of the classes that occur, in [0, 1]; classes have equal weight, whatever their size.

    Args:
        outputs: Per batch, the logits, shape (B, C), and the class numbers, shape (B,).

    Raises:
        ValueError: There are no batches.
    """
    hits, counts = [], []
    for logits, labels in outputs:
        classes = logits.shape[1]
        hits.append(labels[logits.argmax(dim=1) == labels].bincount(minlength=classes))
        counts.append(labels.bincount(minlength=classes))
    if not counts:
        raise ValueError("balanced accuracy needs at least one batch")
    hits_C, count_C = (sum(parts[1:], start=parts[0]).double() for parts in (hits, counts))
    present = count_C > 0
    return float((hits_C[present] / count_C[present]).mean())
