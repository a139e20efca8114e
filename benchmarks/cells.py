"""Stand-alone truth for the cell space, which has no table: are the answers of searches better than random cells?

Searches on real CIFAR-10 (reduced) by two settings at equal training epochs, and finals after one of them; then every
answer, DARTS_V2 and random cells are trained alone by one recipe, and tested on CIFAR-10's test images. What is
finished is kept in FOLDER, so a run continues where it was stopped:

    python benchmarks/cells.py run FOLDER    two hours on two cores
    python benchmarks/cells.py show FOLDER
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")  # each process one core

import argparse
import json
import statistics
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, facts, say, spread

import ddpnas_ray as nas
from ddpnas_ray.core.generation.problem import Problem, random_alphas
from ddpnas_ray.core.state import initial_state
from ddpnas_ray.spaces.cell import space as cell
from ddpnas_ray.spaces.known import known_network

CIFAR10 = Path(os.environ.get("DDPNAS_TEST_DATA", ROOT.parent / "shared" / "data")) / "cifar10"
EPOCHS = 66  # of Algorithm 1 with T = 2: 8 + 7 + 6 + 5 + 4 + 3 networks an epoch
BASE = [
    "space.name=cell",
    "space.cells=5",
    "space.channels=8",
    "data.name=cifar10",
    f"data.path={CIFAR10}",
    "data.val_fraction=0.5",
    "data.image_size=16",
    "data.crop=1",
    "data.train_limit=2000",
    "data.val_limit=1000",
    "training.batch_size=64",
    "training.optimizer=adamw",
    "training.lr=0.002",
    "target.cells=5",
    "target.channels=8",
    "retraining.train_on=train",
    "retraining.batch_size=64",
    "retraining.optimizer=adamw",
    "retraining.lr=0.002",
    "execution.backend=local",
]
ALGORITHM_1 = ["strategy=pruning", "pruning.epochs_per_round=2"]
ALONE = [
    "task.metric=likelihood",
    "training.merge=none",
    "strategy=surrogate",
    f"evaluation.budget={EPOCHS}",
    "evaluation.batch=8",
    f"surrogate.initial={EPOCHS}",
    "surrogate.noise=3.0",
    "surrogate.result=predicted",
]
SETTINGS: dict[str, tuple[str, list[str]]] = {
    "shared": ("Algorithm 1, shared weights", ALGORITHM_1),
    "alone": ("no sharing, the best prediction", ALONE),
}
FINALS = ["finals.networks=8", "finals.first_epochs=3", "finals.epochs=12"]
TRAINING = ["retraining.epochs=15", "retraining.seeds=2"]
SEEDS, RANDOM = range(3), 12


def search(folder: Path, setting: str, seed: int) -> tuple[str, Mapping[str, Any]]:
    """Return the answer of a search, which is run or read."""
    import torch

    torch.set_num_threads(1)
    out = folder / f"{setting}-{seed}"
    overrides = [*BASE, *SETTINGS[setting][1], f"seed={seed}"]
    run = nas.search(None, overrides=overrides, out=out, resume=(out / "config.yaml").exists(), progress=False)
    return f"{SETTINGS[setting][0]}, seed {seed}", run.genotype


def finals(folder: Path, setting: str) -> tuple[str, Mapping[str, Any]]:
    """Return the winner of finals after a setting's first search."""
    import torch

    torch.set_num_threads(1)
    run = nas.load(folder / f"{setting}-{SEEDS[0]}")
    winner = run.finals(overrides=FINALS, progress=False)
    return f"{SETTINGS[setting][0]}, seed {SEEDS[0]}, then finals of 8", winner.genotype


def train(folder: Path, number: int, name: str, genotype: Mapping[str, Any]) -> dict[str, Any]:
    """Train a network alone with every seed, or read the result."""
    import torch

    torch.set_num_threads(1)
    file = folder / f"network-{number}.json"
    file.write_text(json.dumps(genotype))
    out = folder / f"network-{number}"
    from ddpnas_ray.retraining.files import first_files
    from ddpnas_ray.retraining.prepare import Wish, make
    from ddpnas_ray.retraining.progress import RetrainingProgress
    from ddpnas_ray.retraining.run import retrain_here
    from ddpnas_ray.runs.directory import create_run

    job = make(Wish(genotype=str(file), overrides=[*BASE, *TRAINING]))
    done = out / "result.json"
    if not done.exists():
        progress = RetrainingProgress(name, job.seeds, job.config.retraining.epochs)
        folder_ = create_run(str(out), first_files(job))
        retrain_here(job, folder_, progress, "cpu")
    (score,) = [row for row in json.loads(done.read_text())["scores"] if row["split"] == "test"]
    return {"name": name, **job.chosen.costs, "mean": score["value"], "std": score["std"]}


def main() -> None:
    """Run the benchmark; see the module docstring."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["run", "show"])
    p.add_argument("folder", type=Path)
    args = p.parse_args()
    table = args.folder / "rows.json"
    if args.what == "run":
        args.folder.mkdir(parents=True, exist_ok=True)
        table.write_text(json.dumps(measured(args.folder)))
    show(json.loads(table.read_text()))


def measured(folder: Path) -> list[dict[str, Any]]:
    """Run all searches, finals and trainings that are missing."""
    spec = cell.make(cells=5, channels=8)
    start = initial_state(spec.space, 0)
    problem = Problem(spec.space, start.theta_EK, spec.space.generable_EK)
    drawn = random_alphas(problem, RANDOM, np.random.default_rng(0))
    networks: list[tuple[str, Mapping[str, Any]]]
    networks = [(f"random {i}", spec.decode(np.array(alpha))) for i, alpha in enumerate(drawn)]
    networks.append(("DARTS_V2", known_network("darts_v2").genotype))
    with ProcessPoolExecutor(2) as pool:
        jobs = [pool.submit(search, folder, setting, seed) for seed in SEEDS for setting in SETTINGS]
        for job in jobs:
            networks.append(job.result())
            say(networks[-1][0])
        networks += [job.result() for job in [pool.submit(finals, folder, setting) for setting in SETTINGS]]
        say("finals")
        trainings = [pool.submit(train, folder, i, *network) for i, network in enumerate(networks)]
        for training in as_completed(trainings):
            say(str(training.result()))
    return [training.result() for training in trainings]


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table, and how the answers compare with random cells."""
    print(facts() + "\n")
    print("| network | params | macs | test accuracy, 2 seeds |\n| --- | --- | --- | --- |")
    for row in rows:
        print(f"| {row['name']} | {row['params']:,} | {row['macs']:,} | {row['mean']:.4f} +- {row['std']:.4f} |")
    means = {row["name"]: row["mean"] for row in rows}
    random = [mean for name, mean in means.items() if name.startswith("random")]
    print(
        f"\n- {RANDOM} random cells: {spread(random, 4)} (standard deviation {statistics.stdev(random):.4f}, ", end=""
    )
    print(f"best {max(random):.4f})")
    for text, _ in SETTINGS.values():
        answers = [mean for name, mean in means.items() if name.startswith(f"{text}, seed") and "finals" not in name]
        beaten = [sum(answer > mean for mean in random) for answer in answers]
        print(f"- {text}, {len(answers)} answers: {spread(answers, 4)}; better than {beaten} of the random cells")


if __name__ == "__main__":
    main()
