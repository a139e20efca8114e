"""Networks of NAS-Bench-201: the supernet, and the stand-alone network of one architecture, in search and deploy form.

One class serves all of them: it holds the given candidates, and a forward pass computes one candidate per edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from ddpnas_ray.core.space import IntArray
from ddpnas_ray.nn.ops import ReLUConvBN, drop_path
from ddpnas_ray.nn.weights import Piece
from ddpnas_ray.spaces.nasbench201.costs import EDGES, KERNELS, NODES, Skeleton


class Cell(nn.Module):
    """A cell: each node is the sum of the operations on its edges, and the last node is the output."""

    def __init__(self, channels: int, candidates: Sequence[Sequence[str]], *, affine: bool) -> None:
        super().__init__()
        self.edges = nn.ModuleList(
            nn.ModuleDict({name: build_op(name, channels, affine=affine) for name in names if name != "none"})
            for names in candidates
        )

    def forward(self, x: Tensor, chosen: Sequence[str], dropped: float | Tensor = 0.0) -> Tensor:
        """(B, C, H, W) and one operation name per edge -> (B, C, H, W).

        ``dropped`` is the probability of dropping a path; identities are never dropped.
        """
        states = [x]
        for node in range(1, NODES):
            incoming = [
                drop_path(ops[name](states[source]), 0.0 if name == "skip_connect" else dropped)  # type: ignore[index]
                for (source, into), ops, name in zip(EDGES, self.edges, chosen, strict=True)
                if into == node and name != "none"
            ]
            states.append(reduce(torch.add, incoming) if incoming else torch.zeros_like(x))
        return states[-1]


class Reduction(nn.Module):
    """The residual block between two stages: twice the channels, half the side (rounded up)."""

    def __init__(self, channels: int, *, affine: bool = True) -> None:
        super().__init__()
        self.conv_a = ReLUConvBN(channels, 2 * channels, kernel=3, stride=2, affine=affine)
        self.conv_b = ReLUConvBN(2 * channels, 2 * channels, kernel=3, affine=affine)
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, ceil_mode=True),  # odd sides round up, as for the convolution of stride 2
            nn.Conv2d(channels, 2 * channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 2 C, ceil(H / 2), ceil(W / 2))."""
        out: Tensor = self.shortcut(x) + self.conv_b(self.conv_a(x))
        return out


class Addition(nn.Module):
    """Addition of a further edge into a node, as a module for timing."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        return x + x


class NasBench201Network(nn.Module):
    """Stem, three stages of cells with a reduction between them, and the head.

    Args:
        skeleton: The network's shape, all but the operations.
        candidates: The names of each edge's candidates. All cells share an architecture; each has weights of its own.
        affine: True builds the deploy form, False the search form.

    Attributes:
        drop_path: Probability of dropping an operation's output for one sample, in training mode.
    """

    def __init__(self, skeleton: Skeleton, candidates: Sequence[tuple[str, ...]], *, affine: bool) -> None:
        super().__init__()
        self.candidates, self.drop_path = list(candidates), 0.0
        self.stem = build_stem(skeleton.input_channels, skeleton.channels, affine=affine)
        self.layers = nn.ModuleList()
        for channels, _ in skeleton.stages():
            if len(self.layers) > 0:
                self.layers.append(Reduction(channels // 2, affine=affine))
            self.layers.extend(Cell(channels, candidates, affine=affine) for _ in range(skeleton.cells))
        self.head = build_head(channels, skeleton.classes, affine=affine)

    def forward(self, x: Tensor, alpha_E: IntArray | None = None) -> Tensor:
        """Images (B, C, H, W) -> logits (B, classes), computing one operation per edge.

        Args:
            x: Images.
            alpha_E: The chosen candidate of every edge; optional where each edge has only one.
        """
        chosen, dropped = self._chosen(alpha_E), self.drop_path if self.training else 0.0
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x, chosen, dropped) if isinstance(layer, Cell) else layer(x)
        out: Tensor = self.head(x)
        return out

    def pieces(self, alpha_E: IntArray) -> list[Piece]:
        """Return the parameters that an architecture uses, in the order of its stand-alone network.

        ``layers.<layer>.edges.<edge>.<operation>.*`` belong to one candidate; all architectures use the others.
        """
        used = [f".edges.{e}.{name}." for e, name in enumerate(self._chosen(alpha_E))]
        return [
            Piece(name, tuple(parameter.shape))
            for name, parameter in self.named_parameters()
            if ".edges." not in name or any(choice in name for choice in used)
        ]

    def _chosen(self, alpha_E: IntArray | None) -> list[str]:
        if alpha_E is None:
            return [names[0] for names in self.candidates]
        return [names[k] for names, k in zip(self.candidates, alpha_E, strict=True)]


def build_op(name: str, channels: int, *, affine: bool = True) -> nn.Module:
    """Build a candidate of an edge; ``none`` has no module and is not computed."""
    if name in KERNELS:
        return ReLUConvBN(channels, channels, kernel=KERNELS[name], affine=affine)
    return nn.Identity() if name == "skip_connect" else nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)


def build_stem(input_channels: int, channels: int, *, affine: bool = True) -> nn.Sequential:
    """Build the stem."""
    return nn.Sequential(
        nn.Conv2d(input_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels, affine=affine)
    )


def build_head(channels: int, classes: int, *, affine: bool = True) -> nn.Sequential:
    """Build BatchNorm, ReLU, global pooling and the linear layer."""
    return nn.Sequential(
        nn.BatchNorm2d(channels, affine=affine),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, classes),
    )
