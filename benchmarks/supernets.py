"""Searches with real supernets on NAS-Bench-201, one change at a time: does it find better networks, for its cost?

Cost is training epochs on the search's images. Every search trains on real CIFAR-10 (reduced, as in
``configs/cifar10_nasbench201_cpu.yaml``), in one process and one thread; its result is looked up in the table. Searches
that are finished are kept in FOLDER, so a run continues where it was stopped:

    python benchmarks/supernets.py run FOLDER --table TABLE.parquet                  all variants, hours
    python benchmarks/supernets.py run FOLDER --table TABLE.parquet --only base,b16  some
    python benchmarks/supernets.py show FOLDER --table TABLE.parquet                 the tables of docs/measurements.md
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")  # each process one core

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, facts, say

from ddpnas_ray.core.generation.problem import Problem
from ddpnas_ray.core.generation.solve import solve
from ddpnas_ray.core.requests import EvalResult, Plan
from ddpnas_ray.core.space import FloatArray, SearchSpace
from ddpnas_ray.core.state import SearchState, initial_state
from ddpnas_ray.core.utility import record, utility
from ddpnas_ray.experiment.config import load
from ddpnas_ray.experiment.experiment import Experiment
from ddpnas_ray.experiment.loop import run_search
from ddpnas_ray.nn.weights import Float32Array, Layout, Weights
from ddpnas_ray.spaces.nasbench201 import space as nasbench201
from ddpnas_ray.strategies.base import Strategy, epoch_plan
from ddpnas_ray.strategies.pruning import Pruning
from ddpnas_ray.tabular.probe import Probe
from ddpnas_ray.tabular.table import ScoreTable, expected_best

CONFIG = str(ROOT / "configs" / "cifar10_nasbench201_cpu.yaml")
SCORE, FINAL = "cifar10valid_valid_e12", "cifar10_test_e200"
EPOCHS = 12  # of a network's own training, by the benchmark
VERIFIED = 16


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
        before, counts = self.flat.copy(), dict.fromkeys(self.tensors, 0)
        for layout, _ in learned:
            for piece in layout.pieces:
                counts[piece.name] += 1
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
        every: Epochs between two measurements of tau, which take as long as several architecture-epochs.
    """

    what: str
    overrides: Sequence[str] = ()
    strategy: Callable[[Pruning], Strategy] = lambda pruning: pruning
    weights: type[Weights] = Weights
    every: int = 3


def by(cls: type[Pruning], **more: float) -> Callable[[Pruning], Strategy]:
    """Return what makes a variant of Algorithm 1 of the configured one."""
    return lambda pruning: cls(**{name: getattr(pruning, name) for name in Pruning.__slots__}, **more)


def T(rounds: int) -> str:
    """Return the override of T."""
    return f"pruning.epochs_per_round={rounds}"


