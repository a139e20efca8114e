"""What a search space provides, and how one is found by name.

A new space is one module with a function that returns a ``SpaceSpec``, named ``module:function`` in the configuration:
``space: {name: "my_lab.tiny:make", channels: 8}``.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import numpy as np
from annotated_types import Ge

from ddpnas_ray.core.errors import ConfigError, GenotypeError, did_you_mean
from ddpnas_ray.core.generation import most_likely
from ddpnas_ray.core.plugins import Kind
from ddpnas_ray.core.types import BoolArray, CostFunction, Edge, FloatArray, IntArray, SearchSpace
from ddpnas_ray.reporting.summary import target_text

if TYPE_CHECKING:
    from torch import nn

    from ddpnas_ray.nn.weights import Piece

SPACES = Kind("space", "ddpnas_ray.spaces", function="make", returns="a SpaceSpec")

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

    cells: Annotated[int, Ge(1)] | None = None
    """Cells of the deploy network; null: the space's default (cell: 20, the paper has 14 on ImageNet; nasbench201: 5 a
    stage)"""
    channels: Annotated[int, Ge(1)] | None = None
    """Initial channels of the deploy network; null: the space's default (cell: 36; nasbench201: 16)"""
    image_size: Annotated[int, Ge(1)] | None = None
    """Side in pixels; null: that of the data"""
    classes: Annotated[int, Ge(1)] | None = None
    """Number of classes; null: that of the data"""
    stem: Literal["auto", "cifar", "imagenet"] = "auto"
    """cifar: one 3x3 convolution; imagenet: three of stride 2; auto: imagenet from 128 pixels on"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetDefaults:
    """What a space's deploy networks can be told beside image size and classes, and what they are otherwise.

    Args:
        cells: Default number of cells; None: the networks have no such number.
        channels: Default width; None: the space itself says the widths.
        stem: Whether there is a choice of stems.
    """

    cells: int | None = None
    channels: int | None = None
    stem: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A deploy network in full. Every printed cost names it."""

    image_size: int
    classes: int
    input_channels: int = 3
    cells: int | None = None
    channels: int | None = None
    stem: Literal["cifar", "imagenet"] | None = None

    @classmethod
    def resolve(cls, config: TargetConfig, inputs: Inputs, defaults: TargetDefaults) -> Target:
        """Fill what the configuration leaves open from the data and the space.

        Raises:
            ConfigError: It sets what networks of the space do not have.
        """
        for key in ("cells", "channels"):
            if (value := getattr(config, key)) is not None and getattr(defaults, key) is None:
                raise ConfigError(
                    f"target.{key} is {value}; networks of this space have no such number: set it to null"
                )
        if config.stem != "auto" and not defaults.stem:
            raise ConfigError(f"target.stem is {config.stem}; networks of this space have one stem: set it to auto")
        image_size = config.image_size or inputs.image_size
        return cls(
            cells=config.cells or defaults.cells,
            channels=config.channels or defaults.channels,
            image_size=image_size,
            classes=config.classes or inputs.classes,
            stem=resolve_stem(config.stem, image_size) if defaults.stem else None,
            input_channels=inputs.channels,
        )

    @property
    def inputs(self) -> Inputs:
        """What its images look like, for spaces whose deploy network is the one that is searched with."""
        return Inputs(channels=self.input_channels, image_size=self.image_size, classes=self.classes)

    def __str__(self) -> str:
        return target_text(dataclasses.asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of work of a deploy network, to be timed on its own.

    Args:
        edge: The edge whose choice it is; None: every network does it (stem, preprocessing, classifier).
        candidate: Which choice.
        key: What it is; parts of equal keys take equally long, and are timed once.
        input_shape: (C, H, W) of what it takes.
        build: Makes the module, weights drawn from torch's generator. Can be pickled.
    """

    edge: int | None
    candidate: int = 0
    key: str
    input_shape: tuple[int, int, int]
    build: Callable[[], nn.Module]


def module_of(module: str, function: str, *arguments: Any, **options: Any) -> nn.Module:
    """Call a function of a module that imports torch, when it comes to that; a partial of this can be pickled."""
    made: nn.Module = getattr(importlib.import_module(module), function)(*arguments, **options)
    return made


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
        costs: Name -> (target -> that cost as a function of alpha_E). Names with a dot are a family: a budget for
            ``height`` bounds ``height.normal`` and ``height.reduce``, each.
        target: What of section ``target`` its deploy networks have.
        parts: Target -> the pieces of work to time for a latency table; a part's time adds up. None: no such table.
        most_likely: (theta_EK, live_EK) -> the alpha_E with the largest expectation, of spaces with conditional edges.
        effort: (alpha_E, inputs) -> relative time of one architecture-epoch; orders work, never results.
    """

    space: SearchSpace
    supernet: Callable[[Inputs], Supernet]
    build: Callable[[IntArray, Inputs], nn.Module]
    deploy: Callable[[IntArray, Target], nn.Module]
    encode: Callable[[Genotype], IntArray]
    decode: Callable[[IntArray], Genotype]
    costs: Mapping[str, Callable[[Target], CostFunction]] = field(default_factory=dict)
    target: TargetDefaults = TargetDefaults()
    parts: Callable[[Target], list[Part]] | None = None
    most_likely: Callable[[FloatArray, BoolArray], IntArray] | None = None
    effort: Callable[[IntArray, Inputs], float] = equal_effort

    def argmax(self, theta_EK: FloatArray, live_EK: BoolArray) -> IntArray:
        """The architecture with the largest expectation among what is live and generable, shape (E,)."""
        if self.most_likely is not None:
            return self.most_likely(theta_EK, live_EK)
        return most_likely(self.space, theta_EK, live_EK)


def decode_edges(edges: Sequence[Edge], alpha_E: IntArray) -> Genotype:
    """alpha_E -> the operation of every edge, by name: the genotype of spaces without a form of their own.

    Example:
        >>> from ddpnas_ray.core.types import Op
        >>> layer = Edge("layer0", (Op("conv_3x3", "parameter"), Op("skip", "non_parameter")))
        >>> decode_edges((layer,), np.array([1]))
        {'layer0': 'skip'}
    """
    return {edge.name: edge.candidates[k].name for edge, k in zip(edges, alpha_E, strict=True)}


def encode_edges(edges: Sequence[Edge], genotype: Genotype) -> IntArray:
    """What ``decode_edges`` gave -> alpha_E.

    Raises:
        GenotypeError: An edge is missing or unknown, or has no such operation.
    """
    if not isinstance(genotype, dict) or genotype.keys() != {edge.name for edge in edges}:
        raise GenotypeError(f"genotype: an operation for each of {', '.join(edge.name for edge in edges)} is needed")
    alpha = []
    for edge in edges:
        names, name = [op.name for op in edge.candidates], genotype[edge.name]
        if name not in names:
            hint = did_you_mean(str(name), names)
            raise GenotypeError(f"genotype: {edge.name}: {name!r} is no operation of this edge{hint}")
        alpha.append(names.index(name))
    return np.array(alpha, dtype=np.int64)


def find_space(name: str) -> Callable[..., SpaceSpec]:
    """The function that makes a space: a built-in's name, or ``module:function`` of one's own.

    Raises:
        ConfigError: Nothing of that name can be imported.
    """
    return SPACES.find(name, "space.name")
