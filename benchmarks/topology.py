"""Topology in the loop: is a deployed cell better if the supernet trains cells of its shape?

Algorithm 1 samples operations on all edges of a cell, and generation then keeps two inputs per node. Here the same
search is run as published and with two inputs per node in every sampled network, balanced over edges, the rest
``none``. Scores are validation accuracies on the digits of the quick start: the mean of the last epoch, the result
architecture with inherited weights, and trained alone for a few epochs.

    python benchmarks/topology.py --seeds 5
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")  # each process one core

import argparse
import statistics
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from common import facts, say, spread

from ddpnas_ray.core.requests import EvalRequest
from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.core.space import IntArray, SearchSpace
from ddpnas_ray.core.state import SearchState, initial_state
from ddpnas_ray.experiment.config import load
from ddpnas_ray.experiment.experiment import Experiment
from ddpnas_ray.experiment.loop import run_search
from ddpnas_ray.strategies.base import cosine, evaluations_left
from ddpnas_ray.strategies.pruning import Pruning


@dataclass(frozen=True, slots=True, kw_only=True)
class InTheLoop(Pruning):
    """Algorithm 1 on networks of the deployed shape: each node has as many inputs as there, others are ``none``."""

    space: SearchSpace

    def sample(self, state: SearchState, n: int) -> IntArray:
        """Draw an epoch's networks: every edge of a node is used equally often, and its operations in turn."""
        space, rng = self.space, rng_for(state.seed, state.round, state.epoch)
        assert space.inputs is not None
        left_out_E = (~space.generable_EK & space.exists_EK).argmax(axis=1)
        alphas_NE = np.tile(left_out_E, (n, 1))
        for block in space.blocks:
            order = rng.permutation(list(block))
            uses = dict.fromkeys(block, 0)
            for i in range(n):
                for j in range(space.inputs):
                    e = int(order[(space.inputs * i + j) % len(order)])
                    live = np.flatnonzero(state.live_EK[e] & space.generable_EK[e])
                    turn = rng_for(state.seed, state.round, e).permutation(live)  # the same all round
                    done = state.visits_EK[e][live].sum()
                    alphas_NE[i, e] = turn[(done + uses[e]) % len(turn)]
                    uses[e] += 1
        return alphas_NE


def trial(in_the_loop: bool, seed: int, epochs: int) -> dict[str, float]:
    """Return the scores of one search."""
    import torch

    torch.set_num_threads(1)
    experiment = Experiment.prepare(load(None, ["execution.backend=local", f"seed={seed}"]))
    strategy, space = experiment.strategy(), experiment.spec.space
    assert isinstance(strategy, Pruning)
    if in_the_loop:
        strategy = InTheLoop(**{name: getattr(strategy, name) for name in Pruning.__slots__}, space=space)
    executor = experiment.executor()
    most = strategy.evaluations or 0  # rounds that leave operations unvisited prune fewer, and take longer to the end
    state = run_search(
        strategy,
        executor,
        space,
        initial_state(space, seed),
        save=lambda state, tensors: None,
        should_stop=lambda state: evaluations_left(state, most) == 0,
    )
    alpha_E = experiment.spec.argmax(state.theta_EK, state.live_EK)
    last = [row.score for row in state.evaluations if row.epoch == state.epoch - 1]
    (inherited,) = executor.evaluate([EvalRequest(state.round, state.epoch, 0, alpha_E, 0.0, train=False)])
    alone = experiment.executor()
    scores = []
    for epoch in range(epochs):
        rate = cosine(experiment.config.training.lr, epoch, epochs)
        (result,) = alone.evaluate([EvalRequest(0, epoch, 0, alpha_E, rate)])
        scores.append(result.score)
    return {
        "evaluations": len(state.evaluations),
        "last epoch": statistics.fmean(last),
        "inherited": inherited.score,
        "alone": scores[-1],
    }


def main() -> None:
    """Run the benchmark; see the module docstring."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seeds", type=int, default=5)
    p.add_argument("--epochs", type=int, default=3, help="of the training alone")
    args = p.parse_args()
    print(facts() + "\n")
    header = ["sampled networks", "architecture-epochs", "mean of the last epoch", "result, inherited"]
    print("| " + " | ".join([*header, f"result, alone, {args.epochs} epochs"]) + " |\n|" + " --- |" * 5)
    found: dict[bool, list[dict[str, float]]] = {}
    with ProcessPoolExecutor(2) as pool:
        for in_the_loop in (False, True):
            futures = [pool.submit(trial, in_the_loop, seed, args.epochs) for seed in range(args.seeds)]
            rows = found[in_the_loop] = [future.result() for future in futures]
            say(f"in the loop {in_the_loop}: {rows}")
            name = "two inputs per node" if in_the_loop else "all edges, as published"
            keys = ("last epoch", "inherited", "alone")
            cells = [f"{rows[0]['evaluations']:.0f}", *(spread([row[key] for row in rows], 4) for key in keys)]
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    for key in ("inherited", "alone"):
        pairs = zip(found[True], found[False], strict=True)
        print(f"\nWith two inputs less without, seed by seed, {key}: {spread([a[key] - b[key] for a, b in pairs], 4)}")


if __name__ == "__main__":
    main()
