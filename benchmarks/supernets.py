"""Searches with real supernets on NAS-Bench-201, one change at a time: does it find better networks, for its cost?

Cost is training epochs on the search's images. Every search trains on real CIFAR-10 (reduced, as in
``configs/cifar10_nasbench201_cpu.yaml``), in one process and one thread; its result is looked up in the table. Searches
that are finished are kept in FOLDER, so a run continues where it was stopped:

    python benchmarks/supernets.py run FOLDER --table TABLE.parquet                  all variants, hours
    python benchmarks/supernets.py run FOLDER --table TABLE.parquet --only base,b16  some
    python benchmarks/supernets.py show FOLDER --table TABLE.parquet                 the tables of docs/measurements.md
    python benchmarks/supernets.py alone FOLDER --table TABLE.parquet                how networks trained alone rank
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")  # each process one core

import argparse
import json
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, facts, say
from scipy.stats import kendalltau

from ddpnas_ray.core.generation.problem import Problem
from ddpnas_ray.core.generation.solve import solve
from ddpnas_ray.core.requests import EvalRequest, EvalResult, Plan
from ddpnas_ray.core.space import FloatArray, SearchSpace
from ddpnas_ray.core.state import SearchState, initial_state
from ddpnas_ray.core.utility import record, utility
from ddpnas_ray.execution.base import OnResult
from ddpnas_ray.execution.local import LocalExecutor
from ddpnas_ray.experiment.config import load
from ddpnas_ray.experiment.experiment import Experiment
from ddpnas_ray.experiment.loop import run_search
from ddpnas_ray.nn.weights import Float32Array, Layout, Weights
from ddpnas_ray.spaces.nasbench201 import space as nasbench201
from ddpnas_ray.strategies.base import Strategy, cosine, epoch_plan
from ddpnas_ray.strategies.gaussian import posterior
from ddpnas_ray.strategies.pruning import Pruning
from ddpnas_ray.strategies.surrogate import features, normal_scores
from ddpnas_ray.tabular.probe import Probe
from ddpnas_ray.tabular.table import ScoreTable, expected_best

CONFIG = str(ROOT / "configs" / "cifar10_nasbench201_cpu.yaml")
SCORE, FINAL = "cifar10valid_valid_e12", "cifar10_test_e200"
EPOCHS = 12  # of a network's own training, by the benchmark
VERIFIED, PROBED = 16, 40
RECIPE = ["data.crop=1", "training.optimizer=adamw", "training.lr=0.002"]


# --- what was tried ---------------------------------------------------------------------------------------------------


class ServerStep(Weights):
    """Merge that moves shared elements by a multiple of the mean change, with momentum over epochs.

    Attributes:
        rate: 1: the mean, as ``Weights``.
        momentum: Of the changes.
        by_sum: Changes are summed over the architectures that trained an element, not averaged.
    """

    rate, momentum, by_sum = 1.0, 0.0, False

    def merge(self, learned: Sequence[tuple[Layout, Float32Array]]) -> None:
        """See ``Weights``."""
        before, counts = self.flat.copy(), trained_by(learned)
        super().merge(learned)
        if not hasattr(self, "velocity"):
            self.velocity = np.zeros_like(self.flat)
        for piece, offset in zip(self.layout.pieces, self.layout.offsets, strict=True):
            if counts[piece.name] < 2:
                continue
            part = slice(offset, offset + piece.size)
            change = (self.flat[part] - before[part]) * (self.rate * (counts[piece.name] if self.by_sum else 1))
            self.velocity[part] = self.momentum * self.velocity[part] + change
            self.flat[part] = before[part] + self.velocity[part]


class Common(Weights):
    """Sharing of what all architectures of an epoch have in common; operations start from the initial weights."""

    def merge(self, learned: Sequence[tuple[Layout, Float32Array]]) -> None:
        """See ``Weights``."""
        before, counts = self.flat.copy(), trained_by(learned)
        super().merge(learned)
        for piece, offset in zip(self.layout.pieces, self.layout.offsets, strict=True):
            if counts[piece.name] < len(learned):
                part = slice(offset, offset + piece.size)
                self.flat[part] = before[part]


def trained_by(learned: Sequence[tuple[Layout, Float32Array]]) -> Counter[str]:
    """Count the architectures that trained each parameter, by name."""
    return Counter(piece.name for layout, _ in learned for piece in layout.pieces)


class ByLoss:
    """Executor whose scores of trained architectures are those of the training images: exp(-mean loss of the epoch).

    Args:
        executor: Trains.
    """

    def __init__(self, executor: LocalExecutor) -> None:
        self._executor = executor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    def evaluate(self, requests: Sequence[EvalRequest], on_result: OnResult | None = None) -> list[EvalResult]:
        """See ``Executor``."""
        found = self._executor.evaluate(requests, on_result)
        pairs = zip(requests, found, strict=True)
        return [replace(r, score=math.exp(-r.loss)) if asked.train and r.ok else r for asked, r in pairs]


class InGroups:
    """Executor that merges after every few architectures, which later ones of the epoch inherit.

    Args:
        executor: Trains.
        n: Architectures of a merge.
    """

    def __init__(self, executor: LocalExecutor, n: int) -> None:
        self._executor, self._n = executor, n

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    def evaluate(self, requests: Sequence[EvalRequest], on_result: OnResult | None = None) -> list[EvalResult]:
        """See ``Executor``."""
        starts = range(0, len(requests), self._n)
        return [r for i in starts for r in self._executor.evaluate(requests[i : i + self._n], on_result)]


def server(**attributes: Any) -> type[Weights]:
    """Return a merge with other attributes."""
    return type("Server", (ServerStep,), attributes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects(Pruning):
    """Pruning by main effects: ridge regression on all records, with an offset per epoch.

    Args:
        ridge: Penalty; larger ones shrink effects of few records towards 0.
    """

    ridge: float = 1.0

    def estimate(self, state: SearchState, space: SearchSpace) -> FloatArray:
        """See ``Pruning``."""
        return main_effects(state, space, self.ridge)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharp(Pruning):
    """Pruning whose utilities are stretched around their mean before Eq. 4: theta of lower temperature."""

    factor: float = 10.0

    def estimate(self, state: SearchState, space: SearchSpace) -> FloatArray:
        """See ``Pruning``."""
        utility_EK = Pruning.estimate(self, state, space)
        mean = np.nanmean(utility_EK)
        return np.clip(mean + self.factor * (utility_EK - mean), -1.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LastEpoch(Pruning):
    """Pruning by the scores of each round's last epoch alone, when its operations are trained best."""

    def estimate(self, state: SearchState, space: SearchSpace) -> FloatArray:
        """See ``Pruning``."""
        edges, total_EK, visits_EK = (
            np.arange(len(space.edges)),
            np.zeros(space.shape),
            np.zeros(space.shape, dtype=int),
        )
        for row in state.evaluations:
            if row.epoch == state.epoch - 1:
                total_EK[edges, row.alpha_E] += row.score
                visits_EK[edges, row.alpha_E] += 1
        return utility(total_EK, visits_EK)


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp(Pruning):
    """Pruning after epochs whose scores do not count."""

    warmup: int = 3

    def tell(self, state: SearchState, space: SearchSpace, plan: Plan, results: Sequence[EvalResult]) -> SearchState:
        """See ``Pruning``."""
        if state.epoch < self.warmup:
            after = record(state, plan, results, space)
            return replace(after, score_sum_EK=state.score_sum_EK, visits_EK=state.visits_EK)
        counted = replace(state, epoch=state.epoch - self.warmup)
        after = Pruning.tell(self, counted, space, plan, results)
        return replace(after, epoch=after.epoch + self.warmup)

    def _trained_epochs(self, space: SearchSpace) -> tuple[int, ...]:
        return (space.shape[1],) * self.warmup + Pruning._trained_epochs(self, space)


