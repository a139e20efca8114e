"""The latency command: tables of a device, their check against whole networks, and errors."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpnas_ray import generate, latency, search
from ddpnas_ray.devices.table import read_table
from ddpnas_ray.spaces.cell.space import make
from ddpnas_ray.spaces.target import Target
from tests.commands import ENVIRONMENT, LOCAL, Said, contents, options, run
from tests.tasks.text.chain import make as make_texts

SPACE = ["--space", "cell", *options("space.nodes=1", "target.cells=3", "target.channels=4")]
TINY = [*SPACE, "--image-size", "8", "--classes", "10"]
SPEC = make(nodes=1)
TARGET = Target(cells=3, channels=4, image_size=8, classes=10, stem="cifar")


@pytest.fixture(scope="module")
def label(ray_cluster: None) -> Iterator[str]:
    """Run commands on the session's cluster; Ray gives its node this label."""
    import ray

    from ddpnas_ray.console import ray_connect

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_connect, "connected", lambda *_: nullcontext(""))
        yield f"ray.io/node-id={ray.get_runtime_context().get_node_id()}"


@pytest.fixture(scope="module")
def built(label: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """A table, and the output of its build."""
    path = tmp_path_factory.mktemp("built") / "new" / "t.parquet"
    return path, run(latency.main, "build", *TINY, "--device-label", label, "--passes", "2", "--out", path)


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a command in ``tmp_path`` that must fail with one line and leave every file unchanged."""
    monkeypatch.chdir(tmp_path)

    def command_refused(words: list[str | Path], *fragments: str) -> None:
        before = contents(tmp_path)
        said = run(latency.main, *words)
        assert (said.code, said.out) == (2, ""), said.err
        lines = [line for line in said.err.splitlines() if not line.startswith("starting Ray on this machine")]
        assert len(lines) == 1
        assert all(fragment in said.err for fragment in fragments), said.err
        assert contents(tmp_path) == before

    return command_refused


# --- build ---


@pytest.mark.ray
def test_a_table_has_every_part_of_every_choice(built: tuple[Path, Said], label: str) -> None:
    path, said = built
    assert said.code == 0, said.err
    table = read_table(str(path))
    assert table.device == label
    assert table.machine["cores"] == os.cpu_count()
    assert {name: table.timing[name] for name in ("threads", "batch", "dtype", "device", "passes")} == {
        "threads": 1,
        "batch": 1,
        "dtype": "fp32",
        "device": "cpu",
        "passes": 2,
    }
    assert table.space == {"name": "cell", "cells": 6, "nodes": 1, "channels": 16}
    table.require_target(dataclasses.asdict(TARGET))
    assert all(0 < row.latency.q1_ns <= row.latency.median_ns <= row.latency.q3_ns for row in table.rows)

    parts = SPEC.parts(TARGET) if SPEC.parts else []
    assert sum(row.count for row in table.rows) == len(parts)
    by_key = {row.key: row.latency.median_ns for row in table.rows}
    assert len(by_key) == len({part.key for part in parts})
    cost = table.cost(SPEC.space)
    alpha = np.array([4, 0, 1, 3])
    chosen = [part for part in parts if part.edge is None or alpha[part.edge] == part.candidate]
    assert cost(alpha) == sum(by_key[part.key] for part in chosen)
    assert cost.entries_EK[0, 0] == 0, "none takes no time"
    assert cost.entries_EK[0, 3] == 0, "nor does a skip of stride 1"


@pytest.mark.ray
def test_building_prints_a_summary(built: tuple[Path, Said]) -> None:
    path, said = built
    parts = len({row.key for row in read_table(str(path)).rows})
    assert f"{parts} distinct parts of space cell (3 cells, 4 channels, 8 px, 10 classes, cifar stem)" in said.out
    for word in ("base ", "slowest ", "reference ", f"table {path}"):
        assert f"\n{word}" in said.out


@pytest.mark.ray
def test_a_table_that_exists_is_replaced_by_force_only(label: str, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_text("mine")
    words = ["build", *TINY, "--device-label", label, "--passes", "1", "--out", path]
    said = run(latency.main, *words)
    assert (said.code, path.read_text()) == (2, "mine")
    assert said.err == f"DataError: {path}: exists; choose another --out, or overwrite it with --force\n"
    assert run(latency.main, *words, "--force").code == 0
    assert read_table(str(path)).device == label


@pytest.mark.ray
def test_the_table_of_a_run_bounds_what_is_generated_from_it(label: str, tmp_path: Path) -> None:
    out, path = tmp_path / "run", tmp_path / "t.parquet"
    assert run(search.main, *LOCAL, "--out", out).code == 0
    said = run(latency.main, "build", "--run", out, "--device-label", label, "--passes", "1", "--out", path)
    assert said.code == 0, said.err
    table = read_table(str(path))
    assert table.space == {"name": "cell", "cells": 2, "nodes": 2, "channels": 4}
    assert dict(table.target)["input_channels"] == 1

    words = ["--latency", path, "--device-label", label, "--budget", "latency=90%", "--json"]
    said = run(generate.main, out, *words)
    assert said.code == 0, said.err
    [network] = json.loads(said.out)
    cost = table.cost(make(nodes=2).space)
    assert network["costs"]["latency"] == cost(np.array(network["alpha"]))
    assert network["measured_latency_ns"] > 0

    other = tmp_path / "other.parquet"
    dataclasses.replace(table, target={**table.target, "image_size": 32}).save(str(other))
    said = run(generate.main, out, "--latency", other)
    assert said.code == 2 and "is for the target '3 cells, 4 channels, 32 px" in said.err


@pytest.mark.slow  # 10 to 20 s, most of which are Ray's
@pytest.mark.ray
def test_without_an_address_this_machine_is_the_device(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "ddpnas_ray.latency", "build", *TINY, "--device-label", "here", "--passes", "1"]
    done = subprocess.run(
        [*words, "--out", "t.parquet"], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert read_table(str(tmp_path / "t.parquet")).device == "ddpnas-device=here"


# --- texts ---

OF_TEXTS = ["--space", "tests.tasks.text.chain:make", *options("space.width=8", "space.gated=true")]
TOKENS = ["--sequence-length", "6", "--vocabulary", "50", "--classes", "3"]
GATED = make_texts(width=8, gated=True)
OF_SIX = Target(sequence_length=6, vocabulary=50, classes=3, input_channels=None)


@pytest.fixture(scope="module")
def of_texts(label: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """A table of networks of texts, some of one layer and some of two, and the output of its build."""
    path = tmp_path_factory.mktemp("texts") / "t.parquet"
    words = [*OF_TEXTS, *TOKENS, "--batch", "2", "--dtype", "bf16"]
    return path, run(latency.main, "build", *words, "--device-label", label, "--passes", "1", "--out", path)


@pytest.mark.ray
def test_networks_of_texts_cost_the_parts_of_their_active_layers(of_texts: tuple[Path, Said]) -> None:
    path, said = of_texts
    assert said.code == 0, said.err
    assert (
        "4 distinct parts of space tests.tasks.text.chain:make (6 tokens, 3 classes), 1 thread(s), batch 2" in said.out
    )
    table = read_table(str(path))
    table.require_target(dataclasses.asdict(OF_SIX))
    ns = {row.key: row.latency.median_ns for row in table.rows}
    assert ns.keys() == {"embeddings", "head", "mlp", "attention"}
    cost, base = table.cost(GATED.space), ns["embeddings"] + ns["head"]
    assert cost(np.array([0, 1, 1])) == base + ns["mlp"] + ns["attention"]
    assert cost(np.array([0, 1, 0])) == base + ns["mlp"], "its second layer is inactive"
    assert cost(np.array([2, 1, 0])) == base


@pytest.mark.ray
def test_networks_of_texts_are_measured_whole(of_texts: tuple[Path, Said], tmp_path: Path) -> None:
    file = tmp_path / "measured.csv"
    words = ["--networks", "4", "--full-depth-networks", "3", "--passes", "1", "--csv", file]
    said = run(latency.main, "check", of_texts[0], *words)
    assert said.code == 0, said.err
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    cost = read_table(str(of_texts[0])).cost(GATED.space)
    assert all(int(row["predicted_ns"]) == cost(np.array([int(k) for k in row["alpha"].split()])) for row in rows)
    assert {row["alpha"].split()[2] for row in rows if row["population"] == "full_depth"} == {"1"}


# --- check ---


@pytest.mark.ray
def test_sums_of_parts_are_compared_with_whole_networks(built: tuple[Path, Said], tmp_path: Path) -> None:
    path, file = str(built[0]), tmp_path / "measured.csv"
    words = ["check", path, "--networks", "3", "--full-depth-networks", "2", "--passes", "1"]
    said = run(latency.main, *words, "--json", "--csv", file)
    assert said.code == 0, said.err
    found = json.loads(said.out)
    table = read_table(path)
    assert found["device"] == table.device
    assert found["reference"]["table_ns"] == table.reference.median_ns
    assert found["reference"]["now_ns"] > 0
    assert {name: p["networks"] for name, p in found["populations"].items()} == {"any_depth": 3, "full_depth": 2}
    for population in found["populations"].values():
        for figures in (population, population["as_measured"]):
            assert figures["median_relative_error"] >= 0
            assert figures["spearman"] is None or -1 <= figures["spearman"] <= 1

    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    cost = table.cost(SPEC.space)
    parameter_EK = SPEC.space.group_EK("parameter")
    assert [row["population"] for row in rows] == 3 * ["any_depth"] + 2 * ["full_depth"]
    for row in rows:
        alpha = np.array([int(k) for k in row["alpha"].split()])
        assert int(row["predicted_ns"]) == cost(alpha)
        assert int(row["measured_ns"]) > 0 and int(row["as_measured_ns"]) > 0
        assert SPEC.space.generable_EK[np.arange(4), alpha].all()
        if row["population"] == "full_depth":
            assert parameter_EK[np.arange(4), alpha].all()
    predicted, measured = (np.array([int(row[name]) for row in rows[:3]]) for name in ("predicted_ns", "measured_ns"))
    figures = found["populations"]["any_depth"]
    assert figures["bias"] == pytest.approx((predicted / measured - 1).mean())
    assert figures["median_relative_error"] == pytest.approx(np.median(abs(predicted / measured - 1)))


@pytest.mark.ray
def test_one_population_is_enough(built: tuple[Path, Said]) -> None:
    said = run(latency.main, "check", built[0], "--networks", "2", "--full-depth-networks", "0", "--passes", "1")
    assert said.code == 0, said.err
    first, second, third = said.out.splitlines()
    assert first.startswith("reference network: ")
    assert second.startswith("2 networks, any depth: median relative error ")
    assert third.startswith("  without drift correction: ")


def test_ranks_that_do_not_differ_have_no_correlation() -> None:
    assert latency._spearman(np.array([1.0, 2.0, 5.0]), np.array([10.0, 30.0, 20.0])) == pytest.approx(0.5)
    assert latency._spearman(np.array([1.0, 1.0]), np.array([1.0, 2.0])) is None
    assert latency._spearman(np.array([1.0]), np.array([1.0])) is None


def test_networks_depend_on_the_seed_alone() -> None:
    def draw(**changes: Any) -> list[tuple[int, ...]]:
        return latency._draw(make().space, 20, **{"seed": 0, "full_depth": False} | changes)

    assert draw() == draw()
    assert draw() != draw(seed=1)
    assert all(sum(k > 0 for k in alpha) == 16 for alpha in draw()), "two inputs a node"
    assert all({k for k in alpha if k} <= {4, 5, 6, 7} for alpha in draw(full_depth=True))


# --- bad input ---


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "the following arguments are required: build|check"),
        (["biuld"], "invalid choice: 'biuld'"),
        (["build", "--out", "t"], "--device-label"),
        (["build", "--device-label", "a", "--out", "t"], "one of the arguments --space --config --run is required"),
        (["build", "--space", "cell", "--run", "r", "--device-label", "a", "--out", "t"], "not allowed with argument"),
        (["build", "--run", "r", "--classes", "3", "--device-label", "a", "--out", "t"], "--run sets space and target"),
        (["build", *TINY, "--target", "cells=3", "--device-label", "a", "--out", "t"], "--target needs --run"),
        (["build", *TINY, "--device-label", "a", "--out", "t", "--passes", "0"], "not an integer of at least 1"),
        (["build", *TINY, "--device-label", "a b", "--out", "t"], "device label 'a b'"),
        (["build", "--space", "cel", "--device-label", "a", "--out", "t"], "did you mean cell?"),
        (["build", "--space", "cell", "--device-label", "a", "--out", "t"], "target.image_size is not set"),
        (["build", *SPACE, "--image-size", "8", "--device-label", "a", "--out", "t"], "give --classes"),
        (
            ["build", *TINY, "--vocabulary", "50", "--device-label", "a", "--out", "t"],
            "--vocabulary: networks of space 'cell' have no such size; give --image-size, --input-channels, --classes",
        ),
        (
            ["build", *OF_TEXTS, "--image-size", "8", "--device-label", "a", "--out", "t"],
            "no such size; give --sequence-length, --vocabulary, --classes",
        ),
        (
            ["build", *OF_TEXTS, *TOKENS[:2], "--device-label", "a", "--out", "t"],
            "vocabulary is not set and no data set is read; give --vocabulary",
        ),
        (
            ["build", *OF_TEXTS, *options("target.image_size=8"), *TOKENS, "--device-label", "a", "--out", "t"],
            "target.image_size is 8; networks of this space take no such inputs",
        ),
        (["build", "--config", "absent.yaml", "--device-label", "a", "--out", "t"], "absent.yaml: cannot be read"),
        (["build", "--run", "absent", "--device-label", "a", "--out", "t"], "absent: is not a run directory"),
        (["build", *TINY, "--set", "space.node=2", "--device-label", "a", "--out", "t"], "did you mean nodes?"),
        (
            ["build", "--space", "tests.spaces.test_own_space:make", *TINY[-4:], "--device-label", "a", "--out", "t"],
            "does not list the parts",
        ),
        (["build", *TINY, "--device-label", "a", "--out", "t", "--address", "127.0.0.1:1"], "no Ray cluster answers"),
        (["check", "absent.parquet"], "absent.parquet: no such file"),
        (["check", "t", "--networks", "0", "--full-depth-networks", "0"], "are both 0"),
        (["check", "t", "--networks", "-1"], "not an integer of at least 0"),
    ],
)
def test_bad_input_takes_one_line(refused: Callable[..., None], words: list[str | Path], named: str) -> None:
    refused(words, named)


@pytest.mark.ray
def test_a_label_that_no_node_has_is_refused(refused: Callable[..., None], label: str) -> None:
    refused(
        ["build", *TINY, "--device-label", "jetson", "--out", "t.parquet"],
        "no node of the cluster has ddpnas-device=jetson",
    )


@pytest.mark.ray
def test_a_table_of_a_space_that_has_changed_is_refused(
    refused: Callable[..., None], built: tuple[Path, Said], tmp_path: Path
) -> None:
    table = read_table(str(built[0]))
    dataclasses.replace(table, edges=table.edges[:-1]).save(str(tmp_path / "t.parquet"))
    refused(["check", "t.parquet"], "it is for space 'cell' with 3 edges; space 'cell' has 4 here")
    dataclasses.replace(table, space={"name": "cell", "nods": 1}).save(str(tmp_path / "t.parquet"))
    refused(["check", "t.parquet"], "t.parquet: space.nods is not an option of space 'cell'; did you mean nodes?")
