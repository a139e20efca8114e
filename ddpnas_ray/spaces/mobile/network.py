"""Chains of inverted residual blocks (MobileNetV2, ProxylessNAS): the supernet, and the network of one architecture.

One class serves both: it holds the given candidates, and a forward pass computes one candidate per block.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from ddpnas_ray.nn.ops import drop_path
from ddpnas_ray.nn.weights import Piece
from ddpnas_ray.spaces.mobile.costs import MBCONVS, ZERO, Backbone, Block, chosen
from ddpnas_ray.spaces.target import Head


class MBConv(nn.Module):
    """An inverted residual block: 1x1 expansion, depthwise convolution, 1x1 projection without activation.

    The input is added where the shape is kept. Expansion 1 has no expansion convolution.
    """

    def __init__(self, block: Block, *, kernel: int, expand: int) -> None:
        super().__init__()
        hidden = block.in_channels * expand
        self.keeps_shape = block.keeps_shape
        self.expand = nn.Identity() if expand == 1 else conv_bn_relu(block.in_channels, hidden, kernel=1)
        self.depthwise = conv_bn_relu(
            hidden, hidden, kernel=kernel, stride=block.step, groups=hidden, dilation=block.dilation
        )
        self.project = nn.Sequential(
            nn.Conv2d(hidden, block.out_channels, 1, bias=False), nn.BatchNorm2d(block.out_channels)
        )

    def forward(self, x: Tensor, dropped: float | Tensor = 0.0) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, ceil(H / stride), ceil(W / stride)).

        ``dropped`` is the probability of leaving only the residual connection, where there is one.
        """
        out: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + drop_path(out, dropped) if self.keeps_shape else out


class MobileNetwork(nn.Module):
    """Stem, first block, the blocks of all stages, last convolution, global pooling and classifier.

    A head takes the outputs of blocks: such a network has neither last convolution nor classifier. The last convolution
    widens pooled features at no cost for a small image, but would be most of the work on every pixel of a large one.

    Args:
        backbone: The network's shape, all but operations, images and classes.
        candidates: The names of each block's candidates.
        input_channels: Colour channels.
        classes: Number of classes.
        head: See above; its output stride is that of ``backbone``.

    Attributes:
        drop_path: Probability of dropping a residual block for one sample, in training mode.
    """

    def __init__(
        self,
        backbone: Backbone,
        candidates: Sequence[tuple[str, ...]],
        *,
        input_channels: int,
        classes: int,
        head: Head | None = None,
    ) -> None:
        super().__init__()
        self.candidates, self.drop_path, self._totals = list(candidates), 0.0, backbone.totals()
        widths = backbone.widths
        self.stem = conv_bn_relu(input_channels, widths[0], kernel=3, stride=backbone.stem_stride)
        self.first = MBConv(backbone.first, kernel=backbone.first_kernel, expand=1)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({name: build_mbconv(name, block) for name in names if name != ZERO})
            for block, names in zip(backbone.blocks(), candidates, strict=True)
        )
        if head is None:
            self.last = conv_bn_relu(widths[-2], widths[-1], kernel=1)
            self.classifier = nn.Linear(widths[-1], classes)
            self.register_module("head", None)
        else:
            from ddpnas_ray.nn.heads import build_head

            channels = {stride: width for stride, (width, _) in backbone.features(1).items()}
            self.head = build_head(head.name, channels, head.width, classes)

    def forward(self, x: Tensor, alpha_E: Iterable[int] = ()) -> Tensor:
        """Images (B, C, H, W) -> logits (B, classes), with a head (B, classes, H, W); computes one operation per block.

        Args:
            x: Images.
            alpha_E: The chosen candidate of every edge; optional where each block has only one.
        """
        maps = self.features(x, alpha_E)
        if self.head is not None:
            found: Tensor = self.head(maps, x.shape[-2:])
            return found
        return self.classifier(self.last(maps[max(maps)]).mean(dim=(2, 3)))

    def features(self, x: Tensor, alpha_E: Iterable[int] = ()) -> dict[int, Tensor]:
        """Images (B, C, H, W) -> the last feature map of every stride, (B, width, ceil(H / stride), ceil(W / stride)).

        Strides are powers of 2 from that of the stem on, ascending; the last is the output stride.
        """
        dropped = self.drop_path if self.training else 0.0
        x = self.first(self.stem(x), dropped)
        maps = {self._totals[0]: x}
        for block, name, stride in zip(self.blocks, chosen(self.candidates, alpha_E), self._totals[1:], strict=True):
            if name != ZERO:
                x = block[name](x, dropped)  # type: ignore[index]
            maps[stride] = x
        return maps

    def pieces(self, alpha_E: Iterable[int]) -> list[Piece]:
        """Return the parameters that an architecture uses, in the order of its stand-alone network.

        ``blocks.<block>.<operation>.*`` belong to one candidate; all architectures use the others.
        """
        used = {f"blocks.{i}.{name}" for i, name in enumerate(chosen(self.candidates, alpha_E))}
        return [
            Piece(name, tuple(parameter.shape))
            for name, parameter in self.named_parameters()
            if not name.startswith("blocks.") or ".".join(name.split(".")[:3]) in used
        ]


def conv_bn_relu(
    in_channels: int, out_channels: int, *, kernel: int, stride: int = 1, groups: int = 1, dilation: int = 1
) -> nn.Sequential:
    """Build a convolution without bias, affine BatchNorm and ReLU6."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(inplace=True),
    )


def build_mbconv(name: str, block: Block) -> MBConv:
    """Build a candidate of a block; ``zero`` has no module and is not computed."""
    kernel, expand = MBCONVS[name]
    return MBConv(block, kernel=kernel, expand=expand)


def classifier(width: int, classes: int) -> nn.Sequential:
    """Build global pooling and the linear layer."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))
