"""A trained network with all that its files tell: the input of every export."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ddpnas_ray.core.errors import ModelError
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.deploy.interface import Interface
from ddpnas_ray.deploy.kinds.images import Preprocessing as Preprocessing
from ddpnas_ray.spaces.base import SpaceSpec
from ddpnas_ray.spaces.target import Target

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram


@dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """A network in deploy form with its weights.

    Args:
        spec: Its space.
        alpha_E: Its architecture.
        target: Its size and inputs, and number of outputs.
        tensors: The state of ``spec.deploy(alpha_E, target)`` by name, BatchNorm statistics included.
        preprocessing: How its inputs are prepared, and what its outputs mean.
        facts: Plain JSON for the model card; all optional but ``name``. ``space``; ``costs``: {name: number};
            ``scores``: [{"split", "metric", "value", "weights", "seeds", "mean", "std"}], ``value`` of these weights,
            ``mean`` and ``std`` over the seeds; ``search``: {"strategy", "architecture_epochs", "fingerprint",
            "score"}, empty if none found it; ``data``: name of the data set; ``recipe``: how it was trained.

    Raises:
        ConfigError: The target is not for the inputs, or has another number of outputs.
    """

    spec: SpaceSpec
    alpha_E: IntArray
    target: Target
    tensors: Mapping[str, np.ndarray]
    preprocessing: Interface
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.preprocessing.check_target(self.target)

    @property
    def name(self) -> str:
        """Name of the model on its card; that of the space if ``facts`` have none."""
        return str(self.facts.get("name") or self.spec.space.name)

    @property
    def genotype(self) -> dict[str, Any]:
        """The decoded architecture, plain JSON."""
        return self.spec.decode(self.alpha_E)

    @property
    def metadata(self) -> dict[str, str]:
        """What every file with weights carries: preprocessing and genotype as JSON texts."""
        return {**self.preprocessing.to_metadata(), "genotype": json.dumps(self.genotype)}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of an example: (C, H, W), or (most tokens,)."""
        return self.target.inputs.shape

    @property
    def stock(self) -> dict[str, Any] | None:
        """Its configuration in transformers, if that has the architecture itself; see ``SpaceSpec.stock``."""
        return self.spec.stock(self.alpha_E, self.target)

    def module(self) -> nn.Module:
        """Build the network with its weights, in eval mode on the CPU.

        Raises:
            ModelError: The tensors are not those of the network.
        """
        import torch

        network = self.spec.deploy(self.alpha_E, self.target)
        tensors = {name: torch.from_numpy(np.array(tensor)) for name, tensor in self.tensors.items()}
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            first = " ".join(str(error).split("\n", 2)[1].split()) if "\n" in str(error) else str(error)
            raise ModelError(
                f"{self.name}: the weights are not those of this architecture and target: {first}"
            ) from None
        return network.eval()

    @cached_property
    def program(self) -> ExportedProgram:
        """The network as a graph of torch operations with a free batch size, which ONNX and ``.pt2`` are made from.

        Its example inputs are two blank examples, and it holds no source lines of the machine that exports.

        Raises:
            ExportError: ``torch.export`` cannot trace the network.
        """
        from ddpnas_ray.deploy.program import export

        data = self.preprocessing
        return export(data.positional(self.module()), data.blank(), data.axes, self.name)
