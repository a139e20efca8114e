"""Small images with masks: folders, a tree as Cityscapes has it, Parquet files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.tasks.segmentation.task import SegmentationTask, make
from tests.data.making import encoded, image

HEIGHT, WIDTH = 12, 16
CITY_IDS = (0, 4, 7, 8, 11, 23, 24, 26, 33)  # some are classes, others void


def ids_of(seed: int, ids: tuple[int, ...] = (0, 1, 2), size: tuple[int, int] = (HEIGHT, WIDTH)) -> npt.NDArray[Any]:
    """Random ids in blocks of 4x4 pixels, all of them at least once."""
    rng = np.random.default_rng(seed)
    blocks = rng.choice(ids, (-(-size[0] // 4), -(-size[1] // 4)))
    blocks.flat[: len(ids)] = ids
    return np.kron(blocks, np.ones((4, 4), dtype=np.int64))[: size[0], : size[1]]


def mask(ids_HW: npt.NDArray[Any], mode: str = "L") -> Image.Image:
    """A mask: grey, 16 bits, palette, or black and white."""
    if mode == "I;16":
        return Image.fromarray(ids_HW.astype(np.uint16))
    if mode == "1":
        return Image.fromarray(ids_HW.astype(bool))
    found = Image.fromarray(ids_HW.astype(np.uint8))
    if mode == "P":
        found.putpalette([7 * i % 256 for i in range(768)])
    return found


def write_pairs(
    root: Path, count: int = 8, *, mode: str = "L", ids: tuple[int, ...] = (0, 1, 2), prefix: str = "", seed: int = 0
) -> dict[str, Any]:
    """``root/{prefix}images/0.png`` and ``root/{prefix}masks/0.png``, ...; returns both folders."""
    for i in range(count):
        for kind, one in (("images", image(seed + i, (WIDTH, HEIGHT))), ("masks", mask(ids_of(seed + i, ids), mode))):
            file = root / f"{prefix}{kind}" / f"{i % 2}" / f"{i:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            one.save(file)
    return {"path": str(root / f"{prefix}images"), "masks": str(root / f"{prefix}masks")}


def own(root: Path, *, data: dict[str, Any] | None = None, **options: Any) -> SegmentationTask:
    """The task on ``root/images`` and ``root/masks``."""
    places = {"path": str(root / "images"), **(data or {})}
    return make(DataConfig(name="folder", **places), 0, **{"masks": str(root / "masks"), **options})


def write_cityscapes(root: Path, *, end: str = "labelIds") -> Path:
    """Cityscapes' real file names: three cities to train on, one to validate on, and a test city without labels."""
    train_ids = {7: 0, 8: 1, 11: 2, 23: 10, 24: 11, 26: 13, 33: 18}
    for number, (split, city) in enumerate(
        [("train", "aachen"), ("train", "bochum"), ("train", "ulm"), ("val", "frankfurt"), ("test", "berlin")]
    ):
        for i in range(2):
            stem = f"{city}_{i:06}_000019"
            photo = root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png"
            labels = root / "gtFine" / split / city
            for folder in (photo.parent, labels):
                folder.mkdir(parents=True, exist_ok=True)
            seed = 10 * number + i
            image(seed, (WIDTH, HEIGHT)).save(photo)
            ids_HW = ids_of(seed, CITY_IDS) if split != "test" else np.full((HEIGHT, WIDTH), 3)
            if end == "labelTrainIds":
                ids_HW = np.vectorize(lambda i: train_ids.get(i, 255))(ids_HW)
            mask(ids_HW).save(labels / f"{stem}_gtFine_{end}.png")
            image(seed, (WIDTH, HEIGHT)).save(labels / f"{stem}_gtFine_color.png")
    return root


def write_parquet(path: Path, count: int = 6, *, columns: tuple[str, str] = ("image", "label"), **more: Any) -> Path:
    """Images and masks in a Parquet file, as PNG bytes."""
    stored = [
        [{"bytes": encoded(one), "path": None} for one in kind]
        for kind in (
            [image(i, (WIDTH, HEIGHT)) for i in range(count)],
            [mask(ids_of(i)) for i in range(count)],
        )
    ]
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(
        pa.table({name: pa.array(rows, struct) for name, rows in zip(columns, stored, strict=True)} | more), path
    )
    return path


CAMVID_OPTIONS: dict[str, Any] = {"size": (24, 32), "crop": (16, 16)}


def camvid(test_data: Path, seed: int = 0, *, train: int = 12, val: int = 6, **options: Any) -> SegmentationTask:
    """A few small images of CamVid."""
    data = DataConfig(name="camvid", path=str(test_data / "camvid"), train_limit=train, val_limit=val)
    return make(data, seed, **(CAMVID_OPTIONS | options))
