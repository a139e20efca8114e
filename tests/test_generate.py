"""Networks for budgets, from a finished run. What the solver proves is tested in tests/core."""

from __future__ import annotations

import csv
import json
import math
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddpnas_ray import check, generate, search
from ddpnas_ray.core.generation.budgets import Bound
from ddpnas_ray.core.generation.problem import Problem
from ddpnas_ray.core.generation.solve import Certificate, Solution
from ddpnas_ray.core.space import CostTable, Edge, Op, SearchSpace, each_edge_alone
from ddpnas_ray.devices.config import TimingOptions
from ddpnas_ray.devices.table import Latency, LatencyRow, LatencyTable, edge_names
from ddpnas_ray.experiment.finished import FinishedRun, Generated, infeasible_text
from ddpnas_ray.experiment.yaml_text import parse
from ddpnas_ray.runs.files import read_costs, read_space
from ddpnas_ray.spaces.cell.space import make
from ddpnas_ray.spaces.target import Target
from ddpnas_ray.testing import count_bn_relu, count_macs
from tests.commands import ENVIRONMENT, LOCAL, Said, contents, options, run


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("searched") / "run"
    assert run(search.main, *LOCAL, "--out", out).code == 0
    return out


@pytest.fixture
def finished(searched: Path, tmp_path: Path) -> Path:
    """A copy for each test, so that none sees what another generated."""
    return Path(shutil.copytree(searched, tmp_path / "run"))


def network_of(run: Path, budget: str) -> dict[str, Any]:
    return json.loads((run / "generated" / budget / "genotype.json").read_text())  # type: ignore[no-any-return]


def budgets(*texts: str) -> list[str]:
    return [word for text in texts for word in ("--budget", text)]


def assert_counted(network: dict[str, Any]) -> None:
    """Instantiate a generated network and count it by hooks."""
    target = Target(**network["target"])
    spec = make(nodes=2)
    module = spec.deploy(np.array(network["alpha"]), target).eval()
    x = torch.zeros(1, target.input_channels, target.image_size, target.image_size)
    macs = count_macs(module, x)
    assert network["costs"]["params"] == sum(p.numel() for p in module.parameters())
    assert network["costs"]["macs"] == macs
    assert network["costs"]["macs_bn_relu"] == macs + count_bn_relu(module, x)
    assert spec.encode(network["genotype"]).tolist() == network["alpha"]


def test_without_a_budget_it_is_the_network_of_the_search(finished: Path) -> None:
    said = run(generate.main, finished)
    assert (said.code, said.err) == (0, "")
    result, network = json.loads((finished / "result.json").read_text()), network_of(finished, "unbounded")
    assert network["genotype"] == result["genotype"]
    assert network["costs"] == result["costs"]
    assert network["expectation"] == result["expectation"]
    assert network["search_fingerprint"] == result["fingerprint"]


def test_networks_keep_to_their_budgets_and_are_what_they_are_said_to_be(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    half = result["costs"]["params"] * 8 // 10
    said = run(generate.main, finished, *budgets("macs=85%", f"params={half}", "height=2..2,nonparametric=1..3"))
    assert (said.code, said.err) == (0, "")
    assert "3 of 3 budgets in " in said.out
    assert "target 3 cells, 4 channels, 8 px, 10 classes, cifar stem" in said.out
    limit = result["costs"]["macs"] * 85 // 100
    by_macs, by_params = network_of(finished, f"macs={limit}"), network_of(finished, f"params={half}")
    by_shape = network_of(finished, "height=2..2,nonparametric=1..3")
    assert by_macs["costs"]["macs"] <= limit
    assert by_params["costs"]["params"] <= half
    for kind in ("normal", "reduce"):
        assert by_shape["costs"][f"height.{kind}"] == 2
        assert 1 <= by_shape["costs"][f"nonparametric.{kind}"] <= 3
    theta = result["theta"]
    space = read_space((finished / "space.json").read_bytes())
    costs = read_costs((finished / "space.json").read_bytes())
    for network in (by_macs, by_params, by_shape):
        assert_counted(network)
        chosen = [
            theta[e][k] if space.edges[e].candidates[k].name != "none" else 0.0 for e, k in enumerate(network["alpha"])
        ]
        assert network["expectation"] == math.fsum(chosen) / len(chosen)
        assert network["costs"] == {name: cost(np.array(network["alpha"])) for name, cost in costs.items()}
        assert network["certificate"]["gap"] == 0
        assert network["certificate"]["bound"] == network["expectation"]
        assert all(json.loads((finished / "result.json").read_text())["live"][e][k] or k == 0
                   for e, k in enumerate(network["alpha"]))  # fmt: skip


def test_a_sweep_of_budgets(finished: Path) -> None:
    said = run(generate.main, finished, "--sweep", "macs=60%..100%:20", "--json")
    networks = json.loads(said.out)
    assert (said.code, len(networks)) == (0, 20)
    values = [network["expectation"] for network in networks]
    assert values == sorted(values)
    limits = [int(network["budget"].removeprefix("macs=")) for network in networks]
    assert limits == sorted(limits)
    assert all(network["costs"]["macs"] <= limit for network, limit in zip(networks, limits, strict=True))
    folder = finished / "generated"
    rows = list(csv.DictReader((folder / "table.csv").read_text().splitlines()))
    assert [row["budget"] for row in rows] == [network["budget"] for network in networks]
    assert [int(row["macs"]) for row in rows] == [network["costs"]["macs"] for network in networks]
    assert (folder / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert ET.fromstring((folder / "pareto.svg").read_text()).tag.endswith("svg")


def test_the_k_best_come_in_order_and_differ(finished: Path) -> None:
    assert run(generate.main, finished, "--budget", "macs=95%", "-k", "4").code == 0
    (folder,) = [path for path in (finished / "generated").iterdir() if path.is_dir()]
    candidates = network_of(finished, folder.name)["candidates"]
    values = [candidate["expectation"] for candidate in candidates]
    assert (len(candidates), values) == (4, sorted(values, reverse=True))
    assert len({tuple(candidate["alpha"]) for candidate in candidates}) == 4


@pytest.mark.parametrize("method", ["programme", "mip"])
def test_methods_agree(finished: Path, method: str) -> None:
    words = [finished, *budgets("macs=80%", "height=1..1"), "--json"]
    ours = json.loads(run(generate.main, *words, "--method", method).out)
    auto = json.loads(run(generate.main, *words).out)
    assert [n["certificate"]["method"] for n in ours] == [method, method]
    assert [n["expectation"] for n in ours] == pytest.approx([n["expectation"] for n in auto], abs=1e-12)


def test_equal_calls_write_equal_files(finished: Path) -> None:
    words = [finished, "--sweep", "macs=70%..100%:5"]
    assert run(generate.main, *words).code == 0
    before = contents(finished)
    assert run(generate.main, *words).code == 0
    assert contents(finished) == before


def test_pruned_operations_are_chosen_only_when_asked_for(finished: Path) -> None:
    live = np.array(json.loads((finished / "result.json").read_text())["live"])
    chosen = json.loads(run(generate.main, finished, "--include-pruned", "--budget", "macs=70%", "--json").out)[0]
    plain = json.loads(run(generate.main, finished, "--json").out)[0]
    assert all(live[e, k] or k == 0 for e, k in enumerate(plain["alpha"]))
    assert_counted(chosen)
    best = json.loads(run(generate.main, finished, "--include-pruned", "--json").out)[0]
    assert best["expectation"] >= plain["expectation"]


def test_costs_of_another_target(finished: Path) -> None:
    words = ["--target", "cells=5,channels=6,image_size=16,classes=3", "--json"]
    network = json.loads(run(generate.main, finished, "--budget", "params=90%", *words).out)[0]
    assert network["target"] == {
        "cells": 5, "channels": 6, "image_size": 16, "classes": 3, "input_channels": 1, "stem": "cifar",
    }  # fmt: skip
    assert_counted(network)


def test_the_costs_that_can_be_bounded_are_listed(finished: Path) -> None:
    said = run(generate.main, finished, "--costs")
    costs = json.loads((finished / "result.json").read_text())["costs"]
    assert said.out.split() == [word for name, value in costs.items() for word in (name, f"{value:,}")]


def test_a_generated_file_can_be_counted_again(finished: Path) -> None:
    assert run(generate.main, finished, "--budget", "macs=90%").code == 0
    (file,) = (finished / "generated").glob("*/genotype.json")
    network = json.loads(file.read_text())
    words = ["--cells", 3, "--channels", 4, "--image-size", 8, "--classes", 10, "--input-channels", 1]
    assert json.loads(run(check.main, "--genotype", file, *map(str, words)).out) == network["costs"]


# --- verification ---


def test_verifying_takes_the_best_scoring_of_the_m_best(finished: Path) -> None:
    said = run(generate.main, finished, *budgets("macs=90%", "macs=70%"), "--verify", "3", "--json")
    assert said.code == 0, said.err
    for network in json.loads(said.out):
        scores = [candidate["score"]["value"] for candidate in network["candidates"]]
        assert len(scores) == 3
        assert network["score"] == {"value": max(scores), "split": "val", "weights": "inherited from the supernet"}
        assert network["rank"] == 1 + scores.index(max(scores))
        assert 0 <= max(scores) <= 1


@pytest.mark.slow
@pytest.mark.ray
def test_ray_finds_and_scores_the_same(finished: Path) -> None:
    words = [*budgets("macs=90%", "height=1..1"), "--sweep", "macs=70%..100%:6", "--verify", "2"]
    here = json.loads(run(generate.main, finished, *words, "--json").out)
    command = [sys.executable, "-m", "ddpnas_ray.generate", str(finished), *words, "--json", "--backend", "ray"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == here


def test_other_data_than_the_searched_ones_are_refused(finished: Path) -> None:
    environment = json.loads((finished / "environment.json").read_text())
    (finished / "environment.json").write_text(json.dumps(environment | {"data_digest": "0" * 64}))
    said = refused(finished, "--verify", "2")
    assert "the data are not those that the run was started with" in said.err


def test_it_needs_neither_torch_nor_ray_unless_it_verifies(finished: Path) -> None:
    code = (
        "import sys; from ddpnas_ray.generate import main; code = main(sys.argv[1:]); "
        "sys.exit(code or ' '.join({'torch', 'ray'} & set(sys.modules)) or 0)"
    )
    words = [sys.executable, "-c", code, str(finished), "--sweep", "macs=70%..100%:3", "--budget", "height=1..2"]
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- what it refuses ---


def refused(finished: Path, *words: str) -> Said:
    """One line, exit code 2, and no file touched."""
    before = contents(finished)
    said = run(generate.main, finished, *words)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1), said.err
    assert contents(finished) == before
    return said


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (
            ["--budget", "macs=1"],
            ["BudgetError", "meets macs=1 ", "nearest feasible: macs "],
        ),
        (["--budget", "height=7"], None),
        (["--budget", "height=3..3"], ["height=3..3 is infeasible even alone", "height.normal 2, height.reduce 2"]),
        (["--budget", "mac=1M"], ["mac is not a cost of this space; did you mean macs?"]),
        (["--budget", "macs"], ["'macs' is not key=value"]),
        (["--budget", "macs=1ms"], ["'1ms' is not a value of macs; allowed units: k, M, G, %"]),
        (["--sweep", "macs=1M..2M:1"], ["n at least 2"]),
        (["--budget", "latency=1ms"], ["latency is not a cost of this space"]),
        (["--set", "data.path=x"], ["--set is for --verify"]),
        (["--verify", "2", "--set", "training.lr=1.0"], ["training.lr: the run is over"]),
        (["--verify", "0"], ["not a whole number from 1 up"]),
        (["--target", "image_sise=8"], ["'image_sise' is no part of this target; did you mean image_size?"]),
        (["--target", "cells=many"], ["cells is 'many'; a whole number"]),
        (["--method", "guess"], ["invalid choice: 'guess'"]),
    ],
)
def test_bad_words(finished: Path, words: list[str], fragments: list[str] | None) -> None:
    if fragments is None:
        assert run(generate.main, finished, *words).code == 0
        return
    said = refused(finished, *words)
    for fragment in fragments:
        assert fragment in said.err


def test_an_infeasible_budget_does_not_keep_the_others_from_being_written(finished: Path) -> None:
    said = run(generate.main, finished, *budgets("macs=1", "macs=100%"))
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "infeasible" in said.out
    assert len([path for path in (finished / "generated").iterdir() if path.is_dir()]) == 1


# Two edges of three operations each: costs (a, b) of every choice. The cheapest live one on each edge costs (2, 2).
COSTS = {"a": [[1, 2, 8], [1, 2, 8]], "b": [[1, 8, 2], [1, 8, 2]]}


@pytest.mark.parametrize(
    ("bounds", "include_pruned", "text"),
    [
        (
            {"a": 3},
            False,
            "meets a=3 (target T); nearest feasible: a 4; with --include-pruned it is feasible: a 3, E[alpha] 0.4000; "
            "change --budget, add --include-pruned, or search again with a larger pruning.keep_per_group",
        ),
        (
            {"a": 1},
            False,
            "meets a=1 (target T); nearest feasible: a 4; --include-pruned does not help: nearest feasible: a 2; "
            "change --budget",
        ),
        ({"a": 1}, True, "meets a=1 (target T); nearest feasible: a 2; change --budget"),
        (
            {"a": 1, "b": 9},
            True,
            "meets a=1,b=9 (target T); a=1 is infeasible even alone; nearest feasible with the other bounds held: a 2, "
            "b none; change --budget",
        ),
        (
            {"a": 1, "b": 1},
            True,
            "meets a=1,b=1 (target T); each of a=1,b=1 is infeasible even alone; nearest feasible, each on its own: "
            "a 2, b 2; change --budget",
        ),
        (
            {"a": 9, "b": 9},
            False,
            "meets a=9,b=9 (target T); each bound is feasible alone, but not together; nearest feasible with the other "
            "bounds held: a 16, b 16; with --include-pruned it is feasible: a 3, b 9, E[alpha] 0.4000; "
            "change --budget, add --include-pruned, or search again with a larger pruning.keep_per_group",
        ),
    ],
    ids=["pruned ones help", "they do not", "nothing pruned", "one alone", "both alone", "only together"],
)
def test_an_infeasible_budget_says_which_bound_is_to_blame_and_what_pruned_operations_would_do(
    searched: Path, bounds: dict[str, int], include_pruned: bool, text: str
) -> None:
    ops = tuple(Op(name, "parameter") for name in ("cheap", "slim", "fast"))
    edges = (Edge("first", ops), Edge("second", ops))
    choosable_EK = np.array([[include_pruned, True, True]] * 2)
    costs = {name: CostTable(0, np.array(entries_EK)) for name, entries_EK in COSTS.items()}
    theta_EK = np.array([[0.2, 0.5, 0.3], [0.0, 0.6, 0.4]])
    problem = Problem(SearchSpace("two", edges, each_edge_alone(edges)), theta_EK, choosable_EK, costs)
    run = replace(FinishedRun.load(str(searched)), problem=problem)
    said = infeasible_text(run, {name: Bound(None, bound) for name, bound in bounds.items()})
    assert said == f"no architecture of space 'two' {text}".replace("target T", f"target {run.target}")


def test_a_run_that_is_none_or_has_not_finished(tmp_path: Path, finished: Path) -> None:
    assert "is no run directory" in run(generate.main, tmp_path).err
    (finished / "result.json").unlink()
    assert "this run has not finished; go on with" in refused(finished).err


@pytest.mark.parametrize("name", ["space.json", "result.json", "config.yaml"])
def test_damaged_files_are_named(finished: Path, name: str) -> None:
    (finished / name).write_bytes((finished / name).read_bytes()[:100])
    assert name in refused(finished).err


@pytest.mark.parametrize("key", ["theta", "live", "target"])
def test_a_result_without_what_generation_needs(finished: Path, key: str) -> None:
    result = json.loads((finished / "result.json").read_text())
    del result[key]
    (finished / "result.json").write_text(json.dumps(result))
    assert f"result.json cannot be read: it knows no '{key}'" in refused(finished).err


def test_verification_options_are_a_valid_use_of_set(finished: Path) -> None:
    said = run(generate.main, finished, "--verify", "1", *options("execution.workers=2"))
    assert (said.code, said.err) == (0, "")


# --- latency ---


def latency_table(finished: Path, path: Path) -> LatencyTable:
    """A table of the run's target, made up: a microsecond for what all do, 10 for every parameter operation."""
    result = json.loads((finished / "result.json").read_text())
    config = parse((finished / "config.yaml").read_text(), "config.yaml")
    space = read_space((finished / "space.json").read_bytes())
    once = Latency(1_000, 900, 1_100, 10)
    rows = [LatencyRow(None, None, "stem", 1, once)] + [
        LatencyRow(edge.name, op.name, op.name, 10, once)
        for edge in space.edges
        for op in edge.candidates
        if op.group == "parameter"
    ]
    table = LatencyTable(
        rows=tuple(rows), device="ddpnas-device=pc", machine={}, timing=asdict(TimingOptions()), space=config["space"],
        edges=edge_names(space), target=result["target"], reference_alpha=tuple(result["alpha"]), reference=once,
        date="2026-11-24",
    )  # fmt: skip
    table.save(str(path))
    return table


