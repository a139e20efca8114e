"""Images, and the class of every pixel.

Axes: N images, O classes, H height, W width.
"""

from __future__ import annotations

import inspect
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
from ddpnas_ray.data.decoding import open_image
from ddpnas_ray.deploy.image_files import find_images
from ddpnas_ray.deploy.interface import BATCH_AXIS, COMPARED, TOLERANCE, Axis
from ddpnas_ray.deploy.kinds.images import LARGEST_SIDE, pictures, prepared
from ddpnas_ray.deploy.mask_card import classes_of, usage_of, words_of
from ddpnas_ray.deploy.mask_files import MaskQuestions, find_masks
from ddpnas_ray.deploy.questions import Arrays, Outputs
from ddpnas_ray.spaces.target import Target

if TYPE_CHECKING:
    from torch import nn

MOST_LOGITS = 2**24  # of a batch: 64 MB
MOST_BATCH = 64
MOST_CLASSES = 256  # a label map has 8 bits
COARSEST = 32  # pixels of the image per deep feature, at most
TRACED = (96, 128)  # height and width of the images that a network is traced on
ALLOWED: dict[str, Callable[[Any, dict[str, Any]], bool]] = {  # by metadata key: value, all values -> whether it can be
    "classes": lambda value, _: 1 <= len(value) <= MOST_CLASSES and all(isinstance(name, str) for name in value),
    "channels": lambda value, _: value == 3,
    "height": lambda value, _: type(value) is int and 1 <= value <= LARGEST_SIDE,
    "width": lambda value, _: type(value) is int and 1 <= value <= LARGEST_SIDE,
    "mean": lambda value, _: len(value) == 3 and all(map(math.isfinite, value)),
    "std": lambda value, _: len(value) == 3 and all(0 < std < math.inf for std in value),
    "void": lambda value, every: type(value) is int and not 0 <= value < len(every["classes"]),
    "palette": lambda value, every: len(value) == len(every["classes"]) and all(map(_is_colour, value)),
    "hub_task": lambda value, _: isinstance(value, str) and bool(value.rpartition("-")[2].isalpha()),
    "ids": lambda value, every: len(set(value)) == len(every["classes"]) and all(map(_is_id, value)),
    "void_ids": lambda value, _: value is None or all(map(_is_id, value)),
}
KEYS = tuple(ALLOWED)
OPTIONAL = ("ids", "void_ids")  # the numbers of classes, and ``void``


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskInterface:
    """How an image becomes a network's input, and what its outputs of every pixel mean.

    Args:
        classes: Class names, in the order of the logits.
        height: H, to which images are resized, as where the network was evaluated.
        width: W.
        mean: Subtracted from pixel fractions (0 to 1), one per channel (RGB).
        std: Divides them afterwards, one per channel.
        void: Label of pixels that do not count, beside the numbers of classes.
        palette: Colour of every class, (red, green, blue), 0 to 255.
        hub_task: Task on the Hugging Face hub.
        ids: What stands for every class in the masks of the data.
        void_ids: What stands there for pixels that do not count; None: every other id.
    """

    kind: ClassVar = "masks"
    one: ClassVar = "image"
    inputs: ClassVar = ("images",)
    axes: ClassVar[Mapping[int, Axis]] = {
        0: BATCH_AXIS,
        2: Axis("height", LARGEST_SIDE, bounded=True),
        3: Axis("width", LARGEST_SIDE, bounded=True),
    }
    template: ClassVar = Path(__file__).with_name("masks.py.j2")

    classes: tuple[str, ...]
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    void: int
    palette: tuple[tuple[int, int, int], ...]
    hub_task: str
    ids: tuple[int, ...]
    void_ids: tuple[int, ...] | None

    @property
    def batch(self) -> int:
        """See ``Interface``: as many as ``MOST_LOGITS`` allow."""
        return max(1, min(MOST_BATCH, MOST_LOGITS // (len(self.classes) * self.height * self.width)))

    @property
    def compared(self) -> int:
        """See ``Interface``: a batch; every pixel is compared."""
        return min(COMPARED, self.batch)

    @property
    def usage(self) -> Mapping[str, str]:
        """See ``Interface``."""
        return usage_of(self.hub_task)

    def prepare(self, image: Image.Image) -> Float32Array:
        """Image -> input of the network as when it was evaluated, shape (3, H, W)."""
        if image.mode in ("P", "PA"):
            image = image.convert("RGBA")  # via RGBA, or Pillow warns about transparent palettes
        image = image.convert("RGB").resize((self.width, self.height), Image.Resampling.BILINEAR)
        pixels_CHW = np.asarray(image).transpose(2, 0, 1)
        found: Float32Array = normalise(pixels_CHW[None], self.mean, self.std)[0]
        return found

    def check_target(self, target: Target) -> None:
        """See ``Interface``."""
        size = target.image_size
        sides = size if isinstance(size, tuple) else (size, size)
        have = {"channels": target.input_channels, "pixels": sides, "classes": target.classes}
        need = {"channels": 3, "pixels": (self.height, self.width), "classes": len(self.classes)}
        for key, needed in need.items():
            if have[key] != needed:
                raise ConfigError(
                    f"the deploy network is for {have[key]} {key}, its data have {needed}; set target.image_size and "
                    "target.classes to null, so that they are those of the data"
                )

    def check(self, inputs: Arrays) -> None:
        """See ``Interface``: images of any size."""
        if len(inputs) != 1 or inputs[0].ndim != 4 or inputs[0].shape[1] != 3:
            raise ValueError(f"images of shape {inputs[0].shape}; (N, 3, H, W) is needed")

    def batches(self, inputs: Arrays, size: int) -> Iterator[Arrays]:
        """See ``Interface``."""
        images = np.ascontiguousarray(inputs[0], dtype=np.float32)
        pixels = max(1, len(self.classes) * images.shape[2] * images.shape[3])
        size = max(1, min(size, MOST_BATCH, MOST_LOGITS // pixels))
        for start in range(0, len(images), size):
            yield (images[start : start + size],)

    def trials(self, inputs: Arrays) -> Iterator[Arrays]:
        """See ``Interface``: then two images of another size, cut or enlarged."""
        yield from self.batches(inputs, MOST_BATCH)
        images = inputs[0][:2]
        for axis, odd in ((2, 65), (3, 97)):
            other = _other(images.shape[axis], odd)
            images = images.take(np.arange(other).clip(max=images.shape[axis] - 1), axis=axis)
        yield (np.ascontiguousarray(images, dtype=np.float32),)

    def logits_shape(self, inputs: Arrays) -> tuple[int, ...]:
        """See ``Interface``: of the size of the images."""
        count, _, height, width = inputs[0].shape
        return count, len(self.classes), height, width

    def positional(self, network: nn.Module) -> nn.Module:
        """See ``Interface``: it takes images as it is."""
        return network

    def blank(self) -> Arrays:
        """See ``Interface``: two small black images.

        Where an image has a single deep feature, a traced network takes only such images, and else none of them.
        """
        own = zip((self.height, self.width), TRACED, strict=True)
        sides = [side if side <= COARSEST else traced for side, traced in own]
        return (np.zeros((2, 3, *sides), np.float32),)

    def random(self, count: int) -> Arrays:
        """See ``Interface``."""
        shape = (count, 3, self.height, self.width)
        return (np.random.default_rng(0).standard_normal(shape, dtype=np.float32),)

    def shape_text(self, inputs: Arrays) -> str:
        """See ``Interface``."""
        return str((3, self.height, self.width))

    def source_values(self) -> dict[str, Any]:
        """See ``Interface``."""
        return {"data": self, "model": self._model_class, "noun": _noun(self.hub_task)}

    def write(self, folder: Path) -> None:
        """See ``Interface``: nothing is needed."""

    @property
    def _model_class(self) -> str:
        """End of the names of transformers' classes for it."""
        return f"ForSemantic{_noun(self.hub_task).title()}"

    def huggingface(self) -> dict[str, dict[str, Any]]:
        """See ``Interface``; the image processor is our own, as that of images."""
        config = {
            "architectures": [f"Found{self._model_class}"],
            "auto_map": {
                "AutoConfig": "network.FoundConfig",
                f"AutoModel{self._model_class}": f"network.Found{self._model_class}",
            },
            "model_type": "ddpnas-mask-network",
            "id2label": {str(i): name for i, name in enumerate(self.classes)},
            "label2id": {name: i for i, name in enumerate(self.classes)},
            "void": self.void,
            "image_size": [self.height, self.width],
            "num_channels": 3,
            "dtype": "float32",
        }
        preprocessor = {
            # the second one was transformers' name for faster processors; version 5 takes the first
            "auto_map": {"AutoImageProcessor": ["network.FoundImageProcessor", None]},
            "image_processor_type": "FoundImageProcessor",
            "size": {"height": self.height, "width": self.width},
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
        """See ``Interface``: with the same class; a row per pixel."""
        return int((found_NO.argmax(axis=1) == expected_NO.argmax(axis=1)).sum())

    def summary(self) -> str:
        """See ``Interface``."""
        return (
            f"A network that labels every pixel of an image ({len(self.classes)} classes, RGB images, evaluated at "
            f"{self.height} x {self.width} pixels)"
        )

    def sections(self) -> dict[str, str]:
        """See ``Interface``."""
        size = (self.height, self.width)
        return {
            "Classes": classes_of(self.classes, self.palette),
            **words_of(size, self.mean, self.std, len(self.classes)),
        }

    def questions(
        self, given: Sequence[str], *, labelled: bool = False, task: str | None = None, masks: str | None = None
    ) -> MaskQuestions:
        """See ``Interface``: paths and patterns of image files."""
        if task is not None:
            raise ConfigError(f"--task {task}: the model has one task; leave out --task")
        if labelled:
            raise ConfigError("--labelled: the model labels every pixel; give the folder of the masks, --masks FOLDER")
        images = find_images(given)
        expected = None if masks is None else find_masks(images, masks)
        return MaskQuestions(
            images=images,
            outputs=Outputs(classes=self.classes, metrics=()),
            palette=self.palette,
            ids=self.ids,
            void_ids=self.void_ids,
            prepare=self.prepare,
            expected=expected,
        )

    def to_metadata(self) -> dict[str, str]:
        """Return it as JSON texts by key, as all files carry it."""
        own = {"kind": self.kind, "channels": 3}
        return {key: json.dumps(own[key] if key in own else getattr(self, key)) for key in ("kind", *KEYS)}


def from_metadata(metadata: Mapping[str, str], file: str) -> MaskInterface:
    """See ``ddpnas_ray.deploy.interface``.

    Raises:
        ModelError: A key is missing, damaged, or has a value that no network has.
    """
    try:
        values = {key: json.loads(metadata[key]) for key in KEYS if key in metadata or key not in OPTIONAL}
        values = {"ids": list(range(len(values["classes"]))), "void_ids": [values["void"]]} | values
        for key, allowed in ALLOWED.items():
            if not allowed(values[key], values):
                raise ModelError(f"{file}: its metadata have {key} {values[key]!r}; export the network again")
        return MaskInterface(
            classes=tuple(values["classes"]),
            height=values["height"],
            width=values["width"],
            mean=tuple(map(float, values["mean"])),
            std=tuple(map(float, values["std"])),
            void=values["void"],
            palette=tuple((red, green, blue) for red, green, blue in values["palette"]),
            hub_task=values["hub_task"],
            ids=tuple(values["ids"]),
            void_ids=None if values["void_ids"] is None else tuple(values["void_ids"]),
        )
    except (KeyError, ValueError, TypeError, OverflowError):
        raise ModelError(
            f"{file}: no metadata with {', '.join(KEYS)}; give a model that ddpnas wrote, or write it again"
        ) from None


def _other(side: int, odd: int) -> int:
    """Return another side, with odd sides of features at all strides if the given one has not, and as many where few.

    Example:
        >>> _other(24, 65), _other(17, 65), _other(360, 65), _other(65, 65)
        (17, 32, 65, 64)
    """
    if side > COARSEST:
        return odd if side != odd else odd - 1
    most = 1 << (side - 1).bit_length()
    return most // 2 + 1 if side != most // 2 + 1 else most


def _is_id(value: Any) -> bool:
    return type(value) is int and -1 <= value < 2**16


def _is_colour(value: Any) -> bool:
    return len(value) == 3 and all(type(part) is int and 0 <= part <= 255 for part in value)


def _noun(hub_task: str) -> str:
    """Return what a task of the hub makes of images, as transformers' classes for it are named."""
    return hub_task.rpartition("-")[2]
