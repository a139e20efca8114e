"""Sealed checkpoints: one folder per epoch, valid only with the SHA-256 of each of its files. No pickle."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from typing import TypeVar

from safetensors import SafetensorError

from ddpnas_ray.runs.files import json_file
from ddpnas_ray.storage.folder import Folder

log = logging.getLogger(__name__)

KEPT = 3
T = TypeVar("T")


def write_sealed(checkpoints: Folder, epoch: int, files: Mapping[str, bytes]) -> None:
    """Write ``ckpt-<epoch>`` and keep the three latest.

    ``DONE``, written last, holds the SHA-256 of every file; a checkpoint without it, or not matching it, is invalid.

    Args:
        checkpoints: The folder of all checkpoints.
        epoch: Epochs finished.
        files: Name -> content.

    Raises:
        RunDirError: It cannot be written; older checkpoints are intact.
    """
    folder = checkpoints / f"ckpt-{epoch}"
    if checkpoints.has(f"ckpt-{epoch}"):
        folder.delete()  # damaged, from an earlier attempt
    folder.make()
    for name, data in files.items():
        folder.write(name, data)
    folder.write("DONE", json_file({name: hashlib.sha256(data).hexdigest() for name, data in files.items()}))
    epochs = _epochs(checkpoints)
    later = [other for other in epochs if other > epoch]  # damaged: a resume fell back from them
    for other in later + [other for other in epochs if other <= epoch][KEPT:]:
        (checkpoints / f"ckpt-{other}").delete()


def restore_sealed(checkpoints: Folder, parse: Callable[[Mapping[str, bytes]], T], what: str) -> T | None:
    """Restore the latest valid checkpoint; warns about each damaged one and falls back to the previous.

    Args:
        checkpoints: The folder of all checkpoints.
        parse: Reads its files; may raise ValueError or KeyError.
        what: What starts over without a valid one, for the warning.

    Returns:
        What ``parse`` returned; None if there is no valid checkpoint.
    """
    epochs = _epochs(checkpoints)
    for epoch in epochs:
        folder = checkpoints / f"ckpt-{epoch}"
        try:
            return parse(_read(folder))
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            then = f"{what} starts over" if epoch == epochs[-1] else "falling back to the previous one"
            log.warning("%s is damaged (%s): %s", folder.uri, error, then)
    return None


def newest_epoch(checkpoints: Folder) -> int:
    """Return the epochs finished in the latest sealed checkpoint, 0 if there is none; does not verify its files."""
    sealed = [epoch for epoch in _epochs(checkpoints) if (checkpoints / f"ckpt-{epoch}").has("DONE")]
    return max(sealed, default=0)


def _read(folder: Folder) -> dict[str, bytes]:
    if not folder.has("DONE"):
        raise ValueError("it is incomplete")
    digests, files = json.loads(folder.read("DONE")), {}
    if not isinstance(digests, dict):
        raise ValueError("DONE names no files")
    for name, digest in digests.items():
        files[name] = folder.read(name)
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise ValueError(f"{name} does not match its SHA-256 in DONE")
    return files


def _epochs(checkpoints: Folder) -> list[int]:
    """Return the epochs of all checkpoint folders, latest first."""
    names = [name.removeprefix("ckpt-") for name in checkpoints.names() if name.startswith("ckpt-")]
    return sorted((int(name) for name in names if name.isdigit()), reverse=True)
