"""Images whose pixels are to be labelled, and the masks to compare the labels with.

Axes: H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.data.decoding import ByteArray, native_shape, open_image, read_source
from ddpnas_ray.data.folder import image_files
from ddpnas_ray.deploy.image_files import ImageFile, ImageQuestions

Palette = Sequence[tuple[int, int, int]]


@dataclass(frozen=True, kw_only=True)
class MaskQuestions(ImageQuestions):
    """Image files whose pixels are to be labelled; see ``Questions``.

    Args:
        palette: Colour of every class.
        void: Label of pixels that do not count.
    """

    palette: Palette = ()
    void: int = -1

    def mask(self, number: int, size: tuple[int, int]) -> ByteArray:
        """Read the expected labels of an image of the given (height, width).

        Raises:
            DataError: The mask cannot be read, or has another size or unknown labels.
        """
        assert self.expected is not None
        path = self.expected[number]
        labels_HW = _labels(path, self.palette)
        _check_size(path, labels_HW.shape, self.images[number].path, size)
        known = [*range(len(self.palette)), *([self.void] if 0 <= self.void < 256 else [])]
        found = np.flatnonzero(np.bincount(labels_HW.ravel(), minlength=256))
        if unknown := sorted(set(found.tolist()) - set(known)):
            raise DataError(
                f"{path}: label {unknown[0]} is not a class of the model (0 to {len(self.palette) - 1}; {self.void} "
                "does not count)"
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


def _labels(path: str, palette: Palette) -> ByteArray:
    """Read a mask of class numbers (grey, or with a palette), or of the classes' colours; shape (H, W)."""
    image = open_image(read_source(path, path), path)
    if image.mode in ("L", "P", "1"):
        labels_HW: ByteArray = np.asarray(image).astype(np.uint8)
        return labels_HW
    if image.mode not in ("RGB", "RGBA"):
        raise DataError(f"{path}: image mode {image.mode!r} has no class numbers; write an 8-bit grey or palette PNG")
    colours = np.asarray(image.convert("RGB")).astype(np.int64) @ np.array([65536, 256, 1])
    numbers = np.array([(red << 16) + (green << 8) + blue for red, green, blue in palette])
    order = np.argsort(numbers, kind="stable")
    place = np.minimum(np.searchsorted(numbers[order], colours), len(palette) - 1)
    if (unknown := colours[numbers[order][place] != colours]).size:
        raise DataError(f"{path}: colour #{unknown[0]:06x} is not one of the model's classes; write class numbers")
    found: ByteArray = order[place].astype(np.uint8)
    return found
