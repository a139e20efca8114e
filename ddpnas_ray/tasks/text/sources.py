"""Where the examples of a text task are: a GLUE task by name, or data of your own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ddpnas_ray.core.errors import ConfigError, DataError, did_you_mean
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.huggingface import load_splits
from ddpnas_ray.data.raw import SplitName
from ddpnas_ray.storage.hub import refuse_absent
from ddpnas_ray.tasks.text.reading import FORMATS, Columns, Rows, read_files, read_loaded

BEGINNINGS: Mapping[SplitName, tuple[str, ...]] = {"train": ("train",), "val": ("val", "dev"), "test": ("test",)}
HUB = "nyu-mll/glue"


class Source(Protocol):
    """The examples of one task."""

    @property
    def name(self) -> str:
        """Short name."""
        ...

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Class names, if they are known before the data are read; empty: numbers are predicted."""
        ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """Its metrics, of which the score is the mean."""
        ...

    @property
    def columns(self) -> Columns:
        """Its text columns and its label, as data that are to be predicted should name them."""
        ...

    def read(self, split: SplitName) -> dict[str, Rows]:
        """Read a split, which may have several parts, each scored on its own; empty: there is none.

        Raises:
            DataError: It cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Glue:
    """A task of GLUE (Wang et al., 2018).

    Args:
        folder: Name of its folder in GLUE's own archive.
        texts: Its texts on the Hugging Face hub.
        tsv: Texts and label in GLUE's own files.
        classes: Class names, in the order of their numbers; empty: numbers are predicted.
        metrics: Its metrics.
        parts: Names of the parts of its validation and test examples.
    """

    folder: str
    texts: tuple[str, ...]
    tsv: tuple[str, ...]
    classes: tuple[str, ...]
    metrics: tuple[str, ...] = ("accuracy",)
    parts: tuple[str, ...] = ("",)


PAIR = ("sentence1", "sentence2")
ENTAILMENT = ("entailment", "not_entailment")
GLUE: dict[str, Glue] = {
    "cola": Glue(
        folder="CoLA", texts=("sentence",), tsv=("3", "1"), classes=("unacceptable", "acceptable"),
        metrics=("matthews",),
    ),
    "mnli": Glue(
        folder="MNLI", texts=("premise", "hypothesis"), tsv=(*PAIR, "gold_label"),
        classes=("entailment", "neutral", "contradiction"), parts=("_matched", "_mismatched"),
    ),
    "mrpc": Glue(
        folder="MRPC", texts=PAIR, tsv=("#1 String", "#2 String", "Quality"), classes=("not_equivalent", "equivalent"),
        metrics=("accuracy", "f1"),
    ),
    "qnli": Glue(
        folder="QNLI", texts=("question", "sentence"), tsv=("question", "sentence", "label"), classes=ENTAILMENT
    ),
    "qqp": Glue(
        folder="QQP", texts=("question1", "question2"), tsv=("question1", "question2", "is_duplicate"),
        classes=("not_duplicate", "duplicate"),
    ),
    "rte": Glue(folder="RTE", texts=PAIR, tsv=(*PAIR, "label"), classes=ENTAILMENT),
    "sst2": Glue(
        folder="SST-2", texts=("sentence",), tsv=("sentence", "label"), classes=("negative", "positive")
    ),
    "stsb": Glue(folder="STS-B", texts=PAIR, tsv=(*PAIR, "score"), classes=(), metrics=("pearson", "spearman")),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GlueSource:
    """Examples of a GLUE task: Parquet files as on the hub, GLUE's own TSV files, or downloaded.

    Args:
        name: Its name.
        path: ``data.path``; None: the hub.
        only: Whether it is the only task, so that the path may be its own folder.
        dev: Which examples GLUE's development set gives.
    """

    name: str
    path: str | None
    only: bool
    dev: SplitName

    @property
    def classes(self) -> tuple[str, ...]:
        """See ``Source``."""
        return GLUE[self.name].classes

    @property
    def metrics(self) -> tuple[str, ...]:
        """See ``Source``."""
        return GLUE[self.name].metrics

    @property
    def columns(self) -> Columns:
        """See ``Source``: as on the hub."""
        return Columns(texts=GLUE[self.name].texts, label="label", lenient=True)

    def read(self, split: SplitName) -> dict[str, Rows]:
        """See ``Source``."""
        if split == "val" and self.dev == "test":
            return {}
        stored: SplitName = "val" if split == self.dev else split
        task, labelled = GLUE[self.name], stored != "test"
        parts = ("",) if stored == "train" else task.parts
        if self.path is None:
            loaded = load_splits(HUB, "data.path", self.name)
            key = {"train": "train", "val": "validation", "test": "test"}[stored]
            columns = self.columns
            return {
                self.name + part: read_loaded(loaded[key + part], columns, f"{HUB} ({key}{part})", labelled=labelled)
                for part in parts
            }
        folder, found = self._folder(Path(self.path).expanduser()), {}
        for part in parts:
            files = _files(folder, [beginning + part for beginning in ("train", "validation", "val", "dev", "test")
                                    if beginning.startswith(BEGINNINGS[stored])])  # fmt: skip
            if files:
                columns = self.columns
                if files[0].suffix.lower() != ".parquet":
                    columns = Columns(texts=task.tsv[:-1], label=task.tsv[-1], lenient=True)
                    if self.name == "cola" and stored == "test":
                        columns = Columns(texts=("sentence",), label="label", lenient=True)
                found[self.name + part] = read_files(files, columns, labelled=labelled)
            elif stored == "train" or found:
                raise DataError(f"{folder}: no file {stored}{part}* of GLUE's {self.name} ({', '.join(FORMATS)})")
        return found

    def _folder(self, root: Path) -> Path:
        """Return the task's folder in that of all."""
        if not root.is_dir():
            raise DataError(f"{root}: no such folder; set data.path to the folder with those of GLUE's tasks")
        folders = [path for path in sorted(root.iterdir()) if path.is_dir()]
        for path in folders:
            if path.name.lower().replace("-", "").replace("_", "") == self.name:
                return path
        if self.only and _files(root, ["train"]):
            return root
        listed = ", ".join(path.name for path in folders[:10]) or "none"
        raise DataError(f"{root}: no folder {self.name} or {GLUE[self.name].folder}; its folders: {listed}")


