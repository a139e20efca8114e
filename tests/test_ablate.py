"""Ablations from the command to the files: variants, files, resumes and errors."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddpnas_ray import ablate, generate, search
from ddpnas_ray.ablations.operation import fit, networks_with
from ddpnas_ray.ablations.outcomes import Outcome, Spread
from ddpnas_ray.ablations.study import plan
from ddpnas_ray.ablations.topology import shapes
from ddpnas_ray.core.errors import BudgetError, ConfigError
from ddpnas_ray.distributed import ray_trials
from ddpnas_ray.experiment.config import load
from ddpnas_ray.experiment.finished import FinishedRun
from ddpnas_ray.spaces.cell.space import make as make_cell
from ddpnas_ray.spaces.nasbench201.space import make
from ddpnas_ray.strategies.registry import variants
from ddpnas_ray.tabular.table import ScoreTable
from ddpnas_ray.testing.strategy_contract import SPACES
from tests.commands import LOCAL, Said, contents, options, run
from tests.score_tables import write_table

REPORT = ("ablation.json", "config.yaml", "plot.png", "plot.svg", "table.md", "trials.parquet")
VAL, TEST = "val: result architecture, made_val_e12", "test: result architecture, made_test_e200"
Words = list[str]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table") / "made.parquet")


@pytest.fixture(scope="module")
def by_table(table: Path) -> Words:
    """Options of searches of milliseconds, in this process."""
    keys = ["space={name: nasbench201}", "evaluation.kind=table", f"evaluation.table={table}"]
    return options(*keys, "target={cells: 5, channels: 16}", "execution.backend=local")


@pytest.fixture(scope="module")
def by_supernet(table: Path) -> Words:
    """Options of searches of a second, in this process."""
    keys = ["space={name: nasbench201, cells: 1, channels: 4}", "data.train_limit=64", "data.val_limit=64"]
    keys += ["training.batch_size=32", "training.bn_images=32", "target={cells: 1, channels: 4}"]
    keys += ["pruning.epochs_per_round=1", f"evaluation.table={table}", "execution.backend=local"]
    return options(*keys)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the cell space."""
    out = tmp_path_factory.mktemp("searched") / "run"
    assert run(search.main, *LOCAL, "--out", out).code == 0
    return out


