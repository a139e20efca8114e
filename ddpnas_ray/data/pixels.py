"""Sets of images of one shape: held as pixels, or decoded on access by a few threads.

Axes: N images, C channels, H height, W width. Pixels are uint8, 0 to 255.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, Protocol, TypeVar, overload

import numpy as np
import numpy.typing as npt

from ddpnas_ray.core.space import IntArray
from ddpnas_ray.data.decoding import ByteArray, ImageSource, fit_image, open_image, read_source, source_name

MAX_THREADS = 8
Item_co = TypeVar("Item_co", covariant=True)
Result = TypeVar("Result")


class Images(Protocol):
    """A set of images of one size, readable in any order."""

    def __len__(self) -> int: ...

    def gather(self, indices: npt.ArrayLike) -> ByteArray:
        """Return the images at ``indices``, in that order: a new contiguous uint8 array of shape (n, C, H, W)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImages:
    """Images held as read-only pixels; the array may be a view of shared memory.

    Args:
        pixels_NCHW: uint8, shape (N, C, H, W).

    Raises:
        ValueError: Wrong dtype or number of axes.

    Example:
        >>> DecodedImages(np.zeros((5, 1, 8, 8), dtype=np.uint8)).gather([3, 0]).shape
        (2, 1, 8, 8)
    """

    pixels_NCHW: ByteArray

    def __post_init__(self) -> None:
        pixels = self.pixels_NCHW
        if pixels.dtype != np.uint8 or pixels.ndim != 4:
            raise ValueError(f"pixels must be uint8 of shape (N, C, H, W), got {pixels.dtype} of shape {pixels.shape}")
        view = pixels.view()
        view.setflags(write=False)
        object.__setattr__(self, "pixels_NCHW", view)

    def __len__(self) -> int:
        return len(self.pixels_NCHW)

    def gather(self, indices: npt.ArrayLike) -> ByteArray:
        """See :class:`Images`."""
        return np.take(self.pixels_NCHW, np.asarray(indices, dtype=np.int64), axis=0)

    def __reduce__(self) -> tuple[Any, ...]:
        return DecodedImages, (self.pixels_NCHW,)  # runs __post_init__: unpickled arrays are read-only too


@dataclass(frozen=True, slots=True, eq=False)
class EncodedImages:
    """Images decoded on access, for sets that do not fit in memory as pixels.

    Args:
        sources: Encoded bytes, paths or arrays. Paths must be readable on every machine that uses them.
        channels: 1 or 3; other images are converted.
        image_size: Side in pixels; other images are resized and cropped.
        names: Names of the images in errors; default: path or number.

    Raises:
        DataError: From ``gather``: an image cannot be read; the error names it.
    """

    sources: Sequence[ImageSource]
    channels: int
    image_size: int
    names: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.sources)

    def gather(self, indices: npt.ArrayLike) -> ByteArray:
        """See :class:`Images`."""
        wanted = np.asarray(indices, dtype=np.int64)
        out_NCHW = np.empty((len(wanted), self.channels, self.image_size, self.image_size), dtype=np.uint8)

        def decode(start: int, stop: int) -> None:
            for i in range(start, stop):
                index = int(wanted[i])
                name = source_name(self.sources, self.names, index)
                image = open_image(read_source(self.sources[index], name), name)
                out_NCHW[i] = fit_image(image, channels=self.channels, image_size=self.image_size)

        for _ in in_chunks(decode, len(wanted), chunk=max(1, -(-len(wanted) // thread_count()))):
            pass
        return out_NCHW


@dataclass(frozen=True, slots=True, eq=False)
class JoinedImages:
    """Two sets of images of one shape, one after the other.

    Args:
        first: Images 0 to n - 1.
        second: The images from n on.
    """

    first: Images
    second: Images

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def gather(self, indices: npt.ArrayLike) -> ByteArray:
        """See :class:`Images`."""
        wanted = np.asarray(indices, dtype=np.int64)
        in_first = wanted < len(self.first)
        first, second = self.first.gather(wanted[in_first]), self.second.gather(wanted[~in_first] - len(self.first))
        out_NCHW = np.empty((len(wanted), *first.shape[1:]), dtype=np.uint8)
        out_NCHW[in_first], out_NCHW[~in_first] = first, second
        return out_NCHW


@dataclass(frozen=True, slots=True, eq=False)
class Picked(Sequence[Item_co], Generic[Item_co]):
    """View of ``base[indices[0]], base[indices[1]], ...`` without a copy, so splits share their base.

    Example:
        >>> list(Picked("abcd", np.array([3, 0])))
        ['d', 'a']
    """

    base: Sequence[Item_co]
    indices: IntArray

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> Item_co: ...
    @overload
    def __getitem__(self, index: slice) -> Picked[Item_co]: ...
    def __getitem__(self, index: int | slice) -> Item_co | Picked[Item_co]:
        if isinstance(index, slice):
            return Picked(self.base, self.indices[index])
        return self.base[int(self.indices[index])]


def in_chunks(work: Callable[[int, int], Result], count: int, *, chunk: int) -> Iterator[Result]:
    """Yield ``work(start, stop)`` over ``range(count)`` in order, computed by a small thread pool.

    Example:
        >>> list(in_chunks(lambda start, stop: (start, stop), 5, chunk=2))
        [(0, 2), (2, 4), (4, 5)]
    """
    bounds = [(start, min(start + chunk, count)) for start in range(0, count, chunk)]
    if len(bounds) <= 1 or thread_count() == 1:
        yield from (work(start, stop) for start, stop in bounds)
    else:
        yield from _pool(os.getpid()).map(lambda pair: work(*pair), bounds)


@cache
def thread_count() -> int:
    """Number of decoding threads: the cores this process may use, at most eight."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MAX_THREADS, cores))


@cache
def _pool(process: int) -> ThreadPoolExecutor:  # one per process: threads do not survive a fork
    return ThreadPoolExecutor(thread_count(), thread_name_prefix="ddpnas-decode")
