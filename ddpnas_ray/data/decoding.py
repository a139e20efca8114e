"""From what a data set stores (encoded bytes, a file, an array) to pixels of one shape.

Axes: C channels, H height, W width. Pixels are uint8, 0 to 255.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ddpnas_ray.core.errors import DataError

ByteArray: TypeAlias = npt.NDArray[np.uint8]
ImageSource: TypeAlias = bytes | str | Path | ByteArray
"""Encoded bytes, the path of a file, or pixels of shape (H, W) or (H, W, 3)."""

GREY_MODES = ("1", "L", "LA", "La")
DEEP_MODES = ("I", "F")  # and I;16 and its kin: more than 8 bits a channel, which Pillow would clip rather than scale
EXIF_ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_source(source: ImageSource, name: str) -> bytes | ByteArray:
    """What is stored of an image, read from its file where it is one.

    Raises:
        DataError: The file cannot be read.
    """
    if not isinstance(source, str | Path):
        return source
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or error})") from None


def open_image(stored: bytes | ByteArray, name: str, *, load: bool = True) -> Image.Image:
    """Open an image and turn it upright where its EXIF data says so.

    Args:
        stored: Encoded bytes, or pixels of shape (H, W) or (H, W, 3).
        name: What to call it in an error.
        load: False reads the header only: enough for :func:`native_shape`.

    Raises:
        DataError: Not an image, damaged, or with more than 8 bits a channel.
    """
    if not isinstance(stored, bytes):
        return Image.fromarray(stored)
    try:
        image: Image.Image = Image.open(io.BytesIO(stored))
        if load:
            image.load()
    except UnidentifiedImageError:
        raise DataError(f"{name}: not an image that Pillow can read ({len(stored)} bytes)") from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, zlib.error, ...
        raise DataError(f"{name}: damaged image ({' '.join(str(error).split())})") from None
    if image.mode.partition(";")[0] in DEEP_MODES:
        raise DataError(f"{name}: image of mode {image.mode!r}, more than 8 bits a channel; convert it to 8 bits first")
    if load and (turn := UPRIGHT.get(_orientation(image))) is not None:
        image = image.transpose(turn)
        image.info.pop("exif", None)
    return image


def native_shape(image: Image.Image) -> tuple[int, int, int]:
    """(channels, height, width) of the upright image as it is: 1 channel for grey modes, 3 for everything else.

    Example:
        >>> native_shape(Image.new("RGBA", (64, 48)))
        (3, 48, 64)
    """
    width, height = reversed(image.size) if _orientation(image) >= 5 else image.size
    return 1 if image.mode in GREY_MODES else 3, height, width


def fit_image(image: Image.Image, *, channels: int, image_size: int) -> ByteArray:
    """Convert to grey or RGB, resize the shorter side with antialiasing, crop the centre.

    Transparency is dropped, not blended, as torchvision and Hugging Face do.

    Returns:
        Pixels of shape (channels, image_size, image_size).

    Example:
        >>> fit_image(Image.new("RGB", (64, 48)), channels=1, image_size=32).shape
        (1, 32, 32)
    """
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # by way of RGBA, or Pillow warns about transparent palettes
    mode = "L" if channels == 1 else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    width, height = image.size
    if (width, height) != (image_size, image_size):
        shorter = min(width, height)
        width, height = round(width * image_size / shorter), round(height * image_size / shorter)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - image_size) // 2, (height - image_size) // 2
        image = image.crop((left, top, left + image_size, top + image_size))
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def source_name(sources: Sequence[ImageSource], names: Sequence[str] | None, index: int) -> str:
    """What to call an image in an error: its name, else its path, else its number."""
    if names is not None:
        return names[index]
    source = sources[index]
    return str(source) if isinstance(source, str | Path) else f"image {index}"


def _orientation(image: Image.Image) -> int:
    if "exif" not in image.info:
        return 1
    try:
        return int(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:  # a damaged EXIF block does not damage the picture
        return 1
