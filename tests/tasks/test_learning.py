"""Warnings about searches that cannot learn, or did not, on difficult data."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpnas_ray import check, report, search
from ddpnas_ray.data.batches import epoch_order
from ddpnas_ray.experiment.config import load
from ddpnas_ray.tasks.learning import few_steps, near_chance
from tests.commands import LOCAL, ONE_EPOCH, options, run
from tests.conftest import ROOT


def labels(*counts: int) -> np.ndarray:
    return np.repeat(np.arange(len(counts)), counts)


def near(scores: list[float], labels_N: np.ndarray) -> list[str]:
    """Warnings for accuracies, where chance is the fraction of the most frequent class."""
    return near_chance(scores, float(np.bincount(labels_N).max()) / len(labels_N), len(labels_N))


# --- steps ---


@given(examples=st.integers(0, 2000), batch_size=st.integers(2, 600))
def test_a_warning_comes_exactly_under_ten_steps_and_its_way_out_makes_ten(examples: int, batch_size: int) -> None:
    steps = len(epoch_order(examples, batch_size, seed=0, epoch=0))
    said = few_steps(examples, batch_size)
    assert len(said) == (examples > 0 and steps < 10)
    for warning in said:
        assert f" {steps} step" in warning and f"({examples} examples, batch {batch_size})" in warning
        assert "\n" not in warning
        if (proposed := re.search(r"--set training.batch_size=(\d+) makes (\d+)$", warning)) is not None:
            assert len(epoch_order(examples, int(proposed[1]), seed=0, epoch=0)) == int(proposed[2]) >= 10
            assert int(proposed[1]) < batch_size
            assert load(None, [f"training.batch_size={proposed[1]}"])
        else:
            assert examples < 20, "no batch of at least 2 makes ten steps"


def test_a_small_folder_with_the_default_batch() -> None:
    assert few_steps(179, 512) == [
        "training makes 1 step per epoch (179 examples, batch 512), which may be too few to learn anything; "
        "--set training.batch_size=16 makes 11"
    ]


# --- chance ---


@pytest.mark.parametrize(
    ("scores", "counts", "warned"),
    [
        ([0.1] * 8, [90] * 10, True),
        ([0.12], [9000] * 10, True),  # far more than 3 standard errors above, yet nothing learned
        ([0.3, 0.4], [90] * 10, False),
        ([0.02], [90] * 10, True),  # below chance
        ([0.95], [950, 50], True),  # one huge class: its fraction is chance
        ([0.951], [9500, 500], True),
        ([0.97], [9500, 500], False),
        ([0.5] * 3, [950, 50], True),
        ([float("nan"), 0.1], [90] * 10, True),
        ([float("nan"), 0.9], [90] * 10, False),
        ([0.9], [0, 500, 500], False),  # a class without images
    ],
)
def test_scores_near_the_share_of_the_most_frequent_class(scores: list[float], counts: list[int], warned: bool) -> None:
    said = near(scores, labels(*counts))
    assert [warning.startswith("scores are near chance: ") for warning in said] == [True] * warned


@pytest.mark.parametrize("counts", [[1], [1, 1], [4, 4], [99, 1], [500], [0, 7]])
@pytest.mark.parametrize("score", [0.0, 0.5, 1.0])
def test_too_few_images_to_tell(counts: list[int], score: float) -> None:
    (said,) = near([score], labels(*counts))
    assert "too few to tell scores from chance" in said and said.startswith(f"{sum(counts)} validation example")


@pytest.mark.parametrize("scores", [[], [float("nan")], [float("inf")]])
def test_without_scores_there_is_nothing_to_say(scores: list[float]) -> None:
    assert near(scores, labels(50, 50)) == []


@given(
    counts=st.lists(st.integers(0, 300), min_size=1, max_size=8).filter(sum),
    low=st.floats(0, 1),
    high=st.floats(0, 1),
)
def test_a_better_score_is_never_warned_of_where_a_worse_one_is_not(counts: list[int], low: float, high: float) -> None:
    low, high = sorted((low, high))
    assert len(near([high], labels(*counts))) <= len(near([low], labels(*counts))) <= 1


def test_chance_itself_is_warned_of_whatever_its_luck() -> None:
    rng = np.random.default_rng(0)
    classes = labels(60, 30, 10)
    for _ in range(200):
        assert near([float(np.mean(rng.permutation(classes) == classes))], classes)


# --- commands ---


def test_a_search_of_few_steps_says_so_first_and_last_and_in_its_files(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = [*LOCAL, *options("training.lr=1e-9"), "--out", out]
    said = run(search.main, *words)
    warned = "training makes 2 steps per epoch (64 examples, batch 32)"
    lines = said.out.splitlines()
    assert (said.code, said.err) == (0, "")
    assert lines[0].startswith(f"warning: {warned}")
    assert lines[-2].startswith(f"warning: {warned}") and lines[-1].startswith("warning: scores are near chance: ")
    start = json.loads((out / "log.jsonl").read_text().splitlines()[0])
    result = json.loads((out / "result.json").read_text())
    assert start["event"] == "start" and start["warnings"] == result["warnings"][:1]
    assert [f"warning: {warning}" for warning in result["warnings"]] == lines[-2:]
    assert run(report.main, out).out.splitlines()[-2:] == lines[-2:]
    assert run(report.main, out, "--html").code == 0
    page = (out / "report.html").read_text()
    assert warned in page and "scores are near chance" in page


def test_a_search_that_goes_on_has_warned_before(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(search.main, *LOCAL, *ONE_EPOCH, "--out", out).out.startswith("warning: training makes 2 steps")
    assert not run(search.main, "--out", out, "--resume", *ONE_EPOCH).out.startswith("warning: ")


def test_check_warns_too() -> None:
    warned = "training makes 2 steps per epoch (64 examples, batch 32)"
    assert f"\nwarning    {warned}" in run(check.main, *LOCAL).out
    assert json.loads(run(check.main, *LOCAL, "--json").out)["warnings"][0].startswith(warned)


def test_no_experiment_of_ours_is_warned_of() -> None:
    for path in (None, *(ROOT / "configs").glob("*.yaml")):
        config = load(None if path is None else str(path), ["evaluation.table=a.parquet"] * (path is not None))
        if not config.trains:
            continue
        images = {"digits": 719, "cifar10": 25_000, "folder": 640_000, "camvid": 367, "cityscapes": 2975}[
            config.data.name
        ]
        assert few_steps(min(images, config.data.train_limit or images), config.training.batch_size) == [], path
