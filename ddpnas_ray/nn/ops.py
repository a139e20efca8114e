"""The DARTS operations, in the forms that searching and deploying use.

Search form: BatchNorm without affine parameters, and one after pooling. Deploy form: affine BatchNorm, none after
pooling, as DARTS evaluates. ``none`` has no module and is not computed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpnas_ray.costs.convnet import CONVOLUTIONS


def build_op(
    name: str, channels: int, stride: int, *, affine: bool, dilation: int = 1, keeps_size: bool = False
) -> nn.Module:
    """Build one candidate operation of an edge.

    Args:
        name: One of ``costs.convnet.CELL_OPS`` except ``none``.
        channels: C, the same in and out.
        stride: 1, or 2 on the edges of a reduction cell that start at its inputs.
        affine: True builds the deploy form, False the search form.
        dilation: Convolutions are dilated that many times as much as usual; pools are not.
        keeps_size: An operation of stride 2 is applied at every pixel, with the same parameters. Convolutions before
            the stride that is left out are dilated half as much.

    Returns:
        A module (B, C, H, W) -> (B, C, ceil(H / stride), ceil(W / stride)); with ``keeps_size``, (B, C, H, W).
    """
    if name == "skip_connect":
        if stride == 1:
            return nn.Identity()
        return (FactorizedConv if keeps_size else FactorizedReduce)(channels, channels, affine=affine)
    step = 1 if keeps_size else stride
    if name == "max_pool_3x3":
        return _pool(nn.MaxPool2d(3, step, padding=1), channels, affine)
    if name == "avg_pool_3x3":
        return _pool(nn.AvgPool2d(3, step, padding=1, count_include_pad=False), channels, affine)
    kernel, own, repeats = CONVOLUTIONS[name]
    first = dilation // 2 if keeps_size else dilation
    pairs = [(step, own * first), (1, own * dilation)][:repeats]
    return nn.Sequential(*(m for s, d in pairs for m in _separable(channels, kernel, s, d, affine)))


class ReLUConvBN(nn.Sequential):
    """ReLU, convolution, BatchNorm; with a kernel of 1 it brings a cell's inputs to its width."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int = 1, stride: int = 1, affine: bool) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(out_channels, affine=affine),
        )


class Concat(nn.Module):
    """Concatenate feature maps over channels."""

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        """A sequence of (B, C_i, H, W) -> (B, sum of C_i, H, W)."""
        return torch.cat(tuple(parts), dim=1)


class FactorizedReduce(nn.Module):
    """Halve the resolution by two stride-2 1x1 convolutions, the second on the image shifted by one pixel.

    Odd sizes are padded by one row and column for the shifted half, so that both halves have ceil(H / 2) rows.
    """

    def __init__(self, in_channels: int, out_channels: int, *, affine: bool) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(in_channels, out_channels // 2, 1, stride=2, bias=False)
        self.conv_2 = nn.Conv2d(in_channels, out_channels - out_channels // 2, 1, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, ceil(H / 2), ceil(W / 2))."""
        x = F.relu(x)
        if isinstance(x.shape[2], torch.SymInt):  # exported for any size: the same without a branch on the parity
            shifted = F.pad(x, (0, 1, 0, 1))
        else:
            odd_h, odd_w = x.shape[2] % 2, x.shape[3] % 2
            shifted = F.pad(x, (0, odd_w, 0, odd_h)) if odd_h or odd_w else x
        return self.bn(torch.cat([self.conv_1(x), self.conv_2(shifted[:, :, 1:, 1:])], dim=1))


class FactorizedConv(FactorizedReduce):
    """``FactorizedReduce`` that keeps the resolution: both convolutions at every pixel, neither shifted."""

    def __init__(self, in_channels: int, out_channels: int, *, affine: bool) -> None:
        super().__init__(in_channels, out_channels, affine=affine)
        self.conv_1.stride = self.conv_2.stride = (1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H, W)."""
        x = F.relu(x)
        return self.bn(torch.cat([self.conv_1(x), self.conv_2(x)], dim=1))


class AuxiliaryHead(nn.Module):
    """A second classifier, on an inner feature map, for training only (DARTS).

    Maps larger than DARTS's (8x8 on CIFAR-10, 7x7 on ImageNet) leave several pixels, which are averaged.

    Args:
        channels: C of the feature map.
        classes: Number of classes.
        stride: Of the 5x5 pooling: 3 on CIFAR-10, 2 on ImageNet.
        last_norm: Whether BatchNorm follows the second convolution; DARTS's ImageNet head has none there.
    """

    def __init__(self, channels: int, classes: int, *, stride: int, last_norm: bool) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d(5, stride, count_include_pad=False),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            nn.BatchNorm2d(768) if last_norm else nn.Identity(),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> logits (B, classes); H and W are at least 5 + stride."""
        out: Tensor = self.classifier(self.features(x).mean(dim=(2, 3)))
        return out


def drop_path(x: Tensor, probability: float | Tensor) -> Tensor:
    """Zero every sample of a batch with a probability and divide the others by 1 - probability (DARTS's drop-path).

    Args:
        x: Shape (B, ...).
        probability: At least 0, which returns ``x`` itself, and less than 1. A tensor without axes may change without
            compiling again, as torch.compile does for every other number.
    """
    if isinstance(probability, Tensor):
        kept = 1.0 - probability
        return x * (torch.bernoulli(kept.expand(x.shape[0], *[1] * (x.ndim - 1))) / kept).to(x.dtype)
    if probability == 0:
        return x
    from torchvision.ops import stochastic_depth

    return stochastic_depth(x, probability, mode="row")


def _separable(channels: int, kernel: int, stride: int, dilation: int, affine: bool) -> list[nn.Module]:
    padding = dilation * (kernel - 1) // 2
    return [
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    ]


def _pool(pool: nn.Module, channels: int, affine: bool) -> nn.Module:
    return pool if affine else nn.Sequential(pool, nn.BatchNorm2d(channels, affine=False))