def trials(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.ParquetFile(out / "trials.parquet").read(use_threads=False).to_pylist()
    return rows


def summary(out: Path) -> list[dict[str, Any]]:
    content = json.loads((out / "ablation.json").read_text())
    assert content["finished"]
    assert (content["schema_version"], content["environment"]["packages"]["ray"] is not None) == (1, True)
    rows: list[dict[str, Any]] = content["summary"]
    return rows


def done(*words: str | Path) -> Said:
    said = run(ablate.main, *words)
    assert (said.code, said.err) == (0, "")
    return said


# --- variants ---


def test_interval_varies_t_and_its_cost(by_table: Words, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "T"
    said = done("interval", *by_table, "--values", "1..2,4", "--seeds", "3..5", "--out", out)
    assert sorted(path.name for path in out.iterdir()) == sorted([*REPORT, "trials.jsonl"])
    assert said.out.startswith(f"{out}: 9 of 9 searches in this process\n")
    assert said.out.endswith(f"\n{(out / 'table.md').read_text()}\n{out}\n")
    assert f"| {VAL} [%] | {TEST} [%] | random search [%] |" in said.out
    rows = trials(out)
    expected = [(f"T={t}", t, seed, 12 * t) for seed in (3, 4, 5) for t in (1, 2, 4)]
    assert [(row["label"], row["value"], row["seed"], row["evaluations"]) for row in rows] == expected
    for row in summary(out):
        own = np.array([[r[VAL], r[TEST]] for r in rows if r["value"] == row["value"]])
        found = [[row["scores"][name][key] for name in (VAL, TEST)] for key in ("mean", "deviation")]
        np.testing.assert_allclose(found, [own.mean(axis=0), own.std(axis=0, ddof=1)])
        assert row["evaluations"] == 12 * row["value"]


def test_a_trial_is_the_search_of_its_configuration(by_table: Words, table: Path, tmp_path: Path) -> None:
    done("interval", *by_table, "--values", "2", "--seeds", "7..7", "--out", tmp_path / "T")
    [trial] = trials(tmp_path / "T")
    keys = options("strategy=pruning", "pruning.epochs_per_round=2", "seed=7")
    result = json.loads(run(search.main, *by_table, *keys, "--out", tmp_path / "run", "--json").out)
    assert trial["fingerprint"] == result["fingerprint"]
    assert json.loads(trial["genotype"]) == result["genotype"]
    spec = make()
    known = ScoreTable.read(str(table), spec.space, spec.encode)
    assert trial[TEST] == known.score("made_test_e200", np.array(result["alpha"]))


def test_equal_budgets_are_possible_where_they_suffice(by_table: Words, tmp_path: Path) -> None:
    words = ["interval", *by_table, "--values", "1,2", "--seeds", "1"]
    done(*words, "--budget", "30", "--out", tmp_path / "T")
    assert [row["evaluations"] for row in summary(tmp_path / "T")] == [30, 30]
    assert summary(tmp_path / "T")[0]["scores"][TEST]["deviation"] is None, "of one seed"
    said = run(ablate.main, *words, "--budget", "20", "--out", tmp_path / "none")
    assert (said.code, "evaluation.budget is 20: pruning needs 24 evaluations" in said.err) == (2, True)


def test_gamma_varies_the_momentum(by_table: Words, tmp_path: Path) -> None:
    done("gamma", *by_table, "--values", "0,0.5,0.99", "--seeds", "2", "--out", tmp_path / "g")
    assert [(row["label"], row["evaluations"]) for row in summary(tmp_path / "g")] == [
        ("gamma=0", 36), ("gamma=0.5", 36), ("gamma=0.99", 36)
    ]  # fmt: skip


def test_noprune_gets_what_pruning_needs_and_is_compared_seed_by_seed(by_table: Words, tmp_path: Path) -> None:
    said = done("noprune", *by_table, *options("evaluation.budget=50"), "--seeds", "5", "--out", tmp_path / "n")
    rows = summary(tmp_path / "n")
    assert [(row["label"], row["evaluations"]) for row in rows] == [("pruning", 36), ("no pruning", 36)]
    scores = {(row["label"], row["seed"]): row[TEST] for row in trials(tmp_path / "n")}
    pairs = [scores["no pruning", seed] - scores["pruning", seed] for seed in range(5)]
    assert rows[1]["paired_difference"]["mean"] == pytest.approx(np.mean(pairs))
    assert rows[1]["paired_difference"]["standard_error"] == pytest.approx(np.std(pairs, ddof=1) / 5**0.5)
    assert f"no pruning less pruning, seed by seed: {100 * np.mean(pairs):+.2f} ± " in said.out


def test_every_strategy_spends_each_budget(by_table: Words, tmp_path: Path) -> None:
    done("strategies", *by_table, "--budgets", "36,40", "--seeds", "1", "--out", tmp_path / "s")
    rows = summary(tmp_path / "s")
    expected = [(name, budget, budget) for name in variants() for budget in (36, 40)]
    assert [(row["label"], row["value"], row["evaluations"]) for row in rows] == expected
    random = "test: random search with 40 evaluations (expected), made_test_e200"
    assert len({row[random] for row in rows if row["value"] == 40}) == 1


def test_strategies_are_configured_as_they_are_called(by_table: Words) -> None:
    arguments = {"budgets": "36", "only": "noprune,multinomial+prune,reinforce", "seeds": "1"}
    config = load(None, [word for word in by_table if word != "--set"])
    found = [variant.config for variant in plan("strategies", config, arguments).variants]
    prunes = [[c.strategies[name].prune for name in ("pruning", "multinomial", "reinforce")] for c in found]
    assert [(c.strategy, *prune) for c, prune in zip(found, prunes, strict=True)] == [
        ("pruning", False, False, False), ("multinomial", True, True, False), ("reinforce", True, False, False)
    ]  # fmt: skip


def test_correlation_has_a_tau_an_epoch_and_way_to_merge(by_supernet: Words, tmp_path: Path) -> None:
    out = tmp_path / "c"
    words = ["--networks", "8", "--merge", "mean,sequential", "--seeds", "2"]
    said = done("correlation", *by_supernet, *words, "--out", out)
    rows = trials(out)
    assert [(row["label"], row["seed"]) for row in rows] == [
        ("mean", 0), ("sequential", 0), ("mean", 1), ("sequential", 1)
    ]  # fmt: skip
    assert all(len(row["tau_by_epoch"]) == 3 for row in rows), "three rounds of one epoch"
    for row in summary(out):
        own = [trial["tau_by_epoch"] for trial in rows if trial["label"] == row["label"]]
        for epoch, spread in enumerate(row["tau_by_epoch"]):
            known = [taus[epoch] for taus in own if taus[epoch] is not None]
            assert spread["n"] == len(known)
            if known:
                assert spread["mean"] == pytest.approx(np.mean(known))
        assert [name.partition(":")[0] for name in row["scores"]] == ["test", "val", "val", "test"]
    assert "\n| epoch | Kendall's tau, merge mean | Kendall's tau, merge sequential |\n" in said.out
    assert "The paper: about 0.5722 in every epoch" in said.out


def test_scores_without_a_table_are_of_inherited_weights(by_supernet: Words, tmp_path: Path) -> None:
    done("noprune", *by_supernet, *options("evaluation.table=null"), "--seeds", "1", "--out", tmp_path / "n")
    assert [list(row["scores"]) for row in summary(tmp_path / "n")] == [
        ["val: result architecture with inherited weights"]
    ] * 2


# --- files and resumes ---


def test_figures_are_equal_for_equal_numbers(by_table: Words, tmp_path: Path) -> None:
    words = ["interval", *by_table, "--values", "1,2", "--seeds", "2"]
    for name in ("a", "b"):
        done(*words, "--out", tmp_path / name)
    a, b = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert (a["plot.png"] or b"").startswith(b"\x89PNG")
    assert b"<svg" in (a["plot.svg"] or b"")
    assert [a[name] == b[name] for name in ("plot.png", "plot.svg", "config.yaml")] == [True] * 3


def test_json_is_the_ablation_and_the_table_goes_to_stderr(by_table: Words, tmp_path: Path) -> None:
    said = run(ablate.main, "gamma", *by_table, "--values", "0.9", "--seeds", "1", "--out", tmp_path / "g", "--json")
    assert (said.code, said.out.count("\n")) == (0, 1)
    assert json.loads(said.out) == json.loads((tmp_path / "g" / "ablation.json").read_text())
    assert "\n| variant " in said.err


def test_ablations_without_out_get_names_of_their_own(
    by_table: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ablate-gamma-nasbench201", "ablate-gamma-nasbench201-2"):
        assert done("gamma", *by_table, "--values", "0.9", "--seeds", "1").out.endswith(f"\nruns/{name}\n")


@pytest.fixture
def interrupted(by_table: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ablation of four searches, ended by Ctrl-C after three, with a truncated fourth line."""
    out, count = tmp_path / "my T", 0

    def three_only(experiment: Any, planned: Any) -> Any:
        nonlocal count
        count += 1
        if count > 3:
            raise KeyboardInterrupt
        return search_all(experiment, planned)

    search_all = ray_trials.search_all
    monkeypatch.setattr(ray_trials, "search_all", three_only)
    said = run(ablate.main, "interval", *by_table, "--values", "1,2", "--seeds", "2", "--out", out)
    monkeypatch.setattr(ray_trials, "search_all", search_all)
    command = f"python -m ddpnas_ray.ablate interval --out '{out}' --resume"
    assert said.code == 130
    assert said.err == f"interrupted; 3 of 4 searches are saved. Resume with: {command}\n"
    assert sorted(path.name for path in out.iterdir()) == ["ablation.json", "config.yaml", "trials.jsonl"]
    with open(out / "trials.jsonl", "ab") as file:
        file.write(b'{"label": "T=2", "val')
    return out


def test_what_was_interrupted_goes_on(
    interrupted: Path, by_table: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[int] = []
    search_all = ray_trials.search_all
    monkeypatch.setattr(
        ray_trials,
        "search_all",
        lambda experiment, planned: searched.append(len(planned)) or search_all(experiment, planned),
    )
    done("interval", "--out", interrupted, "--resume")
    assert searched == [1], "the fourth alone"
    monkeypatch.setattr(ray_trials, "search_all", search_all)
    done("interval", *by_table, "--values", "1,2", "--seeds", "2", "--out", tmp_path / "whole")
    assert (interrupted / "plot.png").read_bytes() == (tmp_path / "whole" / "plot.png").read_bytes()
    known = [{**row, "seconds": 0} for row in trials(interrupted)]
    assert known == [{**row, "seconds": 0} for row in trials(tmp_path / "whole")]
    assert len((interrupted / "trials.jsonl").read_bytes().splitlines()) == 4
    before = contents(interrupted)
    said = done("interval", "--out", interrupted, "--resume")
    assert said.out == f"{(interrupted / 'table.md').read_text()}\n{interrupted}\n"
    assert contents(interrupted) == before


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["interval", "--values", "1..3"], "--values 1..3: the ablation was started with 1,2"),
        (["interval", "--seeds", "9"], "--seeds 9: the ablation was started with 2"),
        (["gamma"], "is an ablation 'interval'"),
        (["interval", *options("pruning.gamma=0.5")], "started with other values of pruning.gamma; only execution.*"),
        (["interval", "--config", "x.yaml"], "remove --config"),
    ],
)
def test_it_goes_on_only_as_it_began(interrupted: Path, words: Words, fragment: str) -> None:
    refused(*words, "--out", interrupted, "--resume", fragments=[fragment], folder=interrupted)


def test_it_goes_on_with_its_own_data_only(interrupted: Path, table: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copy(table, tmp_path / "moved.parquet"))
    other = pq.ParquetFile(table).read(use_threads=False)
    pq.write_table(other.set_column(1, "made_val_e12", other["made_test_e200"]), tmp_path / "other.parquet")
    words = ["interval", "--out", interrupted, "--resume"]
    key = f"evaluation.table={tmp_path / 'other.parquet'}"
    refused(*words, *options(key), fragments=["the data differ from those"], folder=interrupted)
    done(*words, *options(f"evaluation.table={moved}"))


def test_finished_searches_stay_when_one_fails(
    by_table: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def second_fails(experiment: Any, planned: Any) -> Any:
        if planned[0].config.seed == 1:
            raise ConfigError("no more")
        return search_all(experiment, planned)

    search_all, out = ray_trials.search_all, tmp_path / "g"
    monkeypatch.setattr(ray_trials, "search_all", second_fails)
    said = run(ablate.main, "gamma", *by_table, "--values", "0.9", "--seeds", "3", "--out", out)
    assert (said.code, said.err) == (2, "ConfigError: no more\n")
    assert len((out / "trials.jsonl").read_bytes().splitlines()) == 1
    assert not json.loads((out / "ablation.json").read_text())["finished"]


@pytest.mark.slow
@pytest.mark.ray
def test_ray_finds_the_same(
    by_table: Words, ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ddpnas_ray.console import ray_connect

    monkeypatch.setattr(ray_connect, "connected", lambda *_: nullcontext(""))  # the session's cluster
    words = ["interval", *by_table, "--values", "1,2", "--seeds", "20"]
    done(*words, "--out", tmp_path / "here")
    done(*words, *options("execution.backend=ray"), "--out", tmp_path / "ray")
    here, there = ([{**row, "seconds": 0} for row in trials(tmp_path / name)] for name in ("here", "ray"))
    assert here == there
    assert (tmp_path / "here" / "plot.svg").read_bytes() == (tmp_path / "ray" / "plot.svg").read_bytes()
    assert len((tmp_path / "ray" / "trials.jsonl").read_bytes().splitlines()) == 40


# --- one operation ---


def test_networks_with_an_operation_are_looked_up_and_fitted(by_table: Words, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    words = ["--edge", "0-3", "--operation", "nor_conv_3x3", "--networks", "60"]
    said = done("operation", *by_table, *words, "--out", out)
    rows, spec = trials(out), make()
    alphas = [spec.encode(json.loads(row["genotype"])) for row in rows]
    assert len({alpha.tobytes() for alpha in alphas}) == 60
    assert all(alpha_E[3] == 3 for alpha_E in alphas)
    known = ScoreTable.read(str(table), spec.space, spec.encode)
    scores = np.array([row["test: made_test_e200"] for row in rows])
    assert scores.tolist() == [known.score("made_test_e200", alpha_E) for alpha_E in alphas]
    val, test = summary(out)
    assert (val["score"], test["score"]) == ("val: made_val_e12", "test: made_test_e200")
    assert (test["mean"], test["deviation"]) == (pytest.approx(scores.mean()), pytest.approx(scores.std(ddof=1)))
    assert test["shapiro_p"] > 0.01, "sums of five independent choices"
    assert f" {100 * scores.mean():.2f} " in said.out
    assert sorted(path.name for path in out.iterdir()) == sorted(REPORT)


def test_networks_of_the_cell_space_use_the_edge(searched: Path, tmp_path: Path) -> None:
    words = ["--edge", "normal.3", "--operation", "sep_conv_3x3", "--networks", "20"]
    done("operation", "--run", searched, *words, "--out", tmp_path / "o")
    spec = make_cell(cells=2, nodes=2, channels=4)
    e = [edge.name for edge in spec.space.edges].index("normal.3")
    k = [op.name for op in spec.space.edges[e].candidates].index("sep_conv_3x3")
    rows = trials(tmp_path / "o")
    assert all(spec.encode(json.loads(row["genotype"]))[e] == k for row in rows)
    assert all(0 <= row["val: inherited weights"] <= 1 for row in rows)
    assert summary(tmp_path / "o")[0]["score"] == "val: inherited weights"


def test_the_tests_know_a_normal_distribution_and_another() -> None:
    rng = np.random.default_rng(0)
    assert fit(rng.normal(0.9, 0.01, 100))["shapiro_p"] > 0.05
    assert fit(0.9 - rng.exponential(0.01, 100))["dagostino_p"] < 0.001
    equal = fit(np.full(30, 0.5))
    assert (equal["mean"], equal["deviation"], np.isnan(equal["shapiro_w"])) == (0.5, 0.0, True)
    assert fit(np.array([0.1, np.nan, 0.3]))["networks"] == 2


def test_more_networks_than_there_are_are_refused() -> None:
    space = make_cell(nodes=1).space
    with pytest.raises(ConfigError, match=r"--networks 5000: found only [0-9]+ distinct networks with "):
        networks_with(space, 0, 4, 5000, seed=0)


def test_networks_with_an_operation_on_a_conditional_edge_have_that_edge() -> None:
    space = SPACES["conditional"]  # where the layer is inactive, its operation is that of index 0, too
    assert networks_with(space, 1, 0, 1, seed=0) == [(0, 0)]
    with pytest.raises(ConfigError):
        networks_with(space, 1, 0, 2, seed=0)


# --- from a finished run ---


def test_theta_is_drawn_from_the_first_round_on(searched: Path, tmp_path: Path) -> None:
    done("theta", searched, "--out", tmp_path / "t")
    rows = trials(tmp_path / "t")
    theta = np.array([row["theta_by_round"] for row in rows]).reshape(10, 8, 7)
    np.testing.assert_allclose(theta[:, :, 0], 1 / 8)
    np.testing.assert_allclose(theta.sum(axis=1), 1.0)
    last = np.array(json.loads((searched / "result.json").read_text())["theta"])
    np.testing.assert_array_equal(theta[:, :, -1], last)
    pruned = [row["pruned_in_round"] for row in rows]
    assert sorted(set(pruned), key=str) == [1, 2, 3, 4, 5, 6, None]
    assert pruned.count(None) == 2 * 10
    assert len(summary(tmp_path / "t")) == 10
    done("theta", searched, "--out", tmp_path / "again")
    assert (tmp_path / "t" / "plot.png").read_bytes() == (tmp_path / "again" / "plot.png").read_bytes()


def test_every_shape_has_its_best_network_or_none(searched: Path, tmp_path: Path) -> None:
    words = ["--heights", "1..3", "--nonparametric", "0,2", "--verify"]
    said = done("topology", searched, *words, "--out", tmp_path / "t")
    rows = {row["label"]: row for row in trials(tmp_path / "t")}
    assert list(rows) == [
        "any", "{N=0}", "{N=2}",
        *(label for h in (1, 2, 3) for label in (f"{{H={h}}}", f"{{H={h}, N=0}}", f"{{H={h}, N=2}}")),
    ]  # fmt: skip
    copy = Path(shutil.copytree(searched, tmp_path / "run"))
    generated = run(generate.main, copy, "--budget", "height=2..2,nonparametric=2..2", "--verify", "1", "--json")
    [network] = json.loads(generated.out)
    row = rows["{H=2, N=2}"]
    assert row["feasible"]
    assert (row["expectation"], row["params"]) == (network["expectation"], network["costs"]["params"])
    assert json.loads(row["genotype"]) == network["genotype"]
    assert row["val: inherited weights"] == network["score"]["value"]
    assert rows["any"]["expectation"] == max(r["expectation"] for r in rows.values() if r["feasible"])
    assert (rows["{H=3}"]["feasible"], rows["{H=3}"]["params"]) == (False, None)
    assert "Infeasible: {H=3}.\n" in said.out, "those of a height that nothing has are not repeated"


# --- errors ---


def refused(*words: str | Path, fragments: Words, folder: Path) -> None:
    """Expect one line, exit code 2, and unchanged files."""
    before = contents(folder)
    said = run(ablate.main, *words)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1), said.err
    for fragment in fragments:
        assert fragment in said.err
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (["interval", "--values", "0..2"], ["--values 0..2: pruning.epochs_per_round is 0", "greater than or equal"]),
        (["interval", "--values", "3..1"], ["--values 3..1: 3..1 is decreasing; write 1..3"]),
        (["interval", "--values", "1,two"], ["'two' is not a number; write 1,2,3 or 1..6"]),
        (["interval", "--values", "1,1"], ["--values: duplicate value 1"]),
        (["interval", "--values", "1.5"], ["pruning.epochs_per_round is 1.5", "valid integer"]),
        (["gamma", "--values", "0.5,1.0"], ["pruning.gamma is 1.0", "less than 1"]),
        (["gamma", "--seeds", "many"], ["--seeds: 'many' is neither a number of seeds such as 4, nor a range"]),
        (["gamma", "--seeds", "5..3"], ["--seeds: 5..3 contains no seed"]),
        (["gamma", "--seeds", "0"], ["--seeds: 0 contains no seed"]),
        (["gamma", "--seeds", "999999999"], ["at most 100,000 are allowed"]),
        (["gamma", "--resume"], ["--resume needs the ablation directory"]),
        (["gamma", *options("pruning.gama=1")], ["pruning.gama is not a key; did you mean pruning.gamma?"]),
        (["gamma", *options("evaluation.table=nowhere.parquet")], ["nowhere.parquet cannot be read"]),
        (["gamma", "--address", "127.0.0.1:1", *options("execution.backend=ray")], ["no Ray cluster answers"]),
        (["strategies", "--only", "prunning"], ["--only: 'prunning' is not a strategy; did you mean pruning?"]),
        (["strategies", "--budgets", "30"], ["evaluation.budget is 30: pruning needs 36 evaluations"]),
        (["correlation"], ["evaluation.kind is table; it compares a supernet with a table"]),
        (
            ["correlation", *options("evaluation.kind=supernet", "evaluation.table=null")],
            ["evaluation.table is null; it compares a supernet with a table"],
        ),
        (["correlation", *options("evaluation.kind=supernet"), "--merge", "median"], ["'median' is not allowed"]),
        (["operation", "--edge", "0-9", "--operation", "none"], ["no edge '0-9'; did you mean 0-"]),
        (["operation", "--edge", "0-1", "--operation", "conv_3x3"], ["'conv_3x3'; did you mean nor_conv_3x3?"]),
        (
            ["operation", "--edge", "0-1", "--operation", "none", "--networks", "5"],
            ["the tests need at least 20"],
        ),
        (
            ["operation", "--edge", "0-1", "--operation", "none", *options("evaluation.kind=supernet")],
            ["no source of scores; give --run RUN"],
        ),
        (["intervall"], ["invalid choice: 'intervall'"]),
    ],
)
def test_bad_words(
    by_table: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: Words, fragments: Words
) -> None:
    monkeypatch.chdir(tmp_path)
    what, *others = words
    refused(what, *by_table, *others, fragments=fragments, folder=tmp_path)


def test_an_out_that_exists_is_refused(by_table: Words, searched: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    fragments = ["exists and is not empty (1 entries, such as mine); choose another --out"]
    for words in (["gamma", *by_table], ["theta", str(searched)], ["topology", str(searched)]):
        refused(*words, "--out", tmp_path, fragments=fragments, folder=tmp_path)
    refused("gamma", "--out", tmp_path, "--resume", fragments=["is not an ablation"], folder=tmp_path)


def test_a_run_that_is_not_finished_or_has_no_shapes_is_refused(
    searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    copy = Path(shutil.copytree(searched, tmp_path / "run"))
    refused("topology", copy, "--heights", "tall", fragments=["'tall' is not a number"], folder=tmp_path)
    refused("topology", copy, "--heights", "1.5", fragments=["1.5 is not an integer"], folder=tmp_path)
    refused("topology", copy, *options("data.path=x"), fragments=["--set needs --verify"], folder=tmp_path)
    by_table = (copy / "config.yaml").read_text().replace("kind: supernet", "kind: table")
    by_table = by_table.replace("table: null", "table: made.parquet")
    (copy / "config.yaml").write_text(by_table)
    refused("topology", copy, "--verify", fragments=["a tabular search without weights"], folder=tmp_path)
    (copy / "config.yaml").write_text(by_table.replace("strategy: pruning", "strategy: random"))
    for what in ("theta", "topology"):
        refused(what, copy, fragments=["has no theta"], folder=tmp_path)
    (copy / "result.json").unlink()
    for what in ("theta", "topology"):
        refused(what, copy, fragments=["the run has not finished"], folder=tmp_path)
    refused("theta", tmp_path / "nowhere", fragments=["is not a run directory"], folder=tmp_path)


def test_a_space_whose_networks_have_no_height_is_refused(searched: Path) -> None:
    whole = FinishedRun.load(str(searched))
    problem = replace(whole.problem, costs={"params": whole.problem.costs["params"]})
    with pytest.raises(
        BudgetError, match=r"^topology: space 'cell' has no cost height; \{N, H\} describes cells: give a"
    ):
        shapes(replace(whole, problem=problem), [1], [2])


def test_what_is_no_line_of_a_trial_is_skipped() -> None:
    for line in (b"", b"{", b"null", b"[]", b"{}", b'{"label": "a"}'):
        assert Outcome.from_line(line) is None


def test_a_spread_of_what_is_known() -> None:
    assert Spread.of([0.5, None, 0.7]).text(100.0) == "60.00 ± 14.14"
    assert Spread.of([None]).text() == "not defined"
    assert Spread.of([0.5]).text() == "0.50"


def test_a_table_that_lacks_a_final_score_still_sums_up(table: Path, by_table: Words, tmp_path: Path) -> None:
    whole = pq.ParquetFile(table).read(use_threads=False)
    scores = whole["made_test_e200"].to_numpy().copy()
    scores[::2] = np.nan
    column = whole.schema.get_field_index("made_test_e200")
    pq.write_table(whole.set_column(column, "made_test_e200", pa.array(scores)), tmp_path / "holes.parquet")
    key = options(f"evaluation.table={tmp_path / 'holes.parquet'}")
    done("noprune", *by_table, *key, "--seeds", "4", "--out", tmp_path / "n")
    known = [row[TEST] for row in trials(tmp_path / "n") if row["label"] == "pruning" and row[TEST] is not None]
    assert summary(tmp_path / "n")[0]["scores"][TEST]["n"] == len(known)
