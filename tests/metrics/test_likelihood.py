"""Likelihood: the geometric mean of the probabilities of the true classes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from ddpnas_ray.metrics.likelihood import score


@given(seed=st.integers(0, 999), n=st.integers(1, 40), size=st.integers(1, 40), scale=st.floats(0.01, 5))
def test_its_logarithm_is_the_mean_cross_entropy_however_batches_are_cut(
    seed: int, n: int, size: int, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = torch.from_numpy(scale * rng.normal(size=(n, 4))), torch.from_numpy(rng.integers(4, size=n))
    ours = score(zip(logits.split(size), labels.split(size), strict=True))
    truth = math.exp(-log_loss(labels.numpy(), logits.softmax(dim=1).numpy(), labels=range(4)))
    assert 0 <= ours <= 1
    assert ours == pytest.approx(truth, abs=1e-9)


def test_guessing_scores_one_over_the_number_of_classes_and_certainty_one() -> None:
    labels = torch.tensor([0, 1, 1])
    assert score([(torch.zeros(3, 5), labels)]) == pytest.approx(0.2)
    assert score([(1000.0 * torch.eye(5)[labels], labels)]) == 1.0
    assert score([(-1000.0 * torch.eye(5)[labels], labels)]) == 0.0


def test_of_nothing_it_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        score([])
