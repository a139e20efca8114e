"""Effect of the order of the data on scores: an image folder, sorted by class, against the same images shuffled.

Three classes of CIFAR-10 (cat, dog, ship) as a folder of PNG files, and twice as a Parquet file in random order, with
the same validation images; each is searched by Algorithm 1 for some epochs from the same weights with the same
architectures (theta does not change before the first round ends). After every epoch the same random networks are
scored with inherited weights. Two shuffled runs show the noise. The last column uses BatchNorm statistics of the first
`bn_images` images, as in an earlier version: in a folder, all of one class.

    DDPNAS_TEST_DATA=DIR python benchmarks/sorted_folder.py
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import cifar10, facts, say
from PIL import Image
from scipy.stats import kendalltau

from ddpnas_ray.core.requests import EvalRequest
from ddpnas_ray.core.state import initial_state
from ddpnas_ray.data.values import Split
from ddpnas_ray.execution.local import LocalExecutor
from ddpnas_ray.experiment.config import check
from ddpnas_ray.experiment.experiment import Experiment
from ddpnas_ray.tasks.base import Batch
from ddpnas_ray.tasks.classification.task import ClassificationTask, make
from ddpnas_ray.training.trainer import Trainer

CLASSES = {"cat": 3, "dog": 5, "ship": 8}
SEARCH = {
    "space": {"name": "cell", "cells": 2, "channels": 8},
    "training": {"batch_size": 32, "lr": 0.1, "bn_images": 128},
    "execution": {"backend": "local"},
}


class FirstImages(ClassificationTask):
    """Task whose BatchNorm statistics are of the first images, whatever their classes."""

    def calibration_batches(self, examples: int, seed: int, batch_size: int) -> Iterator[Batch]:
        """See ``Task``."""
        for start in range(0, examples, batch_size):
            yield self._plain(self.data.train, np.arange(start, start + batch_size))


def write(root: Path, split: Split, name: str) -> None:
    """Write one split as ``folder/<name>/<class>/<n>.png``, and twice as Parquet."""
    stored = []
    for label, number in enumerate(CLASSES.values()):
        folder = root / "folder" / name / list(CLASSES)[label]
        folder.mkdir(parents=True)
        for i, row in enumerate(np.flatnonzero(split.labels_N == number)):
            buffer = io.BytesIO()
            Image.fromarray(split.images.gather(np.array([row]))[0].transpose(1, 2, 0)).save(buffer, "PNG")
            (folder / f"{i:04}.png").write_bytes(buffer.getvalue())
            stored.append({"image": {"bytes": buffer.getvalue(), "path": None}, "label": label})
    features = {"image": {"_type": "Image"}, "label": {"names": list(CLASSES), "_type": "ClassLabel"}}
    for seed in (1, 2) if name == "train" else (1,):
        order = np.random.default_rng(seed).permutation(len(stored)) if name == "train" else range(len(stored))
        table = pa.Table.from_pylist([stored[i] for i in order])
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pq.write_table(table, root / f"{name}-{seed}.parquet")


def scores(data: dict[str, str], size: int, epochs: int, networks: int, task: type[ClassificationTask]) -> np.ndarray:
    """Return the scores of the random networks after every epoch, shape (epochs, networks)."""
    pruning = {"epochs_per_round": epochs + 1}
    job = Experiment.prepare(check({**SEARCH, "data": {**data, "image_size": size}, "pruning": pruning}, "benchmark"))
    made, config = make(job.config.data, job.config.seed), job.config
    own = task(made.data, made.metric)
    executor = LocalExecutor(Trainer(spec=job.spec, task=own, config=config.training, seed=config.seed))
    space, strategy = job.spec.space, job.strategy()
    alphas_NE = np.random.default_rng(0).integers(space.shape[1], size=(networks, space.shape[0]))
    state, found = initial_state(space, job.config.seed), []
    for epoch in range(epochs):
        plan = strategy.ask(state, space)
        state = strategy.tell(state, space, plan, executor.evaluate(plan.requests))
        requests = [EvalRequest(0, epoch, n, alpha_E, lr=0.0, train=False) for n, alpha_E in enumerate(alphas_NE)]
        found.append([result.score for result in executor.evaluate(requests)])
        say(f"{data['path']}, {task.__name__}: epoch {epoch + 1}, mean score {np.mean(found[-1]):.3f}")
    return np.array(found)


def main() -> None:
    """Run the benchmark; see the module docstring."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--images", type=int, default=150, help="training images a class, 150 by default; a third to score")
    p.add_argument("--size", type=int, default=16, help="pixels a side, default 16")
    p.add_argument("--epochs", type=int, default=3)
    p.add_argument("--networks", type=int, default=24, help="random networks that are ranked, default 24")
    args = p.parse_args()
    here = facts()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        images = cifar10(train=10 * args.images, val=10 * (args.images // 3), seed=0)
        write(root, images.train, "train")
        write(root, images.val, "val")
        of_folder = {"name": "folder", "path": str(root / "folder")}
        shuffled = [
            {"name": "parquet", "path": str(root / f"train-{i}.parquet"), "val_path": str(root / "val-1.parquet")}
            for i in (1, 2)
        ]
        runs = [*product([of_folder, *shuffled], [ClassificationTask]), (of_folder, FirstImages)]
        by_class, one, two, first = (scores(data, args.size, args.epochs, args.networks, t) for data, t in runs)
    print(here)
    print("| epoch | sorted | shuffled | shuffled again | tau: sorted, shuffled | tau: the two shuffled | ", end="")
    print("statistics of the first images, sorted | tau with shuffled |\n|" + " --- |" * 8)
    for epoch in range(args.epochs):
        a, b, c, d = (run[epoch] for run in (by_class, one, two, first))
        means = " | ".join(f"{run.mean():.3f}" for run in (a, b, c))
        taus = [kendalltau(*pair).statistic for pair in ((a, b), (b, c), (d, b))]
        print(f"| {epoch + 1} | {means} | {taus[0]:.2f} | {taus[1]:.2f} | {d.mean():.3f} | {taus[2]:.2f} |")


if __name__ == "__main__":
    main()
