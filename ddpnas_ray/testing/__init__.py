"""Contract tests for search spaces, tasks, strategies and executors, built-in or plug-in.

Import them in a pytest module and derive a class whose name starts with ``Test``.
"""

import pytest

pytest.register_assert_rewrite(
    *(
        f"{__name__}.{name}"
        for name in ("executor_contract", "space_contract", "states", "strategy_contract", "task_contract")
    )
)

from ddpnas_ray.testing.counting import count_bn_relu, count_macs  # noqa: E402
from ddpnas_ray.testing.executor_contract import ExecutorContract, contract_trainer  # noqa: E402
from ddpnas_ray.testing.space_contract import SpaceContract  # noqa: E402
from ddpnas_ray.testing.states import assert_same_state  # noqa: E402
from ddpnas_ray.testing.strategy_contract import StrategyContract, by_architecture, counted_space  # noqa: E402
from ddpnas_ray.testing.task_contract import TaskContract  # noqa: E402

__all__ = [
    "ExecutorContract",
    "SpaceContract",
    "StrategyContract",
    "TaskContract",
    "assert_same_state",
    "by_architecture",
    "contract_trainer",
    "count_bn_relu",
    "count_macs",
    "counted_space",
]