def test_a_latency_budget_is_kept_on_the_table(finished: Path, tmp_path: Path) -> None:
    table = latency_table(finished, tmp_path / "pc.parquet")
    space = read_space((finished / "space.json").read_bytes())
    said = run(generate.main, finished, "--budget", "latency=21us", "--latency", tmp_path / "pc.parquet", "--json")
    network = json.loads(said.out)[0]
    parameter = sum(space.op(e, k).group == "parameter" for e, k in enumerate(network["alpha"]))
    assert parameter <= 2
    assert network["costs"]["latency"] == 1_000 + 10_000 * parameter == table.cost(space)(np.array(network["alpha"]))
    assert "latency=21us" in said.err


def test_a_table_of_another_target_or_space_is_refused(finished: Path, tmp_path: Path, test_data: Path) -> None:
    latency_table(finished, tmp_path / "pc.parquet")
    words = ["--budget", "latency=1ms", "--latency", str(tmp_path / "pc.parquet"), "--target", "cells=5"]
    assert "it is for the target" in refused(finished, *words).err
    published = str(test_data / "latency" / "proxylessnas_mobile.csv")
    assert "published tables are of the mobile space" in refused(finished, "--latency", published).err
    assert "no such file" in refused(finished, "--latency", "nowhere.parquet").err
    assert "give it with --latency" in refused(finished, "--device-label", "pc").err


def test_networks_that_measure_above_their_latency_budget_are_dropped_or_flagged() -> None:
    certificate = Certificate("programme", 0.5, 0.0, 1, "states")
    solutions = tuple(Solution((k,), 0.5 - k / 10, {"latency": 9}, certificate) for k in range(3))
    network = Generated({"latency": Bound(None, 10)}, solutions)
    assert network.choose([], [9, 9, 9]).best == solutions[0]
    assert network.choose([], [9, 9, 9]).flags == ()
    some = network.choose([], [12, 9, 9])
    assert some.best == solutions[1]
    assert some.flags == ("1 of 3 networks measured above the latency budget",)
    assert network.choose([0.1, 0.2, 0.9], [9, 9, 12]).best == solutions[1], "the best score of those that keep to it"
    none = network.choose([], [12, 13, 14])
    assert none.best == solutions[0]
    assert none.flags[-1] == "this one too: it is within its budget by the table alone"


@pytest.mark.slow
@pytest.mark.ray
def test_generated_networks_are_measured_on_the_device(finished: Path, tmp_path: Path) -> None:
    latency_table(finished, tmp_path / "pc.parquet")
    words = ["--budget", "latency=21us", "--latency", str(tmp_path / "pc.parquet"), "--device-label", "pc", "--json"]
    command = [sys.executable, "-m", "ddpnas_ray.generate", str(finished), *words]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    network = json.loads(done.stdout)[0]
    assert network["measured_latency_ns"] > 0
    assert network["flags"], "nothing runs in 21 microseconds"
