"""Source of a chain of inverted residual blocks in plain PyTorch."""

from __future__ import annotations

from pathlib import Path

from ddpnas_ray.core.space import IntArray
from ddpnas_ray.spaces.mobile.costs import MBCONVS, ZERO, Backbone, chosen
from ddpnas_ray.spaces.plain import render
from ddpnas_ray.spaces.target import Target

TEMPLATE = Path(__file__).with_name("plain.py.j2")


def network_source(backbone: Backbone, alpha_E: IntArray, target: Target) -> str:
    """Write the network as Python source; its weights are those of the deploy network, in the same order.

    Args:
        backbone: The network's shape.
        alpha_E: The chosen operation of every searched block.
        target: Colour channels and classes.
    """
    names = chosen(backbone.candidates(), alpha_E)
    places = [f"stage {stage}, block {block}" for stage, depth in enumerate(backbone.depths) for block in range(depth)]
    blocks = [
        (place, None if name == ZERO else (*MBCONVS[name], block.in_channels, block.out_channels, block.stride))
        for place, name, block in zip(places, names, backbone.blocks(), strict=True)
    ]
    first = (backbone.first_kernel, 1, backbone.first.in_channels, backbone.first.out_channels, 1)
    return render(TEMPLATE, backbone=backbone, blocks=[("first, fixed", first), *blocks], target=target)
