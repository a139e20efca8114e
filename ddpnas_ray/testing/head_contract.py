"""Contract of networks with a head, for outputs of every pixel. Part of ``SpaceContract``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar, get_args, get_type_hints

import numpy as np
import torch
from torch import nn

from ddpnas_ray.core.space import IntArray
from ddpnas_ray.spaces.base import SpaceSpec
from ddpnas_ray.spaces.target import Head, Inputs, Target, TargetConfig

NAMES = get_args(get_type_hints(Head)["name"])
STRIDES = get_args(get_type_hints(Head)["output_stride"])


class HeadContract:
    """Tests of networks with a head, of spaces whose ``TargetDefaults`` allow one."""

    inputs: ClassVar[Inputs]
    target_config: ClassVar[TargetConfig]

    def test_a_head_gives_outputs_for_every_pixel_of_images_of_any_size(self, spec: SpaceSpec) -> None:
        for head in _heads(spec):
            for network, inputs in self._networks(spec, head):
                channels, height, width = inputs.shape
                for size in ((height, width), (height + 3, width + 6)):
                    x = replace(inputs, shape=(channels, *size)).random(2)
                    with torch.no_grad():
                        outputs = network.eval()(x)
                    assert outputs.shape == (2, inputs.outputs, *size), head
                    assert torch.isfinite(outputs).all(), head

    def test_features_have_the_size_of_their_stride(self, spec: SpaceSpec) -> None:
        for head in [None, *_heads(spec)]:
            for network, inputs in self._networks(spec, head):
                with torch.no_grad():
                    maps: Any = network.eval().features(inputs.random(2))  # type: ignore[operator]
                strides = list(maps)
                assert strides == [2**power for power in _powers(strides[0], len(strides))]
                assert head is None or strides[-1] <= head.output_stride
                for stride, found in maps.items():
                    assert found.shape[2:] == tuple(-(-side // stride) for side in inputs.shape[1:]), (head, stride)

    def test_parameters_do_not_depend_on_the_output_stride(self, spec: SpaceSpec) -> None:
        shapes: dict[tuple[str, bool], list[list[tuple[str, torch.Size]]]] = {}
        for head in _heads(spec):
            for network, _ in self._networks(spec, head):
                described = [(name, p.shape) for name, p in network.named_parameters() if not name.startswith("head.")]
                shapes.setdefault((head.name, network.training), []).append(described)
                assert [name for name, _ in network.named_parameters()][-1].startswith("head.")
        for alike in shapes.values():
            assert all(described in (alike[0], alike[1]) for described in alike)  # search and deploy form

    def _networks(self, spec: SpaceSpec, head: Head | None) -> Iterator[tuple[nn.Module, Inputs]]:
        """Yield a network in search form and one in deploy form, with their inputs."""
        if not spec.target.head:
            return
        alpha_E = _probable(spec)
        inputs = replace(self.inputs, head=head)
        target = Target.resolve(self.target_config, inputs, spec.target)
        yield spec.build(alpha_E, inputs), inputs
        yield spec.deploy(alpha_E, target), target.inputs


def _heads(spec: SpaceSpec) -> list[Head]:
    names, strides = (NAMES, STRIDES) if spec.target.head else ((), ())
    return [Head(name=name, width=4, output_stride=stride) for name in names for stride in strides]


def _probable(spec: SpaceSpec) -> IntArray:
    exists_EK = spec.space.exists_EK
    return spec.argmax(exists_EK / np.sum(exists_EK, axis=1, keepdims=True), exists_EK)


def _powers(first: int, count: int) -> range:
    return range(first.bit_length() - 1, first.bit_length() - 1 + count)
