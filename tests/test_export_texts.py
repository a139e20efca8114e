"""A network of texts from search to files: found, retrained, exported and used on real sentences."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ddpnas_ray import export, predict, search
from ddpnas_ray.deploy.loaded import load_model
from ddpnas_ray.launch.exporting import load_trained
from ddpnas_ray.storage.folder import Folder
from tests.commands import contents, options, run

WORDS = options(
    "space.name=tests.tasks.text.chain:make", "task.name=text", "task.vocabulary=500", "task.max_length=32",
    "data.train_limit=400", "data.val_limit=120", "training.optimizer=adamw", "training.lr=0.01",
    "training.batch_size=32", "pruning.epochs_per_round=1", "execution.backend=local", "retraining.epochs=2",
    "retraining.optimizer=adamw", "retraining.lr=0.01", "retraining.batch_size=32", "retraining.threads=1",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("glue", ["sst2", "cola, mrpc"])
def test_a_search_is_retrained_exported_and_used(glue: str, tmp_path: Path, test_data: Path) -> None:
    out = tmp_path / "run"
    words = [*WORDS, *options(f"task.glue=[{glue}]", f"data.path={test_data / 'glue'}", "retraining.train_on=train")]
    said = run(search.main, *words, "--out", out, "--then", "retrain,export")
    assert said.code == 0, said.err
    assert said.out.splitlines()[-1] == f"model {out / 'model'}"
    before = contents(out)
    again = run(search.main, *words, "--out", out, "--resume", "--then", "retrain,export")
    assert again.code == 0 and again.out.splitlines()[-1] == f"model {out / 'model'} (written before)", again.err
    assert contents(out) == before

    result = json.loads((out / "retrained" / "result" / "result.json").read_text())
    score = next(score["value"] for score in result["scores"] if score["split"] == "val")
    card = (out / "model" / "README.md").read_text()
    assert f"{100 * score:.2f} %" in card and result["scores"][0]["metric"] in card
    _, task = load_trained(Folder.open(str(out / "retrained" / "result")))
    model, batches = load_model(out / "model"), list(task.validation_batches(50))
    logits = [model.logits(*(tensor.numpy() for tensor in batch.inputs.values())) for batch in batches]
    import torch

    found = task.metric.score([(torch.from_numpy(own), b.targets) for own, b in zip(logits, batches, strict=True)])
    assert found == pytest.approx(score, abs=1e-6), "the files have the score of the retraining"

    name = glue.partition(",")[0]
    real = pq.read_table(test_data / "glue" / name / "validation-00000-of-00001.parquet").slice(0, 50)
    pq.write_table(real, tmp_path / "real.parquet")
    task_words = ["--task", name] if "," in glue else []
    said = run(predict.main, out, tmp_path / "real.parquet", "--labelled", *task_words, "--out", tmp_path / "p.parquet")
    assert said.code == 0, said.err
    assert said.out.startswith("accuracy ") and "of 50 texts)" in said.out
    assert pq.read_table(tmp_path / "p.parquet")["sentence"].to_pylist() == real["sentence"].to_pylist()

    moved = run(export.main, out, "--forms", "torch", "--out", tmp_path / "other", *options("data.path=nowhere"))
    assert moved.code == 2 and "nowhere: no such folder" in moved.err
    assert not (tmp_path / "other").exists()
