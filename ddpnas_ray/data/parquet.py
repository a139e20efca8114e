"""Images in Parquet files: one file, or a folder with ``train*.parquet`` and optionally ``val*`` and ``test*``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from ddpnas_ray.core.errors import ConfigError, DataError
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.raw import RawSplit, SplitName
from ddpnas_ray.data.tables import RowNames, choose_columns, features_of, raw_split

KEYS = ("path", "val_path", "test_path", "image_column", "label_column")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Two columns of Parquet files.

    Args:
        table: The Arrow table.
        schema: Schema of the first file.
        columns: Names of the two columns.
        origin: The file or folder, for errors.
        names: Names of the rows, for errors.
        base: Base folder of relative paths.
    """

    table: Any
    schema: Any
    columns: tuple[str, str]
    origin: str
    names: RowNames
    base: Path


def read(config: DataConfig, wanted: Sequence[SplitName]) -> dict[SplitName, RawSplit]:
    """Read the wanted splits; missing splits are omitted.

    Images stay encoded, in memory: for larger sets, use ``data.name=folder``. Labels are integers or strings; class
    names come from a Hugging Face ClassLabel in the file's metadata, if there is one.

    Raises:
        ConfigError: ``data.path`` is not set.
        DataError: A file does not exist, is not Parquet, or lacks the columns.
    """
    found = {name: split_files(config, name) for name in wanted}
    return {name: _read_files(files, config) for name, files in found.items() if files}


def split_files(config: DataConfig, name: SplitName) -> list[Path]:
    """List the files of a split; empty: there are none.

    Raises:
        ConfigError: ``data.path`` is not set.
        DataError: There are none of training, or none where ``val_path`` or ``test_path`` says.
    """
    if config.path is None:
        raise ConfigError(f"data.name={config.name} needs data.path, a Parquet file or a folder with train*.parquet")
    root = Path(config.path).expanduser()
    own = {"train": None, "val": config.val_path, "test": config.test_path}[name]
    if own is None:
        files = find_files(root, name)
    else:
        files = find_files(Path(own).expanduser(), name) or find_files(Path(own).expanduser(), "")
        if not files:
            raise DataError(f"{own}: no *.parquet files in it; correct data.{name}_path")
    if not files and name == "train":
        raise DataError(_no_files(root))
    return files


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


def read_table(files: Sequence[Path], choose: Callable[[Any, str], tuple[str, str]]) -> Table:
    """Read two columns of Parquet files.

    Args:
        files: The files, one or more.
        choose: (schema of the first file, its name) -> the two columns.

    Raises:
        DataError: A file is not Parquet, or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables: list[pa.Table] = []
    reading = files[0]
    try:
        schema = pq.read_schema(reading)
        columns = choose(schema, str(reading))
        for reading in files:
            if missing := set(columns) - set(pq.read_schema(reading).names):
                raise DataError(f"{reading}: no column {missing.pop()!r}, which {files[0].name} has")
            with pq.ParquetFile(reading) as file:
                # No Arrow threads: they can abort a process that exits soon after (see storage/parquet.py).
                tables.append(file.read(columns=list(columns), use_threads=False))
        table = pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{reading}: cannot be read as Parquet ({' '.join(str(error).split())})") from None
    starts = accumulate((len(part) for part in tables[:-1]), initial=0)
    return Table(
        table=table,
        schema=schema,
        columns=columns,
        origin=str(files[0] if len(files) == 1 else files[0].parent),
        names=RowNames(files=tuple(str(file) for file in files), starts=tuple(starts), total=len(table)),
        base=files[0].parent,
    )


def _read_files(files: list[Path], config: DataConfig) -> RawSplit:
    found = read_table(files, lambda schema, origin: choose_columns(schema, features_of(schema), config, origin))
    features = features_of(found.schema)
    return raw_split(found.table, *found.columns, features, found.origin, names=found.names, base=found.base)
