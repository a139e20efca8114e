"""The space of NAS-Bench-201: the contract in several shapes, every architecture of the benchmark, and genotypes.

Axes: N architectures, E edges, K candidates.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ddpnas_ray import generate, search
from ddpnas_ray.core.errors import ConfigError, GenotypeError
from ddpnas_ray.core.generation.budgets import Bound
from ddpnas_ray.core.generation.problem import Problem
from ddpnas_ray.core.generation.solve import Method, solve
from ddpnas_ray.core.schedule import planned_architecture_epochs
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.experiment.config import check
from ddpnas_ray.spaces.nasbench201.costs import OPERATIONS
from ddpnas_ray.spaces.nasbench201.space import OPS, from_string, make, to_string
from ddpnas_ray.spaces.target import Inputs, Target, TargetConfig
from ddpnas_ray.testing import SpaceContract, count_macs
from ddpnas_ray.training.epoch import fixed_threads
from tests.commands import options, run

BEST = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
CIFAR = Target(cells=5, channels=16, image_size=32, classes=10)
NONE, SKIP, CONV_1, CONV_3, POOL = range(5)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread: for these small layers synchronisation costs more than it saves."""
    with fixed_threads(1):
        yield


class TestOneCellAStage(SpaceContract):
    make = staticmethod(partial(make, cells=1, channels=4))
    target_config = TargetConfig(cells=2, channels=5)


class TestTwoCellsAStageOnOddImages(SpaceContract):
    make = staticmethod(partial(make, cells=2, channels=3))
    inputs = Inputs(shape=(3, 15, 15), outputs=4)
    target_config = TargetConfig(cells=1, channels=4, image_size=7)
    random_alphas = 2


# --- every architecture of the benchmark ---


@pytest.fixture(scope="module")
def benchmark(test_data: Path) -> pa.Table:
    """One row per architecture."""
    return pq.read_table(test_data / "nasbench201" / "nasbench201_cifar10.parquet")


@pytest.fixture(scope="module")
def alphas_NE(benchmark: pa.Table) -> IntArray:
    """The architectures, in the benchmark's order."""
    return np.stack([benchmark[f"edge{e}"].to_numpy() for e in range(6)], axis=1)


def test_every_string_is_the_architecture_of_its_row_and_comes_back(benchmark: pa.Table, alphas_NE: IntArray) -> None:
    strings = benchmark["arch_str"].to_pylist()
    assert len(set(strings)) == 5**6
    np.testing.assert_array_equal([from_string(text) for text in strings], alphas_NE)
    assert [to_string(alpha_E) for alpha_E in alphas_NE] == strings


@pytest.mark.parametrize(("cost", "column"), [("params", "cifar10_params"), ("flops", "cifar10_flops")])
def test_every_architecture_costs_what_the_benchmark_says(
    benchmark: pa.Table, alphas_NE: IntArray, cost: str, column: str
) -> None:
    table: Any = make().costs[cost](CIFAR)
    costs_N = table.base + table.entries_EK[np.arange(6), alphas_NE].sum(axis=1)
    np.testing.assert_array_equal(costs_N, benchmark[column].to_numpy())


def test_deploy_networks_cost_what_the_benchmark_says(benchmark: pa.Table, alphas_NE: IntArray) -> None:
    spec = make()
    empty = int(np.flatnonzero((alphas_NE == NONE).all(axis=1))[0])
    for row in [6111, empty, *range(0, 15_625, 2_605)]:
        with torch.device("meta"):
            network = spec.deploy(alphas_NE[row], CIFAR).eval()
            macs = count_macs(network, torch.empty(1, 3, 32, 32))
        assert sum(p.numel() for p in network.parameters()) == benchmark["cifar10_params"][row].as_py()
        assert macs + CIFAR.classes == benchmark["cifar10_flops"][row].as_py()


# --- networks ---


def test_a_node_is_the_sum_of_its_edges() -> None:
    """Doubling by two skips: node 1 is x, node 2 is 2 x, node 3 is x + x + 2 x."""
    network = make(cells=1, channels=2).build(np.full(6, SKIP), Inputs(shape=(1, 4, 4), outputs=2)).eval()
    x = torch.randn(2, 2, 4, 4)
    assert torch.equal(network.layers[0](x, ["skip_connect"] * 6), 4 * x)


