"""What deploy networks inherit from supernets of other sizes.

Axes: E edges.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from ddpnas_ray.costs.convnet import CELL_OPS
from ddpnas_ray.nn.weights import Float32Array
from ddpnas_ray.spaces.base import SpaceSpec
from ddpnas_ray.spaces.cell.space import make as make_cell
from ddpnas_ray.spaces.inherit import inherited
from ddpnas_ray.spaces.mobile.space import make as make_mobile
from ddpnas_ray.spaces.nasbench201.space import make as make_nasbench201
from ddpnas_ray.spaces.target import Inputs, Target
from tests.spaces.test_own_space import make_elastic

INPUTS = Inputs(shape=(3, 16, 16), outputs=10)
CELLS = np.full(10, CELL_OPS.index("sep_conv_3x3"))
CONVS = np.full(6, 3)


def weights(spec: SpaceSpec, inputs: Inputs = INPUTS) -> dict[str, Float32Array]:
    """The supernet's parameters; those of ``cells.N`` and ``layers.N`` have the value N."""
    values = {}
    for name, parameter in spec.supernet(inputs).named_parameters():
        part, _, rest = name.partition(".")
        values[name] = parameter.detach().numpy()
        if part in ("cells", "layers"):
            values[name] = np.full_like(values[name], int(rest.partition(".")[0]))
    return values


def origins(values: dict[str, Float32Array], part: str) -> dict[int, int]:
    """Deployed cell -> the searched one that it inherits from."""
    found: dict[int, set[float]] = {}
    for name, value in values.items():
        if name.startswith(f"{part}."):
            found.setdefault(int(name.split(".")[1]), set()).update(np.unique(value).tolist())
    assert all(len(cells) == 1 for cells in found.values())
    return {ours: int(theirs.pop()) for ours, theirs in found.items()}


def cells_of(cells: int, channels: int, classes: int = 10) -> Target:
    return Target(cells=cells, channels=channels, image_size=16, classes=classes, stem="cifar")


def test_cells_inherit_from_cells_of_their_kind_and_width() -> None:
    """Searched: normal 4; reduction 8 and 16; normal 16 three times. No normal cell of width 8."""
    spec = make_cell(cells=6, nodes=2, channels=4)
    values, share = inherited(spec, CELLS, cells_of(9, 4), INPUTS, weights(spec))
    assert origins(values, "cells") == {0: 0, 1: 0, 2: 0, 3: 1, 6: 2, 7: 3, 8: 4}
    assert {"stem0.0.weight", "classifier.weight", "classifier.bias"} <= values.keys()
    assert 0.5 < share < 1


def test_a_row_of_alike_cells_inherits_in_order() -> None:
    spec = make_cell(cells=6, nodes=2, channels=4)
    values, _ = inherited(spec, CELLS, cells_of(20, 4), INPUTS, weights(spec))
    assert {c: origins(values, "cells")[c] for c in range(13, 20)} == {13: 2, 14: 3, 15: 4, 16: 4, 17: 4, 18: 5, 19: 5}


def test_preprocessing_inherits_only_where_it_has_the_same_inputs() -> None:
    spec = make_cell(cells=6, nodes=2, channels=4)
    values, _ = inherited(spec, CELLS, cells_of(9, 4), INPUTS, weights(spec))
    assert {name.split(".")[1] for name in values if ".preprocess1." in name} == {"0", "3", "6", "7", "8"}


def test_values_are_those_of_the_same_edge_and_operation() -> None:
    spec = make_cell(cells=1, nodes=2, channels=4)
    tensors = {name: p.detach().numpy() for name, p in spec.supernet(INPUTS).named_parameters()}
    values, _ = inherited(spec, CELLS, cells_of(3, 4), INPUTS, tensors)
    name = "cells.0.edges.4.sep_conv_3x3.1.weight"
    np.testing.assert_array_equal(values[name], tensors[name])
    assert all(".sep_conv_3x3." in name for name in values if ".edges." in name)


@pytest.mark.parametrize(("channels", "cells"), [(3, {}), (8, {0: 0})])
def test_cells_of_other_widths_inherit_nothing_or_what_fits(channels: int, cells: dict[int, int]) -> None:
    """Searched with 8 channels; the deployed network of 3 has widths 3, 6 and 12."""
    spec = make_cell(cells=1, nodes=2, channels=8)
    values, share = inherited(spec, CELLS, cells_of(3, channels), INPUTS, weights(spec))
    assert origins(values, "cells") == cells
    assert (share == 0) == (cells == {})


