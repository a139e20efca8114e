"""A configured search, from its configuration to its files. The local command and the Ray driver both run this."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import math
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ddpnas_ray import __version__
from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.core.ledger import ledger
from ddpnas_ray.core.requests import EvalRequest
from ddpnas_ray.core.schedule import architectures_by_round
from ddpnas_ray.core.space import IntArray, SearchSpace, expectation
from ddpnas_ray.core.state import RoundRecord, SearchState, initial_state
from ddpnas_ray.data.images import ImageData, load_data
from ddpnas_ray.data.learning import early_warnings, final_warnings
from ddpnas_ray.execution.base import Executor
from ddpnas_ray.execution.mixed_devices import DeviceRecord, kinds
from ddpnas_ray.experiment.config import SearchConfig, make_strategy
from ddpnas_ray.experiment.loop import run_search
from ddpnas_ray.experiment.progress import Progress
from ddpnas_ray.runs import checkpoint
from ddpnas_ray.runs.directory import parsed
from ddpnas_ray.runs.files import (
    SCHEMA_VERSION,
    evaluations_table,
    json_file,
    ledger_table,
    space_json,
    theta_table,
    weights_file,
)
from ddpnas_ray.runs.fingerprint import search_fingerprint
from ddpnas_ray.runs.log import append_log
from ddpnas_ray.spaces.base import SpaceSpec, find_space
from ddpnas_ray.spaces.target import Inputs, Target
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.strategies.base import Strategy
from ddpnas_ray.strategies.confidence import confidence
from ddpnas_ray.tabular.executor import TableExecutor
from ddpnas_ray.tabular.probe import Probe, Rows, read_probe
from ddpnas_ray.tabular.table import ScoreTable, expected_best
from ddpnas_ray.training.device import require_level

if TYPE_CHECKING:
    from ddpnas_ray.training.trainer import Trainer


TABLE_SAVE_S = 1.0  # between two checkpoints of a search by table, at least


@dataclass(frozen=True)
class Job:
    """What a configuration stands for, loaded and checked; neither torch nor ray has been imported for it.

    Args:
        config: The resolved configuration.
        spec: Its search space.
        images: Its images; None where scores come from a table.
        scores: Its table of scores, where there is one.
        target: The deploy network whose costs are meant.
    """

    config: SearchConfig
    spec: SpaceSpec
    images: ImageData | None
    scores: ScoreTable | None
    target: Target

    @classmethod
    def prepare(cls, config: SearchConfig) -> Job:
        """Load the data and make the space.

        Raises:
            BadInput: The data, the table or the space is not what the configuration says.
        """
        spec = find_space(config.space.name)(**config.space.options)
        if not architectures_by_round(spec.space, config.pruning.keep_per_group):
            raise ConfigError(
                f"pruning.keep_per_group is {config.pruning.keep_per_group}: when every edge keeps so many operations "
                f"of each group, space {spec.space.name!r} has nothing to prune; lower it, or add candidates"
            )
        images, scores, evaluation = None, None, config.evaluation
        if evaluation.table is not None:
            scores = ScoreTable.read(evaluation.table, spec.space, spec.encode)
            scores.column(evaluation.score, "val", "evaluation.score")
            scores.column(evaluation.final, "test", "evaluation.final")
        if evaluation.kind == "supernet":
            images = load_data(config.data, config.seed)
            inputs = Inputs(channels=images.channels, image_size=images.image_size, classes=len(images.classes))
        else:
            inputs = Inputs(channels=3, image_size=32, classes=10)  # CIFAR-10's, unless section target says otherwise
        job = cls(config, spec, images, scores, Target.resolve(config.target, inputs, spec.target))
        job.strategy()
        if evaluation.kind == "table":
            job.table_executor()
        return job

    @property
    def data(self) -> ImageData:
        """The images of a search that trains.

        Raises:
            ConfigError: This one does not.
        """
        if self.images is None:
            raise ConfigError("evaluation.kind is table: there are no images; this needs evaluation.kind=supernet")
        return self.images

    @property
    def digest(self) -> str:
        """SHA-256 of what was searched on: the images, or the table; of both where a probe needs both."""
        digests = [part.digest for part in (self.images, self.scores) if part is not None]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    @property
    def name(self) -> str:
        """What was searched on, in a word."""
        return self.config.data.name if self.config.evaluation.kind == "supernet" else "table"

    def strategy(self) -> Strategy:
        """Who proposes the architectures.

        Raises:
            ConfigError: The budget is smaller than what pruning needs.
        """
        return make_strategy(self.config, self.spec.space)

    def table_executor(self) -> TableExecutor:
        """The executor of a search by table."""
        assert self.scores is not None
        column = self.scores.column(self.config.evaluation.score, "val", "evaluation.score")
        training = self.config.evaluation.training
        return TableExecutor(self.scores, column, training=training, seed=self.config.seed)

    def trainer(self, device: str = "cpu") -> Trainer:
        """What trains architectures; imports torch."""
        from ddpnas_ray.training.trainer import Trainer

        return Trainer(
            spec=self.spec, data=self.data, config=self.config.training, seed=self.config.seed, device=device
        )

    def executor(self) -> Executor:
        """Who trains and scores, or looks scores up, in this process.

        Raises:
            ResourceError: GPUs were asked for and this machine has none.
        """
        if self.images is None:
            return self.table_executor()
        from ddpnas_ray.execution.local import LocalExecutor, local_device

        return LocalExecutor(self.trainer(local_device(self.config.execution)))

    def progress(self) -> Progress:
        """A counter of this search."""
        space = self.spec.space
        unit = "evaluations" if self.images is None else "architecture-epochs"
        strategy = self.strategy()
        epochs = strategy.epochs(space)
        per_round = self.config.pruning.epochs_per_round if strategy.by_rounds else len(epochs)
        return Progress(space, epochs, per_round, unit)

    def widest_epoch(self) -> int:
        """How many architectures an epoch has at most: more workers than that have nothing to do."""
        return max(self.strategy().epochs(self.spec.space))

    def costs(self, alpha_E: IntArray) -> dict[str, int]:
        """Exact costs of an architecture's deploy network."""
        return {name: cost(self.target)(alpha_E) for name, cost in self.spec.costs.items()}

    def first_files(self, config_text: str) -> dict[str, bytes]:
        """What a new run directory appears with."""
        tables = {name: cost(self.target) for name, cost in self.spec.costs.items()}
        return {
            "space.json": space_json(self.spec.space, tables, dataclasses.asdict(self.target)),
            "environment.json": json_file(environment(self.config.seed, self.digest)),
            "config.yaml": config_text.encode(),
        }


