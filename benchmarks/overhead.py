"""Overhead of the search over plain training, on the CIFAR-10 cell supernet (6 cells, 4 nodes, 16 channels).

Four measures in one run, on one machine in the same state:

(a) the local executor over a bare loop (``bare_loop.py``) that trains the same stand-alone networks on the same images,
    with as many threads, the same memory format, BatchNorm recomputation and validation: seconds over seconds;
(b) Ray with one worker over the local executor;
(c) the speed-up of two Ray workers over one, divided by the speed-up of two bare processes over one. The two bare
    processes split the architectures so that their measured times are as equal as possible: the best possible split,
    without coordination;
(d) bytes that an epoch puts into the object store, over the size of the supernet (counted, not timed).

Architectures are those of an epoch of Algorithm 1: sampled disjointly from a uniform theta. (a) and (b) come from
pairs in which the contenders take turns on a few architectures, in all orders; the next pair takes the next
architectures. (c) takes the whole epoch. Every run starts from the same weights, and Ray must return exactly the local
executor's scores. Before the first pair, all processes have trained every architecture on a few images. Ratios are
within a pair; the table has their medians and quartiles. Run it on an otherwise idle machine:

    python benchmarks/overhead.py
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations, permutations
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from bare_loop import BareLoop
from common import cifar10, classification, machine, say

from ddpnas_ray.core.requests import EvalRequest
from ddpnas_ray.core.sampling import disjoint_sample, rng_for
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.core.state import initial_state
from ddpnas_ray.data.images import ImageData, Split
from ddpnas_ray.execution.base import ExecutionConfig, Executor
from ddpnas_ray.execution.local import LocalExecutor
from ddpnas_ray.spaces.cell import space as cell
from ddpnas_ray.training.config import TrainingConfig
from ddpnas_ray.training.trainer import Trainer

if TYPE_CHECKING:
    from ddpnas_ray.execution.ray_pool import RayPool

T = TypeVar("T")
SPACE = {"cells": 6, "nodes": 4, "channels": 16}
AT_MOST = {"a": 1.05, "b": 1.08, "d": 2.5}
AT_LEAST = {"c": 0.95}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print a Markdown table."""
    args = _arguments(argv)
    torch.set_num_threads(1)
    data = cifar10(train=args.train, val=args.val, seed=args.seed)
    trainer = Trainer(
        spec=cell.make(**SPACE),
        task=classification(data),
        config=TrainingConfig(batch_size=args.batch_size, threads=1),
        seed=args.seed,
    )
    state = initial_state(trainer.spec.space, args.seed)
    alphas_NE = disjoint_sample(state.theta_EK, state.live_EK, rng_for(args.seed, 0, 0))[: args.architectures]

    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray  # here, so that the bare processes, which import this file, do without

    from ddpnas_ray.execution.ray_members import PoolSize
    from ddpnas_ray.execution.ray_pool import RayPool

    say("starting Ray and the bare processes")
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    images = cifar10(train=args.batch_size, val=args.batch_size + args.val % args.batch_size, seed=0)
    few = replace(trainer, task=classification(images))
    processes = BareProcesses(2, trainer, few, alphas_NE)
    try:
        pools = [RayPool(trainer, ExecutionConfig(), PoolSize(n)) for n in (1, 2)]
        say("warm-up: this process, then the Ray workers")
        compile_kernels(few, alphas_NE)
        workers = [member.actor for pool in pools for member in pool._members]
        ray.get([worker.__ray_call__.remote(lambda _: compile_kernels(few, alphas_NE)) for worker in workers])
        run = Contenders(trainer, alphas_NE, LocalExecutor(trainer), pools, processes)
        run.warm_up()
        ratios = run.overhead(args.pairs, args.pair_architectures) | run.scaling(args.scaling_pairs)
        for pool in pools:
            pool.close()
    finally:
        processes.close()
        ray.shutdown()

    print(_table(ratios, run, args.train, len(alphas_NE)))
    print(f"- seed {args.seed}, batch size {args.batch_size}, 1 thread a process\n{machine(data)}")
    say("done")
    return 0


