"""Images decoded once, in files that all processes of a machine map into memory.

A cache folder has one subfolder, an entry, for each list of images, image size, number of channels and decoder. Its
files have room for all images of the list, but hold only those that some search needed:

- ``pixels``: uint8, shape (N, C, H, W), sparse
- ``records``: for each image what it was decoded from, and checksums (``RECORD``); zeros: not in the cache
- ``lock``: locked by the process that adds images
- ``about.json``: for people

An image is in the cache from the moment its record is complete, so a killed build loses only what was being decoded.

Axes: N images of the list, M chosen ones, C channels, H height, W width.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import features

from ddpnas_ray.core.errors import DataError, ResourceError
from ddpnas_ray.core.space import BoolArray, IntArray
from ddpnas_ray.data import ray_cache
from ddpnas_ray.data.decoding import (
    DECODING,
    ByteArray,
    ImageSource,
    fit_image,
    native_shape,
    open_image,
    read_source,
)
from ddpnas_ray.data.paths import Paths
from ddpnas_ray.data.pixels import in_chunks, thread_count
from ddpnas_ray.data.problems import Problems
from ddpnas_ray.data.raw import RawSplit
from ddpnas_ray.data.scan import Shape

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)  # a build may take hours: commands show its progress

Records: TypeAlias = npt.NDArray[np.void]
RECORD = np.dtype(
    [
        ("seal", "<u4"),  # checksum of the other fields
        ("crc", "<u4"),  # CRC-32 of the pixels
        ("native", "<i4", 3),  # channels, height, width as stored
        ("bytes", "<i8"),  # of the stored image
        ("mtime_ns", "<i8"),  # of its file; 0: not a file
        ("sha256", "u1", 32),  # of the stored image
    ]
)
FORMAT = 1
CHUNK_BYTES = 8 * 2**20  # of pixels, decoded as one piece of work
STAT_CHUNK = 4096
PROGRESS_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Files of one list of images, decoded to one shape.

    Args:
        folder: Their folder.
        images: N.
        channels: C.
        image_size: H and W.
    """

    folder: str
    images: int
    channels: int
    image_size: int

    @classmethod
    def of(cls, cache: str, name: str, raw: RawSplit, place: str, shape: Shape) -> Entry:
        """Return the entry of a split; nothing is written.

        Its name depends on where the images come from, on the list of files, and on what decodes: another version may
        give other pixels.

        Args:
            cache: The cache folder, an absolute path.
            name: ``data.name``.
            raw: The split.
            place: Where its images come from, the same on all machines.
            shape: Shape of the decoded images.
        """
        sha = hashlib.sha256(repr((FORMAT, decoder(), shape.channels, shape.image_size, len(raw))).encode())
        sha.update(place.encode())
        if isinstance(raw.sources, Paths):
            sha.update(raw.sources.names.data)
            sha.update(raw.sources.ends_N.data)
        label = name.replace(":", ".").replace(os.sep, ".")
        folder = f"{label}-{shape.channels}x{shape.image_size}x{shape.image_size}-{sha.hexdigest()[:24]}"
        size = {"channels": shape.channels, "image_size": shape.image_size}
        return cls(folder=os.path.join(cache, folder), images=len(raw), **size)

    @property
    def image_bytes(self) -> int:
        """Bytes of one decoded image."""
        return self.channels * self.image_size**2

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        return self.images, self.channels, self.image_size, self.image_size

    def path(self, name: str) -> str:
        """Path of one of the files."""
        return os.path.join(self.folder, name)

    def records(self) -> Records:
        """Map the records into memory, read-only, shape (N,); all zero if there are no files of the right size."""
        sizes = {"pixels": self.images * self.image_bytes, "records": self.images * RECORD.itemsize}
        try:
            if all(os.path.getsize(self.path(name)) == size for name, size in sizes.items()):
                return np.memmap(self.path("records"), dtype=RECORD, mode="r", shape=(self.images,))
        except FileNotFoundError:
            pass  # no entry yet
        except OSError as error:
            raise DataError(f"{self.folder}: cannot be read ({error.strerror or error}); {CORRECT}") from None
        return np.zeros(self.images, dtype=RECORD)

    def pixels(self) -> ByteArray:
        """Map the pixels into memory, read-only, shape (N, C, H, W)."""
        return np.memmap(self.path("pixels"), dtype=np.uint8, mode="r", shape=self.shape)


