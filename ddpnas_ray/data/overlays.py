"""Colours for masks: label maps as images of colours, over photos, and as files.

Axes: H height, W width.
"""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from ddpnas_ray.data.decoding import ByteArray

Palette = Sequence[tuple[int, int, int]]
VOID = (0, 0, 0)
GOLDEN = 0.618034  # a step around the circle of hues that keeps neighbours apart
DEFAULT_PALETTE: tuple[tuple[int, int, int], ...] = tuple(
    (round(255 * red), round(255 * green), round(255 * blue))
    for red, green, blue in (
        colorsys.hsv_to_rgb(i * GOLDEN % 1, (0.85, 0.55)[i // 2 % 2], (1.0, 0.75)[i % 2]) for i in range(256)
    )
)


def coloured(labels_HW: npt.NDArray[np.integer], palette: Palette, void: int | None = None) -> ByteArray:
    """Return the colour of every label, shape (H, W, 3); of ``void`` black.

    Raises:
        ValueError: A label has no colour.

    Example:
        >>> coloured(np.array([[1, 9]]), [(1, 2, 3), (4, 5, 6)], void=9).tolist()
        [[[4, 5, 6], [0, 0, 0]]]
    """
    colours = np.array([*palette, VOID], dtype=np.uint8)
    places_HW = np.where(labels_HW == void, len(palette), labels_HW) if void is not None else labels_HW
    if places_HW.size and not 0 <= places_HW.min() <= places_HW.max() < len(palette) + (void is not None):
        raise ValueError(f"labels from {labels_HW.min()} to {labels_HW.max()}, but {len(palette)} colours")
    found: ByteArray = colours[places_HW]
    return found


def overlay(
    image_HW3: ByteArray, labels_HW: npt.NDArray[np.integer], palette: Palette, alpha: float = 0.5
) -> ByteArray:
    """Lay the colours of labels over an image, shape (H, W, 3); ``alpha`` is their share.

    Raises:
        ValueError: Image and labels differ in size, or a label has no colour.
    """
    if image_HW3.shape[:2] != labels_HW.shape:
        raise ValueError(f"labels of shape {labels_HW.shape} over an image of shape {image_HW3.shape}")
    mixed = (1 - alpha) * image_HW3.astype(np.float32) + alpha * coloured(labels_HW, palette)
    found: ByteArray = np.rint(mixed).astype(np.uint8)
    return found


def palette_png(labels_HW: npt.NDArray[np.integer], palette: Palette) -> bytes:
    """Encode labels, 0 to 255, as an 8-bit PNG with a palette: pixels are the labels."""
    image = Image.fromarray(labels_HW.astype(np.uint8))
    image.putpalette([part for colour in palette for part in colour])
    stored = io.BytesIO()
    image.save(stored, format="PNG", optimize=False)
    return stored.getvalue()
