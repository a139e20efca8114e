"""Balanced accuracy: one huge class does not hide the others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import recall_score

from ddpnas_ray.metrics import accuracy
from ddpnas_ray.metrics.balanced_accuracy import score


@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=30), seed=st.integers(0, 99), size=st.integers(1, 30))
def test_it_is_the_mean_recall_over_the_classes_that_occur(labels: list[int], seed: int, size: int) -> None:
    found = np.random.default_rng(seed).integers(4, size=len(labels))
    logits, truth = torch.eye(4)[torch.from_numpy(found)], torch.tensor(labels)
    ours = score(zip(logits.split(size), truth.split(size), strict=True))
    assert ours == pytest.approx(recall_score(labels, found, labels=sorted(set(labels)), average="macro"), abs=1e-12)


def test_always_naming_a_huge_class_scores_one_share_of_the_classes() -> None:
    logits, labels = torch.eye(4)[[0] * 100], torch.tensor([0] * 97 + [1, 2, 3])
    assert accuracy.score([(logits, labels)]) == 0.97
    assert score([(logits, labels)]) == 0.25


def test_of_nothing_it_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        score([])
