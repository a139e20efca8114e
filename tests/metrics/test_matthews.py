"""Matthews' correlation as scikit-learn's, under any batching, and without overflow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import matthews_corrcoef

from ddpnas_ray.metrics.matthews import score


@pytest.mark.filterwarnings("ignore:A single label was found")
@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=30),
    classes=st.sampled_from([2, 4]),
    seed=st.integers(0, 99),
    size=st.integers(1, 30),
)
def test_it_is_that_of_scikit_learn(labels: list[int], classes: int, seed: int, size: int) -> None:
    true = np.array(labels) % classes
    found = np.random.default_rng(seed).integers(classes, size=len(labels))
    logits, truth = torch.eye(classes)[torch.from_numpy(found)], torch.from_numpy(true)
    ours = score(zip(logits.split(size), truth.split(size), strict=True))
    assert -1 <= ours <= 1
    assert ours == pytest.approx(matthews_corrcoef(true, found), abs=1e-12)


def test_a_constant_scores_0_and_the_opposite_minus_1() -> None:
    labels = torch.tensor([0, 1] * 100_000)
    assert score([(torch.eye(2)[torch.zeros_like(labels)], labels)]) == 0.0
    assert score([(torch.eye(2)[1 - labels], labels)]) == -1.0


def test_of_nothing_it_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        score([])
