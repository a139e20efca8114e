"""Images, and the class of each.

Axes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import inspect
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from ddpnas_ray.core.errors import ConfigError, ExportError, ModelError
from ddpnas_ray.data.batches import Float32Array, normalise
from ddpnas_ray.data.decoding import EXIF_ORIENTATION, LONGEST, fit_image, open_image
from ddpnas_ray.deploy.image_files import ImageQuestions, expected_labels, find_images
from ddpnas_ray.deploy.interface import BATCH, BATCH_AXIS, COMPARED, TOLERANCE, Axis, listed, refuse_masks
from ddpnas_ray.deploy.questions import Arrays, Outputs
from ddpnas_ray.spaces.target import Target

if TYPE_CHECKING:
    from torch import nn

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

    kind: ClassVar = "images"
    one: ClassVar = "image"
    hub_task: ClassVar = "image-classification"
    inputs: ClassVar = ("images",)
    axes: ClassVar[Mapping[int, Axis]] = {0: BATCH_AXIS}
    batch: ClassVar = 64
    compared: ClassVar = COMPARED
    usage: ClassVar[Mapping[str, str]] = {}  # the forms' own
    template: ClassVar = Path(__file__).with_name("images.py.j2")

    classes: tuple[str, ...]
    channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def prepare(self, image: Image.Image) -> Float32Array:
        """Image -> input of the network as when it was trained, shape (C, H, W)."""
        pixels_CHW = fit_image(image, channels=self.channels, image_size=self.image_size)
        prepared: Float32Array = normalise(pixels_CHW[None], self.mean, self.std)[0]
        return prepared

    def check_target(self, target: Target) -> None:
        """See ``Interface``."""
        given = (target.input_channels, target.image_size, target.classes)
        needed = (self.channels, self.image_size, len(self.classes))
        for key, have, need in zip(("channels", "pixels", "classes"), given, needed, strict=True):
            if have != need:
                raise ConfigError(
                    f"the deploy network is for {have} {key}, its data have {need}; set target.image_size and "
                    "target.classes to null, so that they are those of the data"
                )

    def check(self, inputs: Arrays) -> None:
        """See ``Interface``."""
        shape = (self.channels, self.image_size, self.image_size)
        if len(inputs) != 1 or inputs[0].ndim != 4 or inputs[0].shape[1:] != shape:
            raise ValueError(f"images of shape {inputs[0].shape}; (N, {', '.join(map(str, shape))}) is needed")

    def batches(self, inputs: Arrays, size: int) -> Iterator[Arrays]:
        """See ``Interface``."""
        images_NCHW = np.ascontiguousarray(inputs[0], dtype=np.float32)
        for start in range(0, len(images_NCHW), size):
            yield (images_NCHW[start : start + size],)

    def trials(self, inputs: Arrays) -> Iterator[Arrays]:
        """See ``Interface``."""
        return self.batches(inputs, BATCH)

    def logits_shape(self, inputs: Arrays) -> tuple[int, ...]:
        """See ``Interface``."""
        return len(inputs[0]), len(self.classes)

    def positional(self, network: nn.Module) -> nn.Module:
        """See ``Interface``: it takes images as it is."""
        return network

    def blank(self) -> Arrays:
        """See ``Interface``: two black images."""
        return (np.zeros((2, self.channels, self.image_size, self.image_size), np.float32),)

    def random(self, count: int) -> Arrays:
        """See ``Interface``."""
        shape = (count, self.channels, self.image_size, self.image_size)
        return (np.random.default_rng(0).standard_normal(shape, dtype=np.float32),)

    def shape_text(self, inputs: Arrays) -> str:
        """See ``Interface``."""
        return str((self.channels, self.image_size, self.image_size))

    def source_values(self) -> dict[str, Any]:
        """See ``Interface``."""
        return {"data": self, "longest": LONGEST}

    def write(self, folder: Path) -> None:
        """See ``Interface``: nothing is needed."""

    def huggingface(self) -> dict[str, dict[str, Any]]:
        """See ``Interface``.

        The image processor is our own: it makes grey images where the network takes them, and rounds sides as in
        training (transformers' CLIPImageProcessor rounds the longer side down, which moves the crop).
        """
        config = {
            "architectures": ["FoundForImageClassification"],
            "auto_map": {
                "AutoConfig": "network.FoundConfig",
                "AutoModelForImageClassification": "network.FoundForImageClassification",
            },
            "model_type": "ddpnas-network",
            "id2label": {str(i): name for i, name in enumerate(self.classes)},
            "label2id": {name: i for i, name in enumerate(self.classes)},
            # of one class transformers makes a yes or no
            **({"problem_type": "single_label_classification"} if len(self.classes) > 1 else {}),
            "image_size": self.image_size,
            "num_channels": self.channels,
            "dtype": "float32",
        }
        preprocessor = {
            # the second one was transformers' name for faster processors; version 5 takes the first
            "auto_map": {"AutoImageProcessor": ["network.FoundImageProcessor", None]},
            "image_processor_type": "FoundImageProcessor",
            "size": {"shortest_edge": self.image_size},
            "crop_size": {"height": self.image_size, "width": self.image_size},
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }
        return {"config.json": config, "preprocessor_config.json": preprocessor}

    def write_samples(self, job: Path) -> None:
        """See ``Interface``."""
        for name, stored in pictures().items():
            (job / f"picture-{name}").write_bytes(stored)

    def prepare_samples(self) -> tuple[str, str]:
        """See ``Interface``."""
        return prepared.__name__, inspect.getsource(prepared)

    def check_samples(self, found: Sequence[npt.NDArray[Any]]) -> None:
        """See ``Interface``."""
        for (name, stored), found_CHW in zip(sorted(pictures().items()), found, strict=True):
            expected_CHW = self.prepare(open_image(stored, name))
            if not np.allclose(found_CHW, expected_CHW, rtol=0, atol=TOLERANCE * float(np.abs(expected_CHW).max())):
                raise ExportError(
                    f"network.py does not prepare an image ({name}) as in training; nothing was written: leave out "
                    "torch and huggingface, and report this"
                )

    def agree(self, found_NO: Float32Array, expected_NO: Float32Array) -> int:
        """See ``Interface``: with the same class."""
        return int((found_NO.argmax(axis=1) == expected_NO.argmax(axis=1)).sum())

    def summary(self) -> str:
        """See ``Interface``."""
        colours = "grey" if self.channels == 1 else "RGB"
        return (
            f"An image classifier ({len(self.classes)} classes, {colours} images of {self.image_size} x "
            f"{self.image_size} pixels)"
        )

    def sections(self) -> dict[str, str]:
        """See ``Interface``."""
        prepared = (
            f"Images are resized so that the shorter side has {self.image_size} pixels (bilinear, antialiased), "
            f"cropped at the centre, divided by 255, and normalised with mean {list(self.mean)} and std "
            f"{list(self.std)}"
        )
        limits = [
            f"It always answers one of its {len(self.classes)} classes, for images of anything else too; its "
            "probabilities are not calibrated.",
            f"It was trained at {self.image_size} pixels; images of other sizes are resized to that.",
            "It is meant for images like those it was trained on.",
        ]
        return {
            "Classes": listed(self.classes),
            "Load it": prepared,
            "Limits": "\n".join(f"- {line}" for line in limits),
        }

    def questions(
        self, given: Sequence[str], *, labelled: bool = False, task: str | None = None, masks: str | None = None
    ) -> ImageQuestions:
        """See ``Interface``: paths and patterns of image files."""
        if task is not None:
            raise ConfigError(f"--task {task}: the model has one task; leave out --task")
        refuse_masks(masks)
        images = find_images(given)
        expected = expected_labels(images, self.classes) if labelled else None
        return ImageQuestions(images, Outputs(classes=self.classes), self.prepare, expected)

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


def from_metadata(metadata: Mapping[str, str], file: str) -> Preprocessing:
    """See ``ddpnas_ray.deploy.interface``."""
    return Preprocessing.from_metadata(metadata, file)


def pictures() -> dict[str, bytes]:
    """Encode images as users have them: turned by EXIF or by XMP, transparent, with a palette, or a long strip."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 4), dtype=np.uint8)
    picture, exif = Image.fromarray(pixels), Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    xmp = b'<x xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    files: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "exif.jpg": (picture.convert("RGB"), {"exif": exif}),
        "xmp.jpg": (picture.convert("RGB"), {"xmp": xmp}),
        "rgba.png": (picture, {}),
        "palette.png": (picture.convert("P"), {"transparency": 0}),
        "grey.png": (picture.convert("LA"), {}),
        "strip.png": (picture.resize((200, 1)), {}),
    }
    found = {}
    for name, (image, options) in files.items():
        buffer = io.BytesIO()
        image.save(buffer, format=Image.registered_extensions()[Path(name).suffix], **options)
        found[name] = buffer.getvalue()
    return found


def prepared(module: dict[str, Any], job: str) -> list[Any]:
    """Prepare the pictures of a job by ``preprocess`` of ``network.py``; runs where this package does not."""
    import os

    from PIL import Image

    pictures = sorted(name for name in os.listdir(job) if name.startswith("picture-"))
    return [module["preprocess"](Image.open(os.path.join(job, name))).numpy() for name in pictures]