CORRECT = "correct data.cache, or set it to null to decode images at every access"
DecodeArguments: TypeAlias = tuple[list[ImageSource], list[str], int, int, str]


def decoder() -> str:
    """Return the versions of what decodes images: with others, pixels may differ in their last bits.

    Example:
        >>> decoder().startswith("decoding 1, pil ")
        True
    """
    libraries = ("pil", "libjpeg_turbo", "jpg", "webp", "libtiff")
    return ", ".join([f"decoding {DECODING}", *(f"{name} {features.version(name)}" for name in libraries)])


def decode_chunk(
    sources: Sequence[ImageSource], names: Sequence[str], channels: int, image_size: int, by: str
) -> tuple[ByteArray, Records, list[str]]:
    """Decode a few images, in any process of any machine.

    Args:
        sources: The images.
        names: Their names in errors.
        channels: 1 or 3.
        image_size: Side in pixels.
        by: The ``decoder`` to use; a process that has another one decodes nothing.

    Returns:
        Pixels, shape (len(sources), C, H, W); records; and what is wrong with the images whose record is zero.
    """
    pixels_NCHW = np.zeros((len(sources), channels, image_size, image_size), dtype=np.uint8)
    records, problems = np.zeros(len(sources), dtype=RECORD), []
    if decoder() != by:
        return pixels_NCHW, records, [f"{decoder()} instead of {by}"]
    for i, (source, name) in enumerate(zip(sources, names, strict=True)):
        mtime_ns = _modified_ns(source)  # before it is read: a change in between shows at the next start
        try:
            stored = read_source(source, name)
            image = open_image(stored, name)
            native = native_shape(image)
            pixels_NCHW[i] = fit_image(image, channels=channels, image_size=image_size)
        except DataError as error:
            problems.append(str(error))
            continue
        content = stored if isinstance(stored, bytes) else stored.tobytes()
        sha = np.frombuffer(hashlib.sha256(content).digest(), dtype=np.uint8)
        records[i] = (1, zlib.crc32(pixels_NCHW[i]), native, len(content), mtime_ns, sha)
    made = records["seal"] > 0
    records["seal"][made] = _seals(records[made])
    return pixels_NCHW, records, problems


def intact(records: Records) -> BoolArray:
    """Return which records are complete and undamaged."""
    return np.asarray(records["seal"] == _seals(records))


def lacking(entry: Entry, raw: RawSplit, rows_M: IntArray) -> IntArray:
    """Return the rows that are not in the cache, or whose image has changed since.

    A file has changed if its size or modification time has; other images if their content has.
    """
    records, sources = entry.records()[rows_M], raw.sources
    there_M = intact(records)
    bytes_M, mtime_ns_M = records["bytes"], records["mtime_ns"]

    def compare(start: int, stop: int) -> None:
        for i in np.flatnonzero(there_M[start:stop]) + start:
            source = sources[int(rows_M[i])]
            if isinstance(sources, Paths) and isinstance(source, str):
                there_M[i] = _stat(source) == (bytes_M[i], mtime_ns_M[i])
            else:
                stored = read_source(source, raw.name(int(rows_M[i])))
                sha = hashlib.sha256(stored if isinstance(stored, bytes) else stored.tobytes()).digest()
                there_M[i] = sha == records["sha256"][i].tobytes()

    for _ in in_chunks(compare, len(rows_M), chunk=STAT_CHUNK):
        pass
    return rows_M[~there_M]


