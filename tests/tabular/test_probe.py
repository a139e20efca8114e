"""The probe compares a supernet's ranking with the benchmark: a tiny one on digits, with the real table.

Axes: N networks of the probe, E edges.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import kendalltau

from ddpnas_ray import report, search
from ddpnas_ray.core.requests import EvalRequest, EvalResult
from ddpnas_ray.core.state import SearchState, initial_state
from ddpnas_ray.execution.base import OnResult
from ddpnas_ray.nn.weights import Float32Array
from ddpnas_ray.spaces.nasbench201.space import make
from ddpnas_ray.storage.parquet import read_parquet
from ddpnas_ray.tabular.probe import ROWS, Probe, Rows, read_probe
from ddpnas_ray.tabular.table import ScoreTable
from ddpnas_ray.testing import counted_space
from tests.commands import ONE_EPOCH, options, run

NETWORKS = 7
TINY = [
    "space={name: nasbench201, cells: 1, channels: 2}",
    "data.train_limit=32",
    "data.val_limit=64",
    "pruning.epochs_per_round=1",
    "training.batch_size=16",
    "training.bn_images=16",
    "target={cells: 1, channels: 2}",
    "execution.backend=local",
]
FINAL = "cifar10_test_e200"


# --- the probe alone ---

SPACE = counted_space("tiny", (3, 0, 0), (2, 0, 0))
ALPHAS = [(a, b) for a in range(3) for b in range(2)]


def tiny_table(scores: list[float] | None = None) -> ScoreTable:
    scores_N = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6] if scores is None else scores)
    return ScoreTable({alpha: i for i, alpha in enumerate(ALPHAS)}, {"t_test_e1": scores_N}, "0" * 64, "t.parquet")


class FakeExecutor:
    """Scores architectures from a list and records the requests."""

    def __init__(self, scores: Mapping[tuple[int, ...], float]) -> None:
        self.scores = scores
        self.asked: list[list[EvalRequest]] = []

    def evaluate(self, requests: Sequence[EvalRequest], on_result: OnResult | None = None) -> list[EvalResult]:
        self.asked.append(list(requests))
        found = [self.scores[tuple(int(k) for k in request.alpha_E)] for request in requests]
        return [EvalResult(score=score, loss=math.nan, ok=math.isfinite(score)) for score in found]

    def weights(self) -> Mapping[str, Float32Array]:
        return {}

    def load_weights(self, tensors: Mapping[str, Float32Array]) -> None:
        pass

    def close(self) -> None:
        pass


def probe_of(networks: int, table: ScoreTable | None = None, before: Rows = ()) -> Probe:
    return Probe.make(SPACE, table or tiny_table(), "t_test_e1", networks, before)


def state_after(epochs: int) -> SearchState:
    return replace(initial_state(SPACE, 0), epoch=epochs)


def test_its_networks_are_the_same_every_time_and_no_two_are_equal() -> None:
    probe, again = probe_of(4), probe_of(4)
    np.testing.assert_array_equal(probe.alphas_NE, again.alphas_NE)
    assert len({tuple(alpha) for alpha in probe.alphas_NE.tolist()}) == 4
    assert probe.truth_N == [tiny_table().score("t_test_e1", alpha_E) for alpha_E in probe.alphas_NE]
    assert len(probe_of(50).alphas_NE) == 6, "there are no more"


def test_it_scores_without_training_once_an_epoch() -> None:
    executor, probe = FakeExecutor(dict.fromkeys(ALPHAS, 0.5)), probe_of(4)
    probe.measure(executor, state_after(0))
    assert not executor.asked, "nothing is trained yet"
    for epochs in (1, 1, 2):
        probe.measure(executor, state_after(epochs))
    assert [[request.train for request in requests] for requests in executor.asked] == [[False] * 4] * 2
    assert [row["epoch"] for row in probe.rows] == [1] * 4 + [2] * 4


def test_tau_is_kendalls_and_knows_no_rank_of_what_diverged() -> None:
    truth = dict(zip(ALPHAS, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], strict=True))
    for inherited in (truth, {alpha: -score for alpha, score in truth.items()}, dict.fromkeys(ALPHAS, 0.5)):
        probe = probe_of(6)
        probe.measure(FakeExecutor(inherited), state_after(1))
        expected = kendalltau([inherited[alpha] for alpha in ALPHAS], list(truth.values())).statistic
        np.testing.assert_allclose(probe.tau_by_epoch()[1], expected)
    probe = probe_of(6)
    probe.measure(FakeExecutor({**truth, (0, 0): math.nan, (2, 1): math.nan}), state_after(1))
    assert probe.tau_by_epoch() == {1: pytest.approx(1.0)}
    probe = probe_of(6)
    probe.measure(FakeExecutor(dict.fromkeys(ALPHAS, math.nan)), state_after(1))
    assert math.isnan(probe.tau_by_epoch()[1])


def test_a_table_without_some_scores_still_ranks_the_others() -> None:
    probe = probe_of(6, tiny_table([0.1, math.nan, 0.3, 0.4, 0.5, 0.6]))
    scores = {alpha: i / 10 for i, alpha in enumerate(ALPHAS)}
    probe.measure(FakeExecutor(scores), state_after(1))
    assert probe.tau_by_epoch() == {1: pytest.approx(1.0)}


def test_what_was_measured_comes_back_and_what_a_resume_fell_behind_goes() -> None:
    executor, probe = FakeExecutor(dict.fromkeys(ALPHAS, 0.5)), probe_of(4)
    for epochs in (1, 2, 3):
        probe.measure(executor, state_after(epochs))
    table = read_parquet(probe.table())
    assert table.schema.equals(ROWS)
    again = probe_of(4, before=read_probe(probe.table()))
    assert again.rows == probe.rows
    again.measure(executor, state_after(2))
    assert {row["epoch"] for row in again.rows} == {1, 2}
    assert len(executor.asked) == 3, "epoch 2 is known"


# --- in a search ---


@pytest.fixture(scope="module")
def words(test_data: Path) -> list[str]:
    return options(*TINY, f"evaluation.table={test_data / 'nasbench201' / 'nasbench201_cifar10.parquet'}")


@pytest.fixture(scope="module")
def probing(words: list[str]) -> list[str]:
    return [*words, *options(f"evaluation.probe={NETWORKS}")]


@pytest.fixture(scope="module")
def finished(probing: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("probed") / "run"
    said = run(search.main, *probing, "--out", out)
    assert said.code == 0, said.err
    return out


def result_of(out: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((out / "result.json").read_text())
    return result


def rows_of(out: Path) -> list[dict[str, Any]]:
    return pq.ParquetFile(out / "probe.parquet").read(use_threads=False).to_pylist()


def test_there_is_a_row_a_network_and_epoch(finished: Path, test_data: Path) -> None:
    rows, spec = rows_of(finished), make()
    assert [(row["epoch"], row["architecture"]) for row in rows] == [(e, n) for e in (1, 2, 3) for n in range(NETWORKS)]
    table = ScoreTable.read(str(test_data / "nasbench201" / "nasbench201_cifar10.parquet"), spec.space, spec.encode)
    for row in rows:
        assert row["alpha"] == rows[row["architecture"]]["alpha"]
        assert row["table_score"] == table.score(FINAL, np.array(row["alpha"]))
        assert 0 <= row["score"] <= 1
    assert len({tuple(row["score"] for row in rows if row["epoch"] == e) for e in (1, 2, 3)}) > 1, "weights move"


def test_the_result_says_how_well_they_rank(finished: Path) -> None:
    result, rows = result_of(finished), rows_of(finished)
    taus = [
        kendalltau(*np.array([(row["score"], row["table_score"]) for row in rows if row["epoch"] == e]).T).statistic
        for e in (1, 2, 3)
    ]
    np.testing.assert_allclose(np.array(result["tau_by_epoch"], dtype=np.float64), taus)
    whats = [row["what"] for row in result["score_sheet"]]
    assert whats == [
        "result architecture with inherited weights",
        "result architecture, cifar10valid_valid_e12",
        f"result architecture, {FINAL}",
        f"random search with as many training epochs, 1 network(s) of 12 (expected), {FINAL}",
        f"Kendall's tau of inherited scores (val) with {FINAL}, {NETWORKS} networks",
    ]
    assert [row["split"] for row in result["score_sheet"]] == ["val", "val", "test", "test", "test"]
    assert result["score_sheet"][-1]["value"] == pytest.approx(taus[-1])


def test_probing_changes_nothing_of_the_search(finished: Path, words: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(search.main, *words, "--out", out).code == 0
    assert result_of(out)["fingerprint"] == result_of(finished)["fingerprint"]
    assert not (out / "probe.parquet").exists()
    assert "tau_by_epoch" not in result_of(out)
    assert "agrees" in run(report.main, finished, "--verify-fingerprint").out


def test_resumed_equals_never_stopped(finished: Path, probing: list[str], tmp_path: Path) -> None:
    """Also after a kill between an epoch's checkpoint and its probe."""
    out = tmp_path / "run"
    assert run(search.main, *probing, "--out", out, *ONE_EPOCH).code == 0
    assert [row["epoch"] for row in rows_of(out)] == [1] * NETWORKS
    (out / "probe.parquet").unlink()
    assert run(search.main, "--out", out, "--resume", *ONE_EPOCH).code == 0
    assert [row["epoch"] for row in rows_of(out)] == [1] * NETWORKS + [2] * NETWORKS
    said = run(search.main, "--out", out, "--resume")
    assert said.code == 0, said.err
    assert rows_of(out) == rows_of(finished)
    result, expected = result_of(out), result_of(finished)
    assert {**result, "seconds": 0} == {**expected, "seconds": 0}


@pytest.mark.parametrize("content", [b"", b"PAR1", "theta.parquet"])
def test_a_damaged_probe_is_said(probing: list[str], finished: Path, tmp_path: Path, content: bytes | str) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "run"))
    (out / "result.json").unlink()
    (out / "probe.parquet").write_bytes((out / content).read_bytes() if isinstance(content, str) else content)
    said = run(search.main, "--out", out, "--resume")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert f"RunDirError: {out}: probe.parquet cannot be read: " in said.err
