"""The Python API: what a script or notebook sees of runs and networks."""

from __future__ import annotations

import inspect
import json
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import ddpnas_ray as nas
from ddpnas_ray.core.errors import BudgetError, ConfigError, GenotypeError, RunDirError
from ddpnas_ray.experiment.config import load
from tests.commands import ENVIRONMENT, contents
from tests.conftest import TINY
from tests.score_tables import write_table

LOCAL = {"execution.backend": "local", "retraining.epochs": 1}


def overrides(**more: Any) -> dict[str, Any]:
    """Overrides of a search of seconds, as a mapping."""
    return {key: int(value) for key, value in (text.split("=") for text in TINY)} | LOCAL | more


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table") / "scores.parquet")


@pytest.fixture(scope="module")
def tabular(table: Path, tmp_path_factory: pytest.TempPathFactory) -> nas.Run:
    """A search with theta that takes milliseconds."""
    config = {"space": {"name": "nasbench201"}, "strategy": "pruning", "evaluation": {"kind": "table", "table": table}}
    return nas.search(config, out=tmp_path_factory.mktemp("tabular") / "run", progress=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> nas.Run:
    """A search that trained for seconds."""
    return nas.search(overrides=overrides(), out=tmp_path_factory.mktemp("finished") / "run", progress=False)


@pytest.fixture
def run(finished: nas.Run, tmp_path: Path) -> nas.Run:
    """A copy of it."""
    return nas.load(shutil.copytree(finished.path, tmp_path / "copy"))


# --- the package ---


@pytest.mark.parametrize(
    "before",
    [
        "",
        "import ddpnas_ray.search",
        "from ddpnas_ray.search import main",
        "from ddpnas_ray import search",
        "import ddpnas_ray as nas; nas.search",
        "import ddpnas_ray as nas; nas.load",
    ],
)
def test_search_is_the_function_and_the_command_in_every_order_of_imports(before: str, tmp_path: Path) -> None:
    script = f"""
{before}
import sys
import time
import ddpnas_ray as nas
assert {before!r} or not [name for name in sys.modules if name.startswith("ddpnas_ray.")]
try:
    nas.search(overrides=["seed=no"])
except Exception as error:
    print(type(error).__name__)
from ddpnas_ray.search import main
import ddpnas_ray.search as command
from ddpnas_ray import search
assert command is nas.search is search and command.main is main
assert main(["--set", "seed=no"]) == 2
print([name for name in ("torch", "ray") if name in sys.modules])
"""
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.stdout == "ConfigError\n[]\n", done.stderr


def test_the_package_names_its_api_and_nothing_else() -> None:
    assert set(nas.__all__) <= set(dir(nas))
    assert {getattr(nas, name) for name in nas.__all__}
    assert list(inspect.signature(nas.search).parameters)[:2] == ["config", "out"]
    assert pickle.loads(cloudpickle.dumps(nas.search)) is nas.search, "as a Ray task that names it needs"
    with pytest.raises(AttributeError, match="module 'ddpnas_ray' has no attribute 'serch'"):
        _ = nas.serch


# --- search ---


def test_a_configuration_is_a_mapping_a_file_a_name_or_a_value(table: Path, tmp_path: Path) -> None:
    values = {"space": {"name": "nasbench201"}, "evaluation": {"kind": "table", "table": str(table), "budget": 20}}
    (tmp_path / "own.yaml").write_text(json.dumps(values))
    more = ["evaluation.budget=20", f"evaluation.table={table}"]
    made = [
        nas.search(values, out=tmp_path / "mapping", progress=False),
        nas.search(tmp_path / "own.yaml", out=tmp_path / "file", progress=False),
        nas.search("nasbench201_table", overrides=more, out=tmp_path / "name", progress=False),
        nas.search(load(str(tmp_path / "own.yaml")), out=tmp_path / "value", progress=False),
    ]
    assert len({run.fingerprint for run in made}) == 1
    assert values["evaluation"] == {"kind": "table", "table": str(table), "budget": 20}, "unchanged"


def test_progress_is_printed_unless_it_is_not_wanted(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {"evaluation.table": table}
    nas.search("nasbench201_table", overrides=more, out=tmp_path / "quiet", progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_search_stops_at_its_time_limit_and_resumes(tmp_path: Path, finished: nas.Run) -> None:
    stopped = nas.search(overrides=overrides(), out=tmp_path / "run", time_limit=0.001, progress=False)
    assert not stopped.finished
    assert "not finished" in repr(stopped)
    assert stopped._repr_html_() is None
    for needs in ("result", "theta", "genotype", "costs", "fingerprint", "network"):
        with pytest.raises(RunDirError, match="the run has not finished"):
            getattr(stopped, needs)
    with pytest.raises(RunDirError, match="the run has not finished"):
        stopped.generate()
    again = nas.search(out=tmp_path / "run", resume=True, progress=False)
    assert (again.finished, stopped.finished) == (True, True)
    assert stopped.fingerprint == again.fingerprint == finished.fingerprint
    before = contents(tmp_path)
    assert nas.search(out=tmp_path / "run", resume=True).fingerprint == again.fingerprint
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"overrides": {"pruning.gama": 0.8}}, ConfigError, "pruning.gama is not a key; did you mean pruning.gamma?"),
        ({"config": {"prunning": {}}}, ConfigError, "config: prunning is not a"),
        ({"config": "no_such"}, ConfigError, "no_such: cannot be read"),
        ({"out": "none"}, RunDirError, "out='none' keeps nothing to return"),
        ({"resume": True}, RunDirError, "resume=True needs the run directory"),
        ({"resume": True, "out": "nowhere"}, RunDirError, "nowhere: is not a run directory"),
        ({"time_limit": "soon"}, ConfigError, "time_limit: 'soon' is not a duration"),
    ],
)
def test_bad_input_is_an_error_of_the_commands(
    options: Mapping[str, Any], error: type[Exception], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as raised:
        nas.search(**options)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
    assert contents(tmp_path) == {}


def test_a_run_is_not_overwritten_nor_resumed_as_another_search(finished: nas.Run) -> None:
    with pytest.raises(RunDirError, match="exists and is not empty"):
        nas.search(overrides=overrides(), out=finished.path)
    with pytest.raises(RunDirError, match=r"was started with other values of pruning\.gamma"):
        nas.search(out=finished.path, resume=True, overrides={"pruning.gamma": 0.8})


# --- runs and networks ---


def test_a_run_has_what_its_files_hold(tabular: nas.Run) -> None:
    result = json.loads(Path(tabular.path, "result.json").read_text())
    assert (tabular.result, tabular.genotype, tabular.costs) == (result, result["genotype"], result["costs"])
    assert tabular.fingerprint == result["fingerprint"]
    assert tabular.config.space.name == "nasbench201"
    assert nas.load(tabular.path).result == result
    assert nas.load(Path(tabular.path)).finished
    assert repr(tabular).startswith(f"<Run {tabular.path}: nasbench201 on table, strategy pruning, seed 0, ")


def test_theta_has_the_operations_left_and_their_probabilities(tabular: nas.Run) -> None:
    theta, result = tabular.theta, tabular.result
    assert len(theta) == 6
    for row, live, chances in zip(result["theta"], result["live"], theta.values(), strict=True):
        left = [p for p, is_live in zip(row, live, strict=True) if is_live]
        assert list(chances.values()) == sorted(left, reverse=True)
        assert 0 < sum(chances.values()) <= 1 + 1e-9


def test_a_strategy_without_theta_has_none(table: Path, tmp_path: Path) -> None:
    more = {"strategy": "random", "evaluation.table": table}
    run = nas.search("nasbench201_table", overrides=more, out=tmp_path / "run", progress=False)
    for ask in (lambda: run.theta, run.generate):
        with pytest.raises(ConfigError, match="strategy random has no theta"):
            ask()
    assert run.network.costs == run.costs


def test_one_budget_gives_a_network_and_several_a_list(finished: nas.Run) -> None:
    network = finished.generate("macs=100%")
    assert (network.costs, network.genotype) == (finished.costs, finished.genotype)
    assert network.expectation == pytest.approx(finished.result["expectation"])
    assert finished.generate().genotype == finished.genotype
    small, tiny = finished.generate("macs=95%", "params=90%")
    assert small.costs["macs"] <= 0.95 * finished.costs["macs"]
    assert tiny.costs["params"] <= 0.9 * finished.costs["params"]
    best = finished.generate("macs=95%", best=3)
    assert [found.label for found in best] == [small.label, f"{small.label}-2", f"{small.label}-3"]
    assert best[0] == small
    assert len(finished.generate("macs=90%..100%:4", best=1)) == 4
    other = finished.generate(target="cells=5")
    assert (other.target.cells, other.genotype) == (5, finished.genotype)
    assert other.costs["params"] > finished.costs["params"]


@pytest.mark.parametrize(
    ("budgets", "options", "says"),
    [
        (["macs=1"], {}, "nearest feasible"),
        (["mac=1M"], {}, "mac is not a cost of this space; did you mean macs?"),
        (["macs=90%..100%:4"], {}, "is a sweep of 4; add best=1"),
        ([], {"best": 0}, "best is 0; it must be at least 1"),
    ],
)
def test_budgets_that_cannot_be_met_or_read(
    finished: nas.Run, budgets: list[str], options: dict[str, Any], says: str
) -> None:
    with pytest.raises(BudgetError) as raised:
        finished.generate(*budgets, **options)
    assert says in str(raised.value)


def test_a_network_is_a_module_with_new_weights(finished: nas.Run) -> None:
    import torch

    network = finished.network
    module = network.module()
    assert module(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert sum(parameter.numel() for parameter in module.parameters()) == network.costs["params"]
    assert repr(network).startswith(f"<Network result: {network.costs['params']:,} params, ")


def test_published_networks_are_as_published() -> None:
    network = nas.known_network("darts_v2")
    assert "darts_v2" in nas.known_networks()
    assert (network.target.image_size, network.target.classes, network.expectation) == (32, 10, None)
    assert network.costs["params"] == 3_349_342
    with pytest.raises(GenotypeError, match="did you mean darts_v2"):
        nas.known_network("darts_v3")
    with pytest.raises(ConfigError, match="darts_v2 has no run: give the configuration"):
        network.retrain()


# --- training ---


def test_a_network_is_trained_and_its_scores_and_weights_are_read(run: nas.Run) -> None:
    import torch

    trained = run.retrain(overrides=LOCAL, progress=False)
    assert trained.path == str(Path(run.path, "retrained", "result"))
    assert [score["split"] for score in trained.scores] == ["test"]
    assert trained.network.genotype == run.genotype
    module = trained.module()
    assert not module.training
    assert module(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    (same,) = run.retrained
    assert (same.path, same.result) == (trained.path, trained.result)
    assert "test accuracy" in repr(trained)
    before = contents(Path(run.path))
    assert run.retrain(resume=True, progress=False).result == trained.result
    assert contents(Path(run.path)) == before


def test_any_network_of_a_run_can_be_trained(run: nas.Run, tmp_path: Path) -> None:
    second = run.generate("macs=100%", best=2)[1]
    trained = second.retrain(overrides=LOCAL, out=tmp_path / "second", progress=False)
    assert (trained.network.genotype, trained.network.costs) == (second.genotype, second.costs)
    wide = run.generate(target="channels=6").retrain(overrides=LOCAL, out=tmp_path / "wide", progress=False)
    assert wide.network.target.channels == 6
    with pytest.raises(RunDirError, match=f"is the training of another network, {second.label}"):
        run.retrain("macs=95%", out=tmp_path / "second", resume=True)


def test_a_published_network_is_trained_on_the_data_of_a_run_or_a_configuration(run: nas.Run, tmp_path: Path) -> None:
    published = nas.known_network("darts_v1")
    trained = run.retrain(published, overrides=LOCAL, progress=False)
    assert (trained.network.target.image_size, trained.network.target.cells) == (8, 3)
    more = overrides()
    alone = published.retrain(config="digits", out=tmp_path / "alone", overrides=more, progress=False)
    assert alone.network.genotype == published.genotype
    assert alone.scores[0]["split"] == "test"


def test_the_network_of_a_training_can_be_trained_again(run: nas.Run, tmp_path: Path) -> None:
    network = run.retrain(overrides=LOCAL, progress=False).network
    with pytest.raises(ConfigError, match="network result has no run: give the configuration"):
        network.retrain()
    alone = network.retrain(config="digits", out=tmp_path / "alone", overrides=overrides(), progress=False)
    again = run.retrain(network, out=tmp_path / "again", overrides=LOCAL, progress=False)
    assert network.genotype == alone.network.genotype == again.network.genotype
    assert again.result["search"]["fingerprint"] == run.fingerprint


# --- what is shown ---


def test_cards_show_figure_costs_scores_and_confidence_and_escape_text(run: nas.Run) -> None:
    page = run._repr_html_()
    assert page is not None
    assert page.count('role="img"') == 2, "both cells"
    for text in ("<svg", "params", f"{run.costs['macs']:,}", "val", "confidence"):
        assert text in page
    network = run.network._repr_html_()
    assert "E[alpha]" in network and 'role="img"' in network
    evil = "<script>alert(1)</script>"
    file = Path(run.path, "result.json")
    result = json.loads(file.read_text())
    result["scores"]["of"] = evil
    file.write_text(json.dumps(result))
    shown = nas.load(run.path)._repr_html_()
    assert shown is not None
    assert "<script" not in shown and "&lt;script&gt;" in shown
    assert "http" not in shown.replace("http://www.w3.org", "")


def test_a_report_is_written_beside_the_run(run: nas.Run) -> None:
    path = run.report()
    assert path == str(Path(run.path, "report.html"))
    assert Path(path).read_bytes().startswith(b"<!doctype html>")
    assert run.report(html=False).startswith("genotype")


# --- Ray ---


@pytest.fixture
def on_ray(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process is connected to the session's cluster, and another address is in the environment."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    yield


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("on_ray")
def test_where_ray_is_initialised_its_connection_is_used_and_stays_open(
    finished: nas.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    from ddpnas_ray.core.errors import ResourceError

    before = ray.get_runtime_context().get_job_id()
    ray_options = {"execution.backend": "ray", "execution.workers": 2}
    run = nas.search(overrides=overrides(**ray_options), out=tmp_path / "run")
    assert run.fingerprint == finished.fingerprint
    said = capsys.readouterr().out
    assert "2 worker(s) of 1 CPU and 0 GPU, on the connected cluster" in said
    assert "starting Ray" not in said
    trained = run.retrain(overrides=ray_options)
    assert trained.result["fingerprint"] == run_here(finished, tmp_path).result["fingerprint"]
    assert ray.is_initialized()
    assert ray.get_runtime_context().get_job_id() == before
    with pytest.raises(ResourceError, match="is already connected to the Ray cluster at"):
        nas.search(overrides=overrides(**ray_options), out=tmp_path / "other", address="somewhere-else")
    assert not (tmp_path / "other").exists()


def run_here(run: nas.Run, folder: Path) -> nas.TrainedRun:
    """Train a run's result in this process."""
    return run.retrain(overrides=LOCAL, out=folder / "here", progress=False)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("on_ray")
def test_a_ray_task_searches_on_its_own_cluster(finished: nas.Run, tmp_path: Path) -> None:
    import ray

    options, out = overrides(**{"execution.backend": "ray", "execution.workers": 1}), tmp_path / "run"

    @ray.remote(num_cpus=1)
    def task() -> str:
        import ddpnas_ray

        return ddpnas_ray.search(overrides=options, out=out).fingerprint

    assert ray.get(task.remote()) == finished.fingerprint


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("on_ray")
def test_interrupted_where_ray_lives_on_nothing_writes_to_the_run_any_more(
    finished: nas.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    from ddpnas_ray.console.progress import Display

    def interrupted(display: Display, now: Mapping[str, Any]) -> None:
        if now.get("epochs_done", 0) >= 1:
            raise KeyboardInterrupt

    options = overrides(**{"execution.backend": "ray", "execution.workers": 2})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Display, "show", interrupted)
        nas.search(overrides=options, out=tmp_path / "run", progress=False)

    def drivers() -> list[str]:
        return [actor["name"] for actor in ray.util.list_named_actors(True) if actor["namespace"] == "ddpnas"]

    for _ in range(100):
        if not drivers():
            break
        time.sleep(0.1)
    assert drivers() == []
    assert nas.search(out=tmp_path / "run", resume=True, progress=False).fingerprint == finished.fingerprint