@pytest.mark.parametrize("alpha", [(NONE,) * 6, (CONV_3, CONV_1, POOL, NONE, NONE, NONE)])
def test_a_cell_without_a_way_to_its_output_gives_zero(alpha: tuple[int, ...]) -> None:
    network = make(cells=1, channels=2).build(np.array(alpha), Inputs(shape=(1, 4, 4), outputs=2))
    out = network.layers[0](torch.randn(2, 2, 4, 4), [OPERATIONS[k] for k in alpha])
    assert out.shape == (2, 2, 4, 4)
    assert not out.any()


def test_only_the_deploy_form_has_affine_batch_norm() -> None:
    spec = make(cells=1, channels=2)
    alpha_E = from_string(BEST)
    searched, deployed = spec.build(alpha_E, Inputs(shape=(3, 4, 4), outputs=2)), spec.deploy(alpha_E, CIFAR)
    for network, affine in ((searched, False), (deployed, True)):
        norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        assert {module.affine for module in norms} == {affine}


# --- what can be chosen ---


def test_edges_groups_and_what_may_be_generated() -> None:
    space = make().space
    assert [edge.name for edge in space.edges] == ["0-1", "0-2", "1-2", "0-3", "1-3", "2-3"]
    assert all(edge.candidates == OPS for edge in space.edges)
    assert [op.name for op in OPS] == ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"]
    assert [op.name for op in OPS if op.group == "parameter"] == ["nor_conv_1x1", "nor_conv_3x3"]
    assert space.generable_EK.all()


def test_a_search_takes_36_architecture_epochs() -> None:
    assert planned_architecture_epochs(make().space, keep_per_group=1, epochs_per_round=3) == 36


@pytest.mark.parametrize(
    ("alpha", "nonparametric", "height"),
    [
        ((NONE, NONE, NONE, NONE, NONE, NONE), 6, 0),
        ((CONV_3, CONV_3, CONV_3, SKIP, CONV_3, CONV_1), 1, 3),
        ((CONV_3, CONV_1, NONE, NONE, POOL, NONE), 4, 2),
        ((NONE, CONV_1, CONV_1, CONV_3, CONV_3, NONE), 2, 1),
    ],
)
def test_n_and_h_by_hand(alpha: tuple[int, ...], nonparametric: int, height: int) -> None:
    costs = {name: cost(CIFAR)(np.array(alpha)) for name, cost in make().costs.items()}
    assert (costs["nonparametric"], costs["height"]) == (nonparametric, height)


@pytest.mark.parametrize("method", ["programme", "mip"])
@pytest.mark.parametrize("height", [1, 2, 3])
def test_generation_equals_enumeration(method: Method, height: int) -> None:
    space = make().space
    theta_EK = np.random.default_rng(height).dirichlet(np.ones(5), size=6)
    problem = Problem(space, theta_EK, space.exists_EK, {name: cost(CIFAR) for name, cost in make().costs.items()})
    budget = {"macs": Bound(None, 60_000_000), "height": Bound(height, height), "nonparametric": Bound(2, None)}
    (found,), (expected,) = solve(problem, budget, method=method), solve(problem, budget, method="enumeration")
    assert (found.alpha_E, found.costs) == (expected.alpha_E, expected.costs)


def test_equal_parts_have_equal_keys_and_are_timed_once() -> None:
    parts = make().parts(CIFAR)  # type: ignore[misc]
    # three operations on six edges have modules, and four on three edges come with an addition
    assert len(parts) == 4 + 3 * 5 * (3 * 6 + 4 * 3)
    assert len({part.key for part in parts}) == 4 + 3 * (3 + 1)
    assert "nor_conv_3x3 from 16x32x32" in {part.key for part in parts}


def test_a_search_and_the_networks_generated_from_it(tmp_path: Path) -> None:
    keys = [
        "space={name: nasbench201, cells: 1, channels: 2}",
        "data.train_limit=32",
        "data.val_limit=32",
        "pruning.epochs_per_round=1",
        "training.batch_size=16",
        "training.bn_images=16",
        "target={cells: 2, channels: 4}",
        "execution.backend=local",
    ]
    out = str(tmp_path / "run")
    said = run(search.main, *options(*keys), "--out", out)
    assert said.code == 0, said.err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    alpha_E = from_string(result["genotype"]["arch_str"])
    target = Target(cells=2, channels=4, image_size=8, classes=10, input_channels=1)
    assert result["costs"]["macs"] == make().costs["macs"](target)(alpha_E)
    assert "2 cells, 4 channels, 8 px, 10 classes" in said.out

    said = run(generate.main, out, "--budget", "nonparametric=3..3")
    assert said.code == 0, said.err
    (file,) = (tmp_path / "run" / "generated").rglob("genotype.json")
    generated = json.loads(file.read_text())
    chosen = [OPS[k].group for k in from_string(generated["genotype"]["arch_str"])]
    assert chosen.count("non_parameter") == 3