LIKELIHOOD = "task.metric=likelihood"
B16, B32 = "training.batch_size=16", "training.batch_size=32"
ADAMW = ["training.optimizer=adamw", "training.lr=0.002"]
VARIANTS: dict[str, Variant] = {
    "base": Variant("T = 3, batch 64, merge mean, accuracy"),
    "b32": Variant("batch 32", [B32]),
    "b16": Variant("batch 16", [B16]),
    "lr025": Variant("learning rate 0.025", ["training.lr=0.025"]),
    "warm3": Variant("warm-up of 3 epochs", strategy=by(WarmUp)),
    "t6": Variant("T = 6", [T(6)], every=6),
    "t12": Variant("T = 12", [T(12)], every=12),
    "t33": Variant("T = 33", [T(33)], every=33),
    "seq": Variant("merge sequential", ["training.merge=sequential"]),
    "sum": Variant("merge by sum of changes", weights=server(by_sum=True)),
    "rate2": Variant("server learning rate 2", weights=server(rate=2.0)),
    "momentum": Variant("server momentum 0.5", weights=server(momentum=0.5)),
    "effects": Variant("main effects of all records", strategy=by(Effects)),
    "sharp": Variant("utilities stretched 10 times", strategy=by(Sharp)),
    "last": Variant("last epoch of a round alone", strategy=by(LastEpoch)),
    "likelihood": Variant("likelihood instead of accuracy", [LIKELIHOOD]),
    "val1k": Variant("1,000 validation images", ["data.val_limit=1000"]),
    "bn2k": Variant("2,048 images for BatchNorm", ["training.bn_images=2048"]),
    "b32lr05": Variant("batch 32, learning rate 0.05", [B32, "training.lr=0.05"]),
    "b16lr025": Variant("batch 16, learning rate 0.025", [B16, "training.lr=0.025"]),
    "adamw": Variant("AdamW, learning rate 0.002", ADAMW),
    "b32adamw": Variant("batch 32, AdamW, learning rate 0.002", [B32, *ADAMW]),
    "b16adamw": Variant("batch 16, AdamW, learning rate 0.001", [B16, ADAMW[0], "training.lr=0.001"]),
    "b16like": Variant("batch 16, likelihood", [B16, LIKELIHOOD]),
    "b16seq": Variant("batch 16, sequential", [B16, "training.merge=sequential"]),
    "b16warm": Variant("batch 16, warm-up of 3 epochs", [B16], strategy=by(WarmUp)),
    "b16t6": Variant("batch 16, T = 6", [B16, T(6)], every=6),
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
    data = Path(os.environ.get("DDPNAS_TEST_DATA", ROOT.parent / "shared" / "data")) / "cifar10"
    fixed = [f"data.path={data}", f"evaluation.table={_job['table']}", "execution.backend=local", f"seed={seed}"]
    experiment = Experiment.prepare(load(CONFIG, [*fixed, *_job["sizes"], *variant.overrides]))
    space, benchmark = experiment.spec.space, experiment.benchmark
    assert benchmark is not None
    local.Weights = variant.weights  # type: ignore[attr-defined]
    executor, strategy = experiment.executor(), variant.strategy(experiment.strategy())  # type: ignore[arg-type]
    probe = Probe.make(space, benchmark.table, FINAL, 40)

    def save(state: SearchState, tensors: object) -> None:
        if state.epoch % variant.every == 0:
            probe.measure(executor, state)

    state = run_search(strategy, executor, space, initial_state(space, seed), save=save)
    likely = solve(Problem(space, state.theta_EK, state.live_EK & space.generable_EK), {}, k=VERIFIED)
    alphas_NE = np.array([solution.alpha_E for solution in likely])
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
            say(f"{name}, seed {seed}: tau {list(found['tau'].values())[-1]:.2f}, {found['seconds']:.0f} s")


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
            row["last_tau"] = list(row["tau"].values())[-1]
            found.setdefault(name, {})[row["seed"]] = row
    header = [
        "search",
        "seeds",
        "training epochs",
        "tau at the end",
        "less base",
        "accuracy of the result",
        "less base",
    ]
    header += ["regret", "of the 16 most probable, the best by inherited score", "random search, equal epochs", "min"]
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
            spread([row["last_tau"] for row in rows.values()]),
            spread([row["last_tau"] - other["last_tau"] for row, other in pairs]),
            spread(accuracy),
            spread([row["accuracy"] - other["accuracy"] for row, other in pairs]),
            f"{best - statistics.fmean(accuracy):.2f}",
            spread([row["verified"] for row in rows.values()]),
            f"{random:.2f}",
            f"{statistics.fmean(row['seconds'] for row in rows.values()) / 60:.1f}",
        ]
        print("| " + " | ".join(cells) + " |")
    print("\n| search | tau by epoch, mean over seeds |\n| --- | --- |")
    for name, rows in found.items():
        epochs = list(next(iter(rows.values()))["tau"])
        means = [statistics.fmean(row["tau"][epoch] for row in rows.values()) for epoch in epochs]
        taus = ", ".join(f"{epoch}: {mean:.2f}" for epoch, mean in zip(epochs, means, strict=True))
        print(f"| {VARIANTS[name].what} | {taus} |")


def spread(values: Sequence[float]) -> str:
    """Format mean and standard error."""
    if len(values) < 2:
        return " ".join(f"{value:.2f}" for value in values) or "-"
    return f"{statistics.fmean(values):.2f} +- {statistics.stdev(values) / len(values) ** 0.5:.2f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "show"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--table", required=True, help="Parquet file with all 15,625 architectures")
    parser.add_argument("--only", default=",".join(VARIANTS), help="variants, comma-separated")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], help="configuration overrides of all variants")
    args = parser.parse_args()
    if args.what == "run":
        run(args.folder, args.only.split(","), range(args.seeds), args.table, args.set)
    else:
        print(facts())
        show(args.folder, args.table)
