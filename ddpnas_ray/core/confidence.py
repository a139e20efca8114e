"""Confidence in the result of a search by rounds: replay Algorithm 1 on resampled epochs and see what changes.

The epochs of a round repeat one experiment: every live operation is scored with new partners on the other edges and
with another order of the data. So within a round the epochs are exchangeable but for a shift that all operations share,
and resampling them shows how strongly theta and the pruning depend on the epochs that were drawn.

A resample draws T - 1 of a round's T epochs with replacement. T - 1 draws give the mean over a round its unbiased
variance sigma^2 / T; T draws would give (T - 1) / T of that, a third too small at the paper's T = 3. Rounds are
resampled independently. A round of one epoch is kept as it is: its noise cannot be separated from its operations.

A replay runs Eq. 3-5 on the resampled scores and either holds the pruning as the search recorded it, which gives theta
its standard errors, or prunes again by its own theta (Alg. 1, lines 11-14), which shows whether the result would be
the same. An operation that such a replay keeps although the search pruned it has no scores from then on: it gets its
edge's mean utility, as every live operation without a visit does (``update.fill_unvisited``), and may be pruned.

Axes: B resamples, T epochs of a round, N networks, E edges, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ddpnas_ray.core.pruning import prune
from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.core.space import BoolArray, FloatArray, IntArray, SearchSpace, inactive_theta
from ddpnas_ray.core.state import Evaluation, RoundRecord, initial_state
from ddpnas_ray.core.update import distribution, momentum
from ddpnas_ray.core.utility import utility

NO_NOISE = 1e-15  # in E[alpha]; below it a standard error is a rounding error
STREAM = 0x636F6E66  # keys the draws of this module apart from those of the search


@dataclass(frozen=True, slots=True)
class RoundScores:
    """P of one round (Eq. 2), epoch by epoch.

    Args:
        score_sum_TEK: Sum of the scores of the architectures that used the operation, shape (T, E, K).
        visits_TEK: Number of those architectures, shape (T, E, K).
        live_EK: Operations live after the round, as the search pruned, shape (E, K).
    """

    score_sum_TEK: FloatArray
    visits_TEK: IntArray
    live_EK: BoolArray


@dataclass(frozen=True, slots=True)
class Replayed:
    """Final states of the replays.

    Args:
        theta_BEK: The distribution of each, shape (B, E, K).
        live_BEK: Operations not pruned, shape (B, E, K).
    """

    theta_BEK: FloatArray
    live_BEK: BoolArray


def rounds_of(
    history: Sequence[RoundRecord], evaluations: Sequence[Evaluation], space: SearchSpace
) -> list[RoundScores]:
    """Group a search's records by round and epoch, without verification scores, which moved no theta.

    Args:
        history: The finished rounds.
        evaluations: All records.
        space: Defines the active edges of an architecture.
    """
    records: dict[int, dict[int, list[Evaluation]]] = {record.round: {} for record in history}
    for row in evaluations:
        if row.trained and row.round in records:
            records[row.round].setdefault(row.epoch, []).append(row)
    rounds = []
    for record in history:
        if not (epochs := records[record.round]):
            continue
        score_sum_TEK = np.zeros((len(epochs), *space.shape))
        visits_TEK = np.zeros(score_sum_TEK.shape, dtype=np.int64)
        for t, (_, rows) in enumerate(sorted(epochs.items())):
            for row in rows:
                alpha_E = np.array(row.alpha_E)
                edges = np.flatnonzero(space.active(alpha_E))
                score_sum_TEK[t, edges, alpha_E[edges]] += row.score
                visits_TEK[t, edges, alpha_E[edges]] += 1
        rounds.append(RoundScores(score_sum_TEK, visits_TEK, record.live_EK))
    return rounds


def resample(rounds: Sequence[RoundScores], seed: int, resamples: int) -> list[IntArray]:
    """Draw how often each resample uses each epoch: one array of shape (B, T) per round.

    Args:
        rounds: The records.
        seed: Seed of the search; equal seeds give equal draws.
        resamples: B.
    """
    weights = []
    for number, scores in enumerate(rounds):
        epochs = len(scores.score_sum_TEK)
        if epochs == 1:
            weights.append(np.ones((resamples, 1), dtype=np.int64))
        else:
            drawn = rng_for(seed, STREAM, number).integers(epochs, size=(resamples, epochs - 1))
            weights.append((drawn[:, :, None] == np.arange(epochs)).sum(axis=1))
    return weights


def replay(
    rounds: Sequence[RoundScores],
    weights: Sequence[IntArray],
    space: SearchSpace,
    *,
    gamma: float,
    keep_per_group: int | None,
) -> Replayed:
    """Run Eq. 3-5 and the pruning again on weighted epochs, all resamples at once.

    Args:
        rounds: The records.
        weights: How often to use each epoch, shape (B, T) per round; ones replay the search itself.
        space: The space.
        gamma: Momentum of Eq. 4.
        keep_per_group: Prune again, keeping this many operations of each group; None: prune what the search pruned.
    """
    start, shape = initial_state(space, 0), (len(weights[0]), *space.shape)
    theta_BEK, momentum_BEK = np.broadcast_to(start.theta_EK, shape), np.broadcast_to(start.momentum_EK, shape)
    recorded_EK, live_BEK = start.live_EK, np.broadcast_to(start.live_EK, shape)
    for scores, weights_BT in zip(rounds, weights, strict=True):
        visits_BEK = _weighted(weights_BT, scores.visits_TEK).astype(np.int64)
        utility_BEK = utility(_weighted(weights_BT, scores.score_sum_TEK), visits_BEK)
        momentum_BEK = momentum(momentum_BEK, utility_BEK, live_BEK, gamma)
        theta_BEK = distribution(theta_BEK, momentum_BEK, space.exists_EK)
        if keep_per_group is None:
            live_BEK = np.broadcast_to(scores.live_EK, shape)
        else:
            visited_EK: BoolArray = scores.visits_TEK.sum(axis=0) > 0
            gone_EK = ~recorded_EK & visited_EK.any(axis=1, keepdims=True)
            live_BEK = prune(theta_BEK, live_BEK, visited_EK | gone_EK, space, keep_per_group)
        recorded_EK = scores.live_EK
    return Replayed(theta_BEK, live_BEK)


def leads(
    alpha_E: IntArray,
    others_NE: IntArray,
    theta_EK: FloatArray,
    theta_BEK: FloatArray,
    space: SearchSpace,
    live_EK: BoolArray,
) -> tuple[FloatArray, FloatArray]:
    """Compute a network's leads in E[alpha] (Eq. 9) over others, and their standard errors.

    The standard error is the standard deviation of the lead over the resamples, so it accounts for the fact that one
    score enters every edge.

    Args:
        alpha_E: The network, shape (E,).
        others_NE: The others, shape (N, E).
        theta_EK: The final distribution of the search, shape (E, K).
        theta_BEK: Those of the replays with the recorded pruning, shape (B, E, K).
        space: The space.
        live_EK: Operations that the search has not pruned, shape (E, K).

    Returns:
        Leads and standard errors, each of shape (N,). An error is NaN where the resamples do not differ.
    """

    def expectation_N(theta_XEK: FloatArray, alphas_NE: IntArray) -> FloatArray:
        valued_XEK = np.where(space.generable_EK, theta_XEK, 0.0)
        chosen_XNE = valued_XEK[..., np.arange(alphas_NE.shape[1]), alphas_NE]
        inactive_XE = inactive_theta(theta_XEK, space, live_EK)
        mean_XN: FloatArray = np.where(space.active(alphas_NE), chosen_XNE, inactive_XE[..., None, :]).mean(axis=-1)
        return mean_XN

    lead_N = expectation_N(theta_EK, alpha_E[None]) - expectation_N(theta_EK, others_NE)
    lead_BN = expectation_N(theta_BEK, alpha_E[None]) - expectation_N(theta_BEK, others_NE)
    error_N = lead_BN.std(axis=0, ddof=1)
    return lead_N, np.where(error_N > NO_NOISE, error_N, np.nan)


def agreement(alphas_BE: IntArray, alpha_E: IntArray, space: SearchSpace) -> tuple[FloatArray, float, float]:
    """Compute how often resampling reproduces a network.

    Args:
        alphas_BE: The results of the resamples, shape (B, E).
        alpha_E: The result of the search, shape (E,).
        space: Defines the active edges; inactive edges have no choice.

    Returns:
        Per edge, the share of resamples with the same choice, shape (E,); the share with the same choice on every
        edge; and the median number of edges that differ.
    """
    chosen_BE = np.array([np.where(space.active(each_E), each_E, -1) for each_E in alphas_BE])
    same_BE = chosen_BE == np.where(space.active(alpha_E), alpha_E, -1)
    return same_BE.mean(axis=0), float(same_BE.all(axis=1).mean()), float(np.median((~same_BE).sum(axis=1)))


def _weighted(weights_BT: IntArray, values_TEK: FloatArray | IntArray) -> FloatArray:
    """Sum over epochs in order, so that equal operations have equal sums and ties stay ties."""
    total_BEK = np.zeros((len(weights_BT), *values_TEK.shape[1:]))
    for weight_B, value_EK in zip(weights_BT.T, values_TEK, strict=True):
        total_BEK += weight_B[:, None, None] * value_EK
    return total_BEK
