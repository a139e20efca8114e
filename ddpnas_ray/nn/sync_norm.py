"""BatchNorm over the shares of a batch that several processes have: statistics are those of the whole batch.

Axes: C channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm


class _Shared(_BatchNorm):
    """BatchNorm of all processes of the default process group, in training; parameters and buffers are BatchNorm's."""

    def forward(self, input: Tensor) -> Tensor:
        """See ``nn.BatchNorm2d``; every process calls it, with any number of examples."""
        alone = not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1
        if not self.training or alone:
            return super().forward(input)
        self._check_input_dim(input)
        return self._together(input)

    @torch.compiler.disable
    def _together(self, x: Tensor) -> Tensor:
        found: Tensor
        found, mean_C, var_C, count = _Norm.apply(x, self.weight, self.bias, self.eps)
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None  # as the other two
            self.num_batches_tracked.add_(1)
            share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean_C, share)
            self.running_var.lerp_(var_C * (count / (count - 1)), share)  # unbiased, as BatchNorm's
        return found


class SharedBatchNorm1d(_Shared, nn.BatchNorm1d):
    """``nn.BatchNorm1d`` over all processes."""


class SharedBatchNorm2d(_Shared, nn.BatchNorm2d):
    """``nn.BatchNorm2d`` over all processes."""


class SharedBatchNorm3d(_Shared, nn.BatchNorm3d):
    """``nn.BatchNorm3d`` over all processes."""


SHARED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: SharedBatchNorm1d,
    nn.BatchNorm2d: SharedBatchNorm2d,
    nn.BatchNorm3d: SharedBatchNorm3d,
}


def share_statistics(network: nn.Module, device: str) -> None:
    """Let the BatchNorms of a network compute their statistics over all processes, in place.

    On GPUs they become torch's ``SyncBatchNorm``, which there is none of on CPUs. Names of parameters and buffers stay.

    Args:
        network: A network of more than one module.
        device: ``cpu`` or ``cuda``.
    """
    if device != "cpu":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return
    for module in network.modules():
        if type(module) in SHARED:
            module.__class__ = SHARED[type(module)]


class _Norm(torch.autograd.Function):
    """Normalise by the mean and the variance over the examples and positions of all processes."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        axes, shape = _axes(x), _shape(x)
        whole = x.float()
        own = torch.full((1,), x.numel() / x.shape[1], device=x.device)
        mean_C = whole.mean(dim=axes) if x.numel() else whole.new_zeros(x.shape[1])
        squares_C = (whole - mean_C.view(shape)).square().sum(dim=axes)
        mine = torch.cat([mean_C, squares_C, own])
        every = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(every, mine)
        means_WC, squares_WC, counts_W1 = torch.stack(every).split([x.shape[1], x.shape[1], 1], dim=1)
        count = counts_W1.sum()
        if count <= 1:
            raise ValueError("BatchNorm needs more than one value per channel over all processes")
        mean_C = (counts_W1 * means_WC).sum(dim=0) / count
        # deviations from the whole mean, without the cancellation of a difference of squares
        var_C = (squares_WC + counts_W1 * (means_WC - mean_C).square()).sum(dim=0) / count
        rate_C = (var_C + eps).rsqrt()
        scale_C = rate_C if weight is None else rate_C * weight
        found = (whole - mean_C.view(shape)) * scale_C.view(shape)
        if bias is not None:
            found = found + bias.view(shape)
        ctx.save_for_backward(x, weight, mean_C, rate_C, count)
        ctx.has_bias = bias is not None
        ctx.mark_non_differentiable(mean_C, var_C, count)
        return found.to(x.dtype), mean_C, var_C, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean_C, rate_C, count = ctx.saved_tensors
        axes, shape = _axes(x), _shape(x)
        grad = grad.float()
        unit = (x.float() - mean_C.view(shape)) * rate_C.view(shape)
        by_bias_C, by_weight_C = grad.sum(dim=axes), (grad * unit).sum(dim=axes)
        sums = torch.cat([by_bias_C, by_weight_C])
        dist.all_reduce(sums)
        all_bias_C, all_weight_C = (sums / count).chunk(2)
        scale_C = rate_C if weight is None else rate_C * weight
        found = (grad - all_bias_C.view(shape) - unit * all_weight_C.view(shape)) * scale_C.view(shape)
        own = None if weight is None else by_weight_C, by_bias_C if ctx.has_bias else None
        return found.to(x.dtype), *own, None


def _axes(x: Tensor) -> list[int]:
    return [axis for axis in range(x.ndim) if axis != 1]


def _shape(x: Tensor) -> list[int]:
    return [1, -1] + [1] * (x.ndim - 2)
