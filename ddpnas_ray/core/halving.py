"""Successive halving: train many networks a little, keep the better part, train those longer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ddpnas_ray.core.errors import DivergedError


@dataclass(frozen=True, slots=True)
class Rung:
    """A step of successive halving: this many networks are trained up to this many epochs."""

    networks: int
    epochs: int


def rungs(networks: int, epochs: int, first_epochs: int, eta: int) -> tuple[Rung, ...]:
    """Return the rungs; at least two networks reach the last one, which compares them after the whole recipe.

    Args:
        networks: Networks of the first rung.
        epochs: Epochs of the last rung.
        first_epochs: Epochs of the first rung.
        eta: Each rung trains to eta times the epochs of the one before, and keeps one of eta networks.

    Example:
        >>> rungs(networks=8, epochs=12, first_epochs=3, eta=2)
        (Rung(networks=8, epochs=3), Rung(networks=4, epochs=6), Rung(networks=2, epochs=12))
    """
    marks = [min(first_epochs, epochs)]
    while marks[-1] < epochs:
        marks.append(min(marks[-1] * eta, epochs))
    counts = sizes(networks, len(marks), eta)
    return tuple(Rung(count, mark) for count, mark in zip(counts, marks, strict=True))


def sizes(networks: int, steps: int, eta: int) -> list[int]:
    """Return the number of networks in each of ``steps`` rungs: one of eta is kept, but at least two.

    Example:
        >>> sizes(9, 4, 2)
        [9, 5, 3, 2]
    """
    found = [networks]
    while len(found) < steps:
        found.append(max(2, math.ceil(found[-1] / eta)))
    return found


def planned_epochs(steps: Sequence[Rung]) -> int:
    """Return the training epochs of all networks together: each goes on from where its last rung ended.

    Example:
        >>> planned_epochs(rungs(networks=8, epochs=12, first_epochs=3, eta=2))
        48
    """
    before = [0, *(step.epochs for step in steps)]
    return sum(step.networks * (step.epochs - done) for step, done in zip(steps, before, strict=False))


def kept(scores: Sequence[float | None], count: int) -> list[int]:
    """Return the indices of the best scores, in order; of equal ones the first, and None (diverged) never.

    Example:
        >>> kept([0.5, None, 0.7, 0.5], 2)
        [0, 2]
    """
    known = [i for i, score in enumerate(scores) if score is not None]
    return sorted(sorted(known, key=lambda i: -(scores[i] or 0.0))[:count])


def halve(
    steps: Sequence[Rung],
    score: Callable[[Sequence[int], int], Sequence[float | None]],
    on_rung: Callable[[int, dict[int, float | None], Sequence[int]], None] = lambda epochs, scores, left: None,
) -> dict[int, int]:
    """Run all rungs.

    Args:
        steps: The rungs.
        score: Trains the networks of these numbers up to an epoch; returns their validation scores, None if diverged.
        on_rung: Called after each rung with its epochs, the scores by number, and the numbers that go on.

    Returns:
        Number -> epochs of the last rung it took part in; the last entry is the winner.

    Raises:
        DivergedError: All networks of a rung diverged.
    """
    alive, ended = list(range(steps[0].networks)), dict[int, int]()
    for step, after in zip(steps, [*(later.networks for later in steps[1:]), 1], strict=True):
        scores = dict(zip(alive, score(alive, step.epochs), strict=True))
        left = [alive[i] for i in kept(list(scores.values()), after)]
        if not left:
            raise DivergedError(f"all {len(alive)} networks of a rung diverged")
        on_rung(step.epochs, scores, left)
        ended |= {i: step.epochs for i in alive if i not in left}
        alive = left
    return ended | {alive[0]: steps[-1].epochs}
