"""Matthews' correlation coefficient: labels and found classes as two variables, of two or more classes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def score(outputs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return the coefficient, in [-1, 1]; 0 if all labels, or all found classes, are one class.

    Args:
        outputs: As of ``confusion``.

    Raises:
        ValueError: There are no batches.
    """
    count = confusion(outputs)
    true_C, found_C = (count.sum(dim=axis).tolist() for axis in (1, 0))  # Python's integers do not overflow
    n = sum(true_C)
    together = n * sum(count.diag().tolist()) - sum(t * f for t, f in zip(true_C, found_C, strict=True))
    spread = (n * n - sum(t * t for t in true_C)) * (n * n - sum(f * f for f in found_C))
    return max(-1.0, min(1.0, together / math.sqrt(spread))) if spread else 0.0


def confusion(outputs: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Count the examples, or pixels, by true and by found class, shape (C, C).

    Args:
        outputs: Per batch, the logits, shape (B, C, ...), and the class numbers, shape (B, ...), of which those outside
            of 0 to C - 1 are not counted; or the counts of a batch already, integers of shape (C, C), and anything.

    Raises:
        ValueError: There are no batches.
    """
    count = None
    for logits, labels in outputs:
        pairs_CC = counted(logits, labels) if logits.is_floating_point() else logits
        count = pairs_CC if count is None else count + pairs_CC
    if count is None:
        raise ValueError("a score of classes needs at least one batch")
    return count


def counted(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the counts of one batch; see ``confusion``."""
    classes = logits.shape[1]
    pairs = labels * classes + logits.argmax(dim=1)
    pairs = pairs.where((labels >= 0) & (labels < classes), classes**2)
    return pairs.flatten().bincount(minlength=classes**2 + 1)[:-1].reshape(classes, classes)
