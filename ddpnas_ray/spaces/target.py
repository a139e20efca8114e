"""Networks of a space: their inputs, and the deploy network (target) whose costs are counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge

from ddpnas_ray.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Shapes of a network's input and output.

    Args:
        shape: Shape of one example, such as (channels, height, width).
        outputs: Number of outputs per example, such as one per class.
    """

    shape: tuple[int, ...]
    outputs: int

    @property
    def channels(self) -> int:
        """Colour channels of an image."""
        return self.shape[0]

    @property
    def image_size(self) -> int:
        """Side in pixels of a square image."""
        _, height, width = self.shape
        if height != width:
            raise ValueError(f"images must be square, got {height}x{width}")
        return width


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetConfig:
    """Section ``target``: the deploy network whose costs are counted."""

    cells: Annotated[int, Ge(1)] | None = None
    """Cells of the deploy network; null: the space's default (cell: 20, the paper has 14 on ImageNet; nasbench201: 5
    per stage)"""
    channels: Annotated[int, Ge(1)] | None = None
    """Initial channels of the deploy network; null: the space's default (cell: 36; nasbench201: 16)"""
    image_size: Annotated[int, Ge(1)] | None = None
    """Side in pixels; null: that of the data"""
    classes: Annotated[int, Ge(1)] | None = None
    """Number of classes; null: that of the data"""
    stem: Literal["auto", "cifar", "imagenet"] = "auto"
    """cifar: one 3x3 convolution; imagenet: three of stride 2; auto: imagenet from 128 pixels on"""
    budgets: tuple[str, ...] = ()
    """Budgets as of `generate --budget`: the search (surrogate, evolution, random) proposes only networks that fit one,
    and finds the best for each. % is of the largest cost in the space"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetDefaults:
    """Options of a space's deploy networks beside image size and classes, with defaults.

    Args:
        cells: Default number of cells; None: not an option.
        channels: Default width; None: the space defines the widths.
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
        """Fill unset options from the data and the space.

        Raises:
            ConfigError: An option does not apply to the space.
        """
        for key in ("cells", "channels"):
            if (value := getattr(config, key)) is not None and getattr(defaults, key) is None:
                raise ConfigError(
                    f"target.{key} is {value}; networks of this space have no such option: set it to null"
                )
        if config.stem != "auto" and not defaults.stem:
            raise ConfigError(f"target.stem is {config.stem}; networks of this space have one stem: set it to auto")
        image_size = config.image_size or inputs.image_size
        return cls(
            cells=config.cells or defaults.cells,
            channels=config.channels or defaults.channels,
            image_size=image_size,
            classes=config.classes or inputs.outputs,
            stem=resolve_stem(config.stem, image_size) if defaults.stem else None,
            input_channels=inputs.channels,
        )

    @property
    def inputs(self) -> Inputs:
        """Its inputs, for spaces that deploy the network they search with."""
        return Inputs(shape=(self.input_channels, self.image_size, self.image_size), outputs=self.classes)

    def __str__(self) -> str:
        return target_text(dataclasses.asdict(self))


def resolve_stem(stem: str, image_size: int) -> Literal["cifar", "imagenet"]:
    """Resolve ``auto``: ``imagenet`` from 128 pixels on."""
    if stem == "auto":
        return "imagenet" if image_size >= 128 else "cifar"
    return "imagenet" if stem == "imagenet" else "cifar"


def target_text(target: Mapping[str, Any]) -> str:
    """Describe the deploy network of a cost, as all printed costs do."""
    parts = [f"{target[key]} {key}" for key in ("cells", "channels") if target.get(key) is not None]
    parts += [f"{target['image_size']} px", f"{target['classes']} classes"]
    return ", ".join(parts + ([f"{target['stem']} stem"] if target.get("stem") else []))
