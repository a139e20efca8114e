"""Slices are real: what a training step of smaller BERTs costs, in time and memory, next to their macs.

A step is forward pass, loss, backward pass and AdamW on real slices of one supernet of MiniLM's size, with random
weights and tokens. Seconds are CPU seconds of one thread; memory is that of the tensors saved for the backward pass.

    python benchmarks/bert_slices.py [--batch 16] [--tokens 128] [--steps 5]
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from common import facts
from torch.nn.functional import cross_entropy

from ddpnas_ray.nn.weights import Layout, Weights, bind
from ddpnas_ray.spaces.bert.space import make
from ddpnas_ray.spaces.target import Inputs, Target
from ddpnas_ray.training.config import TrainingConfig
from ddpnas_ray.training.epoch import optimizer_step

SIZES = [(6, 12, 1536), (6, 12, 512), (6, 8, 512), (6, 4, 384), (4, 12, 1536), (3, 12, 1536), (3, 4, 256)]


def main() -> None:
    """Run the benchmark; see the module docstring."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--tokens", type=int, default=128)
    p.add_argument("--steps", type=int, default=5)
    args = p.parse_args()
    torch.set_num_threads(1)
    inputs = Inputs(shape=(args.tokens,), outputs=2, vocabulary=30522)
    spec = make(hidden=384, layers=6, heads=12, ffn=1536)
    supernet: Any = spec.supernet(inputs)
    weights = Weights({name: value.detach().numpy() for name, value in supernet.named_parameters()})
    macs_of = spec.costs["macs"](Target(sequence_length=args.tokens, vocabulary=30522, classes=2))
    x, labels = inputs.random(args.batch), torch.arange(args.batch) % 2
    rows = []
    for depth, heads, ffn in SIZES:
        genotype = {"layers": [round(5 * i / (depth - 1)) for i in range(depth)]}
        alpha_E = spec.encode(genotype | {"heads": [heads] * depth, "ffn": [ffn] * depth})
        layout = Layout.of(supernet.pieces(alpha_E))
        network = spec.build(alpha_E, inputs).train()
        whole = bind(network, layout, torch.from_numpy(weights.cut(layout)))
        update = optimizer_step(whole, layout, TrainingConfig(optimizer="adamw"), 1e-4, fused=False)
        saved = saved_bytes(network, x)
        steps, rest = [], []
        for _ in range(args.steps + 1):
            start = time.process_time()
            whole.grad.zero_()  # type: ignore[union-attr]
            cross_entropy(network(x), labels).backward()
            middle = time.process_time()
            update()
            steps.append(middle - start)
            rest.append(time.process_time() - middle)
        rows.append((macs_of(alpha_E), statistics.median(steps[1:]), saved, statistics.median(rest[1:])))
        print(f"{depth} layers, {heads} heads, feed-forward {ffn}", flush=True)
    print(facts(f"{args.batch} texts of {args.tokens} tokens, median of {args.steps} steps") + "\n")
    print("| layers, heads, feed-forward | macs (share) | step, s (share) | saved, MB (share) | AdamW, s |")
    print("| --- | --- | --- | --- | --- |")
    full = rows[0]
    for size, (macs, seconds, saved, rest) in zip(SIZES, rows, strict=True):
        shares = [value / whole for value, whole in zip((macs, seconds, saved), full[:3], strict=True)]
        print(
            f"| {', '.join(map(str, size))} | {macs / 1e6:,.0f}M ({shares[0]:.2f}) | {seconds:.2f} ({shares[1]:.2f}) | "
            f"{saved / 1e6:,.0f} ({shares[2]:.2f}) | {rest:.2f} |"
        )


def saved_bytes(network: torch.nn.Module, x: Any) -> int:
    """Return the bytes of the distinct tensors, parameters aside, that a forward pass keeps for its backward pass."""
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = network(x).sum()
    del loss
    return sum(kept.values())


if __name__ == "__main__":
    main()
