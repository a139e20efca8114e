"""Dry run of a search on two batches, and the estimate of the whole search that follows from it."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ddpnas_ray.console.progress import duration
from ddpnas_ray.core.requests import EvalResult, Plan
from ddpnas_ray.core.scaling import TEN_GBIT_PER_S, Constants, Workload, architecture_seconds, predict
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.core.state import initial_state
from ddpnas_ray.data.cache import bytes_text
from ddpnas_ray.data.cached import images_per_s
from ddpnas_ray.data.images import EncodedImages, ImageData

if TYPE_CHECKING:
    from ddpnas_ray.experiment.experiment import Experiment
    from ddpnas_ray.strategies.base import Strategy
    from ddpnas_ray.tasks.base import Task
    from ddpnas_ray.training.trainer import Trainer

BUDGET_S = 30.0  # start no further architecture after this
WORKERS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Estimated cost of a full search.

    Args:
        work: What the search does.
        constants: Times of one worker on this machine.
        worker_bytes: Peak memory of one worker.
        disk_bytes: Checkpoints and final weights.
    """

    work: Workload
    constants: Constants
    worker_bytes: int
    disk_bytes: int

    @property
    def architecture_s(self) -> float:
        """Mean time of one architecture-epoch."""
        return architecture_seconds(self.work, self.constants)

    @property
    def traffic_bytes(self) -> int:
        """Object store traffic of the whole search."""
        return int(sum(map(self.work.transfer_bytes, self.work.architectures)))

    def seconds(self, workers: int) -> float:
        """Wall time of the search; each epoch waits for its last architecture."""
        return predict(self.work, self.constants, workers).seconds

    def as_json(self) -> dict[str, Any]:
        """Return the estimate as plain JSON."""
        return {
            "architectures": self.work.architectures,
            "architecture_s": self.architecture_s,
            "decoding_s": self.constants.architecture_s,
            "worker_bytes": self.worker_bytes,
            "traffic_bytes": self.traffic_bytes,
            "disk_bytes": self.disk_bytes,
            "constants": dataclasses.asdict(self.constants),
            "seconds": {w: round(self.seconds(w), 1) for w in WORKERS},
        }


def try_out(experiment: Experiment, *, decodes: bool = True) -> tuple[Estimate, list[str]]:
    """Run the pipeline on two training and two validation batches, and extrapolate.

    Args:
        experiment: The search.
        decodes: Whether images that are not kept as pixels are decoded at every access; else a cache will have them.

    Returns:
        The estimate, and one line for each part that worked.

    Raises:
        ResourceError: GPUs were requested and this machine has none.
    """
    from ddpnas_ray.execution.local import local_device
    from ddpnas_ray.runs import sealed

    config = experiment.config
    device = local_device(config.execution)
    whole = experiment.evaluator.trainer(device)
    task = whole.task
    trainer = dataclasses.replace(whole, task=task.excerpt(2 * config.training.batch_size, config.seed))
    strategy = experiment.strategy()
    trial = _run_pipeline(experiment, trainer, strategy)

    train_step_s, validation_batch_s, host_step_s = _batch_seconds(trainer, trial.tried)
    rate = _decoding_rate(task) if decodes else None
    decoding_s = (_examples(task) + config.training.bn_images) / rate if rate else 0.0
    constants = Constants(
        train_step_s=train_step_s,
        train_step_fixed_s=0.0,
        validation_batch_s=validation_batch_s,
        validation_batch_fixed_s=0.0,
        host_step_s=host_step_s,
        architecture_s=decoding_s,
        allreduce_bytes_per_s=TEN_GBIT_PER_S,
        allreduce_latency_s=0.0,
        transfer_bytes_per_s=TEN_GBIT_PER_S,
        merge_s=trial.merge_s,
        checkpoint_s=trial.checkpoint_s,
        start_s=0.0,
    )
    estimate = Estimate(
        work=workload(whole, strategy),
        constants=constants,
        worker_bytes=_peak_bytes(device),
        disk_bytes=sealed.KEPT * trial.checkpoint_bytes + trial.weights_bytes,
    )
    notes = _notes(experiment, task, device, trial)
    return estimate, [*notes, _decoding_note(task, rate, estimate)] if rate else notes


