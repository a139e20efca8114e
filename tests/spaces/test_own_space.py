"""Custom search spaces, each one function found as ``module:function``: a chain, and one that shares slices.

Axes: E edges, K candidates.
"""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ddpnas_ray import generate, report, search
from ddpnas_ray.core.errors import ConfigError, GenotypeError
from ddpnas_ray.core.schedule import planned_architecture_epochs
from ddpnas_ray.core.space import CostTable, Edge, Gate, IntArray, Op, SearchSpace, each_edge_alone
from ddpnas_ray.core.state import initial_state
from ddpnas_ray.costs.convnet import batch_norm, cell_op, conv, linear
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.execution.local import LocalExecutor
from ddpnas_ray.experiment.finished import FinishedRun
from ddpnas_ray.experiment.loop import run_search
from ddpnas_ray.runs.files import read_evaluations
from ddpnas_ray.spaces.base import SpaceSpec, decode_edges, encode_edges, find_space
from ddpnas_ray.spaces.cell.space import make as make_cell
from ddpnas_ray.spaces.target import Inputs, Target
from ddpnas_ray.strategies.pruning import Pruning
from ddpnas_ray.tasks.classification.task import make as make_task
from ddpnas_ray.testing import SpaceContract
from ddpnas_ray.training.config import TrainingConfig
from ddpnas_ray.training.trainer import Trainer

if TYPE_CHECKING:
    from torch import Tensor, nn

# --- a chain of layers: one operation each ---

CONV, WIDE = Op("sep_conv_3x3", "parameter"), Op("sep_conv_5x5", "parameter")
SKIP, POOL = Op("skip_connect", "non_parameter"), Op("avg_pool_3x3", "non_parameter")


def make(*, channels: int = 8) -> SpaceSpec:
    edges = (
        Edge("layer0", (CONV, WIDE, SKIP, POOL)),
        Edge("layer1", (CONV, SKIP, POOL)),
        Edge("layer2", (SKIP, POOL, WIDE, CONV)),
    )
    space = SearchSpace("tiny", edges, each_edge_alone(edges))
    return SpaceSpec(
        space,
        supernet=partial(_chain_supernet, edges, channels),
        build=partial(_chain_of, edges, channels),
        deploy=partial(_chain_deploy, edges, channels),
        encode=partial(encode_edges, edges),
        decode=partial(decode_edges, edges),
        costs={kind: partial(_chain_costs, kind, edges, channels) for kind in ("params", "macs")},
    )


