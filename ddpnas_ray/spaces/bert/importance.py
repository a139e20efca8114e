"""First-order importance of attention heads, feed-forward units and layers, and their order by it.

The importance of a unit is the mean over batches of |dL/dg| at g = 1, where g scales its output (Michel et al. 2019):
to first order, what the loss changes by without it.

Axes: B texts, T tokens, L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ddpnas_ray.core.space import FloatArray
from ddpnas_ray.spaces.base import Losses

if TYPE_CHECKING:
    from ddpnas_ray.spaces.bert.network import Attention, BertNetwork, Layer


def order_by_importance(network: BertNetwork, losses: Losses, examples: int) -> None:
    """Permute heads and feed-forward units of every layer, the most important first; outputs stay the same.

    Args:
        network: A full network; its weights are changed.
        losses: Losses on training examples.
        examples: Number of those.
    """
    scores = gate_gradients(network, losses, examples)
    with torch.no_grad():
        for layer, (of_heads, of_units) in zip(_layers(network), scores, strict=True):
            _permute(layer, _descending(of_heads), _descending(of_units))


def layer_order(network: BertNetwork, losses: Losses, examples: int) -> tuple[int, ...]:
    """Return the layers by the summed importance of their heads and units, the most important first.

    As ``space.layer_order`` they replace evenly spaced layers.
    """
    scores = gate_gradients(network, losses, examples)
    of_layers = np.array([of_heads.sum() + of_units.sum() for of_heads, of_units in scores])
    return tuple(_descending(of_layers).tolist())


def gate_gradients(network: BertNetwork, losses: Losses, examples: int) -> list[tuple[FloatArray, FloatArray]]:
    """Return the importance of the heads and of the feed-forward units of every layer, in their order."""
    layers = _layers(network)
    gates = [
        (torch.ones(layer.attention.heads, requires_grad=True), torch.ones(_width(layer), requires_grad=True))
        for layer in layers
    ]
    flat = [gate for pair in gates for gate in pair]
    total = [np.zeros(len(gate)) for gate in flat]
    network.eval()
    with _gated(layers, gates):
        for loss in losses(network, examples):
            for found, grad in zip(total, torch.autograd.grad(loss, flat), strict=True):
                found += grad.abs().numpy()
    return list(zip(total[::2], total[1::2], strict=True))


@contextmanager
def _gated(layers: list[Layer], gates: list[tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Scale the outputs of heads and units by gates."""
    hooks = []
    for layer, (of_heads, of_units) in zip(layers, gates, strict=True):
        dense: Any = layer.attention.output["dense"]
        hooks.append(dense.register_forward_pre_hook(_scaling(of_heads, layer.attention.head_width)))
        dense = layer.output["dense"]
        hooks.append(dense.register_forward_pre_hook(_scaling(of_units, 1)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _scaling(gate: Tensor, width: int) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    return lambda module, args: (args[0] * gate.repeat_interleave(width), *args[1:])


def _permute(layer: Layer, heads: np.ndarray, units: np.ndarray) -> None:
    attention: Attention = layer.attention
    width = attention.head_width
    rows = torch.from_numpy((heads[:, None] * width + np.arange(width)).reshape(-1))
    for project in attention.self.values():
        _take(project, rows)
    _take_inputs(attention.output["dense"], rows)
    at = torch.from_numpy(units)
    _take(layer.intermediate["dense"], at)
    _take_inputs(layer.output["dense"], at)


def _take(linear: Any, rows: Tensor) -> None:
    linear.weight.copy_(linear.weight[rows])
    linear.bias.copy_(linear.bias[rows])


def _take_inputs(linear: Any, columns: Tensor) -> None:
    linear.weight.copy_(linear.weight[:, columns])


def _layers(network: BertNetwork) -> list[Layer]:
    found: Any = network.bert["encoder"]["layer"]  # type: ignore[index]
    return list(found.values())


def _width(layer: Layer) -> int:
    dense: Any = layer.intermediate["dense"]
    return int(dense.out_features)


def _descending(scores: FloatArray) -> np.ndarray:
    return np.argsort(-scores, kind="stable")
