"""Images read from a cache (``data.cache``), which is completed where it lacks some.

Axes: M images, C channels, H height, W width.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ddpnas_ray.core.errors import BadInput, DataError
from ddpnas_ray.core.space import BoolArray, IntArray
from ddpnas_ray.data.cache import CORRECT, Entry, Records, fill, free_bytes, intact, lacking, refuse_full_disk
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.decoding import ByteArray
from ddpnas_ray.data.pixels import EncodedImages, Picked, in_chunks, thread_count
from ddpnas_ray.data.problems import Problems
from ddpnas_ray.data.raw import RawSplit, SplitName
from ddpnas_ray.data.registry import find_reader
from ddpnas_ray.data.scan import Shape, check_shapes, scan

logger = logging.getLogger(__name__)

TIMED = 48  # images per thread that a forecast decodes


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where the images of a cache come from, to decode them on a machine that lacks them.

    Args:
        config: Names the data, by absolute paths.
        split: The split that holds them.
        shape: Shape of the decoded images.
    """

    config: DataConfig
    split: SplitName
    shape: Shape

    @classmethod
    def of(cls, config: DataConfig, split: SplitName, shape: Shape) -> Origin:
        """Return the origin for any working directory."""
        given = {key: getattr(config, key) for key in ("path", "val_path", "test_path", "cache")}
        full = {key: os.path.abspath(os.path.expanduser(path)) for key, path in given.items() if path is not None}
        there = {key: path for key, path in full.items() if key == "cache" or os.path.exists(path)}  # not a hub's name
        return cls(config=replace(config, **there), split=split, shape=shape)

    @property
    def cache(self) -> str:
        """The cache folder."""
        assert self.config.cache is not None
        return self.config.cache

    def entry(self, raw: RawSplit) -> Entry:
        """Return the entry of these images."""
        config = self.config
        place = (config.path, config.val_path if self.split == "val" else None, config.image_column, self.split)
        return Entry.of(self.cache, config.name, raw, repr(place), self.shape)

    def read(self) -> RawSplit:
        """List the images again."""
        return find_reader(self.config.name).read(self.config, ("train", self.split))[self.split]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """Images of one split that a search needs.

    Args:
        origin: Where they come from.
        raw: All images of the split.
        rows_M: Rows of the chosen ones, ascending.
        what: "training" or "validation", for errors and progress.
    """

    origin: Origin
    raw: RawSplit
    rows_M: IntArray
    what: str


@dataclass(frozen=True, slots=True, eq=False)
class _Opened:
    """Opened files.

    Args:
        pixels_NCHW: All images of the entry, mapped into memory.
        crc_M: Checksums of the chosen images.
        seen_M: Which of them were compared with their pixels.
    """

    pixels_NCHW: ByteArray
    crc_M: npt.NDArray[np.uint32]
    seen_M: BoolArray


OPENED: dict[tuple[str, str], _Opened] = {}  # by folder and digest: a worker unpickles its images at every architecture
MOST_OPENED = 8


