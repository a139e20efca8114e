"""What is known of a GPU without one: fake CUDA tensors, and whole training steps on the meta device.

Fake tensors know device, shape and type, and refuse to be read or mixed with others. They have no backward pass, which
the meta device has: operations and saved bytes of a step are counted there, as guards against slower code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ddpnas_ray.core.sampling import disjoint_sample, rng_for
from ddpnas_ray.core.state import initial_state
from ddpnas_ray.nn.kernels.fast import accelerate
from ddpnas_ray.nn.weights import Layout, Piece, bind
from ddpnas_ray.spaces.base import SpaceSpec
from ddpnas_ray.spaces.cell import space as cell
from ddpnas_ray.spaces.mobile import space as mobile
from ddpnas_ray.spaces.nasbench201 import space as nasbench201
from ddpnas_ray.spaces.target import Inputs
from ddpnas_ray.tasks.base import Batch
from ddpnas_ray.training.config import TrainingConfig
from ddpnas_ray.training.epoch import optimizer_step, outputs, recompute_batch_norm, train_epoch

SPACES = {"cell": cell.make(), "mobile": mobile.make(), "nasbench201": nasbench201.make()}
CIFAR = Inputs(shape=(3, 32, 32), outputs=10)
SMALL = {  # every kind of cell and block, once
    "cell": cell.make(cells=3, nodes=2),
    "mobile": mobile.make(depths=(1,) * 6),
    "nasbench201": nasbench201.make(cells=1),
}
BATCH = 8


def architectures(spec: SpaceSpec) -> list[Any]:
    """An epoch's: together they use every candidate."""
    start = initial_state(spec.space, 0)
    return list(disjoint_sample(start.theta_EK, start.live_EK, rng_for(0, 0, 0)))


def bound(spec: SpaceSpec, alpha_E: Any, device: str) -> tuple[nn.Module, nn.Parameter, Layout]:
    with torch.device(device):
        network = spec.build(alpha_E, CIFAR)
        layout = Layout.of(Piece(name, tuple(p.shape)) for name, p in network.named_parameters())
        return network, bind(network, layout, torch.zeros(layout.size)), layout


def a_batch(device: str) -> Batch:
    images = torch.zeros(BATCH, *CIFAR.shape, device=device).contiguous(memory_format=torch.channels_last)
    return Batch(images, torch.zeros(BATCH, dtype=torch.int64, device=device))


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(logits, batch.targets)


# --- fake CUDA tensors ---


@pytest.fixture
def fake() -> Iterator[None]:
    with FakeTensorMode():
        yield


@pytest.mark.parametrize("name", list(SPACES))
def test_every_operation_trains_and_scores_on_the_gpu_alone_and_reads_nothing_from_it(name: str, fake: None) -> None:
    spec, config, batch = SMALL[name], TrainingConfig(decay="weights"), a_batch("cuda")
    for alpha_E in architectures(spec):
        network, whole, layout = bound(spec, alpha_E, "cuda")
        update = optimizer_step(whole, layout, config, 0.1, fused=False)
        network.train()
        loss = cross_entropy(network(batch.inputs), batch)
        assert loss.device.type == "cuda" and loss.requires_grad
        for _ in range(2):  # the second step has a momentum
            nn.utils.clip_grad_norm_([whole], config.grad_clip)
            update()
        recompute_batch_norm(network, [batch] * 2, config, torch.device("cuda"))
        ((found, _),) = outputs(network, [batch], "fp32", torch.device("cuda"))
        assert found.device.type == "cuda" and found.shape == (BATCH, 10)
        assert all(tensor.device.type == "cuda" for tensor in network.state_dict().values())