def workload(trainer: Trainer, strategy: Strategy) -> Workload:
    """Count what a search does in every epoch."""
    from ddpnas_ray.nn.weights import split_shared

    space = trainer.spec.space
    plan = strategy.ask(initial_state(space, trainer.seed), space)
    assert plan is not None  # Experiment.prepare refuses a space with nothing to prune
    _, supernet = trainer.supernet()
    shared, owns = split_shared([supernet.pieces(request.alpha_E) for request in plan.requests])
    steps, batches = _batches(trainer)
    return Workload(
        architectures=strategy.epochs(space),
        steps=steps,
        validation_batches=batches + trainer.config.bn_images / trainer.config.batch_size,
        shared_bytes=4 * shared.size,
        own_bytes=4 * float(np.mean([own.size for own in owns])),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """A part of the first epoch, evaluated, merged and saved.

    Args:
        planned: Architectures of the whole epoch.
        tried: Those evaluated.
        results: Their results.
        alpha_E: The most probable network after them.
        merge_s: Time of merging one architecture.
        checkpoint_s: Time of saving a checkpoint.
        checkpoint_bytes: Its size on disk.
        weights_bytes: Size of the supernet's weights.
    """

    planned: int
    tried: Plan
    results: Sequence[EvalResult]
    alpha_E: IntArray
    merge_s: float
    checkpoint_s: float
    checkpoint_bytes: int
    weights_bytes: int


def _run_pipeline(experiment: Experiment, trainer: Trainer, strategy: Strategy) -> _Trial:
    """Ask, evaluate as many architectures as fit into ``BUDGET_S`` but at least two, tell, save, restore, decode."""
    from ddpnas_ray.execution.local import LocalExecutor
    from ddpnas_ray.runs import checkpoint
    from ddpnas_ray.storage.folder import Folder

    space, executor = experiment.spec.space, LocalExecutor(trainer)
    state = initial_state(space, experiment.config.seed)
    plan = strategy.ask(state, space)
    assert plan is not None  # Experiment.prepare refuses a space with nothing to prune

    start = time.monotonic()
    results = executor.evaluate(plan.requests[:1])
    fitting = int(BUDGET_S / max(time.monotonic() - start, 1e-6))
    results += executor.evaluate(plan.requests[1 : max(2, fitting)])
    tried = Plan(plan.requests[: len(results)])
    state = strategy.tell(state, space, tried, results)
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        checkpoint.save(Folder.open(folder), state, executor.weights())
        checkpoint_s = time.monotonic() - start
        checkpoint_bytes = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())
        assert checkpoint.restore(Folder.open(folder)) is not None
    return _Trial(
        planned=len(plan.requests),
        tried=tried,
        results=results,
        alpha_E=experiment.spec.argmax(state.theta_EK, state.live_EK),
        merge_s=executor.work.merge_s / len(results),
        checkpoint_s=checkpoint_s,
        checkpoint_bytes=checkpoint_bytes,
        weights_bytes=sum(tensor.nbytes for tensor in executor.weights().values()),
    )


def _notes(experiment: Experiment, task: Task, device: str, trial: _Trial) -> list[str]:
    """Format what was tried as lines of text."""
    space, batch = experiment.spec.space, experiment.config.training.batch_size
    costs = ", ".join(f"{value:,} {name}" for name, value in experiment.costs(trial.alpha_E).items())
    return [
        f"data       {task.name}: {task.train_examples:,} training and {task.val_examples:,} validation examples of "
        f"{task.inputs}",
        f"space      {space.name}: {space.shape[0]} edges, up to {space.shape[1]} candidates; supernet "
        f"{trial.weights_bytes / 4:,.0f} weights ({size_text(trial.weights_bytes)})",
        f"trained    {len(trial.results)} of {trial.planned} architectures of an epoch on 2 batches of {batch} "
        f"({device}): mean {task.metric.name} {np.mean([r.score for r in trial.results]):.3f} "
        "(val); merged, saved, restored, decoded",
        f"network    {costs} ({experiment.target})",
    ]


