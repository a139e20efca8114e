"""Write the files of a running search; docs/quickstart.md lists them."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from ddpnas_ray.core.errors import RunDirError
from ddpnas_ray.core.ledger import ledger
from ddpnas_ray.core.space import SearchSpace
from ddpnas_ray.core.state import RoundRecord, SearchState
from ddpnas_ray.runs import checkpoint
from ddpnas_ray.runs.directory import parsed
from ddpnas_ray.runs.files import evaluations_table, json_file, ledger_table, theta_table, weights_file
from ddpnas_ray.runs.log import append_log
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.tabular.probe import Probe, Rows, read_probe

Tensors = Mapping[str, npt.NDArray[np.float32]]
log = logging.getLogger(__name__)


class Recorder:
    """Writer of one run directory.

    Args:
        folder: The existing run directory.
        space: The search space.
        keep_per_group: For the pruning ledger.
        save_every_s: Minimum seconds between two checkpoints.
        overlap: Write an epoch's files in a thread, while the next one runs: one epoch at a time, in order, so that on
            disk is what a kill leaves, at most one epoch older. An error of the writer is raised by the next save.
    """

    def __init__(
        self,
        folder: Folder,
        space: SearchSpace,
        keep_per_group: int,
        save_every_s: float = 0.0,
        *,
        overlap: bool = False,
    ) -> None:
        self._folder, self._checkpoints = folder, folder / "checkpoints"
        self._space, self._keep_per_group, self._save_every_s = space, keep_per_group, save_every_s
        self._saved_epoch, self._saved_s = 0, time.monotonic()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="ddpnas-checkpoint") if overlap else None
        self._writing: Future[None] | None = None
        self._epoch_start_s = time.monotonic()

    def restore(self) -> tuple[SearchState, Tensors] | None:
        """Restore state and weights from the latest valid checkpoint; None in a new run."""
        restored = checkpoint.restore(self._checkpoints)
        self._saved_epoch = restored[0].epoch if restored is not None else 0
        return restored

    def probed(self) -> Rows:
        """Read the probe's measurements so far."""
        return parsed(self._folder, "probe.parquet", read_probe) if self._folder.has("probe.parquet") else ()

    def start(self, state: SearchState, warnings: Sequence[str]) -> None:
        """Log that the search starts or resumes."""
        append_log(self._folder, "start", epoch=state.epoch, pid=os.getpid(), warnings=warnings)
        self._epoch_start_s = time.monotonic()

    def save(self, state: SearchState, tensors: Tensors) -> None:
        """Save a finished epoch, unless the last save was less than ``save_every_s`` ago.

        Raises:
            RunDirError: It, or with ``overlap`` the epoch before it, cannot be written.
        """
        if not self._save_every_s or time.monotonic() - self._saved_s > self._save_every_s:
            self._save(state, tensors)

    def probe(self, probe: Probe) -> None:
        """Write ``probe.parquet``."""
        self._folder.write("probe.parquet", probe.table())

    def log_epoch(self, snapshot: Mapping[str, Any]) -> None:
        """Log a finished epoch with its snapshot."""
        now = time.monotonic()
        append_log(self._folder, "epoch", epoch_s=round(now - self._epoch_start_s, 3), **snapshot)
        self._epoch_start_s = now

    def stop(self, state: SearchState, tensors: Tensors) -> None:
        """Save any unsaved epochs, and log that the search stopped early."""
        self._save_rest(state, tensors)
        append_log(self._folder, "stopped", epoch=state.epoch)

    def finish(self, state: SearchState, tensors: Tensors, result: Mapping[str, Any]) -> None:
        """Write the result; ``result.json`` last."""
        self._save_rest(state, tensors)
        history = state.history
        if not history or not np.array_equal(history[-1].theta_EK, state.theta_EK):  # theta changed after that round
            nothing_EK = np.full(self._space.shape, np.nan)
            last = (state.theta_EK, nothing_EK, state.momentum_EK, state.live_EK, state.pruned_at_EK)
            history = (*history, RoundRecord(state.round, *last))
        self._write_rounds(history, state)
        self._folder.write("weights.safetensors", weights_file(tensors))
        self._folder.write("result.json", json_file(result))
        append_log(self._folder, "finished", fingerprint=result["fingerprint"], seconds=result["seconds"])

    def close(self) -> None:
        """Wait for the writer; after ``stop`` and ``finish`` it has nothing to do."""
        if self._writer is None:
            return
        try:
            self._written()
        except RunDirError as error:  # after another error, which has ended the search
            log.warning("the last epoch is not saved: %s", error)
        finally:
            self._writer.shutdown()

    def _save_rest(self, state: SearchState, tensors: Tensors) -> None:
        if self._saved_epoch < state.epoch:
            self._save(state, tensors)
        self._written()

    def _save(self, state: SearchState, tensors: Tensors) -> None:
        self._written()
        if self._writer is None:
            self._write(state, tensors)
        else:
            copies = {name: tensor.copy() for name, tensor in tensors.items()}  # the next epoch's merge writes to them
            self._writing = self._writer.submit(self._write, state, copies)
        self._saved_epoch, self._saved_s = state.epoch, time.monotonic()

    def _written(self) -> None:
        """Wait for the writer, and raise its error."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, state: SearchState, tensors: Tensors) -> None:
        checkpoint.save(self._checkpoints, state, tensors)
        self._folder.write("evaluations.parquet", evaluations_table(state.evaluations))
        if state.history and state.history[-1].round == state.evaluations[-1].round:
            self._write_rounds(state.history, state)

    def _write_rounds(self, history: Sequence[RoundRecord], state: SearchState) -> None:
        self._folder.write("theta.parquet", theta_table(history, self._space))
        rows = ledger(history, state.evaluations, self._space, self._keep_per_group)
        self._folder.write("ledger.parquet", ledger_table(rows))


class NoRecorder(Recorder):
    """Recorder that writes nothing (``--out none``)."""

    def __init__(self) -> None:
        pass

    def restore(self) -> None:
        """Return None."""

    def probed(self) -> Rows:
        """Return no rows."""
        return ()

    def start(self, state: SearchState, warnings: Sequence[str]) -> None:
        """Do nothing."""

    def save(self, state: SearchState, tensors: Tensors) -> None:
        """Do nothing."""

    def probe(self, probe: Probe) -> None:
        """Do nothing."""

    def log_epoch(self, snapshot: Mapping[str, Any]) -> None:
        """Do nothing."""

    def stop(self, state: SearchState, tensors: Tensors) -> None:
        """Do nothing."""

    def finish(self, state: SearchState, tensors: Tensors, result: Mapping[str, Any]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
