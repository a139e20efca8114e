"""One-line warnings when a search is unlikely to learn, or has not learned."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

MIN_STEPS = 10  # optimiser steps per epoch; the quick start has 11
STANDARD_ERRORS = 3
MARGIN = 0.05  # of the way from chance to a perfect score


def few_steps(examples: int, batch_size: int) -> list[str]:
    """Warn if an epoch has fewer than ten optimiser steps.

    Args:
        examples: Training examples.
        batch_size: Examples per step; an incomplete last batch counts only if it is the only one.

    Example:
        >>> few_steps(719, 64)
        []
        >>> few_steps(25, 512)[0].partition("; ")[2]
        '--set training.batch_size=2 makes 12'
    """
    steps = examples // batch_size or 1
    if examples == 0 or steps >= MIN_STEPS:
        return []
    made = f"training makes {steps} step{'' if steps == 1 else 's'} per epoch ({examples} examples, batch {batch_size})"
    most = examples // MIN_STEPS
    if most < 2:
        return [f"{made}, which may be too few to learn anything; {MIN_STEPS} need at least {2 * MIN_STEPS} examples"]
    batch = 2 ** int(math.log2(most))
    return [
        f"{made}, which may be too few to learn anything; --set training.batch_size={batch} makes {examples // batch}"
    ]


def near_chance(scores: Sequence[float], chance: float, examples: int) -> list[str]:
    """Warn if scores are no better than those of a constant output.

    Near means at most 3 binomial standard errors above chance, or 5 % of the way to a perfect score, whichever is more.

    Args:
        scores: Scores of the last epoch's architectures, fractions; NaN where an evaluation failed.
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
            f"{examples} validation example{'' if examples == 1 else 's'}, on which a constant output scores "
            f"{chance:.4f}, are too few to tell scores from chance (mean of the last epoch {mean:.4f}); add more"
        ]
    if mean > near:
        return []
    return [
        f"scores are near chance: the last epoch's mean is {mean:.4f}, a constant output scores {chance:.4f}, and up "
        f"to {near:.4f} is no sign of learning; the result is meaningless: try more steps per epoch "
        "(training.batch_size), another training.lr, or more examples"
    ]
