"""A trained network with all that its files tell: the input of every export.

Axes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ddpnas_ray.core.errors import ConfigError, ModelError
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.data.batches import Float32Array, normalise
from ddpnas_ray.data.decoding import fit_image
from ddpnas_ray.spaces.base import SpaceSpec
from ddpnas_ray.spaces.target import Target

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import nn
    from torch.export import ExportedProgram

LARGEST_SIDE = 2**14  # pixels
ALLOWED: dict[str, Callable[[Any, dict[str, Any]], bool]] = {  # by metadata key: value, all values -> whether it can be
    "classes": lambda value, _: isinstance(value, list) and bool(value) and all(isinstance(c, str) for c in value),
    "channels": lambda value, _: type(value) is int and value in (1, 3),
    "image_size": lambda value, _: type(value) is int and 1 <= value <= LARGEST_SIDE,
    "mean": lambda value, every: len(value) == every["channels"] and all(map(math.isfinite, value)),
    "std": lambda value, every: len(value) == every["channels"] and all(0 < std < math.inf for std in value),
}
KEYS = tuple(ALLOWED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How an image becomes a network's input, and what its outputs mean.

    Args:
        classes: Class names, in the order of the logits.
        channels: C, 1 (grey) or 3 (RGB).
        image_size: H and W: the shorter side is resized to it, the centre cropped.
        mean: Subtracted from pixel fractions (0 to 1), one per channel.
        std: Divides them afterwards, one per channel.
    """

    classes: tuple[str, ...]
    channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def prepare(self, image: Image) -> Float32Array:
        """Image -> input of the network as when it was trained, shape (C, H, W)."""
        pixels_CHW = fit_image(image, channels=self.channels, image_size=self.image_size)
        prepared: Float32Array = normalise(pixels_CHW[None], self.mean, self.std)[0]
        return prepared

    def to_metadata(self) -> dict[str, str]:
        """Return it as JSON texts by key, as all files carry it."""
        return {key: json.dumps(getattr(self, key)) for key in KEYS}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], file: str) -> Preprocessing:
        """Read what ``to_metadata`` returned.

        Args:
            metadata: JSON texts by key; other keys are ignored.
            file: Where they were found, for messages.

        Raises:
            ModelError: A key is missing, damaged, or has a value that no network has.
        """
        try:
            values = {key: json.loads(metadata[key]) for key in KEYS}
            for key, allowed in ALLOWED.items():
                if not allowed(values[key], values):
                    raise ModelError(f"{file}: its metadata have {key} {values[key]!r}; export the network again")
            return cls(
                classes=tuple(values["classes"]),
                channels=values["channels"],
                image_size=values["image_size"],
                mean=tuple(map(float, values["mean"])),
                std=tuple(map(float, values["std"])),
            )
        except (KeyError, ValueError, TypeError, OverflowError):
            raise ModelError(
                f"{file}: no metadata with {', '.join(KEYS)}; give a model that ddpnas wrote, or write it again"
            ) from None


@dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """A network in deploy form with its weights.

    Args:
        spec: Its space.
        alpha_E: Its architecture.
        target: Its size, input channels and classes.
        tensors: The state of ``spec.deploy(alpha_E, target)`` by name, BatchNorm statistics included.
        preprocessing: What its images go through, and its classes.
        facts: Plain JSON for the model card; all optional but ``name``. ``space``; ``costs``: {name: number};
            ``scores``: [{"split", "metric", "value", "weights", "seeds", "mean", "std"}], ``value`` of these weights,
            ``mean`` and ``std`` over the seeds; ``search``: {"strategy", "architecture_epochs", "fingerprint",
            "score"}, empty if none found it; ``data``: name of the data set; ``recipe``: how it was trained.

    Raises:
        ConfigError: Target and preprocessing differ in channels, image size or number of classes.
    """

    spec: SpaceSpec
    alpha_E: IntArray
    target: Target
    tensors: Mapping[str, np.ndarray]
    preprocessing: Preprocessing
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        data, target = self.preprocessing, self.target
        given = (target.input_channels, target.image_size, target.classes)
        needed = (data.channels, data.image_size, len(data.classes))
        for key, have, need in zip(("channels", "pixels", "classes"), given, needed, strict=True):
            if have != need:
                raise ConfigError(
                    f"the deploy network is for {have} {key}, its data have {need}; set target.image_size and "
                    "target.classes to null, so that they are those of the data"
                )

    @property
    def name(self) -> str:
        """Name of the model on its card; that of the space if ``facts`` have none."""
        return str(self.facts.get("name") or self.spec.space.name)

    @property
    def genotype(self) -> dict[str, Any]:
        """The decoded architecture, plain JSON."""
        return self.spec.decode(self.alpha_E)

    @property
    def metadata(self) -> dict[str, str]:
        """What every file with weights carries: preprocessing and genotype as JSON texts."""
        return {**self.preprocessing.to_metadata(), "genotype": json.dumps(self.genotype)}

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.target.inputs.shape  # type: ignore[return-value]

    def module(self) -> nn.Module:
        """Build the network with its weights, in eval mode on the CPU.

        Raises:
            ModelError: The tensors are not those of the network.
        """
        import torch

        network = self.spec.deploy(self.alpha_E, self.target)
        tensors = {name: torch.from_numpy(np.array(tensor)) for name, tensor in self.tensors.items()}
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            first = " ".join(str(error).split("\n", 2)[1].split()) if "\n" in str(error) else str(error)
            raise ModelError(
                f"{self.name}: the weights are not those of this architecture and target: {first}"
            ) from None
        return network.eval()

    @cached_property
    def program(self) -> ExportedProgram:
        """The network as a graph of torch operations with a free batch size, which ONNX and ``.pt2`` are made from.

        Its example inputs are two black images, and it holds no source lines of the machine that exports.

        Raises:
            ExportError: ``torch.export`` cannot trace the network.
        """
        from ddpnas_ray.deploy.program import export

        return export(self.module(), self.input_shape, self.name)
