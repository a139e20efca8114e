"""One folder of images per class: ``root/class/*.jpg``, or ``root/train/class/*.jpg`` beside ``val`` and ``test``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ddpnas_ray.core.errors import ConfigError, DataError
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.problems import Problems
from ddpnas_ray.data.raw import RawSplit, SplitName

KEYS = ("path", "val_path", "test_path")
SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"))
SPLIT_FOLDERS: dict[SplitName, tuple[str, ...]] = {
    "train": ("train",),
    "val": ("val", "valid", "validation"),
    "test": ("test",),
}


def read(config: DataConfig, wanted: Sequence[SplitName]) -> dict[SplitName, RawSplit]:
    """List the files of the wanted splits; missing splits are omitted.

    Classes are the folders in alphabetical order, each searched recursively. Hidden files and files without an image
    suffix are skipped.

    Raises:
        ConfigError: ``data.path`` is not set.
        DataError: A folder does not exist, or has no class folders.
    """
    if config.path is None:
        raise ConfigError("data.name=folder needs data.path, a folder with one folder of images for each class")
    root = Path(os.path.expanduser(config.path))
    if not os.path.isdir(root):  # unlike Path.is_dir it has an answer for unreachable and endless paths too
        raise DataError(f"{root}: {'not a folder' if os.path.exists(root) else 'no such folder'}; set data.path")
    cache = None if config.cache is None else Path(os.path.expanduser(config.cache)).resolve()
    if cache is not None and root.resolve() in (cache, *cache.parents):
        raise ConfigError(f"data.cache={config.cache} is inside data.path, whose folders are classes; set another one")
    beside = _has_split_folders(root)
    own = {"val": config.val_path, "test": config.test_path}
    splits: dict[SplitName, RawSplit] = {}
    for name in wanted:
        if name == "train":
            splits[name] = _read_classes(root / "train" if beside else root, every_class=True)
        elif (path := own[name]) is not None:
            splits[name] = _read_classes(Path(os.path.expanduser(path)))
        elif beside and (found := next((root / f for f in SPLIT_FOLDERS[name] if (root / f).is_dir()), None)):
            splits[name] = _read_classes(found)
    return splits


def image_files(folder: Path) -> list[str]:
    """Return the paths of the images below a folder, sorted; hidden files and other suffixes are skipped."""
    files = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [os.path.join(parent, name) for name in names if _is_image(name)]
    return sorted(files)


def _has_split_folders(root: Path) -> bool:
    """Return whether ``root/train`` is the training split, not a class of that name (trains among vehicles)."""
    folders = {folder.name for folder in _folders(root)}
    if not folders <= {name for names in SPLIT_FOLDERS.values() for name in names}:
        train = root / "train"
        return (
            "train" in folders and bool(_folders(train)) and not any(_is_image(path.name) for path in train.iterdir())
        )
    if folders and "train" not in folders:
        raise DataError(
            f"{root}: has {', '.join(sorted(folders))} but no folder 'train'; set data.path to the training images"
        )
    return bool(folders)


def _read_classes(root: Path, *, every_class: bool = False) -> RawSplit:
    if not os.path.isdir(root):
        raise DataError(f"{root}: not a folder; expected images at {root / 'CLASS' / 'NAME.png'}")
    folders = _folders(root)
    if not folders:
        loose = len(image_files(root))
        expected = root / "CLASS" / "NAME.png"
        raise DataError(f"{root}: no class folders ({loose} images directly in it); expected images at {expected}")
    for folder in folders:
        if os.fsencode(folder.name).decode("utf-8", "replace") != folder.name:
            raise DataError(f"{root}: the name of class folder {folder.name!a} is not UTF-8; rename it")
    files: list[str] = []
    labels: list[int] = []
    problems = Problems()
    for number, folder in enumerate(folders):
        found = image_files(folder)
        if every_class and not found:
            problems.add(
                [f"{folder}: no images in this class folder; add some ({', '.join(sorted(SUFFIXES))}) or remove it"]
            )
        files += found
        labels += [number] * len(found)
    return RawSplit(
        sources=files,
        labels=np.array(labels, dtype=np.int64),
        classes=tuple(folder.name for folder in folders),
        origin=str(root),
        problems=problems,
    )


def _folders(root: Path) -> list[Path]:
    try:
        kept = [path for path in root.iterdir() if not path.name.startswith((".", "__MACOSX")) and path.is_dir()]
    except OSError as error:
        raise DataError(f"{root}: cannot be read ({error.strerror or error})") from None
    return sorted(kept, key=lambda path: path.name)


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES
