"""Train and score one architecture: the pure function that every executor runs.

Axes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from ddpnas_ray.core.errors import ResourceError
from ddpnas_ray.core.requests import EvalRequest, EvalResult
from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.data.batches import Draws, epoch_draws, epoch_order, normalise, training_batch
from ddpnas_ray.data.images import ImageData, Split
from ddpnas_ray.data.split import stratified_batches
from ddpnas_ray.nn.weights import Float32Array, Layout, bind
from ddpnas_ray.spaces.base import SpaceSpec, Supernet
from ddpnas_ray.spaces.target import Inputs
from ddpnas_ray.training.config import TrainingConfig
from ddpnas_ray.training.device import find_device, require_level
from ddpnas_ray.training.epoch import (
    Batches,
    accuracy,
    fixed_threads,
    initial_weights,
    recompute_batch_norm,
    train_epoch,
)

if TYPE_CHECKING:
    from torch import nn

_DROPOUT, _WEIGHTS = 3, 4  # keys of generators: what a network draws itself, and the supernet's first weights


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """What a worker needs to train any architecture.

    Args:
        spec: Builds the networks.
        data: Training and validation images.
        config: How to train.
        seed: Keys the order of images, augmentation and dropout.
        device: Where to train, ``cpu`` or ``cuda``.
    """

    spec: SpaceSpec
    data: ImageData
    config: TrainingConfig
    seed: int
    device: str = "cpu"

    @property
    def inputs(self) -> Inputs:
        """What the data look like to a network."""
        return Inputs(channels=self.data.channels, image_size=self.data.image_size, classes=len(self.data.classes))

    def supernet(self) -> tuple[dict[str, Float32Array], Supernet]:
        """The first weights by name, and the supernet without storage."""
        seed = int(rng_for(self.seed, _WEIGHTS).integers(2**63))
        make = cast("Callable[[], nn.Module]", partial(self.spec.supernet, self.inputs))
        tensors, supernet = initial_weights(make, seed)
        arrays = {name: tensor.numpy().astype(np.float32) for name, tensor in tensors.items()}
        return arrays, cast(Supernet, supernet)

    def train_and_score(
        self, request: EvalRequest, layout: Layout, flat: Float32Array
    ) -> tuple[EvalResult, Float32Array]:
        """Train one architecture for an epoch from the given weights and score it on the validation split.

        On one kind of device the result depends on the arguments and this object alone: not on the process, the worker
        or what ran before.

        Args:
            request: The architecture, its epoch and learning rate.
            layout: Where the architecture's weights lie in ``flat``.
            flat: The weights, float32; left as they are.

        Returns:
            The result, and the new weights in the same layout (the given ones where ``request.train`` is False).

        Raises:
            ResourceError: The GPU's memory does not hold the architecture, or ``training.cpu_isa`` is not in effect.
        """
        require_level(self.config.cpu_isa)
        try:
            return self._train_and_score(request, layout, flat)
        except torch.OutOfMemoryError as error:
            raise ResourceError(
                f"architecture {request.architecture} of epoch {request.epoch} does not fit into the GPU's memory "
                f"({torch.cuda.max_memory_reserved(self.device) / 2**30:.1f} GiB reserved); "
                f"alpha={[int(k) for k in request.alpha_E]}; lower training.batch_size, or raise "
                "execution.gpus_per_worker"
            ) from error

    def _train_and_score(
        self, request: EvalRequest, layout: Layout, flat: Float32Array
    ) -> tuple[EvalResult, Float32Array]:
        start_s, start = time.time(), time.perf_counter()
        with fixed_threads(self.config.threads), torch.random.fork_rng(devices=self._cuda_devices()):
            torch.manual_seed(int(rng_for(self.seed, request.epoch, request.architecture, _DROPOUT).integers(2**63)))
            network = self.spec.build(request.alpha_E, self.inputs)
            buffer = torch.empty(flat.shape, dtype=torch.float32)
            np.copyto(buffer.numpy(), flat)  # a copy: what comes from the object store must not be written to
            whole = bind(network, layout, buffer.to(self.device))
            network.to(self.device)
            loss, built = 0.0, time.perf_counter()
            if request.train:
                loss = train_epoch(network, whole, self.training_batches(request.epoch), self.config, request.lr)
            weights = whole.detach().cpu().numpy()
            finite, trained = bool(np.isfinite(loss) and np.isfinite(weights).all()), time.perf_counter()
            score = self._score(network) if finite else float("nan")
        end = time.perf_counter()
        result = EvalResult(
            score=score,
            loss=loss if finite else float("nan"),
            ok=finite,
            seconds=end - start,
            start_s=start_s,
            train_s=trained - built,
            validate_s=end - trained,
            device=find_device(self.device).kind,
        )
        return result, weights

    def training_batches(self, epoch: int) -> Batches:
        """The augmented training images of an epoch, in its order: the same for all its architectures."""
        n = len(self.data.train)
        draws = epoch_draws(n, self.data.augment, self.data.image_size, self.seed, epoch)
        order = epoch_order(n, self.config.batch_size, self.seed, epoch)
        return self._batches(self.data.train, order, draws)

    def batch_norm_batches(self) -> Batches:
        """``bn_images`` training images, not augmented: always the same ones, each batch with classes in proportion."""
        labels_N, config = self.data.train.labels_N, self.config
        order = stratified_batches(labels_N, config.bn_images, config.batch_size, seed=self.seed)
        return self._batches(self.data.train, order)

    def validation_batches(self) -> Batches:
        """The whole validation split, not augmented."""
        return self._batches(self.data.val, _in_order(len(self.data.val), self.config.batch_size))

    def _score(self, network: nn.Module) -> float:
        if self.config.bn_images:
            recompute_batch_norm(network, self.batch_norm_batches(), self.config)
        return accuracy(network, self.validation_batches(), self.config)

    def _batches(
        self, split: Split, order: Sequence[IntArray], draws: Draws | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches on the device; for a GPU the next one is prepared and copied while the last one is computed."""
        scale = {"mean": self.data.mean, "std": self.data.std}

        def prepare(indices: IntArray) -> tuple[torch.Tensor, torch.Tensor]:
            if draws is None:
                batch_NCHW = normalise(split.images.gather(indices), **scale)
            else:
                batch_NCHW = training_batch(split.images, indices, draws, self.data.augment, **scale)
            images = torch.from_numpy(batch_NCHW)
            if self.config.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            labels = torch.from_numpy(split.labels_N[indices])
            return (images, labels) if self.device == "cpu" else (images.pin_memory(), labels.pin_memory())

        if self.device == "cpu":
            yield from map(prepare, order)
            return
        with ThreadPoolExecutor(1) as pool:
            ahead = [pool.submit(prepare, indices) for indices in order[:1]]
            for i in range(len(order)):
                images, labels = ahead.pop().result()
                ahead += [pool.submit(prepare, indices) for indices in order[i + 1 : i + 2]]
                yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)

    def _cuda_devices(self) -> list[torch.device]:
        return [] if self.device == "cpu" else [torch.device(self.device)]


def _in_order(n: int, size: int) -> list[IntArray]:
    return [np.arange(start, min(start + size, n)) for start in range(0, n, size)]
