"""Decode stored images (encoded bytes, files, arrays) into pixels of one shape.

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

DECODING = 1  # raised by every change that alters pixels, so that caches of images are not mixed
GREY_MODES = ("1", "L", "LA", "La")
DEEP_MODES = ("I", "F")  # and I;16 and the like: more than 8 bits per channel, which Pillow clips instead of scaling
LONGEST = 32  # times the shorter side; of longer strips only the centre is resized, or they would take gigabytes
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
    """Return the stored bytes or pixels of an image; reads the file if the source is a path.

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
    """Open an image and apply its EXIF orientation.

    Args:
        stored: Encoded bytes, or pixels of shape (H, W) or (H, W, 3).
        name: Name used in errors.
        load: False reads the header only: enough for :func:`native_shape`.

    Raises:
        DataError: Not an image, damaged, or more than 8 bits per channel.
    """
    if not isinstance(stored, bytes):
        return Image.fromarray(stored)
    image = decoded(stored, name, load=load)
    if image.mode.partition(";")[0] in DEEP_MODES:
        raise DataError(f"{name}: image mode {image.mode!r} has more than 8 bits per channel; convert it to 8 bits")
    if load and (turn := UPRIGHT.get(_orientation(image))) is not None:
        image = image.transpose(turn)
        image.info.pop("exif", None)
    return image


def native_shape(image: Image.Image) -> tuple[int, int, int]:
    """Return (channels, height, width) of the upright image: 1 channel for grey modes, 3 otherwise.

    Example:
        >>> native_shape(Image.new("RGBA", (64, 48)))
        (3, 48, 64)
    """
    width, height = reversed(image.size) if _orientation(image) >= 5 else image.size
    return 1 if image.mode in GREY_MODES else 3, height, width


def fit_image(image: Image.Image, *, channels: int, image_size: int) -> ByteArray:
    """Convert to grey or RGB, resize the shorter side with antialiasing, crop the centre.

    Transparency is dropped, not blended, as in torchvision and Hugging Face.

    Returns:
        Pixels of shape (channels, image_size, image_size).

    Example:
        >>> fit_image(Image.new("RGB", (64, 48)), channels=1, image_size=32).shape
        (1, 32, 32)
    """
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # via RGBA, or Pillow warns about transparent palettes
    mode = "L" if channels == 1 else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    width, height = image.size
    if (width, height) != (image_size, image_size):
        shorter = min(width, height)
        if max(width, height) > LONGEST * shorter:
            image = _centre(image, min(width, LONGEST * shorter), min(height, LONGEST * shorter))
            width, height = image.size
        width, height = round(width * image_size / shorter), round(height * image_size / shorter)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        image = _centre(image, image_size, image_size)
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def source_name(sources: Sequence[ImageSource], names: Sequence[str] | None, index: int) -> str:
    """Name of an image in errors: its given name, else its path, else its number."""
    if names is not None:
        return names[index]
    source = sources[index]
    return str(source) if isinstance(source, str | Path) else f"image {index}"


def _centre(image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _orientation(image: Image.Image) -> int:
    if "exif" not in image.info:
        return 1
    try:
        return int(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:  # a damaged EXIF block leaves the pixels intact
        return 1


def decoded(stored: bytes, name: str, *, load: bool = True, what: str = "image") -> Image.Image:
    """Open the bytes of an image file as they are, neither turned nor converted.

    Args:
        stored: The file's content.
        name: Its name in errors.
        load: Decode the pixels too, not only the header.
        what: The word for it in errors.

    Raises:
        DataError: Not an image, or damaged.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(stored))
        if load:
            image.load()
    except UnidentifiedImageError:
        raise DataError(f"{name}: not an image that Pillow can read ({len(stored)} bytes)") from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, zlib.error, ...
        raise DataError(f"{name}: damaged {what} ({' '.join(str(error).split())})") from None
    return image
