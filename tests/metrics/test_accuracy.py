"""Accuracy, checked by hand and under any batching."""

from __future__ import annotations

import pytest
import torch

from ddpnas_ray.metrics.accuracy import score

LOGITS = torch.eye(3)[[0, 1, 2, 1, 1]]
LABELS = torch.tensor([0, 1, 1, 0, 1])


@pytest.mark.parametrize("size", [1, 2, 5])
def test_it_is_the_fraction_of_correct_examples(size: int) -> None:
    assert score(zip(LOGITS.split(size), LABELS.split(size), strict=True)) == 3 / 5


def test_of_nothing_it_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        score([])
