"""Ledger of a search: every round's prunings, and the probability that each was a mistake (Theorem 2).

Axes: N architectures, E edges, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ddpnas_ray.core.pruning import prunable
from ddpnas_ray.core.risks import round_risks
from ddpnas_ray.core.space import SearchSpace
from ddpnas_ray.core.state import Evaluation, RoundRecord


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One edge in one round.

    Args:
        round: l.
        edge: The edge's name.
        pruned: The pruned operation; None if none was.
        margin: theta of the next prunable operation minus that of the pruned one; NaN where there was no other.
        sigma: Estimated standard deviation of one score of the round, beside operations and epochs.
        p_worst_two_confused: Probability that the true order of the worst and the second worst prunable operation is
            the reverse (Theorem 2), given the round's scores.
        p_best_pruned: Probability that the worst prunable operation is truly the edge's best one.
    """

    round: int
    edge: str
    pruned: str | None
    margin: float
    sigma: float
    p_worst_two_confused: float
    p_best_pruned: float


def ledger(
    history: Sequence[RoundRecord], evaluations: Sequence[Evaluation], space: SearchSpace, keep_per_group: int
) -> list[LedgerRow]:
    """Return one row per round and edge. Probabilities are NaN where one epoch per round leaves nothing to estimate.

    Args:
        history: The finished rounds; a record without any utility only holds theta after the last of them.
        evaluations: Their records.
        space: The space.
        keep_per_group: Operations of each group to keep.
    """
    rows, live_EK = [], space.exists_EK
    for record in history:
        of_round = [row for row in evaluations if row.round == record.round and row.trained]
        prunable_EK = prunable(record.theta_EK, live_EK, space, keep_per_group)
        sigma, confused_E, best_E = np.nan, np.full(len(space.edges), np.nan), np.full(len(space.edges), np.nan)
        if of_round and not np.isnan(record.utility_EK).all():
            alphas_NE = np.array([row.alpha_E for row in of_round])
            risks = round_risks(
                alphas_NE,
                np.array([row.score for row in of_round]),
                np.array([row.epoch for row in of_round]),
                live_EK,
                prunable_EK=prunable_EK,
                active_NE=np.array([space.active(alpha_E) for alpha_E in alphas_NE]),
            )
            sigma, confused_E, best_E = risks.estimate.sigma, risks.p_confused_E, risks.p_best_pruned_E
        for e, edge in enumerate(space.edges):
            gone = np.flatnonzero(record.pruned_at_EK[e] == record.round)
            others = np.sort(record.theta_EK[e, prunable_EK[e]])
            margin = float(others[1] - others[0]) if len(gone) and len(others) > 1 else float("nan")
            pruned = space.op(e, int(gone[0])).name if len(gone) else None
            rows.append(
                LedgerRow(record.round, edge.name, pruned, margin, sigma, float(confused_E[e]), float(best_E[e]))
            )
        live_EK = record.live_EK
    return rows
