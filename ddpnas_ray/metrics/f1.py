"""F1: the harmonic mean of precision and recall."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ddpnas_ray.metrics.matthews import confusion

if TYPE_CHECKING:
    from torch import Tensor


def score(outputs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return the F1 of class 1 of two, as GLUE; of more classes the mean over those that occur or were found.

    Args:
        outputs: As of ``confusion``.

    Raises:
        ValueError: There are no batches.
    """
    count = confusion(outputs)
    hits_C, all_C = count.diag().double(), (count.sum(dim=0) + count.sum(dim=1)).double()
    f1_C = 2 * hits_C / all_C.clamp_min(1)
    return float(f1_C[1]) if len(f1_C) == 2 else float(f1_C[all_C > 0].mean())
