"""Texts, or pairs of texts, and the classes or numbers of one task or several.

Axes: N texts, T tokens.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from ddpnas_ray.core.errors import ConfigError, ExportError, ModelError, did_you_mean
from ddpnas_ray.data.batches import Float32Array
from ddpnas_ray.deploy.interface import BATCH_AXIS, COMPARED, Axis, refuse_masks
from ddpnas_ray.deploy.questions import Arrays, Outputs
from ddpnas_ray.deploy.text_card import TextTask, classes_of, has_pairs, summary_of, usage_of, words_of
from ddpnas_ray.deploy.text_files import INPUTS, TextQuestions, padded, read_rows
from ddpnas_ray.spaces.target import Target
from ddpnas_ray.tasks.text.examples import Examples
from ddpnas_ray.tasks.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import nn

TOKENIZER = "tokenizer.json"
BATCH = 64  # most texts of a batch, which is as wide as its longest text
NEAR = 0.05  # of the range of predicted numbers: alike
SHORT = 8  # tokens of the texts to trace a network on
SPECIAL = {
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "mask_token": ("[MASK]", "<mask>"),
}
SAMPLES = (
    "A plain sentence, with punctuation.",
    "na\u00efve caf\u00e9 \u2014 H\u00e4her \u9ce5 \U0001f600 \u00df \u0130",
    "tabs\tand\nlines   and a-very-long-word" + "x" * 150,
    "[CLS] a [MASK] [SEP] <s> </s> ##piece",
    "word " * 700,
    " ",
    '"quotes" \\ \\n {{ braces }} 3.14 $100 \u200b',
)


@dataclass(frozen=True, kw_only=True)
class TextInterface:
    """How texts become a network's inputs, and what its outputs mean.

    Args:
        tasks: Its tasks, in the order of their outputs.
        max_length: Most tokens; longer texts are cut, pairs at the end of the longer text.
        vocabulary: Number of token ids.
        pad_id: Id of the padding.
        tokenizer_json: JSON of the tokenizers library, which cuts and pads.
    """

    kind: ClassVar = "texts"
    one: ClassVar = "text"
    hub_task: ClassVar = "text-classification"
    inputs: ClassVar = INPUTS
    template: ClassVar = Path(__file__).with_name("texts.py.j2")
    batch: ClassVar = 64
    compared: ClassVar = COMPARED

    tasks: tuple[TextTask, ...]
    max_length: int
    vocabulary: int
    pad_id: int
    tokenizer_json: str

    @property
    def axes(self) -> dict[int, Axis]:
        """See ``Interface``."""
        return {0: BATCH_AXIS, 1: Axis("length", self.max_length)}

    @property
    def classes(self) -> tuple[str, ...]:
        """See ``Interface``: of several tasks, ``task: class``."""
        if len(self.tasks) == 1:
            return self.tasks[0].classes or (self.tasks[0].name,)
        return tuple(
            f"{task.name}: {name}" if name else task.name for task in self.tasks for name in task.classes or ("",)
        )

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer."""
        state = np.frombuffer(self.tokenizer_json.encode(), dtype=np.uint8)
        return Tokenizer(state=state, vocabulary=self.vocabulary, pad_id=self.pad_id, positions=None)

    def encoded(self, columns: Sequence[Sequence[str]]) -> Examples:
        """Encode N texts, or N pairs of texts."""
        ids, types, ends_N = self.tokenizer.encode(columns, self.max_length)
        none_N = np.zeros(len(ends_N), dtype=np.int64)
        return Examples(ids, types, ends_N, none_N.astype(np.float64), none_N)

    def prepare(self, columns: Sequence[Sequence[str]]) -> Arrays:
        """Texts -> inputs of the network as when it was trained, each of shape (N, T), int64."""
        return padded(self.encoded(columns), np.arange(len(columns[0])), self.pad_id)

    def write(self, folder: Path) -> None:
        """See ``Interface``: the tokenizer."""
        (folder / TOKENIZER).write_text(self.tokenizer_json, encoding="utf-8")

    def to_metadata(self) -> dict[str, str]:
        """See ``Interface``; the tokenizer lies in its own file."""
        keys = ("name", "columns", "label", "classes", "declared", "metrics")
        values = {
            "kind": self.kind,
            "tasks": [{key: getattr(task, key) for key in keys} for task in self.tasks],
            "max_length": self.max_length,
            "vocabulary": self.vocabulary,
            "pad_id": self.pad_id,
            "tokenizer_sha256": hashlib.sha256(self.tokenizer_json.encode()).hexdigest(),
        }
        return {key: json.dumps(value) for key, value in values.items()}

    def check_target(self, target: Target) -> None:
        """See ``Interface``."""
        needed = {"sequence_length": self.max_length, "vocabulary": self.vocabulary, "classes": len(self.classes)}
        for key, need in needed.items():
            have = getattr(target, key)
            if have is None or (have < need if key == "sequence_length" else have != need):
                raise ConfigError(
                    f"the deploy network is for {have} {key}, its data have {need}; set target.sequence_length and "
                    "target.classes to null, so that they are those of the data"
                )

    def check(self, inputs: Arrays) -> None:
        """See ``Interface``."""
        shapes = [array.shape for array in inputs]
        if len(inputs) != 3 or len(set(shapes)) > 1 or len(shapes[0]) != 2 or shapes[0][1] > self.max_length:
            raise ValueError(f"{', '.join(INPUTS)} of shapes {shapes}; (N, up to {self.max_length}) is needed, thrice")

    def batches(self, inputs: Arrays, size: int) -> Iterator[Arrays]:
        """See ``Interface``: each is cut to its longest text."""
        size = min(size, BATCH)
        for start in range(0, len(inputs[0]), size):
            part = [array[start : start + size] for array in inputs]
            width = max(1, int(part[1].sum(axis=1).max()))
            yield tuple(np.ascontiguousarray(array[:, :width]) for array in part)

    def trials(self, inputs: Arrays) -> Iterator[Arrays]:
        """See ``Interface``."""
        return self.batches(inputs, BATCH)

    def logits_shape(self, inputs: Arrays) -> tuple[int, ...]:
        """See ``Interface``."""
        return len(inputs[0]), len(self.classes)

    def positional(self, network: nn.Module) -> nn.Module:
        """See ``Interface``: it takes a dictionary of them."""
        from torch import nn

        class Positional(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.network = network

            def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
                return self.network(dict(zip(INPUTS, (input_ids, attention_mask, token_type_ids), strict=True)))

        return Positional().eval()

    def blank(self) -> Arrays:
        """See ``Interface``: two texts of the padding's token."""
        ids_NT = np.full((2, min(SHORT, self.max_length)), self.pad_id, dtype=np.int64)
        return ids_NT, np.ones_like(ids_NT), np.zeros_like(ids_NT)

    def random(self, count: int) -> Arrays:
        """See ``Interface``: texts of the most tokens."""
        ids_NT = np.random.default_rng(0).integers(self.vocabulary, size=(count, self.max_length))
        return ids_NT, np.ones_like(ids_NT), np.zeros_like(ids_NT)

    def shape_text(self, inputs: Arrays) -> str:
        """See ``Interface``."""
        return f"({inputs[0].shape[1]},)"

    def source_values(self) -> dict[str, Any]:
        """See ``Interface``."""
        return {"data": self, "pair": has_pairs(self.tasks)}

    @property
    def usage(self) -> dict[str, str]:
        """See ``Interface``."""
        return usage_of(self.tasks)

    def huggingface(self) -> dict[str, dict[str, Any]]:
        """See ``Interface``; the tokenizer is one of transformers' own."""
        classes, first = self.classes, self.tasks[0]
        known = self.tokenizer.backend()
        problem = "single_label_classification" if first.classes else "regression"
        config = {
            "architectures": ["FoundForSequenceClassification"],
            "auto_map": {
                "AutoConfig": "network.FoundConfig",
                "AutoModelForSequenceClassification": "network.FoundForSequenceClassification",
            },
            "model_type": "ddpnas-text-network",
            "id2label": {str(i): name for i, name in enumerate(classes)},
            "label2id": {name: i for i, name in enumerate(classes)},
            **({"problem_type": problem} if len(self.tasks) == 1 else {}),
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.max_length,
            "pad_token_id": self.pad_id,
            "dtype": "float32",
        }
        special = {
            key: next((name for name in names if known.token_to_id(name) is not None), None)
            for key, names in SPECIAL.items()
        }
        tokenizer = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": self.max_length,
            "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
            "pad_token": known.id_to_token(self.pad_id),
            **{key: name for key, name in special.items() if name is not None},
        }
        return {"config.json": config, "tokenizer_config.json": tokenizer}

    def write_samples(self, job: Path) -> None:
        """See ``Interface``."""
        (job / "samples.json").write_text(json.dumps(self._samples()), encoding="utf-8")

    def prepare_samples(self) -> tuple[str, str]:
        """See ``Interface``."""
        return prepared.__name__, inspect.getsource(prepared)

    def check_samples(self, found: Sequence[npt.NDArray[Any]]) -> None:
        """See ``Interface``: by ``network.py``, then by transformers if it was written for."""
        expected = [array for columns in self._samples() for array in self.prepare(columns)]
        for number, array_NT in enumerate(found):
            if not np.array_equal(array_NT, expected[number % len(expected)]):
                whose = "network.py" if number < len(expected) else "transformers"
                raise ExportError(
                    f"{whose} does not turn texts into the tokens of training ({INPUTS[number % 3]} differ); nothing "
                    "was written: leave out torch and huggingface, and report this"
                )

    def _samples(self) -> list[list[Sequence[str]]]:
        """Return columns of awkward texts: one, and two if a task has pairs."""
        single: list[Sequence[str]] = [SAMPLES]
        return [single, [SAMPLES, SAMPLES[::-1]]] if has_pairs(self.tasks) else [single]

    def agree(self, found_NO: Float32Array, expected_NO: Float32Array) -> int:
        """See ``Interface``: with the same class for every task, and numbers that differ by 5 % of their range."""
        alike_N = np.ones(len(found_NO), dtype=bool)
        for task in self.tasks:
            own = slice(task.first, task.first + task.count)
            if task.classes:
                alike_N &= found_NO[:, own].argmax(axis=1) == expected_NO[:, own].argmax(axis=1)
            else:
                near_N = np.abs(found_NO[:, own] - expected_NO[:, own])[:, 0]
                alike_N &= near_N <= NEAR * np.ptp(expected_NO[:, own])
        return int(alike_N.sum())

    def summary(self) -> str:
        """See ``Interface``."""
        return summary_of(self.tasks, self.max_length)

    def sections(self) -> dict[str, str]:
        """See ``Interface``."""
        return {"Classes": classes_of(self.tasks, self.classes), **words_of(self.tasks, self.max_length)}

    def questions(
        self, given: Sequence[str], *, labelled: bool = False, task: str | None = None, masks: str | None = None
    ) -> TextQuestions:
        """See ``Interface``: text files."""
        refuse_masks(masks)
        known = {one.name: one for one in self.tasks}
        if task is None and len(known) > 1:
            raise ConfigError(f"the model has several tasks; give --task, one of {', '.join(known)}")
        if task is not None and task not in known:
            raise ConfigError(f"--task {task}: the model has no such task{did_you_mean(task, known)}")
        chosen = self.tasks[0] if task is None else known[task]
        rows = read_rows(given, chosen.columns, chosen.label if labelled else None)
        outputs = Outputs(
            task=chosen.name if len(known) > 1 else "",
            classes=chosen.classes,
            first=chosen.first,
            metrics=chosen.metrics,
        )
        expected = rows.expected(chosen.classes, declared=chosen.declared) if labelled else None
        return TextQuestions(
            names=rows.names,
            texts=dict(zip(rows.columns, rows.texts, strict=True)),
            examples=self.encoded(rows.texts),
            outputs=outputs,
            pad_id=self.pad_id,
            unread=rows.unread,
            expected=expected,
        )