def main_effects(state: SearchState, space: SearchSpace, ridge: float) -> FloatArray:
    """Return mean score plus the effect of each operation, by ridge regression on all records, shape (E, K)."""
    rows = [row for row in state.evaluations if row.trained]
    alphas_NE, epoch_N = np.array([row.alpha_E for row in rows]), np.array([row.epoch for row in rows])
    scores_N = np.array([row.score for row in rows])
    for epoch in np.unique(epoch_N):  # scores of different epochs differ in level
        scores_N[epoch_N == epoch] -= scores_N[epoch_N == epoch].mean()
    onehot_NF = (alphas_NE[:, :, None] == np.arange(space.shape[1])).reshape(len(rows), -1).astype(float)
    gram_FF = onehot_NF.T @ onehot_NF + ridge * np.eye(onehot_NF.shape[1])
    effects_F = np.linalg.solve(gram_FF, onehot_NF.T @ scores_N)
    return np.clip(effects_F.reshape(space.shape), -1.0, 1.0)


# --- variants ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """A search to measure: changes to the base.

    Args:
        what: Its row in the table.
        overrides: Of the configuration.
        strategy: Makes another strategy from Algorithm 1.
        weights: Another merge.
        by_loss: Whether the training loss is the score.
        merged: Architectures of a merge; 0: the epoch's.
        every: Epochs between two measurements of tau, which take as long as several architecture-epochs.
    """

    what: str
    overrides: Sequence[str] = ()
    strategy: Callable[[Pruning], Strategy] = lambda pruning: pruning
    weights: type[Weights] = Weights
    by_loss: bool = False
    merged: int = 0
    every: int = 3


def by(cls: type[Pruning], **more: float) -> Callable[[Pruning], Strategy]:
    """Return what makes a variant of Algorithm 1 of the configured one."""
    return lambda pruning: cls(**{name: getattr(pruning, name) for name in Pruning.__slots__}, **more)


def keep(strategy: Any) -> Strategy:
    """Return the strategy as configured."""
    return strategy


def T(rounds: int) -> str:
    """Return the override of T."""
    return f"pruning.epochs_per_round={rounds}"


LIKELIHOOD = "task.metric=likelihood"
BEFORE = ["data.crop=4", "training.optimizer=sgd", "training.lr=0.1"]
GP = ["strategy=surrogate", "evaluation.budget=36", "evaluation.batch=5"]
NONE = "training.merge=none"
PREDICTED = [*GP, "surrogate.initial=36", "surrogate.noise=3.0", "surrogate.result=predicted"]
SHORT = [*PREDICTED, NONE]
SEQUENTIAL = "training.merge=sequential"
VARIANTS: dict[str, Variant] = {
    "base": Variant("base: crop 1, AdamW, T = 3, batch 64, merge mean, accuracy"),
    "before": Variant("crop 4, SGD, learning rate 0.1", BEFORE),
    "crop4": Variant("crop 4", BEFORE[:1]),
    "sgd": Variant("SGD, learning rate 0.05", ["training.optimizer=sgd", "training.lr=0.05"]),
    "b32": Variant("batch 32", ["training.batch_size=32"]),
    "lr1": Variant("learning rate 0.001", ["training.lr=0.001"]),
    "loss": Variant("(d) training loss instead of accuracy", by_loss=True),
    "fresh": Variant("no sharing", [NONE]),
    "freshloss": Variant("no sharing, training loss", [NONE], by_loss=True),
    "freshlike": Variant("no sharing, likelihood", [LIKELIHOOD, NONE]),
    "common": Variant("sharing of common parts, likelihood", [LIKELIHOOD], weights=Common),
    "freshlikegp": Variant("no sharing, likelihood, surrogate", [*GP, LIKELIHOOD, NONE], keep),
    "freshlikeeffects": Variant("no sharing, likelihood, main effects", [LIKELIHOOD, NONE], by(Effects)),
    "short": Variant("no sharing, likelihood, 36 disjoint networks, the best prediction", [*SHORT, LIKELIHOOD], keep),
    "shortloss": Variant(
        "no sharing, training loss, 36 disjoint networks, the best prediction", SHORT, keep, by_loss=True
    ),
    "short144": Variant(
        "no sharing, likelihood, 144 disjoint networks, the best prediction",
        [*SHORT, LIKELIHOOD, "evaluation.budget=144", "surrogate.initial=144"],
        keep,
    ),
    "shared": Variant("base, 36 disjoint networks, the best prediction", [*PREDICTED], keep),
    "freshlikeval2k": Variant(
        "no sharing, likelihood, twice the validation images", [LIKELIHOOD, "data.val_limit=2000", NONE]
    ),
    "gploss": Variant("training loss, surrogate", GP, keep, by_loss=True),
    "warm3": Variant("(a) warm-up of 3 epochs", ["evaluation.budget=51"], by(WarmUp)),  # 3 epochs of 5 more
    "t6": Variant("(a) T = 6", [T(6)], every=6),
    "t12": Variant("(a) T = 12", [T(12)], every=12),
    "t33": Variant("(a) T = 33", [T(33)], every=33),
    "seq": Variant("(b) merge sequential", [SEQUENTIAL]),
    "merge2": Variant("(b) merge of 2 architectures at a time", merged=2),
    "merge4": Variant("(b) merge of 4 architectures at a time", merged=4),
    "sum": Variant("(b) merge by the sum of changes", weights=server(by_sum=True)),
    "rate2": Variant("(b) server learning rate 2", weights=server(rate=2.0)),
    "momentum": Variant("(b) server momentum 0.5", weights=server(momentum=0.5)),
    "effects": Variant("(c) main effects of all records", strategy=by(Effects)),
    "sharp": Variant("(c) utilities stretched 10 times", strategy=by(Sharp)),
    "last": Variant("(d) last epoch of a round alone", strategy=by(LastEpoch)),
    "likelihood": Variant("(d) likelihood instead of accuracy", [LIKELIHOOD]),
    "val2k": Variant("(d) twice the validation images", ["data.val_limit=2000"]),
    "bn2k": Variant("(d) 2,048 images for BatchNorm", ["training.bn_images=2048"]),
    "t6effects": Variant("T = 6, main effects", [T(6)], strategy=by(Effects), every=6),
    "t12effects": Variant("T = 12, main effects", [T(12)], strategy=by(Effects), every=12),
    "t6seq": Variant("T = 6, sequential", [T(6), SEQUENTIAL], every=6),
    "t6all": Variant(
        "T = 6, likelihood, main effects, sequential", [T(6), LIKELIHOOD, SEQUENTIAL], strategy=by(Effects), every=6
    ),
}


# --- running ----------------------------------------------------------------------------------------------------------

_job: dict[str, Any] = {}


def prepare(table: str, sizes: Sequence[str]) -> None:
    """Keep the options in a worker process."""
    import torch

    torch.set_num_threads(1)
    _job.update(table=table, sizes=list(sizes))


def search(name: str, seed: int) -> dict[str, Any]:
    """Run one search and return what is kept of it."""
    from ddpnas_ray.execution import local

    variant, start = VARIANTS[name], time.perf_counter()
    fixed = [*data(), f"evaluation.table={_job['table']}", f"seed={seed}"]
    experiment = Experiment.prepare(load(CONFIG, [*fixed, *RECIPE, *_job["sizes"], *variant.overrides]))
    space, benchmark = experiment.spec.space, experiment.benchmark
    assert benchmark is not None
    local.Weights = variant.weights  # type: ignore[attr-defined]
    executor, strategy = experiment.executor(), variant.strategy(experiment.strategy())  # type: ignore[arg-type]
    executor = ByLoss(executor) if variant.by_loss else executor
    executor = InGroups(executor, variant.merged) if variant.merged else executor
    probe = Probe.make(space, benchmark.table, FINAL, PROBED)

    def save(state: SearchState, tensors: object) -> None:
        if state.epoch % variant.every == 0 and not experiment.config.shares_nothing:
            probe.measure(executor, state)

    state = run_search(strategy, executor, space, initial_state(space, seed), save=save)
    found = strategy.answer(state, space)
    if strategy.by_rounds and found is None:
        best = solve(Problem(space, state.theta_EK, state.live_EK & space.generable_EK), {}, k=VERIFIED)
        alphas_NE = np.array([solution.alpha_E for solution in best])
    else:
        assert found is not None
        alphas_NE = found[None]
    scored = executor.evaluate(epoch_plan(state, alphas_NE, 0.0, train=False).requests)
    return {
        "variant": name,
        "seed": seed,
        "epochs": len([row for row in state.evaluations if row.trained]),
        "seconds": time.perf_counter() - start,
        "answer": alphas_NE[0].tolist(),
        "likely": alphas_NE.tolist(),
        "likely_scores": [result.score for result in scored],
        "tau": probe.tau_by_epoch(),
        "probe": [row["score"] for row in probe.rows],
        "evaluations": [(row.epoch, row.alpha_E, row.score, row.loss) for row in state.evaluations],
        "theta": state.theta_EK.tolist(),
    }


def run(folder: Path, names: Sequence[str], seeds: Sequence[int], table: str, sizes: Sequence[str]) -> None:
    """Run the searches that the folder lacks, seed by seed."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [(name, seed) for seed in seeds for name in names if not (folder / f"{name}-{seed}.json").exists()]
    with ProcessPoolExecutor(2, initializer=prepare, initargs=(table, sizes)) as pool:
        futures = {pool.submit(search, name, seed): (name, seed) for name, seed in missing}
        for future in as_completed(futures):
            name, seed = futures[future]
            found = future.result()
            (folder / f"{name}-{seed}.json").write_text(json.dumps(found))
            say(
                f"{name}, seed {seed}: tau {[round(tau, 2) for tau in found['tau'].values()]}, {found['seconds']:.0f} s"
            )


