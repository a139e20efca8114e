"""Parameters and multiply-adds of the paper's Table 6: 19 classes, 1024x2048 pixels, one image. Half a minute.

Networks of ours by the exact cost functions; those of torchvision by counting while they compute, without storage. The
paper's network has 3.01M params and 5.2B macs; ``--nearest N`` prints the N combinations of network and head nearest to
that, by the sum of the two ratios' absolute logarithms.

    python benchmarks/table6.py [--nearest 10]
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log

import torch
import torchvision
from torch import nn

from ddpnas_ray.costs.heads import head_cost
from ddpnas_ray.spaces.base import SpaceSpec, find_space
from ddpnas_ray.spaces.known import KnownNetwork, known_network
from ddpnas_ray.spaces.target import Head, Inputs, Target, TargetConfig
from ddpnas_ray.testing import count_macs

HEIGHT, WIDTH, CLASSES = 1024, 2048, 19
PAPER = (3_010_000, 5_200_000_000)
NAMES, WIDTHS, STRIDES = ("aspp", "decoder", "lraspp"), (64, 128, 192, 256), (8, 16, 32)
CELLS = [(20, 36), (14, 48), (8, 48), (8, 24), (8, 16)]  # cells, channels
MORE_CELLS = list(itertools.product((3, 5, 6, 8, 10, 14, 20), (12, 16, 20, 24, 28, 36, 48)))
MOBILE = ("mobilenet_v2", "proxylessnas_cpu", "proxylessnas_gpu")


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    network: str
    head: str
    params: int
    macs: int

    @property
    def distance(self) -> float:
        """Distance to the paper's network."""
        return abs(log(self.params / PAPER[0])) + abs(log(self.macs / PAPER[1]))

    def __str__(self) -> str:
        return f"| {self.network} | {self.head} | {self.params / 1e6:.2f}M | {self.macs / 1e9:.2f}B |"


def ours(sizes: Sequence[tuple[int, int]], widths: Sequence[int]) -> Iterator[Row]:
    """Yield every known network with every head."""
    networks: list[tuple[str, KnownNetwork, TargetConfig]] = [
        (f"DARTS_V2, {cells} cells, C {c}", known_network("darts_v2"), TargetConfig(cells=cells, channels=c))
        for cells, c in sizes
    ]
    networks += [(name, known_network(name), TargetConfig()) for name in MOBILE]
    for (name, known, config), head, width, stride in itertools.product(networks, NAMES, widths, STRIDES):
        spec: SpaceSpec = find_space(known.space)(**known.options)
        inputs = Inputs(
            shape=(3, HEIGHT, WIDTH),
            outputs=CLASSES,
            head=Head(name=head, width=width, output_stride=stride),  # type: ignore[arg-type]
        )
        target, alpha_E = Target.resolve(config, inputs, spec.target), spec.encode(known.genotype)
        params, macs = (int(spec.costs[cost](target)(alpha_E)) for cost in ("params", "macs"))
        yield Row(name, f"{head} {width}, stride {stride}", params, macs)


def torchvisions() -> Iterator[Row]:
    """Yield the networks of torchvision that the paper compares with."""
    for name in ("deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"):
        with torch.device("meta"):
            network = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=CLASSES)
            yield Row(f"torchvision {name}", "its own", *counted(network))
    for stride, dilated in ((8, [False, True, True]), (16, [False, False, True]), (32, [False, False, False])):
        with torch.device("meta"):
            body = torchvision.models.resnet50(weights=None, replace_stride_with_dilation=dilated)
            body.fc = nn.Identity()
            params, macs = counted(body)
        yield Row(f"ResNet-50, stride {stride}", "none", params, macs)
        for width in (64, 256):
            features = {stride: (2048, (HEIGHT // stride, WIDTH // stride))}
            head = head_cost("aspp", width=width, classes=CLASSES, features=features)
            yield Row(f"ResNet-50, stride {stride}", f"aspp {width}", params + head.params, macs + head.macs)


def counted(network: nn.Module) -> tuple[int, int]:
    """Return params and macs of a network on the meta device."""
    return sum(p.numel() for p in network.parameters()), count_macs(network.eval(), torch.empty(1, 3, HEIGHT, WIDTH))


def main() -> None:
    """Print the table; see the module docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nearest", type=int, default=0, metavar="N", help="print the N nearest to the paper instead")
    args = parser.parse_args()
    print("| network | head | params | macs |\n| --- | --- | --- | --- |")
    if args.nearest:
        rows = sorted(ours(MORE_CELLS, WIDTHS), key=lambda row: row.distance)[: args.nearest]
    else:
        print("| DDPNAS, paper | ASPP | 3.01M | 5.20B |")
        print("| MobileNetV3, paper | ASPP | 6.70M | 4.45B |\n| ResNet-50, paper | ASPP | 23.05M | 308.74B |")
        rows = [*torchvisions(), *ours(CELLS, WIDTHS[:1])]
    print(*rows, sep="\n")


if __name__ == "__main__":
    main()
