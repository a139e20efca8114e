"""Distillation of hidden states: the outputs of the layers that a network and its teacher both have."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.spaces.base import HasHiddenStates


class Hidden:
    """Hidden states of the latest forward passes of a network and its teacher.

    Args:
        network: The network; it and the teacher keep their latest hidden states from now on.
        teacher: Its teacher.

    Raises:
        ConfigError: One of them has no hidden states, or they have none of the same name.
    """

    def __init__(self, network: nn.Module, teacher: nn.Module) -> None:
        self._own, self._taught = _states_of(network, "the network"), _states_of(teacher, "the teacher")
        self._names = sorted(self._own.keys() & self._taught.keys())
        if not self._names:
            raise ConfigError(
                "retraining.teacher_hidden: network and teacher have no layer in common; set it to 0, or choose "
                "another teacher"
            )

    def loss(self) -> Tensor:
        """Return the mean over common layers of the squared error between hidden states, padding included.

        Raises:
            ConfigError: They differ in shape.
        """
        pairs = [(self._own[name], self._taught[name]) for name in self._names]
        for own, taught in pairs:
            if own.shape != taught.shape:
                raise ConfigError(
                    f"retraining.teacher_hidden: hidden states have shape {tuple(own.shape)}, those of the teacher "
                    f"{tuple(taught.shape)}; set it to 0, or choose a teacher of the same width"
                )
        return torch.stack([mse_loss(own.float(), taught.float()) for own, taught in pairs]).mean()


def _states_of(network: nn.Module, who: str) -> dict[str, Tensor]:
    """Return a dictionary that always holds the outputs of the latest forward pass."""
    if not isinstance(network, HasHiddenStates):
        raise ConfigError(
            f"retraining.teacher_hidden: {who} has no hidden states (only networks of space bert have); set it to 0"
        )
    states: dict[str, Tensor] = {}
    for name, module in network.hidden_states().items():
        states[name] = torch.empty(0)
        module.register_forward_hook(partial(_keep, states, name))
    return states


def _keep(states: dict[str, Tensor], name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
    states[name] = output
