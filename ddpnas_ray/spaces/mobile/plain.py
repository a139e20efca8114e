"""Source of a chain of inverted residual blocks in plain PyTorch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ddpnas_ray.core.space import IntArray
from ddpnas_ray.spaces.mobile.costs import MBCONVS, ZERO, Backbone, Block, chosen
from ddpnas_ray.spaces.plain import fine_stride, head_source, render
from ddpnas_ray.spaces.target import Target

TEMPLATE = Path(__file__).with_name("plain.py.j2")


def network_source(backbone: Backbone, alpha_E: IntArray, target: Target) -> str:
    """Write the network as Python source; its weights are those of the deploy network, in the same order.

    Args:
        backbone: The network's shape.
        alpha_E: The chosen operation of every searched block.
        target: Colour channels, classes and head.
    """
    head = target.head
    backbone = backbone if head is None else replace(backbone, output_stride=head.output_stride)
    names = chosen(backbone.candidates(), alpha_E)
    places = [f"stage {stage}, block {block}" for stage, depth in enumerate(backbone.depths) for block in range(depth)]
    dilates = any(block.keeps_size for block in backbone.blocks())
    blocks = [
        (place, None if name == ZERO else _row(*MBCONVS[name], block, dilates))
        for place, name, block in zip(places, names, backbone.blocks(), strict=True)
    ]
    first = _row(backbone.first_kernel, 1, backbone.first, dilates)
    channels = {stride: width for stride, (width, _) in backbone.features(1).items()}
    return render(
        TEMPLATE,
        backbone=backbone,
        blocks=[("first, fixed", first), *blocks],
        dilates=dilates,
        target=target,
        head=head_source(head, channels, target.classes),
        fine=_blocks_until(backbone, names, fine_stride(head, channels)),
    )


def _row(kernel: int, expand: int, block: Block, dilates: bool) -> tuple[int | bool, ...]:
    """Return the arguments of a block of the source."""
    row = (kernel, expand, block.in_channels, block.out_channels, block.step)
    return (*row, block.dilation, block.keeps_shape) if dilates else row


def _blocks_until(backbone: Backbone, names: list[str], stride: int | None) -> int | None:
    """Return how many blocks, the first among them, make the last feature map of a stride."""
    if stride is None:
        return None
    last = max(i for i, total in enumerate(backbone.totals()) if total == stride)
    return 1 + sum(name != ZERO for name in names[:last])
