"""Baseline of ``overhead.py``: train and score stand-alone networks in plain PyTorch.

For speed on a CPU: images in memory, batches augmented whole, channels last, BatchNorm tracked only while recomputed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class BareLoop:
    """Training settings."""

    train: tuple[Tensor, Tensor]  # uint8 images (N, C, H, W) and int64 labels
    val: tuple[Tensor, Tensor]
    batch_size: int
    bn_images: int
    crop: int
    lr: float
    momentum: float
    weight_decay: float
    grad_clip: float

    def __call__(self, network: nn.Module) -> float:
        """Train one epoch with SGD, recompute BatchNorm statistics, and return the validation accuracy."""
        self.epoch(network)
        return self.score(network)

    def epoch(self, network: nn.Module) -> None:
        """Train one epoch."""
        (images, labels), size = self.train, self.batch_size
        network = network.train().to(memory_format=torch.channels_last)
        sgd = torch.optim.SGD(network.parameters(), self.lr, self.momentum, 0.0, self.weight_decay, foreach=True)
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.track_running_stats = False
        for index in torch.randperm(len(images))[: len(images) // size * size].split(size):
            sgd.zero_grad(set_to_none=True)
            F.cross_entropy(network(_pixels(self.augmented(images[index]))), labels[index]).backward()
            nn.utils.clip_grad_norm_(network.parameters(), self.grad_clip, foreach=True)
            sgd.step()

    def score(self, network: nn.Module) -> float:
        """Recompute BatchNorm statistics, and return the validation accuracy."""
        (images, _), size = self.train, self.batch_size
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.track_running_stats, norm.momentum = True, None  # a cumulative average
        with torch.inference_mode():
            for index in torch.randperm(len(images))[: self.bn_images].split(size):
                network(_pixels(images[index]))
            network.eval()
            batches = zip(*(part.split(size) for part in self.val), strict=True)
            return sum(int((network(_pixels(x)).argmax(1) == y).sum()) for x, y in batches) / len(self.val[0])

    def augmented(self, images: Tensor) -> Tensor:
        """Shift and mirror images of shape (N, C, H, W) at random."""
        n, size = len(images), images.shape[-1]
        windows = F.pad(images, (self.crop,) * 4).unfold(2, size, 1).unfold(3, size, 1)
        top, left = torch.randint(2 * self.crop + 1, (2, n))
        cropped = windows[torch.arange(n), :, top, left]
        return torch.where((torch.rand(n) < 0.5)[:, None, None, None], cropped.flip(3), cropped)


def _pixels(images: Tensor) -> Tensor:
    return images.to(torch.float32, memory_format=torch.channels_last).div_(127.5).sub_(1.0)
