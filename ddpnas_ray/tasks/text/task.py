"""Texts, or pairs of texts, into classes or numbers: GLUE's tasks, several at once, or data of your own.

Axes: N examples, B examples of a batch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Le

from ddpnas_ray.core.errors import ConfigError, DataError
from ddpnas_ray.core.plugins import Place
from ddpnas_ray.core.space import FloatArray, IntArray
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.split import stratified_batches, stratified_split, stratified_subset
from ddpnas_ray.spaces.target import Inputs
from ddpnas_ray.tasks.base import Batch, Metric, find_metric
from ddpnas_ray.tasks.recipe import RetrainingConfig
from ddpnas_ray.tasks.text.examples import Examples, bucketed_order
from ddpnas_ray.tasks.text.heads import Head, Heads
from ddpnas_ray.tasks.text.reading import Rows, class_names, class_numbers, numbers
from ddpnas_ray.tasks.text.sources import Source, find_sources
from ddpnas_ray.tasks.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

Chosen = tuple[Rows, IntArray, FloatArray]  # a split, its rows that are used, and the labels of those


def make(
    data: DataConfig,
    seed: int,
    *,
    glue: tuple[str, ...] = (),
    columns: tuple[str, ...] = (),
    regression: bool = False,
    tokenizer: Annotated[str | None, Place()] = None,
    vocabulary: Annotated[int, Ge(64), Le(2**20)] = 8000,
    max_length: Annotated[int, Ge(8), Le(2**16)] = 128,
    metric: str | None = None,
    dev: Literal["val", "test"] = "val",
) -> TextTask:
    """Make the task of a configuration.

    Args:
        data: Where the data are, and limits of each task.
        seed: Keys the split.
        glue: Tasks of GLUE, trained together; the score is the mean of theirs.
        columns: Else one or two text columns of data of your own; the label is ``data.label_column``.
        regression: Whether the label of those is a number to predict.
        tokenizer: Of a pretrained model, by its name or folder; None: a WordPiece is trained on the training texts.
        vocabulary: Most token ids of that WordPiece.
        max_length: Most tokens of a text, or of a pair together; longer ones are cut.
        metric: Metric of all tasks; None: GLUE's own, or accuracy, or for numbers the mean of both correlations.
        dev: GLUE's development examples. val: score architectures on them; test: keep them for the score of
            retraining, and hold out training examples to score architectures.

    Raises:
        BadInput: The data are not what the configuration says, or there is no such metric.
    """
    chosen_metric = None if metric is None else find_metric(metric)  # fails before the data are read
    sources = find_sources(data, glue, columns, regression, dev)
    loaded = None if tokenizer is None else Tokenizer.pretrained(tokenizer, "task.tokenizer")
    if loaded is not None and loaded.positions is not None and max_length > loaded.positions:
        raise ConfigError(
            f"task.max_length is {max_length}, but {tokenizer} has {loaded.positions} positions; set at most that"
        )
    heads: list[Head] = []
    train, val = [], []
    for source in sources:
        classes, declared, of_train, of_val = _split(source, data, seed)
        first = sum(head.outputs for head in heads)
        metrics = tuple(map(find_metric, source.metrics)) if chosen_metric is None else (chosen_metric,)
        parts = tuple(of_val)
        heads.append(
            Head(name=source.name, classes=classes, declared=declared, metrics=metrics, first=first, parts=parts)
        )
        train.append(of_train)
        val.append(list(of_val.values()))
    found = loaded or Tokenizer.trained(
        (column[i] for rows, at, _ in train for column in rows.texts for i in at), vocabulary
    )
    first_part = np.cumsum([0, *(len(head.parts) for head in heads)]).tolist()
    trained = [_encoded(one, part, found, max_length) for one, part in zip(train, first_part, strict=False)]
    validated = [
        _encoded(one, part + i, found, max_length)
        for several, part in zip(val, first_part, strict=False)
        for i, one in enumerate(several)
    ]
    for head, one in zip(heads, trained, strict=True):
        cut = int((one.lengths_N == max_length).sum())
        logger.info("%s: %d training examples, %d of at least %d tokens", head.name, len(one), cut, max_length)
    examples = Examples.joined(trained), Examples.joined(validated)
    return TextTask(
        heads=Heads(tuple(heads)),
        train=examples[0],
        val=examples[1],
        tokenizer=found,
        max_length=max_length,
        digest=_digest(heads, examples, found),
        sources=tuple(sources),
    )


@dataclass(frozen=True, kw_only=True)
class TextTask:
    """Cross-entropy, or squared error, on batches of texts of similar length.

    Args:
        heads: Outputs, loss and score.
        train: Training examples.
        val: Validation examples.
        tokenizer: What encoded them.
        max_length: Most tokens of an example.
        digest: SHA-256 of both splits as encoded, classes and tokenizer.
        sources: Where the data were read, for the test examples.
        recipe: Label smoothing of a retraining; None: of a search.
    """

    heads: Heads
    train: Examples
    val: Examples
    tokenizer: Tokenizer
    max_length: int
    digest: str
    sources: tuple[Source, ...]
    recipe: RetrainingConfig | None = None

    @property
    def name(self) -> str:
        """Names of the tasks."""
        return "+".join(head.name for head in self.heads.heads)

    @property
    def inputs(self) -> Inputs:
        """Most tokens, and the outputs of all tasks together."""
        return Inputs(shape=(self.max_length,), outputs=self.heads.outputs, vocabulary=self.tokenizer.vocabulary)

    @property
    def metric(self) -> Metric:
        """The mean of the tasks' scores."""
        return self.heads.metric

    @property
    def train_examples(self) -> int:
        """Number of training examples of all tasks."""
        return len(self.train)

    @property
    def val_examples(self) -> int:
        """Number of validation examples of all tasks."""
        return len(self.val)

    def training_batches(
        self, epoch: int, seed: int, batch_size: int, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """See ``Task``; examples of all tasks are mixed, and a worker's share is padded as the whole batch."""
        lengths_N = self.train.lengths_N
        for rows in bucketed_order(lengths_N, batch_size, seed, epoch):
            yield self._batch(self.train, rows[rank::world], int(lengths_N[rows].max()))

    def calibration_batches(self, examples: int, seed: int, batch_size: int) -> Iterator[Batch]:
        """See ``Task``: every batch holds tasks and classes in proportion."""
        lengths_N = self.train.lengths_N
        for rows in stratified_batches(self._strata(self.train), examples, batch_size, seed=seed):
            yield self._batch(self.train, rows, int(lengths_N[rows].max()))

    def validation_batches(self, batch_size: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """See ``Task``; sorted by length."""
        lengths_N = self.val.lengths_N
        order_N = np.argsort(lengths_N, kind="stable")
        for start in range(rank * batch_size, len(order_N), world * batch_size):
            rows = order_N[start : start + batch_size]
            yield self._batch(self.val, rows, int(lengths_N[rows].max()))

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """See ``Heads.loss``."""
        return self.heads.loss(outputs, batch.targets, 0.0 if self.recipe is None else self.recipe.label_smoothing)

    def distillation_loss(self, outputs: Tensor, taught: Tensor, batch: Batch, temperature: float) -> Tensor:
        """See ``Heads.distillation_loss``."""
        return self.heads.distillation_loss(outputs, taught, batch.targets, temperature)

    def scores_by_task(self, outputs: Sequence[tuple[Tensor, Any]]) -> dict[str, float]:
        """See ``ScoresTasks``."""
        return self.heads.by_task(self.heads.scores(outputs))

    def chance(self) -> float:
        """Return the score of the best constant outputs: for every part the best class, or the classes' frequencies."""
        import torch

        by_part = {}
        for number, (part, head_number) in enumerate(self.heads.parts):
            labels_N, head = self.val.labels_N[self.val.parts_N == number], self.heads.heads[head_number]
            if len(labels_N) and head.classes:
                labels = torch.from_numpy(labels_N.astype(np.int64))
                share_C = labels.bincount(minlength=head.outputs) / len(labels)
                constants = [share_C.clamp_min(1e-30).log(), *torch.eye(head.outputs)[share_C > 0]]
                guesses = [[(row.repeat(len(labels), 1), labels)] for row in constants]
                by_part[part] = max(head.score(guess) for guess in guesses)
            elif len(labels_N):
                by_part[part] = 0.0  # a constant correlates with nothing
        return self.heads.mean(by_part)

    def excerpt(self, examples: int, seed: int) -> TextTask:
        """See ``Task``: a draw with tasks and classes in proportion."""
        train, val = (
            split.picked(stratified_batches(self._strata(split), examples, examples, seed=seed)[0])
            for split in (self.train, self.val)
        )
        return dataclasses.replace(self, train=train, val=val)

    def for_retraining(self, recipe: RetrainingConfig) -> TextTask:
        """See ``Task``."""
        plain = RetrainingConfig()
        for key in ("cutout", "randaugment", "resized_crop", "color_jitter", "mixup", "cutmix"):
            if (value := getattr(recipe, key)) != (none := getattr(plain, key)):
                raise ConfigError(f"retraining.{key} is {value}, which is for images; set it to {none or 'null'}")
        train, val = self.train, self.val
        if recipe.train_on == "all":
            train, val = Examples.joined([train, val]), val.picked(np.arange(0))
        return dataclasses.replace(self, train=train, val=val, recipe=recipe)

    def on_test(self) -> TextTask:
        """See ``Task``: the only place that reads test examples; those of GLUE have labels for MRPC alone."""
        found: list[Examples] = []
        heads, first_part = [], []
        for head, source in zip(self.heads.heads, self.sources, strict=True):
            splits = source.read("test")
            if not splits:
                raise DataError(f"{source.name}: no test examples; set data.test_path, or put a test file beside them")
            first_part.append(len(found))
            heads.append(dataclasses.replace(head, parts=tuple(splits)))
            for rows in splits.values():
                _refuse_empty(rows)
                labels_N = _labels(rows, head.classes, declared=head.declared)
                one = (rows, np.arange(len(rows)), labels_N)
                found.append(_encoded(one, len(found), self.tokenizer, self.max_length))
        train = dataclasses.replace(self.train, parts_N=np.array(first_part)[self._heads_of(self.train)])
        return dataclasses.replace(self, heads=Heads(tuple(heads)), train=train, val=Examples.joined(found))

    def preprocessing(self) -> dict[str, Any]:
        """See ``Deploys``."""
        tasks = [
            {
                "name": head.name,
                "columns": source.columns.texts,
                "label": source.columns.label,
                "classes": head.classes,
                "declared": head.declared,
                "metrics": [metric.name for metric in head.metrics],
            }
            for head, source in zip(self.heads.heads, self.sources, strict=True)
        ]
        return {
            "kind": "texts",
            "tasks": tasks,
            "max_length": self.max_length,
            "vocabulary": self.tokenizer.vocabulary,
            "pad_id": self.tokenizer.pad_id,
            "tokenizer_json": self.tokenizer.to_json(self.max_length),
        }

    def prepared(self, examples: int) -> tuple[np.ndarray, ...]:
        """See ``Deploys``: tasks and classes in proportion, sorted by length."""
        (rows,) = stratified_batches(self._strata(self.val), examples, examples, seed=0)
        lengths_N = self.val.lengths_N
        rows = rows[np.argsort(lengths_N[rows], kind="stable")]
        arrays = self.val.padded(rows, int(lengths_N[rows].max()), self.tokenizer.pad_id)
        return tuple(arrays[name] for name in ("input_ids", "attention_mask", "token_type_ids"))

    def _batch(self, examples: Examples, rows: IntArray, width: int) -> Batch:
        import torch

        arrays = examples.padded(rows, width, self.tokenizer.pad_id)
        inputs = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return Batch(inputs, self.heads.targets(examples.labels_N[rows], examples.parts_N[rows]))

    def _strata(self, examples: Examples) -> IntArray:
        """Return the class of every example among those of all tasks; numbers to predict are one class."""
        heads, head_N = self.heads.heads, self._heads_of(examples)
        first, known = np.array([head.first for head in heads]), np.array([bool(head.classes) for head in heads])
        strata_N: IntArray = first[head_N] + np.where(known[head_N], examples.labels_N, 0).astype(np.int64)
        return strata_N

    def _heads_of(self, examples: Examples) -> IntArray:
        """Return the number of the head of every example."""
        return np.array([head for _, head in self.heads.parts])[examples.parts_N]


def _split(source: Source, data: DataConfig, seed: int) -> tuple[tuple[str, ...], bool, Chosen, dict[str, Chosen]]:
    """Read a task's training and validation examples: its classes, whether they are declared, and what is used."""
    (train,) = source.read("train").values()
    vals = source.read("val")
    for rows in (train, *vals.values()):
        _refuse_empty(rows)
    classes = class_names(train) if source.classes is None else source.classes
    declared = source.classes is not None or train.classes is not None
    labels_N = _labels(train, classes, declared=declared)
    strata_N = labels_N.astype(np.int64) if classes else np.zeros(len(labels_N), dtype=np.int64)
    if vals:
        rows_N, chosen = np.arange(len(train)), {}
        if absent := [name for i, name in enumerate(classes) if not (strata_N == i).any()]:
            raise DataError(f"{train.origin}: class {absent[0]!r} has no training examples; add some")
        for part, rows in vals.items():
            val_N = _labels(rows, classes, declared=declared)
            chosen[part] = _limited(rows, np.arange(len(rows)), val_N, bool(classes), data.val_limit, "val_limit", seed)
    else:
        rows_N, held_out_N = stratified_split(
            strata_N, classes or ("numbers",), val_fraction=data.val_fraction, seed=seed, origin=train.origin
        )
        val = _limited(train, held_out_N, labels_N[held_out_N], bool(classes), data.val_limit, "val_limit", seed)
        chosen = {source.name: val}
    used = _limited(train, rows_N, labels_N[rows_N], bool(classes), data.train_limit, "train_limit", seed)
    return classes, declared, used, chosen


def _limited(
    rows: Rows, rows_N: IntArray, labels_N: FloatArray, classes: bool, limit: int | None, key: str, seed: int
) -> Chosen:
    strata_N = labels_N.astype(np.int64) if classes else np.zeros(len(labels_N), dtype=np.int64)
    kept = stratified_subset(strata_N, limit, seed=seed, key=f"data.{key}")
    return rows, rows_N[kept], labels_N[kept]


def _refuse_empty(rows: Rows) -> None:
    rows.problems.refuse()
    if not len(rows):
        raise DataError(f"{rows.origin}: no examples; add some, or remove the file")


def _labels(rows: Rows, classes: Sequence[str], *, declared: bool) -> FloatArray:
    return class_numbers(rows, classes, declared=declared).astype(np.float64) if classes else numbers(rows)


def _encoded(chosen: Chosen, part: int, tokenizer: Tokenizer, max_length: int) -> Examples:
    rows, rows_N, labels_N = chosen
    ids, types, ends_N = tokenizer.encode([[column[i] for i in rows_N] for column in rows.texts], max_length)
    return Examples(ids, types, ends_N, labels_N, np.full(len(labels_N), part, dtype=np.int64))


def _digest(heads: Sequence[Head], splits: Sequence[Examples], tokenizer: Tokenizer) -> str:
    shown = [(head.classes, len(head.parts)) for head in heads]  # names of own data are those of files
    sha = hashlib.sha256(repr((shown, tokenizer.vocabulary, tokenizer.pad_id)).encode())
    sha.update(tokenizer.state.tobytes())
    for split in splits:
        sha.update(len(split).to_bytes(8, "little"))
        sha.update(split.ids.astype("<i4").tobytes())
        sha.update(split.types.tobytes())
        sha.update(split.labels_N.astype("<f8").tobytes())
        for array in (split.ends_N, split.parts_N):
            sha.update(array.astype("<i8").tobytes())
    return sha.hexdigest()
