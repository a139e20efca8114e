"""The text task: the contract on every kind of data, real GLUE, awkward data, bad input, and a search that learns."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import BertTokenizer

from ddpnas_ray import retrain, search
from ddpnas_ray.core.errors import ConfigError, DataError
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.metrics.accuracy import score as accuracy
from ddpnas_ray.spaces.target import Inputs, Target
from ddpnas_ray.tasks.base import Batch
from ddpnas_ray.tasks.recipe import RetrainingConfig
from ddpnas_ray.tasks.text.task import TextTask, make
from ddpnas_ray.tasks.text.tokenizer import Tokenizer
from ddpnas_ray.testing import SpaceContract, TaskContract
from tests.commands import Said, options, run
from tests.tasks.text import chain
from tests.tasks.text.making import pairs, reviews, write

ROOT: list[Path] = []  # the folder of the session's data, for contracts, whose ``make`` has no arguments


@pytest.fixture(scope="module", autouse=True)
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("texts")
    ROOT[:] = [root]
    for split, n in (("train", 60), ("val", 30), ("test", 20)):
        write(root / "reviews" / f"{split}.tsv", reviews(n, n))
        write(root / "scores" / f"{split}.csv", {**reviews(n, n), "label": np.linspace(0, 5, n).tolist()})
    write(root / "one.parquet", {"question": pairs(90)["sentence1"], "answer": pairs(90)["sentence2"],
                                 "verdict": ["same" if x else "other" for x in pairs(90)["label"]]})  # fmt: skip
    for name, table in (("cola", reviews), ("rte", pairs)):
        write(root / "glue" / name / "train.parquet", table(40))
        write(root / "glue" / name / "validation.parquet", table(20, 9))
    mnli = dict(zip(("premise", "hypothesis", "label"), pairs(40).values(), strict=True))
    mnli["label"] = np.random.default_rng(0).integers(3, size=40).tolist()
    for split in ("train", "validation_matched", "validation_mismatched"):
        write(root / "glue" / "mnli" / f"{split}.parquet", mnli)
    write(root / "glue" / "stsb" / "train.parquet", {**pairs(40), "label": np.linspace(0, 5, 40).tolist()})
    write(root / "glue" / "stsb" / "validation.parquet", {**pairs(20), "label": np.linspace(0, 5, 20).tolist()})
    return root


def task_of(path: str, *, seed: int = 0, data: dict[str, Any] | None = None, **options: Any) -> TextTask:
    return make(DataConfig(path=str(ROOT[0] / path), **(data or {})), seed, **{"vocabulary": 200, **options})


def glue(*names: str, **options: Any) -> TextTask:
    return task_of("glue", glue=names, max_length=32, **options)


class TestOneText(TaskContract):
    make = staticmethod(lambda: task_of("reviews", columns=("sentence",)))


class TestAPairFromOneFile(TaskContract):
    make = staticmethod(
        lambda: task_of("one.parquet", columns=("question", "answer"), data={"label_column": "verdict"})
    )


class TestNumbers(TaskContract):
    make = staticmethod(lambda: task_of("scores", columns=("sentence",), regression=True))


class TestAllKindsAtOnce(TaskContract):
    make = staticmethod(lambda: glue("cola", "mnli", "stsb", "rte"))


# --- what a network sees ---


def test_networks_are_built_for_its_tokens_and_the_outputs_of_all_tasks() -> None:
    task = glue("cola", "mnli", "stsb")
    assert task.inputs == Inputs(shape=(32,), outputs=6, vocabulary=task.tokenizer.vocabulary)
    assert task.name == "cola+mnli+stsb"
    assert str(task.inputs) == f"up to 32 tokens of a vocabulary of {task.tokenizer.vocabulary}, 6 outputs"
    batch = next(iter(task.training_batches(0, 0, 16)))
    assert set(batch.inputs) == set(task.inputs.random(2)) == {"input_ids", "attention_mask", "token_type_ids"}
    assert {tensor.dtype for tensor in batch.inputs.values()} == {torch.int64}


def test_batches_are_padded_to_their_longest_example_and_texts_are_cut_at_max_length() -> None:
    task = task_of("reviews", columns=("sentence",), max_length=12)
    lengths = task.train.lengths_N
    assert lengths.max() == 12 and lengths.min() < 12
    for batch in task.training_batches(0, 0, 16):
        assert batch.inputs["attention_mask"].sum(dim=1).max() == batch.inputs["input_ids"].shape[1] <= 12


def test_every_validation_example_is_scored_as_what_it_is() -> None:
    """A network that knows the labels scores 1 on every task, and one that knows their opposite 0."""
    for task in (glue("cola", "rte", "mnli"), glue("rte"), task_of("reviews", columns=("sentence",))):

        def outputs(batch: Batch, sign: float, task: TextTask = task) -> torch.Tensor:
            several = isinstance(batch.targets, dict)
            found = torch.zeros(len(batch.inputs["input_ids"]), task.inputs.outputs)
            labels = batch.targets["label"] if several else batch.targets
            part = batch.targets["part"] if several else torch.zeros_like(labels)
            for i, (label, p) in enumerate(zip(labels, part, strict=True)):
                found[i, task.heads.heads[task.heads.parts[int(p)][1]].first + int(label)] = sign
            return found

        for sign in (1.0, -1.0):
            score = task.metric.score((outputs(b, sign), b.targets) for b in task.validation_batches(7))
            assert score == 1.0 if sign > 0 else score < 0.1


def test_calibration_and_excerpts_have_every_task_and_class() -> None:
    task = glue("cola", "rte")
    (batch,) = task.calibration_batches(40, 0, 40)
    found = {(int(p), int(y)) for p, y in zip(batch.targets["part"], batch.targets["label"], strict=True)}
    assert found == {(0, 0), (0, 1), (1, 0), (1, 1)}
    few = task.excerpt(8, 0)
    assert len(set(few.train.parts_N)) == 2 and few.train_examples == 8


def test_chance_is_the_best_constant_of_every_task() -> None:
    cola, rte = glue("cola"), glue("rte")
    share = np.bincount(rte.val.labels_N.astype(int)) / rte.val_examples
    assert cola.chance() == 0.0 and rte.chance() == pytest.approx(share.max())
    assert glue("cola", "rte").chance() == pytest.approx(share.max() / 2)
    assert glue("stsb").chance() == 0.0
    f1 = glue("rte", metric="f1")
    assert f1.chance() == pytest.approx(2 * share[1] / (1 + share[1]))


# --- splits ---


def test_without_validation_data_examples_are_held_out_by_class_and_seed() -> None:
    def of(seed: int) -> TextTask:
        return task_of("one.parquet", columns=("question", "answer"), seed=seed,
                       data={"label_column": "verdict", "val_fraction": 0.2})  # fmt: skip

    task, other = of(0), of(1)
    assert (task.train_examples, task.val_examples) == (72, 18)
    assert task.heads.heads[0].classes == ("other", "same") and task.digest != other.digest


def test_the_vocabulary_comes_from_the_training_texts_alone(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", reviews(20))
    write(tmp_path / "val.tsv", {"sentence": ["zzzz zzzz zzzz", "qqqq qqqq"], "label": [0, 1]})
    task = make(DataConfig(path=str(tmp_path)), 0, columns=("sentence",))
    assert "film" in task.tokenizer.backend().get_vocab()
    assert not {"z", "zzzz", "##z"} & set(task.tokenizer.backend().get_vocab())


def test_the_digest_is_of_the_examples_wherever_they_are(tmp_path: Path) -> None:
    def digest(name: str, sentences: int = 20) -> str:
        path = write(tmp_path / name, reviews(sentences))
        return make(DataConfig(path=str(path)), 0, columns=("sentence",)).digest

    assert digest("a.tsv") == digest("moved/b.csv") != digest("c.tsv", 21)


def test_limits_are_each_task_s_own() -> None:
    task = glue("cola", "rte", data={"train_limit": 10, "val_limit": 6})
    assert np.bincount(task.train.parts_N).tolist() == [10, 10] and np.bincount(task.val.parts_N).tolist() == [6, 6]


def test_glue_s_development_set_is_the_test_if_one_asks_for_it() -> None:
    task = glue("mnli", dev="test", data={"val_fraction": 0.25})
    assert task.heads.heads[0].parts == ("mnli",) and task.train_examples + task.val_examples == 40
    tested = task.on_test()
    assert tested.heads.heads[0].parts == ("mnli_matched", "mnli_mismatched") and tested.val_examples == 80
    several = glue("cola", "mnli", dev="test").on_test()
    batch = next(iter(several.training_batches(0, 0, 40)))
    assert torch.isfinite(several.loss(torch.randn(40, 5), batch)) and set(batch.targets["part"].tolist()) == {0, 1}


def test_test_examples_are_read_in_the_classes_of_training_and_glue_s_are_refused(tmp_path: Path) -> None:
    task = task_of("reviews", columns=("sentence",))
    tested = task.on_test()
    assert tested.val_examples == 20 and tested.digest == task.digest
    assert np.bincount(tested.val.labels_N.astype(int)).tolist() == np.bincount(reviews(20, 20)["label"]).tolist()
    with pytest.raises(DataError, match=r"^cola: no test examples"):
        glue("cola", "rte").on_test()


def test_retraining_smooths_labels_and_has_no_use_for_augmentation_of_images() -> None:
    task = task_of("reviews", columns=("sentence",))
    smooth = task.for_retraining(RetrainingConfig(label_smoothing=0.1))
    batch = next(iter(smooth.training_batches(0, 0, 16)))
    sure = 20 * nn.functional.one_hot(batch.targets, 2).float()
    assert smooth.loss(sure, batch) > task.loss(sure, batch) + 0.5
    for key, value in {"cutout": 4, "mixup": 0.2, "randaugment": 5}.items():
        with pytest.raises(ConfigError, match=rf"^retraining\.{key} is {value}, which is for images; set it to"):
            task.for_retraining(replace(RetrainingConfig(), **{key: value}))


# --- awkward data ---

texts = st.text(st.characters(exclude_characters="\t\r\n", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60)


@given(sentences=st.lists(texts.filter(str.strip), min_size=8, max_size=24), repeated=st.booleans())
def test_any_texts_are_taken(sentences: list[str], repeated: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Unicode of any kind, duplicates, and labels sorted by class with one huge class."""
    sentences = sentences[:1] * len(sentences) if repeated else sentences
    labels = [0] * 3 + [1] * (len(sentences) - 3)
    path = write(tmp_path_factory.getbasetemp() / "any.parquet", {"a": sentences, "b": sentences, "label": labels})
    task = make(DataConfig(path=str(path)), 0, columns=("a", "b"), vocabulary=64, max_length=16)
    assert task.train_examples + task.val_examples == len(sentences)
    for batch in task.training_batches(0, 0, 4):
        assert batch.inputs["input_ids"].max() < task.inputs.vocabulary  # type: ignore[operator]
        assert torch.isfinite(task.loss(torch.zeros(4, 2), batch))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"sentence": ["a", "", "b"], "label": [0, 1, 0]}, r"row 1: column 'sentence' is empty; drop such rows"),
        ({"sentence": ["a", None, "b"], "label": [0, 1, 0]}, r"row 1: column 'sentence' is empty"),
        ({"sentence": ["", "", ""], "label": [0, 1, 0]}, r"^3 problems: \(1\) .*row 0: column 'sentence' is empty"),
        ({"sentence": ["a", "b"], "label": [0, None]}, r"row 1: column 'label' is empty"),
        ({"sentence": ["a", "b"], "label": [0, 0]}, r"only one class \('0'\)"),
        ({"sentence": ["a", "b", "c"], "label": [0, 0, 1]}, r"class '1' has 1 example; .* at least 2"),
        ({"sentence": ["a", "b"], "label": [0.5, 1.5]}, r"labels are fractions, such as 0.5; set task.regression=true"),
        ({"sentence": ["a", "b"], "other": [0, 1]}, r"no column 'label' \(data.label_column\)"),
        ({"sentence": [], "label": []}, r"bad.parquet: "),
    ],
)
def test_bad_data_are_refused_in_one_line(table: Any, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "bad.parquet", table)
    with pytest.raises(DataError, match=message) as raised:
        make(DataConfig(path=str(path)), 0, columns=("sentence",))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("val", "message"),
    [
        ({"sentence": ["a"], "label": [7]}, r"row 0: label '7' is not one of the training data: 0, 1; drop such rows"),
        ({"sentence": [], "label": []}, r"val.parquet: "),
    ],
)
def test_a_bad_validation_file_is_refused_in_one_line(val: Any, message: str, tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", reviews(9))
    write(tmp_path / "val.parquet", val)
    with pytest.raises(DataError, match=message):
        make(DataConfig(path=str(tmp_path)), 0, columns=("sentence",))


def test_a_model_s_tokenizer_sets_the_vocabulary_and_the_limit_of_max_length(tmp_path: Path) -> None:
    trained = task_of("reviews", columns=("sentence",)).tokenizer
    BertTokenizer(vocab=trained.backend().get_vocab()).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 64, "model_type": "bert"}))
    task = task_of("reviews", columns=("sentence",), tokenizer=str(tmp_path), max_length=64)
    assert np.array_equal(task.train.ids, task_of("reviews", columns=("sentence",), max_length=64).train.ids)
    with pytest.raises(ConfigError, match=r"^task\.max_length is 65, but .* has 64 positions; set at most that$"):
        task_of("reviews", columns=("sentence",), tokenizer=str(tmp_path), max_length=65)


