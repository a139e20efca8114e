"""Pearson's correlation as SciPy's, under any batching."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr

from ddpnas_ray.metrics.pearson import score


@given(seed=st.integers(0, 999), n=st.integers(3, 40), size=st.integers(1, 40), scale=st.floats(1e-3, 1e3))
def test_it_is_that_of_scipy(seed: int, n: int, size: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    found, true = torch.from_numpy(rng.normal(size=(n, 1))), torch.from_numpy(5 + scale * rng.normal(size=n))
    ours = score(zip(found.split(size), true.split(size), strict=True))
    assert -1 <= ours <= 1
    assert ours == pytest.approx(pearsonr(found[:, 0], true).statistic, abs=1e-9)


def test_a_constant_scores_0_and_a_line_1() -> None:
    true = torch.arange(5.0)
    assert score([(torch.full((5, 1), 3.0), true)]) == 0.0
    assert score([(7 - 2 * true[:, None], true)]) == pytest.approx(-1)


def test_of_nothing_it_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        score([])
