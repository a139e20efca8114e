"""The traced network: any batch size, and nothing of the machine that traced it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ddpnas_ray.core.errors import ExportError
from ddpnas_ray.deploy.interface import BATCH_AXIS
from ddpnas_ray.deploy.program import TRACES, export
from ddpnas_ray.deploy.trained import TrainedNetwork
from ddpnas_ray.deploy.verify import logits_of
from ddpnas_ray.spaces.base import find_space
from tests.deploy.making import noise
from tests.deploy.mask_making import headed


def test_a_program_computes_what_the_network_does_for_any_batch(network: TrainedNetwork) -> None:
    module, program = network.module(), network.program
    assert network.program is program  # traced once, for ONNX and .pt2
    for count in (1, 2, 7):
        with torch.no_grad():
            found = program.module()(torch.from_numpy(noise(network, count))).numpy()
        assert np.array_equal(found, logits_of(module, noise(network, count)))
    assert not any(key in node.meta for node in program.graph.nodes for key in TRACES)
    assert not any(tensor.any() for tensor in program.example_inputs[0])


class Moody(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


def test_a_network_that_cannot_be_traced_is_one_line() -> None:
    with pytest.raises(ExportError, match=r"moody: torch.export cannot trace the network .* leave out the forms") as e:
        export(Moody(), (np.zeros((2, 1, 4, 4), np.float32),), {0: BATCH_AXIS}, "moody")
    assert "\n" not in str(e.value)


def test_sizes_of_images_are_free_whatever_their_parity() -> None:
    spec = find_space("cell")(nodes=2)
    network = headed(spec, "aspp", 16, np.arange(10) % 7 + 1, size=(48, 64), cells=3, channels=4, stem="imagenet")
    program = network.program.module()
    for size in ((65, 97), (64, 128), (50, 79)):
        images = np.random.default_rng(0).normal(size=(1, 3, *size)).astype(np.float32)
        np.testing.assert_allclose(logits_of(program, images), logits_of(network.module(), images), atol=1e-5)
