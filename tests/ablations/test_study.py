"""An ablation is one file: found by listing the folder, or as ``module:function``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddpnas_ray import ablate, ablations
from ddpnas_ray.ablations.study import ABLATIONS, Look, find, plan
from ddpnas_ray.experiment.config import load
from tests.commands import options, run
from tests.score_tables import write_table

TOURNAMENT = '''
"""Tournament sizes of evolution."""

from ddpnas_ray.ablations.outcomes import measure_label
from ddpnas_ray.ablations.study import Searches
from ddpnas_ray.ablations.variants import Variant, numbers, varied
from ddpnas_ray.reporting.ablation_plots import compared


def ablation():
    return Searches(
        help="tournament sizes of evolution",
        description="How large a tournament is best?",
        title="Tournaments",
        variants=variants,
        figures=figures,
        add_options=lambda parser: parser.add_argument("--sizes", default="2,5", help="sizes (2,5)"),
        value_column="size",
    )


def variants(config, arguments):
    found = []
    for size in numbers("--sizes", arguments["sizes"]):
        changes = {"strategy": "evolution", "evolution.tournament": size}
        found.append(Variant(f"size={size}", size, varied(config, changes, "--sizes")))
    return found


def figures(study, rows, title):
    groups = [(row.variant.label, row.values()) for row in rows]
    return compared(title, measure_label(rows[0]), groups, "one dot per seed")
'''


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / "tournament.py").write_text(TOURNAMENT)
    yield folder
    for name in ("tournament", "ddpnas_ray.ablations.tournament"):
        sys.modules.pop(name, None)


def by_table(tmp_path: Path) -> list[str]:
    table = write_table(tmp_path / "made.parquet")
    keys = ("space={name: nasbench201}", "evaluation.kind=table", f"evaluation.table={table}", "target={cells: 5}")
    return options(*keys, "execution.backend=local")


def test_the_ablations_are_the_files_that_define_one() -> None:
    names = ("correlation", "gamma", "interval", "noprune", "operation", "strategies", "theta", "topology")
    assert ABLATIONS.names() == names
    assert {name for name in names if isinstance(find(name), Look)} == {"operation", "theta", "topology"}


def test_a_new_file_is_a_new_ablation_and_nothing_else_changes(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablations, "__path__", [*ablations.__path__, str(lab)])
    assert "tournament sizes of evolution" in run(ablate.main, "--help").out
    said = run(ablate.main, "tournament", *by_table(tmp_path), "--seeds", "2", "--out", tmp_path / "out")
    assert (said.code, said.err) == (0, "")
    assert "| variant | size | seeds |" in said.out
    content = json.loads((tmp_path / "out" / "ablation.json").read_text())
    assert (content["what"], content["arguments"]["sizes"]) == ("tournament", "2,5")
    assert [row["label"] for row in content["summary"]] == ["size=2", "size=5"]


def test_an_ablation_of_ones_own_is_named_by_module_and_function(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(lab)
    out = tmp_path / "out"
    words = ["tournament:ablation", *by_table(tmp_path), "--sizes", "3", "--seeds", "2", "--out", out]
    assert run(ablate.main, *words).code == 0
    again = run(ablate.main, "tournament:ablation", "--out", out, "--resume")
    assert (again.code, "size=3" in again.out) == (0, True)
    refused = run(ablate.main, "tournament:ablatoin")
    assert (refused.code, refused.out) == (2, "")
    assert "has no attribute 'ablatoin'" in refused.err


def test_strategies_are_configured_as_they_are_called(tmp_path: Path) -> None:
    arguments = {"budgets": "36", "only": "noprune,multinomial+prune,reinforce", "seeds": "1"}
    config = load(None, [word for word in by_table(tmp_path) if word != "--set"])
    found = [variant.config for variant in plan("strategies", config, arguments).variants]
    prunes = [[c.strategies[name].prune for name in ("pruning", "multinomial", "reinforce")] for c in found]
    assert [(c.strategy, *prune) for c, prune in zip(found, prunes, strict=True)] == [
        ("pruning", False, False, False), ("multinomial", True, True, False), ("reinforce", True, False, False)
    ]  # fmt: skip
