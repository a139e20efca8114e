"""Finals of searches on a table: the longer trainings are read from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ddpnas_ray import generate, search
from ddpnas_ray.core.generation.budgets import Bound
from ddpnas_ray.core.generation.problem import evaluate
from ddpnas_ray.experiment.finished import FinishedRun
from ddpnas_ray.finals.candidates import candidates
from ddpnas_ray.runs.files import read_evaluations
from ddpnas_ray.tasks.recipe import FinalsConfig
from tests.commands import options, run
from tests.score_tables import write_table


@pytest.fixture(scope="module")
def by_table(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    table = write_table(tmp_path_factory.mktemp("table") / "made.parquet", long=True)
    keys = ["space={name: nasbench201}", "evaluation.kind=table", f"evaluation.table={table}", "evaluation.budget=40"]
    return options(*keys, "target={cells: 5, channels: 16}", "execution.backend=local")


def result_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize("strategy", ["pruning", "surrogate"])
def test_on_a_table_they_read_the_longer_trainings(strategy: str, by_table: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(search.main, *by_table, *options(f"strategy={strategy}"), "--out", out).code == 0
    said = run(generate.main, out, "--finals", "6")
    assert said.code == 0, said.err
    result = result_of(out / "finals" / "unbounded")
    assert result["rungs"] == [{"networks": 6, "epochs": 12}, {"networks": 3, "epochs": 200}]
    assert result["training_epochs"] == 6 * 12 + 3 * 200
    last = [row["val"][-1] for row in result["networks"] if row["epochs"] == [12, 200]]
    assert len(last) == 3 and last[0] == max(last)
    if strategy == "surrogate":
        found = result_of(out)["alpha"]
        assert found in [row["alpha"] for row in result["networks"]], "the best score of the search takes part"
        assert all(row["search_score"] == row["val"][0] for row in result["networks"])


@pytest.mark.parametrize(
    "keys",
    [
        ["strategy=surrogate", "surrogate={initial: 40, noise: 3.0, result: predicted}"],
        ["strategy=pruning", "pruning={result: predicted}"],
    ],
)
def test_where_the_best_prediction_is_the_result_the_best_predictions_are_the_candidates(
    keys: list[str], by_table: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert run(search.main, *by_table, *options(*keys), "--out", out).code == 0
    finished = FinishedRun.load(str(out))
    found = candidates(finished, {}, FinalsConfig(networks=4))
    assert list(found[0]) == result_of(out)["alpha"]
    scored = {tuple(row.alpha_E) for row in read_evaluations((out / "evaluations.parquet").read_bytes())}
    assert not scored.issuperset(found), "it may be one that was not scored"
    limit = evaluate(finished.problem, found[0])[1]["macs"] - 1
    within = candidates(finished, {"macs": Bound(None, limit)}, FinalsConfig(networks=4))
    assert all(evaluate(finished.problem, alpha)[1]["macs"] <= limit for alpha in within)


def test_a_table_without_longer_trainings_is_refused(tmp_path: Path) -> None:
    table = write_table(tmp_path / "made.parquet")
    keys = ["space={name: nasbench201}", "evaluation.kind=table", f"evaluation.table={table}", "strategy=pruning"]
    out = tmp_path / "run"
    assert run(search.main, *options(*keys, "target={cells: 5, channels: 16}"), "--out", out).code == 0
    said = run(generate.main, out, "--finals", "4")
    assert said.code == 2
    assert "no val column of made has the scores of all networks after more epochs than made_val_e12" in said.err
    assert not (out / "finals").exists()


def test_fewer_networks_than_asked_for_are_said(by_table: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(search.main, *by_table, *options("strategy=surrogate"), "--out", out).code == 0
    said = run(generate.main, out, "--finals", "99")
    assert said.code == 0, said.err
    count = len(result_of(out / "finals" / "unbounded")["networks"])
    assert count <= 40
    assert f"only {count} of 99 networks were found with finals.distance=1" in said.out
