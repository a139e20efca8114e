"""Scores of label maps by counts; the files that the command writes are tested in tests/test_predict_masks.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddpnas_ray.deploy.mask_predicting import confusion, ious, mask_scores
from ddpnas_ray.metrics.matthews import counted
from ddpnas_ray.metrics.miou import by_class, score


def test_scores_are_those_of_training() -> None:
    rng = np.random.default_rng(0)
    labels, expected = rng.integers(0, 5, (40, 30)), rng.integers(-1, 4, (40, 30))
    found = confusion(expected, labels.astype(np.uint8), 6)
    logits = torch.nn.functional.one_hot(torch.from_numpy(labels), 6).permute(2, 0, 1)[None].float()
    counts = counted(logits, torch.from_numpy(expected)[None])
    assert found.tolist() == counts.tolist()
    assert {i: value for i, value in enumerate(ious(found).tolist()) if value == value} == by_class(counts)
    scores = mask_scores(found)
    assert scores["miou"] == pytest.approx(score([(counts, counts.sum())]))
    assert scores["pixel_accuracy"] == (labels == expected).sum() / (expected >= 0).sum()


def test_without_pixels_there_is_no_score() -> None:
    nothing = confusion(np.full((2, 2), -1), np.zeros((2, 2), np.uint8), 3)
    assert np.isnan(list(mask_scores(nothing).values())).all() and np.isnan(ious(nothing)).all()
