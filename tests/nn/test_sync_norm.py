"""BatchNorm over several processes, each with its share: the same as one process with all of it."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from ddpnas_ray.nn.sync_norm import SharedBatchNorm2d, share_statistics

SHARES = (3, 1, 4)  # examples of each process


def make(momentum: float | None = 0.1, affine: bool = True) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(2, 5, 3, padding=1),
            nn.BatchNorm2d(5, momentum=momentum, affine=affine),
            nn.ReLU(),
            nn.Conv2d(5, 4, 1),
            nn.BatchNorm2d(4, momentum=momentum),
        )
        if affine:
            nn.init.uniform_(net[1].weight)
            nn.init.uniform_(net[1].bias)
    return net


def examples() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = 5 + 3 * torch.randn(sum(SHARES), 2, 4, 6, generator=generator)  # far from zero
    return x, torch.randn(sum(SHARES), 4, 4, 6, generator=generator)


def step(net: nn.Module, x: Tensor, wanted: Tensor) -> dict[str, Tensor]:
    """Outputs, gradients of the sum of squared errors, and buffers, after two steps."""
    for _ in range(2):
        net.zero_grad()
        given = x.clone().requires_grad_()
        outputs = net(given)
        (outputs - wanted).square().sum().backward()
    assert given.grad is not None
    found = {"outputs": outputs.detach(), "input": given.grad}
    found |= {f"grad/{name}": p.grad for name, p in net.named_parameters() if p.grad is not None}
    return found | {f"buffer/{name}": b for name, b in net.named_buffers()}


def _worker(rank: int, port: int, folder: str, options: dict[str, Any]) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=len(SHARES))
    torch.set_num_threads(1)
    net = make(**options)
    share_statistics(net, "cpu")
    x, wanted = (whole.split(list(SHARES))[rank] for whole in examples())
    torch.save(step(net.train(), x, wanted), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
    os._exit(0)  # Gloo's threads live on and may release a tensor while Python shuts down


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"momentum": None}, {"affine": False}], ids=["plain", "cumulative", "no_affine"]
)
def test_processes_with_a_share_each_do_what_one_does_with_all(tmp_path: Path, options: dict[str, Any]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_worker, (port, str(tmp_path), options), nprocs=len(SHARES))
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(len(SHARES))]
    whole = step(make(**options).train(), *examples())
    assert parts[0].keys() == whole.keys()
    for name, expected in whole.items():
        if name.startswith("buffer/"):
            for part in parts:
                torch.testing.assert_close(part[name], expected, rtol=1e-5, atol=1e-5)
            continue
        found = [part[name] for part in parts]
        joined = sum(found[1:], found[0]) if name.startswith("grad/") else torch.cat(found)
        torch.testing.assert_close(joined, expected, rtol=1e-4, atol=1e-3 if name.startswith("grad/") else 1e-4)


def test_names_and_values_stay_and_alone_it_is_batch_norm() -> None:
    net, shared = make(), make()
    share_statistics(shared, "cpu")
    assert [type(module) for module in shared].count(SharedBatchNorm2d) == 2
    assert list(shared.state_dict()) == list(net.state_dict())
    for one, other in zip(
        step(net.train(), *examples()).values(), step(shared.train(), *examples()).values(), strict=True
    ):
        assert torch.equal(one, other)
    x, _ = examples()
    assert torch.equal(net.eval()(x), shared.eval()(x))


def test_for_gpus_they_are_torchs_own() -> None:
    shared = make()
    share_statistics(shared, "cuda")
    assert [type(module) for module in shared].count(nn.SyncBatchNorm) == 2
    assert list(shared.state_dict()) == list(make().state_dict())
