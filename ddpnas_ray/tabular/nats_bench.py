"""Convert the official files of NATS-Bench's topology space (NAS-Bench-201) into a checked table for searches.

They are pickles: unpickling a file can execute arbitrary code, so read only files from the benchmark's own download.
The resulting table contains no pickles. The official package ``nats_bench`` reads them (pip install nats_bench).

Neither torch nor ray is imported here. Axes: E edges.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ddpnas_ray.core.errors import DataError, GenotypeError, ResourceError
from ddpnas_ray.core.space import CostFunction, IntArray
from ddpnas_ray.spaces.base import SpaceSpec
from ddpnas_ray.spaces.target import Target

ARCHIVE = "NATS-tss-v1_0-3ffb9-simple"
META = "meta.pickle.pbz2"
EPOCHS = (12, 200)
COSTS = ("params", "flops")
DIFFERENT = 10  # units: the official package compares the first five decimals of its millions


@dataclass(frozen=True)
class DataSet:
    """A data set of the benchmark.

    Args:
        name: Its name in column names.
        image_size: Side of its images in pixels.
        classes: Number of classes.
        splits: Split in column names -> the benchmark's name for those images.
    """

    name: str
    image_size: int
    classes: int
    splits: Mapping[str, str]


# By the benchmark's names, in column order. By default a search uses the first that fit (ScoreTable.column): the
# validation images of a training on half of CIFAR-10's training images, and the test images of one on all of them.
DATA = {
    "cifar10": DataSet("cifar10", 32, 10, {"train": "train", "test": "ori-test"}),
    "cifar10-valid": DataSet("cifar10valid", 32, 10, {"train": "train", "valid": "x-valid", "test": "ori-test"}),
    "cifar100": DataSet("cifar100", 32, 100, {"train": "train", "valid": "x-valid", "test": "x-test"}),
    "ImageNet16-120": DataSet("imagenet16", 16, 120, {"train": "train", "valid": "x-valid", "test": "x-test"}),
}


@dataclass(frozen=True)
class Imported:
    """Content of the official files.

    Args:
        table: One row per architecture, in the benchmark's order, with the columns of ``tabular.table``.
        trainings: (data set, epochs) -> number of trainings -> number of architectures with that many.
        anomalies: Cost -> number of architectures with a training whose record differs from the exact cost.
    """

    table: pa.Table
    trainings: Mapping[tuple[str, int], Counter[int]]
    anomalies: Mapping[str, int]


@dataclass(frozen=True)
class OfficialFolder:
    """The unpacked archive: one file per architecture.

    Args:
        path: The folder.
        spec: The space, NAS-Bench-201's.
        texts: Architecture strings in the benchmark's order.
        alphas: The same architectures as alphas.
        files: Their files.
    """

    path: str
    spec: SpaceSpec
    texts: Sequence[str]
    alphas: Sequence[IntArray]
    files: Sequence[Path]

    @classmethod
    def open(cls, path: str, spec: SpaceSpec) -> OfficialFolder:
        """Find the files and check that none is missing, without reading any architecture.

        Raises:
            ResourceError: The official package is not installed.
            DataError: Not such a folder, of another space, or incomplete.
        """
        _official()
        folder = Path(path)
        if not (folder / META).is_file():
            what = f"has no {META}" if folder.is_dir() else "is not a folder"
            raise DataError(f"{path}: {what}; unpack {ARCHIVE}.tar and pass its folder")
        texts, alphas = _architectures(folder / META, spec)
        files = [folder / f"{i:06d}.pickle.pbz2" for i in range(len(texts))]
        if absent := [file.name for file in files if not file.is_file()]:
            raise DataError(
                f"{path}: {len(absent):,} of {len(files):,} architectures are missing, starting with {absent[0]}; "
                f"unpack {ARCHIVE}.tar again"
            )
        return cls(path, spec, texts, alphas, files)

    def read(self, names: Iterable[str], on_read: Callable[[int], None]) -> Imported:
        """Read and check every architecture.

        Args:
            names: Data sets, by the benchmark's names.
            on_read: Called with the number of architectures read so far.

        Raises:
            DataError: A file is damaged, contradicts itself, or does not match the benchmark's documentation.
        """
        names = [name for name in DATA if name in set(names)]
        costs = {name: self._costs(DATA[name]) for name in names}
        counts = {(name, epochs): Counter[int]() for name in names for epochs in EPOCHS}
        anomalies: dict[str, set[int]] = {cost: set() for cost in COSTS}
        rows: list[dict[str, Any]] = []
        for i, (file, text, alpha_E) in enumerate(zip(self.files, self.texts, self.alphas, strict=True)):
            row: dict[str, Any] = {"index": i, "alpha": alpha_E.tolist(), "arch_str": text}
            states = _unpickled(file)
            for epochs in EPOCHS:
                results = _results(states, epochs, file)
                if (results.arch_index, results.arch_str) != (i, text):
                    raise DataError(
                        f"{file}: holds architecture {results.arch_index}, {results.arch_str}; {META} has {text} there"
                    )
                for name in names:
                    where = f"{file}: {name}, {epochs} epochs"
                    trainings = _trainings(results, name, epochs, where)
                    counts[name, epochs][len(trainings)] += 1
                    row |= _columns(results, trainings, name, epochs, where)
                    for cost, function in costs[name].items():
                        row[f"{DATA[name].name}_{cost}"] = exact = int(function(alpha_E))
                        recorded = [one.params if cost == "params" else one.flop for one in trainings.values()]
                        if any(known is not None and abs(1e6 * known - exact) >= DIFFERENT for known in recorded):
                            anomalies[cost].add(i)
            row["n_seeds"] = min(len(results.dataset_seed[name]) for name in names)
            row["params_anomaly"] = i in anomalies["params"]
            rows.append(row)
            on_read(i + 1)
        return Imported(_table(rows, names), counts, {cost: len(found) for cost, found in anomalies.items()})

    def _costs(self, data: DataSet) -> dict[str, CostFunction]:
        """Return the exact costs of the benchmark's networks."""
        skeleton = self.spec.target
        target = Target(
            image_size=data.image_size, classes=data.classes, cells=skeleton.cells, channels=skeleton.channels
        )
        return {cost: self.spec.costs[cost](target) for cost in COSTS}


