"""Heads that make outputs for every pixel from feature maps of several strides, as DeepLab and MobileNetV3 have them.

A head takes ``{stride: features}`` and the size of the outputs: features (B, C, ceil(H / stride), ceil(W / stride)) ->
logits (B, classes, H, W). ``costs.heads`` counts them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation import deeplabv3, lraspp

from ddpnas_ray.costs.convnet import Size, height_and_width
from ddpnas_ray.costs.heads import inputs_of, low_width, rates


class ASPPHead(nn.Module):
    """DeepLabV3: atrous spatial pyramid pooling, a 3x3 convolution and the classifier, on the deepest features.

    torchvision's ``DeepLabHead`` at any width. BatchNorm of the pooled features needs a batch of two in training mode.

    Args:
        channels: Stride -> channels of the feature map.
        width: Channels of its layers.
        classes: Outputs per pixel.
    """

    def __init__(self, channels: Mapping[int, int], width: int, classes: int) -> None:
        super().__init__()
        (self.deep,) = inputs_of("aspp", channels)
        self.aspp = deeplabv3.ASPP(channels[self.deep], rates(self.deep), width)
        self.smooth = conv_bn_relu(width, width, kernel=3)
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, features: Mapping[int, Tensor], size: tuple[int, int]) -> Tensor:
        """See the module."""
        return resized(self.classifier(self.smooth(self.aspp(features[self.deep]))), size)


class DecoderHead(nn.Module):
    """DeepLabV3+: pyramid pooling, enlarged and joined with reduced low-level features, and two 3x3 convolutions.

    Args: as of ``ASPPHead``.
    """

    def __init__(self, channels: Mapping[int, int], width: int, classes: int) -> None:
        super().__init__()
        self.deep, self.low = inputs_of("decoder", channels)
        self.aspp = deeplabv3.ASPP(channels[self.deep], rates(self.deep), width)
        self.reduce = conv_bn_relu(channels[self.low], low_width(width), kernel=1)
        self.smooth = nn.Sequential(
            conv_bn_relu(width + low_width(width), width, kernel=3), conv_bn_relu(width, width, kernel=3)
        )
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, features: Mapping[int, Tensor], size: tuple[int, int]) -> Tensor:
        """See the module."""
        low = self.reduce(features[self.low])
        deep = resized(self.aspp(features[self.deep]), low.shape[-2:])
        return resized(self.classifier(self.smooth(torch.cat([deep, low], dim=1))), size)


class LRASPPHead(nn.Module):
    """MobileNetV3's light head: deep features weighted by pooled ones, added to low-level ones as logits.

    Args: as of ``ASPPHead``.
    """

    def __init__(self, channels: Mapping[int, int], width: int, classes: int) -> None:
        super().__init__()
        self.deep, self.low = inputs_of("lraspp", channels)
        self.lraspp = lraspp.LRASPPHead(channels[self.low], channels[self.deep], classes, width)

    def forward(self, features: Mapping[int, Tensor], size: tuple[int, int]) -> Tensor:
        """See the module."""
        return resized(self.lraspp({"low": features[self.low], "high": features[self.deep]}), size)


HEADS: dict[str, type[nn.Module]] = {"aspp": ASPPHead, "decoder": DecoderHead, "lraspp": LRASPPHead}


def build_head(name: str, channels: Mapping[int, int], width: int, classes: int) -> nn.Module:
    """Build a head by its name, with weights from torch's generator; arguments as of ``ASPPHead``."""
    return HEADS[name](channels, width, classes)


class HeadAlone(nn.Module):
    """A head as a module of the deepest features alone, to be timed: it makes the others itself, of zeros.

    Args:
        name: The head's name.
        features: Stride -> channels and size of the feature map.
        width: Channels of its layers.
        classes: Outputs per pixel.
        size: Size of the outputs.
    """

    def __init__(
        self, name: str, features: Mapping[int, tuple[int, Size]], width: int, classes: int, size: Size
    ) -> None:
        super().__init__()
        self.head = build_head(name, {stride: channels for stride, (channels, _) in features.items()}, width, classes)
        self.size, (self.deep, *others) = height_and_width(size), inputs_of(name, features)
        self.others = {stride: (features[stride][0], *height_and_width(features[stride][1])) for stride in others}

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, classes, H, W)."""
        others = {stride: x.new_zeros(x.shape[0], *shape) for stride, shape in self.others.items()}
        found: Tensor = self.head(others | {self.deep: x}, self.size)
        return found


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, h, w) -> (B, C, H, W), bilinear."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def conv_bn_relu(in_channels: int, out_channels: int, *, kernel: int) -> nn.Sequential:
    """Build a convolution without bias, affine BatchNorm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )
