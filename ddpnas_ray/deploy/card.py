"""The model card: README.md of a model folder, with Hugging Face's front matter."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from ddpnas_ray.deploy.interface import TOLERANCE, Interface
from ddpnas_ray.deploy.registry import Form
from ddpnas_ray.deploy.verify import Row

if TYPE_CHECKING:
    from ddpnas_ray.deploy.trained import TrainedNetwork

WORDS = {"val": "validation", "test": "test", "train": "training"}
CODE = ", trust_remote_code=True"  # of networks that are not of transformers
HEADINGS = {
    "torch": "PyTorch",
    "huggingface": "Hugging Face transformers",
    "onnx": "ONNX Runtime",
    "onnx_int8": "ONNX Runtime, 8 bits",
    "pt2": "torch.export",
}


def model_card(network: TrainedNetwork, forms: Sequence[Form], rows: Sequence[Row]) -> str:
    """Write the card.

    Args:
        network: The network; whatever its facts lack is left out.
        forms: Forms in the folder.
        rows: Their comparison with the network.
    """
    facts, data, target = network.facts, network.preprocessing, network.target
    sections = data.sections()
    origin = "that a neural architecture search found in" if facts.get("search") else "with an architecture of"
    own_code = ", with `trust_remote_code=True`, as `network.py` comes from the model's own folder"
    code = own_code if network.stock is None else ""
    parts = [
        f"---\n{yaml.safe_dump(_front_matter(network, forms), sort_keys=False, allow_unicode=True)}---",
        f"# {_text(network.name)}",
        f"{data.summary()} {origin} the space `{network.spec.space.name}`. Its deploy network: {target}.",
        _section("Classes", sections["Classes"]),
        _scores(facts),
        _costs(facts.get("costs") or {}, target, data.one),
        _search(facts),
        _section("Recipe", _table(("setting", "value"), list((facts.get("recipe") or {}).items()))),
        _section("Genotype", f"```json\n{_json(network.genotype)}\n```"),
        _loading(sections["Load it"], data, forms).replace(CODE, "" if network.stock else CODE),
        _verified(rows, f"{data.one}s", forms),
        _section("Limits", sections["Limits"]),
        _section(
            "Upload",
            f"```sh\nhf upload YOUR_NAME/YOUR_MODEL . .\n```\n\n`pipeline` then loads it by that name{code}.",
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(network: TrainedNetwork, forms: Sequence[Form]) -> dict[str, Any]:
    """Return the card's metadata, as the Hugging Face Hub reads them."""
    names = [form.name for form in forms]
    scores = [score for score in network.facts.get("scores") or () if score.get("value") is not None]
    front: dict[str, Any] = {
        "library_name": "transformers" if "huggingface" in names else "pytorch",
        "pipeline_tag": network.preprocessing.hub_task,
        "tags": [
            *(["neural-architecture-search"] if network.facts.get("search") else []),
            "ddpnas",
            network.spec.space.name,
            *(["onnx"] if "onnx" in names else []),
            *(["custom_code"] if "huggingface" in names and network.stock is None else []),
        ],
    }
    if scores:
        dataset = str(network.facts.get("data") or "unknown")
        front["metrics"] = sorted({str(score.get("metric", "accuracy")) for score in scores})
        front["model-index"] = [
            {
                "name": network.name,
                "results": [
                    {
                        "task": {"type": network.preprocessing.hub_task},
                        "dataset": {"name": dataset, "type": dataset, "split": str(score.get("split"))},
                        "metrics": [
                            {
                                "type": str(score.get("metric", "accuracy")),
                                "value": float(score["value"]),
                                "name": f"{score.get('metric', 'accuracy')} ({score.get('split')})",
                            }
                        ],
                    }
                    for score in scores
                ],
            }
        ]
    return front


def _scores(facts: Mapping[str, Any]) -> str:
    scores = facts.get("scores") or ()
    if not scores:
        return _section("Scores", "None were recorded.")
    rows = [
        (
            f"{score.get('metric', 'accuracy')} on {WORDS.get(str(score.get('split')), score.get('split'))} data",
            "not measured" if score.get("value") is None else f"{100 * float(score['value']):.2f} %",
            score.get("weights", ""),
            _seeds(score),
        )
        for score in scores
    ]
    text = _table(("score", "value", "weights", "seeds"), rows)
    chosen = facts.get("search") or any(score.get("std") is not None for score in scores)
    if chosen and any(score.get("split") == "val" and score.get("value") is not None for score in scores):
        text += "\n\nValidation data chose this network among others, so its score there is optimistic."
    return _section("Scores", text)


def _seeds(score: Mapping[str, Any]) -> Any:
    """Number of seeds; of several, mean and standard deviation over them too."""
    if score.get("std") is None:
        return score.get("seeds", "")
    mean, std = (100 * float(score[key]) for key in ("mean", "std"))
    return f"{score['seeds']}, of which this is one: {mean:.2f} \u00b1 {std:.2f} %"


def _costs(costs: Mapping[str, Any], target: Any, one: str) -> str:
    rows = [(name, f"{value:,}" if isinstance(value, int) else value) for name, value in costs.items()]
    return (
        _section("Costs", f"Of the deploy network ({target}), for one {one}.\n\n{_table(('cost', 'value'), rows)}")
        if (rows)
        else ""
    )


def _search(facts: Mapping[str, Any]) -> str:
    found = {"data": facts.get("data"), **(facts.get("search") or {})}
    rows = [(key.replace("_", " "), value) for key, value in found.items() if value is not None]
    title = "How it was found" if facts.get("search") else "Data"
    return _section(title, _table(("", ""), rows)) if rows else ""


def _loading(text: str, data: Interface, forms: Sequence[Form]) -> str:
    text += "; `preprocess` in `network.py` does all of it." if any(form.needs_source for form in forms) else "."
    usages = [(form, data.usage.get(form.name, form.usage)) for form in forms]
    blocks = [f"{HEADINGS.get(form.name, form.name)}:\n\n```python\n{lines}\n```" for form, lines in usages if lines]
    return _section("Load it", "\n\n".join([text, "Run the lines in this folder.", *blocks]))


def _verified(rows: Sequence[Row], kind: str, forms: Sequence[Form]) -> str:
    table = [
        (
            row.form,
            row.file,
            f"{row.file_bytes / 1e6:.2f} MB",
            f"{row.largest_difference:.2g}",
            f"{row.labels_agree} of {row.labels}",
        )
        for row in rows
    ]
    if not table:
        return ""
    text = (
        f"Each form was loaded without the package that wrote it and run on {rows[0].examples} {kind}. The largest "
        f"logit is {rows[0].largest_logit:.3g}; a difference of {TOLERANCE:g} times that is allowed."
        + (" Every pixel has a label; images of another size were compared too." if _per_pixel(rows[0]) else "")
    )
    for form in forms:
        if form.labels is not None:
            text += f" Of `{form.name}` {100 * form.labels:g} % of the labels must be the same."
    return _section("Verified", f"{text}\n\n{_table(('form', 'file', 'size', 'largest difference', 'labels'), table)}")


def _per_pixel(row: Row) -> bool:
    return row.labels != row.examples


def _json(genotype: Mapping[str, Any]) -> str:
    """One line per key."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in genotype.items()]
    return "{\n" + ",\n".join(lines) + "\n}"


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}" if text else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_text(cell) for cell in line)} |" for line in lines)


def _text(value: Any) -> str:
    """One line that breaks neither a table nor the card."""
    return " ".join(str(value).split()).replace("|", "\\|")
