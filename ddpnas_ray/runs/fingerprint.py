"""Fingerprint of a search: SHA-256 over everything it decided and learned."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load as load_tensors

from ddpnas_ray.core.space import FloatArray, IntArray, SearchSpace
from ddpnas_ray.core.state import Evaluation
from ddpnas_ray.runs.directory import parsed, read_result
from ddpnas_ray.runs.files import read_evaluations, read_history, read_space
from ddpnas_ray.storage.folder import Folder


def search_fingerprint(
    theta_EK: FloatArray,
    momentum_EK: FloatArray,
    pruned_at_EK: IntArray,
    evaluations: Iterable[Evaluation],
    tensors: Mapping[str, npt.NDArray[Any]],
) -> str:
    """Return the SHA-256 over everything a search decided and learned; equal for equal searches, however they ran.

    Args:
        theta_EK: Final distribution, shape (E, K), 0 in the padding.
        momentum_EK: Final V, 0 in the padding.
        pruned_at_EK: -1 where not pruned, and in the padding.
        evaluations: In any order.
        tensors: Supernet weights by name.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for array, kind in ((theta_EK, "<f8"), (momentum_EK, "<f8"), (pruned_at_EK, "<i8")):
        digest.update(np.ascontiguousarray(array, dtype=kind).tobytes())
    for row in sorted(evaluations, key=lambda row: (row.round, row.epoch, row.architecture)):
        digest.update(np.array([row.round, row.epoch, row.architecture, *row.alpha_E], dtype="<i8").tobytes())
        loss = math.nan if math.isnan(row.loss) else row.loss
        digest.update(np.array([row.score, loss], dtype="<f8").tobytes())
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {tensor.dtype.name} {tensor.shape}".encode())
        digest.update(tensor.astype(tensor.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Recomputed:
    """Recorded fingerprint, and the one recomputed from the files."""

    recorded: str
    recomputed: str

    @property
    def agrees(self) -> bool:
        """Whether the files are unchanged since the search wrote them."""
        return self.recorded == self.recomputed


def verify_fingerprint(folder: Folder) -> Recomputed:
    """Recompute the fingerprint of a finished run from theta.parquet, evaluations.parquet and weights.safetensors.

    Raises:
        RunDirError: The run has not finished, or a file is missing or unreadable.
    """
    result = read_result(folder)
    space = parsed(folder, "space.json", read_space)
    arrays = parsed(folder, "theta.parquet", lambda data: _last_round(data, space))
    evaluations = parsed(folder, "evaluations.parquet", read_evaluations)
    tensors = parsed(folder, "weights.safetensors", load_tensors)
    return Recomputed(str(result["fingerprint"]), search_fingerprint(*arrays, evaluations, tensors))


def _last_round(data: bytes, space: SearchSpace) -> tuple[FloatArray, FloatArray, IntArray]:
    """Read the final theta, V and pruned_at of ``theta.parquet``."""
    history = read_history(data, space)
    if not history:
        raise ValueError("it has no rows")
    return history[-1].theta_EK, history[-1].momentum_EK, history[-1].pruned_at_EK
