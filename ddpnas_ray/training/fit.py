"""Train a network to the end of a recipe: the pure function that every retraining runs, in one process or in many."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from itertools import zip_longest
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ddpnas_ray.core.errors import ConfigError, DivergedError
from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.tasks.base import Batch, Task
from ddpnas_ray.tasks.recipe import RetrainingConfig
from ddpnas_ray.training.batches import each, on_device, size
from ddpnas_ray.training.device import find_device, set_precision
from ddpnas_ray.training.epoch import autocast, fixed_threads, outputs
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

    Returns:
        The final snapshot; the last row of its history has the test score.

    Raises:
        DivergedError: An epoch's mean loss is not finite.
        ConfigError: The metric is outside [-1, 1], or a worker's share of a batch is too small.
    """
    _refuse_small_shares(task, config, world)
    set_precision(config.precision, device)
    memory = torch.channels_last if config.channels_last else torch.contiguous_format
    network.to(device, memory_format=memory)  # type: ignore[call-overload]
    optimizer = make_optimizer(network, config)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=True)
    kept = average if config.ema else None
    history: tuple[Mapping[str, Any], ...] = ()
    first = 0
    snapshot = restore()
    if snapshot is not None:
        put_back(snapshot, network, optimizer, kept)
        first, history = snapshot.epoch, snapshot.history
    trained = _trained(network, config, world, device)
    for epoch in range(first, config.epochs):
        start = time.perf_counter()
        with fixed_threads(config.threads), torch.random.fork_rng(devices=[] if device == "cpu" else [device]):
            torch.manual_seed(int(rng_for(seed, _DRAWS, epoch, rank).integers(2**63)))
            loss, examples = _train(
                trained, network, task, config, optimizer, kept, teacher, epoch, rank, world, seed, device, on_step
            )
            _share_buffers(network, kept, world)
            end = time.perf_counter()
            result = network if kept is None else kept.module
            last = epoch + 1 == config.epochs
            tested = on_test() if last else None
            row = {
                "epoch": epoch + 1,
                "lr": optimizer.param_groups[0]["lr"],
                "loss": loss,
                "val": score(result, task, config, rank, world, device) if task.val_examples else None,
                "test": None if tested is None else score(result, tested, config, rank, world, device),
                "train_s": end - start,
                "score_s": time.perf_counter() - end,
                "examples_per_s": examples / (end - start),
                "workers": world,
                "device": find_device(device).kind,
            }
        history = (*history, row)
        snapshot = take(epoch + 1, network, optimizer, kept, history)
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