# --- options ---


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cell": 5}, "a.yaml: space.cell is not an option of space 'nasbench201'; did you mean cells?"),
        ({"cells": 0}, "a.yaml: space.cells is 0; input should be greater than or equal to 1"),
        ({"channels": 0}, "a.yaml: space.channels is 0; input should be greater than or equal to 1"),
    ],
)
def test_values_that_are_not_allowed(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        check({"space": {"name": "nasbench201", **given}}, "a.yaml")
    assert str(error.value).startswith(message)


def test_a_target_has_no_choice_of_stems() -> None:
    inputs = Inputs(shape=(3, 32, 32), outputs=10)
    assert str(Target.resolve(TargetConfig(), inputs, make().target)) == "5 cells, 16 channels, 32 px, 10 classes"
    with pytest.raises(ConfigError, match="networks of this space have one stem"):
        Target.resolve(TargetConfig(stem="cifar"), inputs, make().target)


# --- genotypes ---

FORM = "|operation~0|+|operation~0|operation~1|+|operation~0|operation~1|operation~2|"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (None, f"arch_str is None; a string is needed: {FORM}"),
        ([3, 3, 3, 1, 3, 2], f"arch_str is [3, 3, 3, 1, 3, 2]; a string is needed: {FORM}"),
        ("", f"arch_str has 1 nodes; 3 are needed: {FORM}"),
        ("|none~0|+|none~0|none~1|", f"arch_str has 2 nodes; 3 are needed: {FORM}"),
        (f"{BEST}+|none~0|", f"arch_str has 4 nodes; 3 are needed: {FORM}"),
        (BEST[1:], "node 1 of arch_str is 'nor_conv_3x3~0|'; |operation~0| is needed"),
        (
            BEST[:-1],
            "node 3 of arch_str is '|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2'; "
            "|operation~0|operation~1|operation~2| is needed",
        ),
        ("++", "node 1 of arch_str is ''; |operation~0| is needed"),
        (f" {BEST}", "node 1 of arch_str is ' |nor_conv_3x3~0|'; |operation~0| is needed"),
        (
            BEST.replace("|nor_conv_3x3~1|+", "|+"),
            "node 2 of arch_str is '|nor_conv_3x3~0|'; |operation~0|operation~1| is needed",
        ),
        (
            BEST.replace("nor_conv_1x1", "nor_conv_1x2"),
            "node 3 of arch_str: 'nor_conv_1x2' is not an operation; did you mean nor_conv_1x1?",
        ),
        (
            BEST.replace("nor_conv_1x1", "sep"),
            "node 3 of arch_str: 'sep' is not an operation; "
            "allowed: avg_pool_3x3, none, nor_conv_1x1, nor_conv_3x3, skip_connect",
        ),
        (
            BEST.replace("skip_connect~0", ""),
            "node 3 of arch_str: '' is not an operation; allowed: avg_pool_3x3, none, ",
        ),
        (
            BEST.replace("nor_conv_1x1~2", "nor_conv_1x1~1"),
            "node 3 of arch_str: 'nor_conv_1x1~1'; nor_conv_1x1~2 is needed here",
        ),
        (BEST.replace("nor_conv_1x1~2", "none"), "node 3 of arch_str: 'none'; none~2 is needed here"),
        (BEST.replace("nor_conv_1x1~2", "none~2~2"), "node 3 of arch_str: 'none~2~2'; none~2 is needed here"),
        (BEST.replace("nor_conv_1x1~2", "none~02\n"), "node 3 of arch_str: 'none~02\\n'; none~2 is needed here"),
    ],
)
def test_a_wrong_string_is_a_precise_error(wrong: Any, message: str) -> None:
    with pytest.raises(GenotypeError) as error:
        make().encode({"arch_str": wrong})
    assert str(error.value).startswith(f"genotype: {message}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", [{}, [], BEST, {"normal": [], "reduce": []}])
def test_a_genotype_has_the_string_under_its_key(wrong: Any) -> None:
    with pytest.raises(GenotypeError) as error:
        make().encode(wrong)
    assert str(error.value) == ("genotype: the key 'arch_str' with an architecture string of NAS-Bench-201 is missing")
