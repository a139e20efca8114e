"""Train and score one architecture: the pure function that every executor runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.core.requests import EvalRequest, EvalResult
from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.nn.kernels.fast import accelerate
from ddpnas_ray.nn.weights import Float32Array, Layout, bind
from ddpnas_ray.spaces.base import SpaceSpec, Supernet
from ddpnas_ray.tasks.base import Batch, DeviceBatches, Task
from ddpnas_ray.training.accelerator import accelerator_for
from ddpnas_ray.training.batches import Streamed, on_device
from ddpnas_ray.training.config import TrainingConfig
from ddpnas_ray.training.cpu_isa import require_level
from ddpnas_ray.training.device import find_device
from ddpnas_ray.training.epoch import (
    Step,
    fixed_threads,
    initial_weights,
    outputs,
    recompute_batch_norm,
    train_epoch,
    unrecorded,
)
from ddpnas_ray.training.group import ALONE, Group, Shards, gathered

if TYPE_CHECKING:
    from torch import Tensor, nn

FIRST_BATCH = 16  # examples at once while first weights are set: gradients of a whole network

_DROPOUT, _WEIGHTS = 3, 4  # generator keys: random draws inside a network, and the supernet's initial weights


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Trains and scores any architecture of a search.

    Args:
        spec: Builds the networks.
        task: Data, loss and metric.
        config: Training options.
        seed: Keys the order of examples, augmentation and dropout.
        device: ``cpu`` or ``cuda``.
    """

    spec: SpaceSpec
    task: Task
    config: TrainingConfig
    seed: int
    device: str = "cpu"

    def supernet(self) -> tuple[dict[str, Float32Array], Supernet]:
        """Return the initial weights by name, and the supernet without storage."""
        seed = int(rng_for(self.seed, _WEIGHTS).integers(2**63))
        with fixed_threads(self.config.threads):
            tensors, supernet = initial_weights(self._new_supernet, seed)
        arrays = {name: tensor.numpy().astype(np.float32) for name, tensor in tensors.items()}
        return arrays, cast(Supernet, supernet)

    def train_and_score(
        self, request: EvalRequest, layout: Layout, flat: Float32Array, group: Group = ALONE
    ) -> tuple[EvalResult, Float32Array]:
        """Train one architecture for an epoch from the given weights and score it on the validation split.

        On one kind of device the result depends only on the first three arguments and this object, not on the process,
        the worker, the size of the group or earlier evaluations.

        Args:
            request: The architecture, its epoch and learning rate.
            layout: Positions of the architecture's weights in ``flat``.
            flat: The weights, float32; not modified.
            group: Processes that do this together, all with the same arguments; each returns the same.

        Returns:
            The result, and the new weights in the same layout (the given ones where ``request.train`` is False).

        Raises:
            ResourceError: ``training.cpu_isa`` is not in effect.
            ConfigError: The task's metric is outside [-1, 1].
        """
        require_level(self.config.cpu_isa)
        start_s, start = time.time(), time.perf_counter()
        with (
            fixed_threads(self.config.threads),
            torch.random.fork_rng(devices=self._cuda_devices()),
            accelerator_for(self.device).running(),
        ):
            torch.manual_seed(int(rng_for(self.seed, request.epoch, request.architecture, _DROPOUT).integers(2**63)))
            network = self.spec.build(request.alpha_E, self.task.inputs)
            if self.config.kernels == "fast" and self.device == "cpu":
                accelerate(network)
            buffer = torch.empty(flat.shape, dtype=torch.float32)
            np.copyto(buffer.numpy(), flat)  # a copy: arrays from the object store are read-only
            whole = bind(network, layout, buffer.to(self.device))
            network.to(self.device)
            loss, built = 0.0, time.perf_counter()
            if request.train:
                rate = self.config.lr if self.config.merge == "none" else request.lr  # each training is the first one
                loss = self.train(network, whole, layout, request.epoch, rate, request.architecture, group)
            weights = whole.detach().cpu().numpy()
            finite, trained = bool(np.isfinite(loss) and np.isfinite(weights).all()), time.perf_counter()
            score = float("nan")
            if finite:
                self.calibrate(network)
                score = self.score(network, group)
            finite = finite and bool(np.isfinite(score))
        end = time.perf_counter()
        result = EvalResult(
            score=score if finite else float("nan"),
            loss=loss if finite else float("nan"),
            ok=finite,
            seconds=end - start,
            start_s=start_s,
            train_s=trained - built,
            validate_s=end - trained,
            device=find_device(self.device).kind,
        )
        return result, weights

    def train(
        self,
        network: nn.Module,
        whole: nn.Parameter,
        layout: Layout,
        epoch: int,
        lr: float,
        architecture: int = 0,
        group: Group = ALONE,
    ) -> float:
        """Train one epoch; see ``train_epoch``."""
        task, config = self.task, self.config
        if config.shards == 1:
            source, recorded = self._source()
            whole_batches = source.training_batches(epoch, self.seed, config.batch_size)
            return train_epoch(network, whole, layout, whole_batches, task.loss, config, lr, recorded)

        def seed_of(step: int, shard: int) -> int:
            draws = rng_for(self.seed, epoch, architecture, _DROPOUT, step, shard)
            return int(draws.integers(2**63))

        shards = Shards(config.shards, min(config.batch_size, task.train_examples), group, seed_of)
        parts = [task.training_batches(epoch, self.seed, config.batch_size, v, shards.count) for v in shards.mine]
        batches = zip(*map(self._streamed, parts), strict=True)
        return train_epoch(network, whole, layout, batches, task.loss, config, lr, shards=shards)

    def calibrate(self, network: nn.Module) -> None:
        """Recompute BatchNorm statistics on ``training.bn_images`` training examples; 0 keeps them."""
        if self.config.bn_images:
            source, _ = self._source()
            batches = source.calibration_batches(self.config.bn_images, self.seed, self.config.batch_size)
            recompute_batch_norm(network, batches, self.config, torch.device(self.device))

    def score(self, network: nn.Module, group: Group = ALONE) -> float:
        """Return the task's metric on the whole validation split, in evaluation mode."""
        task, config, device = self.task, self.config, torch.device(self.device)
        if group.world == 1:
            source, recorded = self._source()
            batches = source.validation_batches(config.batch_size)
        else:
            recorded = unrecorded
            batches = self._streamed(task.validation_batches(config.batch_size, group.rank, group.world))
        mine = outputs(network, batches, config.precision, device, recorded, task)
        score = float(task.metric.score(gathered(mine, -(-task.val_examples // config.batch_size), group)))
        if abs(score) > 1:
            raise ConfigError(f"task.metric: {task.metric.name} gave {score:g}; scores must lie in [-1, 1]: rescale it")
        return score

    def _new_supernet(self) -> nn.Module:
        supernet = cast("nn.Module", self.spec.supernet(self.task.inputs))
        if self.spec.initialise is not None:
            self.spec.initialise(supernet, self._losses)
        return supernet

    def _losses(self, network: Callable[[Any], Tensor], examples: int) -> Iterator[Tensor]:
        for batch in self.task.calibration_batches(examples, self.seed, min(FIRST_BATCH, examples)):
            yield self.task.loss(network(batch.inputs), batch)

    def _source(self) -> tuple[DeviceBatches, Callable[[Step], Step]]:
        """Return where batches come from, and how steps are run on them: no recording while a thread copies batches."""
        accelerator, channels_last = accelerator_for(self.device), self.config.channels_last
        if (source := accelerator.resident(self.task, channels_last)) is not None:
            return source, accelerator.recorded
        return Streamed(self.task, self.device, channels_last=channels_last), unrecorded

    def _streamed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        return on_device(batches, self.device, channels_last=self.config.channels_last)

    def _cuda_devices(self) -> list[torch.device]:
        return [] if self.device == "cpu" else [torch.device(self.device)]
