"""F1: the harmonic mean of precision and recall."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def score(outputs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return the F1 of class 1 of two, as GLUE; of more classes the mean over those that occur or were found.

    Args:
        outputs: Per batch, the logits, shape (B, C), and the class numbers, shape (B,).

    Raises:
        ValueError: There are no batches.
    """
    count = None
    for logits, labels in outputs:
        classes = logits.shape[1]
        pairs_CC = (labels * classes + logits.argmax(dim=1)).bincount(minlength=classes**2).reshape(classes, classes)
        count = pairs_CC if count is None else count + pairs_CC
    if count is None:
        raise ValueError("F1 needs at least one batch")
    hits_C, all_C = count.diag().double(), (count.sum(dim=0) + count.sum(dim=1)).double()
    f1_C = 2 * hits_C / all_C.clamp_min(1)
    return float(f1_C[1]) if len(f1_C) == 2 else float(f1_C[all_C > 0].mean())