def alone(folder: Path, table: str, sizes: Sequence[str]) -> None:
    """Print the rank correlation of networks trained alone with the table, by epoch."""
    spec = nasbench201.make()
    probe = Probe.make(spec.space, ScoreTable.read(table, spec.space, spec.encode), FINAL, PROBED)
    with ProcessPoolExecutor(2, initializer=prepare, initargs=(table, sizes)) as pool:
        curves = list(pool.map(train_alone, probe.alphas_NE.tolist()))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "alone.json").write_text(json.dumps(curves))
    print("| epochs | tau of val accuracy | tau of training loss | mean accuracy |\n| --- | --- | --- | --- |")
    for epoch in range(EPOCHS):
        scores, losses = zip(*(curve[epoch] for curve in curves), strict=True)
        by_score, by_loss = (kendalltau(x, probe.truth_N).statistic for x in (scores, [-loss for loss in losses]))
        print(f"| {epoch + 1} | {by_score:.2f} | {by_loss:.2f} | {statistics.fmean(scores):.3f} |")


def train_alone(alpha: Sequence[int]) -> list[tuple[float, float]]:
    """Return validation accuracy and training loss of every epoch of one network."""
    experiment = Experiment.prepare(load(CONFIG, [*data(), *RECIPE, *_job["sizes"]]))
    executor, rate, curve = experiment.executor(), experiment.config.training.lr, []
    for epoch in range(EPOCHS):
        request = EvalRequest(0, epoch, 0, np.array(alpha), cosine(rate, epoch, EPOCHS))
        (result,) = executor.evaluate([request])
        curve.append((result.score, result.loss))
    return curve


