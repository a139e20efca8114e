"""Run a search from its latest checkpoint to its result; shared by the local command and the Ray driver."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt

from ddpnas_ray.core.state import SearchState, initial_state
from ddpnas_ray.execution.base import Executor
from ddpnas_ray.execution.mixed_devices import DeviceRecord
from ddpnas_ray.experiment.experiment import Experiment
from ddpnas_ray.experiment.loop import run_search
from ddpnas_ray.experiment.progress import Progress
from ddpnas_ray.experiment.recorder import Recorder
from ddpnas_ray.experiment.result import result_content
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.training.cpu_isa import require_level


def run_experiment(
    experiment: Experiment,
    folder: Folder | None,
    executor: Executor,
    progress: Progress,
    *,
    until_s: float | None = None,
) -> dict[str, Any] | None:
    """Start or resume the search, and write its result.

    Args:
        experiment: The experiment.
        folder: The run directory; None records nothing.
        executor: Trains and scores.
        progress: Updated as the search runs.
        until_s: Unix time. Stop between two epochs if another one would not end by then; at least one is run.

    Returns:
        The content of ``result.json``; None if stopped early. Every finished epoch is saved; in a tabular search, whose
        epochs take milliseconds, a kill may lose those of the last second, and with ``execution.overlap_checkpoints``
        the last epoch.

    Raises:
        ResourceError: ``training.cpu_isa`` is not in effect.
    """
    require_level(experiment.config.training.cpu_isa)
    with closing(experiment.recorder(folder)) as recorder:
        return _run(experiment, folder, recorder, executor, progress, _Clock(until_s))


def _run(
    experiment: Experiment,
    folder: Folder | None,
    recorder: Recorder,
    executor: Executor,
    progress: Progress,
    clock: _Clock,
) -> dict[str, Any] | None:
    space, strategy, evaluator = experiment.spec.space, experiment.strategy(), experiment.evaluator
    state = initial_state(space, experiment.config.seed)
    if (restored := recorder.restore()) is not None:
        state, tensors = restored
        executor.load_weights(tensors)
    recorder.start(state, evaluator.warnings())
    devices = DeviceRecord(folder, experiment.config.execution.mixed_devices, state.evaluations)
    progress.warning = devices.update(executor.devices)
    progress.start(state, executor.work)
    probe = evaluator.probe(recorder.probed())

    def measure(state: SearchState) -> None:
        if probe is not None:
            probe.measure(executor, state)
            recorder.probe(probe)

    def save(state: SearchState, tensors: Mapping[str, npt.NDArray[np.float32]]) -> None:
        recorder.save(state, tensors)
        measure(state)
        progress.warning = devices.update(executor.devices)
        progress.epoch_done(state)
        recorder.log_epoch(progress.snapshot())
        clock.epochs += 1

    measure(state)  # a kill may have hit between an epoch's checkpoint and its probe
    state = run_search(
        strategy, executor, space, state, save=save, on_result=progress.result_in, should_stop=clock.is_up
    )
    if strategy.ask(state, space) is not None:
        recorder.stop(state, executor.weights())
        return None
    result = result_content(experiment, executor, state, probe, clock.seconds)
    recorder.finish(state, executor.weights(), result)
    return result


class _Clock:
    """Time limit of a search, checked between epochs: is up if another epoch would not end in time."""

    def __init__(self, until_s: float | None) -> None:
        self._until_s, self._start_s, self.epochs = until_s, time.monotonic(), 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start_s

    def is_up(self, state: SearchState) -> bool:
        if self._until_s is None or not self.epochs:
            return False
        return time.time() + self.seconds / self.epochs > self._until_s
