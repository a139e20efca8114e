"""Scores of GLUE's tasks next to the rows of the paper's Table 5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TASKS = {  # by name in the configuration, in the order of the table
    "sst2": "SST-2",
    "mrpc": "MRPC",
    "cola": "CoLA",
    "rte": "RTE",
    "mnli": "MNLI",
    "qqp": "QQP",
    "qnli": "QNLI",
}
TABLE_5: tuple[tuple[str, str, tuple[float | None, ...]], ...] = (  # development set, in percent
    ("BERT base", "110M", (92.7, 89.5, 54.3, 71.1, 83.5, 89.8, 91.2)),
    ("LayerDrop", "67M", (90.7, 85.9, 45.4, 65.2, 80.7, 88.3, 88.4)),
    ("DistilBERT", "67M", (91.3, 87.5, 51.3, 59.9, 82.2, 88.5, 89.2)),
    ("BERT-PKD", "67M", (91.3, 85.7, 45.5, 66.5, 81.3, 88.4, 88.4)),
    ("PD-BERT", "67M", (91.1, 87.2, None, 66.7, 82.5, 89.1, 89.0)),
    ("DDPNAS (paper)", "59M to 67M", (91.8, 87.7, 54.1, 69.3, 82.9, 90.2, 86.5)),
    ("DDPNAS without pruning (paper)", "59M to 67M", (90.8, 86.7, 52.1, 68.7, 82.4, 88.5, 85.4)),
)


def table_5(result: Mapping[str, Any]) -> list[list[str]]:
    """Return the table: a head, this network, and the paper's rows; empty if it was trained for none of these tasks.

    Columns are the network's tasks; the average is over them, so the paper's differ from those that it prints.

    Args:
        result: ``result.json`` of a retraining.
    """
    scores = [score for score in result["scores"] if TASKS.keys() & score.get("by_task", {}).keys()]
    if not scores:
        return []
    score = next((score for score in scores if score["split"] == "test"), scores[0])
    tasks = [task for task in TASKS if task in score["by_task"]]
    params = result["costs"].get("params")
    ours = [100 * score["by_task"][task] for task in tasks]
    rows = [["network", "params", *(TASKS[task] for task in tasks), "average"]]
    name = f"this network ({score['split']}, {score['weights']})"
    rows.append([name, "-" if params is None else f"{params / 1e6:.1f}M", *_cells(ours)])
    at = [list(TASKS).index(task) for task in tasks]
    return rows + [[name, size, *_cells([values[i] for i in at])] for name, size, values in TABLE_5]


def _cells(values: list[float] | list[float | None]) -> list[str]:
    known = [value for value in values if value is not None]
    average = f"{sum(known) / len(known):.1f}" if len(known) == len(values) else "-"
    return [*("-" if value is None else f"{value:.1f}" for value in values), average]
