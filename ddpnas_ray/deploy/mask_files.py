"""Images whose pixels are to be labelled, and the masks to compare the labels with.

Axes: H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.data.decoding import native_shape, open_image, read_source
from ddpnas_ray.data.folder import image_files
from ddpnas_ray.deploy.image_files import ImageFile, ImageQuestions

GREY = ("L", "P", "1")  # modes of masks of ids
VOID, UNKNOWN = -1, -2
SHOWN = 12  # ids

Palette = Sequence[tuple[int, int, int]]


@dataclass(frozen=True, kw_only=True)
class MaskQuestions(ImageQuestions):
    """Image files whose pixels are to be labelled; see ``Questions``.

    Args:
        palette: Colour of every class.
        ids: What stands for every class in masks.
        void_ids: What stands there for pixels that do not count; None: every other id.
    """

    palette: Palette = ()
    ids: Sequence[int] = ()
    void_ids: Sequence[int] | None = ()

    def mask(self, number: int, size: tuple[int, int]) -> IntArray:
        """Read the expected class numbers of an image of the given (height, width); -1: a pixel that does not count.

        Raises:
            DataError: The mask cannot be read, or has another size or unknown ids.
        """
        assert self.expected is not None
        path = self.expected[number]
        image = open_image(read_source(path, path), path)
        _check_size(path, (image.height, image.width), self.images[number].path, size)
        if image.mode not in GREY:
            return _of_colours(image, self.palette, path)
        ids_HW = np.asarray(image).astype(np.int64)
        table = np.full(2**16, VOID if self.void_ids is None else UNKNOWN, dtype=np.int64)
        table[[i for i in self.void_ids or () if i >= 0]] = VOID
        table[list(self.ids)] = np.arange(len(self.ids))
        labels_HW: IntArray = table[ids_HW]
        if (unknown := ids_HW[labels_HW == UNKNOWN]).size:
            known = f"{', '.join(map(str, self.ids[:SHOWN]))}{', ...' if len(self.ids) > SHOWN else ''}"
            raise DataError(
                f"{path}: id {unknown.min()} is not of a class of the model ({known}), and not one that does not count"
            )
        return labels_HW


def size_of(path: str) -> tuple[int, int]:
    """Return the (height, width) of an upright image.

    Raises:
        DataError: It cannot be read.
    """
    _, height, width = native_shape(open_image(read_source(path, path), path, load=False))
    return height, width


def find_masks(images: Sequence[ImageFile], folder: str) -> list[str]:
    """Find the mask of every image: the file below a folder with its name, whatever the suffix.

    Raises:
        DataError: There is no such folder, an image has no mask or several, or one of another size.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise DataError(f"--masks {folder}: not a folder; give the folder of the masks, NAME.png for each image")
    by_name: dict[str, list[str]] = {}
    for path in image_files(root):
        by_name.setdefault(Path(path).stem, []).append(path)
    found = []
    for image in images:
        masks = by_name.get(Path(image.path).stem, [])
        if len(masks) != 1:
            what = f"several masks ({', '.join(masks[:2])})" if masks else "no mask"
            raise DataError(
                f"--masks {folder}: {what} of {image.path}; expected one file {Path(image.path).stem}.png below it"
            )
        found.append(masks[0])
        try:
            size = size_of(image.path)
        except DataError:  # it takes its own line where it is to be predicted
            continue
        _check_size(masks[0], size_of(masks[0]), image.path, size)
    return found


def _check_size(mask: str, found: tuple[int, ...], image: str, expected: tuple[int, int]) -> None:
    if tuple(found) != expected:
        sizes = [" x ".join(map(str, size)) for size in (found, expected)]
        raise DataError(f"{mask}: a mask of {sizes[0]} pixels (height x width), but {image} has {sizes[1]}")


def _of_colours(image: Image.Image, palette: Palette, path: str) -> IntArray:
    """Return the classes of the colours of a mask."""
    if image.mode not in ("RGB", "RGBA"):
        raise DataError(f"{path}: image mode {image.mode!r} has no ids of classes; write an 8-bit grey or palette PNG")
    colours_HW = np.asarray(image.convert("RGB")).astype(np.int64) @ np.array([65536, 256, 1])
    numbers = np.array([(red << 16) + (green << 8) + blue for red, green, blue in palette])
    order = np.argsort(numbers, kind="stable")
    place_HW = np.minimum(np.searchsorted(numbers[order], colours_HW), len(palette) - 1)
    if (unknown := colours_HW[numbers[order][place_HW] != colours_HW]).size:
        raise DataError(f"{path}: colour #{unknown[0]:06x} is not one of the model's classes; write ids of classes")
    found: IntArray = order[place_HW]
    return found
