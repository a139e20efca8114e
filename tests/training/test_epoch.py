"""One epoch of training, BatchNorm statistics and accuracy, on networks that are small enough to check by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ddpnas_ray.nn.weights import Layout, Piece, Weights, bind
from ddpnas_ray.tasks.base import Batch
from ddpnas_ray.training.config import TrainingConfig
from ddpnas_ray.training.epoch import fixed_threads, initial_weights, outputs, recompute_batch_norm
from ddpnas_ray.training.epoch import train_epoch as train_epoch_of

CONFIG = TrainingConfig(batch_size=8, bn_images=32)


CPU = torch.device("cpu")


def batches(count: int = 4, size: int = 8, seed: int = 0) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Batch(torch.randn(size, 2, 4, 4, generator=generator), torch.randint(3, (size,), generator=generator))
        for _ in range(count)
    ]


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4, affine=False),
            nn.ReLU(),
            nn.Conv2d(4, 4, 1, bias=False),
            nn.BatchNorm2d(4, affine=False),
            nn.Flatten(),
            nn.Linear(64, 3),
        )


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(logits, batch.targets)


def layout_of(module: nn.Module) -> Layout:
    return Layout.of(Piece(name, tuple(p.shape)) for name, p in module.named_parameters())


def train_epoch(
    module: nn.Module, whole: nn.Parameter, given: list[Batch], config: TrainingConfig, *, lr: float
) -> float:
    return train_epoch_of(module, whole, layout_of(module), given, cross_entropy, config, lr)


def bound(module: nn.Module) -> nn.Parameter:
    layout = layout_of(module)
    weights = Weights({name: p.detach().numpy() for name, p in module.named_parameters()})
    return bind(module, layout, torch.from_numpy(weights.cut(layout)))


# --- training ---


def test_an_epoch_is_sgd_with_clipping_over_all_batches() -> None:
    config = TrainingConfig(batch_size=8, momentum=0.8, weight_decay=0.01, grad_clip=0.5, bn_images=32)
    ours, theirs = network(), network()
    loss = train_epoch(ours, bound(ours), batches(), config, lr=0.05)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.8, weight_decay=0.01)
    losses = []
    for images, labels in batches():
        optimizer.zero_grad()
        found = nn.functional.cross_entropy(theirs(images), labels)
        found.backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        optimizer.step()
        losses.append(found.item())
    assert loss == pytest.approx(sum(losses) / len(losses), rel=1e-6)
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert torch.linalg.vector_norm(a - b) <= 1e-6 * torch.linalg.vector_norm(b), name


def test_a_clip_of_zero_does_not_clip() -> None:
    free, clipped = network(), network()
    train_epoch(free, bound(free), batches(1), TrainingConfig(grad_clip=0.0), lr=0.1)
    train_epoch(clipped, bound(clipped), batches(1), TrainingConfig(grad_clip=1e9), lr=0.1)
    assert all(torch.equal(a, b) for a, b in zip(free.parameters(), clipped.parameters(), strict=True))


def test_momentum_starts_fresh_each_epoch() -> None:
    config = TrainingConfig(momentum=0.9, weight_decay=0.0)
    module = network()
    whole = bound(module)
    train_epoch(module, whole, batches(), config, lr=0.1)
    before = whole.detach().clone()
    twin = network()
    with torch.no_grad():
        other = bound(twin)
        other.copy_(before)
    train_epoch(module, whole, batches(1, seed=5), config, lr=0.1)
    train_epoch(twin, other, batches(1, seed=5), config, lr=0.1)
    assert torch.equal(whole, other)


def test_no_batch_trains_nothing() -> None:
    module = network()
    whole = bound(module)
    before = whole.detach().clone()
    assert train_epoch(module, whole, [], CONFIG, lr=0.1) == 0.0
    assert torch.equal(whole, before)


def test_training_that_diverges_gives_a_loss_that_is_not_finite() -> None:
    module = network()
    assert not math.isfinite(train_epoch(module, bound(module), batches(), CONFIG, lr=1e38))


@pytest.mark.parametrize("decay", ["all", "weights"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_an_epoch_is_torchs_own_optimizer_with_decay_where_it_is_asked_for(optimizer: str, decay: str) -> None:
    changes: dict[str, Any] = {"optimizer": optimizer, "decay": decay, "momentum": 0.8, "weight_decay": 0.3}
    config = TrainingConfig(batch_size=8, grad_clip=0.0, bn_images=32, **changes)
    ours, theirs = network(), network()
    train_epoch(ours, bound(ours), batches(), config, lr=0.01)
    plain = [p for p in theirs.parameters() if p.ndim > 1]
    rest = [p for p in theirs.parameters() if p.ndim <= 1]
    groups = [{"params": plain}, {"params": rest, **({"weight_decay": 0.0} if decay == "weights" else {})}]
    reference: Any = torch.optim.SGD if optimizer == "sgd" else torch.optim.AdamW
    options = {"momentum": 0.8} if optimizer == "sgd" else {}
    steps = reference(groups, lr=0.01, weight_decay=0.3, **options)
    for batch in batches():
        steps.zero_grad()
        cross_entropy(theirs(batch.inputs), batch).backward()
        steps.step()
    for (name, own), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-7, msg=name)
    assert rest and plain


@pytest.mark.parametrize(("bn_images", "tracked"), [(0, True), (32, False)])
def test_running_statistics_are_tracked_only_where_they_are_used(bn_images: int, tracked: bool) -> None:
    module = network()
    train_epoch(module, bound(module), batches(), TrainingConfig(bn_images=bn_images), lr=0.1)
    assert bool(module[1].running_mean.any()) == tracked


def test_bf16_runs_on_cpu_and_keeps_float32_weights() -> None:
    config = TrainingConfig(precision="bf16", bn_images=32)
    module, exact = network(), network()
    whole = bound(module)
    loss = train_epoch(module, whole, batches(), config, lr=0.05)
    assert loss == pytest.approx(train_epoch(exact, bound(exact), batches(), CONFIG, lr=0.05), rel=0.05)
    assert whole.dtype == torch.float32
    recompute_batch_norm(module, batches(), config, CPU)
    assert module[1].running_mean.dtype == torch.float32
    assert [len(out) for out, _ in outputs(module, batches(), config.precision, CPU)] == [8] * 4
    assert any(not torch.equal(a, b) for a, b in zip(module.parameters(), exact.parameters(), strict=True))


# --- BatchNorm ---


def test_recomputed_statistics_are_those_of_torchs_own_average_without_its_read_back() -> None:
    module, theirs = network(), network()
    recompute_batch_norm(module, batches(), CONFIG, CPU)
    for norm in theirs.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
            norm.momentum = None  # reads ``num_batches_tracked`` on the host: a stall per layer and batch on a GPU
    with torch.no_grad():
        for images, _ in batches():
            theirs(images)
    for name, buffer in module.state_dict().items():
        assert torch.equal(buffer, theirs.state_dict()[name]), name
    assert all(norm.momentum is not None for norm in module.modules() if isinstance(norm, nn.BatchNorm2d))


def test_recomputed_statistics_are_cumulative_averages_over_the_batches() -> None:
    module = network()
    with torch.no_grad():  # the previous state does not matter
        module[1].running_mean.fill_(7.0)
        module[4].running_var.fill_(9.0)
    seen: dict[int, list[Tensor]] = {1: [], 4: []}
    for i in seen:
        module[i].register_forward_pre_hook(lambda m, inputs, i=i: seen[i].append(inputs[0].clone()))
    recompute_batch_norm(module, batches(), CONFIG, CPU)
    for i, inputs in seen.items():
        assert len(inputs) == 4
        means = np.mean([x.numpy().mean(axis=(0, 2, 3), dtype=np.float64) for x in inputs], axis=0)
        variances = np.mean([x.numpy().astype(np.float64).var(axis=(0, 2, 3), ddof=1) for x in inputs], axis=0)
        np.testing.assert_allclose(module[i].running_mean.numpy(), means, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(module[i].running_var.numpy(), variances, rtol=1e-5)
        assert int(module[i].num_batches_tracked) == 4


def test_recomputing_twice_gives_the_same() -> None:
    module = network()
    recompute_batch_norm(module, batches(), CONFIG, CPU)
    once = copy.deepcopy(module.state_dict())
    recompute_batch_norm(module, batches(), CONFIG, CPU)
    assert all(torch.equal(once[name], tensor) for name, tensor in module.state_dict().items())


def test_recomputing_changes_no_weight_and_needs_no_gradient() -> None:
    module = network()
    before = [p.detach().clone() for p in module.parameters()]
    recompute_batch_norm(module, batches(), CONFIG, CPU)
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    assert all(p.grad is None for p in module.parameters())


# --- accuracy ---


def test_outputs_come_in_evaluation_mode_with_the_running_statistics_one_batch_at_a_time() -> None:
    module = network()
    recompute_batch_norm(module, batches(), CONFIG, CPU)
    asked: list[int] = []

    def given() -> Iterator[Batch]:
        for number, batch in enumerate(batches(2)):
            asked.append(number)
            yield batch

    found = outputs(module.train(), given(), CONFIG, CPU)
    first, targets = next(found)
    assert asked == [0], "memory holds one batch"
    assert not module.training and not first.requires_grad
    batch = batches(2)[0]
    assert torch.equal(first, module(batch.inputs)) and torch.equal(targets, batch.targets)


# --- global state ---


def test_first_weights_depend_on_the_seed_and_leave_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    weights, without_storage = initial_weights(network_without_seed, 5)
    again, _ = initial_weights(network_without_seed, 5)
    other, _ = initial_weights(network_without_seed, 6)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert list(weights) == [name for name, _ in without_storage.named_parameters()]
    assert all(p.is_meta for p in without_storage.parameters())
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert not all(torch.equal(weights[name], other[name]) for name in weights)


def network_without_seed() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_is_put_back(threads: int) -> None:
    before = torch.get_num_threads()
    with fixed_threads(threads):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == before
    with pytest.raises(RuntimeError, match="inside"), fixed_threads(threads + 1):
        raise RuntimeError("inside")
    assert torch.get_num_threads() == before
