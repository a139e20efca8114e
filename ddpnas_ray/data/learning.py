"""Whether a search can learn from its data, and whether it did: warnings of one line each.

Axes: N images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ddpnas_ray.core.space import IntArray
from ddpnas_ray.data.values import ImageData

MIN_STEPS = 10  # optimiser steps an epoch; the quick start has 11
STANDARD_ERRORS = 3
MARGIN = 0.05  # of the way from chance to a perfect score


def early_warnings(data: ImageData | None, batch_size: int) -> list[str]:
    """Warnings that hold before anything is trained; none where scores come from a table (no ``data``)."""
    return [] if data is None else few_steps(len(data.train), batch_size)


def final_warnings(data: ImageData | None, batch_size: int, scores: Sequence[float]) -> list[str]:
    """Those, and what the scores of the last epoch say."""
    return [] if data is None else few_steps(len(data.train), batch_size) + near_chance(scores, data.val.labels_N)


def few_steps(images: int, batch_size: int) -> list[str]:
    """A warning where an epoch has fewer than ten optimiser steps.

    Args:
        images: Training images.
        batch_size: Images a step; an incomplete last batch counts only where it is the only one.

    Example:
        >>> few_steps(719, 64)
        []
        >>> few_steps(25, 512)[0].partition("; ")[2]
        '--set training.batch_size=2 makes 12'
    """
    steps = images // batch_size or 1
    if images == 0 or steps >= MIN_STEPS:
        return []
    made = f"training makes {steps} step{'' if steps == 1 else 's'} an epoch ({images} images, batch {batch_size})"
    most = images // MIN_STEPS
    if most < 2:
        return [f"{made}, which may be too few to learn anything; {MIN_STEPS} need at least {2 * MIN_STEPS} images"]
    batch = 2 ** int(math.log2(most))
    return [
        f"{made}, which may be too few to learn anything; --set training.batch_size={batch} makes {images // batch}"
    ]


def near_chance(scores: Sequence[float], labels_N: IntArray) -> list[str]:
    """A warning where accuracies are no better than always naming the most frequent class.

    Chance is that class's share of the validation images. Near is at most 3 binomial standard errors of it above, or
    5 % of the way to a perfect score, whichever is more.

    Args:
        scores: Accuracies of the last epoch's architectures, fractions; failed ones may be NaN.
        labels_N: Class numbers of the validation images, shape (N,).

    Example:
        >>> near_chance([0.9], np.arange(100) % 10)
        []
    """
    finite = [score for score in scores if math.isfinite(score)]
    n = len(labels_N)
    if not finite or n == 0:
        return []
    chance, mean = float(np.bincount(labels_N).max()) / n, float(np.mean(finite))
    near = chance + max(STANDARD_ERRORS * math.sqrt(chance * (1 - chance) / n), MARGIN * (1 - chance))
    if near >= 1:
        return [
            f"{n} validation image{'' if n == 1 else 's'}, {chance:.1%} of them of one class, are too few to tell "
            f"scores from chance (mean of the last epoch {mean:.4f}); add images of the other classes"
        ]
    if mean > near:
        return []
    return [
        f"scores are near chance: the last epoch's mean is {mean:.4f}, naming the most frequent class scores "
        f"{chance:.4f}, and up to {near:.4f} is no sign of learning; the result means nothing: more steps an epoch "
        "(training.batch_size), another training.lr, or more images"
    ]
