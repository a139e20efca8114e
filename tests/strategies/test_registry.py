"""Strategies are found by name: one file of the folder, or ``module:function``, each with a section of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ddpnas_ray import search, strategies
from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.experiment.config import check, load, set_key, to_dict
from ddpnas_ray.strategies import registry
from ddpnas_ray.strategies.evolution import EvolutionConfig
from tests.commands import options, run
from tests.score_tables import write_table

LUCKY = '''
"""The same architecture again and again, by random search's rules."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from ddpnas_ray.strategies.base import Context, Strategy
from ddpnas_ray.strategies.random import Random


@dataclass(frozen=True, kw_only=True)
class LuckyConfig:
    charm: Annotated[int, Ge(1)] = 7
    """How many architectures an epoch"""


def make(context: Context, section: LuckyConfig) -> Strategy:
    return Random(evaluations=context.evaluations, batch=section.charm)
'''
NEEDY = LUCKY.replace("charm: Annotated[int, Ge(1)] = 7", "charm: int")


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own folder on PYTHONPATH."""
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / "lucky.py").write_text(LUCKY)
    (folder / "needy.py").write_text(NEEDY)
    (folder / "data.py").write_text(LUCKY)
    (folder / "evolution.py").write_text(LUCKY)
    (folder / "plain.py").write_text(LUCKY.replace("section: LuckyConfig", "section: int"))
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in ("lucky", "needy", "data", "evolution", "plain"):
        sys.modules.pop(name, None)


def test_the_built_in_strategies_are_the_files_that_define_make() -> None:
    names = ("evolution", "multinomial", "optuna", "pruning", "random", "reinforce", "surrogate")
    assert registry.STRATEGIES.names() == names
    assert registry.sections()["evolution"] is EvolutionConfig
    assert "random" not in registry.sections(), "it has no options"


def test_a_new_file_is_a_new_strategy_and_nothing_else_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lucky.py").write_text(LUCKY)
    monkeypatch.setattr(strategies, "__path__", [*strategies.__path__, str(tmp_path)])
    try:
        listed = run(search.main, "--keys").out
        assert "lucky.charm                  7          How many architectures an epoch" in listed
        assert "evolution, lucky, multinomial" in listed
        assert "lucky" in registry.variants()
        table = write_table(tmp_path / "table.parquet")
        by_table = options("space.name=nasbench201", "evaluation.kind=table", f"evaluation.table={table}")
        chosen = options("strategy=lucky", "lucky.charm=12", "execution.backend=local")
        said = run(search.main, *by_table, *chosen, "--out", tmp_path / "run")
        assert said.code == 0, said.err
        assert "36 evaluations in 3 epochs" in said.out
    finally:
        sys.modules.pop("ddpnas_ray.strategies.lucky", None)


def test_own_options_are_checked_and_saved(lab: Path) -> None:
    config = check({"strategy": "lucky:make", "lucky": {"charm": 3}}, "a.yaml")
    assert to_dict(config)["lucky"] == {"charm": 3}
    assert check(to_dict(config), "b.yaml") == config
    for values, message in (
        ({"lucky": {"charm": 0}}, "a.yaml: lucky.charm is 0; input should be greater than or equal to 1"),
        ({"lucky": {"chram": 1}}, "a.yaml: lucky.chram is not a key; did you mean lucky.charm?"),
        ({"luky": {}}, "a.yaml: luky is not a key; did you mean lucky?"),
        ({"strategy": "needy:make"}, "a.yaml: needy.charm is missing; section needy needs it"),
    ):
        with pytest.raises(ConfigError) as error:
            check({"strategy": "lucky:make", **values}, "a.yaml")
        assert str(error.value) == message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("data:make", "section name data is already in use; rename the module"),
        ("evolution:make", "section evolution is a built-in strategy's; rename the module"),
        ("plain:make", "a dataclass is needed"),
        ("base", "'base' is not a built-in strategy"),
        ("lucky:luck", "has no attribute 'luck'"),
    ],
)
def test_what_is_not_a_strategy_is_refused(lab: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check({"strategy": name}, "a.yaml")


def test_another_strategy_leaves_the_options_of_ones_own_behind(lab: Path, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("strategy: lucky:make\nlucky: {charm: 3}\nevolution: {population: 5}\n")
    config = load(str(tmp_path / "a.yaml"), ["strategy=random"])
    assert config.strategies.keys() == registry.sections().keys()
    assert config.strategies["evolution"].population == 5
    values = {"strategy": "data:make", "data": {"path": "photos"}}
    set_key(values, "strategy=random")
    assert values == {"strategy": "random", "data": {"path": "photos"}}, "that is no strategy's section"
