"""Undecoded splits, as every data set is read, and the mapping of labels to class numbers.

Axes: N images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.data.decoding import ImageSource, source_name
from ddpnas_ray.data.paths import Paths
from ddpnas_ray.data.problems import Problems

SplitName = Literal["train", "val", "test"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RawSplit:
    """One split as stored.

    Args:
        sources: The N images: encoded bytes, paths, or uint8 arrays of shape (H, W) or (H, W, 3). A list of paths is
            packed, see ``Paths``.
        labels: The N labels: integers, or strings.
        classes: Class names that integer labels index, if the data set declares them. None: labels are class names.
        origin: The file or folder, for errors.
        names: Names of the images in errors; default: path or number.
        problems: Problems of dropped rows or classes; raised when the split is opened, after the rest is checked.
    """

    sources: Sequence[ImageSource]
    labels: IntArray | Sequence[str]
    classes: tuple[str, ...] | None
    origin: str
    names: Sequence[str] | None = None
    problems: Problems = field(default_factory=Problems)

    def __post_init__(self) -> None:
        sources = self.sources
        if isinstance(sources, list) and all(isinstance(source, str | Path) for source in sources):
            object.__setattr__(self, "sources", Paths.of(sources))

    def __len__(self) -> int:
        return len(self.sources)

    def name(self, index: int) -> str:
        """Name of an image in errors."""
        return source_name(self.sources, self.names, index)


def class_names(raw: RawSplit) -> tuple[str, ...]:
    """Return the classes of a training split: as declared, else its distinct labels, sorted.

    Integer labels sort as numbers and need not start at 0 or be consecutive.

    Raises:
        DataError: There are no images.

    Example:
        >>> class_names(RawSplit(sources=[b""] * 3, labels=np.array([10, 2, 10]), classes=None, origin="here"))
        ('2', '10')
    """
    if len(raw) == 0:
        raise DataError(f"{raw.origin}: no images")
    if raw.classes is not None:
        return raw.classes
    if isinstance(raw.labels, np.ndarray):
        return tuple(str(label) for label in np.unique(raw.labels))
    return tuple(sorted(set(raw.labels)))


def class_numbers(raw: RawSplit, train: RawSplit) -> IntArray:
    """Return the class number of every image, shape (N,), in the numbering of the training split.

    Classes are matched by name. Integer labels without declared classes are names themselves ("7"), or indices into
    the training split's declared classes, if it has any.

    Args:
        raw: Any split, ``train`` included.
        train: The training split, which defines the classes.

    Raises:
        DataError: A label is missing from its own class list or from the training split; the error names the first
            image that has it.
    """
    classes = class_names(train)
    number = {name: index for index, name in enumerate(classes)}
    if isinstance(raw.labels, np.ndarray):
        declared = raw.classes if raw.classes is not None else train.classes
        if declared is not None and len(raw):
            outside_N = (raw.labels < 0) | (raw.labels >= len(declared))
            if outside_N.any():
                first, others = int(outside_N.argmax()), int(outside_N.sum()) - 1
                more = f" (and {others} more image{'' if others == 1 else 's'})" if others else ""
                raise DataError(
                    f"{raw.origin}: label out of range: {raw.name(first)} has label {raw.labels[first]}{more}, "
                    f"but there are {len(declared)} class names (0 to {len(declared) - 1}); "
                    "drop such rows, or correct the class names"
                )
        values, inverse_N = np.unique(raw.labels, return_inverse=True)
        names = [declared[value] if declared is not None else str(value) for value in values.tolist()]
    else:
        names = sorted(set(raw.labels))
        position = {name: index for index, name in enumerate(names)}
        inverse_N = np.fromiter((position[label] for label in raw.labels), dtype=np.int64, count=len(raw.labels))
    numbers = np.array([number.get(name, -1) for name in names], dtype=np.int64)
    labels_N = numbers[inverse_N] if len(raw) else np.empty(0, dtype=np.int64)
    if (labels_N < 0).any():
        first = int((labels_N < 0).argmax())
        unknown = [name for name in names if name not in number]
        raise DataError(
            f"{raw.origin}: {raw.name(first)} has class {names[int(inverse_N[first])]!r}, which the training data "
            f"lacks; known classes: {_listed(classes)}; unknown classes: {_listed(unknown)}"
        )
    return labels_N


def _listed(names: Sequence[str], most: int = 10) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
