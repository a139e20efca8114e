"""Checks of networks with a head, for the spaces that have them."""

from __future__ import annotations

import numpy as np
import torch

from ddpnas_ray.core.space import IntArray
from ddpnas_ray.nn.ops import FactorizedConv
from ddpnas_ray.spaces.base import SpaceSpec
from ddpnas_ray.spaces.target import Head, Inputs, Target, TargetConfig
from ddpnas_ray.testing import count_bn_relu, count_macs

HEADS = [
    Head(name=name, width=16, output_stride=stride)  # type: ignore[arg-type]
    for name in ("aspp", "decoder", "lraspp")
    for stride in (8, 16, 32)
]
SIZES = [(64, 96), (97, 129)]


def assert_costs(spec: SpaceSpec, inputs: Inputs, config: TargetConfig) -> None:
    """Compare the costs of two architectures with counts of their networks, in deploy and in search form."""
    target = Target.resolve(config, inputs, spec.target)
    rng = np.random.default_rng(0)
    for _ in range(2):
        alpha_E = np.array([rng.integers(len(edge.candidates)) for edge in spec.space.edges])
        with torch.device("meta"):
            network, searched = spec.deploy(alpha_E, target).eval(), spec.build(alpha_E, inputs).eval()
            x = torch.empty(1, *inputs.shape)
            assert network(x).shape == (1, inputs.outputs, *inputs.shape[1:])
            macs = count_macs(network, x)
            counted = {
                "params": sum(p.numel() for p in network.parameters()),
                "macs": macs,
                "macs_bn_relu": macs + count_bn_relu(network, x),
            }
            of_search = count_macs(searched, x)
        assert {name: spec.costs[name](target)(alpha_E) for name in counted} == counted
        assert spec.effort(alpha_E, inputs) == of_search


def assert_dilation_reads_the_same_pixels(
    spec: SpaceSpec, alpha_E: IntArray, config: TargetConfig, *, unshifted: bool = False
) -> None:
    """Show that a network at output stride 8 has, at every second pixel, the features of one at stride 16.

    Args:
        spec: The space.
        alpha_E: An architecture without pools, whose windows are not dilated.
        config: The deploy network.
        unshifted: Give ``FactorizedReduce`` both halves at the same pixels, as ``FactorizedConv`` has them.
    """
    maps = []
    for stride in (8, 16):
        head = Head(name="aspp", width=4, output_stride=stride)  # type: ignore[arg-type]
        target = Target.resolve(config, Inputs(shape=(3, 128, 160), outputs=5, head=head), spec.target)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = spec.deploy(alpha_E, target).eval()
        if unshifted:
            for module in network.modules():
                if type(module).__name__ == "FactorizedReduce":
                    module.__class__ = FactorizedConv
        x = torch.randn(1, 3, 128, 160, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            maps.append(network.features(x))  # type: ignore[operator]
    dilated, lowered = maps
    assert list(dilated)[-1] == 8 and list(lowered)[-1] == 16
    inner = (slice(None), slice(None), slice(2, -2), slice(2, -2))  # padding differs at the edges
    torch.testing.assert_close(dilated[8][:, :, ::2, ::2][inner], lowered[16][inner], rtol=1e-4, atol=1e-5)
