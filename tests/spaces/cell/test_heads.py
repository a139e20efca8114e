"""Networks of cells with a head: the contract, exact costs, dilation."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.costs.convnet import CELL_OPS
from ddpnas_ray.spaces.cell.costs import geometry
from ddpnas_ray.spaces.cell.space import make
from ddpnas_ray.spaces.inherit import inherited
from ddpnas_ray.spaces.target import Head, Inputs, Target, TargetConfig
from ddpnas_ray.testing import SpaceContract
from tests.spaces.heads import HEADS, SIZES, assert_costs, assert_dilation_reads_the_same_pixels

small = staticmethod(partial(make, cells=4, nodes=2, channels=4))


class TestWithAHead(SpaceContract):
    make = small
    inputs = Inputs(shape=(3, 33, 48), outputs=5, head=Head(name="decoder", width=8, output_stride=8))
    target_config = TargetConfig(cells=4, channels=4, stem="imagenet")
    random_alphas = 1


class TestWithAHeadAndTheStemOfImageNet(SpaceContract):
    make = staticmethod(partial(make, cells=3, nodes=1, channels=2))
    inputs = Inputs(shape=(1, 129, 160), outputs=2, head=Head(name="lraspp", width=3, output_stride=16))
    target_config = TargetConfig(cells=3, channels=2)
    random_alphas = 1


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("head", HEADS, ids=str)
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_costs_with_a_head_are_those_of_the_network(head: Head, size: tuple[int, int], stem: str) -> None:
    inputs = Inputs(shape=(3, *size), outputs=5, head=head)
    assert_costs(make(cells=4, nodes=2, channels=4), inputs, TargetConfig(cells=5, channels=6, stem=stem))  # type: ignore[arg-type]


def test_reductions_beyond_the_output_stride_are_dilated() -> None:
    def cells(output_stride: int | None) -> list[tuple[int, int]]:
        shape = {"nodes": 1, "channels": 4, "image_size": (64, 96), "stem": "imagenet", "output_stride": output_stride}
        return [(g.stride, g.dilation) for g in geometry(cells=5, reductions=(1, 3), **shape)]  # type: ignore[arg-type]

    assert cells(None) == cells(32) == [(8, 1), (16, 1), (16, 1), (32, 1), (32, 1)]
    assert cells(16) == [(8, 1), (16, 1), (16, 1), (16, 2), (16, 2)]
    assert cells(8) == [(8, 1), (8, 2), (8, 2), (8, 4), (8, 4)]


@pytest.mark.parametrize("name", [name for name in CELL_OPS if "pool" not in name and name != "none"])
def test_a_dilated_network_computes_the_same_at_the_pixels_that_it_shares(name: str) -> None:
    """But for the second half of ``FactorizedReduce``, which is shifted only where the resolution is lowered."""
    spec, alpha_E = make(cells=2, nodes=1), np.full(8, CELL_OPS.index(name))
    alpha_E[4:] = CELL_OPS.index("sep_conv_3x3" if name == "skip_connect" else name)  # the reduction cell
    assert_dilation_reads_the_same_pixels(
        spec, alpha_E[[0, 1, 4, 5]], TargetConfig(cells=2, channels=2, stem="imagenet"), unshifted=True
    )


def test_a_skip_over_a_reduction_that_keeps_the_size_has_the_same_weights() -> None:
    spec, alpha_E = make(cells=3, nodes=1), np.full(4, CELL_OPS.index("skip_connect"))
    sizes = set()
    for stride in (8, 32):
        head = Head(name="aspp", width=4, output_stride=stride)  # type: ignore[arg-type]
        target = Target(cells=3, channels=2, image_size=(64, 96), classes=5, stem="imagenet", head=head)
        network = spec.deploy(alpha_E, target).eval()
        with torch.no_grad():
            assert network(torch.randn(1, 3, 64, 96)).shape == (1, 5, 64, 96)
        sizes.add(tuple((name, p.shape) for name, p in network.named_parameters()))
    assert len(sizes) == 1


def test_a_network_with_a_head_inherits_from_a_classifier_all_but_the_head() -> None:
    spec = make(cells=3, nodes=1, channels=4)
    alpha_E = np.full(4, CELL_OPS.index("sep_conv_3x3"))
    search = Inputs(shape=(3, 32, 32), outputs=10)
    tensors = {name: p.detach().numpy() for name, p in spec.supernet(search).named_parameters()}
    head = Head(name="aspp", width=4, output_stride=8)
    target = Target(cells=3, channels=4, image_size=(64, 96), classes=5, stem="cifar", head=head)
    values, share = inherited(spec, alpha_E, target, search, tensors)
    assert 0 < share < 1
    assert values and not any(name.startswith("head.") for name in values)
    with_head = {name: p.detach().numpy() for name, p in spec.supernet(target.inputs).named_parameters()}
    values, _ = inherited(spec, alpha_E, target, target.inputs, with_head)
    assert {name for name in values if name.startswith("head.")} == {n for n in with_head if n.startswith("head.")}


def test_an_auxiliary_head_is_refused_beside_a_head() -> None:
    head = Head(name="aspp", width=4, output_stride=8)
    target = Target(cells=3, channels=4, image_size=(64, 96), classes=5, stem="cifar", head=head)
    network = make(nodes=1).deploy(np.ones(4, dtype=np.int64), target)
    with pytest.raises(ConfigError, match=r"^retraining\.auxiliary: networks with an aspp head .*: set it to 0$"):
        network.add_auxiliary_head()  # type: ignore[operator]
