"""Memory that one training step of `configs/imagenet_mobile.yaml` keeps for its backward pass, without a GPU.

Bytes of the tensors that autograd saves, parameters apart, in steps of 2 and of 4 images on the CPU: their difference
is what two images take, and so what any batch takes. Networks: the largest one and random ones. A minute.

    python benchmarks/activations.py
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from common import ROOT, facts

from ddpnas_ray.experiment.config import load
from ddpnas_ray.spaces.base import SpaceSpec, find_space
from ddpnas_ray.spaces.target import Inputs

IMAGENET = Inputs(shape=(3, 224, 224), outputs=1000)
RANDOM = 4


def saved_bytes(spec: SpaceSpec, alpha_E: np.ndarray, images: int, *, bf16: bool) -> int:
    """Return the storages that one step saves, each once."""
    network = spec.build(alpha_E, IMAGENET).to(memory_format=torch.channels_last)
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept, bytes_by_storage = [], {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept.append(tensor)  # so that no address is used twice
            bytes_by_storage[storage.data_ptr()] = storage.nbytes()
        return tensor

    pixels = torch.zeros(images, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    saving = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with saving, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        F.cross_entropy(network(pixels), torch.zeros(images, dtype=torch.int64))
    return sum(bytes_by_storage.values())


def main() -> None:
    """Run the benchmark; see the module docstring."""
    config = load(str(ROOT / "configs" / "imagenet_mobile.yaml"))
    spec, batch, rng = (
        find_space("mobile")(**config.space.options),
        config.training.batch_size,
        np.random.default_rng(0),
    )
    names_by_edge = [[op.name for op in edge.candidates] for edge in spec.space.edges]
    alphas = {"largest (mbconv_k7_e6 everywhere)": [names.index("mbconv_k7_e6") for names in names_by_edge]}
    alphas |= {f"random {i}": [int(rng.integers(len(names))) for names in names_by_edge] for i in range(RANDOM)}
    print(facts())
    print(f"| network | MiB an image, fp32 | GiB of {batch}, fp32 | MiB an image, bf16 | GiB of {batch}, bf16 |")
    print("| --- | --- | --- | --- | --- |")
    for name, alpha in alphas.items():
        cells = []
        for bf16 in (False, True):
            few, more = (saved_bytes(spec, np.array(alpha), images, bf16=bf16) for images in (2, 4))
            cells += [f"{(more - few) / 2 / 2**20:.1f}", f"{batch * (more - few) / 2 / 2**30:.1f}"]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
