"""Gaussian process predictions. Axes: N observations, M points predicted, F features."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF

from ddpnas_ray.core.space import FloatArray
from ddpnas_ray.strategies.gaussian import Growing, posterior

LAW = settings(derandomize=True, deadline=None, max_examples=20)
seeds = st.integers(0, 2**32 - 1)


def points(n: int, seed: int) -> FloatArray:
    """Binary ones, among which some are alike, as architectures are."""
    return np.random.default_rng(seed).integers(0, 2, (n, 6)) / 2.0


@pytest.mark.parametrize("stays", [False, True])
@LAW
@given(length=st.floats(0.3, 20.0), noise=st.floats(1e-3, 1.0), n=st.integers(1, 40), seed=seeds)
def test_the_posterior_is_scikit_learns(stays: bool, length: float, noise: float, n: int, seed: int) -> None:
    seen_NF, pool_MF, target_N = points(n, seed), points(20, seed + 1), np.random.default_rng(seed).standard_normal(n)
    pool_MF.setflags(write=not stays)
    mean_M, deviation_M = posterior(seen_NF, target_N, pool_MF, length=length, noise=noise)
    kernel = RBF(length_scale=np.sqrt(length / 2))  # exp(-d^2 / length)
    other = GaussianProcessRegressor(kernel, alpha=noise, optimizer=None).fit(seen_NF, target_N)
    expected_mean_M, expected_deviation_M = other.predict(pool_MF, return_std=True)
    np.testing.assert_allclose(mean_M, expected_mean_M, atol=1e-8)
    np.testing.assert_allclose(deviation_M, expected_deviation_M, atol=1e-7)


@LAW
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6), seed=seeds)
def test_what_was_asked_before_changes_no_bit(sizes: list[int], seed: int) -> None:
    """More observations, fewer, and other ones in between: as a process that was never asked."""
    seen_NF, other_NF, pool_MF = points(40, seed), points(40, seed + 2), points(30, seed + 1)
    target_N = np.random.default_rng(seed).standard_normal(40)
    used = Growing(pool_MF, 2.0, 0.01)
    for i, n in enumerate(sizes):
        of_these_NF = other_NF if i % 3 == 2 else seen_NF
        fresh = Growing(pool_MF, 2.0, 0.01)
        for found, expected in zip(
            used.posterior(of_these_NF[:n], target_N[:n]), fresh.posterior(of_these_NF[:n], target_N[:n]), strict=True
        ):
            np.testing.assert_array_equal(found, expected)


def test_pools_lengths_and_noises_are_not_confused() -> None:
    seen_NF, target_N = points(5, 0), np.arange(5.0)
    for seed in range(4):
        for length, noise in ((1.0, 0.1), (2.0, 0.1), (2.0, 0.5)):
            pool_MF = points(20, seed + 1)
            expected = posterior(seen_NF, target_N, pool_MF, length=length, noise=noise)
            pool_MF.setflags(write=False)
            np.testing.assert_allclose(posterior(seen_NF, target_N, pool_MF, length=length, noise=noise), expected)
