"""Tightness of the paper's error bound, its toy example, and calibration of the ledger.

    python benchmarks/theory.py                half a minute on one core
    python benchmarks/theory.py RUN            also the ledger and the standard deviation fit of a run directory

Rounds are simulated: for the theorems, K Gaussians C sigma apart (one score per operation); for the ledger, a space
whose scores are a sum of one effect per edge, one per epoch, and noise.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # one core

import sys
from pathlib import Path

import numpy as np

from ddpnas_ray.core.risks import fit_deviation, round_risks
from ddpnas_ray.core.sampling import disjoint_sample
from ddpnas_ray.core.theory import confusion, error_bound, toy_experiment
from ddpnas_ray.runs.files import read_evaluations

ROUNDS = 10_000
SPACES = 200


def tightness(operations: int) -> None:
    """Print how often rounds keep the worst operation, beside Theorems 2 and 3; delta is zeta / K, as printed."""
    print(f"\n### K = {operations}: an error is that not the worst operation goes; {ROUNDS:,} rounds\n")
    print(
        "| C | simulated | exact | worst two, exact (Thm 2) | bound (Eq. 17) | bound / exact |\n" + "| --- " * 6 + "|"
    )
    for spacing in (0.41, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0):
        toy = toy_experiment(operations=operations, spacing=spacing, samples=ROUNDS)
        bound = error_bound(spacing * (operations - 1) / operations, 1.0, operations)
        pair, says = confusion(0.0, spacing, 1.0), "" if bound < 1 else " (says nothing)"
        ratio = bound / toy.p_worst_kept_exact
        print(
            f"| {spacing} | {toy.p_worst_kept:.4f} | {toy.p_worst_kept_exact:.5f} | {pair:.5f} | {bound:.3f}{says} "
            f"| {ratio:.3g} |"
        )


def toy() -> None:
    """Print Sec. 4.3, with one score per operation as printed, and with the mean of three epochs."""
    print(f"\n### Toy example of Sec. 4.3; {ROUNDS:,} rounds\n")
    print("| K | C | scores | Kendall's tau, simulated | exact | best kept, simulated | exact | in print |")
    print("| --- " * 8 + "|")
    for operations, spacing, visits in ((8, 0.41, 1), (8, 0.424, 1), (8, 0.41, 3), (5, 0.41, 1), (5, 0.41, 3)):
        t = toy_experiment(operations=operations, spacing=spacing, visits=visits, samples=ROUNDS)
        kept, exact = 1 - t.p_best_pruned, 1 - t.p_best_pruned_exact
        print(
            f"| {operations} | {spacing} | {visits} | {t.kendall_tau:.4f} | {t.kendall_tau_exact:.4f} "
            f"| {kept:.4f} | {exact:.5f} | {t.p_best_kept_as_printed:.5f} |"
        )


def calibration() -> None:
    """Print the ledger's probabilities for simulated first rounds, next to the frequencies; K = 8, three epochs."""
    print(f"\n### Ledger of {SPACES} simulated rounds, 8 operations, 3 epochs\n")
    print("| edges | noise / effect | confused: happened | shrunk | plain | best pruned: happened | shrunk | plain |")
    print("| --- " * 8 + "|")
    for edges in (1, 6, 28):
        for noise in (0.3, 1.0, 3.0):
            happened, said = _rounds(edges, noise)
            print(
                f"| {edges} | {noise} | {happened[0]:.3f} | {said[0, 0]:.3f} | {said[1, 0]:.3f} "
                f"| {happened[1]:.4f} | {said[0, 1]:.4f} | {said[1, 1]:.4f} |"
            )


def _rounds(edges: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the frequencies of both mistakes, and the ledger's probabilities (shrunk, plain)."""
    rng, effect, e = np.random.default_rng(0), 0.003, np.arange(edges)
    live_EK, epoch_N = np.ones((edges, 8), dtype=bool), np.repeat(np.arange(3), 8)
    happened, said = [], []
    for _ in range(SPACES):
        effect_EK = effect * rng.standard_normal((edges, 8))
        alphas_NE = np.concatenate([disjoint_sample(live_EK / 8, live_EK, rng) for _ in range(3)])
        scores_N = 0.5 + 0.02 * epoch_N + effect_EK[e, alphas_NE].sum(axis=1) + noise * effect * rng.standard_normal(24)
        ledgers = [round_risks(alphas_NE, scores_N, epoch_N, live_EK, shrink=shrink) for shrink in (True, False)]
        said.append([[ledger.p_confused_E.mean(), ledger.p_best_pruned_E.mean()] for ledger in ledgers])
        order_EK = ledgers[0].estimate.utility_EK.argsort(axis=1)
        reversed_E = effect_EK[e, order_EK[:, 1]] < effect_EK[e, order_EK[:, 0]]
        happened.append([reversed_E.mean(), (effect_EK.argmax(axis=1) == order_EK[:, 0]).mean()])
    return np.mean(happened, axis=0), np.mean(said, axis=0)


def ledger(run: Path) -> None:
    """Print the ledger of a run without conditional edges; every visited operation counts as prunable."""
    rows = [row for row in read_evaluations((run / "evaluations.parquet").read_bytes()) if row.split == "val"]
    alphas_NE, scores_N = np.array([row.alpha_E for row in rows]), np.array([row.score for row in rows])
    round_N, epoch_N = np.array([row.round for row in rows]), np.array([row.epoch for row in rows])
    fit = fit_deviation(alphas_NE, scores_N, round_N, epoch_N)
    print(f"\n### {run.name}: sigma_t = {fit.beta:.2e} (t* - t) + {fit.eta:.4f}, t* = {fit.converged_epoch:g}\n")
    print("| round | sigma | fitted | tau | confused, mean of the edges | best pruned, mean of the edges |")
    print("| --- " * 6 + "|")
    for r, number in enumerate(np.unique(round_N)):
        n = round_N == number
        live_EK = (alphas_NE[n][:, :, None] == np.arange(alphas_NE.max() + 1)).any(axis=0)
        risks = round_risks(alphas_NE[n], scores_N[n], epoch_N[n], live_EK)
        print(
            f"| {number} | {risks.estimate.sigma:.4f} | {fit.sigma_at(fit.epoch_R[r]):.4f} | {risks.estimate.tau:.4f} "
            f"| {np.nanmean(risks.p_confused_E):.3f} | {np.nanmean(risks.p_best_pruned_E):.3f} |"
        )


def main() -> None:
    """Print all tables."""
    for operations in (8, 5, 2):
        tightness(operations)
    toy()
    calibration()
    for run in sys.argv[1:]:
        ledger(Path(run))


if __name__ == "__main__":
    main()
