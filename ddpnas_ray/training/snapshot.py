"""State of a retraining after an epoch: network, optimiser, moving average and the figures of every epoch so far.

Generators and the schedule need no state: every draw is keyed by seed, epoch and worker, and the learning rate is a
function of the epoch. Of BatchNorm's statistics, which every worker computes from its own examples, those of worker 0
are sent to all at the start of each step and at the end of each epoch, so they are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from ddpnas_ray.tasks.base import Illustrations


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State after ``epoch`` epochs.

    Args:
        epoch: Epochs finished.
        tensors: ``network/<name>``, ``average/<name>`` and ``optimizer/<parameter's number>/<name>``.
        history: One row per epoch: epoch, lr, loss, val and test (fractions or None), seconds, workers, device.
        illustrations: What a report shows of the trained network; None before the last epoch, and for most tasks.
    """

    epoch: int
    tensors: Mapping[str, npt.NDArray[Any]]
    history: tuple[Mapping[str, Any], ...]
    illustrations: Illustrations | None = None


def take(
    epoch: int,
    network: nn.Module,
    optimizer: Optimizer,
    average: AveragedModel | None,
    history: tuple[Mapping[str, Any], ...],
    illustrations: Illustrations | None = None,
) -> Snapshot:
    """Copy the state to the CPU."""
    tensors = {f"network/{name}": tensor for name, tensor in network.state_dict().items()}
    if average is not None:
        tensors |= {f"average/{name}": tensor for name, tensor in average.module.state_dict().items()}
    for number, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{name}": value for name, value in values.items() if value is not None}
    return Snapshot(epoch, {name: _array(tensor) for name, tensor in tensors.items()}, history, illustrations)


def put_back(snapshot: Snapshot, network: nn.Module, optimizer: Optimizer, average: AveragedModel | None) -> None:
    """Load a snapshot into objects made by the same recipe.

    Raises:
        RuntimeError, KeyError: It is of another network or recipe.
    """
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in snapshot.tensors.items()}
    network.load_state_dict(_below(tensors, "network/"))
    if average is not None:
        average.module.load_state_dict(_below(tensors, "average/"))
        average.n_averaged.fill_(1)  # the first update copies, later ones average
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in _below(tensors, "optimizer/").items():
        number, _, key = name.partition("/")
        state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            if value is not None and value.shape == parameter.shape:  # fused kernels need the parameter's memory format
                values[key] = torch.empty_like(parameter).copy_(value)


def result_tensors(snapshot: Snapshot) -> dict[str, npt.NDArray[Any]]:
    """Return the trained network's state dict: the moving average if there is one, without an auxiliary head."""
    of = "average/" if any(name.startswith("average/") for name in snapshot.tensors) else "network/"
    found = {name.removeprefix(of): array for name, array in snapshot.tensors.items() if name.startswith(of)}
    return {name: array for name, array in found.items() if not name.startswith("auxiliary.")}


def _below(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _array(tensor: torch.Tensor) -> npt.NDArray[Any]:
    return tensor.detach().cpu().contiguous().numpy().copy()
