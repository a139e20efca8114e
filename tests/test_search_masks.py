"""Searches on images with masks, from the command line: CamVid, and folders of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ddpnas_ray import report, retrain, search
from tests.commands import LOCAL, ONE_EPOCH, Refused, options, run
from tests.conftest import TINY
from tests.tasks.segmentation.making import write_pairs

MASKS = options(
    "task.name=segmentation",
    "task.size=[48, 64]",
    "task.crop=[32, 32]",
    "task.head_width=8",
    "data.train_limit=8",
    "data.val_limit=4",
    "training.batch_size=4",
    "training.bn_images=4",
)
RECIPE = options(
    "retraining.epochs=2",
    "retraining.batch_size=4",
    "retraining.train_on=train",
    "retraining.schedule=poly",
    "retraining.lr_per=step",
)


def camvid(test_data: Path) -> list[str]:
    return [*MASKS, *options("data.name=camvid", f"data.path={test_data / 'camvid'}")]


def test_a_search_on_camvid_ends_with_a_genotype(test_data: Path, tmp_path: Path) -> None:
    said = run(search.main, *LOCAL, *camvid(test_data), "--out", tmp_path / "run")
    assert said.code == 0, said.err
    assert "genotype" in said.out and "48x64 px, 11 classes" in said.out and "aspp head of 8 channels" in said.out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["genotype"]["normal"] and 0 < result["scores"]["best"] <= 1
    assert "agrees" in run(report.main, tmp_path / "run", "--verify-fingerprint").out

    said = run(retrain.main, tmp_path / "run", "--backend", "local", *RECIPE)
    assert said.code == 0, said.err
    assert "test miou 0." in said.out and "road 0." in said.out


@pytest.mark.slow
@pytest.mark.ray
def test_two_workers_find_what_one_process_finds(test_data: Path, tmp_path: Path, ray_cluster: None) -> None:
    found = []
    for name, words in {"local": LOCAL, "ray": options(*TINY, "execution.workers=2")}.items():
        said = run(search.main, *words, *camvid(test_data), "--out", tmp_path / name)
        assert said.code == 0, said.err
        found.append(json.loads((tmp_path / name / "result.json").read_text())["fingerprint"])
    assert found[0] == found[1]


def test_folders_of_images_and_masks_are_searched_in_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path, mode="P")
    folders = options("data.name=folder", "data.path=images", "task.masks=masks", "task.classes=[a, b, c]")
    mobile = options(
        "space.name=mobile",
        "space.widths=[8, 8, 8, 8, 8, 8, 8, 8, 16]",
        "space.depths=[1, 1, 1, 1, 1, 1]",
        "pruning.epochs_per_round=1",
        "execution.backend=local",
    )
    said = run(search.main, *mobile, *MASKS, *folders, *ONE_EPOCH)
    assert said.code == 0, said.err
    assert "1 of 5 epochs are saved" in said.err


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (["data.name=folder", "data.path=images"], "data.path is set but task.masks is not"),
        (["data.name=cityscapes"], "data.name=cityscapes needs data.path, the folder with leftImg8bit and gtFine"),
        (["data.name=cityscape"], "data.name: 'cityscape' is not a built-in data set"),
        (["task.void=a"], "task.void is 'a'"),
        (["task.size=[48]"], "task.size is [48]"),
        (["task.size=[48, 0]"], "task.size is [48, 0]"),
        (["task.output_stride=4"], "task.output_stride is 4"),
        (["task.head=unet"], "task.head is 'unet'"),
        (["task.ohem=1.0"], "task.ohem is 1.0"),
        (["task.sizes=[48, 48]"], "task.sizes is not an option of task 'segmentation'; did you mean size"),
        ([], "data.name=digits has no masks"),
    ],
)
def test_bad_input_is_refused_in_one_line(keys: list[str], says: str, refused: Refused) -> None:
    refused(search.main, [*LOCAL, *options("task.name=segmentation", *keys)], says)


def test_cityscapes_is_for_masks_alone(refused: Refused) -> None:
    refused(search.main, [*LOCAL, *options("data.name=cityscapes")], "'cityscapes' is not a built-in data set")
