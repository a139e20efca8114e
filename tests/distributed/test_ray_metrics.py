"""Metrics of a search and a retraining, scraped from Ray's Prometheus endpoint, against run directory and progress."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import ray
from scipy.stats import entropy

from ddpnas_ray.distributed import ray_driver
from ddpnas_ray.distributed.ray_metrics import RETRAINING_GAUGES, RetrainingMetrics
from ddpnas_ray.experiment.config import dump, load
from ddpnas_ray.experiment.experiment import Experiment
from ddpnas_ray.retraining.progress import RetrainingProgress
from ddpnas_ray.runs.directory import create_run, parsed
from ddpnas_ray.runs.files import read_evaluations, read_history, read_space
from tests.conftest import ROOT, TINY

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

DASHBOARD = ROOT / "clusters" / "grafana.json"
SAMPLE = re.compile(r"^(?P<name>\w+)\{(?P<labels>.*)\} (?P<value>\S+)$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
Scrape = dict[str, list[tuple[dict[str, str], float]]]


def scrape() -> Scrape:
    """Samples of this node's endpoint, by name."""
    node = ray.nodes()[0]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    samples: Scrape = {}
    with urllib.request.urlopen(url, timeout=10) as response:
        for line in response.read().decode().splitlines():
            if match := SAMPLE.match(line):
                labels = dict(LABEL.findall(match["labels"]))
                samples.setdefault(match["name"], []).append((labels, float(match["value"])))
    return samples


def retraining_snapshot() -> dict[str, Any]:
    """Progress of a retraining after the first of three epochs."""
    progress = RetrainingProgress("tiny", [0], 3)
    progress.workers = 2
    progress.begin(0, ())
    progress.epoch_done(
        ({"lr": 0.1, "loss": 1.5, "val": 0.25, "examples_per_s": 800.0, "workers": 2, "device": "cpu a"},)
    )
    return progress.snapshot()


@dataclass(frozen=True)
class Watched:
    """A search with its scrapes, during the run and after it, and the shown snapshot of a retraining."""

    folder: Any
    during: list[Scrape]
    after: Scrape
    retraining: dict[str, Any]

    @property
    def last_epoch(self) -> dict[str, Any]:
        """The last epoch's numbers in the log."""
        events = [json.loads(line) for line in self.folder.read("log.jsonl").decode().splitlines()]
        return [event for event in events if event["event"] == "epoch"][-1]

    def values(self, name: str, scraped: Scrape | None = None) -> dict[str, float]:
        """The samples of this run or its retraining of a metric, by its own tag if it has one."""
        found = {}
        for labels, value in (self.after if scraped is None else scraped).get(name, []):
            if labels["run"] == self.folder.path:
                found[labels.get("phase", labels.get("kind", ""))] = value
        return found


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    experiment = Experiment.prepare(load(None, [*TINY, "execution.workers=2"]))
    out = tmp_path_factory.mktemp("metrics") / "run"
    folder = create_run(str(out), experiment.first_files(dump(experiment.config)))
    retraining, shown = RetrainingMetrics(folder.path, "tiny"), retraining_snapshot()
    search = ray_driver.start(experiment, folder)
    during = []
    while not search.wait(timeout_s=0.5):
        during.append(scrape())
    assert search.outcome() is not None
    retraining.show(shown)
    found = Watched(folder, during, {}, shown)
    deadline = time.monotonic() + 30  # Ray reports at intervals
    while found.values("ray_ddpnas_epochs_done").get("") != found.last_epoch["epochs_done"]:
        assert time.monotonic() < deadline, found.values("ray_ddpnas_epochs_done")
        time.sleep(0.5)
        found = Watched(folder, during, scrape(), shown)
    time.sleep(2.5)  # two scrapes may return the same report
    yield Watched(folder, during, scrape(), shown)
    del search  # the driver lives as long as its handle


