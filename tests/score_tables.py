"""Benchmark table for tests: every architecture of NAS-Bench-201's space, with synthetic accuracies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

WORTH = np.array([0.00, 0.06, 0.09, 0.12, 0.04])  # of none, skip, 1x1, 3x3, pooling


def write_table(path: Path, *, long: bool = False) -> Path:
    """Write scores of both splits, a sum over edges and noise that differs by split; ``long``: val after 200, too, and
    after 400 without that of one."""
    rng = np.random.default_rng(0)
    alphas_NE = np.array(np.meshgrid(*[np.arange(5)] * 6, indexing="ij")).reshape(6, -1).T
    truth_N = 0.2 + WORTH[alphas_NE].sum(axis=1)
    columns = {
        "alpha": alphas_NE.tolist(),
        "made_val_e12": np.clip(truth_N + rng.normal(0, 0.03, len(truth_N)), 0, 1),
        "made_test_e200": np.clip(truth_N + rng.normal(0, 0.01, len(truth_N)), 0, 1),
    }
    if long:
        columns["made_val_e200"] = np.clip(truth_N + rng.normal(0, 0.01, len(truth_N)), 0, 1)
        columns["made_val_e200_seed7"] = np.zeros(len(truth_N))
        columns["made_val_e400"] = np.where(np.arange(len(truth_N)) == 0, np.nan, truth_N)
    pq.write_table(pa.table(columns), path)
    return path
