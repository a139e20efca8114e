"""Images in a GPU's memory, and batches of them prepared there, bit-equal to those that NumPy prepares.

The draws are NumPy's. Normalisation is looked up in a table of 256 values a channel that ``normalise`` makes: the same
arithmetic on a GPU, with fused multiply-add, rounds otherwise.

Axes: N images, B images of a batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator

import numpy as np
import torch
from torch import Tensor

from ddpnas_ray.data.batches import epoch_draws, epoch_order, normalise
from ddpnas_ray.data.pixels import DecodedImages
from ddpnas_ray.data.split import stratified_batches
from ddpnas_ray.data.values import ImageData, Split
from ddpnas_ray.tasks.base import Batch, DeviceBatches


def resident(
    data: ImageData, device: torch.device, limit_bytes: int, channels_last: bool, latest: DeviceBatches | None
) -> ResidentImages | None:
    """Copy images to a device; see ``PreparesOnDevice``. None too if they are not decoded."""
    splits = (data.train, data.val)
    if not all(isinstance(split.images, DecodedImages) for split in splits):
        return None
    if isinstance(latest, ResidentImages) and latest.holds(data, channels_last):
        return latest
    pixels = sum(_pixels(split).size for split in splits)
    if pixels > limit_bytes:
        return None
    prepared_bytes = 4 * pixels
    return ResidentImages(data, device, channels_last, keep=pixels + prepared_bytes <= limit_bytes)


class ResidentImages:
    """The batches of images on a device.

    Args:
        data: Decoded images.
        device: Where.
        channels_last: Whether batches are NHWC in memory.
        keep: Prepare the batches of an epoch, and those for calibration and validation, once for all architectures.
    """

    def __init__(self, data: ImageData, device: torch.device, channels_last: bool, keep: bool) -> None:
        self._data, self._device, self._channels_last, self._keep = data, device, channels_last, keep
        self._train, self._val = (_Images(split, device) for split in (data.train, data.val))
        levels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(data.channels, axis=1)
        table_CV = normalise(levels, data.mean, data.std).reshape(data.channels, 256)
        self._table = torch.from_numpy(table_CV).to(device).flatten()
        self._channel_C = 256 * torch.arange(data.channels, dtype=torch.int32, device=device)
        self._kept: dict[str, tuple[Hashable, list[tuple[Batch, int]]]] = {}

    def holds(self, data: ImageData, channels_last: bool) -> bool:
        """Return whether these are the batches of a data set, which may be another copy with the same pixels."""
        a, b = self._data, data
        alike = (a.digest, a.augment, a.mean, a.std) == (b.digest, b.augment, b.mean, b.std)
        same = all(_same(x, y) for x, y in ((a.train, b.train), (a.val, b.val)))
        return alike and same and channels_last == self._channels_last

    def training_batches(self, epoch: int, seed: int, batch_size: int) -> Iterator[Batch]:
        """See ``Task``."""
        return self._once("training", (epoch, seed, batch_size), lambda: self._training(epoch, seed, batch_size))

    def calibration_batches(self, examples: int, seed: int, batch_size: int) -> Iterator[Batch]:
        """See ``Task``."""
        labels_N = self._data.train.labels_N

        def make() -> Iterator[Batch]:
            for rows in stratified_batches(labels_N, examples, batch_size, seed=seed):
                yield self._batch(self._train, torch.from_numpy(rows).to(self._device))

        return self._once("calibration", (examples, seed, batch_size), make)

    def validation_batches(self, batch_size: int) -> Iterator[Batch]:
        """See ``Task``."""
        every_N = torch.arange(len(self._data.val), device=self._device)
        return self._once(
            "validation", batch_size, lambda: (self._batch(self._val, rows) for rows in every_N.split(batch_size))
        )

    def _once(self, kind: str, key: Hashable, make: Callable[[], Iterator[Batch]]) -> Iterator[Batch]:
        """Yield batches, and keep them for the next call with the same key, unless a network changes them in place."""
        if not self._keep:
            yield from make()
            return
        if kind not in self._kept or self._kept[kind][0] != key:
            self._kept.pop(kind, None)  # freed before the next ones are made
            self._kept[kind] = (key, [(batch, batch.inputs._version) for batch in make()])
        for batch, version in self._kept[kind][1]:
            if batch.inputs._version != version:
                self._keep, self._kept = False, {}
                yield from self._once(kind, key, make)
                return
        for batch, _ in self._kept[kind][1]:
            yield batch

    def _training(self, epoch: int, seed: int, batch_size: int) -> Iterator[Batch]:
        data = self._data
        drawn = epoch_draws(len(data.train), data.augment, data.image_size, seed, epoch)
        shift_N2, flip_N, hole_N2 = (
            torch.from_numpy(draw).to(self._device) for draw in (drawn.shift_N2, drawn.flip_N, drawn.hole_N2)
        )
        for rows in epoch_order(len(data.train), batch_size, seed, epoch):
            rows_B = torch.from_numpy(rows).to(self._device)
            yield self._batch(self._train, rows_B, (shift_N2[rows_B], flip_N[rows_B], hole_N2[rows_B]))

    def _batch(self, images: _Images, rows_B: Tensor, draws: tuple[Tensor, Tensor, Tensor] | None = None) -> Batch:
        """Return what ``data.batches.training_batch`` does: some images with their draws, or without, normalised."""
        _, height, width, _ = images.pixels_NHWC.shape
        row_H, column_W = (torch.arange(side, device=self._device) for side in (height, width))
        if draws is None:
            bytes_BHWC = images.pixels_NHWC[rows_B]
        else:
            shift_B2, flip_B, _ = draws
            row_BH = row_H + shift_B2[:, :1]
            column_BW = torch.where(flip_B[:, None], column_W.flip(0), column_W) + shift_B2[:, 1:]
            inside_BH, inside_BW = (row_BH >= 0) & (row_BH < height), (column_BW >= 0) & (column_BW < width)
            row_BH, column_BW = row_BH.clamp(0, height - 1), column_BW.clamp(0, width - 1)
            bytes_BHWC = images.pixels_NHWC[rows_B[:, None, None], row_BH[:, :, None], column_BW[:, None, :]]
            bytes_BHWC *= (inside_BH[:, :, None] & inside_BW[:, None, :])[..., None]  # black where uncovered
        index_BHWC = bytes_BHWC.int() + self._channel_C
        found_BHWC = self._table.index_select(0, index_BHWC.flatten()).view(index_BHWC.shape)
        if draws is not None and (side := self._data.augment.cutout):
            first_B2 = draws[2] - side // 2
            row_BH, column_BW = row_H - first_B2[:, :1], column_W - first_B2[:, 1:]
            inside_BH, inside_BW = (row_BH >= 0) & (row_BH < side), (column_BW >= 0) & (column_BW < side)
            found_BHWC.masked_fill_((inside_BH[:, :, None] & inside_BW[:, None, :])[..., None], 0.0)
        inputs = found_BHWC.permute(0, 3, 1, 2)
        if not self._channels_last:
            inputs = torch.empty(inputs.shape, device=self._device).copy_(inputs)
        return Batch(inputs, images.labels_N[rows_B])


class _Images:
    """A split on a device: uint8 pixels, NHWC, and labels."""

    def __init__(self, split: Split, device: torch.device) -> None:
        self.pixels_NHWC = torch.from_numpy(np.array(_pixels(split).transpose(0, 2, 3, 1), order="C")).to(device)
        self.labels_N = torch.from_numpy(np.array(split.labels_N)).to(device)


def _pixels(split: Split) -> np.ndarray:
    assert isinstance(split.images, DecodedImages)  # ``resident`` makes no others
    return split.images.pixels_NCHW


def _same(one: Split, other: Split) -> bool:
    """Return whether splits share their pixels; while the first one lives, nothing else can lie at its address."""
    if not isinstance(other.images, DecodedImages):
        return False
    a, b = _pixels(one), _pixels(other)
    place = (a.ctypes.data, a.shape, a.strides) == (b.ctypes.data, b.shape, b.strides)
    return place and np.array_equal(one.labels_N, other.labels_N)