class Contenders:
    """All contenders, ready to be timed.

    Args:
        trainer: The trainer.
        alphas_NE: The architectures of an epoch, shape (N, E).
        local: The local executor.
        pools: Ray pools with one and with two workers.
        processes: Two bare processes.
    """

    def __init__(
        self,
        trainer: Trainer,
        alphas_NE: IntArray,
        local: LocalExecutor,
        pools: Sequence[RayPool],
        processes: BareProcesses,
    ) -> None:
        self._trainer, self._alphas_NE, self._processes, self._pools = trainer, alphas_NE, processes, pools
        self._executors: dict[str, Executor] = {"local": local, "ray 1": pools[0], "ray 2": pools[1]}
        self._first_weights = {name: tensor.copy() for name, tensor in local.weights().items()}
        self._bare = bare_loop(trainer.task.data, trainer.config)
        self._halves: list[list[int]] = []
        self.same_scores = True
        self.seconds: dict[str, list[float]] = {}  # an architecture, one entry a timed run
        self.scores: dict[str, list[float]] = {}

    def warm_up(self) -> None:
        """Score once with every executor, to set up connections and memory."""
        say("warm-up: executors")
        for name, executor in self._executors.items():
            requests = [replace(request, train=False) for request in self._requests([0, 1], epoch=0)]
            executor.evaluate(requests if name == "ray 2" else requests[:1])

    def overhead(self, pairs: int, architectures: int) -> dict[str, list[float]]:
        """Measure (a) and (b): the ratio of every pair."""
        orders = list(permutations(("bare", "local", "ray 1")))
        ratios: dict[str, list[float]] = {"a": [], "b": []}
        for pair in range(pairs):
            chosen = [(pair * architectures + i) % len(self._alphas_NE) for i in range(architectures)]
            results = {name: self._run(name, chosen, epoch=pair) for name in orders[pair % len(orders)]}
            seconds = {name: result[0] for name, result in results.items()}
            self.same_scores &= results["local"][1] == results["ray 1"][1]
            ratios["a"].append(seconds["local"] / seconds["bare"])
            ratios["b"].append(seconds["ray 1"] / seconds["local"])
            say(f"pair {pair + 1} of {pairs}, architectures {chosen}: " + _listed(seconds, ratios))
        return ratios

    def scaling(self, pairs: int) -> dict[str, list[float]]:
        """Measure (c) and (d): the ratio of every pair, and the share of the supernet's bytes that an epoch moves."""
        order = ("bare 1", "bare 2", "ray 1", "ray 2")
        everything = list(range(len(self._alphas_NE)))
        supernet_bytes = sum(tensor.nbytes for tensor in self._first_weights.values())
        ratios: dict[str, list[float]] = {"c": [], "d": []}
        for pair in range(pairs):
            moved = self._pools[1].work.bytes_moved
            names = order if pair % 2 == 0 else order[::-1]
            results = {name: self._run(name, everything, epoch=pair, note=", whole epoch") for name in names}
            seconds = {name: result[0] for name, result in results.items()}
            self.same_scores &= results["ray 1"][1] == results["ray 2"][1]
            ratios["c"].append((seconds["ray 1"] / seconds["ray 2"]) / (seconds["bare 1"] / seconds["bare 2"]))
            ratios["d"].append((self._pools[1].work.bytes_moved - moved) / supernet_bytes)
            say(f"scaling pair {pair + 1} of {pairs}: " + _listed(seconds, ratios))
        return ratios

    def _run(self, name: str, chosen: Sequence[int], epoch: int, note: str = "") -> tuple[float, list[float]]:
        """Time one contender on some architectures: seconds, and scores in their order."""
        if (executor := self._executors.get(name)) is not None:
            executor.load_weights(self._first_weights)
            requests = self._requests(chosen, epoch)
            seconds, results = _timed(lambda: executor.evaluate(requests))
            scores = [result.score for result in results]
        elif name == "bare":
            build, inputs = self._trainer.spec.build, self._trainer.task.inputs
            seconds, scores = _timed(lambda: [self._bare(build(self._alphas_NE[i], inputs)) for i in chosen])
        else:
            shares = [list(chosen)] if name == "bare 1" else self._halves
            seconds, answers = _timed(lambda: self._processes([self._alphas_NE[share] for share in shares]))
            scores = [score for answer in answers for score, _ in answer]
            if name == "bare 1":
                self._halves = balanced_halves([seconds_each for _, seconds_each in answers[0]])
        self.seconds.setdefault(name + note, []).append(seconds / len(chosen))
        self.scores.setdefault(name + note, []).extend(scores)
        say(f"  {name}: {seconds:.1f} s for {len(chosen)}")
        return seconds, scores

    def _requests(self, chosen: Sequence[int], epoch: int) -> list[EvalRequest]:
        lr = self._trainer.config.lr
        return [EvalRequest(0, epoch, i, self._alphas_NE[i], lr) for i in chosen]


