"""Weights that a deploy network inherits from the supernet of its search: a warm start for retraining.

Axes: E edges.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

from ddpnas_ray.core.space import IntArray
from ddpnas_ray.spaces.base import SpaceSpec
from ddpnas_ray.spaces.target import Inputs, Target

if TYPE_CHECKING:
    from ddpnas_ray.nn.weights import Float32Array, Piece


def inherited(
    spec: SpaceSpec, alpha_E: IntArray, target: Target, inputs: Inputs, tensors: Mapping[str, Float32Array]
) -> tuple[dict[str, Float32Array], float]:
    """Find the supernet's values for the parameters of a deploy network.

    A parameter inherits from the one that ``spec.inherit`` names if their shapes are equal. A module inherits all of
    its parameters or none, since a bias is of no use to other weights. BatchNorm statistics are not inherited.

    Args:
        spec: The space.
        alpha_E: The architecture, shape (E,).
        target: The deploy network.
        inputs: Inputs of the search networks.
        tensors: The supernet's parameters by name.

    Returns:
        The values by name in the deploy network, and their share of all its weights, from 0 (nothing fits) to 1.
    """
    import torch

    with torch.device("meta"):  # shapes alone: no memory, and no random numbers
        pieces = spec.supernet(inputs).pieces(alpha_E)
        shapes = {name: tuple(p.shape) for name, p in spec.deploy(alpha_E, target).named_parameters()}
    searched = {piece.name: _cut(tensors[piece.name], piece) for piece in pieces if piece.name in tensors}
    values: dict[str, Float32Array] = {}
    unfit: set[str] = set()
    for name, shape in shapes.items():
        value = searched.get(spec.inherit(name, target, inputs))
        if value is None or value.shape != shape:
            unfit.add(_module(name))
        else:
            values[name] = value
    values = {name: value for name, value in values.items() if _module(name) not in unfit}
    total = sum(map(prod, shapes.values()))
    return values, sum(value.size for value in values.values()) / max(total, 1)


def _cut(tensor: Float32Array, piece: Piece) -> Float32Array:
    return tensor if piece.slices is None else tensor[piece.slices]


def _module(name: str) -> str:
    return name.rpartition(".")[0]