@dataclass(frozen=True, slots=True)
class OwnSource:
    """Data of one's own: a file, a folder of files, or a Hugging Face data set.

    Args:
        data: Section ``data``.
        columns: What is read.
        regression: Whether numbers are predicted.
    """

    data: DataConfig
    columns: Columns
    regression: bool

    @property
    def name(self) -> str:
        """See ``Source``."""
        return Path(str(self.data.path)).expanduser().resolve().stem

    @property
    def classes(self) -> tuple[str, ...] | None:
        """See ``Source``."""
        return () if self.regression else None

    @property
    def metrics(self) -> tuple[str, ...]:
        """See ``Source``."""
        return ("pearson", "spearman") if self.regression else ("accuracy",)

    def read(self, split: SplitName) -> dict[str, Rows]:
        """See ``Source``."""
        own = {"train": None, "val": self.data.val_path, "test": self.data.test_path}[split]
        key = "data.path" if own is None else f"data.{split}_path"
        where = str(self.data.path) if own is None else own
        local = Path(where).expanduser()
        stored = (local / "dataset_dict.json").is_file() or (local / "state.json").is_file()
        if local.exists() and not stored:
            files = self._files(local, split, own is not None, key)
            return {self.name: read_files(files, self.columns)} if files else {}
        refuse_absent(where, key)
        if local.suffix.lower() in FORMATS:
            raise DataError(f"{where}: no such file; set {key}")
        loaded: dict[str, Any] = load_splits(where, key)
        names = [name for name in loaded if name.startswith(BEGINNINGS[split])]
        if not names and own is not None and len(loaded) == 1:
            names = list(loaded)
        if not names:
            if split == "train" or own is not None:
                raise DataError(f"{where}: has no split {split}; it has {', '.join(loaded)}")
            return {}
        return {self.name: read_loaded(loaded[names[0]], self.columns, f"{where} ({names[0]})")}

    def _files(self, path: Path, split: SplitName, own: bool, key: str) -> list[Path]:
        if path.is_file():
            if path.suffix.lower() not in FORMATS:
                raise DataError(f"{path}: not one of {', '.join(FORMATS)}; convert it, and set {key}")
            return [path] if own or split == "train" else []
        files = _files(path, BEGINNINGS[split]) or (_files(path, [""]) if own else [])
        if not files and (own or split == "train"):
            raise DataError(f"{path}: no {split}* file ({', '.join(FORMATS)}) in it; set {key} to a file")
        return files


