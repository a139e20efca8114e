"""Contract of what deploy networks offer to retraining: dropped paths, auxiliary head. Part of ``SpaceContract``."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.spaces.base import DropsPaths, SpaceSpec, TakesAuxiliaryHead
from ddpnas_ray.spaces.inherit import inherited
from ddpnas_ray.spaces.target import Inputs, Target


class RetrainingContract:
    """Tests of deploy networks in training mode; what a network does not offer is not tested."""

    target: Target
    inputs: ClassVar[Inputs]

    def batch(self, n: int, inputs: Inputs) -> Any:
        """Return a batch of ``n`` random examples."""
        raise NotImplementedError

    @pytest.fixture
    def alpha_E(self, spec: SpaceSpec) -> IntArray:
        """Return the most probable architecture at the start of a search."""
        exists_EK = spec.space.exists_EK
        return spec.argmax(exists_EK / np.sum(exists_EK, axis=1, keepdims=True), exists_EK)

    @pytest.fixture
    def deployed(self, spec: SpaceSpec, alpha_E: IntArray) -> nn.Module:
        """Return that architecture's deploy network."""
        return spec.deploy(alpha_E, self.target)

    def test_inherited_weights_fit_the_deploy_network(
        self, spec: SpaceSpec, alpha_E: IntArray, deployed: nn.Module
    ) -> None:
        tensors = {name: p.detach().numpy() for name, p in spec.supernet(self.inputs).named_parameters()}
        values, share = inherited(spec, alpha_E, self.target, self.inputs, tensors)
        parameters = dict(deployed.named_parameters())
        assert {name: value.shape for name, value in values.items()} == {
            name: parameters[name].shape for name in values
        }
        assert share * sum(p.numel() for p in parameters.values()) == pytest.approx(
            sum(v.size for v in values.values())
        )
        deployed.load_state_dict({name: torch.from_numpy(value) for name, value in values.items()}, strict=False)

    def test_dropped_paths_change_training_alone(self, deployed: nn.Module) -> None:
        if not isinstance(deployed, DropsPaths):
            return
        assert deployed.drop_path == 0
        x = self.batch(4, self.target.inputs)
        with torch.no_grad():
            before = deployed.eval()(x)
            deployed.drop_path = 0.5
            assert torch.equal(deployed(x), before)
            assert deployed.train()(x).shape == before.shape
            deployed.drop_path = torch.tensor(0.5)  # as in a compiled network
            assert deployed.train()(x).shape == before.shape

    def test_an_auxiliary_head_changes_training_alone(self, deployed: nn.Module) -> None:
        if not isinstance(deployed, TakesAuxiliaryHead):
            return
        x, plain = self.batch(4, self.target.inputs), list(deployed.state_dict())
        with torch.no_grad():
            before = deployed.eval()(x)
            try:
                deployed.add_auxiliary_head()
            except ConfigError as error:
                assert "retraining.auxiliary" in str(error)
                return
            assert torch.equal(deployed(x), before)
            outputs, auxiliary = deployed.train()(x)
        assert outputs.shape == auxiliary.shape == before.shape
        assert [name for name in deployed.state_dict() if not name.startswith("auxiliary.")] == plain
