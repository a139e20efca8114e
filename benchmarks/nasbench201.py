"""All strategies and proposed improvements of Algorithm 1 at equal evaluations, on NAS-Bench-201's own accuracies.

Searches read validation accuracy after 12 epochs; the score is the result architecture's test accuracy after 200 epochs
(CIFAR-10). Choices were made on seeds 0-299; reported numbers use seeds 1000-1299:

    python benchmarks/nasbench201.py TABLE.parquet              the table of docs/measurements.md, about 20 minutes
    python benchmarks/nasbench201.py TABLE.parquet --literal    Algorithm 1 as printed, 3,000 seeds
    python benchmarks/nasbench201.py TABLE.parquet --ray        1,000 searches through Ray, and through processes
    python benchmarks/nasbench201.py TABLE.parquet --seeds 0..299 --only surrogate
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # each of the two processes one core

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from common import facts, say
from scipy.stats import norm

from ddpnas_ray.core.pruning import prunable
from ddpnas_ray.core.requests import EvalResult, Plan
from ddpnas_ray.core.risks import round_risks
from ddpnas_ray.core.sampling import disjoint_sample, rng_for
from ddpnas_ray.core.space import FloatArray, IntArray, SearchSpace
from ddpnas_ray.core.state import SearchState, initial_state
from ddpnas_ray.core.update import update
from ddpnas_ray.core.utility import record, utility
from ddpnas_ray.experiment.config import check
from ddpnas_ray.experiment.experiment import Experiment
from ddpnas_ray.experiment.loop import run_search
from ddpnas_ray.spaces.nasbench201 import space as nasbench201
from ddpnas_ray.strategies.base import Strategy, best_seen, epoch_plan, evaluations_left
from ddpnas_ray.strategies.evolution import Evolution
from ddpnas_ray.strategies.gaussian import posterior
from ddpnas_ray.strategies.multinomial import Multinomial
from ddpnas_ray.strategies.optuna import Optuna
from ddpnas_ray.strategies.pruning import Pruning
from ddpnas_ray.strategies.random import Random, new_alphas
from ddpnas_ray.strategies.reinforce import Reinforce
from ddpnas_ray.strategies.rounds import Rounds, next_round
from ddpnas_ray.strategies.surrogate import (
    DECIMALS,
    Surrogate,
    candidates,
    features,
    log_expected_improvement,
    normal_scores,
)
from ddpnas_ray.tabular.executor import TableExecutor
from ddpnas_ray.tabular.table import ScoreTable, expected_best

SPEC = nasbench201.make()
SCORE, FINAL = "cifar10valid_valid_e12", "cifar10_test_e200"
BUDGETS = (42, 58, 100)


# --- what was tried on Algorithm 1 ------------------------------------------------------------------------------------


class OrthogonalPairing(Pruning):
    """Disjoint sampling by cyclic shifts of one random order: operations of two edges rarely meet twice in a round."""

    def sample(self, state: SearchState, n: int) -> IntArray:
        """See ``Pruning``."""
        order_NE = disjoint_sample(np.ones_like(state.theta_EK), state.live_EK, rng_for(state.seed, state.round))
        shift = state.epoch % self.epochs_per_round
        columns = [np.roll(order_NE[:, e], -shift * e) for e in range(order_NE.shape[1])]
        return np.stack(columns, axis=1)[:n]


class MainEffects(Pruning):
    """Utility by least squares over all records so far instead of the mean over the round."""

    def estimate(self, state: SearchState, space: SearchSpace) -> FloatArray:
        """See ``Pruning``."""
        return main_effects(state, space)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThenSurrogate(Pruning):
    """Pruning that spends the rest of the budget on proposals of a Gaussian process over all records.

    Args:
        everywhere: Propose among all architectures; False: among those left after pruning.
    """

    everywhere: bool = True

    def ask(self, state: SearchState, space: SearchSpace) -> Plan | None:
        """See ``Pruning``."""
        if self._continues(state, space):
            return Pruning.ask(self, state, space)
        if not evaluations_left(state, self.evaluations or 0):
            return None
        target_N = normal_scores(np.array([row.score for row in state.evaluations]))
        seen_NE = np.array([row.alpha_E for row in state.evaluations])
        pool_NE, pool_NF = candidates(state, space, rng_for(0), 0.5)
        seen_NF = features(seen_NE, space, 0.5)
        mean_N, deviation_N = posterior(seen_NF, target_N, pool_NF, length=1.1 * len(space.edges), noise=0.01)
        gain_N = log_expected_improvement(mean_N, deviation_N, float(target_N.max()))
        if not self.everywhere:
            gain_N[~state.live_EK[np.arange(len(space.edges)), pool_NE].all(axis=1)] = -np.inf
        digits_E = 5 ** np.arange(len(space.edges))
        gain_N[np.isin(pool_NE @ digits_E, seen_NE @ digits_E)] = -np.inf
        best = int(gain_N.round(DECIMALS).argmax())
        if not np.isfinite(gain_N[best]):
            return None
        return epoch_plan(state, pool_NE[best : best + 1], 0.0, train=False)

    def answer(self, state: SearchState, space: SearchSpace) -> IntArray | None:
        """See ``Strategy``."""
        return best_seen(state, space)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending(Pruning):
    """Pruning with a different T in each round."""

    by_round: tuple[int, ...] = (3, 3, 3)

    def tell(self, state: SearchState, space: SearchSpace, plan: Plan, results: Sequence[EvalResult]) -> SearchState:
        """See ``Pruning``."""
        rounds = self.by_round[: state.round + 1]
        full_now = state.epoch + 1 >= sum(rounds)
        return Pruning.tell(replace(self, epochs_per_round=1 if full_now else 10**6), state, space, plan, results)


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin(Pruning):
    """Pruning of an edge's worst operations for which Theorem 2 bounds the risk of a mistake.

    An epoch samples disjointly; from the second one on, every edge is checked after each. ``reserve`` evaluations are
    kept for verification.
    """

    risk: float = 0.2
    reserve: int = 6

    def _continues(self, state: SearchState, space: SearchSpace) -> bool:
        left = evaluations_left(state, self.evaluations or 0) - self.reserve
        more = prunable(state.theta_EK, state.live_EK, space, self.keep_per_group).any()
        return bool(more) and left >= state.live_EK.sum(axis=1).max()

    def _trained_epochs(self, space: SearchSpace) -> tuple[int, ...]:
        return (self.evaluations or 1,)

    def tell(self, state: SearchState, space: SearchSpace, plan: Plan, results: Sequence[EvalResult]) -> SearchState:
        """See ``Pruning``."""
        state = record(state, plan, results, space)
        if not plan.requests[0].train or state.epoch < 2:
            return state
        rows = state.evaluations
        alphas_NE, scores_N = np.array([row.alpha_E for row in rows]), np.array([row.score for row in rows])
        epoch_N, live_EK = np.array([row.epoch for row in rows]), state.live_EK
        while True:
            prunable_EK = prunable(state.theta_EK, live_EK, space, self.keep_per_group)
            risks = round_risks(alphas_NE, scores_N, epoch_N, live_EK, prunable_EK=prunable_EK)
            worst_EK = np.where(prunable_EK, np.nan_to_num(risks.estimate.utility_EK, nan=np.inf), np.inf)
            sure_E = np.nan_to_num(risks.p_confused_E, nan=1.0) <= self.risk
            edges = np.flatnonzero(sure_E & np.isfinite(worst_EK.min(axis=1)))
            if not len(edges):
                break
            live_EK = live_EK.copy()
            live_EK[edges, worst_EK[edges].argmin(axis=1)] = False
        utility_EK = utility(state.score_sum_EK, state.visits_EK)
        momentum_EK, theta_EK = update(state, utility_EK, space, self.gamma)
        return next_round(state, utility_EK, momentum_EK, theta_EK, live_EK)


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomStart(Surrogate):
    """Surrogate whose first architectures are random instead of disjoint."""

    def ask(self, state: SearchState, space: SearchSpace) -> Plan | None:
        """See ``Strategy``."""
        if len(state.evaluations) < self.initial:
            rng = rng_for(state.seed, state.round, state.epoch)
            n = min(space.shape[1], evaluations_left(state, self.evaluations))
            return epoch_plan(state, new_alphas(state, space, n, rng), self.lr) if n else None
        return Surrogate.ask(self, state, space)


class PlainImprovement(Surrogate):
    """Surrogate by expected improvement itself; its logarithm tells tiny ones apart."""

    def _log_gain(self, *known: Any) -> FloatArray:
        return np.exp(Surrogate._log_gain(self, *known))


class UpperBound(Surrogate):
    """Surrogate by mean plus two standard deviations."""

    def _log_gain(
        self, seen_NE: IntArray, target_N: FloatArray, pool_ME: IntArray, mean_M: FloatArray, deviation_M: FloatArray
    ) -> FloatArray:
        return mean_M + 2.0 * deviation_M


class LikelyImprovement(Surrogate):
    """Surrogate by the probability of an improvement."""

    def _log_gain(
        self, seen_NE: IntArray, target_N: FloatArray, pool_ME: IntArray, mean_M: FloatArray, deviation_M: FloatArray
    ) -> FloatArray:
        return norm.logcdf((mean_M - target_N.max()) / np.maximum(deviation_M, 1e-9))


class NoFantasies(Surrogate):
    """Surrogate that proposes the best of one prediction at a time, neighbours or not."""

    def _proposals(self, state: SearchState, space: SearchSpace, n: int, rng: np.random.Generator) -> IntArray:
        seen_NE = np.array([row.alpha_E for row in state.evaluations])
        target_N = normal_scores(np.array([row.score for row in state.evaluations]))
        pool_NE, pool_NF = candidates(state, space, rng, self.group_distance)
        seen_NF, length = features(seen_NE, space, self.group_distance), self.length * len(space.edges)
        mean_N, deviation_N = posterior(seen_NF, target_N, pool_NF, length=length, noise=self.noise)
        gain_N = self._log_gain(seen_NE, target_N, pool_NE, mean_N, deviation_N)
        seen = set(map(bytes, seen_NE))
        order = np.argsort(-gain_N.round(DECIMALS), kind="stable")
        return pool_NE[[i for i in order[: n + len(seen)] if bytes(pool_NE[i]) not in seen][:n]]


def main_effects(state: SearchState, space: SearchSpace) -> FloatArray:
    """Return the mean score plus the effect of each operation, by ridge regression on all records, shape (E, K)."""
    alphas_NE = np.array([row.alpha_E for row in state.evaluations])
    scores_N = np.array([row.score for row in state.evaluations])
    onehot_NF = (alphas_NE[:, :, None] == np.arange(space.shape[1])).reshape(len(alphas_NE), -1).astype(float)
    centred_NF = onehot_NF - onehot_NF.mean(axis=0)
    gram_FF = centred_NF.T @ centred_NF + 0.1 * np.eye(onehot_NF.shape[1])
    effect_F = np.linalg.solve(gram_FF, centred_NF.T @ (scores_N - scores_N.mean()))
    return np.clip(scores_N.mean() + effect_F.reshape(space.shape), -1.0, 1.0)


# --- running ----------------------------------------------------------------------------------------------------------

Make = Callable[[int], Strategy]
PLANNED = 36  # evaluations of Algorithm 1 with T = 3
LITERAL = "pruning (literal), rest verified"
STRATEGIES: dict[str, Make] = {
    "random": lambda n: Random(evaluations=n),
    "evolution": lambda n: Evolution(evaluations=n),
    "multinomial": lambda n: Multinomial(rounds=Rounds(evaluations=n)),
    "multinomial, pruned": lambda n: Multinomial(rounds=Rounds(evaluations=n, prune=True)),
    "reinforce": lambda n: Reinforce(rounds=Rounds(evaluations=n)),
    "reinforce, pruned": lambda n: Reinforce(rounds=Rounds(evaluations=n, prune=True)),
    "pruning, NoPrune": lambda n: Pruning(prune=False, evaluations=n),
    LITERAL: lambda n: Pruning(evaluations=n),
    "surrogate (default for tables)": lambda n: Surrogate(evaluations=n),
}
IDEAS: dict[str, Make] = {
    "orthogonal pairing": lambda n: OrthogonalPairing(evaluations=n),
    "main effects, all records": lambda n: MainEffects(evaluations=n),
    "T = 2": lambda n: Pruning(epochs_per_round=2, evaluations=n),
    "T = 1": lambda n: Pruning(epochs_per_round=1, evaluations=n),
    "T = 2, main effects": lambda n: MainEffects(epochs_per_round=2, evaluations=n),
    "T by round 4, 2, 1": lambda n: Spending(by_round=(4, 2, 1), evaluations=n),
    "T by round 1, 3, 5": lambda n: Spending(by_round=(1, 3, 5), evaluations=n),
    "prune at a risk below 0.1": lambda n: Margin(risk=0.1, evaluations=n),
    "prune at a risk below 0.3": lambda n: Margin(risk=0.3, evaluations=n),
    "the best prediction of all": lambda n: Pruning(result="predicted", evaluations=n),
    "the best prediction of all, noise 0.1": lambda n: Pruning(result="predicted", noise=0.1, evaluations=n),
    "rest by surrogate, what pruning left": lambda n: ThenSurrogate(everywhere=False, evaluations=n),
    "rest by surrogate, everywhere": lambda n: ThenSurrogate(evaluations=n),
    "T = 1, rest by surrogate, everywhere": lambda n: ThenSurrogate(epochs_per_round=1, evaluations=n),
    "surrogate, operations all equally far": lambda n: Surrogate(group_distance=1.0, evaluations=n),
    "surrogate, random start": lambda n: RandomStart(evaluations=n),
    "surrogate, expected improvement, not its logarithm": lambda n: PlainImprovement(evaluations=n),
    "surrogate, mean + 2 deviations": lambda n: UpperBound(evaluations=n),
    "surrogate, probability of improvement": lambda n: LikelyImprovement(evaluations=n),
    "surrogate, 5 a time": lambda n: Surrogate(batch=5, evaluations=n),
    "surrogate, 5 a time, without fantasies": lambda n: NoFantasies(batch=5, evaluations=n),
    "optuna": lambda n: Optuna(evaluations=n),
    "optuna, multivariate": lambda n: Optuna(multivariate=True, evaluations=n),
}
ALL = STRATEGIES | IDEAS
ANYTIME = (Random, Evolution, Surrogate, ThenSurrogate, Optuna)
_table: ScoreTable


def load(path: str) -> None:
    """Read the table in a worker process."""
    global _table
    _table = ScoreTable.read(path, SPEC.space, SPEC.encode)


def trial(name: str, budgets: Sequence[int], seed: int) -> list[float]:
    """Return the final scores of one search's result architectures, in percent, after each number of evaluations."""
    strategy = ALL[name](budgets[-1])
    executor, start = TableExecutor(_table, SCORE), initial_state(SPEC.space, seed)
    state = run_search(strategy, executor, SPEC.space, start, save=lambda state, tensors: None)
    assert len(state.evaluations) <= budgets[-1], (name, len(state.evaluations))
    scores = []
    for budget in budgets:
        alpha_E = strategy.answer(replace(state, evaluations=state.evaluations[:budget]), SPEC.space)
        if alpha_E is None:
            alpha_E = SPEC.argmax(state.theta_EK, state.live_EK)
        scores.append(100.0 * _table.score(FINAL, alpha_E))
    return scores