def run(
    job: Job,
    folder: Folder | None,
    executor: Executor,
    progress: Progress,
    *,
    until_s: float | None = None,
) -> dict[str, Any] | None:
    """Start or go on with a search, and write its result.

    Args:
        job: What to search.
        folder: The run directory; None keeps nothing.
        executor: Trains and scores.
        progress: Told what happens.
        until_s: Unix time. Stop between two epochs when another one would not end by then; at least one is run.

    Returns:
        The content of ``result.json``; None when stopped before the end. Every finished epoch is saved; of a search by
        table, whose epochs are milliseconds, those of the last second may be lost to a kill.

    Raises:
        ResourceError: ``training.cpu_isa`` is not in effect.
    """
    start = time.monotonic()
    require_level(job.config.training.cpu_isa)
    space, strategy = job.spec.space, job.strategy()
    state = initial_state(space, job.config.seed)
    if folder is not None and (restored := checkpoint.restore(folder / "checkpoints")) is not None:
        state, tensors = restored
        executor.load_weights(tensors)
    probe = _probe(job, folder)
    if folder is not None:
        warnings = early_warnings(job.images, job.config.training.batch_size)
        append_log(folder, "start", epoch=state.epoch, pid=os.getpid(), warnings=warnings)
    devices = DeviceRecord(folder, job.config.execution.mixed_devices, state.evaluations)
    progress.warning = devices.update(executor.devices)
    progress.start(state, executor.work)
    first_epoch, epoch_start = state.epoch, start
    written, written_s = state.epoch, start

    def write(folder: Folder, state: SearchState, tensors: Mapping[str, npt.NDArray[np.float32]]) -> None:
        nonlocal written, written_s
        checkpoint.save(folder / "checkpoints", state, tensors)
        folder.write("evaluations.parquet", evaluations_table(state.evaluations))
        if state.history and state.history[-1].round == state.evaluations[-1].round:
            _write_rounds(folder, state.history, state, space, job.config.pruning.keep_per_group)
        written, written_s = state.epoch, time.monotonic()

    def save(state: SearchState, tensors: Mapping[str, npt.NDArray[np.float32]]) -> None:
        nonlocal epoch_start
        if folder is not None and (job.images is not None or time.monotonic() - written_s > TABLE_SAVE_S):
            write(folder, state, tensors)
        if probe is not None:
            probe.measure(executor, state)
            if folder is not None:
                folder.write("probe.parquet", probe.table())
        progress.warning = devices.update(executor.devices)
        progress.epoch_done(state)
        if folder is not None:
            append_log(folder, "epoch", epoch_s=round(time.monotonic() - epoch_start, 3), **progress.snapshot())
        epoch_start = time.monotonic()

    def should_stop(state: SearchState) -> bool:
        if until_s is None or state.epoch == first_epoch:
            return False
        epoch_s = (time.monotonic() - start) / (state.epoch - first_epoch)
        return time.time() + epoch_s > until_s

    if probe is not None:
        probe.measure(executor, state)  # a kill may have come between an epoch's checkpoint and its probe
    state = run_search(
        strategy, executor, space, state, save=save, on_result=progress.result_in, should_stop=should_stop
    )
    if folder is not None and written < state.epoch:
        write(folder, state, executor.weights())
    if strategy.ask(state, space) is not None:
        if folder is not None:
            append_log(folder, "stopped", epoch=state.epoch)
        return None
    result = _result(job, strategy, executor, state, probe, time.monotonic() - start)
    if folder is not None:
        _finish(job, folder, state, executor, result)
    return result


