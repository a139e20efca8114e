"""Train a network to the end of a recipe: the pure function that every retraining runs, in one process or in many."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ddpnas_ray.core.errors import ConfigError, DataError, DivergedError
from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.nn.kernels.fast import accelerate
from ddpnas_ray.nn.sync_norm import share_statistics
from ddpnas_ray.tasks.base import Batch, Compacts, Distils, ScoresTasks, Task
from ddpnas_ray.tasks.recipe import RetrainingConfig
from ddpnas_ray.training.batches import each, on_device, size
from ddpnas_ray.training.device import find_device, set_precision
from ddpnas_ray.training.epoch import autocast, fixed_threads, outputs
from ddpnas_ray.training.group import ALONE, ProcessGroup, gathered
from ddpnas_ray.training.hidden import Hidden
from ddpnas_ray.training.schedule import learning_rate
from ddpnas_ray.training.snapshot import Snapshot, put_back, take

_DRAWS = 0x46495454  # generator key of drop-path and dropout


def fit(
    network: nn.Module,
    task: Task,
    config: RetrainingConfig,
    rank: int,
    world: int,
    restore: Callable[[], Snapshot | None],
    save: Callable[[Snapshot], None],
    *,
    seed: int,
    device: str = "cpu",
    teacher: nn.Module | None = None,
    on_test: Callable[[], Task | None] = lambda: None,
    on_step: Callable[[int, int, int], None] = lambda epoch, step, steps: None,
    until: int | None = None,
) -> Snapshot:
    """Train a network from its latest snapshot to the end of the recipe.

    On one kind of device the result depends on the arguments only: interrupted anywhere and called again, it ends with
    the same bits. With ``world > 1``, torch's process group is initialised, and each process calls it with its rank.

    Args:
        network: A deploy network with its initial weights, equal in every process; trained in place.
        task: The recipe's task (``Task.for_retraining``).
        config: The recipe.
        rank: This process, from 0.
        world: Processes that share each batch.
        restore: Returns the latest snapshot, in every process the same; None: start from the beginning.
        save: Keeps a snapshot; called in process 0 after every epoch.
        seed: Keys order, augmentation and drop-path.
        device: ``cpu`` or ``cuda``.
        teacher: Network to distil from, in evaluation mode.
        on_test: Returns the task whose validation examples are the test examples, after the last epoch; None: no test.
        on_step: Called after each step with epoch, step (from 1) and steps per epoch.
        until: Stop after this epoch; None: after the last one.

    Returns:
        The final snapshot; after the last epoch, the last row of its history has the test score, or why there is none.

    Raises:
        DivergedError: An epoch's mean loss, or its score, is not finite.
        ConfigError: The metric is outside [-1, 1], or a worker's share of a batch is too small.
        DataError: A training or validation example cannot be read.
    """
    refuse_small_shares(task, config, world)
    set_precision(config.precision, device)
    training = _Training(network, task, config, rank, world, seed, device, teacher, on_step)
    snapshot = restore()
    if snapshot is not None:
        training.put_back(snapshot)
    last = config.epochs if until is None else min(until, config.epochs)
    for epoch in range(snapshot.epoch if snapshot is not None else 0, last):
        with fixed_threads(config.threads), torch.random.fork_rng(devices=[] if device == "cpu" else [device]):
            torch.manual_seed(int(rng_for(seed, _DRAWS, epoch, rank).integers(2**63)))
            row = training.train(epoch)
            row |= training.scores()
            if epoch + 1 == config.epochs:
                row |= training.test(on_test())
        history = (*(snapshot.history if snapshot is not None else ()), row)
        snapshot = take(epoch + 1, network, training.optimizer, training.average, history)
        if rank == 0:
            save(snapshot)
    assert snapshot is not None  # a recipe has at least one epoch
    return snapshot


def make_optimizer(network: nn.Module, config: RetrainingConfig) -> torch.optim.Optimizer:
    """Create the recipe's optimiser, fused: one call per step."""
    parameters = list(network.parameters())
    groups: list[dict[str, Any]] = [{"params": parameters, "weight_decay": config.weight_decay}]
    if config.decay == "weights":
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, config.lr, config.momentum, nesterov=config.nesterov, fused=True)
    return torch.optim.AdamW(groups, config.lr, fused=True)


