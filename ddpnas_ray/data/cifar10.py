"""CIFAR-10: from torchvision's files or Parquet files in ``data.path``, else downloaded by torchvision."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.data import parquet
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.raw import RawSplit, SplitName, class_names
from ddpnas_ray.storage.network import stall_limit, why_unreachable

KEYS = ("path",)
logger = logging.getLogger(__name__)

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DEFAULT_PATH = "~/.cache/ddpnas_ray/cifar10"
BATCHES = "cifar-10-batches-py"
BY_HAND = (
    f"put torchvision's {BATCHES} folder, or train*.parquet and test*.parquet, into a folder and set data.path to it"
)


def read(config: DataConfig, wanted: Sequence[SplitName]) -> dict[SplitName, RawSplit]:
    """Read the wanted splits; CIFAR-10 has no validation split.

    Raises:
        DataError: The files are missing and cannot be downloaded, or are damaged.
    """
    root = Path(config.path or DEFAULT_PATH).expanduser()
    if root.name == BATCHES:
        root = root.parent
    wanted = [name for name in wanted if name != "val"]
    if not (root / BATCHES).is_dir() and (root.is_file() or parquet.find_files(root, "train")):
        return _read_parquet(root, config, wanted)
    return _read_torchvision(root, wanted)


def _read_parquet(root: Path, config: DataConfig, wanted: Sequence[SplitName]) -> dict[SplitName, RawSplit]:
    splits: dict[SplitName, RawSplit] = {}
    for name, raw in parquet.read(replace(config, path=str(root)), wanted).items():
        if raw.classes is None and isinstance(raw.labels, np.ndarray):
            raw = replace(raw, classes=CLASSES)
        if len(found := class_names(raw)) != len(CLASSES):
            raise DataError(
                f"{raw.origin}: {len(found)} classes, not CIFAR-10's 10; set data.name=parquet for your own data"
            )
        splits[name] = raw
    return splits


def _read_torchvision(root: Path, wanted: Sequence[SplitName]) -> dict[SplitName, RawSplit]:
    try:
        from torchvision.datasets import CIFAR10
    except ImportError as error:
        raise DataError(f"cifar10 from {root} needs torchvision ({error}); pip install torchvision") from None
    if not (root / BATCHES).is_dir():
        _download(CIFAR10, root)
    splits: dict[SplitName, RawSplit] = {}
    for name in wanted:
        try:
            data = CIFAR10(str(root), train=name == "train")
        except Exception as error:  # RuntimeError from checksums; anything from a damaged pickle
            raise DataError(f"{root / BATCHES}: incomplete or damaged ({error}); delete it, or {BY_HAND}") from None
        splits[name] = RawSplit(
            sources=data.data,
            labels=np.array(data.targets, dtype=np.int64),
            classes=tuple(data.classes),
            origin=str(root / BATCHES),
        )
    return splits


def _download(dataset: Any, root: Path) -> None:
    reason = None if (root / dataset.filename).is_file() else why_unreachable(dataset.url)
    if reason is None:
        logger.info("downloading CIFAR-10 (170 MB) into %s", root)
        try:
            with stall_limit():
                dataset(str(root), download=True)
            return
        except Exception as error:  # URLError, OSError, RuntimeError, tarfile's
            reason = " ".join(str(error).split())
    raise DataError(f"{root}: CIFAR-10 not found, and {dataset.url} cannot be downloaded ({reason}); {BY_HAND}")