def test_an_unknown_metric_is_refused_before_data_are_read() -> None:
    with pytest.raises(ConfigError, match=r"task\.metric: 'bleu' is not a built-in metric"):
        make(DataConfig(path="nowhere"), 0, columns=("a",), metric="bleu")


def test_it_is_made_without_torch() -> None:
    script = (
        "import sys; from ddpnas_ray.data.config import DataConfig; from ddpnas_ray.tasks.text.task import make; "
        "make(DataConfig(path=sys.argv[1]), 0, columns=('sentence',)); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(ROOT[0] / "reviews")]).returncode == 0


# --- real data ---


@pytest.mark.parametrize(
    ("name", "sizes", "chance"),
    [("cola", (8551, 1043), 0.0), ("mrpc", (3668, 408), 0.748), ("sst2", (67349, 872), 0.509)],
)
def test_real_glue(name: str, sizes: tuple[int, int], chance: float, test_data: Path) -> None:
    task = make(DataConfig(path=str(test_data / "glue")), 0, glue=(name,))
    assert (task.train_examples, task.val_examples) == sizes and task.chance() == pytest.approx(chance, abs=5e-4)
    assert (task.val.ids == task.tokenizer.backend().token_to_id("[UNK]")).mean() < 0.001
    padded = sum(batch.inputs["input_ids"].numel() for batch in task.training_batches(0, 0, 32))
    real = int(task.train.lengths_N.sum())
    assert real * 0.99 < padded < 1.1 * real, "bucketing keeps padding below a tenth"
    if name == "mrpc":
        assert task.on_test().val_examples == 1725


def test_a_network_learns_real_sentiment_from_its_batches_and_loss(test_data: Path) -> None:
    """Means of embeddings, two epochs on 4,000 phrases of SST-2; the most frequent class is 0.509."""
    task = make(DataConfig(path=str(test_data / "glue"), train_limit=4000), 0, glue=("sst2",))
    torch.manual_seed(0)
    network = chain.Chain([["skip"], ["mlp"]], 32, task.inputs)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    for epoch in range(3):
        for batch in task.training_batches(epoch, 0, 32):
            optimizer.zero_grad()
            task.loss(network(batch.inputs), batch).backward()
            optimizer.step()
    with torch.no_grad():
        score = accuracy((network.eval()(batch.inputs), batch.targets) for batch in task.validation_batches(64))
    assert score > 0.65


# --- the seam: a space of texts, and whole commands ---


class TestTextSpace(SpaceContract):
    make = staticmethod(chain.make)
    inputs = Inputs(shape=(12,), outputs=3, vocabulary=50)
    target = Target(sequence_length=12, vocabulary=50, classes=3, input_channels=None)


class TestGatedTextSpace(TestTextSpace):
    make = staticmethod(partial(chain.make, gated=True))


TINY = [
    "space.name=tests.tasks.text.chain:make",
    "task.name=text",
    "training.optimizer=adamw",
    "training.lr=0.02",
    "training.decay=weights",
    "training.batch_size=16",
    "pruning.epochs_per_round=1",
    "execution.backend=local",
    "retraining.epochs=2",
    "retraining.optimizer=adamw",
    "retraining.schedule=linear",
    "retraining.warmup_epochs=0.2",
    "retraining.lr_per=step",
    "retraining.lr=0.02",
    "retraining.workers=1",
]


def tiny(path: Path, *more: str) -> list[str]:
    return options(*TINY, f"data.path={path}", *more)


@pytest.mark.parametrize(
    "what",
    [("reviews", "task.columns=[sentence]"), ("glue", "task.glue=[cola, mnli, stsb]")],
    ids=["own", "glue"],
)
def test_a_search_is_resumed_retrained_and_repeated_to_the_same_bits(what: tuple[str, str], tmp_path: Path) -> None:
    """The vocabulary is trained anew by every command, and is the same: other data would be refused."""
    words = tiny(ROOT[0] / what[0], what[1], "task.vocabulary=200")
    for name in ("one", "other"):
        stopped = ["--time-limit", "0.001s"] if name == "other" else []
        said = run(search.main, *words, *stopped, "--out", tmp_path / name)
        assert said.code in (0, 3), said.err
    said = run(search.main, *words, "--out", tmp_path / "other", "--resume")
    assert said.code == 0, said.err
    found = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "other")]
    assert found[0]["fingerprint"] == found[1]["fingerprint"]
    assert found[0]["target"]["vocabulary"] and found[0]["target"]["image_size"] is None
    said = run(retrain.main, str(tmp_path / "one"), "--backend", "local", *options("retraining.train_on=train"))
    assert said.code == 0, said.err
    assert "tokens" in said.out + said.err


