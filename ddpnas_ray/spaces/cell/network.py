"""Networks of DARTS cells: the supernet, and the stand-alone network of one architecture, in search and deploy form.

One class serves all of them: it holds the given candidates, and a forward pass computes one candidate per edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.costs.convnet import height_and_width
from ddpnas_ray.nn.ops import (
    AuxiliaryHead,
    Concat,
    FactorizedConv,
    FactorizedReduce,
    ReLUConvBN,
    build_op,
    drop_path,
)
from ddpnas_ray.nn.weights import Piece
from ddpnas_ray.spaces.cell.costs import CellGeometry, CellNetShape, first_layer
from ddpnas_ray.spaces.target import size_text


class Cell(nn.Module):
    """A cell: each node is the sum of its edges' operations; the output concatenates the nodes (Sec. 3.1)."""

    def __init__(self, g: CellGeometry, candidates: Sequence[Sequence[str]], *, nodes: int, affine: bool) -> None:
        super().__init__()
        self.nodes, self.width, self.reduction, self.lowers = nodes, g.channels, g.reduction, g.lowers
        self.preprocess0 = preprocess(first_layer(g), g.channels_before_previous, g.channels, affine=affine)
        self.preprocess1 = preprocess("ReLUConvBN", g.channels_previous, g.channels, affine=affine)
        self.edges = nn.ModuleList()
        inputs = [i for node in range(nodes) for i in range(2 + node)]
        for source, names in zip(inputs, candidates, strict=True):
            stride, kept = (2, not g.lowers) if g.reduction and source < 2 else (1, False)
            build = partial(build_op, affine=affine, dilation=g.dilation, keeps_size=kept)
            ops = {name: build(name, g.channels, stride) for name in names if name != "none"}
            self.edges.append(nn.ModuleDict(ops))
        self.concat = Concat()

    def forward(
        self, before_previous: Tensor, previous: Tensor, chosen: Sequence[str], dropped: float | Tensor = 0.0
    ) -> Tensor:
        """(B, C'', H'', W''), (B, C', H', W') and one operation name per edge -> (B, M C, H, W).

        ``dropped`` is the probability of dropping a path; identities are never dropped.
        """
        states = [self.preprocess0(before_previous), self.preprocess1(previous)]
        edge = 0
        for _ in range(self.nodes):
            total: Tensor | None = None
            for state in tuple(states):
                if chosen[edge] != "none":
                    op = self.edges[edge][chosen[edge]]  # type: ignore[index]
                    out = op(state) if isinstance(op, nn.Identity) else drop_path(op(state), dropped)
                    total = out if total is None else total + out
                edge += 1
            states.append(self._zeros(states[0]) if total is None else total)
        found: Tensor = self.concat(states[2:])
        return found

    def _zeros(self, x: Tensor) -> Tensor:
        stride = 2 if self.lowers else 1
        height, width = ((side + stride - 1) // stride for side in x.shape[2:])  # ONNX rounds negatives towards zero
        return x.new_zeros(x.shape[0], self.width, height, width)


class CellNetwork(nn.Module):
    """A stack of cells that holds some candidates of every edge.

    Args:
        shape: The network's shape, all but the operations.
        candidates: The names of each edge's candidates: the normal cell's edges, then the reduction cell's. All normal
            cells share an architecture, and so do all reduction cells; each has weights of its own.

    Attributes:
        drop_path: Probability of dropping an operation's output for one sample, in training mode.
    """

    def __init__(self, shape: CellNetShape, candidates: Sequence[tuple[str, ...]]) -> None:
        super().__init__()
        self.shape, self.candidates, self.drop_path = shape, list(candidates), 0.0
        half, affine = len(candidates) // 2, shape.deploy
        self._strides = [g.stride for g in shape.geometry()]
        self.stem0, self.stem1 = build_stem(shape.stem, shape.input_channels, shape.channels, affine=affine)
        self.cells = nn.ModuleList(
            Cell(g, candidates[half:] if g.reduction else candidates[:half], nodes=shape.nodes, affine=affine)
            for g in shape.geometry()
        )
        if (head := shape.head) is None:
            self.classifier = nn.Linear(shape.geometry()[-1].channels * shape.nodes, shape.classes)
        else:
            from ddpnas_ray.nn.heads import build_head

            channels = {stride: width for stride, (width, _) in shape.features().items()}
            self.head = build_head(head.name, channels, head.width, shape.classes)
        self.register_module("auxiliary", None)
        self._names_by_choice: dict[tuple[int, str], list[tuple[int, Piece]]] | None = None

    def add_auxiliary_head(self) -> None:
        """Add a second classifier after the second reduction cell, as DARTS.

        Raises:
            ConfigError: The network has no classifier; or the auxiliary head pools 5x5 pixels, and images this small
                have too few there.
        """
        shape, at = self.shape, self.shape.reductions[-1]
        if shape.head is not None:
            raise ConfigError(
                f"retraining.auxiliary: networks with an {shape.head.name} head take no auxiliary one: set it to 0"
            )
        g, cifar = shape.geometry()[at], shape.stem == "cifar"
        stride, (height, width) = 3 if cifar else 2, height_and_width(g.size_out)
        if min(height, width) < (needed := 5 + stride):
            raise ConfigError(
                f"retraining.auxiliary: images of {size_text(shape.image_size)} px have {height}x{width} pixels after "
                f"cell {at + 1} of {shape.cells}; the auxiliary head needs {needed}x{needed}: set it to 0"
            )
        head = AuxiliaryHead(shape.nodes * g.channels, shape.classes, stride=stride, last_norm=cifar)
        self.auxiliary = head.to(self.classifier.weight)

    def forward(self, x: Tensor, alpha_E: IntArray | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Images (B, C, H, W) -> logits (B, classes), with a head (B, classes, H, W); computes one operation per edge.

        Args:
            x: Images.
            alpha_E: The chosen candidate of every edge; optional where each edge has only one.

        Returns:
            The logits; in training mode with an auxiliary head, a pair with that head's logits.
        """
        maps, auxiliary = self._run(x, alpha_E)
        if self.shape.head is not None:
            found: Tensor = self.head(maps, x.shape[-2:])
            return found
        logits = self.classifier(maps[max(maps)].mean(dim=(2, 3)))
        return logits if auxiliary is None else (logits, auxiliary)

    def features(self, x: Tensor, alpha_E: IntArray | None = None) -> dict[int, Tensor]:
        """Images (B, C, H, W) -> the last feature map of every stride, (B, width, ceil(H / stride), ceil(W / stride)).

        Strides are powers of 2 from that of the stem on, ascending; the last is the output stride.
        """
        return self._run(x, alpha_E)[0]

    def _run(self, x: Tensor, alpha_E: IntArray | None) -> tuple[dict[int, Tensor], Tensor | None]:
        """Return the feature maps, and the auxiliary logits, if there are any."""
        if alpha_E is None:
            chosen = [names[0] for names in self.candidates]
        else:
            chosen = [names[k] for names, k in zip(self.candidates, alpha_E, strict=True)]
        half, dropped = len(chosen) // 2, self.drop_path if self.training else 0.0
        before = self.stem0(x)
        last = self.stem1(before)
        maps = {1: last} if self.shape.stem == "cifar" else {4: before, 8: last}
        auxiliary: Tensor | None = None
        for c, (cell, stride) in enumerate(zip(self.cells, self._strides, strict=True)):
            before, last = last, cell(before, last, chosen[half:] if cell.reduction else chosen[:half], dropped)
            maps[stride] = last
            if self.auxiliary is not None and self.training and c == self.shape.reductions[-1]:
                auxiliary = self.auxiliary(last)
        return maps, auxiliary

    def pieces(self, alpha_E: IntArray) -> list[Piece]:
        """Return the parameters that an architecture uses, in the order of its stand-alone network.

        An operation's parameters belong to its edge in every cell of the kind; all architectures use the others.
        """
        if self._names_by_choice is None:
            self._names_by_choice = self._index()
        parts = list(self._names_by_choice.get((-1, ""), []))
        for e, k in enumerate(alpha_E):
            parts += self._names_by_choice.get((e, self.candidates[e][k]), [])
        return [piece for _, piece in sorted(parts, key=lambda part: part[0])]

    def _index(self) -> dict[tuple[int, str], list[tuple[int, Piece]]]:
        """Map (edge, operation) to its parameters with their positions, and (-1, "") to those that are always used."""
        index: dict[tuple[int, str], list[tuple[int, Piece]]] = {}
        half = len(self.candidates) // 2
        for position, (name, parameter) in enumerate(self.named_parameters()):
            parts = name.split(".")
            key = (-1, "")
            if parts[0] == "cells" and parts[2] == "edges":
                cell = self.cells[int(parts[1])]
                key = (int(parts[3]) + (half if cell.reduction else 0), parts[4])
            index.setdefault(key, []).append((position, Piece(name, tuple(parameter.shape))))
        return index


def build_stem(stem: str, input_channels: int, channels: int, *, affine: bool = True) -> nn.Sequential:
    """Build the stem; the outputs of its two halves are the first cell's inputs."""
    c = channels
    if stem == "cifar":
        first = [nn.Conv2d(input_channels, 3 * c, 3, 1, 1, bias=False), nn.BatchNorm2d(3 * c, affine=affine)]
        return nn.Sequential(nn.Sequential(*first), nn.Identity())
    return nn.Sequential(
        nn.Sequential(
            nn.Conv2d(input_channels, c // 2, 3, 2, 1, bias=False),
            nn.BatchNorm2d(c // 2, affine=affine),
            nn.ReLU(),
            nn.Conv2d(c // 2, c, 3, 2, 1, bias=False),
            nn.BatchNorm2d(c, affine=affine),
        ),
        nn.Sequential(nn.ReLU(), nn.Conv2d(c, c, 3, 2, 1, bias=False), nn.BatchNorm2d(c, affine=affine)),
    )


def preprocess(kind: str, in_channels: int, out_channels: int, *, affine: bool = True) -> nn.Module:
    """Build the layer that brings a cell's input to its width, and to the size of the other input."""
    layers = {"FactorizedReduce": FactorizedReduce, "FactorizedConv": FactorizedConv, "ReLUConvBN": ReLUConvBN}
    return layers[kind](in_channels, out_channels, affine=affine)


def deploy_op(name: str, channels: int, stride: int, dilation: int = 1, keeps_size: bool = False) -> nn.Module:
    """Build one operation in deploy form."""
    return build_op(name, channels, stride, affine=True, dilation=dilation, keeps_size=keeps_size)


def classifier(width: int, classes: int) -> nn.Module:
    """Build global pooling and the linear layer."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))
