"""Colours of label maps, and their overlays on images. NumPy and Pillow only.

Axes: H height, W width. Pixels are uint8, 0 to 255, RGB; labels are class numbers.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

ByteArray: TypeAlias = npt.NDArray[np.uint8]
Palette: TypeAlias = Sequence[Sequence[int]]
"""A colour for each class: red, green and blue, 0 to 255."""

GAP = 4  # pixels between images side by side


def default_palette(classes: int) -> tuple[tuple[int, int, int], ...]:
    """Return distinct colours, those of PASCAL VOC's objects; they repeat after 255.

    Example:
        >>> default_palette(3)
        ((128, 0, 0), (0, 128, 0), (128, 128, 0))
    """
    return tuple(_colour(1 + i % 255) for i in range(classes))


def coloured(labels_HW: npt.NDArray[np.integer], palette: Palette) -> ByteArray:
    """Colour a label map; labels without a colour, such as void, are black.

    Returns:
        Shape (H, W, 3).

    Example:
        >>> coloured(np.array([[1, 255]]), [(9, 9, 9), (1, 2, 3)]).tolist()
        [[[1, 2, 3], [0, 0, 0]]]
    """
    table = np.zeros((len(palette) + 1, 3), dtype=np.uint8)
    table[:-1] = palette
    found: ByteArray = table[_known(labels_HW, len(palette))]
    return found


def overlay(
    pixels_HW3: ByteArray, labels_HW: npt.NDArray[np.integer], palette: Palette, alpha: float = 0.6
) -> ByteArray:
    """Blend the colours of a label map onto its image; pixels without a colour keep theirs.

    Args:
        pixels_HW3: The image.
        labels_HW: Its label map.
        palette: Colours of the classes.
        alpha: Share of the colours.

    Returns:
        Shape (H, W, 3).

    Example:
        >>> overlay(np.full((1, 2, 3), 100, np.uint8), np.array([[0, 255]]), [(200, 0, 100)], 0.5).tolist()
        [[[150, 50, 100], [100, 100, 100]]]
    """
    blended = (1 - alpha) * pixels_HW3 + alpha * coloured(labels_HW, palette)
    has_HW = _known(labels_HW, len(palette)) < len(palette)
    return np.where(has_HW[..., None], np.rint(blended), pixels_HW3).astype(np.uint8)


def beside(several: Sequence[ByteArray]) -> ByteArray:
    """Put images of one height side by side, with a white gap.

    Example:
        >>> beside([np.zeros((2, 3, 3), np.uint8)] * 2).shape
        (2, 10, 3)
    """
    gap = np.full((several[0].shape[0], GAP, 3), 255, dtype=np.uint8)
    parts = [part for one in several for part in (gap, one)]
    return np.concatenate(parts[1:], axis=1)


def png(pixels_HW3: ByteArray) -> bytes:
    """Return an image as a PNG file."""
    return _png(Image.fromarray(pixels_HW3))


def palette_png(labels_HW: npt.NDArray[np.integer], palette: Palette) -> bytes:
    """Return a label map as a palette PNG file: its pixels are class numbers, shown in the classes' colours.

    Args:
        labels_HW: Class numbers, 0 to 255; those without a colour are shown black.
        palette: Colours of the classes.
    """
    image = Image.fromarray(labels_HW.astype(np.uint8)).convert("L")
    image.putpalette([value for colour in palette[:256] for value in colour] + [0] * 3 * (256 - len(palette)))
    return _png(image)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _known(labels_HW: npt.NDArray[np.integer], classes: int) -> npt.NDArray[np.int64]:
    labels = labels_HW.astype(np.int64)
    return np.where((labels < 0) | (labels >= classes), classes, labels)


def _colour(index: int) -> tuple[int, int, int]:
    """Return VOC's colour: bits 0, 3, 6 of the index are red's highest bits, 1, 4, 7 green's, and so on."""
    red, green, blue = (
        sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)
    )
    return red, green, blue
