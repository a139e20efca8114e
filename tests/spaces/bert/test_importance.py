"""The order of heads and feed-forward units by importance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpnas_ray.spaces.bert.importance import gate_gradients, layer_order, order_by_importance
from ddpnas_ray.spaces.bert.space import make
from ddpnas_ray.spaces.target import Inputs
from tests.spaces.bert.making import SIZES, stock

INPUTS = Inputs(shape=(11,), outputs=3, vocabulary=SIZES["vocab_size"])
BATCHES = [INPUTS.random(n) for n in (3, 4, 5)]


@pytest.fixture
def network() -> Any:
    found: Any = make(hidden=24, layers=4, heads=6, ffn=48, positions=40).supernet(INPUTS)
    found.load_state_dict(dict(stock().named_parameters()))
    return found.eval()


def losses(forward: Callable[[Any], Tensor], examples: int) -> Iterator[Tensor]:
    for x in BATCHES[:examples]:
        yield forward(x).square().mean()


def test_ordering_changes_no_output(network: Any) -> None:
    with torch.no_grad():
        before = network(BATCHES[2])
        weights = network.bert["encoder"]["layer"]["1"].intermediate["dense"].weight.clone()
    order_by_importance(network, losses, 3)
    with torch.no_grad():
        torch.testing.assert_close(network(BATCHES[2]), before)
        assert not torch.equal(network.bert["encoder"]["layer"]["1"].intermediate["dense"].weight, weights)


def test_after_ordering_importance_falls(network: Any) -> None:
    order_by_importance(network, losses, 3)
    for of_heads, of_units in gate_gradients(network, losses, 3):
        assert (np.diff(of_heads) <= 1e-6).all()
        assert (np.diff(of_units) <= 1e-6).all()


def test_units_and_heads_without_effect_come_last(network: Any) -> None:
    layer = network.bert["encoder"]["layer"]["2"]
    with torch.no_grad():
        layer.output["dense"].weight[:, 7] = 0
        layer.attention.output["dense"].weight[:, 8:12] = 0  # head 2 of width 4
    order_by_importance(network, losses, 2)
    assert not layer.output["dense"].weight[:, -1].any()
    assert not layer.attention.output["dense"].weight[:, -4:].any()
    assert layer.attention.output["dense"].weight[:, 8:12].any()


def test_importance_is_the_gradient_of_the_gate(network: Any) -> None:
    """Compared with what the loss changes by when a unit's outgoing weights are scaled a little."""
    (of_heads, of_units), *_ = gate_gradients(network, losses, 1)
    layer, small = network.bert["encoder"]["layer"]["0"], 1e-2

    def change(weight: Tensor, columns: slice) -> float:
        values = []
        for factor in (1 + small, 1 - small):
            old = weight[:, columns].clone()
            weight[:, columns] *= factor
            values.append(float(next(losses(network, 1))))
            weight[:, columns] = old
        return abs(values[0] - values[1]) / (2 * small)

    with torch.no_grad():
        for head in range(6):
            found = change(layer.attention.output["dense"].weight, slice(4 * head, 4 * head + 4))
            assert of_heads[head] == pytest.approx(found, rel=2e-2, abs=1e-3)
        for unit in (0, 13, 47):
            assert of_units[unit] == pytest.approx(
                change(layer.output["dense"].weight, slice(unit, unit + 1)), rel=5e-2, abs=1e-3
            )


def test_a_layer_without_effect_is_the_least_important(network: Any) -> None:
    layer = network.bert["encoder"]["layer"]["1"]
    with torch.no_grad():
        for dense in (layer.output["dense"], layer.attention.output["dense"]):
            dense.weight.zero_()
    order = layer_order(network, losses, 3)
    assert sorted(order) == [0, 1, 2, 3]
    assert order[-1] == 1