def test_a_search_goes_on_with_its_tokenizer_elsewhere_but_not_with_another(tmp_path: Path) -> None:
    for name, texts in (("first", reviews(50)["sentence"]), ("other", ["quite another text"])):
        BertTokenizer(vocab=Tokenizer.trained(texts, 90).backend().get_vocab()).save_pretrained(tmp_path / name)
    words = tiny(ROOT[0] / "reviews", "task.columns=[sentence]", "pruning.epochs_per_round=2")
    out = tmp_path / "run"

    def resumed(*more: str) -> Said:
        return run(search.main, "--resume", "--out", out, *more)

    said = run(search.main, *words, *at(tmp_path / "first"), "--time-limit", "0.001s", "--out", out)
    assert said.code == 0 and "1 of 2 epochs are saved" in said.err, said.err
    (tmp_path / "first").rename(tmp_path / "moved")
    said = resumed(*at(tmp_path / "other"))
    assert said.code == 2 and "SHA-256" in said.err and said.err.count("\n") == 1, said.err
    said = resumed(*options("task.tokenizer=null"))
    assert said.code == 2 and "was started with other values of task.tokenizer; only " in said.err, said.err
    assert "task.tokenizer may change on --resume" in said.err
    assert resumed(*at(tmp_path / "moved")).code == 0
    said = run(retrain.main, out, "--backend", "local", *at(tmp_path / "moved"))
    assert said.code == 0, said.err


