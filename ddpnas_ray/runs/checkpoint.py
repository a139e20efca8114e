"""Save and restore a search: one folder per epoch, sealed with the SHA-256 of each of its files. No pickle."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from ddpnas_ray.core.state import RoundRecord, SearchState
from ddpnas_ray.runs.files import evaluations_table, json_file, read_evaluations
from ddpnas_ray.storage.folder import Folder

log = logging.getLogger(__name__)

KEPT = 3
Float32Array = npt.NDArray[np.float32]
_STATE = ("theta_EK", "momentum_EK", "live_EK", "pruned_at_EK", "score_sum_EK", "visits_EK")
_HISTORY = ("theta_EK", "utility_EK", "momentum_EK", "live_EK", "pruned_at_EK")


def save(checkpoints: Folder, state: SearchState, tensors: Mapping[str, Float32Array]) -> None:
    """Write ``ckpt-<epochs finished>`` and keep the three latest.

    ``DONE``, written last, holds the SHA-256 of every file; a checkpoint without it, or not matching it, is invalid.

    Args:
        checkpoints: The folder of all checkpoints.
        state: State of the search.
        tensors: The shared weights by name.

    Raises:
        RunDirError: It cannot be written; older checkpoints are intact.
    """
    folder = checkpoints / f"ckpt-{state.epoch}"
    if checkpoints.has(f"ckpt-{state.epoch}"):
        folder.delete()  # damaged, from an earlier attempt
    folder.make()
    arrays: dict[str, npt.NDArray[np.generic]] = {f"weights/{name}": tensor for name, tensor in tensors.items()}
    arrays |= {f"state/{name}": getattr(state, name) for name in _STATE}
    for record in state.history:
        arrays |= {f"history/{record.round}/{name}": getattr(record, name) for name in _HISTORY}
    files = {
        "state.json": json_file({"seed": state.seed, "round": state.round, "epoch": state.epoch}),
        "arrays.safetensors": bytes(save_tensors({name: np.ascontiguousarray(a) for name, a in arrays.items()})),
        "evaluations.parquet": evaluations_table(state.evaluations),
    }
    for name, data in files.items():
        folder.write(name, data)
    folder.write("DONE", json_file({name: hashlib.sha256(data).hexdigest() for name, data in files.items()}))
    epochs = _epochs(checkpoints)
    later = [epoch for epoch in epochs if epoch > state.epoch]  # damaged: a resume fell back from them
    for epoch in later + [epoch for epoch in epochs if epoch <= state.epoch][KEPT:]:
        (checkpoints / f"ckpt-{epoch}").delete()


def restore(checkpoints: Folder) -> tuple[SearchState, dict[str, Float32Array]] | None:
    """Restore the latest valid checkpoint; warns about each damaged one and falls back to the previous.

    Returns:
        The state and the weights; None if there is no valid checkpoint.
    """
    epochs = _epochs(checkpoints)
    for epoch in epochs:
        folder = checkpoints / f"ckpt-{epoch}"
        try:
            return _read(folder)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            then = "the search starts over" if epoch == epochs[-1] else "falling back to the previous one"
            log.warning("%s is damaged (%s): %s", folder.uri, error, then)
    return None


def newest_epoch(checkpoints: Folder) -> int:
    """Return the epochs finished in the latest sealed checkpoint, 0 if there is none; does not verify its files."""
    sealed = [epoch for epoch in _epochs(checkpoints) if (checkpoints / f"ckpt-{epoch}").has("DONE")]
    return max(sealed, default=0)


def _read(folder: Folder) -> tuple[SearchState, dict[str, Float32Array]]:
    if not folder.has("DONE"):
        raise ValueError("it is incomplete")
    digests, files = json.loads(folder.read("DONE")), {}
    if not isinstance(digests, dict):
        raise ValueError("DONE names no files")
    for name, digest in digests.items():
        files[name] = folder.read(name)
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise ValueError(f"{name} does not match its SHA-256 in DONE")
    scalars = json.loads(files["state.json"])
    arrays = load_tensors(files["arrays.safetensors"])
    rounds = sorted({int(name.split("/")[1]) for name in arrays if name.startswith("history/")})
    fields: dict[str, Any] = scalars | {name: arrays[f"state/{name}"] for name in _STATE}
    state = SearchState(
        **fields,
        evaluations=read_evaluations(files["evaluations.parquet"]),
        history=tuple(RoundRecord(r, **{name: arrays[f"history/{r}/{name}"] for name in _HISTORY}) for r in rounds),
    )
    prefix = "weights/"
    return state, {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}


def _epochs(checkpoints: Folder) -> list[int]:
    """Return the epochs of all checkpoint folders, latest first."""
    names = [name.removeprefix("ckpt-") for name in checkpoints.names() if name.startswith("ckpt-")]
    return sorted((int(name) for name in names if name.isdigit()), reverse=True)
