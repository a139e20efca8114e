"""Single pass over a split's images when a data set is opened: hash, check the shape, decode if pixels are kept.

Axes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.data.decoding import ImageSource, fit_image, native_shape, open_image, read_source, source_name
from ddpnas_ray.data.pixels import DecodedImages, EncodedImages, Images, in_chunks
from ddpnas_ray.data.problems import Problems

logger = logging.getLogger(__name__)

CHUNK = 256  # images per task
PROGRESS_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Target shape of all images of a data set.

    Args:
        channels: 1 or 3.
        image_size: Side in pixels.
        convert_channels: The configuration sets the channels: other images are converted, not refused.
        resize: The configuration sets the size: other images are resized, not refused.
    """

    channels: int
    image_size: int
    convert_channels: bool
    resize: bool


def shape_of(source: ImageSource, name: str, *, channels: int | None, image_size: int | None) -> Shape:
    """Return the configured shape, else that of the first training image (``source``)."""
    native_channels, height, width = native_shape(open_image(read_source(source, name), name, load=False))
    return Shape(
        channels=native_channels if channels is None else channels,
        image_size=min(height, width) if image_size is None else image_size,
        convert_channels=channels is not None,
        resize=image_size is not None,
    )


def scan(
    sources: Sequence[ImageSource],
    names: Sequence[str] | None,
    *,
    shape: Shape,
    decode: bool,
    what: str,
    problems: Problems,
) -> tuple[Images, bytes]:
    """Read every image once.

    Args:
        sources: The N images.
        names: Names of the images in errors.
        shape: Target shape.
        decode: Keep pixels; otherwise only headers are read, and images are decoded on access.
        what: "training", "validation" or "test", for errors and progress.
        problems: Receives damaged images, and shapes that differ although the configuration sets neither channels nor
            size. If there are any, the returned values are invalid.

    Returns:
        The images, and the concatenated SHA-256 digests of the stored images (32 bytes each).
    """
    count = len(sources)
    side = shape.image_size
    pixels_NCHW = np.empty((count, shape.channels, side, side), dtype=np.uint8) if decode else None
    natives = np.zeros((count, 3), dtype=np.int64)  # stays zero for damaged images

    def read(i: int) -> bytes:
        name = source_name(sources, names, i)
        stored = read_source(sources[i], name)
        image = open_image(stored, name, load=decode)
        natives[i] = native_shape(image)
        if pixels_NCHW is not None:
            pixels_NCHW[i] = fit_image(image, channels=shape.channels, image_size=side)
        return hashlib.sha256(stored if isinstance(stored, bytes) else stored.tobytes()).digest()

    def work(start: int, stop: int) -> tuple[bytes, Problems]:
        digests, damaged = bytearray(), Problems()
        for i in range(start, stop):
            with damaged.collecting():
                digests += read(i)
        return bytes(digests), damaged

    digests, damaged = bytearray(), Problems()
    done, started, reported = 0, time.monotonic(), time.monotonic()
    for part, bad in in_chunks(work, count, chunk=CHUNK):
        digests += part
        damaged.extend(bad)
        done = min(done + CHUNK, count)
        if time.monotonic() - reported > PROGRESS_S:
            reported = time.monotonic()
            logger.info("%s images: %d of %d read in %.0f s", what, done, count, reported - started)
    check_shapes(natives, shape, what, problems)  # first: there may be many damaged images
    problems.extend(damaged)
    if pixels_NCHW is not None:
        return DecodedImages(pixels_NCHW), bytes(digests)
    return EncodedImages(sources, shape.channels, side, names), bytes(digests)


def check_shapes(natives: IntArray, shape: Shape, what: str, problems: Problems) -> None:
    """Add to the problems if images differ in channels or size, and the configuration sets neither.

    Args:
        natives: Channels, height and width of each image, shape (N, 3); zero for damaged ones.
        shape: Target shape.
        what: As for ``scan``.
        problems: Receives the differences.
    """
    readable = natives[natives[:, 0] > 0]
    for check in (_check_channels, _check_sizes):
        with problems.collecting():
            check(readable, shape, what)


def _check_channels(natives: IntArray, shape: Shape, what: str) -> None:
    found = Counter(natives[:, 0].tolist())
    if shape.convert_channels or set(found) <= {shape.channels}:
        return
    if len(found) == 1:
        raise DataError(
            f"{what} images have {min(found)} channel(s), training images {shape.channels}; "
            "set data.channels=1 or data.channels=3 to convert both"
        )
    raise DataError(
        f"{what} images mix {found[1]} grey and {found[3]} colour images; set data.channels=1 or data.channels=3"
    )


def _check_sizes(natives: IntArray, shape: Shape, what: str) -> None:
    found = Counter((width, height) for _, height, width in natives.tolist())
    side = shape.image_size
    if shape.resize or set(found) <= {(side, side)}:
        return
    common = found.most_common(4)
    if len(found) > 1:
        given = "have several sizes: " + ", ".join(f"{width}x{height} ({n} images)" for (width, height), n in common)
        given += f" and {len(found) - 4} more sizes" if len(found) > 4 else ""
    else:
        given = f"are {common[0][0][0]}x{common[0][0][1]}"
    expected = "not square" if what == "training" and len(found) == 1 else f"not all {side}x{side}"
    raise DataError(f"{what} images {given}, {expected}; set data.image_size={min(common[0][0])} to resize them")
