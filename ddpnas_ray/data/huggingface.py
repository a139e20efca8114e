"""Hugging Face data sets: a name on the hub, a folder of ``save_to_disk``, or one that ``load_dataset`` can read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ddpnas_ray.core.errors import ConfigError, DataError
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.raw import RawSplit, SplitName
from ddpnas_ray.data.tables import RowNames, choose_columns, features_of, raw_split
from ddpnas_ray.storage.hub import offline_where_unreachable, refuse_absent

KEYS = ("path", "val_path", "test_path", "image_column", "label_column")
SPLITS: dict[SplitName, tuple[str, ...]] = {
    "train": ("train",),
    "val": ("validation", "valid", "val"),
    "test": ("test",),
}


def read(config: DataConfig, wanted: Sequence[SplitName]) -> dict[SplitName, RawSplit]:
    """Read the wanted splits; missing splits are omitted.

    Raises:
        ConfigError: ``data.path`` is not set.
        DataError: The data set, split or columns do not exist, or the hub cannot be reached.
    """
    if config.path is None:
        raise ConfigError("data.name=huggingface needs data.path, a name on the hub (owner/name) or a local folder")
    own = {"val": config.val_path, "test": config.test_path}
    for name, path in own.items():
        if path is not None:
            refuse_absent(path, f"data.{name}_path")
    loaded = load_splits(config.path, "data.path")
    splits: dict[SplitName, RawSplit] = {}
    for name in wanted:
        if name != "train" and (path := own[name]) is not None:
            mine = load_splits(path, f"data.{name}_path")
            only = next(iter(mine)) if len(mine) == 1 else None
            found = next((key for key in SPLITS[name] if key in mine), only)
            if found is None:
                raise DataError(f"{path}: has no split {' or '.join(SPLITS[name])}; it has {', '.join(mine)}")
            splits[name] = _read_split(mine[found], config, f"{path} ({found})")
        elif found := next((key for key in SPLITS[name] if key in loaded), None):
            splits[name] = _read_split(loaded[found], config, f"{config.path} ({found})")
        elif name == "train":
            raise DataError(f"{config.path}: has no split train; it has {', '.join(loaded)}")
    return splits


def load_splits(path: str, key: str, subset: str | None = None) -> dict[str, Any]:
    """Load all splits of a data set by name, memory-mapped; a data set without splits is ``train``.

    Args:
        path: Name on the hub, or a local folder.
        key: The configuration key that holds it, for messages.
        subset: Name of one of the data sets below that name on the hub.

    Raises:
        DataError: It does not exist, is damaged, or the hub cannot be reached.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"{key}={path} needs the package datasets ({error}); pip install datasets") from None
    refuse_absent(path, key)
    local = Path(path).expanduser()
    try:
        if (local / "dataset_dict.json").is_file() or (local / "state.json").is_file():
            loaded = datasets.load_from_disk(str(local))
        elif local.exists():
            loaded = datasets.load_dataset(str(local))
        else:
            given = repr(path) if subset is None else f"{path!r}, {subset!r}"
            with offline_where_unreachable(path, key, f"run load_dataset({given}).save_to_disk(FOLDER)"):
                loaded = datasets.load_dataset(path, subset)
    except DataError:
        raise
    except Exception as error:  # FileNotFoundError, ValueError, DatasetNotFoundError, ArrowInvalid, ...
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(f"{path}: cannot be loaded as a Hugging Face data set ({why})") from None
    return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}


def _read_split(dataset: Any, config: DataConfig, origin: str) -> RawSplit:
    schema = dataset.features.arrow_schema
    image, label = choose_columns(schema, features_of(schema), config, origin)
    table = dataset.select_columns([image, label]).with_format("arrow")[:]
    names = RowNames(files=(origin,), starts=(0,), total=len(table))
    return raw_split(table, image, label, features_of(schema), origin, names=names, base=Path())
