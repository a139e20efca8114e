"""Open images with masks: check every one, split them by seed, and decode what fits in memory.

Axes: N images, C classes.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.data.decoding import native_shape, open_image, read_source
from ddpnas_ray.data.overlays import default_palette
from ddpnas_ray.data.pixels import in_chunks
from ddpnas_ray.data.problems import Problems
from ddpnas_ray.data.split import LIMIT_KEY, SPLIT_KEY
from ddpnas_ray.tasks.segmentation.masks import Labelling, own_classes, pixels_of, read_ids
from ddpnas_ray.tasks.segmentation.pairs import Decoded, Encoded, Size, Split, refuse_other_size
from ddpnas_ray.tasks.segmentation.sources import Listed, Palette, Source

logger = logging.getLogger(__name__)

DECODED_LIMIT_BYTES = 4 * 2**30
CHUNK = 32  # images per task
PROGRESS_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskData:
    """Open training and validation images.

    Args:
        labelling: Classes and their ids.
        palette: Colours of the classes.
        size: Height and width of all images.
        train: Images to train on.
        val: Images to score on.
        digest: SHA-256 of both splits: stored bytes of images and masks, rows, classes, ids and size.
    """

    labelling: Labelling
    palette: Palette
    size: Size
    train: Split
    val: Split
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What one image and its mask are: SHA-256 of both, size, pixels of every id, and colours of a palette image."""

    digest: bytes
    size: Size
    pixels: Mapping[int, int]
    palette: Sequence[int] | None


def load(source: Source, seed: int, size: Size | None, *, decoded_limit_bytes: int = DECODED_LIMIT_BYTES) -> MaskData:
    """Open the training and validation images; test images are not read.

    Every mask is read once, and every image's header; larger sets than the limit are decoded at every access.

    Args:
        source: Names the data.
        seed: Keys the split and the limits.
        size: Height and width that images are resized to; None: that of all images.
        decoded_limit_bytes: Most memory for pixels and labels.

    Raises:
        ConfigError: A key does not apply.
        DataError: The data are missing, unreadable or not what the configuration says; one error lists all problems.
    """
    train, own_val = _needed(source), source.read("val")
    problems = Problems()
    for listed in (train, own_val):
        if listed is not None:
            problems.extend(listed.problems)
    problems.refuse()
    rows, val_rows = _choose(train, own_val, source, seed)
    val = train if own_val is None else own_val
    # ids that only a rare mask has are classes too, drawn or not
    looked = _look(train, rows if train.labelling is not None else np.arange(len(train)), "training", problems)
    seen = {int(row): one for row, one in zip(*looked, strict=True)}
    rest = np.array([row for row in val_rows if val is not train or int(row) not in seen], dtype=np.int64)
    seen_val = {int(row): one for row, one in zip(*_look(val, rest, "validation", problems), strict=True)}
    problems.refuse()
    labelling = train.labelling or own_classes([i for one in seen.values() for i in one.pixels], source.own_void,
                                               train.origin)  # fmt: skip
    every = [[seen[int(row)] for row in rows], [seen_val.get(int(row)) or seen[int(row)] for row in val_rows]]
    _refuse_one_class(labelling, every[0], source, train.origin)
    size = size or _common_size([one for several in every for one in several], train.origin)
    decode = (len(rows) + len(val_rows)) * 4 * size[0] * size[1] <= decoded_limit_bytes
    splits = [
        _open(listed, chosen, ones, listed.labelling or labelling, size, decode, problems)
        for listed, chosen, ones in ((train, rows, every[0]), (val, val_rows, every[1]))
    ]
    problems.refuse()
    _refuse_void(splits[1], val.origin)
    logger.info(
        "%s: %d training and %d validation images of %d classes, %dx%d%s",
        source.data.name, len(rows), len(val_rows), len(labelling.classes), *size,
        "" if decode else ", decoded on access",
    )  # fmt: skip
    return MaskData(
        labelling=labelling,
        palette=source.palette or _palette(every[0], labelling),
        size=size,
        train=splits[0],
        val=splits[1],
        digest=_digest(labelling, size, list(zip((rows, val_rows), every, strict=True))),
    )