def _decoding_note(task: Task, rate: float, estimate: Estimate) -> str:
    """Format the share of decoding as a line of text, with a hint if a cache would help."""
    decoding_s = estimate.constants.architecture_s
    size = bytes_text(_examples(task) * np.prod(task.inputs.shape))
    hint = f"; data.cache=FOLDER does it once ({size} on disk)" if decoding_s > 0.1 * estimate.architecture_s else ""
    return f"decoding   {rate:.0f} images a second here, {duration(decoding_s)} of every architecture-epoch{hint}"


def _examples(task: Task) -> int:
    return task.train_examples + task.val_examples


def _batches(trainer: Trainer) -> tuple[int, int]:
    """Count training steps and validation batches of an architecture-epoch."""
    task, size = trainer.task, trainer.config.batch_size
    return task.train_examples // size or 1, -(-task.val_examples // size)


def _batch_seconds(trainer: Trainer, tried: Plan) -> tuple[float, float, float]:
    """Time a training step, a validation batch and the preparation of a training batch, means over architectures."""
    steps, batches = _batches(trainer)
    training, validation = [], []
    start = time.monotonic()
    for request in tried.requests[:4]:
        training_s, validation_s = _time_batches(trainer, request.alpha_E)
        training.append(training_s / steps)
        validation.append(validation_s / batches)
        if time.monotonic() - start > BUDGET_S / 2:
            break
    start = time.perf_counter()
    prepared = sum(1 for _ in trainer.task.training_batches(0, trainer.seed, trainer.config.batch_size))
    host_s = (time.perf_counter() - start) / prepared
    return float(np.mean(training)), float(np.mean(validation)), host_s


def _decoding_rate(task: Task) -> float | None:
    """Return the images decoded in a second; None if they are kept as pixels, or the task is not one of images."""
    data = getattr(task, "data", None)
    if not isinstance(data, ImageData) or not isinstance(data.train.images, EncodedImages):
        return None
    return images_per_s(data.train.images)


def _time_batches(trainer: Trainer, alpha_E: IntArray) -> tuple[float, float]:
    """Time training on all training batches and scoring all validation batches, in seconds."""
    import torch

    from ddpnas_ray.nn.kernels.fast import accelerate
    from ddpnas_ray.nn.weights import Layout, Piece, Weights, bind
    from ddpnas_ray.training.epoch import fixed_threads

    network = trainer.spec.build(alpha_E, trainer.task.inputs)
    if trainer.config.kernels == "fast" and trainer.device == "cpu":
        accelerate(network)
    tensors = {name: p.detach().numpy() for name, p in network.named_parameters()}
    layout = Layout.of(Piece(name, tensor.shape) for name, tensor in tensors.items())
    with fixed_threads(trainer.config.threads):
        whole = bind(network, layout, torch.from_numpy(Weights(tensors).flat).to(trainer.device))
        network.to(trainer.device)
        start = time.perf_counter()
        trainer.train(network, whole, layout, epoch=0, lr=1e-4)
        trained = time.perf_counter()
        trainer.score(network)
        return trained - start, time.perf_counter() - trained


def _peak_bytes(device: str) -> int:
    import resource

    import torch

    if device == "cuda":
        return int(torch.cuda.max_memory_reserved())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def size_text(count: float) -> str:
    """Format a number of bytes with a binary unit.

    Example:
        >>> size_text(1536)
        '1.5 KiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}" if count < 100 else f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"