def _official() -> Any:
    try:
        from nats_bench import api_utils
    except ImportError as error:
        raise ResourceError(
            "nats_bench, which reads the official files, is not installed: pip install nats_bench (this package's "
            "extra 'tables')"
        ) from error
    return api_utils


def _unpickled(file: Path) -> Any:
    try:
        return _official().pickle_load(str(file))
    except Exception as error:  # a damaged pickle raises anything
        reason = getattr(error, "strerror", None) or error or type(error).__name__
        raise DataError(f"{file}: cannot be read: {reason}; unpack {ARCHIVE}.tar again") from error


def _architectures(meta: Path, spec: SpaceSpec) -> tuple[list[str], list[IntArray]]:
    content = _unpickled(meta)
    texts = content.get("meta_archs") if isinstance(content, dict) else None
    if not isinstance(texts, list):
        raise DataError(f"{meta}: has no list meta_archs; use the file of {ARCHIVE}")
    alphas = []
    for i, text in enumerate(texts):
        try:
            alphas.append(spec.encode({"arch_str": text}))
        except GenotypeError as error:
            raise DataError(f"{meta}: architecture {i} is not of the topology space (tss): {error}") from error
    first = {text: i for i, text in reversed(list(enumerate(texts)))}
    if twice := [(i, text) for i, text in enumerate(texts) if first[text] != i]:
        i, text = twice[0]
        raise DataError(f"{meta}: architectures {first[text]} and {i} are both {text}")
    if len(texts) != (needed := math.prod(len(edge.candidates) for edge in spec.space.edges)):
        raise DataError(f"{meta}: has {len(texts):,} architectures; the topology space (tss) has {needed:,}")
    return texts, alphas