def _chain(names: list[tuple[str, ...]], channels: int, inputs: tuple[int, int], *, affine: bool) -> nn.Module:
    import torch
    from torch import nn

    from ddpnas_ray.nn.ops import build_op
    from ddpnas_ray.nn.weights import Piece

    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(inputs[0], channels, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(channels, affine=affine)
            self.layers = nn.ModuleList(
                nn.ModuleDict({name: build_op(name, channels, 1, affine=affine) for name in layer}) for layer in names
            )
            self.head = nn.Linear(channels, inputs[1])

        def forward(self, x: Tensor, alpha_E: IntArray | None = None) -> Tensor:
            x = self.norm(self.stem(x))
            for e, layer in enumerate(self.layers):
                x = x + layer[names[e][0 if alpha_E is None else int(alpha_E[e])]](x)
            return self.head(torch.mean(x, dim=(2, 3)))

        def pieces(self, alpha_E: IntArray) -> list[Piece]:
            chosen = {f"layers.{e}.{names[e][int(k)]}." for e, k in enumerate(alpha_E)}
            return [
                Piece(name, tuple(parameter.shape))
                for name, parameter in self.named_parameters()
                if not name.startswith("layers.") or any(name.startswith(prefix) for prefix in chosen)
            ]

    return Chain()


def _chain_supernet(edges: tuple[Edge, ...], channels: int, inputs: Inputs) -> Any:
    names = [tuple(op.name for op in edge.candidates) for edge in edges]
    return _chain(names, channels, (inputs.channels, inputs.outputs), affine=False)


def _chain_of(edges: tuple[Edge, ...], channels: int, alpha_E: IntArray, inputs: Inputs) -> nn.Module:
    names = [(edge.candidates[k].name,) for edge, k in zip(edges, alpha_E, strict=True)]
    return _chain(names, channels, (inputs.channels, inputs.outputs), affine=False)


def _chain_deploy(edges: tuple[Edge, ...], channels: int, alpha_E: IntArray, target: Target) -> nn.Module:
    names = [(edge.candidates[k].name,) for edge, k in zip(edges, alpha_E, strict=True)]
    return _chain(names, channels, (target.input_channels, target.classes), affine=True)


def _chain_costs(kind: str, edges: tuple[Edge, ...], channels: int, target: Target) -> CostTable:
    size = target.image_size
    base = (
        conv(target.input_channels, channels, kernel=3, size=size)
        + batch_norm(channels, size=size)
        + linear(channels, target.classes)
    )
    entries_EK = np.zeros((3, 4), dtype=np.int64)
    for e, edge in enumerate(edges):
        for k, op in enumerate(edge.candidates):
            entries_EK[e, k] = getattr(cell_op(op.name, channels, stride=1, size=size), kind)
    return CostTable(getattr(base, kind), entries_EK)


class TestTinySpace(SpaceContract):
    make = staticmethod(make)


# --- a multi-layer perceptron whose widths are nested slices of one matrix, and whose second layer may be left out ---

DEPTHS, WIDTHS = (1, 2), (8, 24, 16)


def make_elastic() -> SpaceSpec:
    widths = tuple(Op(str(width), "parameter") for width in WIDTHS)
    edges = (
        Edge("depth", tuple(Op(str(depth), "parameter") for depth in DEPTHS)),
        Edge("width1", widths),
        Edge("width2", widths),
    )
    gate = Gate(0, inactive=((2,), ()))
    return SpaceSpec(
        SearchSpace("elastic", edges, ((0, 2), (1,)), gate),
        supernet=_elastic_supernet,
        build=_elastic_of,
        deploy=_elastic_deploy,
        encode=partial(encode_edges, edges, gate=gate),
        decode=partial(decode_edges, edges, gate=gate),
        costs={"units": _units},
    )


def _units(target: Target) -> CostTable:
    """Hidden units; the first layer's are counted with its edge, those of the second only where there is one."""
    return CostTable(target.classes, np.array([[0, 0, 0], WIDTHS, WIDTHS]))


def _widths_of(alpha_E: IntArray) -> list[int]:
    return [WIDTHS[k] for k in alpha_E[1 : 1 + DEPTHS[alpha_E[0]]]]


def _elastic(widths: list[int], inputs: Inputs) -> nn.Module:
    import torch.nn.functional as F
    from torch import nn

    from ddpnas_ray.nn.weights import Piece

    pixels = inputs.channels * inputs.image_size**2

    class Elastic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in zip([pixels, *widths], widths, strict=False))
            self.head = nn.Linear(widths[-1], inputs.outputs)

        def forward(self, x: Tensor, alpha_E: IntArray | None = None) -> Tensor:
            x = x.flatten(1)
            if alpha_E is None:
                for layer in self.hidden:
                    x = layer(x).relu()
                return self.head(x)
            for (weight, weight_part), (bias, bias_part) in self._parts(alpha_E):
                last = weight is self.head.weight
                x = F.linear(x, weight[weight_part].contiguous(), bias[bias_part])
                x = x if last else x.relu()
            return x

        def pieces(self, alpha_E: IntArray) -> list[Piece]:
            names = {id(parameter): name for name, parameter in self.named_parameters()}
            return [
                Piece(names[id(parameter)], tuple(parameter[part].shape), part)
                for pair in self._parts(alpha_E)
                for parameter, part in pair
            ]

        def _parts(self, alpha_E: IntArray) -> list[Any]:
            """(weight, slices) and (bias, slices) of every layer."""
            before, parts = slice(0, pixels), []
            for layer, width in zip(self.hidden, _widths_of(alpha_E), strict=False):
                parts.append(((layer.weight, (slice(0, width), before)), (layer.bias, (slice(0, width),))))
                before = slice(0, width)
            everything = slice(0, inputs.outputs)
            return [*parts, ((self.head.weight, (everything, before)), (self.head.bias, (everything,)))]

    return Elastic()


def _elastic_supernet(inputs: Inputs) -> Any:
    return _elastic([max(WIDTHS)] * max(DEPTHS), inputs)


def _elastic_of(alpha_E: IntArray, inputs: Inputs) -> nn.Module:
    return _elastic(_widths_of(alpha_E), inputs)


def _elastic_deploy(alpha_E: IntArray, target: Target) -> nn.Module:
    return _elastic_of(alpha_E, target.inputs)


