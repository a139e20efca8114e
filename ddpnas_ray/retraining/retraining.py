"""A retraining: one architecture, its data and its recipe. Loaded without torch; picklable, for Ray workers."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ddpnas_ray.core.errors import ConfigError, DataError
from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.experiment.config import SearchConfig
from ddpnas_ray.retraining.choice import Chosen
from ddpnas_ray.tasks.base import Task, find_task

if TYPE_CHECKING:
    from torch import nn

Tensors = Mapping[str, npt.NDArray[Any]]
_WEIGHTS = 0x494E4954  # generator key of the initial weights


@dataclass(frozen=True)
class Teacher:
    """Network to distil from: a retrained one with its weights, or a function ``module:function`` that makes it.

    Args:
        chosen: Architecture of a retrained network.
        tensors: Its weights.
        function: The function, else.
        folder: Name of its folder below ``RUN/retrained``.
        fingerprint: Of its weights.
    """

    chosen: Chosen | None = None
    tensors: Tensors = field(default_factory=dict)
    function: str = ""
    folder: str = ""
    fingerprint: str = ""

    @property
    def name(self) -> str:
        """The label of its network, or the function."""
        return self.function if self.chosen is None else self.chosen.label

    def json(self) -> dict[str, str | None]:
        """Return what ``network.json`` and ``result.json`` say of it."""
        return {"name": self.name, "folder": self.folder or None, "fingerprint": self.fingerprint}

    def module(self) -> nn.Module:
        """Build it, in evaluation mode.

        Raises:
            ConfigError: The function cannot be imported or fails, or returns no torch module.
        """
        from torch import nn

        if self.chosen is None:
            module, _, name = self.function.partition(":")
            try:
                made = getattr(importlib.import_module(module), name)()
            except Exception as error:  # of code that is the user's
                raise ConfigError(
                    f"retraining.teacher: {self.function}: {type(error).__name__}: {error}; give module:function, a "
                    "function without arguments that returns a Module"
                ) from error
            if not isinstance(made, nn.Module):
                raise ConfigError(f"retraining.teacher: {self.function} returned {type(made).__name__}, not a Module")
        else:
            made = deploy_network(self.chosen, self.tensors)
        return made.eval().requires_grad_(False)


@dataclass(frozen=True)
class Retraining:
    """One architecture, its data and its recipe.

    Args:
        config: The configuration; its section ``retraining`` is the recipe.
        chosen: The architecture.
        task: The recipe's task.
        digest: SHA-256 of the data, as of the search's task.
        inherited: Initial values of parameters from a supernet, by name.
        inherited_share: Fraction of the parameters that they are.
        teacher: Network to distil from.
        run: Folder and fingerprint of the search; empty: none was given.
    """

    config: SearchConfig
    chosen: Chosen
    task: Task
    digest: str
    inherited: Tensors = field(default_factory=dict)
    inherited_share: float = 0.0
    teacher: Teacher | None = None
    run: Mapping[str, str] = field(default_factory=dict)

    @property
    def seeds(self) -> list[int]:
        """The seeds of its trainings."""
        return [self.config.seed + i for i in range(self.config.retraining.seeds)]

    def network(self, seed: int) -> nn.Module:
        """Build the network with the recipe's head and initial weights, which depend on the seed only.

        Raises:
            ConfigError: Networks of the space have no auxiliary head, or no drop-path.
        """
        import torch

        recipe, space = self.config.retraining, self.chosen.space["name"]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng_for(seed, _WEIGHTS).integers(2**63)))
            network = deploy_network(self.chosen)
            if recipe.auxiliary:
                if not hasattr(network, "add_auxiliary_head"):
                    raise ConfigError(
                        f"retraining.auxiliary is {recipe.auxiliary:g}; networks of space {space} have no auxiliary "
                        "head: set it to 0"
                    )
                network.add_auxiliary_head()  # type: ignore[operator]
        if recipe.drop_path and not hasattr(network, "drop_path"):
            raise ConfigError(
                f"retraining.drop_path is {recipe.drop_path:g}; networks of space {space} drop no paths: set it to 0"
            )
        parameters = dict(network.named_parameters())
        with torch.no_grad():
            for name, values in self.inherited.items():
                parameters[name].copy_(torch.from_numpy(np.array(values)))
        return network


def prepare_task(config: SearchConfig) -> tuple[Task, Task]:
    """Load the data of a configuration: the search's task, and the recipe's.

    Raises:
        BadInput: The data are not what the configuration says.
        ConfigError: The task cannot be retrained.
    """
    task = find_task(config.task.name)(config.data, config.seed, **config.task.options)
    for name in ("for_retraining", "on_test"):
        if not hasattr(task, name):
            raise ConfigError(f"task {config.task.name} has no {name}(), which retraining needs (docs/own-task.md)")
    return task, task.for_retraining(config.retraining)


def check_fits(chosen: Chosen, task: Task) -> None:
    """Check that the network takes the task's examples and has its outputs.

    Raises:
        ConfigError: It does not.
    """
    wanted, given = chosen.target.inputs, task.inputs
    if not wanted.takes(given):
        raise ConfigError(
            f"network {chosen.label} is for inputs of {wanted}, but the data have {given}; set target.image_size, "
            "target.sequence_length and target.classes to null, or change the size of the data to the network's"
        )


def deploy_network(chosen: Chosen, tensors: Tensors | None = None) -> nn.Module:
    """Build an architecture's deploy network, with weights if given (its state dict, as arrays)."""
    spec = chosen.spec
    network = spec.deploy(spec.encode(dict(chosen.genotype)), chosen.target)
    if tensors is not None:
        import torch

        network.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in tensors.items()})
    return network


def read_test(task: Task) -> tuple[Task | None, str]:
    """Read the test examples: the task on them, or None and the reason, which must not cost the trained network."""
    try:
        return task.on_test(), ""
    except DataError as error:
        return None, str(error)
