"""Whether a search can learn from its data, and whether it did: warnings of one line each."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

MIN_STEPS = 10  # optimiser steps an epoch; the quick start has 11
STANDARD_ERRORS = 3
MARGIN = 0.05  # of the way from chance to a perfect score


def few_steps(examples: int, batch_size: int) -> list[str]:
    """A warning where an epoch has fewer than ten optimiser steps.

    Args:
        examples: Training examples.
        batch_size: Examples a step; an incomplete last batch counts only where it is the only one.

    Example:
        >>> few_steps(719, 64)
        []
        >>> few_steps(25, 512)[0].partition("; ")[2]
        '--set training.batch_size=2 makes 12'
    """
    steps = examples // batch_size or 1
    if examples == 0 or steps >= MIN_STEPS:
        return []
    made = f"training makes {steps} step{'' if steps == 1 else 's'} an epoch ({examples} examples, batch {batch_size})"
    most = examples // MIN_STEPS
    if most < 2:
        return [f"{made}, which may be too few to learn anything; {MIN_STEPS} need at least {2 * MIN_STEPS} examples"]
    batch = 2 ** int(math.log2(most))
    return [
        f"{made}, which may be too few to learn anything; --set training.batch_size={batch} makes {examples // batch}"
    ]


def near_chance(scores: Sequence[float], chance: float, examples: int) -> list[str]:
    """A warning where scores are no better than that of a constant output.

    Near is at most 3 binomial standard errors above chance, or 5 % of the way to a perfect score, whichever is more.

    Args:
        scores: Scores of the last epoch's architectures, fractions; failed ones may be NaN.
        chance: The score of the best constant output, such as the share of the most frequent class.
        examples: Validation examples.

    Example:
        >>> near_chance([0.9], 0.1, 100)
        []
    """
    finite = [score for score in scores if math.isfinite(score)]
    if not finite:
        return []
    mean = float(np.mean(finite))
    error = math.sqrt(max(0.0, chance * (1 - chance)) / examples)
    near = chance + max(STANDARD_ERRORS * error, MARGIN * (1 - chance))
    if near >= 1:
        return [
            f"{examples} validation example{'' if examples == 1 else 's'}, of which a constant output scores "
            f"{chance:.4f}, are too few to tell scores from chance (mean of the last epoch {mean:.4f}); add others"
        ]
    if mean > near:
        return []
    return [
        f"scores are near chance: the last epoch's mean is {mean:.4f}, a constant output scores {chance:.4f}, and up "
        f"to {near:.4f} is no sign of learning; the result means nothing: more steps an epoch (training.batch_size), "
        "another training.lr, or more examples"
    ]