class TestElasticSpace(SpaceContract):
    make = staticmethod(make_elastic)

    # Its supernet computes with slices, without calling modules; the test of gradients says the same.
    test_a_forward_pass_runs_the_sampled_modules_and_nothing_else = None


# --- found by name, and searched ---


@pytest.mark.parametrize(
    ("genotype", "message"),
    [
        ({"layer0": "skip_connect"}, "an operation for each of layer0, layer1, layer2 is needed"),
        (["skip_connect"] * 3, "an operation for each of layer0, layer1, layer2 is needed"),
        (
            {"layer0": "skip_connect", "layer1": "sep_conv_5x5", "layer2": "skip_connect"},
            "layer1: 'sep_conv_5x5' is not an operation of this edge; did you mean sep_conv_3x3?",
        ),
        (
            {"layer0": 1, "layer1": "skip_connect", "layer2": "skip_connect"},
            "layer0: 1 is not an operation of this edge",
        ),
    ],
)
def test_a_genotype_by_edges_that_does_not_fit_is_refused(genotype: Any, message: str) -> None:
    with pytest.raises(GenotypeError, match=message):
        make().encode(genotype)


def test_a_genotype_names_active_edges_alone() -> None:
    spec = make_elastic()
    assert spec.decode(np.array([0, 2, 1])) == {"depth": "1", "width1": "16"}
    assert spec.encode({"depth": "1", "width1": "16"}).tolist() == [0, 2, 0]
    assert spec.encode({"depth": "2", "width1": "16", "width2": "24"}).tolist() == [1, 2, 1]
    for genotype, message in (
        ({"depth": "1", "width1": "16", "width2": "24"}, "an operation for each of depth, width1 is needed"),
        ({"depth": "2", "width1": "16"}, "an operation for each of depth, width1, width2 is needed"),
        ({"width1": "16"}, "an operation for each of depth, width1, width2 is needed"),
        ({"depth": "3", "width1": "16"}, "depth: '3' is not an operation of this edge"),
    ):
        with pytest.raises(GenotypeError, match=message):
            spec.encode(genotype)


def test_its_costs_have_the_gate_of_the_space() -> None:
    spec = make_elastic()
    copied = replace(spec, costs={**spec.costs, "more": _units})
    for name, cost in pickle.loads(pickle.dumps(copied)).costs.items():
        units = cost(Target(image_size=8, classes=10))
        assert [units(np.array(alpha)) for alpha in ((0, 2, 1), (1, 2, 1))] == [10 + 16, 10 + 16 + 24], name


@pytest.mark.parametrize("function", [make, make_elastic])
def test_a_space_is_found_as_module_and_function(function: Callable[..., SpaceSpec]) -> None:
    assert find_space(f"{__name__}:{function.__name__}") is function


def test_a_built_in_space_is_found_by_its_name() -> None:
    assert find_space("cell") is make_cell


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cel", "'cel' is not a built-in space or module:function; did you mean cell?"),
        ("no_such_lab.tiny:make", "'no_such_lab.tiny:make' cannot be imported: No module named 'no_such_lab'"),
        (f"{__name__}:mak", "has no attribute 'mak'; is its folder on PYTHONPATH?"),
        (f"{__name__}:CONV", "is a Op; a function that returns a SpaceSpec is needed"),
    ],
)
def test_an_unknown_space_is_an_error(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        find_space(name)
    assert message in str(error.value)


def test_a_whole_search_of_a_space_of_ones_own() -> None:
    spec, strategy = find_space(f"{__name__}:make")(channels=4), Pruning(epochs_per_round=2, lr=0.1)
    task = make_task(DataConfig(name="digits", train_limit=256, val_limit=64), seed=0)
    trainer = Trainer(spec=spec, task=task, config=TrainingConfig(batch_size=16, bn_images=64), seed=0)
    executor = LocalExecutor(trainer)
    saved = []
    state = run_search(
        strategy,
        executor,
        spec.space,
        initial_state(spec.space, 0),
        save=lambda state, weights: saved.append(state.epoch),
    )
    assert len(state.evaluations) == planned_architecture_epochs(spec.space, 1, 2) == 2 * (4 + 3)
    assert saved == [1, 2, 3, 4]
    assert (state.live_EK.sum(axis=1) == 2).all()
    assert all(row.ok and 0.0 <= row.score <= 1.0 for row in state.evaluations)
    last = [row.score for row in state.evaluations if row.epoch == 3]
    assert max(last) > 0.3, "it learns: ten classes, a tenth by chance"
    genotype = spec.decode(spec.argmax(state.theta_EK, state.live_EK))
    assert set(genotype) == {"layer0", "layer1", "layer2"}


def test_a_search_of_slices_ends_although_an_edge_was_inactive() -> None:
    spec = make_elastic()
    task = make_task(DataConfig(name="digits", train_limit=64, val_limit=64), seed=0)
    executor = LocalExecutor(Trainer(spec=spec, task=task, config=TrainingConfig(batch_size=16, bn_images=0), seed=0))
    state = run_search(
        Pruning(epochs_per_round=1, lr=0.1),
        executor,
        spec.space,
        initial_state(spec.space, 0),
        save=lambda *saved: None,
    )
    assert state.live_EK[:2].sum(axis=1).tolist() == [1, 1]
    for row in state.evaluations:
        assert row.ok


def test_the_command_searches_a_space_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])  # the commands replace them
    out = str(tmp_path / "run")
    words = _words(f"space={{name: '{__name__}:make', channels: 4}}", "pruning.epochs_per_round=1")
    assert search.main([*words, "--out", out]) == 0
    assert report.main([out, "--verify-fingerprint"]) == 0
    assert "agrees" in capsys.readouterr().out


