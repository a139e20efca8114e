"""Mean intersection over union (mIoU): of every class, the pixels found rightly over those found or true."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ddpnas_ray.metrics.matthews import confusion

if TYPE_CHECKING:
    from torch import Tensor


def score(outputs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return the mean over classes, in [0, 1]; classes that neither occur nor were found are left out.

    Args:
        outputs: As of ``confusion``.

    Raises:
        ValueError: There are no batches, or nothing to score in them.
    """
    found = by_class(confusion(outputs))
    if not found:
        raise ValueError("miou needs at least one label")
    return sum(found.values()) / len(found)


def by_class(count_CC: Tensor) -> dict[int, float]:
    """Return the intersection over union of every class that occurs or was found, by its number.

    Args:
        count_CC: Examples by true and by found class, shape (C, C).

    Example:
        >>> import torch
        >>> by_class(torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
        {0: 0.75, 1: 0.8}
    """
    both_C = count_CC.diag().tolist()
    either_C = (count_CC.sum(dim=0) + count_CC.sum(dim=1) - count_CC.diag()).tolist()
    return {i: both / either for i, (both, either) in enumerate(zip(both_C, either_C, strict=True)) if either}