def _probe(job: Job, folder: Folder | None) -> Probe | None:
    if job.config.evaluation.probe is None:
        return None
    assert job.scores is not None
    column = job.scores.column(job.config.evaluation.final, "test", "evaluation.final")
    before: Rows = ()
    if folder is not None and folder.has("probe.parquet"):
        before = parsed(folder, "probe.parquet", read_probe)
    return Probe.make(job.spec.space, job.scores, column, job.config.evaluation.probe, before)


def _result(
    job: Job, strategy: Strategy, executor: Executor, state: SearchState, probe: Probe | None, seconds: float
) -> dict[str, Any]:
    """The content of ``result.json``."""
    space = job.spec.space
    answer_E = strategy.answer(state, space)
    alpha_E = job.spec.argmax(state.theta_EK, state.live_EK) if answer_E is None else answer_E
    last = [row.score for row in state.evaluations if row.epoch == state.epoch - 1]
    shared = "sampled architectures with shared weights"
    return {
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
            "of": shared if job.config.evaluation.kind == "supernet" else "evaluated architectures, from the table",
            "best": max(row.score for row in state.evaluations),
            "last_epoch_mean": float(np.mean(last)),
        },
        "score_sheet": score_sheet(job, executor, state, alpha_E, probe),
        "confidence": confidence(strategy, state, space, alpha_E, job.spec.argmax, by_expectation=answer_E is None),
        **({} if probe is None else {"tau_by_epoch": list(probe.tau_by_epoch().values())}),
        "architecture_epochs": len(state.evaluations),
        "epochs": state.epoch,
        "rounds": state.round,
        "seconds": round(seconds, 3),
        "workers": len({row.worker for row in state.evaluations}),
        "warnings": final_warnings(job.images, job.config.training.batch_size, last),
        "devices": kinds(state.evaluations),
        "theta": state.theta_EK.tolist(),
        "live": state.live_EK.tolist(),
        "fingerprint": search_fingerprint(
            state.theta_EK, state.momentum_EK, state.pruned_at_EK, state.evaluations, executor.weights()
        ),
    }


def score_sheet(
    job: Job, executor: Executor, state: SearchState, alpha_E: IntArray, probe: Probe | None
) -> list[dict[str, Any]]:
    """What a search is worth, a row a number: ``what``, ``split``, ``value`` (a fraction, or a rank correlation).

    Args:
        job: What was searched.
        executor: Holds the final weights.
        state: The last state.
        alpha_E: The answer.
        probe: Its measurements, where there is a probe.
    """
    sheet: list[dict[str, Any]] = []

    def row(what: str, split: str, value: float) -> None:
        sheet.append({"what": what, "split": split, "value": value if math.isfinite(value) else None})

    if job.config.evaluation.kind == "supernet":
        request = EvalRequest(state.round, state.epoch, 0, alpha_E, 0.0, train=False)
        row("the answer with inherited weights", "val", executor.evaluate([request])[0].score)
    if job.scores is None:
        return sheet
    score = job.scores.column(job.config.evaluation.score, "val", "evaluation.score")
    final = job.scores.column(job.config.evaluation.final, "test", "evaluation.final")
    n = len(state.evaluations)
    row(f"the answer, {score}", "val", job.scores.score(score, alpha_E))
    row(f"the answer, {final}", "test", job.scores.score(final, alpha_E))
    random = expected_best(job.scores.scores[score], job.scores.scores[final], n)
    row(f"expected of random search with {n} evaluations, {final}", "test", random)
    if probe is not None:
        tau = probe.tau_by_epoch()[state.epoch]
        row(f"Kendall's tau of inherited scores (val) with {final}, {len(probe.alphas_NE)} networks", "test", tau)
    return sheet


def _finish(job: Job, folder: Folder, state: SearchState, executor: Executor, result: Mapping[str, Any]) -> None:
    """Write what a finished search found; ``result.json`` comes last."""
    space, tensors = job.spec.space, executor.weights()
    history = state.history
    if not history or not np.array_equal(history[-1].theta_EK, state.theta_EK):  # theta moved since the last round
        nothing_EK = np.full(space.shape, np.nan)
        last = (state.theta_EK, nothing_EK, state.momentum_EK, state.live_EK, state.pruned_at_EK)
        history = (*history, RoundRecord(state.round, *last))
    folder.write("evaluations.parquet", evaluations_table(state.evaluations))
    _write_rounds(folder, history, state, space, job.config.pruning.keep_per_group)
    folder.write("weights.safetensors", weights_file(tensors))
    folder.write("result.json", json_file(result))
    append_log(folder, "finished", fingerprint=result["fingerprint"], seconds=result["seconds"])


def _write_rounds(
    folder: Folder, history: Sequence[RoundRecord], state: SearchState, space: SearchSpace, keep_per_group: int
) -> None:
    folder.write("theta.parquet", theta_table(history, space))
    folder.write("ledger.parquet", ledger_table(ledger(history, state.evaluations, space, keep_per_group)))


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