def test_networks_of_every_depth_are_generated_verified_and_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands on a conditional space, whose description they read from the run directory."""
    monkeypatch.setattr(logging.root, "handlers", [])
    out = tmp_path / "run"
    keys = [f"space={{name: '{__name__}:make_elastic'}}", "pruning.epochs_per_round=2", "training.bn_images=0"]
    finals = ["finals.networks=3", "finals.first_epochs=1", "finals.epochs=2"]
    words = _words(*keys, "pruning.keep_per_group=2", *finals)
    assert search.main([*words, "--out", str(out), "--then", "finals"]) == 0
    assert json.loads((out / "finals/unbounded/result.json").read_text())["networks"]
    assert report.main([str(out), "--html"]) == 0
    run = FinishedRun.load(str(out))
    live_EK = run.problem.choosable_EK
    assert live_EK.sum(axis=1).tolist() == [2, 2, 2]
    units = sorted({run.problem.costs["units"](np.array(alpha)) for alpha in product(*map(np.flatnonzero, live_EK))})
    assert (
        generate.main(
            [str(out), "--budget", f"units=..{units[0]}", "--budget", f"units={units[-1]}..", "--verify", "2"]
        )
        == 0
    )
    networks = [json.loads(path.read_text()) for path in sorted(out.glob("generated/*/genotype.json"))]
    assert sorted(len(network["genotype"]) for network in networks) == [2, 3]
    for network in networks:
        assert all("score" in candidate for candidate in network["candidates"])
    capsys.readouterr()
    assert generate.main([str(out), "--budget", f"units={units[0] + 1}..{units[0] + 1}"]) == 2
    assert f"nearest feasible: units {units[0]} or {units[1]}" in capsys.readouterr().err


@pytest.mark.parametrize("strategy", ["random", "evolution", "surrogate"])
def test_a_search_within_budgets_has_networks_of_the_depths_that_fit(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    out, keys = tmp_path / "run", [f"space={{name: '{__name__}:make_elastic'}}", "training.bn_images=0"]
    words = _words(
        *keys, f"strategy={strategy}", "evaluation.budget=7", "surrogate.initial=2", "evolution.population=2"
    )
    assert search.main([*words, "--budget", "units=26", "--budget", "units=34..", "--out", str(out)]) == 0
    rows = json.loads((out / "result.json").read_text())["budgets"]
    assert [row["costs"]["units"] <= 26 for row in rows] == [True, False]
    space = make_elastic().space
    alphas = [row.alpha_E for row in read_evaluations((out / "evaluations.parquet").read_bytes())]
    assert len(alphas) == 7
    assert strategy == "evolution" or len(set(alphas)) == 7, "of twelve networks"
    assert all(tuple(space.canonical(np.array(alpha)).tolist()) == alpha for alpha in alphas)


def _words(*options: str) -> list[str]:
    """The command line of a short search on the digits."""
    short = ["target={}", "data.train_limit=64", "data.val_limit=64", "training.batch_size=32"]
    short += ["execution.backend=local", "execution.gpus_per_worker=0"]
    return [word for option in (*short, *options) for word in ("--set", option)]
