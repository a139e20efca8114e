"""Train one epoch, recompute BatchNorm statistics, and compute outputs, on the caller's batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ddpnas_ray.nn.weights import Layout, Shadow
from ddpnas_ray.tasks.base import Batch, Compacts, Predicts, Task
from ddpnas_ray.training.config import TrainingConfig
from ddpnas_ray.training.group import Shards

Loss = Callable[[Tensor, Batch], Tensor]
Step = Callable[[Batch], Any]


def unrecorded(step: Step) -> Step:
    """Return the step itself, to be run batch by batch; ``Accelerator.recorded`` replays it."""
    return step


def train_epoch(
    network: nn.Module,
    whole: nn.Parameter,
    layout: Layout,
    batches: Iterable[Any],
    loss_of: Loss,
    config: TrainingConfig,
    lr: float,
    recorded: Callable[[Step], Step] = unrecorded,
    shards: Shards | None = None,
) -> float:
    """Train one epoch with SGD or AdamW, starting from a fresh optimiser state.

    Args:
        network: A network whose parameters are views of ``whole`` (``weights.bind``); updated in place. With
            ``bf16`` its convolutions and linear layers hold a bfloat16 copy of their weights from then on.
        whole: All its weights as one tensor: one optimiser step and one norm cover them all.
        layout: Position of each parameter in ``whole``.
        batches: The epoch's training batches, on the network's device; with ``shards``, tuples of this process's parts.
        loss_of: The task's loss.
        config: Training options.
        lr: Learning rate of the whole epoch.
        recorded: How steps are run; they read nothing from the device. Not with ``shards``.
        shards: How batches are shared out; None: they are whole.

    Returns:
        The mean loss over batches; not finite if training diverged.
    """
    update = optimizer_step(whole, layout, config, lr, fused=whole.is_cuda)
    shadow = Shadow(network, layout, whole) if config.precision == "bf16" else None
    network.train()
    # No need to track statistics that are recomputed before scoring.
    _track_statistics(network, config.bn_images == 0)
    total, count = torch.zeros((), device=whole.device), 0

    def backward(batch: Batch) -> Tensor:
        whole.grad.zero_()  # type: ignore[union-attr]  # gradients are views of it: see ``bind``
        with autocast(whole.device, config.precision):
            loss = loss_of(network(batch.inputs), batch)
        loss.backward()
        if shadow is not None:
            shadow.collect()
        return loss.detach()

    def step(batch: Any) -> None:
        total.add_(backward(batch) if shards is None else shards.backward(whole, count, batch, backward))
        if config.grad_clip:
            nn.utils.clip_grad_norm_([whole], config.grad_clip)
        update()
        if shadow is not None:
            shadow.cast()

    run = recorded(step)
    for batch in batches:
        run(batch)
        count += 1
    return float(total) / max(count, 1)


@torch.no_grad()
def recompute_batch_norm(
    network: nn.Module, batches: Iterable[Batch], config: TrainingConfig, device: torch.device
) -> None:
    """Reset BatchNorm's running statistics and average them over training examples (docs/deviations.md, row 12).

    Args:
        network: The network; left in training mode.
        batches: Batches of equal size, not augmented: the cumulative average weights batches, not examples.
        config: Gives the precision.
        device: The network's device.
    """
    _track_statistics(network, True)
    norms = _norms(network)
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
    network.train()
    for count, batch in enumerate(batches, start=1):
        for norm in norms:
            norm.momentum = 1.0 / count  # cumulative average; with ``None`` torch reads the count back from the GPU
        with autocast(device, config.precision):
            network(batch.inputs)


@torch.no_grad()
def outputs(
    network: nn.Module,
    batches: Iterable[Batch],
    precision: str,
    device: torch.device,
    recorded: Callable[[Step], Step] = unrecorded,
    task: Task | None = None,
) -> Iterator[tuple[Tensor, Any]]:
    """Yield the network's outputs in evaluation mode, and the targets, batch by batch.

    Args:
        network: The network.
        batches: Validation batches, on its device.
        precision: Of the forward passes.
        device: The device.
        recorded: How outputs are computed.
        task: May predict in its own way, and compact what it is to be scored on; None: neither.
    """
    network.eval()
    predicts = task.predict if isinstance(task, Predicts) else None
    compact = task.compact if isinstance(task, Compacts) else None

    def forward(batch: Batch) -> Any:
        with autocast(device, precision):
            return network(batch.inputs) if predicts is None else predicts(network, batch.inputs)

    run = recorded(forward)
    for batch in batches:
        found = run(batch)
        yield (found, batch.targets) if compact is None else compact(found, batch.targets)


@contextmanager
def fixed_threads(threads: int) -> Iterator[None]:
    """Run the block with this number of CPU threads, then restore the previous one."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def initial_weights(make: Callable[[], nn.Module], torch_seed: int) -> tuple[dict[str, Tensor], nn.Module]:
    """Build a supernet with weights that depend on the seed only.

    Returns:
        Its parameters by name, and the supernet without storage (it still maps architectures to their pieces).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed)
        supernet = make()
    return {name: p.detach() for name, p in supernet.named_parameters()}, supernet.to("meta")


def optimizer_step(
    whole: nn.Parameter, layout: Layout, config: TrainingConfig, lr: float, *, fused: bool
) -> Callable[[], object]:
    """Return the optimiser step on the flat buffer, per ``training.optimizer`` and ``training.decay``.

    Args:
        whole: The buffer.
        layout: Position of each parameter in it.
        config: Training options.
        lr: Learning rate.
        fused: One kernel that can be recorded, on GPUs.
    """
    only: dict[str, Any] = {"fused": True} if fused else {}
    decays_all = config.decay == "all" and not any(piece.frozen for piece in layout.pieces)
    decay = config.weight_decay if decays_all else 0.0
    optimizer: torch.optim.Optimizer
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD([whole], lr, config.momentum, weight_decay=decay, **only)
    else:
        optimizer = torch.optim.AdamW([whole], lr, weight_decay=decay, capturable=fused, **only)
    if decays_all or not config.weight_decay:
        return optimizer.step
    mask = torch.zeros_like(whole)
    for piece, offset in zip(layout.pieces, layout.offsets, strict=True):
        decays = not piece.frozen and (config.decay == "all" or len(piece.shape) > 1)
        mask[offset : offset + piece.size] = float(decays)

    @torch.no_grad()
    def step() -> None:
        if config.optimizer == "sgd":
            whole.grad.addcmul_(whole, mask, value=config.weight_decay)  # type: ignore[union-attr]
        else:
            whole.addcmul_(whole, mask, value=-lr * config.weight_decay)
        optimizer.step()

    return step


def autocast(device: torch.device, precision: str) -> torch.autocast | nullcontext[None]:
    """Return the context of forward passes: autocast to bfloat16 with ``bf16``; without its cache, which outlives a
    recording."""
    if precision != "bf16":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=device.type == "cpu")


def _norms(network: nn.Module) -> list[_BatchNorm]:
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


def _track_statistics(network: nn.Module, on: bool) -> None:
    for norm in _norms(network):
        norm.track_running_stats = on
