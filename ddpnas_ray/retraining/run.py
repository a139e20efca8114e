"""Retrain from the latest checkpoints to the result, in this process; what the Ray driver shares with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ddpnas_ray.core.errors import DeviceError, ResourceError, RunDirError
from ddpnas_ray.execution.mixed_devices import refuse_mixed
from ddpnas_ray.retraining.files import (
    fingerprint,
    restore_checkpoint,
    result_content,
    save_checkpoint,
    tensors_file,
)
from ddpnas_ray.retraining.illustrations import write_illustrations
from ddpnas_ray.retraining.progress import RetrainingProgress
from ddpnas_ray.retraining.retraining import Retraining, read_test
from ddpnas_ray.runs.files import json_file
from ddpnas_ray.runs.log import append_log
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.tasks.base import Task
from ddpnas_ray.training.cpu_isa import require_level

if TYPE_CHECKING:
    from ddpnas_ray.training.snapshot import Snapshot


class Keeper:
    """Keeps what the trainings learn: checkpoints, log, progress, and the test examples once they are read.

    Args:
        retraining: What is trained.
        folder: Its folder.
        progress: Updated as it trains.
    """

    def __init__(self, retraining: Retraining, folder: Folder, progress: RetrainingProgress) -> None:
        self._retraining, self._folder, self._progress = retraining, folder, progress
        self._tested: tuple[Task | None, str] | None = None
        self.seed = 0  # of the current training

    def restore(self) -> Snapshot | None:
        """Return the latest valid snapshot of the current seed.

        Raises:
            RunDirError: It has more epochs than the recipe.
        """
        from ddpnas_ray.training.snapshot import Snapshot

        found = restore_checkpoint(self._folder, self.seed)
        self._progress.begin(self.seed, () if found is None else found[2])
        if found is None:
            return None
        if found[0] > self._retraining.config.retraining.epochs:
            raise RunDirError(f"{self._folder.uri}: its checkpoints have {found[0]} epochs, more than the recipe")
        return Snapshot(*found)

    def save(self, snapshot: Snapshot) -> None:
        """Write a checkpoint and a line of the log.

        Raises:
            ResourceError: It comes from another kind of device, and ``execution.mixed_devices`` is ``refuse``.
        """
        if self._retraining.config.execution.mixed_devices == "refuse":
            refuse_mixed(row["device"] for row in snapshot.history)
        state = (snapshot.epoch, snapshot.tensors, snapshot.history, snapshot.illustrations)
        save_checkpoint(self._folder, self.seed, *state)
        append_log(self._folder, "epoch", **{**snapshot.history[-1], "seed": self.seed, "pid": os.getpid()})
        self._progress.epoch_done(snapshot.history)

    def on_test(self) -> Task | None:
        """Read the test examples, once for all seeds."""
        if self._tested is None:
            self._tested = read_test(self._retraining.task)
            append_log(self._folder, "test", read=self._tested[0] is not None, note=self._tested[1])
        return self._tested[0]


def retrain(
    retraining: Retraining,
    folder: Folder,
    progress: RetrainingProgress,
    train: Callable[[Keeper], Snapshot],
) -> dict[str, Any]:
    """Train every seed from its latest checkpoint, and write the result.

    Args:
        retraining: What to train.
        folder: Its folder, which exists and is locked.
        progress: Updated as it trains.
        train: Trains the keeper's seed; returns the final snapshot.

    Returns:
        The content of ``result.json``.
    """
    from ddpnas_ray.training.snapshot import result_tensors

    append_log(folder, "start", network=retraining.chosen.label, pid=os.getpid(), seeds=retraining.seeds)
    keeper, trainings = Keeper(retraining, folder, progress), list[dict[str, Any]]()
    for seed in retraining.seeds:
        keeper.seed = seed
        snapshot = train(keeper)
        tensors = result_tensors(snapshot)
        (folder / f"seed-{seed}").make()
        (folder / f"seed-{seed}").write("weights.safetensors", tensors_file(tensors))
        write_illustrations(folder, seed, snapshot.illustrations, snapshot.history)
        trainings.append({"seed": seed, "fingerprint": fingerprint(tensors), "history": snapshot.history})
    last = trainings[-1]["history"][-1]
    note = "" if last["test"] is not None else last.get("test_error") or _read_note(folder)
    result = result_content(retraining, trainings, note)
    folder.write("result.json", json_file(result))
    append_log(folder, "done", fingerprint=result["fingerprint"])
    return result


def _read_note(folder: Folder) -> str:
    """Return why there is no test score, from the log."""
    from ddpnas_ray.runs.log import read_log

    notes = [event["note"] for event in read_log(folder.read("log.jsonl")) if event["event"] == "test"]
    return str(notes[-1]) if notes else "no test data"


def check_here(retraining: Retraining, device: str) -> None:
    """Check that this process can train a network, before anything is written.

    Args:
        retraining: What to train.
        device: ``cpu`` or ``cuda``.

    Raises:
        ResourceError: ``training.cpu_isa`` is not in effect.
        DeviceError: The GPU cannot be used.
        ConfigError: Nothing can be compiled.
    """
    from ddpnas_ray.training.device import try_compile, try_device

    require_level(retraining.config.training.cpu_isa)
    try_device(device)
    if retraining.config.retraining.compile:
        try_compile(device)


@contextmanager
def gpu_faults(*, lost: bool, then: str = "--resume") -> Iterator[None]:
    """Raise own errors for GPU faults of the block.

    Args:
        lost: Whether for lost GPUs too; a worker on Ray dies of them and is replaced.
        then: How the user goes on.

    Raises:
        ResourceError: The network does not fit into the GPU's memory.
        DeviceError: The GPU failed.
    """
    from ddpnas_ray.execution.failures import Fault, gpu_fault
    from ddpnas_ray.training.device import first_line

    try:
        yield
    except RuntimeError as error:
        fault = gpu_fault(error)
        if fault is Fault.MEMORY:
            raise ResourceError(
                f"the network does not fit into the GPU's memory ({first_line(error)}); every finished epoch is saved: "
                f"free the GPU and {then}, or start a training with a lower retraining.batch_size, or a higher "
                "retraining.accumulate or retraining.workers"
            ) from error
        if fault is Fault.DEVICE and lost:
            raise DeviceError(
                f"the GPU failed ({first_line(error)}); every finished epoch is saved: check it (nvidia-smi, Xid in "
                f"dmesg), then {then}"
            ) from error
        raise


def retrain_here(retraining: Retraining, folder: Folder, progress: RetrainingProgress, device: str) -> dict[str, Any]:
    """Retrain in this process, without Ray.

    Args:
        retraining: What to train.
        folder: Its folder, which exists and is locked.
        progress: Updated as it trains.
        device: ``cpu`` or ``cuda``.
    """
    from ddpnas_ray.training.fit import fit

    progress.workers = 1

    def train(keeper: Keeper) -> Snapshot:
        return fit(
            retraining.network(keeper.seed),
            retraining.task,
            retraining.config.retraining,
            0,
            1,
            keeper.restore,
            keeper.save,
            seed=keeper.seed,
            device=device,
            teacher=None if retraining.teacher is None else retraining.teacher.module().to(device),
            on_test=keeper.on_test,
            on_step=progress.step,
            illustrate=True,
        )

    with gpu_faults(lost=True):
        return retrain(retraining, folder, progress, train)
