"""Bayesian optimisation with a Gaussian process over all records: the best strategy on tabular benchmarks.

The first architectures are disjoint, as in Algorithm 1: every operation of every edge is seen equally often. From then
on a Gaussian process is fitted to the normal scores of the ranks of all records, and the architecture with the largest
expected improvement is next. The distance of two architectures is the number of edges that differ, where two operations
of one group (parameter, non-parameter) count half; in a space with an embedding, and without budgets, the mean of that
and its distance. Measured: docs/measurements.md, "NAS-Bench-201: strategies at equal evaluations".

Axes: N architectures, E edges, C choices of a block, F features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt, Le

from ddpnas_ray.core.generation.blocks import networks
from ddpnas_ray.core.generation.limits import DRAWS, Limits
from ddpnas_ray.core.generation.problem import Problem, random_alphas
from ddpnas_ray.core.requests import EvalResult, Plan
from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.core.space import FloatArray, IntArray, SearchSpace
from ddpnas_ray.core.state import SearchState
from ddpnas_ray.core.utility import record
from ddpnas_ray.strategies.base import Context, Strategy, best_seen, cosine, epoch_plan, equal_epochs, may_be_generated
from ddpnas_ray.strategies.evolution import mutated, network_choices
from ddpnas_ray.strategies.gaussian import posterior
from ddpnas_ray.strategies.random import new_alphas

ALL = 20_000  # up to this many architectures all are candidates; larger spaces are sampled
DECIMALS = 8  # of log expected improvements that are compared; further ones depend on the BLAS
DRAWN, BEST, CHILDREN = 2_000, 10, 50  # a pool: random networks, and children of the best ones
SPREAD = 20  # networks that fit a budget for each of the first ones, to choose disjoint ones from


@dataclass(frozen=True, slots=True, kw_only=True)
class SurrogateConfig:
    """Section ``surrogate``."""

    initial: Annotated[int, Ge(2)] = 15
    """Disjoint architectures before the first proposal"""
    length: Annotated[float, Gt(0.0)] = 1.1
    """Distance at which the correlation is 1/e, in units of the number of edges"""
    group_distance: Annotated[float, Ge(0.0), Le(1.0)] = 0.5
    """Distance of two operations of one group; two of different groups have distance 1"""
    noise: Annotated[float, Gt(0.0)] = 0.01
    """Noise variance of a score, relative to the variance of the process; scores of short trainings: about 3"""
    result: Literal["best", "predicted"] = "best"
    """The result. best: the architecture of the best score; predicted: of the best prediction, which noise in single
    scores misleads less"""


def make(context: Context, section: SurrogateConfig) -> Strategy:
    """Create Bayesian optimisation from its section."""
    return Surrogate(
        **asdict(section),
        evaluations=context.evaluations,
        batch=context.batch,
        lr=context.lr,
        limits=context.limits,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Surrogate:
    """Bayesian optimisation by expected improvement; the best score wins, or the best prediction.

    Args:
        evaluations: Total number.
        batch: Proposals per epoch; 1 learns most from each.
        initial: Disjoint architectures before the first proposal.
        length: Distance at which the correlation is 1/e, in units of the number of edges.
        group_distance: Distance of two operations of one group.
        noise: Noise variance.
        result: ``best``: the architecture with the best score; ``predicted``: with the best prediction.
        lr: Initial learning rate, annealed to zero by a cosine.
        limits: Budgets.
    """

    evaluations: int
    batch: int = 1
    initial: int = 15
    length: float = 1.1
    group_distance: float = 0.5
    noise: float = 0.01
    result: str = "best"
    lr: float = 0.025
    limits: Limits | None = None
    by_rounds: ClassVar[bool] = False
    together: ClassVar[np.ufunc] = np.logaddexp  # of the log gains of several budgets: of their sum

    def ask(self, state: SearchState, space: SearchSpace) -> Plan | None:
        """See ``Strategy``."""
        if state.epoch >= len(epochs := self.epochs(space)):
            return None
        rng, n = rng_for(state.seed, state.round, state.epoch), epochs[state.epoch]
        space = self._compared(space)
        if len(state.evaluations) < self.initial:
            alphas_NE = first_networks(state, space, n, rng, self.limits)
        else:
            alphas_NE = self._proposals(state, space, n, rng)
        return epoch_plan(state, alphas_NE, cosine(self.lr, state.epoch, len(epochs)))

    def tell(self, state: SearchState, space: SearchSpace, plan: Plan, results: Sequence[EvalResult]) -> SearchState:
        """See ``Strategy``."""
        return record(state, plan, results, space)

    def answer(self, state: SearchState, space: SearchSpace) -> IntArray | None:
        """See ``Strategy``."""
        ranked_NE = self.ranked(state, space)
        return best_seen(state, space) if ranked_NE is None else np.asarray(ranked_NE[0])

    def ranked(self, state: SearchState, space: SearchSpace) -> IntArray | None:
        """Return the candidates by prediction, best first, shape (N, E); None where the best score is the result."""
        if self.result == "best" or not state.evaluations:
            return None
        rng, space = rng_for(state.seed, state.round, state.epoch), self._compared(space)
        pool_NE, pool_NF = candidates(state, space, rng, self.group_distance, self.limits)
        if self.limits is not None:
            fits_N = self.limits.fits(pool_NE).any(axis=0)
            pool_NE, pool_NF = pool_NE[fits_N], pool_NF[fits_N]
        seen_NE = np.array([row.alpha_E for row in state.evaluations])
        target_N = normal_scores(np.array([row.score for row in state.evaluations]))
        mean_N, _ = self._predicted(space, seen_NE, target_N, pool_NF)
        ranked_NE: IntArray = pool_NE[np.argsort(-mean_N.round(DECIMALS), kind="stable")]
        return ranked_NE

    def epochs(self, space: SearchSpace) -> tuple[int, ...]:
        """See ``Strategy``."""
        first = min(self.initial, self.evaluations)
        return equal_epochs(first, space.shape[1]) + equal_epochs(self.evaluations - first, self.batch)

    def _compared(self, space: SearchSpace) -> SearchSpace:
        """Return the space without its embedding if there are budgets: regret is higher with it (measurements.md)."""
        return space if self.limits is None else replace(space, embedding=None)

    def _proposals(self, state: SearchState, space: SearchSpace, n: int, rng: np.random.Generator) -> IntArray:
        """Return n candidates, one after the other, each with the largest expected improvement; ties go to the first.

        Each is then taken for evaluated, with its predicted score: without such fantasies all n would be neighbours.
        """
        seen_NE = np.array([row.alpha_E for row in state.evaluations])
        target_N = normal_scores(np.array([row.score for row in state.evaluations]))
        pool_NE, pool_NF = candidates(state, space, rng, self.group_distance, self.limits)
        seen, chosen = set(map(bytes, seen_NE)), list[int]()
        for _ in range(n):
            mean_N, deviation_N = self._predicted(space, seen_NE, target_N, pool_NF)
            gain_N = self._log_gain(seen_NE, target_N, pool_NE, mean_N, deviation_N)
            order = np.argsort(-gain_N.round(DECIMALS), kind="stable")
            best = next((i for i in order if gain_N[i] > -np.inf and bytes(pool_NE[i]) not in seen), None)
            if best is None:
                return new_alphas(state, space, n, rng, self.limits)
            chosen.append(int(best))
            seen.add(bytes(pool_NE[best]))
            seen_NE, target_N = np.concatenate([seen_NE, pool_NE[[best]]]), np.append(target_N, mean_N[best])
        return pool_NE[chosen]

    def _predicted(
        self, space: SearchSpace, seen_NE: IntArray, target_N: FloatArray, pool_MF: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return mean and deviation of the candidates' scores, each of shape (M,)."""
        seen_NF = features(seen_NE, space, self.group_distance)
        with _one_thread():  # so that the order of sums does not break ties
            return posterior(seen_NF, target_N, pool_MF, length=self.length * len(space.edges), noise=self.noise)

    def _log_gain(
        self, seen_NE: IntArray, target_N: FloatArray, pool_ME: IntArray, mean_M: FloatArray, deviation_M: FloatArray
    ) -> FloatArray:
        """Return the log expected improvement of every candidate, shape (M,); with budgets, of the sum of their bests.

        A candidate improves on the best of every budget that it fits, so the sum over evenly spaced budgets is the
        gain in hypervolume.
        """
        if self.limits is None:
            return log_expected_improvement(mean_M, deviation_M, float(target_N.max()))
        gain_M = np.full(len(pool_ME), -np.inf)
        for seen_N, fits_M in zip(self.limits.fits(seen_NE), self.limits.fits(pool_ME), strict=True):
            best = float(target_N[seen_N].max()) if seen_N.any() else float(target_N.min())
            of_budget_M = log_expected_improvement(mean_M[fits_M], deviation_M[fits_M], best)
            gain_M[fits_M] = self.together(gain_M[fits_M], of_budget_M)
        return gain_M


