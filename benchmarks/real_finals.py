"""Finals against none on real training at equal cost, on NAS-Bench-201, whose table has the truth.

Each search trains networks alone for an epoch, without shared weights, and answers by prediction
(``configs/cifar10_nasbench201_short.yaml``); finals then train its best by successive halving. Without finals the
search has all the epochs. Finished runs are kept in FOLDER:

    python benchmarks/real_finals.py FOLDER --table TABLE.parquet --seeds 0..4
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")  # each process one core

import argparse
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from common import ROOT, facts, say, spread

import ddpnas_ray as nas
from ddpnas_ray.core.halving import planned_epochs, rungs
from ddpnas_ray.spaces.nasbench201 import space as nasbench201
from ddpnas_ray.tabular.table import ScoreTable

CONFIG = str(ROOT / "configs" / "cifar10_nasbench201_short.yaml")
CIFAR10 = Path(os.environ.get("DDPNAS_TEST_DATA", ROOT.parent / "shared" / "data")) / "cifar10"
FINAL = "cifar10_test_e200"
ROUND, NETWORKS, FIRST, LAST = 3, 8, 3, 6
SEARCH = 12 * ROUND  # training epochs of Algorithm 1: 5, 4 and 3 networks in each epoch of its three rounds
FINALS = [f"finals.networks={NETWORKS}", f"finals.first_epochs={FIRST}", f"finals.epochs={LAST}"]
TOTAL = SEARCH + planned_epochs(rungs(NETWORKS, LAST, FIRST, 2))
assert TOTAL % 12 == 0


def search(folder: Path, epochs: int, seed: int) -> nas.Run:
    """Run a search of so many training epochs, or return it."""
    import torch

    torch.set_num_threads(1)
    out = folder / f"search-{epochs}-{seed}"
    overrides = [f"data.path={CIFAR10}", "execution.backend=local", f"seed={seed}"]
    overrides += [f"pruning.epochs_per_round={epochs // 12}"]
    return nas.search(CONFIG, overrides=overrides, out=out, resume=(out / "config.yaml").exists(), progress=False)


def with_finals(folder: Path, seed: int) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the answer of a search, and the winner of finals after it."""
    run = search(folder, SEARCH, seed)
    return run.genotype, run.finals(overrides=FINALS, progress=False).genotype


def without(folder: Path, seed: int) -> Mapping[str, Any]:
    """Return the answer of a search that has all the epochs."""
    return search(folder, TOTAL, seed).genotype


def main() -> None:
    """Run the benchmark; see the module docstring."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder", type=Path)
    p.add_argument("--table", required=True, help="Parquet file with all 15,625 architectures")
    p.add_argument("--seeds", default="0..4", help="A..B")
    args = p.parse_args()
    first, last = map(int, args.seeds.split(".."))
    seeds = range(first, last + 1)
    spec = nasbench201.make()
    table = ScoreTable.read(args.table, spec.space, spec.encode)

    def truth(genotype: Mapping[str, Any]) -> float:
        return 100.0 * table.score(FINAL, spec.encode(dict(genotype)))

    with ProcessPoolExecutor(2) as pool:
        jobs = {
            seed: (pool.submit(with_finals, args.folder, seed), pool.submit(without, args.folder, seed))
            for seed in seeds
        }
        rows = []
        for seed, (finals, none) in jobs.items():
            rows.append((*map(truth, finals.result()), truth(none.result())))
            say(f"seed {seed}: {rows[-1]}")
    print(facts() + "\n")
    alone, won, longer = (list(column) for column in zip(*rows, strict=True))
    print("| search | training epochs | table accuracy by seed | mean |\n| --- | --- | --- | --- |")
    for name, epochs, values in (
        ("search", SEARCH, alone),
        (f"search, then finals of {NETWORKS}", TOTAL, won),
        ("longer search", TOTAL, longer),
    ):
        print(f"| {name} | {epochs} | {', '.join(f'{value:.2f}' for value in values)} | {spread(values)} |")
    for name, other in (("the same search without", alone), ("the longer search", longer)):
        print(f"\nFinals less {name}, seed by seed: {spread([a - b for a, b in zip(won, other, strict=True)])}")


if __name__ == "__main__":
    main()
