"""CamVid from the command line: a network is trained, exported in every form, and predicts label maps from each."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ddpnas_ray.deploy.interface import interface_of
from ddpnas_ray.deploy.kinds.masks import MaskInterface
from ddpnas_ray.export import main as export
from ddpnas_ray.launch.exporting import load_trained
from ddpnas_ray.predict import main as predict
from ddpnas_ray.retrain import main as retrain
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.tasks.segmentation.task import SegmentationTask
from ddpnas_ray.training.epoch import fixed_threads
from tests.commands import ENVIRONMENT, options, run

SMALL = (
    "task.size=[48, 64]", "task.crop=null", "task.head=decoder", "task.head_width=8", "data.train_limit=8",
    "data.val_limit=4", "target.cells=3", "target.channels=4", "target.stem=imagenet", "retraining.epochs=1",
    "retraining.batch_size=4", "retraining.threads=1",
)  # fmt: skip
FORMS = ("torch", "pt2", "onnx", "huggingface")


def photographs(data: Path, folder: Path, count: int) -> Path:
    """Images of CamVid's validation split at their own size."""
    folder.mkdir()
    table = pq.read_table(data / "camvid" / "val.parquet").slice(0, count)
    for i, row in enumerate(table["image"].to_pylist()):
        Image.open(io.BytesIO(row["bytes"])).save(folder / f"{i}.png")
    return folder


def evaluated(task: SegmentationTask, folder: Path) -> tuple[Path, Path]:
    """The images and masks of evaluation, at its size."""
    pixels, labels = task.data.val.pairs.gather(np.arange(len(task.data.val)))
    images, masks = folder / "images", folder / "masks"
    images.mkdir(parents=True)
    masks.mkdir()
    void = task.data.labelling.void or 255
    for i, (image, mask) in enumerate(zip(pixels, labels, strict=True)):
        Image.fromarray(image.transpose(1, 2, 0)).save(images / f"{i}.png")
        Image.fromarray(np.where(mask == 255, void, mask).astype(np.uint8)).save(masks / f"{i}.png")
    return images, masks


@pytest.mark.slow
def test_a_network_of_masks_from_training_to_label_maps(tmp_path: Path, test_data: Path) -> None:
    out, data = tmp_path / "run", f"data.path={test_data / 'camvid'}"
    words = ["--config", "camvid_transfer", "--network", "darts_v2", "--backend", "local", "--out", str(out)]
    with fixed_threads(1):
        said = run(retrain, *words, *options(*SMALL, data))
        assert said.code == 0, said.err
        said = run(export, out, "--json")
        assert said.code == 0, said.err
    rows = {row["form"]: row for row in json.loads(said.out)["forms"]}
    assert sorted(rows) == sorted(FORMS)
    for row in rows.values():
        assert row["images"] == 4 and row["labels"] == 4 * 48 * 64 + 2 * 65 * 97 == row["labels_agree"]
    assert "| miou on validation data |" in (out / "model" / "README.md").read_text()

    network, task = load_trained(Folder.open(str(out)))
    assert isinstance(task, SegmentationTask)
    own = interface_of(json.loads(json.dumps(task.preprocessing())), "task")
    assert isinstance(own, MaskInterface) and own == network.preprocessing
    images, masks = evaluated(task, tmp_path / "evaluated")
    prepared = np.stack([own.prepare(Image.open(images / f"{i}.png")) for i in range(4)])
    for batch in task.validation_batches(4):
        np.testing.assert_allclose(prepared, batch.inputs.numpy(), atol=1e-6)

    photos = photographs(test_data, tmp_path / "photos", 2)
    maps = {}
    for form in FORMS:
        given = [str(out), str(photos), "--form", form, "--out", str(tmp_path / form), "--json"]
        if form == "huggingface":  # it would import transformers here
            command = [sys.executable, "-m", "ddpnas_ray.predict", *given]
            found = subprocess.run(command, env=ENVIRONMENT | {"HF_HOME": str(tmp_path / "hf")}, capture_output=True)
            assert found.returncode == 0, found.stderr
        else:
            assert run(predict, *given).code == 0
        maps[form] = [np.asarray(Image.open(tmp_path / form / f"{i}.png")) for i in range(2)]
        assert maps[form][0].shape == (360, 480) and maps[form][0].max() < 11
    for form in FORMS[1:]:
        for found_HW, expected_HW in zip(maps[form], maps["torch"], strict=True):
            np.testing.assert_array_equal(found_HW, expected_HW)

    said = run(predict, out, images, "--masks", masks, "--json")
    (row,) = json.loads((out / "result.json").read_text())["trainings"]
    assert f"mIoU {row['val']:.4f}, " in said.err, (said.err, row)