def refuse_full_disk(cache: str, added: int, image_bytes: int) -> None:
    """Check that the disk has room for decoded images.

    Args:
        cache: The cache folder.
        added: Number of images to add.
        image_bytes: Bytes of each.

    Raises:
        ResourceError: It has not.
    """
    needed, free = added * (image_bytes + RECORD.itemsize), free_bytes(cache)
    if needed > free:
        raise ResourceError(
            f"data.cache={cache}: {added:,} images of {image_bytes:,} bytes need {bytes_text(needed)}, the disk has "
            f"{bytes_text(free)} free; choose a folder on a larger disk, a smaller data.image_size or a "
            "data.train_limit, or set data.cache=null to decode images at every access"
        )


def free_bytes(cache: str) -> int:
    """Free space of the disk that has, or will have, the cache folder."""
    folder = Path(cache)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def bytes_text(count: float) -> str:
    """Format bytes in decimal units, as disks are sold.

    Example:
        >>> bytes_text(192_851_505_000), bytes_text(1536)
        ('193 GB', '1.54 kB')
    """
    units = ["B", "kB", "MB", "GB"]
    while count >= 999.5 and len(units) > 1:
        count, units = count / 1000, units[1:]
    return f"{count:.0f} {units[0]}" if count >= 999.5 else f"{count:.3g} {units[0]}"


def fill(
    entry: Entry, raw: RawSplit, rows_M: IntArray, what: str, problems: Problems, *, recheck: bool = False
) -> None:
    """Decode what the cache lacks: by Ray tasks if this process is connected to a cluster, else by threads.

    One process at a time adds images to an entry; others wait, and find them done.

    Args:
        entry: The files.
        raw: The images.
        rows_M: Rows that are needed.
        what: What they are, for the progress.
        problems: Receives damaged images.
        recheck: Compare the pixels of images that are there with their checksum, and decode damaged ones again.

    Raises:
        DataError: The cache cannot be written.
    """
    try:
        with _locked(entry):
            _create(entry, raw)
            if recheck:
                _strike_damaged(entry, rows_M)
            todo = lacking(entry, raw, rows_M)
            if len(todo):
                _add(entry, raw, todo, what, problems)
    except OSError as error:
        raise DataError(
            f"data.cache: {entry.folder} lacks images and cannot be written ({error.strerror or error}); {CORRECT}"
        ) from None


