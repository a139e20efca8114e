"""What a search space provides, and how one is found by name.

A new space is one module with a function that returns a ``SpaceSpec``, named ``module:function`` in the configuration:
``space: {name: "my_lab.tiny:make", channels: 8}``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import numpy as np
from annotated_types import Ge

from ddpnas_ray.core.errors import ConfigError, did_you_mean
from ddpnas_ray.core.types import BoolArray, CostTable, FloatArray, IntArray, SearchSpace

if TYPE_CHECKING:
    from torch import nn

    from ddpnas_ray.nn.weights import Piece

BUILTIN = {"cell": "ddpnas_ray.spaces.cell:make"}

Genotype = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What the data look like to a network.

    Args:
        channels: Colour channels.
        image_size: Side in pixels.
        classes: Number of classes.
    """

    channels: int
    image_size: int
    classes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetConfig:
    """Section ``target``: the deploy network whose costs are meant."""

    cells: Annotated[int, Ge(1)] = 20
    """Cells of the deploy network (paper: 20 on CIFAR-10, 14 on ImageNet)"""
    channels: Annotated[int, Ge(1)] = 36
    """Initial channels of the deploy network"""
    image_size: Annotated[int, Ge(1)] | None = None
    """Side in pixels; null: that of the data"""
    classes: Annotated[int, Ge(1)] | None = None
    """Number of classes; null: that of the data"""
    stem: Literal["auto", "cifar", "imagenet"] = "auto"
    """cifar: one 3x3 convolution; imagenet: three of stride 2; auto: imagenet from 128 pixels on"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A deploy network in full. Every printed cost names it."""

    cells: int
    channels: int
    image_size: int
    classes: int
    stem: Literal["cifar", "imagenet"]
    input_channels: int = 3

    @classmethod
    def resolve(cls, config: TargetConfig, inputs: Inputs) -> Target:
        """Fill what the configuration leaves open from the data."""
        image_size = config.image_size or inputs.image_size
        return cls(
            cells=config.cells,
            channels=config.channels,
            image_size=image_size,
            classes=config.classes or inputs.classes,
            stem=resolve_stem(config.stem, image_size),
            input_channels=inputs.channels,
        )

    def __str__(self) -> str:
        return (
            f"{self.cells} cells, {self.channels} channels, {self.image_size} px, {self.classes} classes, "
            f"{self.stem} stem"
        )


def resolve_stem(stem: str, image_size: int) -> Literal["cifar", "imagenet"]:
    """``auto`` is ``imagenet`` from 128 pixels on."""
    if stem == "auto":
        return "imagenet" if image_size >= 128 else "cifar"
    return "imagenet" if stem == "imagenet" else "cifar"


class Supernet(Protocol):
    """An ``nn.Module`` with every candidate and the shared weights, in search form.

    ``forward(x, alpha_E)`` computes the operations of one architecture and nothing else.
    """

    def __call__(self, x: Any, alpha_E: IntArray) -> Any: ...

    def named_parameters(self) -> Any: ...

    def pieces(self, alpha_E: IntArray) -> list[Piece]:
        """The parts of the weights that an architecture uses, in the order of its stand-alone network's parameters."""
        ...


def equal_effort(alpha_E: IntArray, inputs: Inputs) -> float:
    """The effort of spaces that do not tell."""
    return 1.0


@dataclass(frozen=True)
class SpaceSpec:
    """All that a search space provides.

    Args:
        space: What can be chosen.
        supernet: Inputs -> the supernet, weights initialised from torch's generator.
        build: (alpha_E, inputs) -> the stand-alone network of one architecture in search form. Its parameters are those
            of ``supernet.pieces(alpha_E)``, by name and in order.
        deploy: (alpha_E, target) -> the stand-alone network in deploy form, to be trained from scratch.
        encode: Genotype -> alpha_E; raises ``GenotypeError``.
        decode: alpha_E -> genotype, plain JSON.
        most_likely: (theta_EK, live_EK) -> the generable alpha_E with the largest expectation (Eq. 9).
        costs: Name -> (target -> table of that cost).
        effort: (alpha_E, inputs) -> relative time of one architecture-epoch; orders work, never results.
    """

    space: SearchSpace
    supernet: Callable[[Inputs], Supernet]
    build: Callable[[IntArray, Inputs], nn.Module]
    deploy: Callable[[IntArray, Target], nn.Module]
    encode: Callable[[Genotype], IntArray]
    decode: Callable[[IntArray], Genotype]
    costs: Mapping[str, Callable[[Target], CostTable]] = field(default_factory=dict)
    most_likely: Callable[[FloatArray, BoolArray], IntArray] | None = None
    effort: Callable[[IntArray, Inputs], float] = equal_effort

    def argmax(self, theta_EK: FloatArray, live_EK: BoolArray) -> IntArray:
        """The architecture with the largest expectation among what is live and generable, shape (E,)."""
        if self.most_likely is not None:
            return self.most_likely(theta_EK, live_EK)
        return np.where(live_EK & self.space.generable_EK, theta_EK, -np.inf).argmax(axis=1)


def find_space(name: str) -> Callable[..., SpaceSpec]:
    """The function that makes a space: a built-in's name, or ``module:function`` of one's own.

    Raises:
        ConfigError: Nothing of that name can be imported.
    """
    if name not in BUILTIN and ":" not in name:
        raise ConfigError(
            f"space.name: {name!r} is no built-in space and not module:function{did_you_mean(name, BUILTIN)}"
        )
    module_name, _, function_name = BUILTIN.get(name, name).partition(":")
    try:
        make = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(f"space.name: {name!r} cannot be imported: {error}; is its folder on PYTHONPATH?") from error
    if not callable(make):
        raise ConfigError(
            f"space.name: {name!r} is a {type(make).__name__}; a function that returns a SpaceSpec is needed"
        )
    return make
