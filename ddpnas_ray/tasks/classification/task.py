"""Image classification into C classes.

Axes: N images, C classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ddpnas_ray.core.space import IntArray
from ddpnas_ray.data.batches import epoch_draws, epoch_order, normalise, training_batch
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.images import load_data
from ddpnas_ray.data.pixels import DecodedImages
from ddpnas_ray.data.split import stratified_batches
from ddpnas_ray.data.values import ImageData, Split
from ddpnas_ray.spaces.target import Inputs
from ddpnas_ray.tasks.base import Batch, Metric, find_metric

if TYPE_CHECKING:
    from torch import Tensor


def make(data: DataConfig, seed: int, *, metric: str = "accuracy") -> ClassificationTask:
    """Make the task of a configuration.

    Args:
        data: Names the images.
        seed: Keys the split.
        metric: Validation metric: accuracy, balanced_accuracy, or your own module:function.

    Raises:
        BadInput: The data are not what the configuration says, or there is no such metric.
    """
    found = find_metric(metric)  # fails before the data are read
    return ClassificationTask(load_data(data, seed), found)


@dataclass(frozen=True)
class ClassificationTask:
    """Cross-entropy on images augmented by shift, flip and cutout.

    Args:
        data: Training and validation images.
        metric: Validation metric.
    """

    data: ImageData
    metric: Metric

    @property
    def name(self) -> str:
        """``data.name``."""
        return self.data.name

    @property
    def inputs(self) -> Inputs:
        """Image shape, and one output per class."""
        size = self.data.image_size
        return Inputs(shape=(self.data.channels, size, size), outputs=len(self.data.classes))

    @property
    def digest(self) -> str:
        """See ``ImageData``."""
        return self.data.digest

    @property
    def train_examples(self) -> int:
        """Number of training images."""
        return len(self.data.train)

    @property
    def val_examples(self) -> int:
        """Number of validation images."""
        return len(self.data.val)

    def training_batches(self, epoch: int, seed: int, batch_size: int) -> Iterator[Batch]:
        """See ``Task``: order and augmentation are keyed by seed and epoch."""
        data = self.data
        draws = epoch_draws(len(data.train), data.augment, data.image_size, seed, epoch)
        for rows in epoch_order(len(data.train), batch_size, seed, epoch):
            pixels = training_batch(data.train.images, rows, draws, data.augment, mean=data.mean, std=data.std)
            yield _batch(pixels, data.train, rows)

    def calibration_batches(self, examples: int, seed: int, batch_size: int) -> Iterator[Batch]:
        """See ``Task``: every batch holds the classes in proportion."""
        for rows in stratified_batches(self.data.train.labels_N, examples, batch_size, seed=seed):
            yield self._plain(self.data.train, rows)

    def validation_batches(self, batch_size: int) -> Iterator[Batch]:
        """See ``Task``."""
        n = len(self.data.val)
        for start in range(0, n, batch_size):
            yield self._plain(self.data.val, np.arange(start, min(start + batch_size, n)))

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs, batch.targets)

    def chance(self) -> float:
        """Return the score of always predicting the most frequent class."""
        import torch

        labels_N = torch.from_numpy(self.data.val.labels_N)
        constant = torch.zeros(len(labels_N), len(self.data.classes))
        constant[:, labels_N.bincount().argmax()] = 1.0
        return self.metric.score([(constant, labels_N)])

    def excerpt(self, examples: int, seed: int) -> ClassificationTask:
        """See ``Task``: a stratified draw, decoded."""
        train, val = (_excerpt(split, examples, seed) for split in (self.data.train, self.data.val))
        return dataclasses.replace(self, data=dataclasses.replace(self.data, train=train, val=val))

    def _plain(self, split: Split, rows: IntArray) -> Batch:
        return _batch(normalise(split.images.gather(rows), self.data.mean, self.data.std), split, rows)


def _batch(pixels_NCHW: np.ndarray, split: Split, rows: IntArray) -> Batch:
    import torch

    return Batch(torch.from_numpy(pixels_NCHW), torch.from_numpy(split.labels_N[rows]))


def _excerpt(split: Split, examples: int, seed: int) -> Split:
    (rows,) = stratified_batches(split.labels_N, examples, examples, seed=seed)
    return Split(DecodedImages(split.images.gather(rows)), split.labels_N[rows])
