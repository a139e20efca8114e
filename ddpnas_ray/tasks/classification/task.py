"""Image classification into C classes.

Axes: N images, C classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ddpnas_ray.core.errors import ConfigError, DataError
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.data.batches import epoch_draws, epoch_order, normalise, training_batch
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.images import load_data, load_test
from ddpnas_ray.data.pixels import DecodedImages, JoinedImages
from ddpnas_ray.data.split import stratified_batches
from ddpnas_ray.data.values import ImageData, Split
from ddpnas_ray.spaces.target import Inputs
from ddpnas_ray.tasks.base import Batch, Metric, find_metric
from ddpnas_ray.tasks.recipe import RetrainingConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ddpnas_ray.tasks.base import DeviceBatches


def make(data: DataConfig, seed: int, *, metric: str = "accuracy") -> ClassificationTask:
    """Make the task of a configuration.

    Args:
        data: Names the images.
        seed: Keys the split.
        metric: Validation metric: accuracy, balanced_accuracy, likelihood, or your own module:function.

    Raises:
        BadInput: The data are not what the configuration says, or there is no such metric.
    """
    found = find_metric(metric)  # fails before the data are read
    return ClassificationTask(load_data(data, seed), found, data)


@dataclass(frozen=True)
class ClassificationTask:
    """Cross-entropy on images augmented by shift, flip and cutout.

    Args:
        data: Training and validation images.
        metric: Validation metric.
        source: Where the data were read, for the test images; None: there are none.
        recipe: Augmentation and label smoothing of a retraining; None: of a search.
    """

    data: ImageData
    metric: Metric
    source: DataConfig | None = None
    recipe: RetrainingConfig | None = None

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

    def training_batches(
        self, epoch: int, seed: int, batch_size: int, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """See ``Task``: order and augmentation are keyed by seed and epoch."""
        data, change, mix = self.data, None, None
        if self.recipe is not None:
            from ddpnas_ray.tasks.classification.augment import image_changes, mixing

            change = image_changes(self.recipe, data, seed, epoch)
            mix = mixing(self.recipe, len(data.classes), seed, epoch, rank)
        draws = epoch_draws(len(data.train), data.augment, data.image_size, seed, epoch)
        for step, rows in enumerate(epoch_order(len(data.train), batch_size, seed, epoch)):
            mine = rows[rank::world]
            pixels = training_batch(data.train.images, mine, draws, data.augment, change, mean=data.mean, std=data.std)
            batch = _batch(pixels, data.train, mine)
            yield batch if mix is None else mix(batch, step)

    def calibration_batches(self, examples: int, seed: int, batch_size: int) -> Iterator[Batch]:
        """See ``Task``: every batch holds the classes in proportion."""
        for rows in stratified_batches(self.data.train.labels_N, examples, batch_size, seed=seed):
            yield self._plain(self.data.train, rows)

    def validation_batches(self, batch_size: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """See ``Task``."""
        n = len(self.data.val)
        for start in range(rank * batch_size, n, world * batch_size):
            yield self._plain(self.data.val, np.arange(start, min(start + batch_size, n)))

    def on_device(
        self, device: torch.device, limit_bytes: int, channels_last: bool, latest: DeviceBatches | None
    ) -> DeviceBatches | None:
        """See ``PreparesOnDevice``; not for subclasses, whose batches may be others, nor with a retraining's recipe."""
        if type(self) is not ClassificationTask or self.recipe is not None:
            return None
        from ddpnas_ray.tasks.classification.resident import resident

        return resident(self.data, device, limit_bytes, channels_last, latest)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy, with a retraining's label smoothing."""
        from torch.nn.functional import cross_entropy

        smoothing = self.recipe.label_smoothing if self.recipe is not None else 0.0
        return cross_entropy(outputs, batch.targets, label_smoothing=smoothing)

    def chance(self) -> float:
        """Return the score of constant outputs, the logarithms of the classes' frequencies: the most frequent class
        is always first, and no constant has a higher likelihood."""
        import torch

        labels_N = torch.from_numpy(self.data.val.labels_N)
        share_C = labels_N.bincount(minlength=len(self.data.classes)) / len(labels_N)
        constant_C = share_C.clamp_min(1e-30).log()  # finite for classes that do not occur
        return self.metric.score([(constant_C.repeat(len(labels_N), 1), labels_N)])

    def excerpt(self, examples: int, seed: int) -> ClassificationTask:
        """See ``Task``: a stratified draw, decoded."""
        train, val = (_excerpt(split, examples, seed) for split in (self.data.train, self.data.val))
        return dataclasses.replace(self, data=dataclasses.replace(self.data, train=train, val=val))

    def for_retraining(self, recipe: RetrainingConfig) -> ClassificationTask:
        """See ``Task``."""
        data, augment = self.data, self.data.augment
        if recipe.cutout is not None:
            if recipe.cutout >= data.image_size:
                raise ConfigError(
                    f"retraining.cutout={recipe.cutout} could blank whole images of {data.image_size} pixels; set it "
                    f"below {data.image_size}"
                )
            augment = dataclasses.replace(augment, cutout=recipe.cutout)
        if recipe.resized_crop is not None:
            augment = dataclasses.replace(augment, crop=0)
        train, val = data.train, data.val
        if recipe.train_on == "all":
            train = Split(JoinedImages(train.images, val.images), np.concatenate([train.labels_N, val.labels_N]))
            val = Split(DecodedImages(val.images.gather([])), val.labels_N[:0])
        data = dataclasses.replace(data, train=train, val=val, augment=augment)
        return dataclasses.replace(self, data=data, recipe=recipe)

    def on_test(self) -> ClassificationTask:
        """See ``Task``: the only place that reads test images."""
        if self.source is None:
            raise DataError("the task was made without the source of its data, so there are no test images")
        return dataclasses.replace(self, data=dataclasses.replace(self.data, val=load_test(self.source)))

    def preprocessing(self) -> dict[str, Any]:
        """See ``Deploys``."""
        data = self.data
        return {
            "kind": "images",
            "classes": data.classes,
            "channels": data.channels,
            "image_size": data.image_size,
            "mean": data.mean,
            "std": data.std,
        }

    def prepared(self, examples: int) -> tuple[np.ndarray, ...]:
        """See ``Deploys``: stratified."""
        (rows,) = stratified_batches(self.data.val.labels_N, examples, examples, seed=0)
        return (normalise(self.data.val.images.gather(rows), self.data.mean, self.data.std),)

    def _plain(self, split: Split, rows: IntArray) -> Batch:
        return _batch(normalise(split.images.gather(rows), self.data.mean, self.data.std), split, rows)


def _batch(pixels_NCHW: np.ndarray, split: Split, rows: IntArray) -> Batch:
    import torch

    return Batch(torch.from_numpy(pixels_NCHW), torch.from_numpy(split.labels_N[rows]))


def _excerpt(split: Split, examples: int, seed: int) -> Split:
    (rows,) = stratified_batches(split.labels_N, examples, examples, seed=seed)
    return Split(DecodedImages(split.images.gather(rows)), split.labels_N[rows])