def test_gauges_and_counters_equal_the_run_directory(watched: Watched) -> None:
    last = watched.last_epoch
    evaluations = parsed(watched.folder, "evaluations.parquet", read_evaluations)
    gauges = {name: watched.values(f"ray_ddpnas_{name}")[""] for name in ("architecture_epochs", "best", "mean")}
    epoch = [row.score for row in evaluations if row.epoch == last["epochs_done"] - 1]
    assert gauges["architecture_epochs"] == len(evaluations)
    assert gauges["best"] == round(max(row.score for row in evaluations), 4)
    assert gauges["mean"] == round(sum(epoch) / len(epoch), 4)
    for name in ("epochs", "epochs_done", "rounds", "candidates", "candidates_left", "workers", "retries"):
        assert watched.values(f"ray_ddpnas_{name}")[""] == last[name], name
    seconds = watched.values("ray_ddpnas_seconds_total")
    assert seconds == pytest.approx(last["seconds_in"])
    assert seconds["train"] == pytest.approx(sum(row.train_s for row in evaluations))
    assert seconds["validate"] == pytest.approx(sum(row.validate_s for row in evaluations))
    assert watched.values("ray_ddpnas_bytes_moved_total")[""] == last["bytes_moved"] > 0


def test_a_retraining_shows_its_snapshot(watched: Watched) -> None:
    for key in RETRAINING_GAUGES:
        assert watched.values(f"ray_ddpnas_retraining_{key}") == {"": pytest.approx(watched.retraining[key])}, key
    (sample,) = watched.after["ray_ddpnas_retraining_loss"]
    assert sample[0]["network"] == "tiny"


def test_entropy_is_that_of_the_recorded_theta_among_live_operations(watched: Watched) -> None:
    space = parsed(watched.folder, "space.json", read_space)
    history = parsed(watched.folder, "theta.parquet", lambda data: read_history(data, space))
    theta_EK = np.where(history[-1].live_EK, history[-1].theta_EK, 0.0)
    shares_E = entropy(theta_EK.T) / np.log(8)  # the cell space has 8 operations; SciPy normalises
    kinds = [edge.name.partition(".")[0] for edge in space.edges]
    expected = {kind: shares_E[[k == kind for k in kinds]].mean() for kind in set(kinds)}
    assert max(expected.values()) < 0.35, "two of eight are left"
    assert watched.values("ray_ddpnas_theta_entropy") == pytest.approx(expected)


def test_a_search_is_seen_while_it_runs(watched: Watched) -> None:
    seen = [watched.values("ray_ddpnas_architecture_epochs", scraped).get("") for scraped in watched.during]
    values = [value for value in seen if value is not None]
    assert values == sorted(values)
    assert any(0 <= value < 33 for value in values), "not one scrape in the middle"


def test_every_query_of_the_dashboard_names_a_metric_that_exists(watched: Watched) -> None:
    from ray.dashboard.modules.reporter import reporter_agent

    of_gpus = {f"ray_{name}" for name in reporter_agent.METRICS_GAUGES if "gpu" in name}  # this machine may have no GPU
    there = set(watched.after) | of_gpus
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    queries += [variable["definition"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    assert len(queries) > 15
    for query in queries:
        names = re.findall(r"\bray_\w+", query)
        assert names and set(names) <= there, query


def test_every_metric_of_ours_is_in_the_dashboard(watched: Watched) -> None:
    ours = {name for name in watched.after if name.startswith("ray_ddpnas_")}
    text = DASHBOARD.read_text()
    unused = {name for name in ours if not re.search(rf"\b{name}\b", text)}
    assert unused <= {"ray_ddpnas_round", "ray_ddpnas_rounds", "ray_ddpnas_epochs_done", "ray_ddpnas_candidates"}


def test_labels_that_the_dashboard_groups_by_exist(watched: Watched) -> None:
    for query in re.findall(r"(?:max|sum) by \(([^)]*)\) \((ray_\w+)", DASHBOARD.read_text()):
        labels, name = query[0].split(", "), query[1]
        for sample, _ in watched.after[name]:
            assert set(labels) - {"instance"} <= set(sample), (name, labels)  # Prometheus adds instance
