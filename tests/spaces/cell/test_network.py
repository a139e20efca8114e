"""Networks of cells in training: dropped paths and the auxiliary head; ``test_space.py`` tests the rest."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.costs.convnet import CELL_OPS
from ddpnas_ray.spaces.cell.costs import geometry
from ddpnas_ray.spaces.cell.network import Cell
from ddpnas_ray.spaces.cell.space import make
from ddpnas_ray.spaces.target import Inputs, Target, TargetConfig
from ddpnas_ray.testing import SpaceContract

SKIPS = np.full(28, CELL_OPS.index("skip_connect"))


class TestLargeEnoughForAnAuxiliaryHead(SpaceContract):
    make = staticmethod(partial(make, cells=1, nodes=1, channels=4))
    inputs = Inputs(shape=(3, 32, 32), outputs=10)
    target_config = TargetConfig(cells=3, channels=4)
    random_alphas = 1


@pytest.mark.parametrize(("name", "left"), [("skip_connect", True), ("max_pool_3x3", False), ("sep_conv_3x3", False)])
def test_every_operation_but_an_identity_can_be_dropped(name: str, left: bool) -> None:
    (g,) = geometry(cells=1, nodes=1, channels=4, image_size=8, stem="cifar", reductions=())
    cell = Cell(g, [(name,)] * 2, nodes=1, affine=True)
    x = torch.randn(3, 12, 8, 8)
    out = cell(x, x, [name] * 2, 1.0)
    assert out.any() == left
    assert torch.equal(out, cell(x, x, [name] * 2)) == left


def test_a_skip_that_halves_the_side_is_not_an_identity() -> None:
    (g,) = geometry(cells=1, nodes=1, channels=4, image_size=8, stem="cifar", reductions=(0,))
    cell = Cell(g, [("skip_connect",)] * 2, nodes=1, affine=True)
    x = torch.randn(3, 12, 8, 8)
    assert not cell(x, x, ["skip_connect"] * 2, 1.0).any()


@pytest.mark.parametrize(
    ("target", "parameters"),
    [
        (Target(cells=20, channels=36, image_size=32, classes=10, stem="cifar"), 476_426),
        (Target(cells=14, channels=48, image_size=224, classes=1000, stem="imagenet"), 1_260_776),
    ],
)
def test_the_auxiliary_head_has_the_parameters_of_darts(target: Target, parameters: int) -> None:
    with torch.device("meta"):
        network = make().deploy(SKIPS, target)
        before = sum(p.numel() for p in network.parameters())
        network.add_auxiliary_head()
        x = torch.empty(2, 3, target.image_size, target.image_size)
        outputs, auxiliary = network(x)
    assert sum(p.numel() for p in network.parameters()) - before == parameters
    assert outputs.shape == auxiliary.shape == (2, target.classes)


def test_the_auxiliary_head_reads_the_second_reduction_cell_and_trains_what_is_before_it() -> None:
    network = make().deploy(SKIPS, Target(cells=4, channels=4, image_size=32, classes=10, stem="cifar"))
    network.add_auxiliary_head()
    network(torch.randn(2, 3, 32, 32))[1].sum().backward()
    trained = {name.split(".")[1] for name, p in network.named_parameters() if "cells" in name and p.grad is not None}
    assert trained == {"0", "1", "2"}


@pytest.mark.parametrize("cells", [1, 2, 3])
def test_networks_of_few_cells_have_an_auxiliary_head_too(cells: int) -> None:
    network = make().deploy(SKIPS, Target(cells=cells, channels=4, image_size=32, classes=10, stem="cifar"))
    network.add_auxiliary_head()
    assert network(torch.randn(2, 3, 32, 32))[1].shape == (2, 10)


@pytest.mark.parametrize(("size", "stem", "left", "needed"), [(8, "cifar", 2, 8), (192, "imagenet", 6, 7)])
def test_images_too_small_for_the_auxiliary_head_are_refused(size: int, stem: str, left: int, needed: int) -> None:
    network = make().deploy(SKIPS, Target(cells=8, channels=4, image_size=size, classes=10, stem=stem))  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as error:
        network.add_auxiliary_head()  # type: ignore[operator]
    assert str(error.value) == (
        f"retraining.auxiliary: images of {size} px have {left}x{left} pixels after cell 6 of 8; the auxiliary head "
        f"needs {needed}x{needed}: set it to 0"
    )
