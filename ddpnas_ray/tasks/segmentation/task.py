"""The class of every pixel of an image.

Axes: N images, B images of a batch, C classes, H height, W width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt, Le, Lt

from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.core.plugins import Place
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.data.batches import epoch_order, normalise
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.decoding import ByteArray
from ddpnas_ray.data.split import stratified_batches
from ddpnas_ray.spaces.target import Head, Inputs
from ddpnas_ray.tasks.base import METRICS, Batch, Illustrations, Metric, find_metric
from ddpnas_ray.tasks.recipe import RetrainingConfig
from ddpnas_ray.tasks.segmentation.masks import VOID
from ddpnas_ray.tasks.segmentation.pairs import Split
from ddpnas_ray.tasks.segmentation.reading import MaskData, load, load_test
from ddpnas_ray.tasks.segmentation.scoring import class_weights, divergence, pixel_loss, predicted
from ddpnas_ray.tasks.segmentation.sources import Source, find_source

if TYPE_CHECKING:
    from torch import Tensor

    from ddpnas_ray.tasks.segmentation.augment import Changes

DATA_SETS = ("cityscapes", "camvid")  # see ``tasks.base.own_data_sets``
COUNTED = ("miou", "f1", "matthews")  # metrics that need no more than the counts of classes

Side = Annotated[int, Ge(1), Le(2**15)]
Factor = Annotated[float, Gt(0.0), Le(16.0)]


def make(
    data: DataConfig,
    seed: int,
    *,
    masks: Annotated[str | None, Place()] = None,
    val_masks: Annotated[str | None, Place()] = None,
    test_masks: Annotated[str | None, Place()] = None,
    classes: tuple[str, ...] = (),
    void: Annotated[int, Ge(-1), Lt(2**16)] | None = None,
    size: tuple[Side, Side] | None = None,
    crop: tuple[Side, Side] | None = None,
    scale: tuple[Factor, Factor] = (0.5, 2.0),
    color: Annotated[float, Ge(0.0), Le(1.0)] = 0.0,
    weights: Literal["none", "inverse"] = "none",
    ohem: Annotated[float, Ge(0.0), Lt(1.0)] = 0.0,
    head: Literal["aspp", "decoder", "lraspp"] = "aspp",
    head_width: Annotated[int, Ge(1), Le(4096)] = 64,
    output_stride: Literal[8, 16, 32] = 16,
    metric: str = "miou",
    window: tuple[Side, Side] | None = None,
    flips: bool = False,
) -> SegmentationTask:
    """Make the task of a configuration.

    Args:
        data: Names the images: cityscapes, camvid, parquet or folder.
        seed: Keys the split.
        masks: Folder of the masks of ``data.path``, of folders of your own; names are matched.
        val_masks: That of ``data.val_path``.
        test_masks: That of ``data.test_path``.
        classes: Names of the classes of your own data, whose ids are 0, 1, ...; empty: every id of the training masks
            is a class.
        void: Id of pixels of your own data that count nowhere; None: 255; -1: none.
        size: Height and width to which images and masks are resized; None: images must all have one size.
        crop: Height and width of what is trained on; None: as the image.
        scale: Least and largest random factor of the size of training images.
        color: Strength of random changes of their colours.
        weights: inverse: classes weigh by the inverse of their share of the training pixels (``class_weights``).
        ohem: Share of an image's pixels, the hardest ones, that are trained on; 0: all.
        head: The network's head.
        head_width: Its channels.
        output_stride: Pixels of the image per pixel of the last feature map.
        metric: Validation metric: miou, f1, matthews, or your own module:function of counts by true and found class.
        window: Height and width of the windows in which images are evaluated; None: whole.
        flips: Whether they are evaluated mirrored too.

    Raises:
        BadInput: The data are not what the configuration says, or there is no such metric.
    """
    if metric in METRICS.names() and metric not in COUNTED:
        raise ConfigError(
            f"task.metric: {metric} is not for the classes of pixels; choose {', '.join(COUNTED)}, or your own "
            "module:function"
        )
    found = find_metric(metric)  # fails before the data are read
    if scale[0] > scale[1]:
        raise ConfigError(f"task.scale is [{scale[0]:g}, {scale[1]:g}]; give the least factor first")
    mean, std = (_per_channel(getattr(data, key), key) for key in ("mean", "std"))
    source = find_source(
        Source(data=data, masks=masks, val_masks=val_masks, test_masks=test_masks, classes=classes, void=void)
    )
    opened = load(source, seed, size)
    options = Options(
        mean=mean,
        std=std,
        crop=crop,
        scale=(float(scale[0]), float(scale[1])),
        flip=True if data.flip is None else data.flip,
        color=color,
        weights=None if weights == "none" else class_weights(opened.train.counts_NC.sum(axis=0)),
        ohem=ohem,
        head=Head(name=head, width=head_width, output_stride=output_stride),
        window=window,
        flips=flips,
    )
    return SegmentationTask(opened, found, options, source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How networks are built, trained and evaluated; see ``make``.

    Args:
        mean: Subtracted from pixel fractions, for red, green and blue.
        std: Divides them afterwards.
        crop: See ``make``.
        scale: See ``make``.
        flip: Whether training images are mirrored at random.
        color: See ``make``.
        weights: Weight of each class in the loss; None: 1.
        ohem: See ``make``.
        head: The network's head.
        window: See ``make``.
        flips: See ``make``.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: tuple[int, int] | None
    scale: tuple[float, float]
    flip: bool
    color: float
    weights: tuple[float, ...] | None
    ohem: float
    head: Head
    window: tuple[int, int] | None
    flips: bool


@dataclass(frozen=True)
class SegmentationTask:
    """Cross-entropy of pixels, scored by counts of true and found classes.

    Args:
        data: Training and validation images with masks.
        metric: Validation metric, of counts.
        options: How networks are built, trained and evaluated.
        source: Where the data were read, for the test images.
        recipe: Augmentation and label smoothing of a retraining; None: of a search.
    """

    data: MaskData
    metric: Metric
    options: Options
    source: Source
    recipe: RetrainingConfig | None = None

    @property
    def name(self) -> str:
        """``data.name``."""
        return self.source.data.name

    @property
    def inputs(self) -> Inputs:
        """The shape of a whole image, and outputs of every pixel, one per class."""
        return Inputs(shape=(3, *self.data.size), outputs=len(self.classes), head=self.options.head)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        return self.data.labelling.classes

    @property
    def digest(self) -> str:
        """See ``MaskData``."""
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
        from ddpnas_ray.tasks.segmentation.augment import changes_of

        train, mean = self.data.train, self.options.mean
        change = changes_of(self._changes(), self.data.size, mean, len(train), seed, epoch)
        for rows in epoch_order(len(train), batch_size, seed, epoch):
            mine = rows[rank::world]
            yield self._batch(*change(*train.pairs.gather(mine), mine))

    def calibration_batches(self, examples: int, seed: int, batch_size: int) -> Iterator[Batch]:
        """See ``Task``: whole images."""
        for rows in _draws(self.data.train, examples, batch_size, seed):
            yield self._batch(*self.data.train.pairs.gather(rows))

    def validation_batches(self, batch_size: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """See ``Task``: whole images."""
        n = len(self.data.val)
        for start in range(rank * batch_size, n, world * batch_size):
            yield self._batch(*self.data.val.pairs.gather(np.arange(start, min(start + batch_size, n))))

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """See ``pixel_loss``."""
        smoothing = 0.0 if self.recipe is None else self.recipe.label_smoothing
        return pixel_loss(
            outputs, batch.targets, weights=self.options.weights, hardest=self.options.ohem, smoothing=smoothing
        )

    def distillation_loss(self, outputs: Tensor, taught: Tensor, batch: Batch, temperature: float) -> Tensor:
        """See ``divergence``."""
        return divergence(outputs, taught, temperature)

    def predict(self, network: Callable[[Any], Tensor], inputs: Any) -> Tensor:
        """See ``Predicts``: whole or in windows, and mirrored too with ``task.flips``."""
        options = self.options
        return predicted(network, inputs, window=options.window, flips=options.flips, outputs=len(self.classes))

    def compact(self, outputs: Tensor, targets: Any) -> tuple[Tensor, Any]:
        """See ``Compacts``: pixels by true and by found class, shape (C, C), and their number."""
        from ddpnas_ray.metrics.matthews import counted

        counts_CC = counted(outputs, targets).cpu()
        return counts_CC, counts_CC.sum()

    def scores_by_task(self, outputs: Sequence[tuple[Tensor, Any]]) -> dict[str, float]:
        """See ``ScoresTasks``: intersection over union of every class that occurs or was found."""
        from ddpnas_ray.metrics.matthews import confusion
        from ddpnas_ray.metrics.miou import by_class

        return {self.classes[i]: score for i, score in by_class(confusion(outputs)).items()}

    def illustrate(self, network: Callable[[Any], Tensor], outputs: Sequence[tuple[Tensor, Any]]) -> Illustrations:
        """See ``Illustrates``: six images with overlays, and the pixels by true and by found class."""
        from ddpnas_ray.metrics.matthews import confusion, counted
        from ddpnas_ray.tasks.segmentation.pictures import side_by_side

        pictures = side_by_side(
            self.data.val,
            lambda inputs: self.predict(network, inputs),
            counted,
            classes=self.classes,
            palette=self.data.palette,
            mean=self.options.mean,
            std=self.options.std,
        )
        return Illustrations(pictures, confusion(outputs).tolist(), self.classes)

    def chance(self) -> float:
        """Return the score of one class everywhere: the best."""
        import torch

        counts_C = torch.from_numpy(self.data.val.counts_NC.sum(axis=0))
        found = []
        for i in range(len(counts_C)):
            counts_CC = torch.zeros((len(counts_C), len(counts_C)), dtype=torch.int64)
            counts_CC[:, i] = counts_C
            found.append(float(self.metric.score([(counts_CC, counts_C.sum())])))
        return max(found)

    def excerpt(self, examples: int, seed: int) -> SegmentationTask:
        """See ``Task``: a draw."""
        train, val = (
            split.picked(_draws(split, examples, examples, seed)[0]) for split in (self.data.train, self.data.val)
        )
        return dataclasses.replace(self, data=dataclasses.replace(self.data, train=train, val=val))

    def for_retraining(self, recipe: RetrainingConfig) -> SegmentationTask:
        """See ``Task``."""
        plain = RetrainingConfig()
        for key in ("cutout", "randaugment", "resized_crop", "mixup", "cutmix"):
            if (value := getattr(recipe, key)) != (none := getattr(plain, key)):
                raise ConfigError(
                    f"retraining.{key} is {value}, which does not change masks with their images; set it to "
                    f"{none or 'null'} (task.scale, task.crop and task.color do)"
                )
        data = self.data
        if recipe.train_on == "all":
            nothing = data.val.picked(np.arange(0))
            data = dataclasses.replace(data, train=data.train.joined(data.val), val=nothing)
        return dataclasses.replace(self, data=data, recipe=recipe)

    def on_test(self) -> SegmentationTask:
        """See ``Task``: the only place that reads test images."""
        test = load_test(self.source, self.data.labelling, self.data.size)
        return dataclasses.replace(self, data=dataclasses.replace(self.data, val=test))

    def preprocessing(self) -> dict[str, Any]:
        """See ``Deploys``."""
        height, width = self.data.size
        void = self.data.labelling.void
        return {
            "kind": "masks",
            "hub_task": "image-segmentation",
            "classes": self.classes,
            "channels": 3,
            "height": height,
            "width": width,
            "mean": self.options.mean,
            "std": self.options.std,
            "void": VOID if void is None or void < len(self.classes) else void,
            "palette": self.data.palette,
            "ids": self.data.labelling.ids,
            "void_ids": None if self.data.labelling.lenient else [] if void is None else [void],
        }

    def prepared(self, examples: int) -> tuple[np.ndarray, ...]:
        """See ``Deploys``: a draw."""
        (rows,) = _draws(self.data.val, examples, examples, 0)
        return (normalise(self.data.val.pairs.gather(rows)[0], self.options.mean, self.options.std),)

    def _changes(self) -> Changes:
        from ddpnas_ray.tasks.segmentation.augment import Changes

        options = self.options
        color = options.color if self.recipe is None else self.recipe.color_jitter or options.color
        return Changes(crop=options.crop, scale=options.scale, flip=options.flip, color=color)

    def _batch(self, pixels_B3HW: ByteArray, labels_BHW: ByteArray) -> Batch:
        import torch

        inputs = normalise(pixels_B3HW, self.options.mean, self.options.std)
        return Batch(torch.from_numpy(inputs), torch.from_numpy(labels_BHW.astype(np.int64)))


def _draws(split: Split, images: int, batch_size: int, seed: int) -> list[IntArray]:
    """Draw images at random, in batches of equal size; an image has no class by which to stratify."""
    return stratified_batches(np.zeros(len(split), dtype=np.int64), images, batch_size, seed=seed)


def _per_channel(values: tuple[float, ...] | None, key: str) -> tuple[float, ...]:
    values = (0.5,) if values is None else values
    if len(values) not in (1, 3):
        raise ConfigError(f"data.{key} has {len(values)} numbers; give 1, or 3 for red, green and blue")
    return tuple(values) * (3 if len(values) == 1 else 1)
