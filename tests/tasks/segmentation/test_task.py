"""Images with masks as a task: the contract, on CamVid, on folders and on windows."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.metrics.miou import by_class
from ddpnas_ray.spaces.target import Head, Inputs
from ddpnas_ray.tasks.base import Compacts, Distils, Predicts, ScoresTasks
from ddpnas_ray.tasks.recipe import RetrainingConfig
from ddpnas_ray.tasks.segmentation.task import SegmentationTask, make
from ddpnas_ray.testing import TaskContract
from tests.tasks.segmentation.making import camvid, ids_of, mask, own, write_pairs

DATA = Path(os.environ.get("DDPNAS_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))


@cache
def folders() -> Path:
    """Forty small images with masks, some of them void, for this process."""
    root = Path(tempfile.mkdtemp())
    write_pairs(root, 40, ids=(0, 1, 2, 255))
    return root


class TestFolders(TaskContract):
    make = staticmethod(lambda: own(folders()))
    batch_size = 8


class TestWeighted(TaskContract):
    make = staticmethod(
        lambda: own(
            folders(), weights="inverse", ohem=0.3, color=0.3, crop=(8, 8), window=(8, 12), flips=True, size=(9, 15)
        )
    )
    batch_size = 8


@pytest.mark.skipif(not (DATA / "camvid").is_dir(), reason=f"no CamVid at {DATA}")
class TestCamVid(TaskContract):
    make = staticmethod(lambda: camvid(DATA, metric="f1"))
    batch_size = 5


@pytest.fixture
def task() -> SegmentationTask:
    return own(folders())


def test_it_is_all_that_it_may_be(task: SegmentationTask) -> None:
    for protocol in (Compacts, Distils, Predicts, ScoresTasks):
        assert isinstance(task, protocol)


def test_networks_are_built_for_whole_images_and_the_head_of_the_options() -> None:
    task = own(folders(), head="lraspp", head_width=32, output_stride=8, crop=(8, 8), size=(20, 30))
    head = Head(name="lraspp", width=32, output_stride=8)
    assert task.inputs == Inputs(shape=(3, 20, 30), outputs=3, head=head)


def test_training_images_are_crops_and_validation_images_are_whole() -> None:
    task = own(folders(), crop=(8, 6))
    (batch,) = task.training_batches(0, 0, 20)
    assert batch.inputs.shape == (20, 3, 8, 6) and batch.targets.shape == (20, 8, 6)
    for batch in (*task.validation_batches(20), *task.calibration_batches(20, 0, 20)):
        assert batch.inputs.shape == (20, 3, 12, 16) and batch.targets.shape == (20, 12, 16)
    assert batch.targets.dtype == torch.int64 and set(batch.targets.unique().tolist()) == {0, 1, 2, 255}


def test_pixels_are_normalised() -> None:
    task = own(folders(), data={"mean": (0.1, 0.2, 0.3), "std": (0.5,)})
    (batch,) = task.validation_batches(100)
    pixels, _ = task.data.val.pairs.gather(np.arange(20))
    expected = (pixels / 255 - np.array([0.1, 0.2, 0.3])[:, None, None]) / 0.5
    np.testing.assert_allclose(batch.inputs, expected, atol=1e-6)
    np.testing.assert_array_equal(task.prepared(100)[0], batch.inputs)


@torch.no_grad()
def test_scores_of_compact_outputs_are_those_of_all_pixels(task: SegmentationTask) -> None:
    network = nn.Conv2d(3, 3, 3, padding=1)
    outputs = [(network(batch.inputs), batch.targets) for batch in task.validation_batches(7)]
    compacted = [task.compact(*pair) for pair in outputs]
    assert all(counts.shape == (3, 3) for counts, _ in compacted)
    assert task.metric.score(compacted) == task.metric.score(outputs)
    scores = task.scores_by_task(compacted)
    assert scores == task.scores_by_task(outputs) and list(scores) == ["class-0", "class-1", "class-2"]
    assert np.mean(list(scores.values())) == pytest.approx(task.metric.score(compacted))


def test_chance_is_the_score_of_the_most_frequent_class_everywhere(task: SegmentationTask) -> None:
    found = []
    for i in range(3):
        said = torch.zeros(20, 3, 12, 16)
        said[:, i] = 1
        found.append(task.metric.score([task.compact(said, next(iter(task.validation_batches(20))).targets)]))
    assert task.chance() == pytest.approx(max(found)) and max(found) < 0.2
    counts_C = task.data.val.counts_NC.sum(axis=0)
    assert np.argmax(found) == np.argmax(counts_C)


def test_an_options_range_and_order_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"task.scale is \[2, 1\]; give the least factor first"):
        own(folders(), scale=(2.0, 1.0))
    with pytest.raises(ConfigError, match=r"data.mean has 2 numbers; give 1, or 3"):
        own(folders(), data={"mean": (0.1, 0.2)})


@pytest.mark.parametrize("metric", ["accuracy", "likelihood", "pearson"])
def test_metrics_that_need_outputs_are_refused_before_data_are_read(metric: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"task.metric: {metric} is not for .* choose miou, f1, matthews, or your own"
    ):
        make(DataConfig(name="folder", path="nowhere"), 0, masks="nowhere", metric=metric)


@pytest.mark.parametrize(
    ("key", "value"), [("cutout", 4), ("randaugment", 5), ("resized_crop", 0.5), ("mixup", 0.2), ("cutmix", 1.0)]
)
def test_augmentation_that_masks_do_not_follow_is_refused(task: SegmentationTask, key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"retraining.{key} is {value}, .* set it to (null|0) \(task.scale"):
        task.for_retraining(RetrainingConfig(**{key: value}))


def test_a_recipe_changes_colours_and_smooths_labels(task: SegmentationTask) -> None:
    plain, jittered = (
        next(iter(task.for_retraining(RetrainingConfig(color_jitter=jitter)).training_batches(0, 0, 8)))
        for jitter in (0.0, 0.5)
    )
    assert torch.equal(plain.targets != 255, plain.targets != 255)
    assert not torch.equal(plain.inputs, jittered.inputs)
    logits = 5 * torch.randn(8, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    smooth = task.for_retraining(RetrainingConfig(label_smoothing=0.2))
    assert smooth.loss(logits, plain) != task.loss(logits, plain)


def test_weights_are_those_of_the_training_pixels(task: SegmentationTask) -> None:
    weighted = own(folders(), weights="inverse")
    counts_C = weighted.data.train.counts_NC.sum(axis=0)
    assert weighted.options.weights == pytest.approx(counts_C.sum() / (3 * counts_C))
    assert task.options.weights is None
    every = weighted.for_retraining(RetrainingConfig(train_on="all"))
    assert every.options.weights == weighted.options.weights


def test_what_is_deployed_says_how_images_are_prepared(test_data: Path) -> None:
    found = camvid(test_data).preprocessing()
    assert found["kind"] == "masks" and found["hub_task"] == "image-segmentation"
    assert (found["height"], found["width"], found["channels"], found["void"]) == (24, 32, 3, 11)
    assert len(found["palette"]) == len(found["classes"]) == 11
    assert own(folders(), classes=("a", "b", "c"), void=255).preprocessing()["void"] == 255


def test_ids_may_be_void_among_the_classes(tmp_path: Path) -> None:
    """The id of void lies among those of classes, whose numbers are consecutive."""
    write_pairs(tmp_path, ids=(0, 1, 2, 3))
    task = own(tmp_path, void=1)
    assert task.classes == ("class-0", "class-2", "class-3")
    assert task.preprocessing()["void"] == 255
    (batch,) = task.validation_batches(10)
    assert set(batch.targets.unique().tolist()) == {0, 1, 2, 255}


def test_classes_that_neither_occur_nor_are_found_have_no_score(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    task = own(tmp_path, classes=("a", "b", "c", "never"))
    batch = next(iter(task.validation_batches(4)))
    perfect = nn.functional.one_hot(batch.targets, 4).permute(0, 3, 1, 2).float()
    compacted = [task.compact(perfect, batch.targets)]
    assert task.metric.score(compacted) == 1.0
    assert task.scores_by_task(compacted) == {"a": 1.0, "b": 1.0, "c": 1.0}
    assert by_class(compacted[0][0]).keys() == {0, 1, 2}


def test_a_task_of_one_layer_learns_masks_that_are_colours(tmp_path: Path) -> None:
    """Void pixels and padding neither train nor count."""
    from PIL import Image

    for i in range(16):
        ids = ids_of(i, (0, 1, 2, 255))
        colours = np.array([[250, 10, 10], [10, 250, 10], [10, 10, 250]] + 253 * [[128, 128, 128]], dtype=np.uint8)
        for kind, one in (("images", Image.fromarray(colours[ids])), ("masks", mask(ids))):
            (tmp_path / kind).mkdir(exist_ok=True)
            one.save(tmp_path / kind / f"{i}.png")
    task = own(tmp_path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Conv2d(3, 3, 1)
    optimizer = torch.optim.SGD(network.parameters(), 1.0)
    for epoch in range(10):
        for batch in task.training_batches(epoch, 0, 4):
            optimizer.zero_grad()
            task.loss(network(batch.inputs), batch).backward()
            optimizer.step()
    with torch.no_grad():
        outputs = [task.compact(task.predict(network, b.inputs), b.targets) for b in task.validation_batches(4)]
    assert task.metric.score(outputs) > 0.95
    flipped = replace(task, options=replace(task.options, flips=True, window=(8, 8)))
    with torch.no_grad():
        again = [task.compact(flipped.predict(network, b.inputs), b.targets) for b in task.validation_batches(4)]
    assert task.metric.score(again) == pytest.approx(task.metric.score(outputs), abs=0.01)