def load_test(
    source: Source, labelling: Labelling, size: Size, *, decoded_limit_bytes: int = DECODED_LIMIT_BYTES
) -> Split:
    """Open the test images, read once, after retraining.

    Args:
        source: Names the data.
        labelling: That of the training images.
        size: Theirs too.
        decoded_limit_bytes: Most memory for pixels and labels.

    Raises:
        DataError: There are none, or they cannot be used.
    """
    listed = source.read("test")
    if listed is None:
        own = "; set data.test_path" if source.data.name in ("folder", "parquet") else ""
        raise DataError(f"{source.data.path}: no test images{own}")
    problems = Problems()
    problems.extend(listed.problems)
    rows, seen = _look(listed, np.arange(len(listed)), "test", problems)
    problems.refuse()
    decode = len(rows) * 4 * size[0] * size[1] <= decoded_limit_bytes
    split = _open(listed, rows, seen, listed.labelling or labelling, size, decode, problems)
    problems.refuse()
    _refuse_void(split, listed.origin)
    return split


def _needed(source: Source) -> Listed:
    train = source.read("train")
    assert train is not None  # every reader has it, or raises
    return train


def _choose(train: Listed, own_val: Listed | None, source: Source, seed: int) -> tuple[IntArray, IntArray]:
    """Choose the rows to train and to score on: plain draws, as an image has no class."""
    data = source.data
    if own_val is None:
        held_out = max(1, round(len(train) * data.val_fraction))
        if held_out >= len(train):
            raise DataError(
                f"{train.origin}: data.val_fraction={data.val_fraction:g} of {len(train)} image(s) leaves none to "
                "train on; lower it, add images, or set data.val_path"
            )
        order = rng_for(seed, SPLIT_KEY).permutation(len(train))
        rows, val_rows = np.sort(order[held_out:]), np.sort(order[:held_out])
    else:
        rows, val_rows = np.arange(len(train)), np.arange(len(own_val))
    return _drawn(rows, data.train_limit, seed, 0), _drawn(val_rows, data.val_limit, seed, 1)


def _drawn(rows: IntArray, limit: int | None, seed: int, split: int) -> IntArray:
    if limit is None or limit >= len(rows):
        return rows
    return np.sort(rng_for(seed, LIMIT_KEY, split).permutation(rows)[:limit])


def _look(listed: Listed, rows: IntArray, what: str, problems: Problems) -> tuple[IntArray, list[_Seen]]:
    """Read every mask, and every image's header; images that cannot be used are problems, and are left out."""

    def work(start: int, stop: int) -> tuple[list[tuple[int, _Seen]], Problems]:
        found, bad = [], Problems()
        for row in rows[start:stop].tolist():
            with bad.collecting():
                found.append((row, _seen(listed, row)))
                if listed.labelling is not None:
                    bad.add(listed.labelling.unknown(found[-1][1].pixels, listed.mask_name(row)))
        return found, bad

    every: list[tuple[int, _Seen]] = []
    started = reported = time.monotonic()
    for found, bad in in_chunks(work, len(rows), chunk=CHUNK):
        every += found
        problems.extend(bad)
        if time.monotonic() - reported > PROGRESS_S:
            reported = time.monotonic()
            logger.info("%s masks: %d of %d read in %.0f s", what, len(every), len(rows), reported - started)
    return np.array([row for row, _ in every], dtype=np.int64), [seen for _, seen in every]


def _seen(listed: Listed, row: int) -> _Seen:
    name, mask_name = listed.name(row), listed.mask_name(row)
    stored, stored_mask = read_source(listed.images[row], name), read_source(listed.masks[row], mask_name)
    sha = hashlib.sha256()
    for one in (stored, stored_mask):
        sha.update(hashlib.sha256(one if isinstance(one, bytes) else one.tobytes()).digest())
    _, height, width = native_shape(open_image(stored, name, load=False))
    ids_HW, image = read_ids(stored_mask, mask_name)
    refuse_other_size((height, width), ids_HW.shape, name, mask_name)
    return _Seen(
        digest=sha.digest(),
        size=(height, width),
        pixels=pixels_of(ids_HW),
        palette=image.getpalette("RGB") if image.mode == "P" else None,
    )