def _results(states: Any, epochs: int, file: Path) -> Any:
    """Return the official ``ArchResults`` of one training length."""
    try:
        return _official().ArchResults.create_from_state_dict(states[str(epochs)])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{file}: has no results of {epochs} epochs; {ARCHIVE} has them") from error


def _trainings(results: Any, name: str, epochs: int, where: str) -> dict[int, Any]:
    """Seed -> the official ``ResultsCount`` of that training."""
    listed = sorted(results.dataset_seed.get(name, []))
    held = sorted(seed for of, seed in results.all_results if of == name)
    if not held or listed != held:
        raise DataError(f"{where}: lists trainings {_joined(listed)}, but holds {_joined(held)}")
    trainings = {seed: results.all_results[name, seed] for seed in held}
    for seed, training in trainings.items():
        if training.get_total_epoch() != epochs:
            raise DataError(f"{where}: the training of seed {seed} has {training.get_total_epoch()} epochs")
    return trainings


def _columns(results: Any, trainings: Mapping[int, Any], name: str, epochs: int, where: str) -> dict[str, float | None]:
    """Return accuracies after the last epoch, mean and single, in percent, and the mean seconds per training."""
    data, columns = DATA[name], dict[str, float | None]()
    for split, images in data.splits.items():
        try:
            mean = float(results.get_metrics(name, images)["accuracy"])
            by_seed = {seed: _accuracy(training, images, epochs) for seed, training in trainings.items()}
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise DataError(f"{where}: a training has no accuracy on {images} after its last epoch") from error
        for seed, accuracy in by_seed.items():
            if not 0 <= accuracy <= 100:
                raise DataError(f"{where}: the training of seed {seed} has an accuracy of {accuracy:g} % on {images}")
        if not math.isclose(mean, own := math.fsum(by_seed.values()) / len(by_seed), abs_tol=1e-6):
            raise DataError(f"{where}: the mean on {images} is {mean:g} %, but its trainings average {own:g} %")
        column = f"{data.name}_{split}_e{epochs}"
        columns |= {column: mean} | {f"{column}_seed{seed}": accuracy for seed, accuracy in by_seed.items()}
    seconds = [math.fsum(training.train_times.values()) for training in trainings.values() if training.train_times]
    columns[f"{data.name}_train_seconds_e{epochs}"] = math.fsum(seconds) / len(seconds) if seconds else None
    return columns


def _accuracy(training: Any, images: str, epochs: int) -> float:
    """Return the accuracy after the last epoch; the official package counts epochs from 0."""
    last = epochs - 1
    return float(training.train_acc1es[last] if images == "train" else training.eval_acc1es[f"{images}@{last}"])


def _table(rows: list[dict[str, Any]], names: Sequence[str]) -> pa.Table:
    held = {column for row in rows for column in row}
    columns = ["index", "alpha", "arch_str"]
    for data in (DATA[name] for name in names):
        for split in data.splits:
            for epochs in EPOCHS:
                mean = f"{data.name}_{split}_e{epochs}"
                columns += [mean, *sorted(column for column in held if column.startswith(f"{mean}_seed"))]
        columns += [f"{data.name}_train_seconds_e{epochs}" for epochs in EPOCHS]
        columns += [f"{data.name}_{cost}" for cost in COSTS]
    kinds = {"index": pa.int32(), "alpha": pa.list_(pa.int8()), "arch_str": pa.string()}
    kinds |= {f"{DATA[name].name}_{cost}": pa.int64() for name in names for cost in COSTS}
    kinds |= {"n_seeds": pa.int8(), "params_anomaly": pa.bool_()}
    return pa.table(
        {
            column: pa.array([row.get(column) for row in rows], kinds.get(column, pa.float64()))
            for column in [*columns, "n_seeds", "params_anomaly"]
        }
    )


def _joined(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, seeds)) or "none"
