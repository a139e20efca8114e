"""Batches of a training epoch: order, augmentation and normalisation, all keyed by seed and epoch only.

Every architecture of an epoch therefore trains on the same pixels in the same order. NumPy only, with no loop over
images: this runs inside the training loop.

Axes: N images (of the data set in draws, of the batch in pixels), C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.core.space import BoolArray, IntArray
from ddpnas_ray.data.decoding import ByteArray
from ddpnas_ray.data.pixels import Images
from ddpnas_ray.data.values import Augment

Float32Array = npt.NDArray[np.float32]

ORDER_KEY = 0x4F524452  # each purpose has its own key, so that one option does not change the draws of others
CROP_KEY = 0x43524F50
FLIP_KEY = 0x464C4950
CUTOUT_KEY = 0x4355544F


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Augmentation of every image of a data set for one epoch.

    Args:
        shift_N2: Row and column shift of the crop window, within -crop..crop, shape (N, 2).
        flip_N: True where the image is mirrored left to right, shape (N,).
        hole_N2: Centre of the erased square, shape (N, 2).
    """

    shift_N2: IntArray
    flip_N: BoolArray
    hole_N2: IntArray


def epoch_order(n: int, batch_size: int, seed: int, epoch: int) -> list[IntArray]:
    """Permute the training images and cut them into batches.

    Args:
        n: Number of training images.
        batch_size: Images per batch.
        seed: Keys the permutation.
        epoch: Keys the permutation.

    Returns:
        Index arrays of length ``batch_size``. An incomplete last batch is dropped, unless it is the only one.

    Example:
        >>> [len(batch) for batch in epoch_order(10, 4, seed=0, epoch=0)]
        [4, 4]
    """
    order_N = rng_for(seed, ORDER_KEY, epoch).permutation(n)
    if n < batch_size:
        return [order_N] if n else []
    return [order_N[start : start + batch_size] for start in range(0, n - batch_size + 1, batch_size)]


def epoch_draws(n: int, augment: Augment, image_size: int, seed: int, epoch: int) -> Draws:
    """Draw the augmentation of every image of a data set for one epoch.

    Example:
        >>> epoch_draws(3, Augment(crop=4, flip=True), 32, seed=0, epoch=0).shift_N2.shape
        (3, 2)
    """
    none_N2 = np.zeros((n, 2), dtype=np.int64)
    crop = augment.crop
    return Draws(
        shift_N2=rng_for(seed, CROP_KEY, epoch).integers(-crop, crop + 1, size=(n, 2)) if crop else none_N2,
        flip_N=rng_for(seed, FLIP_KEY, epoch).random(n) < 0.5 if augment.flip else np.zeros(n, dtype=bool),
        hole_N2=rng_for(seed, CUTOUT_KEY, epoch).integers(image_size, size=(n, 2)) if augment.cutout else none_N2,
    )


def training_batch(
    images: Images,
    indices: IntArray,
    draws: Draws,
    augment: Augment,
    change: Callable[[ByteArray, IntArray], ByteArray] | None = None,
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> Float32Array:
    """Gather, shift, flip, change, normalise and erase: one batch as the network sees it, float32 (N, C, H, W).

    Args:
        images: The data set.
        indices: Images of the batch, shape (N,).
        draws: The epoch's draws.
        augment: What they are for.
        change: Further augmentation: (pixels, indices) -> pixels, uint8 of the same shape.
        mean: C fractions.
        std: C fractions.
    """
    pixels_NCHW = augment_batch(images.gather(indices), indices, draws, augment)
    if change is not None:
        pixels_NCHW = change(pixels_NCHW, indices)
    batch_NCHW = normalise(pixels_NCHW, mean, std)
    erase(batch_NCHW, indices, draws, augment)
    return batch_NCHW


def augment_batch(pixels_NCHW: ByteArray, indices: IntArray, draws: Draws, augment: Augment) -> ByteArray:
    """Shift and flip a batch; erasing comes after normalisation, see :func:`erase`.

    Args:
        pixels_NCHW: The images at ``indices``, uint8; not modified.
        indices: Data-set indices of these images, shape (N,).
        draws: The epoch's draws.
        augment: With ``crop`` and ``flip`` off, the pixels are returned unchanged.

    Returns:
        uint8, shape (N, C, H, W). Pixels uncovered by a shift are 0, black.
    """
    out_NCHW = pixels_NCHW
    crop = augment.crop
    if crop:
        n, channels, height, width = pixels_NCHW.shape
        padded = np.zeros((n, channels, height + 2 * crop, width + 2 * crop), dtype=np.uint8)
        padded[:, :, crop : crop + height, crop : crop + width] = pixels_NCHW
        windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
        start_N2 = draws.shift_N2[indices] + crop
        out_NCHW = windows[np.arange(n), :, start_N2[:, 0], start_N2[:, 1]]
    if augment.flip:
        flip_N = draws.flip_N[indices]
        out_NCHW = out_NCHW if crop else out_NCHW.copy()
        out_NCHW[flip_N] = out_NCHW[flip_N][..., ::-1]
    return out_NCHW


def normalise(pixels_NCHW: ByteArray, mean: Sequence[float], std: Sequence[float]) -> Float32Array:
    """Compute ``(pixels / 255 - mean) / std`` per channel, as one multiplication and one subtraction in float32.

    Args:
        pixels_NCHW: uint8, shape (N, C, H, W).
        mean: C fractions.
        std: C fractions.

    Example:
        >>> normalise(np.array([0, 255], dtype=np.uint8).reshape(1, 1, 1, 2), [0.5], [0.5]).ravel()
        array([-1.,  1.], dtype=float32)
    """
    mean_C, std_C = np.asarray(mean, dtype=np.float64), np.asarray(std, dtype=np.float64)
    out_NCHW = pixels_NCHW.astype(np.float32)
    out_NCHW *= (1 / (255 * std_C)).astype(np.float32)[:, None, None]
    out_NCHW -= (mean_C / std_C).astype(np.float32)[:, None, None]
    return out_NCHW


def erase(batch_NCHW: Float32Array, indices: IntArray, draws: Draws, augment: Augment) -> None:
    """Set a square of each normalised image to 0, the mean, in place; it may cross the border (Cutout).

    Args:
        batch_NCHW: Normalised images; modified in place.
        indices: Data-set indices of these images, shape (N,).
        draws: The epoch's draws.
        augment: ``cutout`` is the square's side; 0 does nothing.
    """
    if not augment.cutout:
        return
    _, _, height, width = batch_NCHW.shape
    first_N2 = draws.hole_N2[indices] - augment.cutout // 2
    row_NH, column_NW = (np.arange(side) - first_N2[:, axis, None] for axis, side in enumerate((height, width)))
    inside_NH = (row_NH >= 0) & (row_NH < augment.cutout)
    inside_NW = (column_NW >= 0) & (column_NW < augment.cutout)
    np.copyto(batch_NCHW, np.float32(0), where=(inside_NH[:, :, None] & inside_NW[:, None, :])[:, None])
