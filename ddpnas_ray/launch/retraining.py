"""Start or resume a retraining, in this process or on Ray, and show its progress; for command and Python API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ddpnas_ray.console.cluster import checked_address, cluster
from ddpnas_ray.console.out import new_out
from ddpnas_ray.console.progress import Display
from ddpnas_ray.core.errors import RunDirError
from ddpnas_ray.launch.following import followed
from ddpnas_ray.retraining.files import first_files, read_retrained
from ddpnas_ray.retraining.prepare import RETRAINED, Wish, config_of, label_of, make, refuse_changed
from ddpnas_ray.retraining.progress import RetrainingProgress
from ddpnas_ray.retraining.run import check_here, retrain_here
from ddpnas_ray.runs.directory import create_run, existing_run, refuse_existing
from ddpnas_ray.runs.lock import Lock, locked
from ddpnas_ray.runs.log import failure_logged
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.training.cpu_isa import use_level

if TYPE_CHECKING:
    from ddpnas_ray.retraining.retraining import Retraining


def folder_of(wish: Wish, out: str | None, *, resume: bool) -> str:
    """Return the folder of a retraining: ``out``, below the run, or a new one; refuses a new one that exists.

    Raises:
        RunDirError: It exists, or there is nothing to resume.
    """
    if out is None and wish.run is not None:
        below = Folder.open(wish.run) / RETRAINED
        out = (below / label_of(wish)).uri
    if resume:
        if out is None:
            raise RunDirError("--resume needs the folder of the training; give RUN or --out")
        existing_run(out)
        return out
    if out is None:
        return new_out(None, f"retrained-{label_of(wish)}")
    refuse_existing(Folder.open(out))
    return out


def retrain(wish: Wish, out: str, display: Display, *, resume: bool, address: str | None = None) -> dict[str, Any]:
    """Retrain to the result, or read that of a finished retraining.

    Args:
        wish: What to retrain.
        out: From ``folder_of``.
        display: Shows progress.
        resume: Continue in ``out``.
        address: Ray cluster.

    Returns:
        The content of ``result.json``.

    Raises:
        DdpnasError: Bad input, or what ended it; finished epochs are saved.
    """
    resumed = existing_run(out) if resume else None
    if resumed is not None and resumed.has("result.json"):
        refuse_changed(wish, resumed)
        return read_retrained(resumed)
    use_level(config_of(wish, resumed).training.cpu_isa)  # before warm starts and teachers import torch
    retraining = make(wish, resumed)
    retraining.network(retraining.config.seed)  # so that a recipe that does not fit fails before anything is written
    config = retraining.config
    if config.execution.backend == "local":
        return _in_process(retraining, out, resumed, display)
    found = checked_address(address, client=False)
    with cluster(found, "train the network", display.lines, workers=config.retraining.workers) as dashboard:
        from ddpnas_ray.distributed import ray_train
        from ddpnas_ray.training.fit import refuse_small_shares

        size = ray_train.group_size(retraining)
        refuse_small_shares(retraining.task, config.retraining, size.workers)
        with _folder(retraining, out, resumed) as (folder, lock):
            print(f"{out}: {size}, {dashboard}", file=display.lines, flush=True)
            result: dict[str, Any] = followed(ray_train.start(retraining, folder, size), lock, display)
            return result


def _in_process(retraining: Retraining, out: str, resumed: Folder | None, display: Display) -> dict[str, Any]:
    from ddpnas_ray.execution.local import local_device
    from ddpnas_ray.training.fit import refuse_small_shares

    recipe, device = retraining.config.retraining, local_device(retraining.config.execution)
    refuse_small_shares(retraining.task, recipe, 1)
    check_here(retraining, device)
    progress = RetrainingProgress(retraining.chosen.label, retraining.seeds, recipe.epochs)
    with _folder(retraining, out, resumed) as (folder, _), display, display.following(progress.snapshot):
        return retrain_here(retraining, folder, progress, device)


@contextmanager
def _folder(retraining: Retraining, out: str, resumed: Folder | None) -> Iterator[tuple[Folder, Lock]]:
    """Lock the folder: a new one, or the one to resume."""
    folder = resumed or create_run(out, first_files(retraining))
    with locked(folder) as lock, failure_logged(folder):
        yield folder, lock
