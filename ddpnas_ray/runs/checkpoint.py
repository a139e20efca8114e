"""Save and restore a search in sealed checkpoints (``runs/sealed.py``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from ddpnas_ray.core.state import RoundRecord, SearchState
from ddpnas_ray.runs.files import evaluations_table, json_file, read_evaluations
from ddpnas_ray.runs.sealed import restore_sealed, write_sealed
from ddpnas_ray.storage.folder import Folder

Float32Array = npt.NDArray[np.float32]
_STATE = ("theta_EK", "momentum_EK", "live_EK", "pruned_at_EK", "score_sum_EK", "visits_EK")
_HISTORY = ("theta_EK", "utility_EK", "momentum_EK", "live_EK", "pruned_at_EK")
_WEIGHTS = "weights/"


def save(checkpoints: Folder, state: SearchState, tensors: Mapping[str, Float32Array]) -> None:
    """Write ``ckpt-<epochs finished>`` and keep the three latest.

    Args:
        checkpoints: The folder of all checkpoints.
        state: State of the search.
        tensors: The shared weights by name.

    Raises:
        RunDirError: It cannot be written; older checkpoints are intact.
    """
    arrays: dict[str, npt.NDArray[np.generic]] = {f"{_WEIGHTS}{name}": tensor for name, tensor in tensors.items()}
    arrays |= {f"state/{name}": getattr(state, name) for name in _STATE}
    for record in state.history:
        arrays |= {f"history/{record.round}/{name}": getattr(record, name) for name in _HISTORY}
    files = {
        "state.json": json_file({"seed": state.seed, "round": state.round, "epoch": state.epoch}),
        "arrays.safetensors": bytes(save_tensors({name: np.ascontiguousarray(a) for name, a in arrays.items()})),
        "evaluations.parquet": evaluations_table(state.evaluations),
    }
    write_sealed(checkpoints, state.epoch, files)


def restore(checkpoints: Folder) -> tuple[SearchState, dict[str, Float32Array]] | None:
    """Restore the latest valid checkpoint; warns about each damaged one and falls back to the previous.

    Returns:
        The state and the weights; None if there is no valid checkpoint.
    """
    return restore_sealed(checkpoints, _parse, "the search")


def _parse(files: Mapping[str, bytes]) -> tuple[SearchState, dict[str, Float32Array]]:
    scalars = json.loads(files["state.json"])
    arrays = load_tensors(files["arrays.safetensors"])
    rounds = sorted({int(name.split("/")[1]) for name in arrays if name.startswith("history/")})
    fields: dict[str, Any] = scalars | {name: arrays[f"state/{name}"] for name in _STATE}
    state = SearchState(
        **fields,
        evaluations=read_evaluations(files["evaluations.parquet"]),
        history=tuple(RoundRecord(r, **{name: arrays[f"history/{r}/{name}"] for name in _HISTORY}) for r in rounds),
    )
    return state, {name.removeprefix(_WEIGHTS): a for name, a in arrays.items() if name.startswith(_WEIGHTS)}