def from_metadata(metadata: Mapping[str, str], file: str) -> TextInterface:
    """See ``ddpnas_ray.deploy.interface``; the tokenizer is ``tokenizer_json``, or the file beside ``file``.

    Raises:
        ModelError: A key is missing or damaged, or the tokenizer is another one.
    """
    try:
        values = {key: json.loads(text) for key, text in metadata.items() if key in KEYS}
        if not all(type(values[key]) is int and values[key] >= 0 for key in ("max_length", "vocabulary", "pad_id")):
            raise ValueError
        tasks, first = [], 0
        for task in values["tasks"]:
            texts = {key: tuple(map(_text, task[key])) for key in ("columns", "classes", "metrics")}
            if len(texts["columns"]) not in (1, 2):
                raise ValueError
            tasks.append(
                TextTask(
                    name=_text(task["name"]),
                    label=_text(task["label"]),
                    declared=bool(task["declared"]),
                    first=first,
                    **texts,
                )
            )
            first += len(texts["classes"]) or 1
        if not tasks:
            raise ValueError
    except (KeyError, ValueError, TypeError):
        raise ModelError(
            f"{file}: no metadata of texts ({', '.join(KEYS)}); give a model that ddpnas wrote, or write it again"
        ) from None
    state = values["tokenizer_json"] if "tokenizer_json" in values else _beside(Path(file), values)
    return TextInterface(
        tasks=tuple(tasks),
        max_length=values["max_length"],
        vocabulary=values["vocabulary"],
        pad_id=values["pad_id"],
        tokenizer_json=state,
    )