class BareProcesses:
    """Processes that run the bare loop, started once.

    Args:
        count: Number of processes.
        trainer: The trainer, with the images.
        few: The same with few images, for the warm-up.
        alphas_NE: The architectures, shape (N, E).
    """

    def __init__(self, count: int, trainer: Trainer, few: Trainer, alphas_NE: IntArray) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._connections: list[Connection] = []
        self._processes = []
        for _ in range(count):
            here, there = spawn.Pipe()
            process = spawn.Process(target=_serve, args=(there, trainer, few, alphas_NE), daemon=True)
            process.start()
            there.close()
            self._connections.append(here)
            self._processes.append(process)
        for connection in self._connections:
            connection.recv()

    def __call__(self, shares: Sequence[IntArray]) -> list[list[tuple[float, float]]]:
        """Let the processes train their shares in parallel; returns score and seconds of each architecture."""
        busy = self._connections[: len(shares)]
        for connection, share in zip(busy, shares, strict=True):
            connection.send(share)
        return [connection.recv() for connection in busy]

    def close(self) -> None:
        """End the processes."""
        for connection, process in zip(self._connections, self._processes, strict=True):
            if process.is_alive():
                connection.send(None)
            process.join(timeout=10)


def _serve(connection: Connection, trainer: Trainer, few: Trainer, alphas_NE: IntArray) -> None:
    """Run a bare process: receives architectures, returns score and seconds of each, until it receives None."""
    torch.set_num_threads(trainer.config.threads)
    compile_kernels(few, alphas_NE)
    loop = bare_loop(trainer.task.data, trainer.config)
    connection.send("ready")
    while (share := connection.recv()) is not None:
        answer = []
        for alpha_E in share:
            start_s = time.perf_counter()
            score = loop(trainer.spec.build(alpha_E, trainer.task.inputs))
            answer.append((score, time.perf_counter() - start_s))
        connection.send(answer)


def compile_kernels(few: Trainer, alphas_NE: IntArray) -> None:
    """Train every architecture on few images in both ways: processes compile kernels on first use."""
    lr, loop = few.config.lr, bare_loop(few.task.data, few.config)
    LocalExecutor(few).evaluate([EvalRequest(0, 0, i, alpha_E, lr) for i, alpha_E in enumerate(alphas_NE)])
    for alpha_E in alphas_NE:
        loop(few.spec.build(alpha_E, few.task.inputs))