@dataclass(frozen=True, slots=True, eq=False)
class CachedImages:
    """Images in a cache; pickled without pixels and paths, and opened where a process first reads them.

    On a machine that lacks the files, the first process to read decodes the images there, and others wait for it. The
    pixels of each image are compared with their checksum when a process reads them for the first time.

    Args:
        entry: The files.
        rows_M: Row of each image in them.
        digest: Of the rows and of the stored images, see ``_digest_of``.
        origin: Where they come from.

    Raises:
        DataError: From ``gather``: the machine has neither the cache nor the same images.
    """

    entry: Entry
    rows_M: IntArray
    digest: str
    origin: Origin

    def __len__(self) -> int:
        return len(self.rows_M)

    def gather(self, indices: npt.ArrayLike) -> ByteArray:
        """See :class:`Images`."""
        wanted = np.asarray(indices, dtype=np.int64)
        out_NCHW, damaged = self._copied(wanted)
        if damaged:
            logger.warning("%s: damaged images: %d; decoding them again", self.entry.folder, len(damaged))
            self._complete(self.rows_M[damaged], recheck=True)
            _close(self.entry)
            out_NCHW, damaged = self._copied(wanted)
        if damaged:
            raise DataError(f"{self.entry.folder}: what was just written is damaged; check its disk. {CORRECT}")
        return out_NCHW

    def _copied(self, wanted: IntArray) -> tuple[ByteArray, list[int]]:
        """Copy images; returns the damaged ones too."""
        files = self._opened()
        pixels_NCHW, crc_M, seen_M = files.pixels_NCHW, files.crc_M, files.seen_M
        out_NCHW = np.empty((len(wanted), *self.entry.shape[1:]), dtype=np.uint8)

        def copy(start: int, stop: int) -> list[int]:
            damaged = []
            for i in range(start, stop):
                index = wanted[i]
                out_NCHW[i] = pixels_NCHW[self.rows_M[index]]
                if not seen_M[index]:
                    seen_M[index] = zlib.crc32(out_NCHW[i]) == crc_M[index]
                    damaged += [] if seen_M[index] else [int(index)]
            return damaged

        parts = in_chunks(copy, len(wanted), chunk=max(1, -(-len(wanted) // thread_count())))
        return out_NCHW, [index for part in parts for index in part]

    def _opened(self) -> _Opened:
        """Return the files that this process has open, or open them, completed if need be."""
        if (files := OPENED.get((self.entry.folder, self.digest))) is not None:
            return files
        records = self.entry.records()[self.rows_M]
        if not self._same(records):
            self._complete(self.rows_M)
            records = self.entry.records()[self.rows_M]
        if not self._same(records):
            raise DataError(
                f"{self.entry.folder}: the images that {socket.gethostname()} decoded differ from those that the run "
                "started with; give all machines the same images, or a data.cache that they share"
            )
        files = _Opened(self.entry.pixels(), records["crc"].copy(), np.zeros(len(self), dtype=bool))
        for oldest in list(OPENED)[: 1 - MOST_OPENED]:
            OPENED.pop(oldest, None)
        return OPENED.setdefault((self.entry.folder, self.digest), files)

    def _same(self, records: Records) -> bool:
        return bool(intact(records).all()) and _digest_of(self.rows_M, records) == self.digest

    def _complete(self, rows: IntArray, *, recheck: bool = False) -> None:
        """Decode what is missing on this machine."""
        problems = Problems()
        try:
            raw = self.origin.read()
            if self.origin.entry(raw) != self.entry:
                raise DataError("the files here, or the version of Pillow, are not those that the run started with")
            if not recheck:
                refuse_full_disk(self.origin.cache, len(lacking(self.entry, raw, rows)), self.entry.image_bytes)
            fill(self.entry, raw, rows, "missing", problems, recheck=recheck)
            problems.refuse()
        except BadInput as error:
            raise DataError(f"{self.entry.folder} lacks images on {socket.gethostname()}: {error}") from None


def _digest_of(rows_M: IntArray, records: Records) -> str:
    """SHA-256 of rows and of the digests of their stored images, in hexadecimal."""
    sha = hashlib.sha256(rows_M.astype("<i8").tobytes())
    sha.update(records["sha256"].tobytes())
    return sha.hexdigest()


def _close(entry: Entry) -> None:
    """Close what this process has open of an entry: it was written to."""
    for key in [key for key in list(OPENED) if key[0] == entry.folder]:
        OPENED.pop(key, None)


def open_cached(parts: Sequence[Part], problems: Problems) -> list[tuple[CachedImages, bytes]]:
    """Open the images of all parts, and decode those that the cache lacks.

    Args:
        parts: The images.
        problems: Receives damaged images, and shapes that differ although the configuration does not set them. If there
            are any, the returned values are invalid.

    Returns:
        For each part the images, and the concatenated SHA-256 digests of the stored images (32 bytes each).

    Raises:
        ResourceError: The disk is too small.
        DataError: The cache cannot be written.
    """
    entries = [part.origin.entry(part.raw) for part in parts]
    missing = [lacking(entry, part.raw, part.rows_M) for entry, part in zip(entries, parts, strict=True)]
    added = sum(map(len, missing))
    if added:
        refuse_full_disk(parts[0].origin.cache, added, entries[0].image_bytes)
        for part in parts:
            _refuse_shapes(part, problems)
        problems.refuse()
    opened = []
    for entry, part, rows in zip(entries, parts, missing, strict=True):
        damaged = Problems()
        if len(rows):
            fill(entry, part.raw, rows, part.what, damaged)
            _close(entry)
        records = entry.records()[part.rows_M]
        check_shapes(records["native"].astype(np.int64), part.origin.shape, part.what, problems)
        problems.extend(damaged)
        images = CachedImages(entry, part.rows_M, _digest_of(part.rows_M, records), part.origin)
        opened.append((images, records["sha256"].tobytes()))
    return opened


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a cache takes.

    Args:
        folder: The cache folder, absolute; None: no cache is configured.
        images: Number of images of the search.
        missing: How many of them the cache lacks.
        image_bytes: Bytes of each.
        free_bytes: Free space of the disk; None without a folder.
        images_per_s: Images decoded in a second by the threads of one process, measured; None if none is missing.
    """

    folder: str | None
    images: int
    missing: int
    image_bytes: int
    free_bytes: int | None
    images_per_s: float | None

    @property
    def seconds(self) -> float:
        """Time to decode the missing images at this speed."""
        return self.missing / self.images_per_s if self.images_per_s else 0.0


def forecast_of(parts: Sequence[Part]) -> Forecast:
    """Count what the cache lacks, and time the decoding of some of it.

    Raises:
        DataError: One of the timed images cannot be decoded.
    """
    cache = parts[0].origin.config.cache
    shape = parts[0].origin.shape
    missing = [
        part.rows_M if cache is None else lacking(part.origin.entry(part.raw), part.raw, part.rows_M) for part in parts
    ]
    rate = None
    for part, rows in zip(parts, missing, strict=True):
        if len(rows) and rate is None:
            names = None if part.raw.names is None else Picked(part.raw.names, rows)
            images = EncodedImages(Picked(part.raw.sources, rows), shape.channels, shape.image_size, names)
            rate = images_per_s(images)
    return Forecast(
        folder=cache,
        images=sum(len(part.rows_M) for part in parts),
        missing=sum(map(len, missing)),
        image_bytes=shape.channels * shape.image_size**2,
        free_bytes=None if cache is None else free_bytes(cache),
        images_per_s=rate,
    )


def images_per_s(images: EncodedImages) -> float:
    """Time the decoding of some images, in images a second of this process.

    Raises:
        DataError: One of them cannot be decoded.
    """
    timed = np.linspace(0, len(images) - 1, min(len(images), TIMED * thread_count())).astype(np.int64)
    images.gather(timed[: thread_count()])  # starts the threads
    start = time.perf_counter()
    images.gather(timed)
    return len(timed) / (time.perf_counter() - start)


def _refuse_shapes(part: Part, problems: Problems) -> None:
    """Compare the headers of all images, if they must have one shape: not after hours of decoding."""
    raw, rows_M, shape = part.raw, part.rows_M, part.origin.shape
    if not (shape.resize and shape.convert_channels):
        names = None if raw.names is None else Picked(raw.names, rows_M)
        scan(Picked(raw.sources, rows_M), names, shape=shape, decode=False, what=part.what, problems=problems)
