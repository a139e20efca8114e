"""What a task shows of a trained network is kept with its weights, whoever is killed and whenever."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ddpnas_ray.retraining.files import restore_checkpoint
from ddpnas_ray.retraining.illustrations import illustration_files, parse_illustrations
from ddpnas_ray.retraining.prepare import Wish, make
from ddpnas_ray.retraining.progress import RetrainingProgress
from ddpnas_ray.retraining.run import retrain_here
from ddpnas_ray.runs.directory import existing_run
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.tasks.base import Illustrations
from tests.commands import contents
from tests.reporting.retrainings import KEYS, retrained
from tests.retraining.showing import FAILING, TASK, png


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that was never killed, with two seeds."""
    return retrained(tmp_path_factory.mktemp("whole") / "x", TASK, "retraining.seeds=2")


def shown(out: Path) -> dict[str, bytes]:
    """The files of what is shown of all seeds, by path."""
    return {name: data for name, data in contents(out).items() if "/illustrations/" in f"/{name}"}


def resumed(out: Path) -> Path:
    """Train to the end."""
    folder = existing_run(str(out))
    retraining = make(Wish(network="darts_v2", overrides=[*KEYS, TASK, "retraining.seeds=2"]))
    progress = RetrainingProgress(retraining.chosen.label, retraining.seeds, retraining.config.retraining.epochs)
    retrain_here(retraining, folder, progress, "cpu")
    return out


def test_they_are_files_in_the_folder_of_each_seed(whole: Path) -> None:
    result = json.loads((whole / "result.json").read_text())
    for training in result["trainings"]:
        folder = whole / f"seed-{training['seed']}" / "illustrations"
        index = json.loads((folder / "illustrations.json").read_text())
        assert sorted(path.name for path in folder.iterdir()) == [
            "illustrations.json",
            "picture-1.png",
            "picture-2.png",
        ]
        assert [row["caption"] for row in index["pictures"]] == ["image 0", "image 1"]
        assert index["split"] == "test", "the test images are there"
        right, total = (sum(row[i] for i, row in enumerate(index["confusion"])), sum(map(sum, index["confusion"])))
        assert right / total == training["test"], "of the outputs that were scored"
    assert "confusion" not in json.dumps(result), "results stay small"
    history = restore_checkpoint(Folder.open(str(whole)), 0)[2]  # type: ignore[index]
    assert "image 0" not in json.dumps(history)


@pytest.mark.parametrize("saved", [2, 1, 0])
def test_a_killed_training_ends_with_the_same_files(whole: Path, tmp_path: Path, saved: int) -> None:
    out = shutil.copytree(whole, tmp_path / "x")
    (out / "result.json").unlink()
    for seed in (0, 1):
        shutil.rmtree(out / f"seed-{seed}" / "illustrations")
        for epoch in range(saved + 1, 3):
            shutil.rmtree(out / f"seed-{seed}" / "checkpoints" / f"ckpt-{epoch}")
    assert shown(resumed(out)) == shown(whole)


def test_what_a_kill_left_half_written_is_written_again(whole: Path, tmp_path: Path) -> None:
    out = shutil.copytree(whole, tmp_path / "x")
    (out / "result.json").unlink()
    (out / "seed-0" / "illustrations" / "illustrations.json").unlink()
    (out / "seed-0" / "illustrations" / "picture-1.png").write_bytes(b"")
    damaged = out / "seed-1" / "checkpoints" / "ckpt-2" / "picture-2.png"
    damaged.write_bytes(damaged.read_bytes()[:-1])  # the epoch before it is the latest valid one
    assert shown(resumed(out)) == shown(whole)


def test_without_test_images_the_validation_images_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddpnas_ray.retraining.run.read_test", lambda task: (None, "none here"))
    out = retrained(tmp_path / "x", TASK)
    index = json.loads((out / "seed-0" / "illustrations" / "illustrations.json").read_text())
    assert (index["split"], sum(map(sum, index["confusion"]))) == ("val", 32)


def test_a_task_that_fails_to_show_a_network_costs_neither_it_nor_its_scores(tmp_path: Path) -> None:
    out = retrained(tmp_path / "x", FAILING)
    assert not (out / "seed-0" / "illustrations").exists()
    result = json.loads((out / "result.json").read_text())
    assert [score["split"] for score in result["scores"]] == ["val", "test"]
    assert "ZeroDivisionError: no such colour" in (out / "log.jsonl").read_text()


def test_tasks_that_show_nothing_write_nothing(tmp_path: Path) -> None:
    out = retrained(tmp_path / "x")
    assert shown(out) == {}
    assert restore_checkpoint(Folder.open(str(out)), 0)[3] is None  # type: ignore[index]


def test_files_and_back() -> None:
    one = Illustrations(
        {'a "caption"\n': png(np.zeros((2, 3))), "b": png(np.ones((1, 1)))}, [[1, 2], [3, 4]], ["x", "y"]
    )
    files = illustration_files(one, [{"test": None}])
    assert list(files)[-1] == "illustrations.json", "it names the others, so it is written last"
    assert parse_illustrations({**files, "history.json": b"{}"}) == one
    assert parse_illustrations({"history.json": b"{}"}) is None
    with pytest.raises(KeyError, match=r"picture-2\.png"):
        parse_illustrations({name: data for name, data in files.items() if name != "picture-2.png"})
    assert parse_illustrations(illustration_files(Illustrations({}), [{"test": 0.5}])) == Illustrations({}, None, [])