def bare_loop(data: ImageData, config: TrainingConfig) -> BareLoop:
    """Run the bare loop on the images and with the settings of a trainer."""
    if set(data.mean + data.std) != {0.5} or not data.augment.flip or data.augment.cutout or not config.channels_last:
        raise ValueError("the bare loop knows only flips and crops, mean and std 0.5, and channels last")

    def tensors(split: Split) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(split.images.gather(np.arange(len(split)))), torch.from_numpy(split.labels_N)

    bn_images = min(config.bn_images, len(data.train))
    return BareLoop(
        train=tensors(data.train),
        val=tensors(data.val),
        batch_size=config.batch_size,
        bn_images=bn_images - bn_images % min(config.batch_size, bn_images),
        crop=data.augment.crop,
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        grad_clip=config.grad_clip,
    )


def balanced_halves(seconds: Sequence[float]) -> list[list[int]]:
    """Split architectures into two halves whose times are as equal as possible.

    Example:
        >>> balanced_halves([4.0, 1.0, 2.0, 3.0])
        [[0, 1], [2, 3]]
    """
    everything, total = range(len(seconds)), sum(seconds)
    half = min(
        combinations(everything, len(seconds) // 2), key=lambda half: abs(2 * sum(seconds[i] for i in half) - total)
    )
    return [list(half), [i for i in everything if i not in half]]


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    start_s = time.perf_counter()
    result = work()
    return time.perf_counter() - start_s, result


def _listed(seconds: dict[str, float], ratios: dict[str, list[float]]) -> str:
    times = ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items())
    return times + "; " + ", ".join(f"({name}) {values[-1]:.3f}" for name, values in ratios.items())


def _table(ratios: dict[str, list[float]], run: Contenders, train: int, architectures: int) -> str:
    what = {
        "a": "local executor / bare loop, seconds",
        "b": "Ray with 1 worker / local executor, seconds",
        "c": "speed-up by 2 Ray workers / speed-up by 2 bare processes",
        "d": f"bytes into the object store in an epoch of {architectures} / bytes of the supernet",
    }
    lines = [
        "| | measure | median | quartiles | pairs | required | met |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for key, values in ratios.items():
        low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
        bound = f"at most {AT_MOST[key]}" if key in AT_MOST else f"at least {AT_LEAST[key]}"
        met = median <= AT_MOST[key] if key in AT_MOST else median >= AT_LEAST[key]
        lines.append(
            f"| ({key}) | {what[key]} | {median:.3f} | {low:.3f} to {high:.3f} | {len(values)} | {bound} "
            f"| {'yes' if met else 'no'} |"
        )
    lines.append("")
    for name, values in run.seconds.items():
        lines.append(
            f"- {name}: median {np.median(values):.2f} s an architecture, {train / np.median(values):.0f} "
            f"training images a second, scoring included; mean score {np.mean(run.scores[name]):.3f}"
        )
    lines.append(f"- local and Ray returned the same scores: {'yes' if run.same_scores else 'NO'}")
    return "\n".join(lines)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--train", type=int, default=2000, help="training images (default: %(default)s)")
    add("--val", type=int, default=2000, help="validation images (default: %(default)s)")
    add("--pairs", type=int, default=7, help="pairs for (a) and (b) (default: %(default)s)")
    add("--pair-architectures", type=int, default=1, help="architectures of such a pair (default: %(default)s)")
    add("--scaling-pairs", type=int, default=3, help="pairs for (c), each a whole epoch (default: %(default)s)")
    add("--architectures", type=int, default=8, help="architectures of an epoch, at most 8 (default: %(default)s)")
    add("--batch-size", type=int, default=64, help="images a step (default: %(default)s)")
    add("--seed", type=int, default=0, help="of images, architectures and weights (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.train < args.batch_size or not 2 <= args.architectures <= 8 or min(args.pairs, args.scaling_pairs) < 1:
        parser.error(
            "--train must be at least --batch-size, --architectures 2 to 8, and every number of pairs at least 1"
        )
    return args


if __name__ == "__main__":
    sys.exit(main())
