"""A configured search, from its configuration to its files. The local command and the Ray driver both run this."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ddpnas_ray import __version__, rundir
from ddpnas_ray.config import SearchConfig
from ddpnas_ray.core.bounds import architectures_by_round
from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.core.types import IntArray, SearchState, expectation, initial_state
from ddpnas_ray.data.images import ImageData, load_data
from ddpnas_ray.driver import run_search
from ddpnas_ray.execution import checkpoint
from ddpnas_ray.execution.base import Executor
from ddpnas_ray.reporting.progress import Progress
from ddpnas_ray.rundir import SCHEMA_VERSION
from ddpnas_ray.spaces.base import Inputs, SpaceSpec, Target, find_space
from ddpnas_ray.storage import Folder
from ddpnas_ray.strategies.base import Strategy
from ddpnas_ray.strategies.pruning import Pruning


@dataclass(frozen=True)
class Job:
    """What a configuration stands for, loaded and checked; neither torch nor ray has been imported for it.

    Args:
        config: The resolved configuration.
        spec: Its search space.
        data: Its images.
        target: The deploy network whose costs are meant.
    """

    config: SearchConfig
    spec: SpaceSpec
    data: ImageData
    target: Target

    @classmethod
    def prepare(cls, config: SearchConfig) -> Job:
        """Load the data and make the space.

        Raises:
            BadInput: The data or the space is not what the configuration says.
        """
        spec = find_space(config.space.name)(**config.space.options)
        if not architectures_by_round(spec.space, config.pruning.keep_per_group):
            raise ConfigError(
                f"pruning.keep_per_group is {config.pruning.keep_per_group}: when every edge keeps so many operations "
                f"of each group, space {spec.space.name!r} has nothing to prune; lower it, or add candidates"
            )
        data = load_data(config.data, config.seed)
        inputs = Inputs(channels=data.channels, image_size=data.image_size, classes=len(data.classes))
        return cls(config, spec, data, Target.resolve(config.target, inputs, spec.target))

    def strategy(self) -> Strategy:
        """Who proposes the architectures."""
        return Pruning(**dataclasses.asdict(self.config.pruning), lr=self.config.training.lr)

    def costs(self, alpha_E: IntArray) -> dict[str, int]:
        """Exact costs of an architecture's deploy network."""
        return {name: cost(self.target)(alpha_E) for name, cost in self.spec.costs.items()}

    def first_files(self, config_text: str) -> dict[str, bytes]:
        """What a new run directory appears with."""
        tables = {name: cost(self.target) for name, cost in self.spec.costs.items()}
        return {
            "space.json": rundir.space_json(self.spec.space, tables, dataclasses.asdict(self.target)),
            "environment.json": rundir.json_file(environment(self.config.seed, self.data.digest)),
            "config.yaml": config_text.encode(),
        }


def run(
    job: Job,
    folder: Folder,
    executor: Executor,
    progress: Progress,
    *,
    time_limit_s: float | None = None,
) -> dict[str, Any] | None:
    """Start or go on with a search, and write its result.

    Args:
        job: What to search.
        folder: The run directory.
        executor: Trains and scores.
        progress: Told what happens.
        time_limit_s: Stop between two epochs when another one would not fit; at least one epoch is run.

    Returns:
        The content of ``result.json``; None when stopped before the end (every finished epoch is saved).
    """
    start = time.monotonic()
    space, strategy = job.spec.space, job.strategy()
    state = initial_state(space, job.config.seed)
    if (restored := checkpoint.restore(folder / "checkpoints")) is not None:
        state, tensors = restored
        executor.load_weights(tensors)
    rundir.append_log(folder, "start", epoch=state.epoch, pid=os.getpid())
    progress.start(state)
    first_epoch, epoch_start = state.epoch, start

    def save(state: SearchState, tensors: Mapping[str, npt.NDArray[np.float32]]) -> None:
        nonlocal epoch_start
        checkpoint.save(folder / "checkpoints", state, tensors)
        folder.write("evaluations.parquet", rundir.evaluations_table(state.evaluations))
        if state.history and state.history[-1].round == state.evaluations[-1].round:
            folder.write("theta.parquet", rundir.theta_table(state.history, space))
        progress.epoch_done(state)
        rundir.append_log(folder, "epoch", epoch_s=round(time.monotonic() - epoch_start, 3), **progress.snapshot())
        epoch_start = time.monotonic()

    def should_stop(state: SearchState) -> bool:
        if time_limit_s is None or state.epoch == first_epoch:
            return False
        elapsed = time.monotonic() - start
        return elapsed + elapsed / (state.epoch - first_epoch) > time_limit_s

    state = run_search(
        strategy, executor, space, state, save=save, on_result=progress.result_in, should_stop=should_stop
    )
    if strategy.ask(state, space) is not None:
        rundir.append_log(folder, "stopped", epoch=state.epoch)
        return None
    return _finish(job, folder, state, executor.weights(), time.monotonic() - start)


def _finish(
    job: Job, folder: Folder, state: SearchState, tensors: Mapping[str, npt.NDArray[np.float32]], seconds: float
) -> dict[str, Any]:
    """Write what a finished search found; ``result.json`` comes last."""
    space = job.spec.space
    alpha_E = job.spec.argmax(state.theta_EK, state.live_EK)
    last = [row.score for row in state.evaluations if row.epoch == state.epoch - 1]
    result: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "space": space.name,
        "strategy": job.config.strategy,
        "seed": state.seed,
        "genotype": job.spec.decode(alpha_E),
        "alpha": [int(k) for k in alpha_E],
        "expectation": expectation(alpha_E, state.theta_EK, space),
        "target": dataclasses.asdict(job.target),
        "costs": job.costs(alpha_E),
        "scores": {
            "split": "val",
            "of": "sampled architectures with shared weights",
            "best": max(row.score for row in state.evaluations),
            "last_epoch_mean": float(np.mean(last)),
        },
        "architecture_epochs": len(state.evaluations),
        "epochs": state.epoch,
        "rounds": state.round,
        "seconds": round(seconds, 1),
        "workers": len({row.worker for row in state.evaluations}),
        "theta": state.theta_EK.tolist(),
        "live": state.live_EK.tolist(),
        "fingerprint": rundir.fingerprint(
            state.theta_EK, state.momentum_EK, state.pruned_at_EK, state.evaluations, tensors
        ),
    }
    folder.write("evaluations.parquet", rundir.evaluations_table(state.evaluations))
    folder.write("theta.parquet", rundir.theta_table(state.history, space))
    folder.write("weights.safetensors", rundir.weights_file(tensors))
    folder.write("result.json", rundir.json_file(result))
    rundir.append_log(folder, "finished", fingerprint=result["fingerprint"], seconds=result["seconds"])
    return result


def environment(seed: int, data_digest: str) -> dict[str, Any]:
    """Versions, hardware, commit and seed, as ``environment.json`` records them."""
    return machine() | {"seed": seed, "data_digest": data_digest}


def machine() -> dict[str, Any]:
    """Versions, hardware and commit of this machine."""
    import psutil

    packages = ("numpy", "torch", "torchvision", "ray", "pyarrow", "datasets", "safetensors")
    return {
        "ddpnas_ray": __version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages},
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "git_commit": _git_commit(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git_commit() -> str | None:
    """The commit of the package's own checkout, with ``+changes`` where files differ from it."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
