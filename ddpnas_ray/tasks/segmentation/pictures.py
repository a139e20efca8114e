"""Pictures of what a network finds in images: the image, the truth and the prediction, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ddpnas_ray.data.batches import normalise
from ddpnas_ray.data.overlays import beside, overlay, png
from ddpnas_ray.metrics.miou import by_class
from ddpnas_ray.tasks.segmentation.pairs import Split
from ddpnas_ray.tasks.segmentation.sources import Palette

if TYPE_CHECKING:
    from torch import Tensor

SHOWN = 6


def side_by_side(
    split: Split,
    predict: Callable[[Any], Tensor],
    count: Callable[[Tensor, Tensor], Tensor],
    *,
    classes: Sequence[str],
    palette: Palette,
    mean: Sequence[float],
    std: Sequence[float],
) -> dict[str, bytes]:
    """Return PNG files by caption, of at most six images from all over a split.

    Args:
        split: The images.
        predict: (inputs, shape (1, 3, H, W)) -> logits.
        count: (logits, labels) -> pixels by true and by found class.
        classes: Names of the classes.
        palette: Their colours.
        mean: Subtracted from pixel fractions.
        std: Divides them afterwards.
    """
    import torch

    found: dict[str, bytes] = {}
    for row in np.unique(np.linspace(0, len(split) - 1, SHOWN).round().astype(np.int64)):
        pixels, labels = split.pairs.gather(np.array([row]))
        with torch.no_grad():
            logits = predict(torch.from_numpy(normalise(pixels, mean, std)))
        counts_CC = count(logits, torch.from_numpy(labels.astype(np.int64)))
        image = pixels[0].transpose(1, 2, 0)
        parts = [overlay(image, one, palette) for one in (labels[0], logits[0].argmax(dim=0).numpy())]
        found[_caption(row, counts_CC, classes)] = png(beside([image, *parts]))
    return found


def _caption(row: int, counts_CC: Tensor, classes: Sequence[str]) -> str:
    scores = by_class(counts_CC)
    if not scores:
        return f"image {row}: every pixel is void"
    right = int(counts_CC.diag().sum()) / int(counts_CC.sum())
    most = int(counts_CC.sum(dim=1).argmax())
    return (
        f"image {row}: image, truth, prediction; mIoU {sum(scores.values()) / len(scores):.3f}, {100 * right:.1f} % of "
        f"pixels right, most are {classes[most]}"
    )