def _open(
    listed: Listed,
    rows: IntArray,
    seen: Sequence[_Seen],
    labelling: Labelling,
    size: Size,
    decode: bool,
    problems: Problems,
) -> Split:
    """Return chosen images; what cannot be decoded is a problem."""
    for row, one in zip(rows.tolist(), seen, strict=True):
        if listed.labelling is None:  # else told already
            problems.add(labelling.unknown(one.pixels, listed.mask_name(row)))
    counts_NC = np.array([labelling.counts(one.pixels) for one in seen]).reshape(len(rows), len(labelling.classes))
    names = _Names(listed, masks=False), _Names(listed, masks=True)
    pairs = Encoded(listed.images, listed.masks, names, labelling, size).picked(rows)
    if not decode or problems:
        return Split(pairs, counts_NC)
    pixels_N3HW = np.empty((len(rows), 3, *size), dtype=np.uint8)
    labels_NHW = np.empty((len(rows), *size), dtype=np.uint8)

    def work(start: int, stop: int) -> Problems:
        bad = Problems()
        for i in range(start, stop):
            with bad.collecting():
                pixels_N3HW[i : i + 1], labels_NHW[i : i + 1] = pairs.gather(np.array([i]))
        return bad

    for bad in in_chunks(work, len(rows), chunk=CHUNK):
        problems.extend(bad)
    return Split(Decoded(pixels_N3HW, labels_NHW), counts_NC)


def _refuse_one_class(labelling: Labelling, seen: Sequence[_Seen], source: Source, origin: str) -> None:
    counts_C = sum((labelling.counts(one.pixels) for one in seen), np.zeros(len(labelling.classes), dtype=np.int64))
    found = [name for name, count in zip(labelling.classes, counts_C, strict=True) if count]
    if len(found) < 2:
        void = "" if labelling.void is None else f" (id {labelling.void} is void: task.void=-1 makes it a class)"
        have = f"only one class ({found[0]})" if found else "no class"
        raise DataError(f"{origin}: the training masks have {have}; a search needs at least 2{void}")


def _refuse_void(split: Split, origin: str) -> None:
    if not split.counts_NC.any():
        raise DataError(f"{origin}: no mask has a pixel of any class, so there is no score; masks may be withheld")


def _common_size(seen: Sequence[_Seen], origin: str) -> Size:
    found = Counter(one.size for one in seen)
    (size, _), *others = found.most_common(4)
    if others:
        listed = ", ".join(f"{width}x{height} ({n} images)" for (height, width), n in found.most_common(4))
        more = f" and {len(found) - 4} more sizes" if len(found) > 4 else ""
        raise DataError(
            f"{origin}: images have several sizes: {listed}{more}; set task.size=[{size[0]}, {size[1]}] (height, "
            "width) to resize images and masks"
        )
    return size


def _palette(seen: Sequence[_Seen], labelling: Labelling) -> Palette:
    """Return the colours of the first palette image, else the default ones."""
    values = next((one.palette for one in seen if one.palette is not None), None)
    if values is None or any(3 * i + 3 > len(values) for i in labelling.ids):
        return default_palette(len(labelling.ids))
    return tuple((values[3 * i], values[3 * i + 1], values[3 * i + 2]) for i in labelling.ids)


def _digest(labelling: Labelling, size: Size, splits: Sequence[tuple[IntArray, Sequence[_Seen]]]) -> str:
    shown = labelling.classes, labelling.ids, labelling.void, size
    sha = hashlib.sha256(repr(shown).encode())
    for rows, seen in splits:
        sha.update(len(rows).to_bytes(8, "little"))
        sha.update(rows.astype("<i8").tobytes())
        for one in seen:
            sha.update(one.digest)
    return sha.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class _Names(Sequence[str]):
    """Names of the images of a split, or of their masks."""

    listed: Listed
    masks: bool

    def __len__(self) -> int:
        return len(self.listed)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        return self.listed.mask_name(index) if self.masks else self.listed.name(index)
