"""Images in Parquet files: one file, or a folder with ``train*.parquet`` and optionally ``val*`` and ``test*``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from ddpnas_ray.core.errors import ConfigError, DataError
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.raw import RawSplit, SplitName
from ddpnas_ray.data.tables import RowNames, choose_columns, features_of, raw_split

KEYS = ("path", "val_path", "test_path", "image_column", "label_column")


def read(config: DataConfig, wanted: Sequence[SplitName]) -> dict[SplitName, RawSplit]:
    """Read the wanted splits; missing splits are omitted.

    Images stay encoded, in memory: for larger sets, use ``data.name=folder``. Labels are integers or strings; class
    names come from a Hugging Face ClassLabel in the file's metadata, if there is one.

    Raises:
        ConfigError: ``data.path`` is not set.
        DataError: A file does not exist, is not Parquet, or lacks the columns.
    """
    if config.path is None:
        raise ConfigError("data.name=parquet needs data.path, a Parquet file or a folder with train*.parquet")
    root = Path(config.path).expanduser()
    own = {"val": config.val_path, "test": config.test_path}
    splits: dict[SplitName, RawSplit] = {}
    for name in wanted:
        if name != "train" and (path := own[name]) is not None:
            files = find_files(Path(path).expanduser(), name) or find_files(Path(path).expanduser(), "")
        else:
            files = find_files(root, name)
        if files:
            splits[name] = _read_files(files, config)
        elif name == "train":
            raise DataError(_no_files(root))
        elif own[name] is not None:
            raise DataError(f"{own[name]}: no *.parquet files in it; correct data.{name}_path")
    return splits


def find_files(root: Path, split: str) -> list[Path]:
    """List a split's Parquet files by name; a path that is a file counts as ``train``, or as any split for ``""``.

    Example:
        >>> find_files(Path("absent"), "train")
        []
    """
    if root.is_dir():
        return sorted(root.glob(f"{split}*.parquet"))
    return [root] if root.is_file() and split in ("train", "") else []


def _no_files(root: Path) -> str:
    if not root.exists():
        return f"{root}: no such file or folder; set data.path"
    others = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.parquet"))[:5]]
    found = f"it has {', '.join(others)}" if others else "it has no Parquet files"
    return f"{root}: no train*.parquet in it; {found}; set data.path to a file, or to the folder with train*.parquet"


def _read_files(files: list[Path], config: DataConfig) -> RawSplit:
    import pyarrow as pa
    import pyarrow.parquet as pq

    origin = str(files[0] if len(files) == 1 else files[0].parent)
    tables: list[pa.Table] = []
    reading = files[0]
    try:
        schema = pq.read_schema(reading)
        features = features_of(schema)
        image, label = choose_columns(schema, features, config, str(reading))
        for reading in files:
            if missing := {image, label} - set(pq.read_schema(reading).names):
                raise DataError(f"{reading}: no column {missing.pop()!r}, which {files[0].name} has")
            with pq.ParquetFile(reading) as file:
                # No Arrow threads: they can abort a process that exits soon after (see storage/parquet.py).
                tables.append(file.read(columns=[image, label], use_threads=False))
        table = pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{reading}: cannot be read as Parquet ({' '.join(str(error).split())})") from None
    starts = accumulate((len(part) for part in tables[:-1]), initial=0)
    names = RowNames(files=tuple(str(file) for file in files), starts=tuple(starts), total=len(table))
    return raw_split(table, image, label, features, origin, names=names, base=files[0].parent)
