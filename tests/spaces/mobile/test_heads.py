"""Mobile networks with a head: the contract, exact costs, dilation."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from ddpnas_ray.spaces.inherit import inherited
from ddpnas_ray.spaces.mobile.costs import Backbone
from ddpnas_ray.spaces.mobile.space import make
from ddpnas_ray.spaces.target import Head, Inputs, Target, TargetConfig
from ddpnas_ray.testing import SpaceContract
from tests.spaces.heads import HEADS, SIZES, assert_costs, assert_dilation_reads_the_same_pixels

DEEP = {"widths": (4, 3, 5, 5, 6, 8, 9, 10, 32), "depths": (2, 1, 2, 1, 1, 1)}


class TestWithAHead(SpaceContract):
    make = staticmethod(partial(make, **DEEP))  # type: ignore[arg-type]
    inputs = Inputs(shape=(3, 65, 48), outputs=5, head=Head(name="decoder", width=8, output_stride=8))
    random_alphas = 1


class TestWithAHeadOnFewStrides(SpaceContract):
    make = staticmethod(partial(make, widths=(4, 3, 5, 6), depths=(2,), strides=(1,), stem_stride=1))
    inputs = Inputs(shape=(1, 9, 12), outputs=2, head=Head(name="lraspp", width=3, output_stride=16))
    random_alphas = 1


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("head", HEADS, ids=str)
def test_costs_with_a_head_are_those_of_the_network(head: Head, size: tuple[int, int]) -> None:
    assert_costs(make(**DEEP), Inputs(shape=(3, *size), outputs=5, head=head), TargetConfig())  # type: ignore[arg-type]


def test_blocks_beyond_the_output_stride_are_dilated_and_keep_their_candidates() -> None:
    whole = Backbone(
        widths=(4, 4, 4, 4, 4, 4, 8), depths=(1, 2, 1, 2), strides=(2, 2, 2, 2), stem_stride=2, first_kernel=3
    )
    limited = replace(whole, output_stride=8)
    assert [(b.step, b.dilation) for b in whole.blocks()] == [(2, 1), (2, 1), (1, 1), (2, 1), (2, 1), (1, 1)]
    assert [(b.step, b.dilation) for b in limited.blocks()] == [(2, 1), (2, 1), (1, 1), (1, 1), (1, 2), (1, 4)]
    assert limited.candidates() == whole.candidates()
    assert limited.sizes((33, 65))[-1] == (5, 9)
    assert list(limited.features(64)) == [2, 4, 8]


def test_a_dilated_network_computes_the_same_at_the_pixels_that_it_shares() -> None:
    spec = make(widths=(4, 4, 4, 4, 4, 8), depths=(1, 1, 2), strides=(2, 2, 2))
    assert_dilation_reads_the_same_pixels(spec, np.array([0, 0, 0, 0]), TargetConfig())


def test_the_backbone_inherits_from_a_classifier_and_the_head_from_a_head() -> None:
    spec, alpha_E = make(**DEEP), np.zeros(8, dtype=np.int64)  # type: ignore[arg-type]
    target = Target(image_size=(64, 96), classes=5, head=Head(name="decoder", width=8, output_stride=16))
    names = [name for name, _ in spec.deploy(alpha_E, target).named_parameters()]
    for inputs, wanted in (
        (Inputs(shape=(3, 32, 32), outputs=10), [name for name in names if not name.startswith("head.")]),
        (replace(target.inputs, head=Head(name="decoder", width=8, output_stride=8)), names),
    ):
        tensors = {name: p.detach().numpy() for name, p in spec.supernet(inputs).named_parameters()}
        values, _ = inherited(spec, alpha_E, target, inputs, tensors)
        assert list(values) == wanted
    assert not any(name.startswith(("last.", "classifier.")) for name in names)