def find_sources(
    data: DataConfig, glue: Sequence[str], columns: Sequence[str], regression: bool, dev: SplitName
) -> list[Source]:
    """Return the sources that a configuration names.

    Args:
        data: Section ``data``.
        glue: Names of GLUE tasks.
        columns: Else the text columns of data of one's own.
        regression: Whether those have numbers to predict.
        dev: Which examples GLUE's development sets give.

    Raises:
        ConfigError: A name is unknown, or a key does not apply.
    """
    _refuse_keys_of_images(data)
    if bool(glue) == bool(columns):
        raise ConfigError(
            "task text: set task.glue to names of GLUE tasks, such as [sst2], or task.columns to the text columns of "
            f"your own data, such as [sentence]; {'both are' if glue else 'neither is'} set"
        )
    for names, key in ((glue, "task.glue"), (columns, "task.columns")):
        if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
            raise ConfigError(f"{key} has {twice!r} twice; remove one")
    if glue:
        for name in glue:
            if name == "wnli":
                raise ConfigError("task.glue: wnli is left out, as in the paper and in BERT's; remove it")
            if name not in GLUE:
                raise ConfigError(f"task.glue: {name!r} is not a task of GLUE{did_you_mean(name, GLUE)}")
        keys = ("label_column", "val_path", "test_path")
        if wrong := next((key for key in keys if getattr(data, key) is not None), None):
            raise ConfigError(f"data.{wrong} is for data of your own, not for task.glue; remove it")
        if regression:
            raise ConfigError("task.regression is for data of your own, not for task.glue; remove it")
        return [GlueSource(name, data.path, len(glue) == 1, dev) for name in glue]
    if dev != "val":
        raise ConfigError("task.dev is for task.glue; for data of your own set data.test_path")
    if len(columns) > 2:
        raise ConfigError(f"task.columns has {len(columns)} names; a text is one column, or a pair of two")
    label = "label" if data.label_column is None else data.label_column
    if label in columns:
        raise ConfigError(f"task.columns has {label!r}, which is the label; set data.label_column to another column")
    if data.path is None:
        raise ConfigError("task.columns needs data.path: a TSV, CSV or Parquet file, a folder, or a name on the hub")
    return [OwnSource(data, Columns(texts=tuple(columns), label=label), regression)]


def _refuse_keys_of_images(data: DataConfig) -> None:
    plain = DataConfig()
    for key in ("name", "image_column", "image_size", "channels", "cache", "mean", "std", "crop", "flip", "cutout"):
        if (value := getattr(data, key)) != getattr(plain, key):
            raise ConfigError(f"data.{key} is {value!r}, which is for images; task text does not read it: remove it")


def _files(folder: Path, beginnings: Sequence[str]) -> list[Path]:
    """Return the files of a folder in the first format that any has, whose names have one of these beginnings."""
    found = [path for path in sorted(folder.iterdir()) if path.name.startswith(tuple(beginnings)) and path.is_file()]
    by_format = ([path for path in found if path.suffix.lower() == suffix] for suffix in FORMATS)
    return next((files for files in by_format if files), [])
