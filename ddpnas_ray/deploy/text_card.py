"""What the card of a network of texts tells: its tasks, how to use it, and its limits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from ddpnas_ray.deploy.interface import listed
from ddpnas_ray.deploy.text_files import INPUTS


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTask:
    """One task of a network.

    Args:
        name: Its name.
        columns: Its one or two text columns.
        label: Its label column.
        classes: Class names; empty: a number is predicted.
        declared: Whether integer labels are class numbers, not names.
        metrics: Names of its metrics.
        first: Its first output.
    """

    name: str
    columns: tuple[str, ...]
    label: str
    classes: tuple[str, ...]
    declared: bool
    metrics: tuple[str, ...]
    first: int

    @property
    def count(self) -> int:
        """Number of its outputs."""
        return len(self.classes) or 1


def has_pairs(tasks: Sequence[TextTask]) -> bool:
    """Return whether a task has pairs of texts."""
    return any(len(task.columns) > 1 for task in tasks)


def usage_of(tasks: Sequence[TextTask]) -> dict[str, str]:
    """Return the lines that load each form and use it for the first task."""
    first = tasks[0]
    call = ", ".join(f'["{("a text", "its second text")[i]}"]' for i in range(len(first.columns)))
    one = call.replace("[", "").replace("]", "")
    own = f"[0, :{len(first.classes)}]" if len(tasks) > 1 else "[0]"
    answer = f"CLASSES[int(logits{own}.argmax())]" if first.classes else "float(logits[0, 0])"
    shown = f"print({answer})" + f"  # task {first.name}" * (len(tasks) > 1)
    tokens = 'tokenizer = Tokenizer.from_file("tokenizer.json")  # cuts and pads as in training\n'
    tokens += f"found = tokenizer.encode({one})\n"
    values = "(found.ids, found.attention_mask, found.type_ids)"
    session = (
        f"import numpy\nimport onnxruntime\nfrom tokenizers import Tokenizer\n\n{tokens}"
        f"inputs = zip({json.dumps(INPUTS)}, {values})\n"
        'session = onnxruntime.InferenceSession("model.onnx")\n'
        "(logits,) = session.run(None, {name: numpy.array([row], numpy.int64) for name, row in inputs})"
    )
    given = one if len(first.columns) == 1 else '{"text": "a text", "text_pair": "its second text"}'
    return {
        "torch": f"from network import CLASSES, load, preprocess\n\nlogits = load()(*preprocess({call}))\n{shown}",
        "huggingface": "from transformers import pipeline\n\n"
        'classify = pipeline("text-classification", model=".", trust_remote_code=True)\n'
        f"print(classify({given}, truncation=True))",
        "onnx": session,
        "onnx_int8": session.replace("model.onnx", "model_int8.onnx"),
        "pt2": f"import torch\nfrom tokenizers import Tokenizer\n\n{tokens}"
        f"inputs = [torch.tensor([row]) for row in {values}]\n"
        'logits = torch.export.load("model.pt2").module()(*inputs)',
    }


def summary_of(tasks: Sequence[TextTask], max_length: int) -> str:
    """Return the beginning of a card: what the network is."""
    if len(tasks) > 1:
        return f"A network of texts for {len(tasks)} tasks ({', '.join(task.name for task in tasks)})"
    what = "pairs of texts" if has_pairs(tasks) else "texts"
    kind = (
        f"A classifier of {what} ({tasks[0].count} classes" if tasks[0].classes else f"A regressor of {what} (1 number"
    )
    return f"{kind}, up to {max_length} tokens)"


def classes_of(tasks: Sequence[TextTask], names: Sequence[str]) -> str:
    """Return the card's section of the outputs, by name."""
    if len(tasks) == 1:
        return listed(names)
    lines = [
        f"- {task.name}: outputs {task.first} to {task.first + task.count - 1}, from {' and '.join(task.columns)}"
        for task in tasks
    ]
    last = "A probability is a softmax over the outputs of one task; transformers' pipeline takes all."
    return "\n\n".join([listed(names), "\n".join(lines), last])


def words_of(tasks: Sequence[TextTask], max_length: int) -> dict[str, str]:
    """Return how texts are prepared (section ``Load it``), and the section ``Limits``."""
    prepared = (
        f"Texts are encoded by `tokenizer.json` and cut at {max_length} tokens, pairs at the end of the longer text; "
        "inputs are token ids, mask (1, and 0 for padding) and token types, int64 of shape (batch, length)"
    )
    limits = [
        "It is meant for texts like those it was trained on, in their language; it answers for others too.",
        f"It reads the first {max_length} tokens of a text.",
        *(["Its probabilities are not calibrated."] if any(task.classes for task in tasks) else []),
    ]
    return {"Load it": prepared, "Limits": "\n".join(f"- {line}" for line in limits)}
