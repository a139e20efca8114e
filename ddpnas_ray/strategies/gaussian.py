"""Gaussian process of unit variance: predictions at many points from few observations.

Axes: N observations, M points to predict, F features.
"""

from __future__ import annotations

from functools import lru_cache
from threading import Lock

import numpy as np

from ddpnas_ray.core.space import FloatArray


def posterior(
    seen_NF: FloatArray, target_N: FloatArray, pool_MF: FloatArray, *, length: float, noise: float
) -> tuple[FloatArray, FloatArray]:
    """Compute mean and standard deviation of a Gaussian process of unit variance, each of shape (M,).

    A read-only pool is taken for one that is asked again: after one more observation the rest of the factorisation is
    reused, in O(N M) instead of O(N^2 M).

    Args:
        seen_NF: Observed points, shape (N, F): rows of ``surrogate.features``.
        target_N: Observed values, shape (N,).
        pool_MF: Points to predict, shape (M, F).
        length: Squared distance at which the correlation is 1/e.
        noise: Variance of an observation.
    """
    if not pool_MF.flags.writeable:
        return _kept(_Pool(pool_MF), length, noise).posterior(seen_NF, target_N)
    from scipy.linalg import cho_factor, cho_solve, solve_triangular

    covariance_NN = _correlation(seen_NF, seen_NF, length) + noise * np.eye(len(seen_NF))
    cross_NM = _correlation(seen_NF, pool_MF, length)
    factor = cho_factor(covariance_NN, lower=True)
    explained_NM = solve_triangular(factor[0], cross_NM, lower=True)
    variance_M = 1.0 - np.einsum("nm,nm->m", explained_NM, explained_NM)
    return cho_solve(factor, target_N) @ cross_NM, np.sqrt(np.maximum(variance_M, 0.0))


def _correlation(one_NF: FloatArray, other_MF: FloatArray, length: float) -> FloatArray:
    one_N, other_M = (np.einsum("nf,nf->n", points, points) for points in (one_NF, other_MF))
    correlation_NM: FloatArray = np.exp((2.0 * one_NF @ other_MF.T - one_N[:, None] - other_M) / length)
    return correlation_NM


class Growing:
    """The process at points that stay, extended observation by observation: Cholesky's factorisation row by row.

    Predictions depend on the observations and their order alone, not on what was asked before.

    Args:
        pool_MF: Points to predict, shape (M, F).
        length: Squared distance at which the correlation is 1/e.
        noise: Variance of an observation.
    """

    def __init__(self, pool_MF: FloatArray, length: float, noise: float) -> None:
        self._pool_MF, self._length, self._noise = pool_MF, length, noise
        self._square_M = np.einsum("mf,mf->m", pool_MF, pool_MF)
        self._lock = Lock()
        self._start(16)

    def posterior(self, seen_NF: FloatArray, target_N: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Compute mean and standard deviation at all points, each of shape (M,); see ``posterior``."""
        from scipy.linalg import solve_triangular

        with self._lock:
            if not np.array_equal(self._seen_NF[: self._n], seen_NF[: self._n]):
                self._start(len(seen_NF))
            for point_F in seen_NF[self._n :]:
                self._extend(point_F)
            weight_N = solve_triangular(self._factor_NN[: self._n, : self._n], target_N, lower=True)
            return weight_N @ self._explained_NM[: self._n], np.sqrt(np.maximum(self._variance_M, 0.0))

    def _start(self, capacity: int) -> None:
        self._n = 0
        self._seen_NF = np.zeros((capacity, self._pool_MF.shape[1]))
        self._factor_NN = np.zeros((capacity, capacity))
        self._explained_NM = np.zeros((capacity, len(self._pool_MF)))
        self._variance_M = np.ones(len(self._pool_MF))

    def _extend(self, point_F: FloatArray) -> None:
        from scipy.linalg import solve_triangular

        if (n := self._n) == len(self._seen_NF):
            self._seen_NF = np.concatenate([self._seen_NF, np.zeros_like(self._seen_NF)])
            self._factor_NN = np.pad(self._factor_NN, (0, n))
            self._explained_NM = np.concatenate([self._explained_NM, np.zeros_like(self._explained_NM)])
        square = float(point_F @ point_F)
        row_N = solve_triangular(
            self._factor_NN[:n, :n], _correlation(self._seen_NF[:n], point_F[None], self._length)[:, 0], lower=True
        )
        pivot = np.sqrt(max(1.0 + self._noise - row_N @ row_N, self._noise))  # not less, however it rounds
        cross_M = np.exp((2.0 * self._pool_MF @ point_F - self._square_M - square) / self._length)
        explained_M = (cross_M - row_N @ self._explained_NM[:n]) / pivot
        self._seen_NF[n] = point_F
        self._factor_NN[n, :n], self._factor_NN[n, n] = row_N, pivot
        self._explained_NM[n] = explained_M
        self._variance_M -= explained_M**2
        self._n += 1


class _Pool:
    """Points, equal to those that are the same object, so that they can key a cache."""

    def __init__(self, points_MF: FloatArray) -> None:
        self.points_MF = points_MF

    def __hash__(self) -> int:
        return id(self.points_MF)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Pool) and other.points_MF is self.points_MF


@lru_cache(maxsize=2)
def _kept(pool: _Pool, length: float, noise: float) -> Growing:
    return Growing(pool.points_MF, length, noise)
