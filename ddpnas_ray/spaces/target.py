"""Networks of a space: their inputs, and the deploy network (target) whose costs are counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge

from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.costs.convnet import Size, height_and_width


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """Shape of one example that a network, or a part of one, takes.

    A batch is a float tensor; one of texts is a dictionary of int64 tensors, shape (examples, tokens): ``input_ids``,
    ``attention_mask`` (1, and 0 for padding) and ``token_type_ids`` (0 or 1: the first or second text).

    Args:
        shape: Such as (channels, height, width) of an image, or (tokens, width) of hidden states; of texts (most
            tokens,), padding included.
        vocabulary: Number of token ids; None: the examples are not texts.
    """

    shape: tuple[int, ...]
    vocabulary: int | None = None

    def random(self, examples: int, *, padded: bool = True) -> Any:
        """Return a batch of random examples, always the same; imports torch.

        Args:
            examples: How many.
            padded: Whether all texts but the first are shorter than the longest.
        """
        import torch

        generator = torch.Generator().manual_seed(examples)
        if self.vocabulary is None:
            return torch.randn(examples, *self.shape, generator=generator)
        ids, types = (
            torch.randint(high, (examples, *self.shape), generator=generator) for high in (self.vocabulary, 2)
        )
        mask = torch.ones_like(ids)
        if padded:
            mask[1:, self.shape[0] - self.shape[0] // 3 :] = 0
        return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": types * mask}


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The part of a network that makes outputs for every pixel of an image, in place of the classifier.

    Args:
        name: aspp: atrous spatial pyramid pooling (DeepLabV3); decoder: that, and features of stride 4 (DeepLabV3+);
            lraspp: MobileNetV3's light head on features of two strides.
        width: Channels of its layers.
        output_stride: Pixels of the image per pixel of the last feature map; layers that would lower the resolution
            further are dilated instead.
    """

    name: Literal["aspp", "decoder", "lraspp"]
    width: int
    output_stride: Literal[8, 16, 32]

    def __str__(self) -> str:
        return f"{self.name} head of {self.width} channels at stride {self.output_stride}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs(Example):
    """Shapes of a network's input and output.

    Args:
        shape: See ``Example``.
        vocabulary: See ``Example``.
        outputs: Number of outputs per example, such as one per class; of several tasks at once, of all together. With a
            head, per pixel.
        head: Makes outputs for every pixel, shape (B, outputs, H, W), for images of any size; None: outputs are those
            of the whole example.
    """

    outputs: int
    head: Head | None = None

    @property
    def channels(self) -> int:
        """Colour channels of an image."""
        return self.shape[0]

    @property
    def image_size(self) -> Size:
        """Side in pixels of a square image, else height and width."""
        _, height, width = self.shape
        return width if height == width else (height, width)

    def takes(self, other: Inputs) -> bool:
        """Return whether a network for these inputs can be trained on others: shorter texts, or the same.

        Networks with a head take images of any size.
        """
        if self.head is not None and len(other.shape) == len(self.shape):
            return dataclasses.replace(other, shape=(other.shape[0], *self.shape[1:])) == self
        if self.vocabulary is None or other.vocabulary is None:
            return other == self
        return other.shape[0] <= self.shape[0] and dataclasses.replace(other, shape=self.shape) == self

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape))
        of = shape if self.vocabulary is None else f"up to {shape} tokens of a vocabulary of {self.vocabulary:,}"
        return f"{of}, {self.outputs} outputs" + ("" if self.head is None else f", {self.head}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetConfig:
    """Section ``target``: the deploy network whose costs are counted."""

    cells: Annotated[int, Ge(1)] | None = None
    """Cells of the deploy network; null: the space's default (cell: 20, the paper has 14 on ImageNet; nasbench201: 5
    per stage)"""
    channels: Annotated[int, Ge(1)] | None = None
    """Initial channels of the deploy network; null: the space's default (cell: 36; nasbench201: 16)"""
    image_size: Annotated[int, Ge(1)] | tuple[Annotated[int, Ge(1)], Annotated[int, Ge(1)]] | None = None
    """Side in pixels, or [height, width]; null: that of the data"""
    sequence_length: Annotated[int, Ge(1)] | None = None
    """Tokens of a text; null: task.max_length"""
    classes: Annotated[int, Ge(1)] | None = None
    """Number of classes; null: that of the data"""
    stem: Literal["auto", "cifar", "imagenet"] = "auto"
    """cifar: one 3x3 convolution; imagenet: three of stride 2; auto: imagenet from 128 pixels on"""
    budgets: tuple[str, ...] = ()
    """Budgets as of `generate --budget`: the search (surrogate, evolution, random) proposes only networks that fit one,
    and finds the best for each. % is of the largest cost in the space"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetDefaults:
    """Options of a space's deploy networks beside size and classes, with defaults.

    Args:
        text: Whether networks take texts, not images.
        positions: Longest text, in tokens; None: no limit.
        vocabulary: Token ids that the networks know; None: those of the task.
        cells: Default number of cells; None: not an option.
        channels: Default width; None: the space defines the widths.
        stem: Whether there is a choice of stems.
        head: Whether networks can have a head, for outputs of every pixel.
    """

    text: bool = False
    positions: int | None = None
    vocabulary: int | None = None
    cells: int | None = None
    channels: int | None = None
    stem: bool = False
    head: bool = False

    @property
    def sizes(self) -> dict[str, int | None]:
        """Sizes of the data that a deploy network depends on, with defaults; None: there is none."""
        if self.text:
            return {"sequence_length": None, "vocabulary": None, "classes": None}
        return {"image_size": None, "input_channels": 3, "classes": None}

    def inputs(self, sizes: Mapping[str, Any]) -> Inputs:
        """Return the inputs of a network for data of the given ``sizes``, all of them; that of images is a ``Size``."""
        if self.text:
            return Inputs(shape=(sizes["sequence_length"],), vocabulary=sizes["vocabulary"], outputs=sizes["classes"])
        height, width = height_and_width(sizes["image_size"])
        return Inputs(shape=(sizes["input_channels"], height, width), outputs=sizes["classes"])

    @property
    def kind(self) -> str:
        """The word for what networks take: ``images`` or ``texts``."""
        return "texts" if self.text else "images"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A deploy network in full, of images or of texts. Every printed cost names it.

    What ``dataclasses.asdict`` makes of it is plain JSON, and ``Target(**asdict)`` the same target again.
    """

    image_size: Size | None = None
    classes: int
    input_channels: int | None = 3
    cells: int | None = None
    channels: int | None = None
    stem: Literal["cifar", "imagenet"] | None = None
    sequence_length: int | None = None
    vocabulary: int | None = None
    head: Head | None = None

    def __post_init__(self) -> None:
        if isinstance(self.image_size, list | tuple):
            height, width = self.image_size
            object.__setattr__(self, "image_size", height if height == width else (height, width))
        if isinstance(self.head, dict):
            object.__setattr__(self, "head", Head(**self.head))

    @classmethod
    def resolve(cls, config: TargetConfig, inputs: Inputs, defaults: TargetDefaults) -> Target:
        """Fill unset options from the data and the space.

        Raises:
            ConfigError: An option does not apply to the space, or the data do not.
        """
        if defaults.text != (inputs.vocabulary is not None):
            kind, given = ("texts", "images") if defaults.text else ("images", "texts")
            raise ConfigError(
                f"networks of this space take {kind}, but the task's examples are {given} ({inputs}); choose another "
                "space.name or task.name"
            )
        wrong = "image_size" if defaults.text else "sequence_length"
        if (value := getattr(config, wrong)) is not None:
            raise ConfigError(f"target.{wrong} is {value}; networks of this space take no such inputs: set it to null")
        for key in ("cells", "channels"):
            if (value := getattr(config, key)) is not None and getattr(defaults, key) is None:
                raise ConfigError(
                    f"target.{key} is {value}; networks of this space have no such option: set it to null"
                )
        if config.stem != "auto" and not defaults.stem:
            raise ConfigError(f"target.stem is {config.stem}; networks of this space have one stem: set it to auto")
        if inputs.head is not None and not defaults.head:
            raise ConfigError(
                f"networks of this space have no head for outputs of every pixel, which the task needs ({inputs}); set "
                "space.name to cell or mobile, or choose another task.name"
            )
        if inputs.vocabulary is not None:
            _refuse_other_tokens(config.sequence_length, inputs, defaults)
            return cls(
                cells=config.cells or defaults.cells,
                channels=config.channels or defaults.channels,
                sequence_length=config.sequence_length or inputs.shape[0],
                vocabulary=inputs.vocabulary,
                classes=config.classes or inputs.outputs,
                input_channels=None,
            )
        image_size = config.image_size or inputs.image_size
        return cls(
            cells=config.cells or defaults.cells,
            channels=config.channels or defaults.channels,
            image_size=image_size,
            classes=config.classes or inputs.outputs,
            stem=resolve_stem(config.stem, image_size) if defaults.stem else None,
            input_channels=inputs.channels,
            head=inputs.head,
        )

    @property
    def inputs(self) -> Inputs:
        """Its inputs."""
        if self.vocabulary is not None:
            assert self.sequence_length is not None  # see ``resolve``
            return Inputs(shape=(self.sequence_length,), outputs=self.classes, vocabulary=self.vocabulary)
        assert self.image_size is not None and self.input_channels is not None
        shape = (self.input_channels, *height_and_width(self.image_size))
        return Inputs(shape=shape, outputs=self.classes, head=self.head)

    def refuse_head(self, what: str) -> None:
        """Refuse a head where only classifiers are known.

        Raises:
            ConfigError: The network has one.
        """
        if self.head is not None:
            raise ConfigError(f"there is no {what} of a network with an {self.head.name} head (task.head)")

    def __str__(self) -> str:
        return target_text(dataclasses.asdict(self))


def _refuse_other_tokens(length: int | None, inputs: Inputs, defaults: TargetDefaults) -> None:
    for key, tokens in (("target.sequence_length", length), ("task.max_length", inputs.shape[0])):
        if defaults.positions is not None and tokens is not None and tokens > defaults.positions:
            raise ConfigError(
                f"{key} is {tokens}; networks of this space have {defaults.positions} positions: set at most that"
            )
    if defaults.vocabulary is not None and (inputs.vocabulary or 0) > defaults.vocabulary:
        raise ConfigError(
            f"the task's tokenizer has {inputs.vocabulary:,} token ids, the model of this space "
            f"{defaults.vocabulary:,}; set task.tokenizer to the model's own"
        )


def resolve_stem(stem: str, image_size: Size) -> Literal["cifar", "imagenet"]:
    """Resolve ``auto``: ``imagenet`` from 128 pixels on, on the shorter side."""
    if stem == "auto":
        return "imagenet" if min(height_and_width(image_size)) >= 128 else "cifar"
    return "imagenet" if stem == "imagenet" else "cifar"


def same_target(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Return whether two deploy networks, as files have them, are the same; earlier versions lack some options."""
    return Target(**first) == Target(**second)


def target_text(target: Mapping[str, Any]) -> str:
    """Describe the deploy network of a cost, as all printed costs do."""
    parts = [f"{target[key]} {key}" for key in ("cells", "channels") if target.get(key) is not None]
    text = target.get("sequence_length") is not None
    parts += [f"{target['sequence_length']} tokens" if text else f"{size_text(target['image_size'])} px"]
    parts += [f"{target['classes']} classes"]
    parts += [f"{target['stem']} stem"] if target.get("stem") else []
    if (head := target.get("head")) is not None:
        parts.append(str(Head(**head)))
    return ", ".join(parts)


def size_text(size: Size | Sequence[int]) -> str:
    """Write a size as ``generate --target`` takes it: ``32`` or, height first, ``1024x2048``."""
    return str(size) if isinstance(size, int) else "x".join(map(str, size))


def size_of(text: str) -> Size:
    """Read a size as ``size_text`` writes it, every side from 1 to a million pixels.

    Raises:
        ValueError: It is not one.
    """
    sides = text.split("x")
    if len(sides) > 2 or not all(side.isdecimal() and 1 <= int(side) <= 10**6 for side in sides):
        raise ValueError(f"{text!r} is not a size such as 32 or, height first, 1024x2048")
    height, width = int(sides[0]), int(sides[-1])
    return height if height == width else (height, width)
