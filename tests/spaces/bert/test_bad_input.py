"""Configurations of the BERT space that are refused, as a user sees it: one line, exit code 2, nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddpnas_ray import search
from tests.commands import Refused, options
from tests.conftest import ROOT
from tests.spaces.bert.making import saved
from tests.tasks.text.making import reviews, write

CONFIG = ["--config", str(ROOT / "configs" / "bert_tiny_cpu.yaml"), "--out", "run"]
TEXTS = ["task={name: text, columns: [sentence], vocabulary: 100, max_length: 24}", "data.path=reviews.tsv"]


@pytest.fixture(autouse=True)
def data(tmp_path: Path) -> None:
    write(tmp_path / "reviews.tsv", reviews(40))


@pytest.mark.parametrize(
    "space,said",
    [
        ("hidden: 30, heads: 4", "space.hidden is 30, which 4 heads (space.heads) do not divide"),
        ("positions: 16", "task.max_length is 24; networks of this space have 16 positions: set at most that"),
        ("depths: [2, 5]", "space.depths has 5; the full model has 4 layers: give at most that"),
        ("head_counts: [2, 2]", "space.head_counts is [2, 2]; give every number once"),
        ("ffn_widths: [1024]", "space.ffn_widths has 1024; the full model has 512 feed-forward units"),
        ("layer_order: [0, 1, 2]", "space.layer_order is [0, 1, 2]; give each of the layers 0 to 3 once"),
        ("freeze_embeddings: true", "space.freeze_embeddings is true, but new embeddings must learn; give space.model"),
        ("model: absent/here/now", "no such folder; set space.model"),
        ("hiden: 3", "space.hiden is not an option of space 'bert'"),
        ("depths: []", "space.depths is []"),
    ],
)
def test_options_that_do_not_fit(refused: Refused, space: str, said: str) -> None:
    refused(search.main, [*CONFIG, *options(f"space={{name: bert, {space}}}", *TEXTS)], said)


@pytest.mark.parametrize(
    "space,said",
    [
        ("hidden: 24", "space.hidden is 24, but space.model=model brings its own sizes; set it to null"),
        ("depths: [6]", "space.depths has 6; the full model has 4 layers"),
        ("dropout: 0.1", "token ids, the model of this space 40; set task.tokenizer to the model's own"),
    ],
)
def test_models_that_do_not_fit(refused: Refused, tmp_path: Path, space: str, said: str) -> None:
    saved(tmp_path / "model", vocab_size=40)
    refused(search.main, [*CONFIG, *options(f"space={{name: bert, model: model, {space}}}", *TEXTS)], said)


def test_a_target_longer_than_the_positions(refused: Refused) -> None:
    keys = options("space={name: bert, positions: 32}", "target.sequence_length=64", *TEXTS)
    refused(search.main, [*CONFIG, *keys], "target.sequence_length is 64; networks of this space have 32 positions")


def test_images(refused: Refused) -> None:
    said = "networks of this space take texts, but the task's examples are images"
    refused(search.main, ["--out", "run", *options("space.name=bert")], said)


def test_pretrained_weights_without_a_model(refused: Refused) -> None:
    from ddpnas_ray import retrain

    (Path("network.json")).write_text('{"layers": [0, 3], "heads": [1, 1], "ffn": [64, 64]}')
    keys = options("space={name: bert, depths: [2, 4], head_counts: [1, 4], ffn_widths: [64, 512]}", *TEXTS)
    words = [*CONFIG, *keys, "--genotype", "network.json", *options("retraining.init=pretrained")]
    refused(retrain.main, words, "retraining.init=pretrained: space bert has no pretrained model")
