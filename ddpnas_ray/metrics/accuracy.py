"""Accuracy: the fraction of examples whose label has the largest logit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def score(outputs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return the accuracy, in [0, 1].

    Args:
        outputs: Per batch, the logits, shape (B, C), and the class numbers, shape (B,).

    Raises:
        ValueError: There are no batches.
    """
    hits, count = None, 0
    for logits, labels in outputs:
        found = (logits.argmax(dim=1) == labels).sum()
        hits = found if hits is None else hits + found  # stays on the device: no sync per batch
        count += len(labels)
    if hits is None:
        raise ValueError("accuracy needs at least one batch")
    return int(hits) / count