@contextmanager
def _locked(entry: Entry) -> Iterator[None]:
    os.makedirs(entry.folder, exist_ok=True)
    with open(entry.path("lock"), "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("waiting for another process, which decodes images into %s", entry.folder)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _create(entry: Entry, raw: RawSplit) -> None:
    """Make the files, all of whose records are zero; files of another size are damaged, and made again."""
    sizes = {"pixels": entry.images * entry.image_bytes, "records": entry.images * RECORD.itemsize}
    found = {name: os.path.getsize(entry.path(name)) if os.path.exists(entry.path(name)) else 0 for name in sizes}
    if found == sizes:
        return
    if any(found.values()):
        logger.warning("%s: files of the wrong size; all its images are decoded again", entry.folder)
    about = asdict(entry) | {"of": raw.origin, "decoder": decoder()}
    Path(entry.path("about.json")).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    for name in sizes:
        Path(entry.path(name)).unlink(missing_ok=True)  # processes that have it mapped keep it
    with open(entry.path("pixels"), "wb") as file:
        file.truncate(sizes["pixels"])
    with open(entry.path("records"), "wb") as file:
        for start in range(0, sizes["records"], CHUNK_BYTES):  # not sparse: room for every record
            file.write(bytes(min(CHUNK_BYTES, sizes["records"] - start)))


def _strike_damaged(entry: Entry, rows_M: IntArray) -> None:
    """Set the records of damaged images to zero."""
    records, pixels = entry.records(), entry.pixels()
    damaged = [row for row in rows_M.tolist() if zlib.crc32(pixels[row]) != records["crc"][row]]
    with open(entry.path("records"), "r+b") as file:
        for row in damaged:
            file.seek(row * RECORD.itemsize)
            file.write(bytes(RECORD.itemsize))


def _add(entry: Entry, raw: RawSplit, todo: IntArray, what: str, problems: Problems) -> None:
    """Decode rows into the files."""
    total, size = len(todo), max(1, CHUNK_BYTES // entry.image_bytes)
    chunks = [todo[start : start + size] for start in range(0, total, size)]
    by = decoder()
    by_tasks = ray_cache.usable()
    logger.info(
        "decoding %s %s images into %s (%s), once, by %s", f"{total:,}", what, entry.folder,
        bytes_text(total * entry.image_bytes), "Ray tasks" if by_tasks else f"{thread_count()} threads",
    )  # fmt: skip

    def arguments(rows: IntArray) -> DecodeArguments:
        sources = [raw.sources[row] for row in rows.tolist()]
        sources = [os.path.abspath(source) if isinstance(source, str) else source for source in sources]
        return sources, [raw.name(row) for row in rows.tolist()], entry.channels, entry.image_size, by

    def here(i: int, _: int = 0) -> tuple[int, list[str]]:
        decoded = decode_chunk(*arguments(chunks[i]))
        _write(entry, chunks[i], *decoded[:2])
        return i, decoded[2]

    def by_task() -> Iterator[tuple[int, list[str]]]:
        for i, decoded in ray_cache.decoded(decode_chunk, [partial(arguments, rows) for rows in chunks], raw.sources):
            if decoded is None or decoded[2]:  # lost, or unreadable there: what counts is what this machine reads
                yield here(i)
            else:
                _write(entry, chunks[i], *decoded[:2])
                yield i, []

    started = reported = time.monotonic()
    count, damaged = 0, {}
    for i, found in by_task() if by_tasks else in_chunks(here, len(chunks), chunk=1):
        count += len(chunks[i])
        damaged[i] = found
        now = time.monotonic()
        if now - reported > PROGRESS_S:
            reported, rate = now, count / (now - started)
            left = (total - count) / rate / 60
            logger.info("%s of %s images, %.0f a second, %.0f minutes left", f"{count:,}", f"{total:,}", rate, left)
    logger.info("decoded %s images in %.0f s", f"{total:,}", time.monotonic() - started)
    for i in sorted(damaged):
        problems.add(damaged[i])


def _write(entry: Entry, rows: IntArray, pixels_NCHW: ByteArray, records: Records) -> None:
    """Write decoded images and, after them, their records."""
    with open(entry.path("pixels"), "r+b") as images, open(entry.path("records"), "r+b") as file:
        good = np.flatnonzero(records["seal"])
        for i in good:
            _write_at(images.fileno(), pixels_NCHW[i].data, int(rows[i]) * entry.image_bytes)
        for i in good:
            _write_at(file.fileno(), records[i].tobytes(), int(rows[i]) * RECORD.itemsize)


def _write_at(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data).cast("B")
    while view:  # a full disk writes a part first
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _seals(records: Records) -> npt.NDArray[np.uint32]:
    """Checksum of the fields of each record, never 0: it changes with any of the 16 words."""
    words = np.ascontiguousarray(records).view("<u4").reshape(len(records), -1)[:, 1:]
    odd = np.arange(words.shape[1], dtype=np.uint32) * np.uint32(0x9E3779B2) + np.uint32(0x9E3779B1)
    return np.asarray((words @ odd) | np.uint32(1))  # modulo 2**32


def _stat(path: str) -> tuple[int, int]:
    """Size and modification time of a file; (-1, -1) if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


def _modified_ns(source: ImageSource) -> int:
    return _stat(os.fspath(source))[1] if isinstance(source, str | Path) else 0
