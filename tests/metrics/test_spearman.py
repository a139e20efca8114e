"""Spearman's correlation as SciPy's, with equal numbers, under any batching."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from ddpnas_ray.metrics.spearman import score


@given(seed=st.integers(0, 999), n=st.integers(3, 40), size=st.integers(1, 40))
def test_it_is_that_of_scipy(seed: int, n: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    found, true = (rng.integers(6, size=n).astype(np.float32) for _ in range(2))
    pairs = torch.from_numpy(found)[:, None].split(size), torch.from_numpy(true).split(size)
    ours = score(zip(*pairs, strict=True))
    constant = len(set(found)) == 1 or len(set(true)) == 1
    assert ours == pytest.approx(0.0 if constant else spearmanr(found, true).statistic, abs=1e-9)


def test_any_rising_curve_scores_1() -> None:
    true = torch.arange(5.0)
    assert score([(true[:, None] ** 3, true)]) == pytest.approx(1)


def test_of_nothing_it_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        score([])