def data() -> list[str]:
    """Return the overrides that all trainings have."""
    folder = Path(os.environ.get("DDPNAS_TEST_DATA", ROOT.parent / "shared" / "data")) / "cifar10"
    return [f"data.path={folder}", "execution.backend=local"]


# --- tables -----------------------------------------------------------------------------------------------------------


def show(folder: Path, table: str) -> None:
    """Print the comparison of all variants, and tau by epoch."""
    spec = nasbench201.make()
    known = ScoreTable.read(table, spec.space, spec.encode)
    val_N, final_N = known.scores[SCORE], known.scores[FINAL]
    best = 100.0 * float(final_N.max())
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for name in VARIANTS:
        for path in sorted(folder.glob(f"{name}-*.json")):
            row = json.loads(path.read_text())
            chosen = int(np.argmax(row["likely_scores"]))
            row["accuracy"] = 100.0 * known.score(FINAL, np.array(row["answer"]))
            row["verified"] = 100.0 * known.score(FINAL, np.array(row["likely"][chosen]))
            row["last_tau"] = list(row["tau"].values())[-1] if row["tau"] else math.nan
            row["own_tau"] = own_tau(row["evaluations"], known)
            found.setdefault(name, {})[row["seed"]] = row
    header = ["search", "seeds", "training epochs", "tau of the scores it learns from", "tau of inherited scores"]
    header += ["accuracy of the result", "less base", "regret", "best of the 16 most probable by inherited score"]
    header += ["random search, equal epochs", "min"]
    print("| " + " | ".join(header) + " |\n|" + " --- |" * len(header))
    base = found.get("base", {})
    for name, rows in found.items():
        pairs = [(row, base[seed]) for seed, row in rows.items() if seed in base and name != "base"]
        epochs = next(iter(rows.values()))["epochs"]
        random = 100.0 * expected_best(val_N, final_N, max(1, epochs // EPOCHS))
        accuracy = [row["accuracy"] for row in rows.values()]
        cells = [
            VARIANTS[name].what,
            str(len(rows)),
            str(epochs),
            spread([row["own_tau"] for row in rows.values()]),
            spread([row["last_tau"] for row in rows.values()]),
            spread(accuracy),
            spread([row["accuracy"] - other["accuracy"] for row, other in pairs]),
            f"{best - statistics.fmean(accuracy):.2f}",
            spread([row["verified"] for row in rows.values()]),
            f"{random:.2f}",
            f"{statistics.fmean(row['seconds'] for row in rows.values()) / 60:.1f}",
        ]
        print("| " + " | ".join(cells) + " |")
    print("\n| search | tau of inherited scores by epoch, mean over seeds |\n| --- | --- |")
    for name, rows in found.items():
        if not next(iter(rows.values()))["tau"]:
            continue
        epochs = list(next(iter(rows.values()))["tau"])
        means = [statistics.fmean(row["tau"][epoch] for row in rows.values()) for epoch in epochs]
        taus = ", ".join(f"{epoch}: {mean:.2f}" for epoch, mean in zip(epochs, means, strict=True))
        print(f"| {VARIANTS[name].what} | {taus} |")


def predict(folder: Path, table: str) -> None:
    """Print what a Gaussian process over the first evaluations of searches without sharing would have answered."""
    spec = nasbench201.make()
    known = ScoreTable.read(table, spec.space, spec.encode)
    pool_NE = np.array(np.meshgrid(*[np.arange(5)] * 6, indexing="ij")).reshape(6, -1).T
    truth_N = np.array([100.0 * known.score(FINAL, alpha_E) for alpha_E in pool_NE])
    pool_NF, length = features(pool_NE, spec.space, 0.5), 1.1 * len(spec.space.edges)
    header = ["search", "seeds", "evaluations", "by", "accuracy of the prediction", "tau of all predictions"]
    print("\n| " + " | ".join(header) + " |\n|" + " --- |" * len(header))
    for name in ("freshlike", "freshloss", "short"):
        runs = [json.loads(path.read_text()) for path in sorted(folder.glob(f"{name}-*.json"))]
        for cut in (12, 24, 36):
            for column, by in ((2, "score"), (3, "training loss")):
                accuracies, taus = [], []
                for run_ in runs:
                    rows = run_["evaluations"][:cut]
                    values_N = np.array([row[2] if column == 2 else -row[3] for row in rows])
                    seen_NF = features(np.array([row[1] for row in rows]), spec.space, 0.5)
                    mean_N, _ = posterior(seen_NF, normal_scores(values_N), pool_NF, length=length, noise=3.0)
                    accuracies.append(float(truth_N[mean_N.argmax()]))
                    taus.append(float(kendalltau(mean_N, truth_N).statistic))
                cells = [VARIANTS[name].what, str(len(runs)), str(cut), by, spread(accuracies), spread(taus)]
                print("| " + " | ".join(cells) + " |")


def own_tau(evaluations: Sequence[Any], known: ScoreTable) -> float:
    """Return the rank correlation of a search's scores with the table over the pairs of equal epochs."""
    signs = []
    for epoch in sorted({row[0] for row in evaluations}):
        rows = [(score, known.score(FINAL, np.array(alpha))) for at, alpha, score, _ in evaluations if at == epoch]
        for i, (score, truth) in enumerate(rows):
            signs += [np.sign((score - other) * (truth - fact)) for other, fact in rows[:i]]
    return float(np.mean(signs))


def spread(values: Sequence[float]) -> str:
    """Format mean and standard error of the finite ones."""
    values = [value for value in values if math.isfinite(value)]
    if len(values) < 2:
        return " ".join(f"{value:.2f}" for value in values) or "-"
    return f"{statistics.fmean(values):.2f} +- {statistics.stdev(values) / len(values) ** 0.5:.2f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "show", "alone"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--table", required=True, help="Parquet file with all 15,625 architectures")
    parser.add_argument("--only", default=",".join(VARIANTS), help="variants, comma-separated")
    parser.add_argument("--seeds", default="0..4", help="A..B; choices were made on 0..4")
    parser.add_argument("--set", action="append", default=[], help="configuration overrides of all variants")
    args = parser.parse_args()
    first, last = args.seeds.split("..")
    if args.what == "run":
        run(args.folder, args.only.split(","), range(int(first), int(last) + 1), args.table, args.set)
    else:
        print(facts() + "\n")
        if args.what == "alone":
            alone(args.folder, args.table, args.set)
        else:
            show(args.folder, args.table)
            predict(args.folder, args.table)
