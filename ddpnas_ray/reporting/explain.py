"""Explain why operations were pruned: the history of an edge, round by round. Axes: E edges, K candidates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ddpnas_ray.core.errors import ConfigError, did_you_mean
from ddpnas_ray.core.ledger import LedgerRow, ledger
from ddpnas_ray.core.pruning import prunable
from ddpnas_ray.core.space import SearchSpace
from ddpnas_ray.core.state import Evaluation, RoundRecord


@dataclass(frozen=True, slots=True)
class OperationRow:
    """One operation in one round.

    Args:
        operation: Its name.
        scores: Scores of the architectures that used it in the round, in order.
        utility: Their mean (Eq. 3), as used in Eq. 4; NaN if there are none.
        momentum: V after the round (Eq. 4).
        theta: theta after the round (Eq. 5).
        fate: ``pruned``, ``reserved`` (may not be pruned) or empty.
    """

    operation: str
    scores: tuple[float, ...]
    utility: float
    momentum: float
    theta: float
    fate: str


@dataclass(frozen=True, slots=True)
class RoundStory:
    """One round of an edge.

    Args:
        epochs: The first and the last epoch, from 0.
        architectures: Number of scored architectures.
        operations: Operations live in the round, the most probable first.
        ledger: The pruned operation, its margin, and the probabilities of a mistake.
    """

    epochs: tuple[int, int]
    architectures: int
    operations: tuple[OperationRow, ...]
    ledger: LedgerRow


def edge_story(
    name: str,
    history: Sequence[RoundRecord],
    evaluations: Sequence[Evaluation],
    space: SearchSpace,
    keep_per_group: int,
    rows: Sequence[LedgerRow] | None = None,
) -> list[RoundStory]:
    """Return the rounds of an edge.

    Args:
        name: Name of the edge.
        history: The run's rounds.
        evaluations: Its evaluations.
        space: Its space.
        keep_per_group: Operations of each group that stay.
        rows: The run's ledger, if already computed.

    Raises:
        ConfigError: The space has no such edge.
    """
    names = [edge.name for edge in space.edges]
    if name not in names:
        raise ConfigError(f"--explain: space {space.name!r} has no edge {name!r}{did_you_mean(name, names)}")
    e, stories, live_EK = names.index(name), [], space.exists_EK
    rows = ledger(history, evaluations, space, keep_per_group) if rows is None else rows
    for number, record in enumerate(history):
        of_round = [row for row in evaluations if row.round == record.round and row.trained]
        active = [row for row in of_round if space.active(np.array(row.alpha_E))[e]]
        prunable_K = prunable(record.theta_EK, live_EK, space, keep_per_group)[e]
        operations = []
        for k in sorted(np.flatnonzero(live_EK[e]), key=lambda k: -record.theta_EK[e, k]):
            fate = "" if prunable_K[k] else "reserved"
            operations.append(
                OperationRow(
                    operation=space.op(e, int(k)).name,
                    scores=tuple(row.score for row in active if row.alpha_E[e] == k),
                    utility=float(record.utility_EK[e, k]),
                    momentum=float(record.momentum_EK[e, k]),
                    theta=float(record.theta_EK[e, k]),
                    fate="pruned" if record.pruned_at_EK[e, k] == record.round else fate,
                )
            )
        epochs = [row.epoch for row in of_round] or [0]
        entry = rows[number * len(names) + e]
        stories.append(RoundStory((min(epochs), max(epochs)), len(of_round), tuple(operations), entry))
        live_EK = record.live_EK
    return stories


def story_text(name: str, stories: Sequence[RoundStory]) -> str:
    """Format the history of an edge; rounds and epochs from 1, scores as fractions of the val split."""
    lines = [f"edge {name}: {len(stories)} round{'' if len(stories) == 1 else 's'}; scores are of the val split"]
    for story in stories:
        entry, width = story.ledger, max(len(row.operation) for row in story.operations)
        first, last = story.epochs
        noise = "" if math.isnan(entry.sigma) else f", standard deviation of a score {entry.sigma:.4f}"
        lines += ["", f"round {entry.round + 1}: epochs {first + 1}-{last + 1}, {story.architectures} scores{noise}"]
        lines.append(f"  {'operation':<{width}}  utility  momentum    theta            scores")
        for row in story.operations:
            utility = "      -" if math.isnan(row.utility) else f"{row.utility:7.4f}"
            scores = " ".join(f"{score:.3f}" for score in row.scores) or "none"
            lines.append(
                f"  {row.operation:<{width}}  {utility}  {row.momentum:8.5f}  {row.theta:7.5f}  {row.fate:<8}  {scores}"
            )
        lines.append(f"  {verdict(entry)}")
    return "\n".join(lines)


def verdict(entry: LedgerRow) -> str:
    """Describe the pruning of an edge in a round."""
    if entry.pruned is None:
        return "nothing was pruned"
    margin = "the only one" if math.isnan(entry.margin) else f"{entry.margin:.2g} below the next"
    return (
        f"{entry.pruned} was pruned: the smallest theta of the prunable operations, {margin}. By this round's scores: "
        f"P(two worst confused) {_probability(entry.p_worst_two_confused)} (Theorem 2), P(pruned is best) "
        f"{_probability(entry.p_best_pruned)}"
    )


def _probability(p: float) -> str:
    return "unknown" if math.isnan(p) else f"{p:.3f}"
