"""The model card: front matter that Hugging Face reads, every score with its split, and lines that load each form."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from ddpnas_ray.deploy.card import model_card
from ddpnas_ray.deploy.forms import torch as plain
from ddpnas_ray.deploy.registry import FORMS, find_form
from ddpnas_ray.deploy.verify import Row
from tests.deploy.making import AWKWARD, FACTS, tiny

FORMS_HERE = [find_form(name) for name in FORMS.names()]
ROW = Row(
    form="onnx", file="model.onnx", file_bytes=1_500_000, load_s=0.1, examples=100, largest_difference=4.8e-6,
    largest_logit=9.3, labels=100, labels_agree=100,
)  # fmt: skip


def front(card: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


def test_the_card_has_scores_costs_search_and_usage() -> None:
    card = model_card(tiny(), FORMS_HERE, [ROW])
    assert "| accuracy on validation data | 50.00 % | trained from scratch | 1 |" in card
    assert "| accuracy on test data | 25.00 % | trained from scratch | 1 |" in card
    assert "| macs | 678,900 |" in card
    assert "| strategy | pruning |" in card
    assert "| onnx | model.onnx | 1.50 MB | 4.8e-06 | 100 of 100 |" in card
    assert "hf upload" in card
    for form in FORMS_HERE:
        assert form.usage in card


def test_the_front_matter_names_library_task_and_results() -> None:
    found = front(model_card(tiny(), FORMS_HERE, [ROW]))
    assert (found["library_name"], found["pipeline_tag"]) == ("transformers", "image-classification")
    assert found["metrics"] == ["accuracy"]
    results = found["model-index"][0]["results"]
    assert [(r["dataset"]["split"], r["metrics"][0]["value"]) for r in results] == [("val", 0.5), ("test", 0.25)]


def test_what_facts_lack_is_left_out() -> None:
    card = model_card(dataclasses.replace(tiny(), facts={"name": "bare"}), [find_form("pt2")], [])
    assert front(card)["library_name"] == "pytorch"
    assert "model-index" not in front(card)
    assert "## Costs" not in card
    assert "## Recipe" not in card
    assert "None were recorded." in card


def test_a_network_that_no_search_found_is_not_said_to_be_found() -> None:
    network = tiny(facts={**FACTS, "search": {}, "scores": FACTS["scores"][1:]})
    for text in (model_card(network, FORMS_HERE, [ROW]), plain.source(network)):
        assert "found" not in text.replace("Found", "").split("class ")[0] and "neural" not in text
        assert "optimistic" not in text


def test_of_several_seeds_the_score_is_that_of_these_weights() -> None:
    score = {"split": "val", "metric": "accuracy", "value": 0.75, "weights": "w", "seeds": 3, "mean": 0.7, "std": 0.04}
    card = model_card(tiny(facts={**FACTS, "scores": [score]}), FORMS_HERE, [ROW])
    assert "| accuracy on validation data | 75.00 % | w | 3, of which this is one: 70.00 \u00b1 4.00 % |" in card
    assert front(card)["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.75
    assert "Validation data chose this network" in card


def test_classes_are_listed_and_long_lists_shortened() -> None:
    card = model_card(tiny(), FORMS_HERE, [ROW])
    assert json.loads(card.split("## Classes\n\n```json\n")[1].split("\n```")[0]) == list(AWKWARD)
    card = model_card(tiny(classes=tuple(map(str, range(60)))), FORMS_HERE, [ROW])
    assert '"49"]' in card and "and 10 more; every file" in card


@pytest.mark.parametrize("name", ["torch", "pt2"])
def test_the_lines_that_load_a_form_run(name: str, written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(written)
    monkeypatch.syspath_prepend(str(written))
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.setattr(Image, "open", lambda path: Image.new("RGB", (20, 10)))
    scope: dict[str, Any] = {}
    exec(find_form(name).usage, scope)
    sys.modules.pop("network", None)
    logits = scope["logits"]
    assert logits.shape[1] == len(AWKWARD) and logits.isfinite().all()


@pytest.mark.parametrize("name", ["a: b", "a | b", "# x\ny", "---", "é鳥", '"'])
def test_no_name_breaks_the_card(name: str) -> None:
    card = model_card(tiny(facts={**FACTS, "name": name, "data": name}), FORMS_HERE, [ROW])
    assert front(card)["model-index"][0]["name"] == name
    assert [line for line in card.splitlines() if line.startswith("# ")] == [
        f"# {' '.join(name.split())}".replace("|", "\\|")
    ]
