"""The model card: front matter that Hugging Face reads, every score with its split, and lines that load each form."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import yaml

from ddpnas_ray.deploy.card import model_card
from ddpnas_ray.deploy.registry import FORMS, find_form
from ddpnas_ray.deploy.verify import Row
from tests.deploy.making import FACTS, tiny

FORMS_HERE = [find_form(name) for name in FORMS.names()]
ROW = Row(
    form="onnx", file="model.onnx", file_bytes=1_500_000, load_s=0.1, images=100, largest_difference=4.8e-6,
    largest_logit=9.3, labels_agree=100,
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


@pytest.mark.parametrize("name", ["a: b", "a | b", "# x\ny", "---", "é鳥", '"'])
def test_no_name_breaks_the_card(name: str) -> None:
    card = model_card(tiny(facts={**FACTS, "name": name, "data": name}), FORMS_HERE, [ROW])
    assert front(card)["model-index"][0]["name"] == name
    assert [line for line in card.splitlines() if line.startswith("# ")] == [
        f"# {' '.join(name.split())}".replace("|", "\\|")
    ]
