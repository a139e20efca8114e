"""Stratified splits, subsets and batches, keyed by seed and class only.

Axes: N images, C classes. Index arrays are ascending.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.core.space import IntArray

SPLIT_KEY = 0x53504C49  # each purpose has its own key, so no two share a draw
LIMIT_KEY = 0x4C494D49
CALIBRATION_KEY = 0x43414C49


def stratified_split(
    labels_N: IntArray, classes: Sequence[str], *, val_fraction: float, seed: int, origin: str
) -> tuple[IntArray, IntArray]:
    """Hold out the same fraction of every class, at least one image each.

    A class's draw depends on the seed, the class number and the order of its images, not on other classes.

    Args:
        labels_N: Class numbers, shape (N,).
        classes: The C class names.
        val_fraction: Fraction held out, in (0, 1): round(n * val_fraction) images of a class of n.
        seed: Keys the draw.
        origin: Location of the data, for errors.

    Returns:
        Training and validation indices, both ascending; together they are ``range(N)``.

    Raises:
        DataError: A class has fewer than 2 images, or would keep no training image.

    Example:
        >>> train, val = stratified_split(np.array([0, 0, 1, 1]), ["a", "b"], val_fraction=0.5, seed=0, origin="here")
        >>> len(train), len(val)
        (2, 2)
    """
    counts_C = np.bincount(labels_N, minlength=len(classes))
    if few := [f"class {name!r} has {_examples(n)}" for name, n in zip(classes, counts_C, strict=True) if n < 2]:
        listed = ", ".join(few[:10]) + (f" and {len(few) - 10} more such classes" if len(few) > 10 else "")
        raise DataError(
            f"{origin}: {listed}; holding out validation examples takes at least 2 per class: add examples, drop the "
            "class, or set data.val_path"
        )
    train, val = [], []
    for number, name in sorted(enumerate(classes), key=lambda pair: counts_C[pair[0]]):
        members = np.flatnonzero(labels_N == number)
        held_out = max(1, round(len(members) * val_fraction))
        if held_out == len(members):
            raise DataError(
                f"{origin}: data.val_fraction={val_fraction:g} leaves no training example of class {name!r} "
                f"({_examples(len(members))}); set at most {(len(members) - 1) / len(members):.2g}, or add examples"
            )
        order = rng_for(seed, SPLIT_KEY, number).permutation(members)
        val.append(order[:held_out])
        train.append(order[held_out:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(val))


def stratified_subset(labels_N: IntArray, limit: int | None, *, seed: int, key: str) -> IntArray:
    """Draw ``limit`` images, classes in proportion (largest remainders), at least one per class present.

    Args:
        labels_N: Class numbers, shape (N,).
        limit: Number of images; None, or N or more: all.
        seed: Keys the draw.
        key: The configuration key that sets the limit, for errors.

    Returns:
        Indices into ``labels_N``, ascending.

    Raises:
        DataError: The limit is smaller than the number of classes present.

    Example:
        >>> stratified_subset(np.array([0, 0, 0, 0, 1, 1]), 3, seed=0, key="data.train_limit").shape
        (3,)
    """
    if limit is None or limit >= len(labels_N):
        return np.arange(len(labels_N))
    present, counts_C = np.unique(labels_N, return_counts=True)
    if limit < len(present):
        raise DataError(f"{key}={limit} is less than one example per class ({len(present)} classes); raise it")
    share_C = limit * counts_C / len(labels_N)
    taken_C = np.maximum(1, np.floor(share_C).astype(np.int64))
    while taken_C.sum() < limit:
        taken_C[np.argmax(share_C - taken_C)] += 1
    while taken_C.sum() > limit:  # small classes were raised to 1
        taken_C[np.argmax(np.where(taken_C > 1, taken_C - share_C, -np.inf))] -= 1
    chosen = [
        rng_for(seed, LIMIT_KEY, int(number)).permutation(np.flatnonzero(labels_N == number))[:taken]
        for number, taken in zip(present, taken_C, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def stratified_batches(labels_N: IntArray, images: int, batch_size: int, *, seed: int) -> list[IntArray]:
    """Draw representative images, in batches of equal size, whatever the order of the data.

    Each batch, and all batches together, hold every class in proportion, rounded up or down. All images are equally
    likely: unlike ``stratified_subset``, this neither raises a rare class to one image nor refuses more classes than
    images. It is a systematic sample (every N/images-th image of the data sorted by class, shuffled within classes,
    from a random start), dealt to the batches in turn.

    Args:
        labels_N: Class numbers, shape (N,), N at least 1.
        images: Maximum number; images that would not fill a batch are dropped.
        batch_size: Images per batch, or all if there are fewer.
        seed: Keys the draw.

    Returns:
        At least one batch: indices into ``labels_N``, ascending.

    Example:
        >>> labels_N = np.repeat([0, 1], [60, 20])
        >>> [np.bincount(labels_N[batch]).tolist() for batch in stratified_batches(labels_N, 25, 8, seed=0)]
        [[6, 2], [6, 2], [6, 2]]
    """
    n = len(labels_N)
    size = min(images, batch_size, n)
    batches = min(images, n) // size
    rng = rng_for(seed, CALIBRATION_KEY)
    start, shuffled_N = int(rng.integers(n)), rng.permutation(n)
    by_class_N = shuffled_N[np.argsort(labels_N[shuffled_N], kind="stable")]
    drawn = by_class_N[(np.arange(batches * size) * n + start) // (batches * size)]
    return [np.sort(drawn[i::batches]) for i in range(batches)]


def _examples(count: int) -> str:
    return f"{count} example" if count == 1 else f"{count} examples"