def row(pool: ProcessPoolExecutor, name: str, budgets: Sequence[int], seeds: range) -> str:
    """Return a row of the table. A search whose proposals do not depend on its budget runs once, for all budgets."""
    runs = [tuple(budgets)] if isinstance(ALL[name](100), ANYTIME) else [(budget,) for budget in budgets]
    futures = [[pool.submit(trial, name, run, seed) for run in runs] for seed in seeds]
    found = [[score for future in of_seed for score in future.result()] for of_seed in futures]
    cells = []
    for scores in zip(*found, strict=True):
        share = sum(score >= 94.0 for score in scores) / len(scores)
        cells.append(f"{statistics.fmean(scores):.2f} +- {statistics.stdev(scores):.2f} ({share:.2f})")
    say(f"{name}: {', '.join(cells)}")
    return f"| {name} | " + " | ".join(cells) + " |"


def compare(pool: ProcessPoolExecutor, names: Sequence[str], seeds: range) -> None:
    """Print the table: mean, standard deviation over seeds, and the share of seeds with at least 94 %."""
    print("| strategy | " + " | ".join(f"{n} evaluations" for n in BUDGETS) + " |")
    print("| --- |" + " --- |" * len(BUDGETS))
    for name in names:
        print(row(pool, name, BUDGETS, seeds), flush=True)
    val_N, final_N = _table.scores[SCORE], _table.scores[FINAL]
    exact = " | ".join(f"{100 * expected_best(val_N, final_N, n):.2f}" for n in BUDGETS)
    print(f"| random search, exact expectation | {exact} |")


