"""``training.kernels: fast``: the same modules in forms that are faster on CPUs, and differ in the last bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ddpnas_ray.nn.kernels.depthwise import DepthwiseConv2d, every_other, suits
from ddpnas_ray.nn.ops import Concat, FactorizedReduce


class FastConcat(Concat):
    """``Concat`` whose gradients are dense: BatchNorm's backward pass takes 30 times as long on slices."""

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        """See ``Concat``."""
        found: Tensor = _Concat.apply(*parts)
        return found


class _Concat(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *parts: Tensor) -> Tensor:
        nhwc = parts[0].ndim == 4 and parts[0].is_contiguous(memory_format=torch.channels_last)
        ctx.format = torch.channels_last if nhwc else torch.contiguous_format
        ctx.channels = [part.shape[1] for part in parts]
        return torch.cat(parts, dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.contiguous(memory_format=ctx.format) for part in grad.split(ctx.channels, dim=1))


class FastFactorizedReduce(FactorizedReduce):
    """``FactorizedReduce`` that reads only the two quarters of the pixels that it uses, and keeps gradients NHWC."""

    def forward(self, x: Tensor) -> Tensor:
        """See ``FactorizedReduce``."""
        if not suits(x):
            return super().forward(x)
        odd_h, odd_w = x.shape[2] % 2, x.shape[3] % 2
        if odd_h or odd_w:
            x = F.pad(x, (0, odd_w, 0, odd_h))
        first, second = every_other(x, (0, 1))
        halves = F.conv2d(F.relu(first), self.conv_1.weight), F.conv2d(F.relu(second), self.conv_2.weight)
        found: Tensor = self.bn(torch.cat(halves, dim=1))
        return found


FASTER: dict[type[nn.Module], type[nn.Module]] = {Concat: FastConcat, FactorizedReduce: FastFactorizedReduce}


def accelerate(network: nn.Module) -> None:
    """Give modules the class of their faster form, in place; parameters, hooks and shared modules stay as they are."""
    for module in network.modules():
        if DepthwiseConv2d.fits(module):
            module.__class__ = DepthwiseConv2d
        elif type(module) in FASTER:
            module.__class__ = FASTER[type(module)]
