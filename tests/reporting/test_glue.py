"""The paper's Table 5 next to a network of ours."""

from __future__ import annotations

from typing import Any

import pytest

from ddpnas_ray.reporting.glue import TABLE_5, TASKS, table_5

PRINTED = {"BERT base": 81.7, "LayerDrop": 77.8, "DistilBERT": 78.6, "BERT-PKD": 78.2, "DDPNAS (paper)": 80.4}


def result(**by_split: dict[str, float]) -> dict[str, Any]:
    scores = [
        {"split": split, "by_task": by_task, "weights": "inherited (100% of the parameters), then trained"}
        for split, by_task in by_split.items()
    ]
    return {"scores": scores, "costs": {"params": 64_200_000}}


def test_the_rows_are_those_of_the_paper() -> None:
    rows = table_5(result(val=dict.fromkeys(TASKS, 0.5)))
    assert rows[0] == ["network", "params", "SST-2", "MRPC", "CoLA", "RTE", "MNLI", "QQP", "QNLI", "average"]
    assert rows[1][1:] == ["64.2M", *["50.0"] * 8]
    assert len(rows) == 2 + len(TABLE_5)
    averages = {row[0]: row[-1] for row in rows[2:]}
    for name, printed in PRINTED.items():
        assert float(averages[name]) == pytest.approx(printed, abs=0.06)
    assert averages["PD-BERT"] == "-"  # no CoLA


def test_columns_are_the_tasks_of_the_network_and_test_comes_before_val() -> None:
    rows = table_5(result(val={"cola": 0.1, "sst2": 0.7}, test={"cola": 0.2, "sst2": 0.8}))
    assert rows[0] == ["network", "params", "SST-2", "CoLA", "average"]
    assert rows[1][2:] == ["80.0", "20.0", "50.0"]
    assert rows[1][0].startswith("this network (test, inherited")
    assert rows[2][2:] == ["92.7", "54.3", "73.5"]


@pytest.mark.parametrize("scores", [{}, {"val": {"reviews": 0.9}}])
def test_other_tasks_have_no_such_table(scores: dict[str, dict[str, float]]) -> None:
    assert table_5(result(**scores)) == []
