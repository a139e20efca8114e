"""Masks: files of ids to class numbers of pixels.

Axes: H height, W width, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.data.decoding import ByteArray, ImageSource, decoded, read_source

VOID = 255  # label of pixels that count nowhere, whatever their id
UNKNOWN = 254
MOST_CLASSES = 250
ID_MODES = ("L", "P", "1", "I", "I;16", "I;16B", "I;16L", "I;16N")
LOSSY = ("JPEG", "MPO", "JPEG2000")


@dataclass(frozen=True)
class Labelling:
    """What the ids of masks mean. Labels are class numbers, or ``VOID``.

    Args:
        classes: Names of the C classes.
        ids: Id of each class.
        void: Id of pixels that do not count; None: there is none.
        lenient: Pixels of other ids do not count either; else they are an error.
    """

    classes: tuple[str, ...]
    ids: tuple[int, ...]
    void: int | None
    lenient: bool = False

    @cached_property
    def table(self) -> ByteArray:
        """Label of every id, shape (65536,); ``UNKNOWN`` where there is none."""
        found = np.full(2**16, VOID if self.lenient else UNKNOWN, dtype=np.uint8)
        if self.void is not None:
            found[self.void] = VOID
        found[list(self.ids)] = np.arange(len(self.ids))
        return found

    def counts(self, pixels: Mapping[int, int]) -> IntArray:
        """Return the pixels of each class, shape (C,), from those of each id."""
        counts_C = np.zeros(len(self.ids), dtype=np.int64)
        for number, label in zip(pixels.values(), self.table[list(pixels)], strict=True):
            if label < UNKNOWN:
                counts_C[label] += number
        return counts_C

    def unknown(self, pixels: Mapping[int, int], name: str) -> list[str]:
        """Say which id of a mask is neither a class nor void; empty: none."""
        wrong = [i for i in pixels if self.table[i] == UNKNOWN]
        if not wrong:
            return []
        others = len(wrong) - 1
        more = f", nor {'is 1 other id' if others == 1 else f'are {others} other ids'}" if others else ""
        void = "none is void" if self.void is None else f"{self.void} is void"
        return [
            f"{name}: id {wrong[0]} ({pixels[wrong[0]]:,} pixels) is not a class{more}; classes are "
            f"{_ranges(self.ids)}, {void}: correct the mask, name every class in task.classes, or set task.void"
        ]


def read_ids(source: ImageSource, name: str) -> tuple[npt.NDArray[np.integer[Any]], Image.Image]:
    """Decode a mask: label ids (modes L, I;16 and 1), or a palette image, whose palette indices are the ids.

    Args:
        source: The mask.
        name: Its name in errors.

    Returns:
        Ids, shape (H, W), 0 to 65535, and the image.

    Raises:
        DataError: It cannot be read, or has colours instead of ids.
    """
    stored = read_source(source, name)
    image = decoded(stored, name, what="mask") if isinstance(stored, bytes) else Image.fromarray(stored)
    if image.mode not in ID_MODES:
        raise DataError(
            f"{name}: a mask of mode {image.mode} has colours, not ids; save it as a grey PNG whose values are ids, or "
            "as a palette PNG whose palette indices are ids (not by a conversion that chooses the palette itself)"
        )
    if image.format in LOSSY:
        raise DataError(f"{name}: a {image.format} file changes ids; save masks without loss, as PNG")
    ids_HW = np.asarray(image)
    if ids_HW.dtype != np.uint8:
        if ids_HW.size and not 0 <= int(ids_HW.min()) <= int(ids_HW.max()) < 2**16:
            raise DataError(f"{name}: ids must lie in 0 to 65535; it has {ids_HW.min()} to {ids_HW.max()}")
        ids_HW = ids_HW.astype(np.uint16)
    return ids_HW, image


def pixels_of(ids_HW: npt.NDArray[np.integer[Any]]) -> dict[int, int]:
    """Return the number of pixels of each id.

    Example:
        >>> pixels_of(np.array([[3, 3, 7]], dtype=np.uint8))
        {3: 2, 7: 1}
    """
    count = np.bincount(ids_HW.ravel())
    return {int(i): int(count[i]) for i in np.flatnonzero(count)}


def resized(labels_HW: ByteArray, size: tuple[int, int]) -> ByteArray:
    """Return labels of another height and width: those of the nearest pixels."""
    if labels_HW.shape == size:
        return labels_HW
    image = Image.fromarray(labels_HW).resize((size[1], size[0]), Image.Resampling.NEAREST)
    return np.asarray(image)


def own_classes(ids: Sequence[int], void: int | None, origin: str) -> Labelling:
    """Number the ids that training masks have; classes are named by their ids.

    Raises:
        DataError: They are too many.
    """
    found = tuple(sorted(set(ids) - {void}))
    if len(found) > MOST_CLASSES:
        raise DataError(
            f"{origin}: masks have {len(found)} ids, more than the {MOST_CLASSES} classes allowed; are they ids of "
            "classes, or of objects, or grey values of a photo? Set task.masks to masks of classes"
        )
    return Labelling(tuple(f"class-{i}" for i in found), found, void)


def _ranges(ids: Sequence[int]) -> str:
    """Shorten consecutive ids.

    Example:
        >>> _ranges([0, 1, 2, 7])
        '0 to 2, 7'
    """
    runs: list[list[int]] = []
    for i in ids:
        if runs and i == runs[-1][-1] + 1:
            runs[-1].append(i)
        else:
            runs.append([i])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)