def at(folder: Path) -> list[str]:
    return options(f"task.tokenizer={folder}")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("space.name=cell", "networks of this space take images, but the task's examples are texts (up to"),
        ("target.image_size=32", "target.image_size is 32; networks of this space take no such inputs"),
        ("task.glue=[sst2]", "task text: set task.glue"),
        ("task.max_length=4", "task.max_length is 4"),
        ("data.flip=true", "data.flip is True, which is for images"),
        ("task.columns=[text]", "no column 'text' (task.columns)"),
    ],
)
def test_commands_refuse_bad_input_in_one_line(more: str, message: str) -> None:
    said = run(search.main, *tiny(ROOT[0] / "reviews", "task.columns=[sentence]", more), "--out", "none")
    assert said.code == 2 and message in said.err and said.err.count("\n") == 1, said.err


def test_images_are_refused_by_a_space_of_texts() -> None:
    words = options("space.name=tests.tasks.text.chain:make", "execution.backend=local")
    said = run(search.main, *words, "--out", "none")
    assert said.code == 2 and "networks of this space take texts, but the task's examples are images" in said.err


@pytest.mark.ray
def test_workers_find_what_one_process_finds(ray_cluster: None, tmp_path: Path) -> None:
    words = tiny(ROOT[0] / "glue", "task.glue=[cola, mnli, stsb]", "task.vocabulary=200")
    found = []
    for workers in (0, 1, 2):
        ray = options("execution.backend=ray", f"execution.workers={workers}", "execution.gpus_per_worker=0")
        said = run(search.main, *words, *(ray if workers else []), "--out", tmp_path / str(workers))
        assert said.code == 0, said.err
        found.append(json.loads((tmp_path / str(workers) / "result.json").read_text())["fingerprint"])
    assert found[0] == found[1] == found[2]