KEYS = ("tasks", "max_length", "vocabulary", "pad_id", "tokenizer_json", "tokenizer_sha256")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _beside(file: Path, values: Mapping[str, Any]) -> str:
    """Read the tokenizer that lies beside a model's file."""
    path = file.with_name(TOKENIZER)
    try:
        stored = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read: {error.strerror or error}; {file.name} needs it: copy it from the model folder"
        ) from None
    if hashlib.sha256(stored).hexdigest() != values.get("tokenizer_sha256"):
        raise ModelError(f"{path}: not the tokenizer that {file.name} was trained with; export the network again")
    return stored.decode()


def prepared(module: dict[str, Any], job: str) -> list[Any]:
    """Encode the samples of a job by ``network.py`` and by transformers; runs where this package does not."""
    import json
    import os
    import sys

    folder = os.path.dirname(module["__file__"])
    with open(os.path.join(job, "samples.json"), encoding="utf-8") as file:
        samples = json.load(file)
    found = [tensor.numpy() for columns in samples for tensor in module["preprocess"](*columns)]
    if "transformers" in sys.modules and os.path.exists(os.path.join(folder, "tokenizer_config.json")):
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=True)
        for columns in samples:
            encoded = tokenizer(*columns, truncation=True, padding=True, return_tensors="np")
            found += [encoded[name] for name in ("input_ids", "attention_mask", "token_type_ids")]
    return found