def score(
    network: nn.Module, task: Task, config: RetrainingConfig, rank: int, world: int, device: str
) -> tuple[float, dict[str, float]]:
    """Return the task's metric on its validation examples, and that of each task; empty if it is only one.

    Every process computes every ``world``-th batch.

    Raises:
        DivergedError: The metric is not finite.
        ConfigError: It is outside [-1, 1].
        DataError: An example cannot be read, by any process.
    """
    batches = on_device(
        task.validation_batches(config.batch_size, rank, world), device, channels_last=config.channels_last
    )
    found_of = outputs(network, batches, config.precision, torch.device(device), task=task)
    mine = found_of if isinstance(task, Compacts) else ((out.float(), targets) for out, targets in found_of)
    count = -(-task.val_examples // config.batch_size)
    every: Iterable[tuple[Tensor, Any]] = gathered(mine, count, ALONE if world == 1 else ProcessGroup())
    by_task = {}
    if isinstance(task, ScoresTasks):
        every = list(every)
        by_task = task.scores_by_task(every)
    found = float(task.metric.score(every))
    if not math.isfinite(found):
        raise DivergedError(
            f"task.metric: {task.metric.name} gave {found:g}: start a new training with a lower retraining.lr, or with "
            "retraining.warmup_epochs"
        )
    if abs(found) > 1:
        raise ConfigError(f"task.metric: {task.metric.name} gave {found:g}; scores must lie in [-1, 1]: rescale it")
    return found, by_task


class _Training:
    """One process's part of a training: the network with what trains it."""

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        config: RetrainingConfig,
        rank: int,
        world: int,
        seed: int,
        device: str,
        teacher: nn.Module | None,
        on_step: Callable[[int, int, int], None],
    ) -> None:
        self._task, self._config, self._teacher, self._on_step = task, config, teacher, on_step
        self._rank, self._world, self._seed, self._device = rank, world, seed, device
        if config.kernels == "fast" and device == "cpu" and not config.compile:
            accelerate(network)
        if config.sync_batch_norm and world > 1:
            share_statistics(network, device)
        memory = torch.channels_last if config.channels_last else torch.contiguous_format
        self._network = network.to(device, memory_format=memory)  # type: ignore[call-overload]
        self.optimizer = make_optimizer(network, config)
        self.average = None
        if config.ema:
            self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=True)
        self._hidden = Hidden(network, teacher) if teacher is not None and config.teacher_hidden else None
        wrapped: Any = network
        if world > 1:
            gpus = None if device == "cpu" else [torch.cuda.current_device()]
            # Without the search for unused parameters, networks with any fail, and gradients are summed in another
            # order after the first step of a process: a resumed training would differ from three workers on.
            wrapped = DistributedDataParallel(
                network, device_ids=gpus, gradient_as_bucket_view=True, find_unused_parameters=True
            )
        self._trained: Any = torch.compile(wrapped) if config.compile else wrapped
        if config.compile and config.drop_path:
            network.drop_path = torch.zeros((), device=device)

    def put_back(self, snapshot: Snapshot) -> None:
        """Continue from a snapshot."""
        put_back(snapshot, self._network, self.optimizer, self.average)

    def train(self, epoch: int) -> dict[str, Any]:
        """Train one epoch; return its part of the history.

        Raises:
            DivergedError: The mean loss is not finite.
        """
        task, config, world, start = self._task, self._config, self._world, time.perf_counter()
        whole = min(config.batch_size, task.train_examples)
        steps = max(1, task.train_examples // config.batch_size)
        self._network.train()
        self._set_drop_path(config.drop_path * epoch / config.epochs)  # linear, as DARTS
        total = torch.zeros((), device=self._device)
        batches = task.training_batches(epoch, self._seed, config.batch_size, self._rank, world)
        for step, batch in enumerate(on_device(batches, self._device, channels_last=config.channels_last)):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(config, epoch, step, steps)
            self.optimizer.zero_grad()
            parts = _parts(batch, config.accumulate)
            for i, part in enumerate(parts):
                last = i + 1 == len(parts)
                with nullcontext() if last or world == 1 else self._trained.no_sync():
                    with autocast(torch.device(self._device), config.precision):
                        loss = _loss(self._trained(part.inputs), part, task, config, self._teacher, self._hidden)
                    # gradients of processes are averaged, so each weighs its share of the whole batch
                    loss = loss * (size(part) * world / whole)
                    loss.backward()
                total += loss.detach()
            if config.grad_clip:
                nn.utils.clip_grad_norm_(self._network.parameters(), config.grad_clip, foreach=True)
            self.optimizer.step()
            if self.average is not None:
                self.average.update_parameters(self._network)
            self._on_step(epoch, step + 1, steps)
        if world > 1:
            dist.all_reduce(total)
        if not torch.isfinite(total):
            raise DivergedError(
                f"the loss of epoch {epoch + 1} is not finite: start a new training with a lower "
                "retraining.lr, or with retraining.warmup_epochs"
            )
        seconds = time.perf_counter() - start
        return {
            "epoch": epoch + 1,
            "lr": self.optimizer.param_groups[0]["lr"],
            "loss": float(total) / (steps * world),
            "train_s": seconds,
            "examples_per_s": steps * whole / seconds,
            "workers": world,
            "device": find_device(self._device).kind,
        }

    def scores(self) -> dict[str, Any]:
        """Score the network, or its average, on the validation examples."""
        start = time.perf_counter()
        _share_buffers(self._network, self.average, self._world)
        found = self._score("val", self._task) if self._task.val_examples else {"val": None}
        return {**found, "test": None, "score_s": time.perf_counter() - start}

    def test(self, tested: Task | None) -> dict[str, Any]:
        """Score it on the test examples; damaged ones cost the score, not the training."""
        start = time.perf_counter()
        try:
            found: dict[str, Any] = {"test": None} if tested is None else self._score("test", tested)
        except DataError as error:
            found = {"test": None, "test_error": str(error)}
        return found | {"test_s": time.perf_counter() - start}

    def _score(self, split: str, task: Task) -> dict[str, Any]:
        network = self._network if self.average is None else self.average.module
        found, by_task = score(network, task, self._config, self._rank, self._world, self._device)
        return {split: found} | ({f"{split}_by_task": by_task} if by_task else {})

    def _set_drop_path(self, probability: float) -> None:
        if not self._config.drop_path:
            return
        if isinstance(self._network.drop_path, Tensor):
            self._network.drop_path.fill_(probability)
        else:
            self._network.drop_path = probability


def _loss(
    found: Any,
    batch: Batch,
    task: Task,
    config: RetrainingConfig,
    teacher: nn.Module | None,
    hidden: Hidden | None,
) -> Tensor:
    """Return the task's loss, with those of auxiliary head and teacher."""
    found, auxiliary = found if isinstance(found, tuple) else (found, None)
    loss = task.loss(found, batch)
    if teacher is not None:
        with torch.no_grad():
            taught = teacher(batch.inputs)
        distilled = task.distillation_loss if isinstance(task, Distils) else _divergence
        apart = distilled(found, taught, batch, config.teacher_temperature)
        loss = (1 - config.teacher_weight) * loss + config.teacher_weight * apart
        if hidden is not None:
            loss = loss + config.teacher_hidden * hidden.loss()
    return loss if auxiliary is None else loss + config.auxiliary * task.loss(auxiliary, batch)


def _divergence(outputs: Tensor, taught: Tensor, batch: Batch, temperature: float) -> Tensor:
    """See ``Distils``: the Kullback-Leibler divergence from the teacher over all outputs."""
    found, wanted = (log_softmax(one / temperature, dim=1) for one in (outputs, taught))
    return temperature**2 * kl_div(found, wanted, reduction="batchmean", log_target=True)


def _share_buffers(network: nn.Module, average: AveragedModel | None, world: int) -> None:
    """Send process 0's BatchNorm statistics to all, so that scores and snapshots are the same everywhere."""
    if world == 1:
        return
    modules = [network] if average is None else [network, average.module]
    buffers = [b for module in modules for b in module.buffers() if b.is_floating_point()]
    if not buffers:
        return
    flat = torch.cat([buffer.reshape(-1) for buffer in buffers])
    dist.broadcast(flat, 0)
    for buffer, values in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(values.view_as(buffer))


def _parts(batch: Batch, count: int) -> list[Batch]:
    """Cut a batch into parts for gradient accumulation."""
    if count == 1:
        return [batch]
    bounds = torch.arange(size(batch)).tensor_split(count)
    return [each(batch, lambda t, b=b: t[int(b[0]) : int(b[-1]) + 1]) for b in bounds if len(b)]  # type: ignore[misc]


def refuse_small_shares(task: Task, config: RetrainingConfig, world: int) -> None:
    """Refuse a recipe that gives a worker fewer than two examples at a time, or one with shared statistics.

    Raises:
        ConfigError: It does.
    """
    least = 1 if config.sync_batch_norm and world > 1 else 2
    share = min(config.batch_size, task.train_examples) // world // config.accumulate
    if share < least:
        raise ConfigError(
            f"retraining.batch_size is {config.batch_size} on {task.train_examples} examples: {world} worker(s) with "
            f"retraining.accumulate={config.accumulate} get {share} example(s) at a time, and BatchNorm needs {least}; "
            "raise batch_size, or lower workers or accumulate"
        )
