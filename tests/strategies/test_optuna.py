"""Optuna's TPE as a strategy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.core.requests import EvalRequest, EvalResult
from ddpnas_ray.experiment.config import load
from ddpnas_ray.spaces.cell import space as cell
from ddpnas_ray.spaces.nasbench201 import space as nasbench201
from ddpnas_ray.strategies import optuna as module
from ddpnas_ray.strategies.optuna import Optuna
from ddpnas_ray.testing.strategy_contract import Make, StrategyContract, search


class TestContract(StrategyContract):
    @pytest.fixture(params=[(1, 3, False), (3, 4, True)], ids=["one at a time", "three, multivariate"])
    def make(self, request: Any) -> Make:
        batch, initial, multivariate = request.param

        def made(evaluations: int) -> Optuna:
            return Optuna(evaluations=evaluations, batch=batch, initial=initial, multivariate=multivariate)

        return made


def additive(request: EvalRequest) -> EvalResult:
    return EvalResult(float(np.mean(request.alpha_E)) / 5.0, 0.0)


def test_it_learns() -> None:
    space = nasbench201.make().space
    means = []
    for seed in range(4):
        rows = search(Optuna(evaluations=40), space, seed, additive).states[-1].evaluations
        means.append(np.mean([row.score for row in rows[25:]]) - np.mean([row.score for row in rows[:10]]))
    assert min(means) > 0.05


def test_no_architecture_is_proposed_twice_in_a_batch_or_later() -> None:
    space = nasbench201.make().space
    rows = search(Optuna(evaluations=40, batch=4, initial=5), space, 0, additive).states[-1].evaluations
    assert len({row.alpha_E for row in rows}) == 40


def test_in_the_cell_space_it_proposes_what_could_be_generated() -> None:
    space = cell.make(nodes=2).space
    rows = search(Optuna(evaluations=15, initial=3), space, 0, additive).states[-1].evaluations
    none = [k for k, op in enumerate(cell.OPS) if not op.generable]
    for row in rows:
        for block in space.blocks:
            assert sum(row.alpha_E[e] not in none for e in block) == space.inputs


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INSTALLED", False)
    config = load(None, ["strategy=optuna"])
    from ddpnas_ray.experiment.config import make_strategy

    with pytest.raises(ConfigError, match=r"needs the package optuna: pip install \"ddpnas-ray\[optuna\]\""):
        make_strategy(config, nasbench201.make().space)
    assert replace(config, seed=1).strategy == "optuna"
