"""The reference executor."""

from __future__ import annotations

import pytest

from ddpnas_ray.execution.base import Executor
from ddpnas_ray.execution.local import LocalExecutor
from ddpnas_ray.testing import ExecutorContract, contract_trainer


@pytest.fixture
def executor() -> Executor:
    return LocalExecutor(contract_trainer())


class TestLocalExecutor(ExecutorContract):
    pass
