"""A metric is a file of the folder or ``module:function``; no list to edit."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddpnas_ray import metrics, search
from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.tasks.base import METRICS, find_metric
from tests.commands import LOCAL, options, run

TOP_TWO = '''
"""The label is among the two largest outputs."""


def score(outputs):
    hits = [(logits.topk(2).indices == labels[:, None]).any(dim=1).float().mean() for logits, labels in outputs]
    return float(sum(hits)) / len(hits)
'''


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folder on PYTHONPATH."""
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / "top_two.py").write_text(TOP_TWO)
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in ("top_two", "ddpnas_ray.metrics.top_two"):
        sys.modules.pop(name, None)


def test_the_built_in_metrics_are_the_files_that_define_score() -> None:
    assert METRICS.names() == (
        "accuracy",
        "balanced_accuracy",
        "f1",
        "likelihood",
        "matthews",
        "miou",
        "pearson",
        "spearman",
    )


def test_a_new_file_is_a_new_metric_and_nothing_else_changes(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "__path__", [*metrics.__path__, str(lab)])
    assert find_metric("top_two").name == "top_two"
    said = run(search.main, *LOCAL, *options("task.metric=top_two"), "--out", tmp_path / "run")
    assert said.code == 0, said.err
    assert 0 < json.loads((tmp_path / "run" / "result.json").read_text())["scores"]["best"] <= 1


def test_one_of_ones_own_is_found_by_module_and_function(lab: Path) -> None:
    metric = find_metric("top_two:score")
    assert metric.name == "top_two"


@pytest.mark.parametrize("name", ["f2", "top_two:nothing", "json:dumps:x"])
def test_what_is_no_metric_is_refused_in_one_line(lab: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"^task\.metric: "):
        find_metric(name)
    said = run(search.main, *LOCAL, *options(f"task.metric={name}"))
    assert said.code == 2 and said.err.count("\n") == 1
