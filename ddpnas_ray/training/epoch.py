"""One epoch of training, BatchNorm statistics, and accuracy, over batches that the caller provides."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ddpnas_ray.training.config import TrainingConfig

Batches = Iterable[tuple[Tensor, Tensor]]  # images (B, C, H, W) float32 and labels (B,) int64, on the network's device


def train_epoch(network: nn.Module, whole: nn.Parameter, batches: Batches, config: TrainingConfig, lr: float) -> float:
    """One epoch of SGD, momentum starting fresh.

    Args:
        network: A network whose parameters are views of ``whole`` (``weights.bind``); changed.
        whole: All its weights as one tensor: one optimiser step and one norm serve them all.
        batches: The epoch's training batches.
        config: How to train.
        lr: Learning rate of the whole epoch.

    Returns:
        The mean loss of the batches; not finite where training diverged.
    """
    optimizer = torch.optim.SGD([whole], lr, config.momentum, weight_decay=config.weight_decay)
    network.train()
    # Statistics that are recomputed before scoring need not be tracked while training.
    _track_statistics(network, config.bn_images == 0)
    total, count = torch.zeros((), device=whole.device), 0
    for images, labels in batches:
        optimizer.zero_grad(set_to_none=False)
        with _autocast(images, config):
            loss = F.cross_entropy(network(images), labels)
        loss.backward()
        if config.grad_clip:
            nn.utils.clip_grad_norm_([whole], config.grad_clip)
        optimizer.step()
        total += loss.detach()
        count += 1
    return float(total) / max(count, 1)


@torch.no_grad()
def recompute_batch_norm(network: nn.Module, batches: Batches, config: TrainingConfig) -> None:
    """Reset BatchNorm's running statistics and average them over training images (design row 15).

    Args:
        network: The network; left in training mode.
        batches: Batches of equal size, not augmented: the cumulative average counts batches, not images.
        config: For the precision.
    """
    _track_statistics(network, True)
    norms = _norms(network)
    for norm in norms:
        norm.reset_running_stats()
    network.train()
    for count, (images, _) in enumerate(batches, start=1):
        for norm in norms:
            norm.momentum = 1.0 / count  # cumulative average; ``None`` makes torch read the count back from the GPU
        with _autocast(images, config):
            network(images)


@torch.no_grad()
def accuracy(network: nn.Module, batches: Batches, config: TrainingConfig) -> float:
    """Share of the images whose label gets the largest logit, in evaluation mode: a fraction in [0, 1]."""
    network.eval()
    correct, count = None, 0
    for images, labels in batches:
        with _autocast(images, config):
            hits = (network(images).argmax(dim=1) == labels).sum()
        correct = hits if correct is None else correct + hits
        count += len(labels)
    if correct is None:
        raise ValueError("accuracy needs at least one batch")
    return int(correct) / count


@contextmanager
def fixed_threads(threads: int) -> Iterator[None]:
    """Run with so many CPU threads, and put the old number back."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def initial_weights(make: Callable[[], nn.Module], torch_seed: int) -> tuple[dict[str, Tensor], nn.Module]:
    """Build a supernet with weights that depend on the seed alone.

    Returns:
        Its parameters by name, and the supernet without storage (it still knows the pieces of every architecture).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed)
        supernet = make()
    return {name: p.detach() for name, p in supernet.named_parameters()}, supernet.to("meta")


def _autocast(images: Tensor, config: TrainingConfig) -> torch.autocast | nullcontext[None]:
    return torch.autocast(images.device.type, dtype=torch.bfloat16) if config.precision == "bf16" else nullcontext()


def _norms(network: nn.Module) -> list[_BatchNorm]:
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


def _track_statistics(network: nn.Module, on: bool) -> None:
    for norm in _norms(network):
        norm.track_running_stats = on
