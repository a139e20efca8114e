"""Many paths as two arrays, which processes of a node share; a list of strings is rebuilt at every unpickling.

Axes: N files.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from ddpnas_ray.core.space import IntArray
from ddpnas_ray.data.decoding import ByteArray
from ddpnas_ray.data.pixels import Picked


@dataclass(frozen=True, slots=True, eq=False)
class Paths(Sequence[str]):
    """Paths with a common beginning; the arrays pickle without a copy.

    Args:
        root: What all paths begin with, up to a separator; may be empty.
        names: The remainders, encoded, one after the other.
        ends_N: End of each remainder in ``names``, shape (N,).

    Example:
        >>> paths = Paths.of(["photos/cat/1.png", "photos/dog/1.png"])
        >>> paths.root, paths[1], len(paths)
        ('photos/', 'photos/dog/1.png', 2)
    """

    root: str
    names: ByteArray
    ends_N: IntArray

    @classmethod
    def of(cls, paths: Sequence[str | os.PathLike[str]]) -> Paths:
        """Pack paths, in their order."""
        texts = [os.fspath(path) for path in paths]
        common = os.path.commonprefix([min(texts), max(texts)]) if texts else ""  # noqa: RUF071, cut at a separator
        root = common[: common.rfind(os.sep) + 1]
        encoded = [os.fsencode(text[len(root) :]) for text in texts]
        lengths_N = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
        return cls(root, np.frombuffer(b"".join(encoded), dtype=np.uint8), np.cumsum(lengths_N))

    def __len__(self) -> int:
        return len(self.ends_N)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return Picked(self, np.arange(len(self))[index])
        index = range(len(self))[index]
        start = self.ends_N[index - 1] if index else 0
        return self.root + os.fsdecode(self.names[start : self.ends_N[index]].tobytes())
