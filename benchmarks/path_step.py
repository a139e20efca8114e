"""Images a second of training one path of the cell supernet on a CPU, one thread: ours against plain PyTorch.

Contenders train the same architectures on the same real images (CIFAR-10), an epoch each, in turn:

- ``official``: a stand-in for the authors' code: NCHW, BatchNorm tracked, one optimiser entry a parameter
- ``plain``: a plain PyTorch loop as one would write it for speed (``bare_loop.py``)
- ``reference``, ``fast``: ``training.kernels``

    python benchmarks/path_step.py                     16 channels, 32 px, batch 64, the eight paths of an epoch
    python benchmarks/path_step.py --rounds 5 --json FILE

Quiet machine. The ratio of two contenders is taken path by path.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from bare_loop import BareLoop
from common import cifar10, classification, facts, say
from torch import nn

from ddpnas_ray.core.requests import EvalRequest
from ddpnas_ray.core.sampling import disjoint_sample, rng_for
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.core.state import initial_state
from ddpnas_ray.nn.weights import Layout, Weights
from ddpnas_ray.spaces.cell import space as cell
from ddpnas_ray.training.config import TrainingConfig
from ddpnas_ray.training.trainer import Trainer

NAMES = ("official", "plain", "reference", "fast")


def official(network: nn.Module, loop: BareLoop) -> None:
    """Train an epoch as the authors' code does."""
    (images, labels), size = loop.train, loop.batch_size
    network.train()
    parameters = list(network.parameters())
    sgd = torch.optim.SGD(parameters, loop.lr, loop.momentum, weight_decay=loop.weight_decay, foreach=False)
    for index in torch.randperm(len(images))[: len(images) // size * size].split(size):
        x = loop.augmented(images[index]).to(torch.float32).div_(127.5).sub_(1.0)
        sgd.zero_grad(set_to_none=False)
        F.cross_entropy(network(x), labels[index]).backward()
        nn.utils.clip_grad_norm_(parameters, loop.grad_clip, foreach=False)
        sgd.step()


def main() -> None:
    """Run the benchmark; see the module docstring."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--channels", type=int, default=16)
    p.add_argument("--batch-size", type=int, default=64)
    p.add_argument("--steps", type=int, default=4, help="of an epoch")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--json", type=Path, help="write the figures here, after each round")
    args = p.parse_args()
    torch.set_num_threads(1)
    count = args.steps * args.batch_size
    data = cifar10(train=count, val=args.batch_size, seed=0)
    images = torch.from_numpy(data.train.images.gather(range(len(data.train))))
    labels = torch.from_numpy(data.train.labels_N)
    config = TrainingConfig(batch_size=args.batch_size, bn_images=64, kernels="reference")
    trainer = Trainer(spec=cell.make(channels=args.channels), task=classification(data), config=config, seed=0)
    trainers = {name: replace(trainer, config=replace(config, kernels=name)) for name in ("reference", "fast")}
    tensors, supernet = trainer.supernet()
    weights, space = Weights(tensors), trainer.spec.space
    start = initial_state(space, 0)
    alphas_NE = disjoint_sample(start.theta_EK, start.live_EK, rng_for(0, 0, 0))
    loop = BareLoop(
        train=(images, labels),
        val=(images[:0], labels[:0]),
        batch_size=args.batch_size,
        bn_images=0,
        crop=4,
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        grad_clip=config.grad_clip,
    )

    def rate(name: str, alpha_E: IntArray) -> float:
        """Return images a second of one epoch, without building the network."""
        run: Callable[[], object]
        if name in trainers:
            layout = Layout.of(supernet.pieces(alpha_E))
            result, _ = trainers[name].train_and_score(
                EvalRequest(0, 0, 0, alpha_E, config.lr), layout, weights.cut(layout)
            )
            return count / result.train_s
        network = trainer.spec.build(alpha_E, trainer.task.inputs)
        run = (lambda: official(network, loop)) if name == "official" else (lambda: loop.epoch(network))
        begun = time.perf_counter()
        run()
        return count / (time.perf_counter() - begun)

    rates: dict[str, list[float]] = {name: [] for name in NAMES}
    for name in NAMES:
        rate(name, alphas_NE[0])  # warm-up
    for turn in range(args.rounds):
        for alpha_E in alphas_NE:
            for name in NAMES if turn % 2 == 0 else NAMES[::-1]:
                rates[name].append(rate(name, alpha_E))
        say(f"round {turn + 1}: " + ", ".join(f"{name} {statistics.median(rates[name]):.1f}" for name in NAMES))
        if args.json:
            args.json.write_text(json.dumps({"facts": facts().splitlines(), "images_per_s": rates}, indent=1))
    print(facts(f"batch {args.batch_size}, {args.channels} channels, 32 px, {args.steps} steps an epoch") + "\n")
    print("| contender | images/s, median over paths | over the official stand-in |\n| --- | --- | --- |")
    for name in NAMES:
        ratio = statistics.median(ours / theirs for ours, theirs in zip(rates[name], rates["official"], strict=True))
        print(f"| {name} | {statistics.median(rates[name]):.1f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
