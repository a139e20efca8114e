"""Images with their labels, all of one size: held as pixels, or decoded at every access by a few threads.

Axes: N images, B images of a batch, H height, W width, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.data.decoding import ByteArray, ImageSource, open_image, read_source
from ddpnas_ray.data.pixels import Picked, in_chunks, thread_count
from ddpnas_ray.tasks.segmentation.masks import UNKNOWN, Labelling, pixels_of, read_ids, resized

Size = tuple[int, int]


class Pairs(Protocol):
    """Images and their labels, readable in any order."""

    def __len__(self) -> int: ...

    def gather(self, rows: IntArray) -> tuple[ByteArray, ByteArray]:
        """Return pixels, shape (B, 3, H, W), and labels, shape (B, H, W), both new.

        Raises:
            DataError: An image or a mask cannot be read; the error names it.
        """
        ...

    def picked(self, rows: IntArray) -> Pairs:
        """Return some of them."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """Pairs held in memory; Ray shares the arrays without a copy.

    Args:
        pixels_N3HW: The images.
        labels_NHW: Class numbers, or ``VOID``.
    """

    pixels_N3HW: ByteArray
    labels_NHW: ByteArray

    def __len__(self) -> int:
        return len(self.labels_NHW)

    def gather(self, rows: IntArray) -> tuple[ByteArray, ByteArray]:
        """See ``Pairs``."""
        return np.take(self.pixels_N3HW, rows, axis=0), np.take(self.labels_NHW, rows, axis=0)

    def picked(self, rows: IntArray) -> Decoded:
        """See ``Pairs``."""
        return Decoded(*self.gather(rows))


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """Pairs decoded at every access.

    Args:
        images: The images.
        masks: Their masks.
        names: Names of both in errors.
        labelling: What the ids mean.
        size: Height and width; others are resized.
    """

    images: Sequence[ImageSource]
    masks: Sequence[ImageSource]
    names: tuple[Sequence[str], Sequence[str]]
    labelling: Labelling
    size: Size

    def __len__(self) -> int:
        return len(self.images)

    def gather(self, rows: IntArray) -> tuple[ByteArray, ByteArray]:
        """See ``Pairs``."""
        pixels_B3HW = np.empty((len(rows), 3, *self.size), dtype=np.uint8)
        labels_BHW = np.empty((len(rows), *self.size), dtype=np.uint8)

        def decode(start: int, stop: int) -> None:
            for i in range(start, stop):
                pixels_B3HW[i], labels_BHW[i] = self._pair(int(rows[i]))

        for _ in in_chunks(decode, len(rows), chunk=max(1, -(-len(rows) // thread_count()))):
            pass
        return pixels_B3HW, labels_BHW

    def picked(self, rows: IntArray) -> Encoded:
        """See ``Pairs``."""
        images, masks, *names = (Picked(each, rows) for each in (self.images, self.masks, *self.names))
        return Encoded(images, masks, (names[0], names[1]), self.labelling, self.size)  # type: ignore[arg-type]

    def _pair(self, row: int) -> tuple[ByteArray, ByteArray]:
        name, mask_name = self.names[0][row], self.names[1][row]
        image = open_image(read_source(self.images[row], name), name)
        ids_HW, _ = read_ids(self.masks[row], mask_name)
        refuse_other_size((image.height, image.width), ids_HW.shape[:2], name, mask_name)
        labels_HW = self.labelling.table[ids_HW]
        if (labels_HW == UNKNOWN).any():
            raise DataError(self.labelling.unknown(pixels_of(ids_HW), mask_name)[0])
        return fitted(image, self.size), resized(labels_HW, self.size)


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """Two sets of pairs of one size, one after the other."""

    first: Pairs
    second: Pairs

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def gather(self, rows: IntArray) -> tuple[ByteArray, ByteArray]:
        """See ``Pairs``."""
        in_first = rows < len(self.first)
        found = self.first.gather(rows[in_first]), self.second.gather(rows[~in_first] - len(self.first))
        pixels, labels = (np.empty((len(rows), *one.shape[1:]), dtype=np.uint8) for one in found[0])
        for whole, parts in zip((pixels, labels), zip(*found, strict=True), strict=True):
            whole[in_first], whole[~in_first] = parts
        return pixels, labels

    def picked(self, rows: IntArray) -> Pairs:
        """See ``Pairs``: decoded."""
        return Decoded(*self.gather(rows))


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """A split of the data.

    Args:
        pairs: Its N images and labels.
        counts_NC: Pixels of each class in every mask, as stored, shape (N, C).
    """

    pairs: Pairs
    counts_NC: IntArray

    def __len__(self) -> int:
        return len(self.counts_NC)

    def picked(self, rows: IntArray) -> Split:
        """Return some of its images."""
        return Split(self.pairs.picked(rows), self.counts_NC[rows])

    def joined(self, other: Split) -> Split:
        """Return its images, and those of another one."""
        return Split(Joined(self.pairs, other.pairs), np.concatenate([self.counts_NC, other.counts_NC]))


def fitted(image: Image.Image, size: Size) -> ByteArray:
    """Convert to RGB, and resize with antialiasing; the proportions may change.

    Returns:
        Pixels of shape (3, height, width).
    """
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # via RGBA, or Pillow warns about transparent palettes
    if image.mode != "RGB":
        image = image.convert("RGB")
    if (image.height, image.width) != size:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)


def refuse_other_size(image: Size, mask: tuple[int, ...], name: str, mask_name: str) -> None:
    """Refuse a mask of another size than its image; sizes are height and width.

    Raises:
        DataError: It has one.
    """
    if image != tuple(mask):
        raise DataError(
            f"{mask_name}: a mask of {mask[1]}x{mask[0]} pixels, but its image {name} has {image[1]}x{image[0]}; make "
            "them equal (task.size resizes both)"
        )
