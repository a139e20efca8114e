"""Depthwise convolutions on CPU whose backward passes keep to what oneDNN is fast at.

oneDNN has a fast kernel for gradients of depthwise weights only where the kernel is at most three columns wide and not
dilated, and a fast one for gradients of inputs only without dilation; elsewhere it takes up to 30 times as long. Every
gradient here is one of those, or a forward pass, of the same numbers in another arrangement:

- stride 2 with dilation 2 reads every other pixel only: stride 1 without dilation on those;
- a gradient of inputs at stride 1 is a convolution with the flipped kernel;
- dilation 2 is no dilation on every other row and column;
- five columns are two and three;
- of a kernel that is larger than the image, only a part meets pixels.

All tensors are float32 and NHWC in memory. Axes: N images, C channels, H rows, W columns, K kernel size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

WIDEST = 3  # columns of a kernel whose gradient oneDNN computes fast


class DepthwiseConv2d(nn.Conv2d):
    """``nn.Conv2d`` with one group a channel, no bias, an odd kernel and "same" padding; see the module."""

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Return whether a module is a convolution of the kind that this class computes."""
        if type(module) is not nn.Conv2d or module.bias is not None or module.padding_mode != "zeros":
            return False
        (k, k2), (s, s2), (d, d2) = module.kernel_size, module.stride, module.dilation
        square = k == k2 and s == s2 and d == d2 and k % 2 == 1
        same = module.padding == (d * (k - 1) // 2,) * 2
        depthwise = module.groups == module.in_channels == module.out_channels
        return square and same and depthwise and s in (1, 2) and d in (1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride))."""
        if not suits(x):
            return super().forward(x)
        stride, dilation = self.stride[0], self.dilation[0]
        if stride == dilation == 2:
            (x,), stride, dilation = every_other(x, (0,)), 1, 1
        weight = _in_reach(self.weight, x.shape, dilation)
        if not torch.is_grad_enabled():
            return _convolved(x, weight, stride, dilation)
        found: Tensor = _Depthwise.apply(x, weight, stride, dilation)
        return found


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.dilation = stride, dilation
        return _convolved(x, weight, stride, dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        of_x = input_gradient(grad, x, weight, ctx.stride, ctx.dilation) if ctx.needs_input_grad[0] else None
        of_weight = weight_gradient(grad, x, weight, ctx.stride, ctx.dilation) if ctx.needs_input_grad[1] else None
        return of_x, of_weight, None, None


def suits(x: Tensor) -> bool:
    """Return whether the fast forms are for such an input: float32 images on a CPU, NHWC in memory."""
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return plain and x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)


def every_other(x: Tensor, starts: Sequence[int]) -> tuple[Tensor, ...]:
    """Return every other row and column of NHWC images, from each start on; the gradient is NHWC too."""
    found: tuple[Tensor, ...] = _EveryOther.apply(x, starts)
    return found


class _EveryOther(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, starts: Sequence[int]) -> tuple[Tensor, ...]:
        ctx.shape, ctx.starts = x.shape, starts
        return tuple(x[:, :, i::2, i::2].contiguous(memory_format=torch.channels_last) for i in starts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        whole = torch.empty(ctx.shape, dtype=gradients[0].dtype, memory_format=torch.channels_last).zero_()
        for i, grad in zip(ctx.starts, gradients, strict=True):
            whole[:, :, i::2, i::2] = grad
        return whole, None


def input_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """Return the gradient of the input, shape (N, C, H, W).

    Args:
        grad: Gradient of the output, shape (N, C, ceil(H / stride), ceil(W / stride)).
        x: The input; only its shape matters.
        weight: Shape (C, 1, rows, columns), both odd.
        stride: 1 or 2.
        dilation: 1 or 2; 1 with stride 2.
    """
    if stride == 1:
        return _convolved(grad, weight.flip(2, 3), 1, dilation)
    return _gradients(grad, x, weight, stride, _padding(weight, dilation), dilation, (True, False))[0]


def weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """Return the gradient of the weights, in their shape; arguments as for ``input_gradient``."""
    if dilation == 2 and stride == 1 and weight[0].numel() > 1:
        x, grad = _parities(x), _parities(grad)
        parts = plain_weight_gradient(grad, x, weight.repeat(2, 1, 1, 1), 1)
        return parts[: len(weight)] + parts[len(weight) :]
    return plain_weight_gradient(grad, x, weight, stride)


def plain_weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Return the gradient of the weights of a convolution without dilation, shape (C, 1, rows, columns).

    More than three columns are computed two or three at a time.
    """
    rows, columns = weight.shape[2:]
    if columns <= WIDEST:
        return _gradients(grad, x, weight, stride, _padding(weight, 1), 1, (False, True))[1]
    padded, found = F.pad(x, (columns // 2, columns // 2)), []
    for first in range(0, columns - 1, 2):  # even, so that a stride of 2 divides it
        some = weight[..., first : first + 2 if first + 3 < columns else columns].contiguous()
        # the part's output column v meets the padded input's column `stride * v + j`: v is w, moved
        left = first // stride
        right = (padded.shape[3] - some.shape[3]) // stride + 1 - grad.shape[3] - left
        moved = F.pad(grad, (left, right))
        found.append(_gradients(moved, padded, some, stride, (rows // 2, 0), 1, (False, True))[1])
    return torch.cat(found, dim=3)


def _parities(x: Tensor) -> Tensor:
    """Return (N, C, H, W) as (2 N, 2 C, H / 2, W / 2): even and odd rows are images, even and odd columns channels."""
    n, c, h, w = x.shape
    if h % 2 or w % 2:
        x = F.pad(x, (0, w % 2, 0, h % 2))  # zeros change no sum
        h, w = x.shape[2:]
    by_row = x.permute(0, 2, 3, 1).reshape(n, h // 2, 2, w // 2, 2 * c)
    return by_row.transpose(1, 2).reshape(2 * n, h // 2, w // 2, 2 * c).permute(0, 3, 1, 2)


def _in_reach(weight: Tensor, shape: torch.Size, dilation: int) -> Tensor:
    """Return the part of a kernel that meets a pixel of images of this shape; the rest meets padding alone."""
    for axis in (2, 3):
        reach, half = (shape[axis] - 1) // dilation, weight.shape[axis] // 2
        if reach < half:
            weight = weight.narrow(axis, half - reach, 2 * reach + 1)
    return weight


def _convolved(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    return F.conv2d(x, weight, None, stride, _padding(weight, dilation), dilation, len(weight))


def _padding(weight: Tensor, dilation: int) -> tuple[int, int]:
    rows, columns = weight.shape[2:]
    return dilation * (rows // 2), dilation * (columns // 2)


def _gradients(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: int,
    padding: tuple[int, int],
    dilation: int,
    wanted: tuple[bool, bool],
) -> tuple[Tensor, Tensor]:
    """Return PyTorch's own gradients of the input and of the weights; None for those that are not wanted."""
    found = torch.ops.aten.convolution_backward(
        grad, x, weight, None, [stride] * 2, padding, [dilation] * 2, False, [0, 0], len(weight), (*wanted, False)
    )
    return found[0], found[1]
