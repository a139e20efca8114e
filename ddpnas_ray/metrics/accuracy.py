"""Accuracy: the share of examples whose label gets the largest output."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def score(outputs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Accuracy, in [0, 1].

    Args:
        outputs: Of every batch, the logits, shape (B, C), and the class numbers, shape (B,).

    Raises:
        ValueError: There is no batch.
    """
    hits, count = None, 0
    for logits, labels in outputs:
        found = (logits.argmax(dim=1) == labels).sum()
        hits = found if hits is None else hits + found  # stays on the device: no wait for each batch
        count += len(labels)
    if hits is None:
        raise ValueError("accuracy needs at least one batch")
    return int(hits) / count