def disjoint_networks(space: SearchSpace, n: int, rng: np.random.Generator) -> IntArray:
    """Draw networks that could be generated, not repeating a block's choice until all are used, shape (n, E)."""
    alphas_NE = np.zeros((n, len(space.edges)), dtype=np.int64)
    for block, alphas_CB in zip(space.blocks, network_choices(space), strict=True):
        order = np.concatenate([rng.permutation(len(alphas_CB)) for _ in range(-(-n // len(alphas_CB)))])[:n]
        alphas_NE[:, list(block)] = alphas_CB[order]
    return space.canonical(alphas_NE)


def first_networks(
    state: SearchState, space: SearchSpace, n: int, rng: np.random.Generator, limits: Limits | None
) -> IntArray:
    """Draw the first networks, shape (n, E): disjoint ones, or as near to that as budgets allow, budget by budget."""
    if limits is None:
        return disjoint_networks(space, n, rng)
    pool_NE = new_alphas(state, space, SPREAD * n, rng, limits)
    fits_BN = limits.fits(pool_NE)
    edges, used_EK = np.arange(len(space.edges)), np.zeros(space.shape)
    for row in state.evaluations:
        used_EK[edges, row.alpha_E] += 1
    alphas_NE = np.zeros((n, len(edges)), dtype=np.int64)
    for i in range(n):
        fits_N = fits_BN[(len(state.evaluations) + i) % len(fits_BN)]
        repeats_N = np.where(fits_N, used_EK[edges, pool_NE].sum(axis=1), np.inf)
        alphas_NE[i] = pool_NE[repeats_N.argmin()]
        used_EK[edges, alphas_NE[i]] += 1
    return alphas_NE


def candidates(
    state: SearchState,
    space: SearchSpace,
    rng: np.random.Generator,
    group_distance: float,
    limits: Limits | None = None,
) -> tuple[IntArray, FloatArray]:
    """Return candidates with their features: all of a small space, else random networks and children of the best.

    With budgets, the random networks of a large space fit one, and each budget's best by main effects are added,
    which exact generation finds.
    """
    if (everything := _all_networks(space, group_distance)) is not None:
        return everything
    if limits is None:
        pool = random_alphas(Problem(space, state.theta_EK, space.generable_EK), DRAWN, rng)
    else:
        pool = limits.draw(DRAWN // DRAWS, rng)
        effects_EK = main_effects(state, space)
        pool += [alpha for budget in limits.budgets for alpha in limits.best(budget, effects_EK, CHILDREN)]
    parents = [row for row in state.evaluations if may_be_generated(row.alpha_E, space)]
    for row in sorted(parents, key=lambda row: -row.score)[:BEST]:
        parent_E = np.array(row.alpha_E)
        pool += [tuple(mutated(parent_E, space, rng).tolist()) for _ in range(CHILDREN)]
    pool_NE = np.array(list(dict.fromkeys(pool)), dtype=np.int64)
    return pool_NE, features(pool_NE, space, group_distance)


def main_effects(state: SearchState, space: SearchSpace) -> FloatArray:
    """Return the effect of every choice on the score by ridge regression on all records, scaled to [0, 1], (E, K)."""
    alphas_NE = np.array([row.alpha_E for row in state.evaluations])
    target_N = normal_scores(np.array([row.score for row in state.evaluations]))
    chosen_NEK = (alphas_NE[:, :, None] == np.arange(space.shape[1])) & space.active(alphas_NE)[:, :, None]
    onehot_NF = chosen_NEK.reshape(len(alphas_NE), -1).astype(float)
    with _one_thread():
        gram_FF = onehot_NF.T @ onehot_NF + np.eye(onehot_NF.shape[1])
        effects_EK: FloatArray = np.linalg.solve(gram_FF, onehot_NF.T @ target_N).reshape(space.shape)
    span = effects_EK.max() - effects_EK.min()
    scaled_EK: FloatArray = ((effects_EK - effects_EK.min()) / (span if span > 0 else 1.0)).round(DECIMALS)
    return scaled_EK


@lru_cache(maxsize=2)
def _all_networks(space: SearchSpace, group_distance: float) -> tuple[IntArray, FloatArray] | None:
    """Return all networks of a space with their features; None if there are more than ``ALL``."""
    blocks = network_choices(space)
    if (count := math.prod(len(alphas_CB) for alphas_CB in blocks)) > ALL:
        return None
    alphas_NE = networks(space, blocks, np.arange(count))
    if space.gate is not None:
        alphas_NE = np.unique(space.canonical(alphas_NE), axis=0)
    everything_NF = features(alphas_NE, space, group_distance)
    everything_NF.setflags(write=False)  # so that ``posterior`` keeps what it computed of them
    return alphas_NE, everything_NF


def features(alphas_NE: IntArray, space: SearchSpace, group_distance: float) -> FloatArray:
    """Embed architectures: squared distance 1 per edge whose groups differ or that is active in one of the two,
    ``group_distance`` within a group.

    With ``SearchSpace.embedding``, half of that and half of the embedding's.

    Returns:
        Shape (N, F): for each edge its candidates, one-hot, its two groups, and whether it is inactive; then the
        embedding.
    """
    edges, columns, active_NE = np.arange(len(space.edges)), [], space.active(alphas_NE)
    for k in range(space.shape[1]):
        columns.append(math.sqrt(group_distance / 2.0) * ((alphas_NE == k) & active_NE))
    parameter_NE = space.group_EK("parameter")[edges, alphas_NE]
    for side_NE in (parameter_NE, ~parameter_NE):
        columns.append(math.sqrt((1.0 - group_distance) / 2.0) * (side_NE & active_NE))
    if space.gate is not None:
        columns.append(math.sqrt(0.5) * ~active_NE)
    of_edges_NF: FloatArray = np.concatenate(columns, axis=1)
    if space.embedding is None:
        return of_edges_NF
    return np.concatenate([of_edges_NF, space.embedding(alphas_NE)], axis=1) / math.sqrt(2.0)


def _one_thread() -> AbstractContextManager[Any]:
    manager: AbstractContextManager[Any] = _thread_pools().limit(limits=1)
    return manager


@cache
def _thread_pools() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def normal_scores(scores_N: FloatArray) -> FloatArray:
    """Map ranks to quantiles of the normal distribution, so that neither the unit nor outliers matter.

    Example:
        >>> normal_scores(np.array([0.1, 0.9, 0.5])).round(2)
        array([-0.97,  0.97,  0.  ])
    """
    from scipy.stats import norm, rankdata

    quantile_N: FloatArray = norm.ppf((rankdata(scores_N) - 0.5) / len(scores_N))
    return quantile_N


def log_expected_improvement(mean_N: FloatArray, deviation_N: FloatArray, best: float) -> FloatArray:
    """Compute log E[max(0, f - best)] of Gaussian predictions f, exact however small the expectation.

    Once a space is well explored, all expected improvements are tiny and round to ties; their logarithms do not
    (LogEI; Ament et al., "Unexpected improvements to expected improvement", 2023, Eq. 9).

    Args:
        mean_N: Means of the predictions, shape (N,).
        deviation_N: Their standard deviations, shape (N,).
        best: Value to improve on.

    Returns:
        Shape (N,), finite.

    Example:
        >>> log_expected_improvement(np.array([0.0, -50.0]), np.ones(2), 0.0).round(2).tolist()
        [-0.92, -1258.74]
    """
    from scipy.special import erfcx, ndtr

    deviation_N = np.maximum(deviation_N, 1e-9)
    z_N = (mean_N - best) / deviation_N
    log_density_N = -0.5 * (z_N**2 + math.log(2.0 * math.pi))
    near_N, tail_N = np.maximum(z_N, -1.0), np.clip(z_N, -1e3, -1.0)
    log_near_N = np.log(near_N * ndtr(near_N) + np.exp(-0.5 * near_N**2) / math.sqrt(2.0 * math.pi))
    log_tail_N = log_density_N + np.log1p(math.sqrt(0.5 * math.pi) * tail_N * erfcx(-tail_N / math.sqrt(2.0)))
    log_far_N = log_density_N - 2.0 * np.log(np.maximum(-z_N, 1.0))  # z^2 phi(z) -> 1; the next term is -3 / z^2
    log_gain_N: FloatArray = np.select([z_N > -1.0, z_N > -1e3], [log_near_N, log_tail_N], log_far_N - 3.0 / tail_N**2)
    return np.log(deviation_N) + log_gain_N