def test_the_fake_gpu_notices_reading_and_mixing(fake: None) -> None:
    network, _, _ = bound(SPACES["cell"], architectures(SPACES["cell"])[0], "cuda")
    with pytest.raises(RuntimeError, match="device"):
        network(a_batch("cpu").inputs)
    with pytest.raises(DataDependentOutputException):
        float(network(a_batch("cuda").inputs).sum())
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None  # type: ignore[assignment]  # torch then reads the number of batches
    with pytest.raises(DataDependentOutputException):
        network.train()(a_batch("cuda").inputs)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_fused_optimizers_are_made_for_recording(optimizer: Any) -> None:
    """Their kernels need a GPU, but not their options."""
    made: list[dict[str, Any]] = []
    kind = torch.optim.SGD if optimizer == "sgd" else torch.optim.AdamW
    whole = nn.Parameter(torch.zeros(16))
    layout = Layout.of([Piece("weight", (4, 4))])
    config = TrainingConfig(optimizer=optimizer)
    for fused in (True, False):
        update: Any = optimizer_step(whole, layout, config, 0.1, fused=fused)
        assert isinstance(update.__self__, kind)
        made.append(update.__self__.defaults)
    assert bool(made[0]["fused"]) and not made[1]["fused"]
    if optimizer == "adamw":
        assert made[0]["capturable"] and not made[1]["capturable"], "its number of steps stays on the GPU"


# --- whole steps on the meta device ---


class Counting(TorchDispatchMode):
    """Counts operations that compute; views and allocations cost nothing."""

    FREE = ("view", "detach", "empty", "as_strided", "alias", "slice", "t", "permute", "select", "split", "expand")

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if not name.strip("_").startswith(self.FREE) and name not in ("transpose", "unsqueeze", "squeeze"):
            self.count[name] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def saving(whole: nn.Parameter) -> Iterator[dict[int, int]]:
    """Collect the storages that autograd saves, weights apart: bytes by storage."""
    kept: list[Tensor] = []
    found: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata != whole.untyped_storage()._cdata:
            kept.append(tensor)  # so that no storage is mistaken for another
            found[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield found


def step_of(spec: SpaceSpec, alpha_E: Any, device: str, *, fast: bool = False) -> tuple[Counter[str], int]:
    """Return operations, and bytes saved for one image, of a step of ``train_epoch`` that is not the first."""
    network, whole, layout = bound(spec, alpha_E, device)
    if fast:
        accelerate(network)
    counting, saved = Counting(), 0

    def recorded(step: Callable[[Batch], Any]) -> Callable[[Batch], Any]:
        def run(batch: Batch) -> None:
            nonlocal saved
            counting.count.clear()
            with counting, saving(whole) as found:
                step(batch)
            saved = sum(found.values())

        return run

    arguments = (network, whole, layout, [a_batch(device)] * 2, cross_entropy, TrainingConfig(), 0.1, recorded)
    if device == "meta":
        with pytest.raises(RuntimeError, match="meta"):  # all but reading the loss
            train_epoch(*arguments)
    else:
        train_epoch(*arguments)
    return counting.count, saved // BATCH


def mean_step(name: str, device: str, *, fast: bool = False) -> tuple[float, float]:
    spec = SPACES[name]
    found = [step_of(spec, alpha_E, device, fast=fast) for alpha_E in architectures(spec)[:2]]
    operations, saved = zip(*((sum(count.values()), saved) for count, saved in found), strict=True)
    return float(np.mean(operations)), float(np.mean(saved)) / 2**10


@pytest.mark.parametrize(
    ("name", "operations", "kibibytes"), [("cell", 830, 9600), ("mobile", 630, 1620), ("nasbench201", 375, 3870)]
)
def test_a_step_has_no_more_operations_and_saves_no_more_bytes(name: str, operations: int, kibibytes: int) -> None:
    """Means over two architectures, with ``training.kernels: reference``, as on GPUs; KiB for one image."""
    found, saved = mean_step(name, "meta")
    assert 0.95 * operations < found <= operations
    assert 0.95 * kibibytes < saved <= kibibytes


def test_fast_kernels_have_no_more_operations_and_save_no_more_bytes() -> None:
    """They run on CPUs only."""
    found, saved = mean_step("cell", "cpu", fast=True)
    assert 0.95 * 1260 < found <= 1260
    assert 0.95 * 9400 < saved <= 9400
