"""Speed-up of two processes on one architecture (``execution.group``), over that of two bare processes on one each.

CIFAR-10 cell supernet (6 cells, 4 nodes, 16 channels), batches of 64 in two shards. In every round, for one
architecture of an epoch: one process trains and scores it; a group of two does; and two processes that know nothing of
each other train and score it at the same time, which is the most that this machine gives. Scores must be equal. Run it
on an otherwise idle machine:

    python benchmarks/groups.py
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")  # each process one core

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from common import cifar10, classification, machine, say

from ddpnas_ray.core.requests import EvalRequest
from ddpnas_ray.core.sampling import disjoint_sample, rng_for
from ddpnas_ray.execution.base import ExecutionConfig
from ddpnas_ray.nn.weights import Layout, Weights
from ddpnas_ray.spaces.cell import space as cell
from ddpnas_ray.training.config import TrainingConfig
from ddpnas_ray.training.trainer import Trainer


def main() -> int:
    """Run the benchmark and print a Markdown table."""
    import ray

    from ddpnas_ray.execution.ray_members import PoolSize
    from ddpnas_ray.execution.ray_pool import RayPool

    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--images", type=int, default=2560, help="training images, and a quarter of it for validation")
    p.add_argument("--rounds", type=int, default=6, help="architectures (default 6)")
    p.add_argument("--json", type=Path, metavar="FILE", help="write the seconds there too")
    args = p.parse_args()
    data = cifar10(train=args.images, val=args.images // 4, seed=0)
    trainer = Trainer(
        spec=cell.make(cells=6, nodes=4, channels=16),
        task=classification(data),
        config=TrainingConfig(batch_size=64, shards=2),
        seed=0,
    )
    space = trainer.spec.space
    alphas_NE = disjoint_sample(space.exists_EK / space.exists_EK.sum(1, keepdims=True), space.exists_EK, rng_for(0))
    requests = [EvalRequest(0, 0, i, alphas_NE[i % len(alphas_NE)], lr=0.025) for i in range(args.rounds + 1)]
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    pool = RayPool(trainer, ExecutionConfig(), PoolSize(1, cpus_per_worker=2, group=2))
    tensors, _ = trainer.supernet()
    spawn = multiprocessing.get_context("spawn")
    rows = []
    with ProcessPoolExecutor(2, mp_context=spawn, initializer=_start, initargs=(trainer,)) as bare:

        def group(request: EvalRequest) -> float:
            pool.load_weights(tensors)
            return pool.evaluate([request])[0].score

        contenders: dict[str, Callable[[EvalRequest], set[float]]] = {
            "one process": lambda request: set(bare.map(_evaluate, [request])),
            "group of two": lambda request: {group(request)},
            "two bare processes": lambda request: set(bare.map(_evaluate, [request] * 2)),
        }
        for i, request in enumerate(requests):
            seconds, scores = {}, set()
            for name in sorted(contenders, key=lambda name: rng_for(i, *name.encode()).random()):
                start = time.perf_counter()
                scores |= contenders[name](request)
                seconds[name] = time.perf_counter() - start
            assert len(scores) == 1, f"scores differ: {scores}"
            say(f"architecture {i}: " + ", ".join(f"{name} {s:.2f} s" for name, s in seconds.items()))
            if i:  # the first one imports and warms up
                rows.append(seconds)
    pool.close()
    ray.shutdown()
    together = [row["one process"] / row["group of two"] for row in rows]
    apart = [2 * row["one process"] / row["two bare processes"] for row in rows]
    share = [a / b for a, b in zip(together, apart, strict=True)]
    print(machine(data))
    print("\n| | median | least | most |\n|---|---|---|---|")
    for what, values in (
        ("speed-up of a group of two", together),
        ("speed-up of two bare processes", apart),
        ("first over second", share),
    ):
        print(f"| {what} | {statistics.median(values):.2f} | {min(values):.2f} | {max(values):.2f} |")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))
    return 0


def _start(trainer: Trainer) -> None:
    global _trainer, _layout, _weights
    tensors, supernet = trainer.supernet()
    _trainer, _weights = trainer, Weights(tensors)
    _layout = lambda alpha_E: Layout.of(supernet.pieces(alpha_E))  # noqa: E731


def _evaluate(request: EvalRequest) -> float:
    layout = _layout(request.alpha_E)
    return _trainer.train_and_score(request, layout, _weights.cut(layout))[0].score


_trainer: Trainer
_layout: Callable[[Any], Layout]
_weights: Weights

if __name__ == "__main__":
    raise SystemExit(main())
