"""F1 as scikit-learn's, under any batching."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from ddpnas_ray.metrics.f1 import score


@given(labels=st.lists(st.integers(0, 1), min_size=1, max_size=30), seed=st.integers(0, 99), size=st.integers(1, 30))
def test_of_two_classes_it_is_that_of_class_1(labels: list[int], seed: int, size: int) -> None:
    found = np.random.default_rng(seed).integers(2, size=len(labels))
    logits, truth = torch.eye(2)[torch.from_numpy(found)], torch.tensor(labels)
    ours = score(zip(logits.split(size), truth.split(size), strict=True))
    assert ours == pytest.approx(f1_score(labels, found, zero_division=0), abs=1e-12)


@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=30), seed=st.integers(0, 99))
def test_of_more_classes_it_is_the_mean_over_them(labels: list[int], seed: int) -> None:
    found = np.random.default_rng(seed).integers(4, size=len(labels))
    ours = score([(torch.eye(4)[torch.from_numpy(found)], torch.tensor(labels))])
    assert ours == pytest.approx(f1_score(labels, found, average="macro", zero_division=0), abs=1e-12)


def test_of_nothing_it_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        score([])
