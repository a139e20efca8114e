"""Learning with parallel, merged training compared with the paper's sequential training.

Compares ``training.merge: mean`` (all architectures of an epoch start from the same weights, and elements trained by
several of them are averaged: the parallel mode) with ``sequential`` (each inherits from the previous one) on a part of
CIFAR-10 and a small cell supernet. Both run the real search, Algorithm 1 with T epochs per round, up to ``--epochs``;
the number is the mean validation score of an epoch's architectures, on which the search decides.

For each seed (of images, architectures and weights alike) both merges run with BatchNorm statistics recomputed before
scoring, then one seed runs both without (``training.bn_images: 0``, the running statistics). Lines are printed as they
arrive, tables at the end, and ``--json`` is rewritten after every search:

    nice -n 19 python benchmarks/merge.py --json merge.json > merge.log &
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from common import cifar10, classification, machine

from ddpnas_ray.core.space import FloatArray
from ddpnas_ray.core.state import SearchState, initial_state
from ddpnas_ray.execution.local import LocalExecutor
from ddpnas_ray.experiment.loop import run_search
from ddpnas_ray.spaces.cell import space as cell
from ddpnas_ray.strategies.pruning import Pruning
from ddpnas_ray.training.config import TrainingConfig
from ddpnas_ray.training.trainer import Trainer

Merge = Literal["mean", "sequential"]
MERGES: tuple[Merge, ...] = ("mean", "sequential")


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """Return the architectures of one epoch."""

    epoch: int
    round: int
    architectures: int
    mean_score: float
    best_score: float
    mean_loss: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Run:
    """Settings of one search."""

    merge: Merge
    seed: int
    bn_images: int
    epochs: tuple[Epoch, ...]


def main(argv: Sequence[str] | None = None) -> int:
    """Search with both merges, and print Markdown tables."""
    args = _arguments(argv)
    torch.set_num_threads(1)
    wanted = [(seed, args.bn_images) for seed in range(args.seeds)] + [
        (seed, 0) for seed in range(args.seeds_without_bn)
    ]
    facts = machine(cifar10(train=args.train, val=args.val, seed=0))
    runs: list[Run] = []
    start_s = time.perf_counter()
    for seed, bn_images in wanted:
        for merge in MERGES:
            runs.append(search(args, merge, seed, bn_images))
            elapsed_s = time.perf_counter() - start_s
            _print(f"  {len(runs)} of {2 * len(wanted)} searches done in {elapsed_s:.0f} s")
            if args.json is not None:
                found = {"arguments": _plain(vars(args)), "machine": facts, "seconds": elapsed_s}
                _write(args.json, found | {"runs": [asdict(run) for run in runs]})
    for bn_images in sorted({bn for _, bn in wanted}, reverse=True):
        _print(table([run for run in runs if run.bn_images == bn_images], bn_images))
    _print("\n" + facts)
    return 0


def search(args: argparse.Namespace, merge: Merge, seed: int, bn_images: int) -> Run:
    """Run the first epochs of one search, printing each."""
    spec = cell.make(cells=args.cells, nodes=args.nodes, channels=args.channels)
    config = TrainingConfig(batch_size=args.batch_size, lr=args.lr, merge=merge, bn_images=bn_images, threads=1)
    data = cifar10(train=args.train, val=args.val, seed=seed)
    executor = LocalExecutor(Trainer(spec=spec, task=classification(data), config=config, seed=seed))
    epochs: list[Epoch] = []

    def done(state: SearchState, weights: object) -> None:
        epochs.append(_epoch(state))
        last = epochs[-1]
        _print(
            f"{merge}, bn_images {bn_images}, seed {seed}: epoch {last.epoch + 1} of {args.epochs}, "
            f"{last.architectures} architectures, mean score {last.mean_score:.4f}, best {last.best_score:.4f}, "
            f"mean loss {last.mean_loss:.4f}, {last.seconds:.1f} s"
        )

    run_search(
        Pruning(epochs_per_round=args.epochs_per_round, lr=args.lr),
        executor,
        spec.space,
        initial_state(spec.space, seed),
        save=done,
        should_stop=lambda state: state.epoch >= args.epochs,
    )
    return Run(merge=merge, seed=seed, bn_images=bn_images, epochs=tuple(epochs))


def table(runs: Sequence[Run], bn_images: int) -> str:
    """Format mean scores by epoch, averaged over seeds, with their range if there are several."""
    merged, sequential = (  # a row a seed, a column an epoch
        np.array([[epoch.mean_score for epoch in run.epochs] for run in runs if run.merge == merge]) for merge in MERGES
    )
    how = f"recomputed on {bn_images} images" if bn_images else "as they ran during training"
    lines = [
        f"\nBatchNorm statistics {how}; mean score of an epoch, averaged over {len(merged)} seed(s) (range)\n",
        "| epoch | architectures | merged | sequential | merged - sequential |",
        "| --- | --- | --- | --- | --- |",
    ]
    for i, epoch in enumerate(runs[0].epochs):
        cells = [_with_range(merged[:, i]), _with_range(sequential[:, i])]
        cells.append(_with_range(merged[:, i] - sequential[:, i], "{:+.3f}"))
        lines.append(f"| {epoch.epoch + 1} | {epoch.architectures} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _epoch(state: SearchState) -> Epoch:
    last = state.epoch - 1
    rows = [row for row in state.evaluations if row.epoch == last]
    return Epoch(
        epoch=last,
        round=rows[0].round,
        architectures=len(rows),
        mean_score=float(np.mean([row.score for row in rows])),
        best_score=max(row.score for row in rows),
        mean_loss=float(np.mean([row.loss for row in rows])),
        seconds=sum(row.seconds for row in rows),
    )


def _with_range(values: FloatArray, form: str = "{:.3f}") -> str:
    text = form.format(values.mean())
    return text if len(values) == 1 else f"{text} ({form.format(values.min())} to {form.format(values.max())})"


def _print(text: str) -> None:
    print(text, flush=True)


def _plain(values: dict[str, object]) -> dict[str, object]:
    return {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}


def _write(path: Path, content: dict[str, object]) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=1) + "\n")
    part.replace(path)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--cells", type=int, default=4, help="cells of the supernet (default: %(default)s)")
    add("--nodes", type=int, default=4, help="nodes of a cell (default: %(default)s)")
    add("--channels", type=int, default=8, help="initial channels (default: %(default)s)")
    add("--train", type=int, default=896, help="training images (default: %(default)s)")
    add("--val", type=int, default=500, help="validation images (default: %(default)s)")
    add("--bn-images", type=int, default=512, help="images that BatchNorm is recomputed on (default: %(default)s)")
    add("--batch-size", type=int, default=64, help="images a step (default: %(default)s)")
    add("--lr", type=float, default=0.025, help="initial learning rate (default: %(default)s)")
    add("--epochs", type=int, default=6, help="epochs of every search (default: %(default)s)")
    add("--epochs-per-round", type=int, default=3, help="T (default: %(default)s)")
    add("--seeds", type=int, default=3, help="seeds with BatchNorm recomputed (default: %(default)s)")
    add("--seeds-without-bn", type=int, default=1, help="seeds without (default: %(default)s)")
    add("--json", type=Path, help="write everything to this file")
    args = parser.parse_args(argv)
    if args.train < args.batch_size or args.epochs < 1 or args.seeds < 1 or args.bn_images < 1:
        parser.error("--train must be at least --batch-size, and --epochs, --seeds and --bn-images at least 1")
    return args


if __name__ == "__main__":
    sys.exit(main())