def literal(pool: ProcessPoolExecutor, seeds: range) -> None:
    """Run Algorithm 1 as printed: T = 3, gamma = 0.9, the argmax of theta after its 36 evaluations."""
    futures = [pool.submit(trial, LITERAL, (PLANNED,), seed) for seed in seeds]
    found = [future.result()[0] for future in futures]
    deviation = statistics.stdev(found)
    print(
        f"literal, {PLANNED} evaluations, {len(seeds)} seeds: mean {statistics.fmean(found):.3f} %, deviation "
        f"{deviation:.2f}, standard error {deviation / len(found) ** 0.5:.3f}, P(at least 94 %) "
        f"{sum(score >= 94.0 for score in found) / len(found):.3f}"
    )


def through_ray(path: str, count: int) -> None:
    """Time literal searches as Ray tasks and in a plain process pool, on two cores; both with started workers."""
    import ray

    from ddpnas_ray.distributed.ray_trials import TABLE_TRIALS, Trial, run_trials

    values = {
        "space": {"name": "nasbench201"},
        "strategy": "pruning",
        "evaluation": {"kind": "table", "table": path, "score": SCORE, "final": FINAL},
    }
    job = Experiment.prepare(check(values, "benchmark"))
    trials = [Trial("literal", replace(job.config, seed=seed)) for seed in range(count)]
    chunks = [trials[i : i + TABLE_TRIALS] for i in range(0, count, TABLE_TRIALS)]
    with ProcessPoolExecutor(2, initializer=_keep, initargs=(job,)) as pool:
        list(pool.map(_search_kept, [chunks[0][:1]] * 8))
        start = time.perf_counter()
        plain = [result for results in pool.map(_search_kept, chunks) for result in results]
        pool_s = time.perf_counter() - start
    start = time.perf_counter()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    run_trials(job, trials[:16])
    started_s = time.perf_counter() - start
    start = time.perf_counter()
    results = run_trials(job, trials)
    ray_s = time.perf_counter() - start
    same = all(a["fingerprint"] == b["fingerprint"] for a, b in zip(plain, results, strict=True))
    print(
        f"{count} literal searches on 2 cores: {ray_s:.1f} s through Ray tasks (after {started_s:.1f} s of start), "
        f"{pool_s:.1f} s in a process pool: {ray_s / pool_s:.2f} times; the same fingerprints: {same}"
    )
    ray.shutdown()


def _keep(job: Experiment) -> None:
    global _job
    _job = job


def _search_kept(trials: list) -> list:
    from ddpnas_ray.distributed.ray_trials import search_all

    return search_all(_job, trials)


def main() -> None:
    """Run the benchmark; see the module docstring."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("table", help="Parquet file with all 15,625 architectures")
    p.add_argument("--seeds", default=None, help="A..B, default 1000..1299 (--literal: 0..2999)")
    p.add_argument("--only", default="", help="strategies whose name contains this")
    p.add_argument("--literal", action="store_true", help="Algorithm 1 as printed")
    p.add_argument("--ray", action="store_true", help="1,000 searches through Ray against a process pool")
    args = p.parse_args()
    first, last = (args.seeds or ("0..2999" if args.literal else "1000..1299")).split("..")
    seeds = range(int(first), int(last) + 1)
    print(facts())
    if args.ray:
        through_ray(args.table, 1000)
        return
    load(args.table)
    with ProcessPoolExecutor(2, initializer=load, initargs=(args.table,)) as pool:
        if args.literal:
            literal(pool, seeds)
        else:
            compare(pool, [name for name in ALL if args.only in name], seeds)


if __name__ == "__main__":
    main()