def score(network: nn.Module, task: Task, config: RetrainingConfig, rank: int, world: int, device: str) -> float:
    """Return the task's metric on its validation examples; every process computes every ``world``-th batch.

    Raises:
        ConfigError: The metric is outside [-1, 1].
    """
    batches = on_device(
        task.validation_batches(config.batch_size, rank, world), device, channels_last=config.channels_last
    )
    mine = (
        (out.float(), batch.targets) for out, batch in outputs(network, batches, config.precision, torch.device(device))
    )
    count = -(-task.val_examples // config.batch_size)
    found = float(task.metric.score(mine if world == 1 else _gathered(mine, count, world)))
    if not abs(found) <= 1:
        raise ConfigError(f"task.metric: {task.metric.name} gave {found:g}; scores must lie in [-1, 1]: rescale it")
    return found


def _train(
    trained: Callable[..., Any],
    network: nn.Module,
    task: Task,
    config: RetrainingConfig,
    optimizer: torch.optim.Optimizer,
    average: AveragedModel | None,
    teacher: nn.Module | None,
    epoch: int,
    rank: int,
    world: int,
    seed: int,
    device: str,
    on_step: Callable[[int, int, int], None],
) -> tuple[float, int]:
    """Train one epoch; return the mean loss, over all processes, and the number of examples of all processes."""
    whole = min(config.batch_size, task.train_examples)
    steps = max(1, task.train_examples // config.batch_size)
    network.train()
    if config.drop_path:
        network.drop_path = config.drop_path * epoch / config.epochs  # type: ignore[assignment]  # DARTS: linear
    total = torch.zeros((), device=device)
    batches = task.training_batches(epoch, seed, config.batch_size, rank, world)
    for step, batch in enumerate(on_device(batches, device, channels_last=config.channels_last)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, epoch, step, steps)
        optimizer.zero_grad()
        parts = _parts(batch, config.accumulate)
        for i, part in enumerate(parts):
            # gradients of processes are averaged, so each weighs its share of the whole batch
            weight = size(part) * world / whole
            wait = world > 1 and i + 1 < len(parts)
            with trained.no_sync() if wait else nullcontext():  # type: ignore[attr-defined]
                with autocast(torch.device(device), config.precision):
                    loss = _loss(trained(part.inputs), part, task, config, teacher) * weight
                loss.backward()
            total += loss.detach()
        if config.grad_clip:
            nn.utils.clip_grad_norm_(network.parameters(), config.grad_clip, foreach=True)
        optimizer.step()
        if average is not None:
            average.update_parameters(network)
        on_step(epoch, step + 1, steps)
    if world > 1:
        dist.all_reduce(total)
    loss_value = float(total) / (steps * world)
    if not torch.isfinite(total):
        raise DivergedError(
            f"the loss of epoch {epoch + 1} is not finite; every earlier epoch is saved: lower retraining.lr, or add "
            "retraining.warmup_epochs"
        )
    return loss_value, steps * whole


def _loss(found: Any, batch: Batch, task: Task, config: RetrainingConfig, teacher: nn.Module | None) -> Tensor:
    """Return the task's loss, with those of auxiliary head and teacher."""
    found, auxiliary = found if isinstance(found, tuple) else (found, None)
    loss = task.loss(found, batch)
    if teacher is not None:
        temperature = config.teacher_temperature
        with torch.no_grad():
            wanted = log_softmax(teacher(batch.inputs) / temperature, dim=1)
        apart = kl_div(log_softmax(found / temperature, dim=1), wanted, reduction="batchmean", log_target=True)
        loss = (1 - config.teacher_weight) * loss + config.teacher_weight * temperature**2 * apart
    return loss if auxiliary is None else loss + config.auxiliary * task.loss(auxiliary, batch)


def _trained(network: nn.Module, config: RetrainingConfig, world: int, device: str) -> Callable[..., Any]:
    """Wrap the network for several processes, and compile it, as the recipe says."""
    wrapped: Any = network
    if world > 1:
        wrapped = DistributedDataParallel(
            network, device_ids=None if device == "cpu" else [torch.cuda.current_device()], gradient_as_bucket_view=True
        )
    return torch.compile(wrapped) if config.compile else wrapped


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


def _gathered(mine: Iterator[tuple[Tensor, Any]], count: int, world: int) -> Iterator[tuple[Tensor, Any]]:
    """Yield the outputs of all processes in the order of the batches; each computes every ``world``-th."""
    for _, pair in zip_longest(range(-(-count // world)), mine):
        on_cpu = None if pair is None else each(pair, Tensor.cpu)
        everyone: list[Any] = [None] * world
        dist.all_gather_object(everyone, on_cpu)
        yield from (found for found in everyone if found is not None)


def _parts(batch: Batch, count: int) -> list[Batch]:
    """Cut a batch into parts for gradient accumulation."""
    if count == 1:
        return [batch]
    bounds = torch.arange(size(batch)).tensor_split(count)
    return [each(batch, lambda t, b=b: t[int(b[0]) : int(b[-1]) + 1]) for b in bounds if len(b)]  # type: ignore[misc]


def _refuse_small_shares(task: Task, config: RetrainingConfig, world: int) -> None:
    share = min(config.batch_size, task.train_examples) // world // config.accumulate
    if share < 2:
        raise ConfigError(
            f"retraining.batch_size is {config.batch_size} on {task.train_examples} examples: {world} worker(s) with "
            f"retraining.accumulate={config.accumulate} get {share} example(s) at a time, and BatchNorm needs 2; raise "
            "batch_size, or lower workers or accumulate"
        )