def test_a_wider_network_inherits_from_deeper_cells() -> None:
    """Twice the width: its first reduction is as wide as the search's second."""
    spec = make_cell(cells=6, nodes=2, channels=4)
    values, _ = inherited(spec, CELLS, cells_of(4, 8), INPUTS, weights(spec))
    assert origins(values, "cells") == {1: 2}


MAKES = {
    "cell": (partial(make_cell, cells=6, nodes=2, channels=4), CELLS, cells_of(3, 4)),
    "mobile": (partial(make_mobile, widths=(4, 4, 6, 8), depths=(3,), strides=(2,)), np.array([0, 1, 6]), None),
    "nasbench201": (
        partial(make_nasbench201, cells=1, channels=4),
        CONVS,
        Target(cells=1, channels=4, image_size=16, classes=10),
    ),
}


@pytest.mark.parametrize("name", MAKES)
def test_the_classifier_of_other_classes_inherits_nothing_and_the_rest_does(name: str) -> None:
    make, alpha_E, target = MAKES[name]
    spec, target = make(), target or Target(image_size=16, classes=10)
    other = Target(**{key: getattr(target, key) for key in target.__slots__} | {"classes": 7})
    same, less = (set(inherited(spec, alpha_E, t, INPUTS, weights(spec))[0]) for t in (target, other))
    assert less
    assert {name.rpartition(".")[0] for name in same - less} in ({"classifier"}, {"head.4"})
    assert len(same - less) == 2


def test_a_mobile_network_inherits_everything_at_any_image_size() -> None:
    make, alpha_E, _ = MAKES["mobile"]
    spec = make()
    tensors = weights(spec)
    values, share = inherited(spec, alpha_E, Target(image_size=32, classes=10), INPUTS, tensors)
    assert share == 1
    assert all(value is tensors[name] for name, value in values.items())
    assert not any("mbconv_k7" in name for name in values)


def test_a_mobile_network_for_other_colours_inherits_all_but_its_first_convolution() -> None:
    make, alpha_E, _ = MAKES["mobile"]
    spec = make()
    everything, values = (
        inherited(spec, alpha_E, Target(image_size=16, classes=10, input_channels=n), INPUTS, weights(spec))[0]
        for n in (3, 1)
    )
    assert everything.keys() - values.keys() == {"stem.0.weight"}


@pytest.mark.parametrize(
    ("channels", "layers"),
    [
        (4, {0: 0, 1: 0, 2: 1, 3: 1, 4: 2, 5: 3, 6: 3, 7: 4, 8: 4, 9: 5, 10: 6, 11: 6, 12: 7, 13: 7}),
        (8, {0: 3, 1: 3, 2: 4, 3: 4, 4: 5, 5: 6, 6: 6, 7: 7, 8: 7}),
        (5, {}),
    ],
)
def test_layers_of_nasbench201_inherit_in_order_within_the_stage_of_their_width(
    channels: int, layers: dict[int, int]
) -> None:
    """Searched: two cells, reduction, two cells, reduction, two cells; deployed with four cells per stage."""
    spec = make_nasbench201(cells=2, channels=4)
    target = Target(cells=4, channels=channels, image_size=16, classes=10)
    values, _ = inherited(spec, CONVS, target, INPUTS, weights(spec))
    assert origins(values, "layers") == layers


@pytest.mark.parametrize("alpha", [[0, 2, 0], [1, 0, 1]])
def test_a_space_of_ones_own_inherits_by_name_also_slices(alpha: list[int]) -> None:
    spec, inputs, alpha_E = make_elastic(), Inputs(shape=(1, 4, 4), outputs=3), np.array(alpha)
    tensors = {name: p.detach().numpy() for name, p in spec.supernet(inputs).named_parameters()}
    values, share = inherited(spec, alpha_E, Target(image_size=4, classes=3, input_channels=1), inputs, tensors)
    assert share == 1
    x = torch.randn(2, 1, 4, 4)
    network = spec.deploy(alpha_E, Target(image_size=4, classes=3, input_channels=1))
    network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in values.items()})
    supernet = spec.supernet(inputs)
    supernet.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})  # type: ignore[attr-defined]
    assert torch.equal(network(x), supernet(x, alpha_E))


def test_weights_of_another_space_give_nothing() -> None:
    spec = make_cell(cells=1, nodes=2, channels=4)
    assert inherited(spec, CELLS, cells_of(3, 4), INPUTS, {"conv.weight": np.zeros((1, 1), np.float32)}) == ({}, 0.0)


def test_nothing_random_is_drawn() -> None:
    spec = make_cell(cells=1, nodes=2, channels=4)
    tensors, before = weights(spec), torch.get_rng_state()
    inherited(spec, CELLS, cells_of(3, 4), INPUTS, tensors)
    assert torch.equal(torch.get_rng_state(), before)
