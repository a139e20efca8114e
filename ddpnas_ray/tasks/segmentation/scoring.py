"""Loss and outputs of every pixel.

Axes: B images, C classes, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ddpnas_ray.core.space import IntArray
from ddpnas_ray.tasks.segmentation.masks import VOID
from ddpnas_ray.tasks.segmentation.pairs import Size

if TYPE_CHECKING:
    from torch import Tensor

STEP = 2 / 3  # of a window: the furthest that the next one is away


def class_weights(counts_C: IntArray) -> tuple[float, ...]:
    """Return weights of classes, inverse to their frequency among the pixels: N / (K n) for n pixels of N in K classes.

    The mean over pixels is 1. Classes without pixels get 0.

    Example:
        >>> class_weights(np.array([3, 1, 0]))
        (0.6666666666666666, 2.0, 0.0)
    """
    present = int((counts_C > 0).sum())
    return tuple(float(counts_C.sum() / (present * n)) if n else 0.0 for n in counts_C)


def pixel_loss(
    outputs: Tensor, labels: Tensor, *, weights: Sequence[float] | None, hardest: float, smoothing: float
) -> Tensor:
    """Mean over images of the mean cross-entropy of their pixels; void pixels do not count.

    As each image counts the same, the loss of a batch is that of its parts, however workers share it.

    Args:
        outputs: Logits, shape (B, C, H, W).
        labels: Shape (B, H, W).
        weights: Factor of each class; None: 1.
        hardest: Share of an image's pixels, those of the largest loss, that count; 0: all of them.
        smoothing: Share of the target spread over all classes.
    """
    from torch.nn.functional import cross_entropy

    factors = None if weights is None else outputs.new_tensor(weights, dtype=outputs.float().dtype)
    loss_BP = cross_entropy(
        outputs.float(), labels, factors, ignore_index=VOID, reduction="none", label_smoothing=smoothing
    ).flatten(1)
    counts_BP = (labels != VOID).flatten(1)
    if hardest:
        rank_B1 = (counts_BP.sum(dim=1, keepdim=True) * hardest).ceil().long() - 1
        sorted_BP = loss_BP.detach().masked_fill(~counts_BP, -1.0).sort(dim=1, descending=True).values
        counts_BP = counts_BP & (loss_BP >= sorted_BP.gather(1, rank_B1.clamp_min(0)))
    mean_B = (loss_BP * counts_BP).sum(dim=1) / counts_BP.sum(dim=1).clamp_min(1)
    return mean_B.mean()


def divergence(outputs: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Mean over pixels of the Kullback-Leibler divergence from the teacher, times the temperature's square."""
    from torch.nn.functional import kl_div, log_softmax

    found, wanted = (log_softmax(one.float() / temperature, dim=1) for one in (outputs, taught))
    return temperature**2 * kl_div(found, wanted, reduction="none", log_target=True).sum(dim=1).mean()


def predicted(
    network: Callable[[Any], Tensor], images: Tensor, *, window: Size | None, flips: bool, outputs: int
) -> Tensor:
    """Return logits of images, shape (B, C, H, W): means over the windows that cover a pixel, and over flips.

    Args:
        network: Images of a window's size -> their logits.
        images: Shape (B, 3, H, W).
        window: Height and width of windows; None: the whole image at once.
        flips: Whether each window is also looked at mirrored left to right.
        outputs: C.
    """

    def logits(part: Tensor) -> Tensor:
        found = network(part)
        return (found + network(part.flip(3)).flip(3)) / 2 if flips else found

    height, width = images.shape[2:]
    if window is None or (window[0] >= height and window[1] >= width):
        return logits(images)
    rows, columns = (starts(side, part) for side, part in zip((height, width), window, strict=True))
    total = images.new_zeros((len(images), outputs, height, width))
    times = images.new_zeros((1, 1, height, width))
    for top in rows:
        for left in columns:
            at = (..., slice(top, min(top + window[0], height)), slice(left, min(left + window[1], width)))
            total[at] += logits(images[at].contiguous())
            times[at] += 1
    return total / times


def starts(side: int, window: int) -> list[int]:
    """Return where windows begin: evenly spaced, at most two thirds of a window apart, from one end to the other.

    Example:
        >>> starts(100, 40), starts(30, 40)
        ([0, 20, 40, 60], [0])
    """
    if window >= side:
        return [0]
    count = 1 + int(np.ceil((side - window) / max(1, int(STEP * window))))
    return [round(i * (side - window) / (count - 1)) for i in range(count)]
