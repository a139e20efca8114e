"""Likelihood: the geometric mean of the probabilities of the true classes, which moves with every logit.

Accuracy only counts which class is first: among networks with scores that are close, or little trained, it is noisier.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def score(outputs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return exp(-mean cross-entropy), in [0, 1]; as good as guessing is 1 / C.

    Args:
        outputs: Per batch, the logits, shape (B, C), and the class numbers, shape (B,).

    Raises:
        ValueError: There are no batches.
    """
    total, count = None, 0
    for logits, labels in outputs:
        log_p_B = logits.double().log_softmax(dim=1).gather(1, labels[:, None])
        total = log_p_B.sum() if total is None else total + log_p_B.sum()  # stays on the device: no sync per batch
        count += len(labels)
    if total is None:
        raise ValueError("likelihood needs at least one batch")
    return math.exp(float(total) / count)
